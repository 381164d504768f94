"""The arrays' own bytes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitiot.codecs._base import Codec, array_bytes
from splitiot.pipeline import DTYPES

__all__ = ["Raw"]

_BIG = sys.byteorder == "big"


class Raw(Codec):
    """Send arrays as they are: exact, no time, no saving.

    Examples
    --------
    >>> codec = Raw()
    >>> packed = codec.encode(np.arange(3, dtype=np.int16))
    >>> codec.decode(memoryview(packed).cast("B"), "int16", (3,)).tolist()
    [0, 1, 2]
    """

    name = "raw"

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        if _BIG:
            array = array.astype(array.dtype.newbyteorder("<"))
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)

    def decode(self, buffer: memoryview, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        expected = array_bytes(dtype, shape)
        if buffer.nbytes != expected:
            raise ValueError(f"{dtype} of shape {shape} takes {expected} bytes, got {buffer.nbytes}")
        if _BIG and not dtype.startswith(">"):
            little: NDArray[Any] = np.frombuffer(buffer, DTYPES[dtype].newbyteorder("<"))
            return little.astype(dtype).reshape(shape)
        return np.ndarray(shape, DTYPES[dtype], buffer)

    def encoded_bytes(self, dtype: str, shape: tuple[int, ...]) -> float:
        return float(array_bytes(dtype, shape))
