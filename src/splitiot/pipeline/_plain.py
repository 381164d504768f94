"""Plain data: what can cross, and how a value is made one that nobody else holds.

Behind each place where a cut may lie a value is what crossing would make of it, also where no cut lies: plain, with
arrays that are contiguous, can be written, and belong to nobody else. So steps can't tell where the cut is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitiot.errors import LocalProtocolError

__all__ = ["DTYPES", "MAX_DEPTH", "copied", "dtype_name", "foreign", "own", "rebuilt", "shown"]

_NATIVE: Final = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_BIG_ENDIAN: Final = (">i2", ">i4", ">i8", ">u2", ">u4", ">u8", ">f2", ">f4", ">f8", ">c8", ">c16")

DTYPES: Mapping[str, np.dtype[Any]] = {name: np.dtype(name) for name in (*_NATIVE, *_BIG_ENDIAN)}
"""The types of arrays that can cross, by name. Names with a `>` are big-endian; the others this machine's own."""

MAX_DEPTH: Final = 32
_NAME_OF: Final[dict[np.dtype[Any], str]] = {DTYPES[name]: name for name in (*_BIG_ENDIAN, *_NATIVE)}
_SCALARS: Final = frozenset(DTYPES[name].type for name in _NATIVE)
_NUMPY: Final = (np.ndarray, np.generic)
_ATOMS: Final = frozenset({type(None), bool, float, bytes})

Leaf: TypeAlias = Callable[[Any, str, bool], Any]
"""Takes an array or a numpy scalar, where it stands, and whether nobody else holds it; returns what takes its place."""

Group: TypeAlias = Callable[[list[Any]], Any]
"""Takes the items of a tuple; returns what takes its place."""


def _has_refcounts() -> bool:
    """Whether this Python gives exact reference counts: PyPy does not, nor does one without a global lock."""
    return hasattr(sys, "getrefcount") and getattr(sys, "_is_gil_enabled", lambda: True)()


if _has_refcounts():
    _refcount: Callable[[Any], int] = sys.getrefcount
else:  # without reference counts every value counts as shared

    def _refcount(value: Any) -> int:
        return sys.maxsize


_ALONE: Final = 2  # references: the container's, and getrefcount's own argument


def own(box: list[Any], where: str) -> None:
    """Make the value in a box what crossing would make of it.

    Only what somebody else holds as well is copied. A fresh array, or one that was written in place, stays where it
    is; nobody but the box may hold the value for that.

    Parameters
    ----------
    box : list
        Of one value.
    where : str
        What the value is, for messages.

    Raises
    ------
    LocalProtocolError
        It is not plain data; the message says where.

    Examples
    --------
    >>> buffer = np.zeros(3)
    >>> box = [buffer]
    >>> own(box, "the result")
    >>> box[0] is buffer, box[0].tolist()
    (False, [0.0, 0.0, 0.0])
    """
    box[0] = rebuilt(box, 0, _owned, tuple, where)


def shown(box: list[Any], where: str) -> None:
    """Like `own`, but arrays are views that can't be written: nothing is copied that is contiguous already.

    Raises
    ------
    LocalProtocolError
    """
    box[0] = rebuilt(box, 0, _shown, tuple, where)


def rebuilt(
    holder: Any, key: Any, leaf: Leaf, group: Group, where: str = "", depth: int = 0, alone: bool = True
) -> Any:
    """Check that ``holder[key]`` is plain data, and make it anew, with other leaves.

    Parameters
    ----------
    holder : list, tuple or dict
        It is asked how often what it holds is held, so the caller must not keep the value in a variable.
    key : int or str
    leaf, group : callable
        Give what stands for an array or numpy scalar, and for a tuple.
    where : str
        The place, for messages.
    depth : int
    alone : bool
        Whether nobody else holds `holder`.

    Raises
    ------
    LocalProtocolError
        Something else stands in it; the message says where.
    """
    alone = alone and _refcount(holder[key]) == _ALONE
    value = holder[key]
    kind = type(value)
    if kind in _ATOMS:  # no subclasses: the receiver would get the base type
        return value
    if isinstance(value, _NUMPY):
        return leaf(value, where, alone)
    if kind is str:
        if not value.isascii():
            _check_text(value, where)
        return value
    if kind is int:
        if not -(2**63) <= value < 2**64:
            raise _refusal(where, f"an int of {value.bit_length()} bits does not fit 64 bits")
        return value
    if depth == MAX_DEPTH:
        raise _refusal(where, f"nested more than {MAX_DEPTH} deep")
    if kind is dict:
        for name in value:
            if type(name) is not str:
                raise _refusal(where, f"keys must be strings, got {name!r}")
            if not name.isascii():
                _check_text(name, where)
        return {
            name: value[name]
            if type(value[name]) in _ATOMS
            else rebuilt(value, name, leaf, group, f"{where}[{name!r}]", depth + 1, alone)
            for name in value
        }
    if kind is list or kind is tuple:
        items = [
            value[at]
            if type(value[at]) in _ATOMS  # a short way: long lists mostly hold numbers
            else rebuilt(value, at, leaf, group, f"{where}[{at}]", depth + 1, alone)
            for at in range(len(value))
        ]
        return items if kind is list else group(items)
    raise _refusal(
        where,
        f"a {kind.__name__} can't cross. Send numbers, strings, bytes, arrays, and lists, tuples and dicts of them; or "
        "annotate the task, so that no cut lies there",
    )


def dtype_name(array: NDArray[Any] | np.generic, where: str) -> str:
    """Return the name in `DTYPES` of an array's type.

    Raises
    ------
    LocalProtocolError
        It can't cross: another type, or a class of arrays with an arithmetic or contents of its own.
    """
    if type(array) is not np.ndarray and (why := foreign(array)):
        raise _refusal(where, why)
    name = _NAME_OF.get(array.dtype)
    if name is None:
        raise _refusal(where, f"arrays of type {array.dtype} can't cross")
    return name


def foreign(value: Any) -> str | None:
    """Why an array is of a class that can't cross; None where it is a plain one, or no array.

    A `numpy.memmap` is a plain one: it is read, and becomes an array in memory.

    Examples
    --------
    >>> foreign(np.zeros(3)), foreign(np.ma.zeros(3))
    (None, "a masked array can't cross, its mask would be lost")
    """
    kind = type(value)
    if kind is np.ndarray or kind is np.memmap or not isinstance(value, np.ndarray):
        return None
    if isinstance(value, np.ma.MaskedArray):
        return "a masked array can't cross, its mask would be lost"
    return (
        f"a {kind.__name__} can't cross: behind a cut it would be a plain array, with which the same operators may do "
        "something else. Make it plain with numpy.asarray(...)"
    )


def copied(value: Any, depth: int = 0) -> Any:
    """Copy plain data and what else is memory, so that whoever gave it may use its own again.

    Nothing is refused here. What is neither an array, a `bytearray`, a `memoryview`, nor a list, tuple, dict or set
    of such, stays the object that it is.

    Examples
    --------
    >>> buffer = np.zeros(2)
    >>> taken = copied({"x": buffer, "size": 2})
    >>> buffer += 1
    >>> taken["x"].tolist()
    [0.0, 0.0]
    """
    kind = type(value)
    if isinstance(value, np.ndarray):
        return np.array(value) if kind is np.memmap else value.copy()
    if kind is bytearray:
        return bytearray(value)
    if kind is memoryview:
        return _copied_view(value)
    if depth == MAX_DEPTH:
        return value
    if kind is dict:
        return {name: copied(item, depth + 1) for name, item in value.items()}
    if kind is list or kind is tuple:
        return kind([copied(item, depth + 1) for item in value])
    return set(value) if kind is set else value


def _copied_view(view: memoryview) -> memoryview:
    flat = memoryview(view.tobytes())
    return flat if view.format == "B" and view.ndim == 1 else flat.cast(view.format, view.shape)  # type: ignore[call-overload]


def _owned(value: Any, where: str, alone: bool) -> Any:
    if type(value) in _SCALARS:
        return value
    dtype = DTYPES[dtype_name(value, where)]
    if isinstance(value, np.generic):  # turns C's long long into the integer type of the same width
        return dtype.type(value)
    if alone and value.dtype.num == dtype.num and value.flags.carray and type(value) is np.ndarray:
        if value.flags.owndata:
            return value
        # a view: return it if nobody else holds its memory
        base = value.base
        if type(base) is np.ndarray and base.flags.owndata:
            del base
            if _refcount(value.base) == _ALONE:
                return value
    return _copy(value, dtype)


def _shown(value: Any, where: str, alone: bool) -> Any:
    if not isinstance(value, np.ndarray):
        return _owned(value, where, alone)
    dtype = DTYPES[dtype_name(value, where)]
    if type(value) is np.ndarray and value.dtype.num == dtype.num and value.flags.c_contiguous and value.flags.aligned:
        array = value.view()
    else:
        array = _copy(value, dtype)
    array.flags.writeable = False
    return array


def _copy(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    copy = np.empty(array.shape, dtype)  # np.array and astype would keep C's long long
    copy[...] = array
    return copy


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refusal(where, "text that is no Unicode can't cross") from error


def _refusal(where: str, reason: str) -> LocalProtocolError:
    return LocalProtocolError(f"{where or 'the payload'}: {reason}")
