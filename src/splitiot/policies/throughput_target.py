"""So many frames a second, with as much as possible on the device."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from attrs import field, frozen
from msgspec.structs import replace
from numpy.typing import NDArray

from splitiot.cost import Costs, Objective, met, most_local
from splitiot.policies._base import Context, Decision, Ranking
from splitiot.policies._memory import PolicyMemory
from splitiot.policies.best import Best

__all__ = ["ThroughputTarget"]

# How much a decision that would leave too slow a place counts, at least and at most: 3 to 30 of them make a move.
_LEAST: Final = 1 / 30
_MOST: Final = 0.4
_ENOUGH: Final = 1 - 1e-9
_LONG_S: Final = 3.0


class Move(PolicyMemory, frozen=True):
    """What decisions on end would do: go to the edge, or back to the device, since when, and what they would gain."""

    back: bool
    cut: int
    since_s: float
    gain: float = 0.0


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
    meets the target, and gives work back only where the target would be met with a reserve (a Schmitt trigger). Neither
    is done for a belief that may pass: it goes to the edge when 3 decisions on end would leave a place that is far too
    slow (up to 30 where little is missing) or all of them for 3 s; and back when `patience` decisions on end would, no
    further than each of them. Where nothing meets the target, the fastest placement is taken, and said so.

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
    patience : int
        After so many decisions work is given back.
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
    patience: int = 12

    def __attrs_post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be a positive number of results a second, got {self.fps}")
        if self.window < 1:
            raise ValueError(f"a window is at least 1, got {self.window}")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin is a share of the period, 0..1, got {self.margin}")
        if self.patience < 1:
            raise ValueError(f"patience is at least 1 decision, got {self.patience}")

    def rank(self, context: Context) -> Ranking:
        mask, why = None, f"the most local with {self.fps:g} a second"
        if self.subject_to:
            mask = met(self.subject_to, context.costs)
            mask = mask if mask.any() else None
        return context.ranked(_MostLocalAt(1 / self.fps, self.window), mask=mask, why=why)

    def decide(self, context: Context) -> Decision:
        ranking = self.rank(context)
        costs, mask, target_s = context.costs, ranking.mask, 1 / self.fps
        if not mask.any():
            return ranking.decision()  # says so
        cuts, periods, stay = costs.cuts, costs.paced_s(self.window), context.incumbent
        meets = mask & (periods <= target_s)
        easily = meets & (periods <= target_s * (1 - self.margin))
        why = ranking.why
        if meets.any():
            row = _most_local(costs, periods, easily if easily.any() else meets)
        else:
            row = _fastest(periods, mask)
            why = f"{self.fps:g} a second can't be met: {1 / periods[row]:.3g} is the best there is"
        if stay is not None and stay != row and mask[stay]:
            if meets[stay]:
                gain = 1 / self.patience if easily[row] and cuts[row] > cuts[stay] else 0.0
            elif meets.any() or periods[row] <= periods[stay] * (1 - self.margin):
                better = max(float(periods[row]), target_s)  # nothing is gained by more
                gain = min(max(math.log(periods[stay] / better), _LEAST), _MOST)
            else:
                gain = 0.0
            sure = self._sure(context, gain, int(cuts[row]), back=bool(meets[stay]))
            if sure is None or not mask[sure] or (meets[stay] and not easily[sure]):
                if meets[stay]:
                    why = f"still gives {self.fps:g} a second"
                elif meets.any():
                    why = f"too slow, if that lasts: {1 / periods[stay]:.3g} of {self.fps:g} a second"
                else:
                    why += f", and {1 / periods[stay]:.3g} is given"
                return Decision(stay, why, ranking=ranking)
            row = sure
        Move.forget(context.memory)
        return Decision(row, why, ranking=ranking)

    def _sure(self, context: Context, gain: float, cut: int, *, back: bool) -> int | None:
        """Add up what decisions on end would gain by going elsewhere; return where to, once that is enough."""
        if gain == 0.0:
            Move.forget(context.memory)
            return None
        move = Move.of(context.memory)
        if move is None or move.back != back or not move.since_s <= context.now_s:
            move = Move(back, cut, context.now_s)
        # back no further than all of them would
        move = replace(move, gain=move.gain + gain, cut=min(cut, move.cut) if back else cut)
        move.keep(context.memory)
        late = not back and context.now_s - move.since_s >= _LONG_S
        return context.costs.row_of(move.cut) if late or move.gain >= _ENOUGH else None

    def __repr__(self) -> str:
        options = [repr(self.fps)]
        options += [f"{name}={value!r}" for name, value, default in self._settings() if value != default]
        return f"ThroughputTarget({', '.join(options)})"

    def _settings(self) -> tuple[tuple[str, object, object], ...]:
        return (
            ("window", self.window, 3),
            ("margin", self.margin, 0.1),
            ("patience", self.patience, 12),
            ("subject_to", list(self.subject_to), []),
        )


def _fastest(periods: NDArray[np.float64], mask: NDArray[np.bool_]) -> int:
    values = np.where(mask, periods, math.inf)
    return len(values) - 1 - int(values[::-1].argmin())


def _most_local(costs: Costs, periods: NDArray[np.float64], mask: NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(mask)
    rows = rows[costs.cuts[rows] == costs.cuts[rows[-1]]]  # ascending cuts
    return int(rows[periods[rows].argmin()])
