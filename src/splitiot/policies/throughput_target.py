"""So many frames a second, with as much as possible on the device."""

from __future__ import annotations

import math

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.cost import Costs, Objective, met, most_local
from splitiot.policies._base import Context, Decision
from splitiot.policies.best import Best

__all__ = ["ThroughputTarget"]


@frozen
class _MostLocalAt:
    """As an objective: more steps on the device are better; rows below the target are worse than all that meet it."""

    period_s: float
    window: int

    def __call__(self, costs: Costs) -> NDArray[np.float64]:
        periods = costs.paced_s(self.window)
        missed = costs.pipeline.n * (1.0 + periods / self.period_s)
        return np.where(periods <= self.period_s, most_local(costs), missed)

    @property
    def __name__(self) -> str:
        return f"most local at {1 / self.period_s:g} a second"


@frozen(repr=False)
class ThroughputTarget(Best):
    """Choose the most local placement with which a stream (`Device.map`) gives so many results a second.

    It moves both ways: to the edge when the device can't keep up, and back when it can. It stays where it is while that
    meets the target, and gives work back only where the target would be met with a reserve (a Schmitt trigger), so that
    noise moves nothing. Where nothing meets the target, the fastest placement is taken, and said so.

    What it does not use is not measured: where no step is pinned to the device, put it into `StaleProbe`, which tries
    the device again now and then.

    Parameters
    ----------
    fps : float
        Results a second.
    window : int
        That of the stream: a round trip can't be shared by more than that.
    margin : float
        The reserve, a share of the period: 0..1.
    subject_to : constraint, or iterable of them
        Further ones; see `Best`.

    Examples
    --------
    >>> ThroughputTarget(24)
    ThroughputTarget(24.0)
    """

    objective: Objective = field(default=most_local, init=False, repr=False)
    fps: float = field(converter=float)
    window: int = 3
    margin: float = field(default=0.1, converter=float)

    def __attrs_post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be a positive number of results a second, got {self.fps}")
        if self.window < 1:
            raise ValueError(f"a window is at least 1, got {self.window}")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin is a share of the period, 0..1, got {self.margin}")

    def decide(self, context: Context) -> Decision:
        costs, target_s = context.costs, 1 / self.fps
        mask = met(self.subject_to, costs) if self.subject_to else context.mask
        if not mask.any():
            mask = context.mask
        periods, stay = costs.paced_s(self.window), context.incumbent
        if stay is not None and not mask[stay]:
            stay = None
        objective = _MostLocalAt(target_s, self.window)
        meets = mask & (periods <= target_s)
        if not meets.any():
            row = _fastest(periods, mask)
            if stay is not None and periods[stay] * (1 - self.margin) <= periods[row]:
                row = stay
            words = f"{self.fps:g} a second can't be met: {1 / periods[row]:.3g} is the best there is"
            return Decision(row, words, objective=objective)
        easily = meets & (periods <= target_s * (1 - self.margin))
        row = _most_local(costs, periods, easily if easily.any() else meets)
        if stay is not None and meets[stay] and not (easily[row] and costs.cuts[row] > costs.cuts[stay]):
            return Decision(stay, f"still gives {self.fps:g} a second", objective=objective)
        return Decision(row, f"the most local with {self.fps:g} a second", objective=objective)

    def __repr__(self) -> str:
        words = [repr(self.fps)]
        words += [f"{name}={value!r}" for name, value, usual in self._settings() if value != usual]
        return f"ThroughputTarget({', '.join(words)})"

    def _settings(self) -> tuple[tuple[str, object, object], ...]:
        return (("window", self.window, 3), ("margin", self.margin, 0.1), ("subject_to", list(self.subject_to), []))


def _fastest(periods: NDArray[np.float64], mask: NDArray[np.bool_]) -> int:
    values = np.where(mask, periods, math.inf)
    return len(values) - 1 - int(values[::-1].argmin())


def _most_local(costs: Costs, periods: NDArray[np.float64], mask: NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(mask)
    rows = rows[costs.cuts[rows] == costs.cuts[rows[-1]]]  # ascending cuts
    return int(rows[periods[rows].argmin()])
