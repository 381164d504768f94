"""What a codec is."""

from __future__ import annotations

import abc
from typing import Any, Final

from numpy.typing import NDArray

from splitiot.pipeline import DTYPES

__all__ = ["MAX_DIMENSIONS", "Codec", "array_bytes"]

MAX_DIMENSIONS: Final = 32
"""Of an array that crosses: as many as every numpy knows."""


class Codec(abc.ABC):
    """How one array of a payload is packed.

    Attributes
    ----------
    name : str
        As it stands in a `splitiot.Placement` and on the wire.
    """

    name: str

    @abc.abstractmethod
    def encode(self, array: NDArray[Any]) -> NDArray[Any] | bytes:
        """Pack an array whose dtype is in `DTYPES`: contiguous, little-endian bytes unless its name has a `>`."""

    @abc.abstractmethod
    def decode(self, buffer: memoryview, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Unpack. The result may be a read-only view of `buffer`.

        Raises
        ------
        ValueError
            `buffer` can't hold such an array. Checked before anything is allocated.
        """

    @abc.abstractmethod
    def encoded_bytes(self, dtype: str, shape: tuple[int, ...]) -> float:
        """Bytes that such an array takes (the expectation, where it depends on the contents)."""


def array_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of an array's contents; ValueError for a type or a shape that can't cross."""
    known = DTYPES.get(dtype)
    if known is None:
        raise ValueError(f"arrays of type {dtype!r} can't cross; these can: {', '.join(sorted(DTYPES))}")
    if len(shape) > MAX_DIMENSIONS:  # before they are multiplied: their product may have any number of digits
        raise ValueError(f"an array of {len(shape)} dimensions can't cross: at most {MAX_DIMENSIONS}")
    size = known.itemsize
    for length in shape:
        if length < 0:
            raise ValueError(f"an array can't have the shape {shape}")
        size *= length
    return size
