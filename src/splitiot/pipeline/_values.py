"""What stands at a cut, and what a placement is: tiers, steps, tensors, boundaries."""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import numpy as np
from attrs import field, frozen

from splitiot.errors import CutError

__all__ = [
    "DROP",
    "NOTHING",
    "UNTYPED",
    "Boundary",
    "Drop",
    "Payload",
    "Placement",
    "Sink",
    "Step",
    "TensorSpec",
    "Tier",
    "check_sink",
    "pinned",
]

Payload: TypeAlias = Any
"""Plain data with array leaves; for a model a dict of arrays by tensor name."""

Sink: TypeAlias = Literal["device", "edge"]
"""Where the results are wanted."""


def check_sink(sink: str) -> Sink:
    """Return where results are wanted; raise ValueError where there is no such place."""
    if sink not in get_args(Sink):
        raise ValueError(f"sink must be 'device' or 'edge', got {sink!r}")
    return cast(Sink, sink)


class Drop(enum.Enum):
    """The type of `DROP`."""

    DROP = "drop"

    def __repr__(self) -> str:
        return "DROP"


DROP: Final = Drop.DROP
"""What a task returns to drop a frame: the steps behind it do not run, and the request ends without a value."""


class Tier(enum.StrEnum):
    """A place that computes."""

    DEVICE = "device"
    EDGE = "edge"


@frozen
class TensorSpec:
    """Name, type and shape of one array that can cross.

    Parameters
    ----------
    name : str
    dtype : str
        A numpy type name, such as ``"int8"``.
    shape : tuple of int
    scale, zero_point : float and int, optional
        Of an affine quantised tensor: ``real = (stored - zero_point) * scale``.

    Examples
    --------
    >>> TensorSpec("image", "int8", (1, 96, 96, 3)).nbytes
    27648
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array's contents."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _describe(tensors: tuple[TensorSpec, ...] | None) -> str:
    if tensors is None:
        return "untyped"
    return ";".join(f"{t.name!r}:{t.dtype}:{','.join(map(str, t.shape))}" for t in tensors)


@frozen
class Boundary:
    """The values alive at a place in a pipeline.

    Parameters
    ----------
    tensors : tuple of TensorSpec, or None
        None where only a run can tell what the values are (between Python functions).
    """

    tensors: tuple[TensorSpec, ...] | None
    nbytes: int | None = field(init=False)
    """Bytes of all tensors together; None where they must be measured."""
    fingerprint: str = field(init=False, repr=False)
    """16 hexadecimal digits over the names, types and shapes, in order."""

    _expected: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...] | None = field(init=False, repr=False, eq=False)

    @_expected.default
    def _lay_out(self) -> tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...] | None:
        if self.tensors is None:
            return None
        return tuple((t.name, np.dtype(t.dtype), t.shape) for t in self.tensors)

    @nbytes.default
    def _count(self) -> int | None:
        return None if self.tensors is None else sum(t.nbytes for t in self.tensors)

    @fingerprint.default
    def _hash(self) -> str:
        return hashlib.sha256(_describe(self.tensors).encode()).hexdigest()[:16]

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, () where unknown."""
        return () if self.tensors is None else tuple(t.name for t in self.tensors)

    def mismatch(self, payload: Payload) -> str | None:
        """Say how a payload differs from this boundary, or None when it fits.

        Examples
        --------
        >>> boundary = Boundary((TensorSpec("x", "float32", (2,)),))
        >>> boundary.mismatch({"x": np.zeros(3, np.float32)})
        "'x' has shape (3,), expected (2,)"
        """
        if self._expected is None:
            return None
        if not isinstance(payload, Mapping):
            return f"expected arrays named {', '.join(self.names)}, got {type(payload).__name__}"
        if len(payload) != len(self._expected):
            return f"expected arrays named {sorted(self.names)}, got {sorted(map(str, payload))}"
        for name, dtype, shape in self._expected:
            array = payload.get(name)
            if array is None:
                return f"expected arrays named {sorted(self.names)}, got {sorted(map(str, payload))}"
            if type(array) is not np.ndarray and type(array) is not np.memmap:
                return f"{name!r} is a {type(array).__name__}, expected an array"
            if array.dtype != dtype:
                if array.dtype.newbyteorder() == dtype:  # interpreters would misread a foreign byte order
                    return f"{name!r} is not in this machine's byte order"
                return f"{name!r} has dtype {array.dtype.name}, expected {dtype.name}"
            if array.shape != shape:
                return f"{name!r} has shape {array.shape}, expected {shape}"
        return None


NOTHING = Boundary(())
"""A boundary that nothing crosses."""

UNTYPED = Boundary(None)
"""A boundary of which only a run tells what crosses: between Python functions."""


@frozen
class Step:
    """One indivisible unit of a pipeline.

    Parameters
    ----------
    name : str
    kind : str
        The operator (``"CONV_2D"``), or ``"task"``.
    tier : Tier, optional
        The only tier that may run it.
    """

    name: str
    kind: str
    tier: Tier | None = None


def _ints(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _strs(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class Placement:
    """Where the cuts are, and how the payloads cross.

    Parameters
    ----------
    cuts : tuple of int
        One cut for each pair of neighbouring tiers, ascending.
    codecs : tuple of str
        One codec's name for each cut.

    Examples
    --------
    >>> Placement(cuts=(16,)).cut
    16
    """

    cuts: tuple[int, ...] = field(converter=_ints)
    codecs: tuple[str, ...] = field(converter=_strs, default=("raw",))

    def __attrs_post_init__(self) -> None:
        if len(self.cuts) != len(self.codecs):
            raise CutError(f"{len(self.cuts)} cuts but {len(self.codecs)} codecs: give one codec for each cut")
        if any(b < a for a, b in zip(self.cuts, self.cuts[1:], strict=False)):
            raise CutError(f"cuts must ascend, got {self.cuts}")

    @property
    def cut(self) -> int:
        """The number of steps on the device."""
        return self.cuts[0]

    @property
    def codec(self) -> str:
        """How the payload crosses the first link."""
        return self.codecs[0]


def pinned(steps: Sequence[Step]) -> dict[int, str]:
    """The cuts that steps' pins forbid, with the reason of each."""
    refused: dict[int, str] = {}
    for index, step in enumerate(steps):
        if step.tier is Tier.DEVICE:
            refused |= dict.fromkeys(range(index + 1), f"step {index} ({step.name}) must run on the device")
        elif step.tier is not None:
            refused |= dict.fromkeys(
                range(index + 1, len(steps) + 1), f"step {index} ({step.name}) must run on the {step.tier}"
            )
    return refused
