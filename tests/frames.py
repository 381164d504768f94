"""Frames that somebody has changed, for the tests and for `tools/fuzz_frames.py`."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from splitiot import wire

ODD: tuple[Any, ...] = (
    None, True, 0, 1, -1, 31, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), "", "raw",
    "\u20ac", b"", bytes(8), bytes(16), bytes(32), [], {}, [[]], [0, 0], {"a": 1}, [["int8", [0], 0]],
    [b"\x05\x01\0\0\0"], [b"\x01\x01\0\0\0", [1]], msgspec.msgpack.Ext(1, b"\0\0"),
)  # fmt: skip


def mutant(chance: random.Random, sources: Sequence[bytes]) -> bytes:
    """One of the frames with bytes or fields changed, or noise behind a sound prefix."""
    frame, way = chance.choice(sources), chance.random()
    if way < 0.45:
        return _bytes_changed(chance, frame)
    if way < 0.9:
        return _fields_changed(chance, frame)
    noise = chance.randbytes(chance.randrange(120))
    kind = chance.randrange(1, len(wire.KINDS) + 1)
    return _framed(kind, noise, chance.randbytes(16 * chance.randrange(3)))


def _bytes_changed(chance: random.Random, frame: bytes) -> bytes:
    changed = bytearray(frame)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[at:at] = chance.randbytes(chance.randrange(4))
            case 2:
                del changed[at : at + chance.randrange(6)]
            case _:
                changed[at : at + 1] = bytes([changed[at - 1] ^ 1 << chance.randrange(8)] if changed else ())
    if chance.random() < 0.5 and len(changed) >= 16:  # sound lengths, so that the header is read
        length = int.from_bytes(frame[4:8], "little")
        body = len(frame) - 16 - length - -length % 16
        header = bytes(changed[16 : len(changed) - body - -length % 16])
        return _framed(frame[3], header, bytes(frame[len(frame) - body :]) if body else b"")
    return bytes(changed)


def _fields_changed(chance: random.Random, frame: bytes) -> bytes:
    length = int.from_bytes(frame[4:8], "little")
    fields = msgspec.msgpack.decode(frame[16 : 16 + length])
    for _ in range(chance.choice((1, 1, 2))):
        _change(chance, fields)
    return _framed(frame[3], msgspec.msgpack.encode(fields), frame[16 + length + -length % 16 :])


def _change(chance: random.Random, fields: Any) -> None:
    """Change something in a list or dict, however deep."""
    keys = list(fields) if isinstance(fields, dict) else list(range(len(fields)))
    if not keys:
        return
    key = chance.choice(keys)
    inner = fields[key]
    if isinstance(inner, list | dict) and chance.random() < 0.7:
        _change(chance, inner)
    elif isinstance(inner, bytes) and inner and chance.random() < 0.7:
        fields[key] = _bytes_changed(chance, inner)[:200] if len(inner) < 16 else bytes([inner[0] ^ 1]) + inner[1:]
    elif isinstance(fields, list) and chance.random() < 0.2:
        fields.insert(key, copy.deepcopy(chance.choice(ODD)))
    else:
        fields[key] = copy.deepcopy(chance.choice(ODD))


def _framed(kind: int, header: bytes, body: bytes) -> bytes:
    sizes = len(header).to_bytes(4, "little") + len(body).to_bytes(4, "little") + bytes(4)
    return wire.MAGIC + bytes([wire.VERSION, kind]) + sizes + header + bytes(-len(header) % 16) + body
