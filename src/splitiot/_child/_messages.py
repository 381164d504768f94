"""What parent and child say to each other: byte strings, as many as a message has.

0   4  b"SIch"
4   4  how many
8      8 bytes for the length of each, in the machine's byte order, then the byte strings
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BufferedReader, FileIO
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitiot.errors import LocalProtocolError

__all__ = ["MAX_BYTES", "Garbled", "Message", "frame", "read", "write"]

MAX_BYTES: Final = 2**30
"""Of one message, unless both sides agree on another limit."""

_MAGIC: Final = b"SIch"
_PREFIX: Final = struct.Struct("=4sI")
_MOST_PIECES: Final = 2**20
_JOINED_BYTES: Final = 2**18

Message: TypeAlias = list[memoryview]
"""Each has memory of its own: it can be written, and does not keep the others."""


class Garbled(Exception):
    """Bytes that are no message: memory was overwritten, or somebody else wrote into the pipe."""


def frame(pieces: Sequence[bytes | NDArray[Any]], max_bytes: int = MAX_BYTES) -> list[Any]:
    """Make what `write` writes.

    Raises
    ------
    LocalProtocolError
        It is too much.
    """
    sizes = [piece.nbytes if isinstance(piece, np.ndarray) else len(piece) for piece in pieces]
    nbytes = sum(sizes)
    if nbytes > max_bytes or len(sizes) > _MOST_PIECES:
        raise LocalProtocolError(f"{nbytes} bytes are too many to cross: at most {max_bytes} can")
    # not every dtype can be a memoryview
    views = (piece.reshape(-1).view(np.uint8) if isinstance(piece, np.ndarray) else piece for piece in pieces)
    framed: list[Any] = [_PREFIX.pack(_MAGIC, len(sizes)) + struct.pack(f"={len(sizes)}Q", *sizes), *views]
    return [b"".join(framed)] if nbytes <= _JOINED_BYTES else framed


def write(stream: FileIO, framed: list[Any]) -> None:
    """Write a message."""
    for piece in framed:
        left = memoryview(piece)
        while left:
            left = left[stream.write(left) :]


def read(stream: BufferedReader[FileIO], max_bytes: int = MAX_BYTES) -> Message:
    """Read one message; every length is checked before memory is taken for it.

    Raises
    ------
    EOFError
        The other side is gone.
    Garbled
    """
    magic, count = _PREFIX.unpack(_read(stream, _PREFIX.size))
    if magic != _MAGIC or count > _MOST_PIECES:
        raise Garbled("no message of splitiot's")
    sizes = struct.unpack(f"={count}Q", _read(stream, 8 * count))
    if sum(sizes) > max_bytes:
        raise Garbled("impossible lengths")
    return [_read(stream, size) for size in sizes]


def _read(stream: BufferedReader[FileIO], size: int) -> memoryview:
    whole = memoryview(np.empty(size, np.uint8).data)
    left = whole
    while left:
        got = stream.readinto(left)
        if not got:
            raise EOFError
        left = left[got:]
    return whole
