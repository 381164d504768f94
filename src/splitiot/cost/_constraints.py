"""What a placement must keep to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from splitiot._expect import described
from splitiot.cost._costs import Costs, Floats

__all__ = ["AtMost", "Constraint", "StepsOnDevice", "as_constraints", "met", "most_local"]

Constraint: TypeAlias = Callable[[Costs], NDArray[np.bool_]]
"""Which rows are permitted: one bool a row."""


@frozen
class AtMost:
    """A constraint: a column of the costs is not larger than a value.

    Parameters
    ----------
    column : str
        ``"latency_s"``, ``"period_s"``, ``"energy_j"``, ``"device_s"``, ``"sent_bytes"``, ... of `Costs`.
    value : float
    """

    column: str
    value: float

    def __attrs_post_init__(self) -> None:
        if not isinstance(getattr(Costs, self.column, None), property):
            raise ValueError(f"{self.column!r} is no column of Costs, such as latency_s, energy_j or sent_bytes")
        if math.isnan(self.value):
            raise ValueError(f"{self.column} can't be at most NaN")

    def __call__(self, costs: Costs) -> NDArray[np.bool_]:
        permitted: NDArray[np.bool_] = getattr(costs, self.column) <= self.value
        return permitted

    def __str__(self) -> str:
        return f"{self.column} <= {self.value:.4g}"


@frozen
class StepsOnDevice:
    """A constraint: at least so many steps run on the device, since what enters them must not leave it.

    Parameters
    ----------
    least : int
    """

    least: int

    def __attrs_post_init__(self) -> None:
        if isinstance(self.least, bool) or not isinstance(self.least, int) or self.least < 0:
            raise ValueError(f"least must be a whole number of steps >= 0, got {self.least!r}")

    def __call__(self, costs: Costs) -> NDArray[np.bool_]:
        permitted: NDArray[np.bool_] = costs.cuts >= self.least
        return permitted

    def __str__(self) -> str:
        return f"{self.least} steps or more on the device"


def as_constraints(values: Iterable[Constraint] | Constraint) -> tuple[Constraint, ...]:
    """Return one constraint, or several, as a tuple.

    Raises
    ------
    TypeError
        Something among them is no constraint.
    """
    if callable(values):
        return (values,)
    advice = "AtMost('latency_s', 0.2), StepsOnDevice(1), or a function of the costs that gives one bool a row"
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"subject_to takes constraints, got {described(values)}: {advice}")
    constraints = tuple(values)
    for constraint in constraints:
        if not callable(constraint):
            raise TypeError(f"subject_to takes constraints, got {described(constraint)}: {advice}")
    return constraints


def met(constraints: Iterable[Constraint], costs: Costs) -> NDArray[np.bool_]:
    """Return the allowed rows that meet all constraints, shape (rows,)."""
    mask = costs.mask
    for constraint in constraints:
        mask = mask & constraint(costs)
    return mask


def most_local(costs: Costs) -> Floats:
    """As an objective: the more steps on the device, the better."""
    return -costs.cuts.astype(np.float64)
