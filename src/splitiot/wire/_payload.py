"""Payloads: plain data with array leaves, to and from what stands in a message. There is no pickle."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from splitiot.codecs import RAW, Codec
from splitiot.errors import LocalProtocolError, RemoteProtocolError
from splitiot.pipeline import MAX_DEPTH, Payload, dtype_name, rebuilt
from splitiot.wire._messages import Array, Reply, Request

__all__ = ["Packed", "finite", "pack", "unpack"]

_ARRAY, _TUPLE, _SCALAR = 1, 2, 3  # MessagePack extensions
_PLAIN: Final = frozenset({bool, float, str, bytes})
_INDEX: Final = struct.Struct("<H")
_LIST: Final = msgspec.msgpack.Decoder(list[Any])


class Packed(msgspec.Struct, frozen=True):
    """A payload ready to stand in a Request or Reply."""

    names: tuple[str, ...] | None
    payload: Any
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
        string keys.
    codec : Codec

    Raises
    ------
    LocalProtocolError
        Something else stands in it; the message says where. There is no pickle.

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
    tree = _pack_tree(payload, codec, arrays, buffers)
    return Packed(None, tree, tuple(arrays), tuple(buffers))


def _flat(payload: dict[Any, Any]) -> bool:
    for name, array in payload.items():  # noqa: SIM110  (every request comes by here)
        if type(name) is not str or not isinstance(array, np.ndarray):
            return False
    return True


def _put(
    array: NDArray[Any], where: str, codec: Codec, arrays: list[Array], buffers: list[NDArray[Any] | bytes]
) -> None:
    dtype = dtype_name(array, where)
    if len(arrays) == 0xFFFF:
        raise LocalProtocolError("a payload can hold at most 65535 arrays")
    buffer = codec.encode(array)
    arrays.append((dtype, array.shape, len(buffer) if isinstance(buffer, bytes) else buffer.nbytes))
    buffers.append(buffer)


def _pack_tree(payload: Any, codec: Codec, arrays: list[Array], buffers: list[NDArray[Any] | bytes]) -> Any:
    """Put the arrays of any other payload aside; return the rest."""

    def leaf(value: Any, where: str, alone: bool) -> msgspec.msgpack.Ext:
        kind = _ARRAY if isinstance(value, np.ndarray) else _SCALAR
        _put(np.asarray(value) if kind == _SCALAR else value, where, codec, arrays, buffers)
        return msgspec.msgpack.Ext(kind, _INDEX.pack(len(arrays) - 1))

    return rebuilt([payload], 0, leaf, _pack_tuple)


def _pack_tuple(items: list[Any]) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_TUPLE, msgspec.msgpack.encode(items))


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
    arrays, names = message.arrays, message.names
    if len(buffers) != len(arrays):
        raise RemoteProtocolError(f"{len(arrays)} arrays but {len(buffers)} buffers")
    leaves: list[NDArray[Any]] = []
    try:
        for (dtype, shape, _), buffer in zip(arrays, buffers):  # noqa: B905  (as many: see above; strict is slow)
            array = codec.decode(buffer, dtype, shape)
            leaves.append(array.copy() if copy and not (array.flags.owndata and array.flags.writeable) else array)
    except (ValueError, OverflowError) as error:  # a length that fits 64 bits, but not the machine
        raise RemoteProtocolError(str(error)) from error
    if names is not None:
        named = dict(zip(names, leaves))  # noqa: B905  (checked at once)
        if not len(named) == len(names) == len(leaves):
            raise RemoteProtocolError(f"{len(leaves)} arrays but the names {names}")
        return named
    return _unpack_tree(message.payload, leaves)


def _unpack_tree(payload: Any, leaves: Sequence[NDArray[Any]]) -> Payload:
    """Put the arrays back where they stood."""

    def pick(data: bytes) -> Any:
        if len(data) != _INDEX.size:
            raise RemoteProtocolError("a payload's array position is not 2 bytes")
        (index,) = _INDEX.unpack(data)
        if index >= len(leaves):
            raise RemoteProtocolError(f"the payload names array {index} of {len(leaves)}")
        return leaves[index]

    def walk(value: Any, depth: int) -> Any:
        if isinstance(value, msgspec.msgpack.Ext):
            if value.code == _ARRAY:
                return pick(bytes(value.data))
            if value.code == _SCALAR:
                return pick(bytes(value.data))[()]
            if value.code == _TUPLE and depth < MAX_DEPTH:
                return tuple(walk(item, depth + 1) for item in _tuple(bytes(value.data)))
            raise RemoteProtocolError(f"the payload holds an unknown extension {value.code}, or is nested too deep")
        if isinstance(value, dict):
            if depth == MAX_DEPTH:
                raise RemoteProtocolError(f"the payload is nested more than {MAX_DEPTH} deep")
            return {key: walk(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            if depth == MAX_DEPTH:
                raise RemoteProtocolError(f"the payload is nested more than {MAX_DEPTH} deep")
            return [walk(item, depth + 1) for item in value]
        if value is None or type(value) in _PLAIN or type(value) is int:
            return value
        raise RemoteProtocolError(f"the payload holds a {type(value).__name__}")

    return walk(payload, 0)


def _tuple(data: bytes) -> list[Any]:
    try:
        return _LIST.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"unreadable payload: {error}") from error


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """The entries that are finite: NaN and infinities pass MessagePack."""
    return {name: value for name, value in numbers.items() if abs(value) < float("inf")}
