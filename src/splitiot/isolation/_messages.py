"""What the two sides of an isolated function say to each other: one message, one answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

import msgspec

from splitiot._child import Garbled, Message
from splitiot.errors import LocalProtocolError, RemoteProtocolError
from splitiot.wire import Packed, Tree, unpack

__all__ = ["Header", "Kind", "decode", "encode"]

Kind: TypeAlias = Literal["ready", "call", "result", "drop", "raised", "uncrossable", "memory", "end", "ended"]


class _Payload(msgspec.Struct, frozen=True, array_like=True):
    """What `Packed` holds, without the buffers."""

    names: tuple[str, ...] | None
    payload: Tree | None
    arrays: tuple[tuple[str, tuple[int, ...], int], ...]


class Header(msgspec.Struct, frozen=True, array_like=True):
    """A message's first byte string, in MessagePack; the buffers of its payloads follow."""

    kind: Kind
    payloads: tuple[_Payload, ...] = ()
    text: str = ""
    trace: str = ""


_DECODER: Final = msgspec.msgpack.Decoder(Header)


def encode(kind: Kind, payloads: Sequence[Packed] = (), text: str = "", trace: str = "") -> list[Any]:
    """Make a message.

    Raises
    ------
    LocalProtocolError
        It holds text that is no Unicode.
    """
    described = tuple(_Payload(p.names, p.payload, p.arrays) for p in payloads)
    try:
        header = msgspec.msgpack.encode(Header(kind, described, text, trace))
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that is no Unicode can't cross: {error}") from error
    return [header, *(buffer for p in payloads for buffer in p.buffers)]


def decode(message: Message) -> tuple[Header, list[Any]]:
    """Read a message; return its header and its payloads.

    Raises
    ------
    Garbled
    """
    try:
        header = _DECODER.decode(message[0])
        buffers = iter(message[1:])
        payloads = [
            unpack(Packed(p.names, p.payload, p.arrays, ()), [*islice(buffers, len(p.arrays))])
            for p in header.payloads
        ]
    except (IndexError, msgspec.DecodeError, RecursionError, RemoteProtocolError, UnicodeDecodeError) as error:
        raise Garbled(str(error)) from error
    return header, payloads
