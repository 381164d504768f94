"""Arrays out of .npy and .npz files, without trusting what these say of their size."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitiot._files import read_bounded
from splitiot.cli._errors import UsageError

__all__ = ["MOST_BYTES", "read_arrays"]

MOST_BYTES: Final = 1 << 28
"""Of an input's file, and of all that is packed in it."""
_NPY: Final = b"\x93NUMPY"
_MOST_ARRAYS: Final = 10_000


def read_arrays(path: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Read the array of a .npy file, or those of a .npz file by name. No memory is taken before it is there to be read.

    Raises
    ------
    UsageError
        It can't be read, is neither of them, too large, or holds objects.
    """
    data = read_bounded(path, most_bytes=MOST_BYTES, what="an input", error=UsageError)
    try:
        return _array(data) if data.startswith(_NPY) else _archive(data)
    except Exception as error:  # a header is read by Python's own parser, and zipfile too raises many things
        raise UsageError(f"{path} is no .npy or .npz file that can be read: {error}") from error


def _array(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the format is not known: save it with numpy.save")
    if dtype.hasobject:
        raise ValueError("it holds Python objects: save an array of numbers")
    count: int = math.prod(shape)
    available, expected = len(data) - stream.tell(), count * dtype.itemsize
    if min(shape, default=0) < 0 or available != expected or (count > 0 and not dtype.itemsize):
        raise ValueError(f"its header tells of shape {shape} and {expected} bytes, but {available} are there")
    flat = np.frombuffer(data, dtype, offset=stream.tell()) if expected else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy("A")


def _archive(data: bytes) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    left = MOST_BYTES
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_ARRAYS:
            raise ValueError(f"it has {len(entries)} arrays, at most {_MOST_ARRAYS} are allowed")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
                raise ValueError(f"{name!r} is packed as numpy does not: save it with numpy.savez")
            if entry.file_size > left:
                raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
            if name in arrays:
                raise ValueError(f"it has two arrays called {name!r}")
            with archive.open(entry) as packed:
                unpacked = packed.read(entry.file_size + 1)
            left -= len(unpacked)
            arrays[name] = _array(unpacked)
    return arrays
