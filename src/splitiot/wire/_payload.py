"""Payloads: plain data with array leaves, to and from what stands in a message. There is no pickle."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from splitiot.codecs import MAX_DIMENSIONS, RAW, Codec
from splitiot.errors import LocalProtocolError, PayloadTooLarge, RemoteProtocolError
from splitiot.pipeline import MAX_DEPTH, Payload, dtype_name, rebuilt
from splitiot.wire._messages import MAX_ARRAYS, MAX_PIECES, MAX_TELEMETRY, PIECE_BYTES, Array, Reply, Request, Tree

__all__ = ["Packed", "finite", "pack", "unpack"]

_PLAIN, _BYTES, _ARRAY, _SCALAR, _LIST, _TUPLE, _DICT = range(1, 8)
"""What a piece of a tree is: so many plain values, bytes, arrays or numpy scalars next to each other, or a list, tuple
or dict of so many items, whose pieces follow."""

_KEYS: Final = 0  # the column; those of values, bytes and arrays have the numbers of their kinds
_FLAT: Final = 8
"""Added to a list, tuple or dict: its items are the next plain values, and no pieces of it follow."""

_LARGE: Final = 8
"""Bytes, too: of those that would fill the header each has a buffer, behind the arrays' ones."""

_LARGE_BYTES: Final = 4096

_COLUMNS: Final = {_PLAIN: 1, _BYTES: 2, _ARRAY: 3, _SCALAR: 3, _LARGE: 4}
"""Where the next values of a kind stand."""

_PIECE: Final = struct.Struct("<BI")
assert _PIECE.size == PIECE_BYTES


class _Mark:
    """Stands for an array; those for numpy scalars are of the class below."""


class _ScalarMark(_Mark):
    pass


_MARKS: Final = (_Mark(), _ScalarMark())
_KINDS: Final[dict[type, int]] = {
    type(None): _PLAIN,
    bool: _PLAIN,
    int: _PLAIN,
    float: _PLAIN,
    str: _PLAIN,
    bytes: _BYTES,
    _Mark: _ARRAY,
    _ScalarMark: _SCALAR,
    list: _LIST,
    tuple: _TUPLE,
    dict: _DICT,
}
_GROUPS: Final = (_LIST, _TUPLE, _DICT)
_PLAIN_TYPES: Final = frozenset(kind for kind, number in _KINDS.items() if number == _PLAIN)


class Packed(msgspec.Struct, frozen=True):
    """A payload ready to stand in a Request or Reply."""

    names: tuple[str, ...] | None
    payload: Tree | None
    arrays: tuple[Array, ...]
    buffers: tuple[NDArray[Any] | bytes, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(array[2] for array in self.arrays)


def pack(payload: Payload, codec: Codec = RAW) -> Packed:
    """Replace the arrays of a payload by positions, and pack them.

    Parameters
    ----------
    payload : plain data with array leaves
        None, bool, int (64 bits), float, str, bytes, arrays and numpy scalars; in lists, tuples and dicts with
        string keys. At most `splitiot.wire.MAX_ARRAYS` arrays and numpy scalars, and `splitiot.wire.MAX_PIECES` lists,
        tuples, dicts and runs of values between them.
    codec : Codec

    Raises
    ------
    LocalProtocolError
        Something else stands in it; the message says where. There is no pickle.
    PayloadTooLarge
        Too much of it.

    Examples
    --------
    >>> packed = pack({"x": np.zeros((2, 2), np.float32), "label": "cat"})
    >>> packed.arrays
    (('float32', (2, 2), 16),)
    """
    arrays: list[Array] = []
    buffers: list[NDArray[Any] | bytes] = []

    if type(payload) is dict and _flat(payload):
        for name, array in payload.items():
            _put(array, name, codec, arrays, buffers)
        return Packed(tuple(payload), None, tuple(arrays), tuple(buffers))
    return Packed(None, _tree(payload, codec, arrays, buffers), tuple(arrays), tuple(buffers))


def _flat(payload: dict[Any, Any]) -> bool:
    for name, array in payload.items():  # noqa: SIM110  (every request comes by here)
        if type(name) is not str or not isinstance(array, np.ndarray):
            return False
    return True


def _put(
    array: NDArray[Any], where: str, codec: Codec, arrays: list[Array], buffers: list[NDArray[Any] | bytes]
) -> None:
    dtype = dtype_name(array, where)
    _expect_room(arrays, where)
    if array.ndim > MAX_DIMENSIONS:
        raise LocalProtocolError(f"{where}: arrays of {array.ndim} dimensions can't cross: at most {MAX_DIMENSIONS}")
    buffer = codec.encode(array)
    arrays.append((dtype, array.shape, len(buffer) if isinstance(buffer, bytes) else buffer.nbytes))
    buffers.append(buffer)


def _expect_room(arrays: list[Array], where: str) -> None:
    if len(arrays) == MAX_ARRAYS:
        raise PayloadTooLarge(
            f"{where}: a payload can hold at most {MAX_ARRAYS} arrays and numpy scalars: put them in one array"
        )


def _kind_of(item: Any) -> int:
    kind = _KINDS[type(item)]
    return _LARGE if kind == _BYTES and len(item) > _LARGE_BYTES else kind


def _tree(payload: Any, codec: Codec, arrays: list[Array], buffers: list[NDArray[Any] | bytes]) -> Tree | None:
    """Put the arrays of any other payload aside, and write the rest in pieces."""

    def leaf(value: Any, where: str, alone: bool) -> _Mark:
        scalar = not isinstance(value, np.ndarray)
        _put(np.asarray(value) if scalar else value, where, codec, arrays, buffers)
        return _MARKS[scalar]

    if payload is None:
        return None
    large: list[bytes] = []
    pieces: list[bytes] = []
    values: list[bool | int | float | str | None] = []
    keys: list[str] = []
    blobs: list[bytes] = []

    def write(items: Sequence[Any]) -> None:
        for kind, run in groupby(items, _kind_of):
            if kind in _GROUPS:
                for item in run:
                    write_group(kind, item)
                continue
            alike = list(run)
            pieces.append(_PIECE.pack(kind, len(alike)))
            if kind == _PLAIN:
                values.extend(alike)
            elif kind == _BYTES:
                blobs.extend(alike)
            elif kind == _LARGE:
                large.extend(alike)

    def write_group(kind: int, group: Any) -> None:
        if kind == _DICT:
            keys.extend(group)
            group = list(group.values())
        flat = set(map(type, group)) <= _PLAIN_TYPES
        pieces.append(_PIECE.pack(kind + _FLAT * flat, len(group)))
        if flat:
            values.extend(group)
        else:
            write(group)

    write([rebuilt([payload], 0, leaf, tuple)])
    if len(pieces) > MAX_PIECES:
        raise PayloadTooLarge(
            f"the payload has {len(pieces)} pieces (lists, tuples, dicts, and runs of values in them), and at most "
            f"{MAX_PIECES} can cross: put numbers in arrays, or a table in one list for each column"
        )
    for blob in large:
        _expect_room(arrays, "bytes")
        arrays.append(("uint8", (len(blob),), len(blob)))
        buffers.append(blob)
    return Tree(b"".join(pieces), tuple(values), tuple(keys), tuple(blobs))


def unpack(
    message: Request | Reply | Packed,
    buffers: Sequence[memoryview],
    codec: Codec = RAW,
    *,
    copy: bool = False,
) -> Payload:
    """Put the arrays back; the inverse of `pack`.

    Parameters
    ----------
    message : Request, Reply or Packed
    buffers : sequence of memoryview
        As `decode` gave them.
    codec : Codec
    copy : bool
        Give arrays that own their memory and can be written; else they may be read-only views of the frame.

    Raises
    ------
    RemoteProtocolError
        The parts do not fit together.
    """
    arrays, names, tree = message.arrays, message.names, message.payload
    if len(buffers) != len(arrays):
        raise RemoteProtocolError(f"{len(arrays)} arrays but {len(buffers)} buffers")
    large: list[bytes] = []
    if tree is not None and (count := _count_large(tree)):
        large = [bytes(buffer) for buffer in buffers[-count:]]
        arrays = arrays[:-count]
    leaves: list[NDArray[Any]] = []
    try:
        for (dtype, shape, _), buffer in zip(arrays, buffers):  # noqa: B905  (at least as many; strict is slow)
            array = codec.decode(buffer, dtype, shape)
            leaves.append(array.copy() if copy and not (array.flags.owndata and array.flags.writeable) else array)
    except (ValueError, OverflowError) as error:  # a length that fits 64 bits, but not the machine
        raise RemoteProtocolError(str(error)) from error
    if names is not None:
        named = dict(zip(names, leaves))  # noqa: B905  (checked at once)
        if not len(named) == len(names) == len(leaves):
            raise RemoteProtocolError(f"{len(leaves)} arrays but the names {names}")
        return named
    if tree is None:
        if leaves:
            raise RemoteProtocolError(f"{len(leaves)} arrays, but a payload without any")
        return None
    return _read(tree, leaves, large)


def _count_large(tree: Tree) -> int:
    """How many of the last buffers are bytes."""
    if _LARGE not in tree.pieces[::PIECE_BYTES] or len(tree.pieces) % PIECE_BYTES:
        return 0
    return sum(size for kind, size in _PIECE.iter_unpack(tree.pieces) if kind == _LARGE)


def _read(tree: Tree, arrays: Sequence[NDArray[Any]], large: Sequence[bytes]) -> Payload:
    """Put the values and arrays back where they stood."""
    if len(tree.pieces) % PIECE_BYTES:
        raise RemoteProtocolError("the payload's pieces are cut off")
    pieces = _PIECE.iter_unpack(tree.pieces)
    columns: tuple[Sequence[Any], ...] = (tree.keys, tree.values, tree.blobs, arrays, large)
    at = [0, 0, 0, 0, 0]

    def taken(column: int, size: int) -> Sequence[Any]:
        begin = at[column]
        at[column] = end = begin + size
        some = columns[column][begin:end]
        if len(some) != size:
            raise RemoteProtocolError("the payload's pieces name more values than there are")
        return some

    def items(count: int, depth: int) -> list[Any]:
        got: list[Any] = []
        left = count
        while left > 0:
            kind, size = next(pieces, (0, 0))
            if kind < _LIST or kind == _LARGE:
                if kind == 0 or not 0 < size <= left:
                    raise RemoteProtocolError("the payload's pieces do not fit together")
                some = taken(_COLUMNS[kind], size)
                got += some if kind != _SCALAR else [array[()] for array in some]
                left -= size
                continue
            if depth == MAX_DEPTH:
                raise RemoteProtocolError(f"the payload is nested more than {MAX_DEPTH} deep")
            names = taken(_KEYS, size) if kind & _DICT == _DICT else ()
            inner = taken(_PLAIN, size) if kind > _FLAT else items(size, depth + 1)
            kind &= ~_FLAT
            if kind == _LIST:
                got.append(list(inner))
            elif kind == _TUPLE:
                got.append(tuple(inner))
            elif kind == _DICT:
                mapping = dict(zip(names, inner))  # noqa: B905  (as many; strict is slow)
                if len(mapping) != size:
                    raise RemoteProtocolError("the payload holds a dict with the same key twice")
                got.append(mapping)
            else:
                raise RemoteProtocolError(f"the payload holds an unknown kind of piece, {kind}")
            left -= 1
        return got

    (payload,) = items(1, 0)
    if next(pieces, None) is not None or at != [len(column) for column in columns]:
        raise RemoteProtocolError("the payload holds more than its pieces name")
    return payload


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the entries that are finite: NaN and infinities pass MessagePack.

    Raises
    ------
    LocalProtocolError
        They are more than `splitiot.wire.MAX_TELEMETRY`.
    """
    if len(numbers) > MAX_TELEMETRY:
        raise LocalProtocolError(f"telemetry of {len(numbers)} numbers can't cross: at most {MAX_TELEMETRY}")
    return {name: value for name, value in numbers.items() if abs(value) < float("inf")}
