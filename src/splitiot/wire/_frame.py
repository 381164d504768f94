"""Frames: a prefix, a header, buffers."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from numpy.typing import NDArray

from splitiot.errors import LocalProtocolError, PayloadTooLarge, RemoteProtocolError
from splitiot.wire._messages import KINDS, MAX_FRAME_BYTES, Message, Reply, Request

__all__ = ["MAGIC", "MAX_HEADER_BYTES", "VERSION", "decode", "encode", "frame_length", "no_frame"]

VERSION: Final = 2

MAX_HEADER_BYTES: Final = 2**20
"""What is not an array stands in the header."""

MAGIC: Final = b"SI"
_PREFIX: Final = struct.Struct("<2sBBIII")
_MAX_TRAILER_BYTES: Final = 4096
_PLACE: Final = re.compile(r"\$\[(\d+)\]")
_SHOWN_BYTES: Final = 60
_ZEROS: Final = bytes(16)
_NUMBER_OF: Final = {kind: number for number, kind in enumerate(KINDS, start=1)}
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[list[msgspec.msgpack.Decoder[Any]]] = [msgspec.msgpack.Decoder(kind) for kind in KINDS]
_CARRIERS: Final = (Request, Reply)


def encode(message: Message, buffers: Sequence[NDArray[Any] | bytes] = ()) -> bytes:
    """Make a frame of a message and its packed arrays (or a probe's padding).

    Raises
    ------
    LocalProtocolError
        It holds text that is no Unicode.
    PayloadTooLarge
    """
    try:
        header = _ENCODER.encode(message)
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that is no Unicode can't cross: {error}") from error
    length = len(header)
    pieces: list[Any] = [b"", header, _ZEROS[: -length % 16]]
    body = 0
    for buffer in buffers:
        size = len(buffer) if isinstance(buffer, bytes) else buffer.nbytes
        pieces.append(buffer)
        if padding := -size % 16:
            pieces.append(_ZEROS[:padding])
        body += size + padding
    if body > 0xFFFFFFFF or length > MAX_HEADER_BYTES:
        raise PayloadTooLarge(
            f"a frame with {length} bytes of header and {body} of arrays is too large to send: numbers that stand in "
            "arrays, and bytes, take no room in the header"
        )
    pieces[0] = _PREFIX.pack(MAGIC, VERSION, _NUMBER_OF[type(message)], length, body, 0)
    return b"".join(pieces)


def no_frame(data: bytes | bytearray | memoryview, said: str = "") -> str:
    """Say that these bytes are no frame, and what they look like.

    Parameters
    ----------
    data : bytes
        The first ones do.
    said : str
        What they are said to be, such as a content type.

    Examples
    --------
    >>> no_frame(b"<!DOCTYPE html><html>Please log in", "text/html")
    "no splitiot frame but a web page (text/html), which begins '<!DOCTYPE html><html>Please log in'"
    """
    start = bytes(memoryview(data)[:_SHOWN_BYTES])
    text = " ".join(start.decode("latin-1").split())
    page = text.lower().startswith(("<!doctype", "<html", "<head"))
    kind = "a web page" if page else "something else" if start else "nothing"
    kind += f" ({said})" if said else ""
    shown = repr(text) if text.isascii() and text.isprintable() else repr(start[: _PREFIX.size])
    return f"no splitiot frame but {kind}" + (f", which begins {shown}" if start else "")


def frame_length(start: bytes) -> int | None:
    """Return how many bytes a frame has that begins so; None where it is none of this version.

    Parameters
    ----------
    start : bytes
        The first 16 do.
    """
    if len(start) < _PREFIX.size:
        return None
    magic, version, _, length, body, trailer = _PREFIX.unpack_from(start)
    return _PREFIX.size + length + -length % 16 + body + trailer if (magic, version) == (MAGIC, VERSION) else None


def _field(kind: type[Message], position: int) -> str:
    names = kind.__struct_fields__
    return names[position] if position < len(names) else f"field {position}"


def decode(
    frame: bytes | bytearray | memoryview, *, max_frame_bytes: int = MAX_FRAME_BYTES
) -> tuple[Message, list[memoryview]]:
    """Read a frame: the message, and views of its arrays' buffers.

    Raises
    ------
    RemoteProtocolError
        Anything that is not a whole, well-formed frame of this version.
    """
    view = memoryview(frame) if isinstance(frame, bytes) else memoryview(frame).toreadonly()
    total = view.nbytes
    if total > max_frame_bytes:
        raise RemoteProtocolError(f"a frame of {total} bytes; at most {max_frame_bytes} are accepted")
    if total < _PREFIX.size:
        short = f"a frame of {total} bytes is shorter than its prefix"
        raise RemoteProtocolError(short if bytes(view[:2]) == MAGIC else no_frame(frame))
    magic, version, number, length, body, trailer = _PREFIX.unpack_from(frame)
    if magic != MAGIC:
        raise RemoteProtocolError(no_frame(frame))
    if version != VERSION:
        raise RemoteProtocolError(f"protocol version {version}, this side speaks {VERSION}: update the older side")
    if not 1 <= number <= len(KINDS):
        raise RemoteProtocolError(f"unknown kind of message {number}")
    start = _PREFIX.size + length + -length % 16
    if length > MAX_HEADER_BYTES or trailer > _MAX_TRAILER_BYTES or start + body + trailer != total:
        raise RemoteProtocolError(f"a frame of {total} bytes that says {start + body + trailer}: cut off or garbled")
    total -= trailer
    try:
        message: Message = _DECODERS[number - 1].decode(view[_PREFIX.size : _PREFIX.size + length])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        kind = KINDS[number - 1]
        named = _PLACE.sub(lambda at: _field(kind, int(at[1])), str(error), count=1)
        raise RemoteProtocolError(f"unreadable header of a {kind.__name__}: {named}") from error
    views: list[memoryview] = []
    arrays: Any = message.arrays if isinstance(message, _CARRIERS) else ((None, None, body),) if body else ()
    for _, _, size in arrays:
        if size < 0 or start + size > total:
            raise RemoteProtocolError("the arrays reach beyond the frame")
        views.append(view[start : start + size])
        start += size + -size % 16
    if start != total:
        raise RemoteProtocolError(f"{total - start} bytes of the frame belong to no array")
    return message, views
