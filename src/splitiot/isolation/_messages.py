"""What parent and child say to each other, over pipes: one message, one answer.

0   4  b"SIso"
4   4  bytes of the header, in the machine's byte order
8      header in MessagePack, then the arrays' buffers
"""

from __future__ import annotations

import struct
from io import FileIO
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from splitiot.errors import LocalProtocolError
from splitiot.wire import Packed, Tree, unpack

__all__ = ["Garbled", "Kind", "Message", "Received", "frame", "receive", "send", "unpacked"]

_MAGIC: Final = b"SIso"
_PREFIX: Final = struct.Struct("=4sI")
_MAX_BYTES: Final = 2**30  # of the header, and of all arrays
_JOINED_BYTES: Final = 2**18

Kind: TypeAlias = Literal["ready", "call", "result", "drop", "raised", "uncrossable", "memory", "end", "ended"]


class _Part(msgspec.Struct, frozen=True, array_like=True):
    """One payload: what `Packed` holds, without the buffers."""

    names: tuple[str, ...] | None
    payload: Tree | None
    arrays: tuple[tuple[str, tuple[int, ...], int], ...]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """One message, without the arrays' buffers."""

    kind: Kind
    parts: tuple[_Part, ...] = ()
    text: str = ""
    trace: str = ""


Received: TypeAlias = tuple[Message, list[list[memoryview]]]  # with the buffers of each part
_DECODER: Final = msgspec.msgpack.Decoder(Message)


class Garbled(Exception):
    """Bytes that are no message: memory was overwritten, or somebody else wrote into the pipe."""


def frame(kind: Kind, payloads: tuple[Packed, ...] = (), text: str = "", trace: str = "") -> list[Any]:
    """Make the pieces of a message.

    Raises
    ------
    LocalProtocolError
        It is too large, or holds text that is no Unicode.
    """
    parts = tuple(_Part(p.names, p.payload, p.arrays) for p in payloads)
    try:
        header = msgspec.msgpack.encode(Message(kind, parts, text, trace))
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that is no Unicode can't cross: {error}") from error
    nbytes = sum(p.nbytes for p in payloads)
    if max(nbytes, len(header)) > _MAX_BYTES:
        raise LocalProtocolError(f"{nbytes + len(header)} bytes are too many to cross: at most {_MAX_BYTES} can")
    pieces: list[Any] = [_PREFIX.pack(_MAGIC, len(header)) + header, *(b for p in payloads for b in p.buffers)]
    return [b"".join(pieces)] if nbytes <= _JOINED_BYTES else pieces


def send(stream: FileIO, pieces: list[Any]) -> None:
    """Write a message."""
    for piece in pieces:
        if not isinstance(piece, bytes):
            piece = piece.reshape(-1).view(np.uint8)
        left = memoryview(piece)
        while left:
            left = left[stream.write(left) :]


def receive(stream: FileIO) -> Received:
    """Read one message; every length is checked before memory is taken for it.

    Raises
    ------
    EOFError
        The other side is gone.
    Garbled
    """
    magic, length = _PREFIX.unpack(_read(stream, _PREFIX.size))
    if magic != _MAGIC or length > _MAX_BYTES:
        raise Garbled("no message of splitiot's")
    try:
        message = _DECODER.decode(_read(stream, length))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Garbled(f"an unreadable header: {error}") from error
    sizes = [[size for _, _, size in part.arrays] for part in message.parts]
    if any(size < 0 for part in sizes for size in part) or sum(map(sum, sizes)) > _MAX_BYTES:
        raise Garbled("impossible lengths")
    # each array has memory of its own: it can be written, and does not keep the others
    return message, [[_read(stream, size) for size in part] for part in sizes]


def _read(stream: FileIO, size: int) -> memoryview:
    whole = memoryview(np.empty(size, np.uint8).data)
    left = whole
    while left:
        got = stream.readinto(left)
        if not got:
            raise EOFError
        left = left[got:]
    return whole


def unpacked(received: Received) -> list[Any]:
    """Put the payloads of a message together.

    Raises
    ------
    RemoteProtocolError
        They do not fit.
    """
    message, buffers = received
    return [
        unpack(Packed(part.names, part.payload, part.arrays, ()), views)
        for part, views in zip(message.parts, buffers, strict=True)
    ]
