"""Random inputs: enough to run a network, and no more. What they mean only its user knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitiot.errors import ModelError
from splitiot.pipeline import TensorSpec

__all__ = ["blame_random_input", "random_payload"]

_NO_LIMITS: Final[Mapping[str, int]] = MappingProxyType({})


def blame_random_input(why: object) -> str:
    """Say why a network did not run, and that this may be no fault of its own.

    Examples
    --------
    >>> blame_random_input("index out of bounds.")
    'index out of bounds. The input was random: give one of your own (sample=, or --input FILE)'
    """
    return f"{str(why).rstrip('. ')}. The input was random: give one of your own (sample=, or --input FILE)"


def random_payload(
    tensors: Sequence[TensorSpec], random: np.random.Generator, limits: Mapping[str, int] = _NO_LIMITS
) -> dict[str, npt.NDArray[Any]]:
    """Draw a value for each tensor: all of the range for 8 and 16 bits, 0..9 for wider integers.

    Parameters
    ----------
    tensors : sequence of TensorSpec
    random : numpy.random.Generator
    limits : mapping of str to int
        Of inputs that are used as indices, by name: they get whole numbers from 0 on that are less, of any type.

    Raises
    ------
    ModelError
        There are no random values of a tensor's type.

    Examples
    --------
    >>> payload = random_payload([TensorSpec("x", "int8", (1, 3))], np.random.default_rng(1))
    >>> payload["x"].dtype, payload["x"].shape
    (dtype('int8'), (1, 3))
    >>> random_payload([TensorSpec("ids", "float32", (4,))], np.random.default_rng(1), {"ids": 3})["ids"].tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    return {t.name: _draw(t, random, limits.get(t.name)) for t in tensors}


def _draw(spec: TensorSpec, random: np.random.Generator, limit: int | None) -> npt.NDArray[Any]:
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if limit is not None and dtype.kind in "iuf":
        most = limit if dtype.kind == "f" else min(limit, np.iinfo(dtype).max + 1)
        return random.integers(0, max(1, most), spec.shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, spec.shape).astype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        # wide integers are mostly indices, lengths or token numbers: large ones would be out of range
        low, high = (info.min, info.max) if dtype.itemsize <= 2 else (0, 9)
        return random.integers(low, high, spec.shape, dtype, endpoint=True)
    if dtype.kind == "f":
        return random.standard_normal(spec.shape).astype(dtype)
    if dtype.kind == "c":
        return (random.standard_normal(spec.shape) + 1j * random.standard_normal(spec.shape)).astype(dtype)
    raise ModelError(f"input {spec.name!r} is of type {spec.dtype}: random values of it can't be made")
