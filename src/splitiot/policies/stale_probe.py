"""Measure again what was not measured for long, when that is worth what it costs."""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.cost import Costs, Objective
from splitiot.estimators import Staleness
from splitiot.policies._base import COLUMNS, GROUPS, Context, Decision, Ranking
from splitiot.policies.wrapper import Wrapper

__all__ = ["StaleProbe"]

# five equally likely values of a standard normal variable: its 10, 30, 50, 70 and 90 % quantiles
_NORMAL: Final = np.array([-1.2816, -0.5244, 0.0, 0.5244, 1.2816])
_HALF_NORMAL: Final = np.array([1.6449, 1.0364, 0.6745, 0.3853, 0.1257])  # of its absolute value, the most first
_ALIKE: Final = 0.25  # a row tells of another one what it does not do less than a quarter of
_DOUBT: Final = 0.2  # how far to believe that the cheapest test did not tell all
_WANDERS: Final = 8  # after so many `lasts_s` beliefs begin to wander: earlier costs more probes than it gains
_NOTES: Final = "stale_probe"
_STALE: Final = {"missed": 0.0, "tried": 0.0, "waited": 0.0}
_NONE: Final = {**_STALE, "hidden": 0.0}
_DEVICE, _EDGE, _LINK = COLUMNS


@frozen
class StaleProbe(Wrapper):
    """Ask another policy, and now and then measure what its choices leave unmeasured.

    While everything runs on the edge nobody sees how fast the device is by now; while everything runs on the device
    nobody sees link and edge. What was not measured for `age` seconds has changed with probability
    ``1 - exp(-age / lasts_s)``, and may then be as good as it is or usually was, give or take a factor of
    ``exp(width)``. After 8 times `lasts_s` that factor's logarithm grows with the square root of the age, as a random
    walk's does: so no belief is for ever. From all that follows how much each request can be expected to lose by not
    knowing. These losses add up, and when they have reached what a probe costs, the cheapest row that measures all that
    is stale is chosen, as a probe. So cheap probes are frequent, dear ones rare, and hopeless ones hardly occur.

    The cheapest row often does little of what is in doubt (a last step, a few bytes). A fifth of the loss is therefore
    saved for the row that would be the best one: it is tried itself when that has reached its cost, and after `every`
    requests at the latest. A probe that brings a surprise is repeated once, at once: estimators do not believe a single
    sample that is far off.

    What was never measured has not changed: it is not known. An edge without a profile is a guess, and a few samples
    that contradict a profile may have come at a bad moment; then the probability does not wait for an age. Where frames
    were too small to tell the bandwidth, what is believed is the least that it can be: a row that sends more is tried
    when what may be missed has reached what it probably costs.

    Parameters
    ----------
    policy : Policy
    lasts_s : float
        How long things usually stay as they are.
    width : float
        How far edge and link may then change: sigma of the logarithm, of factor, bandwidth and round trip.
    device_width : float
        How far the device's factor may change. It is less than the others', since it is not shared with anybody.
    every : int
        After so many requests without a measurement one is made, whatever it costs, if anything may be gained by it.

    Notes
    -----
    With constant rates a probe comes every ``sqrt(2 * cost * lasts / gain)`` requests, as in the formula for economic
    order quantities (Harris 1913): half of the loss is the probes', half is not knowing. The numbers were chosen with
    `benchmarks/control.py`.
    """

    lasts_s: float = field(default=300.0, converter=float)
    width: float = field(default=1.0, converter=float)
    device_width: float = field(default=0.5, converter=float)
    every: int = 250

    def __attrs_post_init__(self) -> None:
        for name in ("lasts_s", "width", "device_width"):
            value: float = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        if self.every < 1:
            raise ValueError(f"every must be >= 1, got {self.every}")

    def revise(self, context: Context, inner: Decision, ranking: Ranking) -> Decision:
        signs, objective = context.staleness, ranking.objective
        if inner.probe or signs is None:
            return inner
        if objective is None:
            if np.count_nonzero(ranking.mask) > 1:
                self._warn("its ranking names no objective, so that nobody knows what a probe might gain")
            return inner
        notes: dict[str, float] | None = context.memory.get(_NOTES)
        if notes is None:
            notes = context.memory[_NOTES] = {"began_s": context.now_s, "again": -1.0, **_NONE}
        if notes["again"] >= 0:
            row = int(notes["again"])
            notes["again"] = -1.0
            if signs.awaiting_confirmation and row != inner.row and ranking.allows(row):
                return _probe(inner, row, "to confirm what the last one told")
        permitted, costs = ranking.mask, context.costs
        if permitted is not costs.mask:
            costs = costs.masked(permitted)
        terms = costs.terms
        does = terms[inner.row].tolist()
        stale = tuple([column for column in COLUMNS if does[column] <= 0])
        if _LINK not in stale and signs.widths[2] > 0:
            larger = self._hidden(costs, signs, inner.row, objective, notes)
            if larger is not None:
                notes |= _NONE
                notes["again"] = float(larger)
                return _probe(inner, larger, "what more bytes would take is not known")
        found = self._missed(context, costs, signs, stale, inner.row, objective, notes) if stale else None
        if found is None:  # nothing to gain
            notes |= _STALE
            return inner
        missed, challenger = found
        notes["missed"] += missed
        notes["tried"] += _DOUBT * missed
        notes["waited"] += 1
        values = ranking.values
        more = values - values[inner.row]
        if more[challenger] <= notes["tried"] or notes["waited"] >= self.every:
            notes |= _NONE
            notes["again"] = float(challenger)
            return _probe(inner, challenger, "may have become the best")
        tells = permitted
        for column in stale:
            tells = tells & (terms[:, column] > 0)
        cheapest = int(np.where(tells, more, math.inf).argmin())
        if more[cheapest] <= notes["missed"] and tells[cheapest]:
            if (terms[cheapest, :3] >= _ALIKE * terms[challenger, :3]).all():
                notes |= _NONE
            notes["missed"] = 0.0
            notes["again"] = float(cheapest)
            words = " and ".join(GROUPS[COLUMNS.index(column)] for column in stale)
            return _probe(inner, cheapest, f"{words} not measured for long")
        return inner

    def _missed(
        self,
        context: Context,
        costs: Costs,
        signs: Staleness,
        stale: tuple[int, ...],
        row: int,
        objective: Objective,
        notes: dict[str, float],
    ) -> tuple[float, int] | None:
        """Return what one request may be expected to miss, and the row that may be best; None for nothing."""
        believed = costs.beliefs.copy()
        usual, age_s = signs.baseline, max(signs.ages_s[COLUMNS.index(column)] for column in stale)
        if context.now_s < notes["began_s"]:  # another clock
            notes["began_s"] = context.now_s
        # profiles and prior link are as old as this policy
        age_s = min(age_s, context.now_s - notes["began_s"])
        wider = _wider(age_s / self.lasts_s / _WANDERS)
        sigmas = [0.0] * 6
        if _DEVICE in stale:
            believed[0], sigmas[0] = min(believed[0], usual[0]), signs.widths[0] or self.device_width * wider
        if _EDGE in stale:  # and its queue may be empty by now
            believed[1], believed[5] = min(believed[1], usual[1]), 0.0
            sigmas[1] = signs.widths[1] or self.width * wider
        if _LINK in stale:
            sigmas[2:5] = [self.width * wider] * 3
            believed[2:5] = [min(now, then) for now, then in zip(believed[2:5].tolist(), usual[2:5], strict=True)]
        draws = _spread(tuple(sigmas)) * believed
        values = costs.under(draws, objective)
        gain = float(np.add.reduce(values[:, row] - np.minimum.reduce(values, axis=1))) / len(_NORMAL)
        if not 0 < gain < math.inf:
            return None
        unsure = max(signs.unsure[COLUMNS.index(column)] for column in stale)
        return max(-math.expm1(-age_s / self.lasts_s), unsure) * gain, int(values[0].argmin())

    def _hidden(
        self, costs: Costs, signs: Staleness, row: int, objective: Objective, notes: dict[str, float]
    ) -> int | None:
        """Return a row that sends more, if it is time to try it: what is sent now is too little to tell a bandwidth."""
        draws = np.tile(costs.beliefs, (len(_NORMAL), 1))
        draws[:, 2:4] *= np.exp(-signs.widths[2] * _HALF_NORMAL)[:, None]
        values = costs.under(draws, objective)
        gain = float(np.add.reduce(values[:, row] - np.minimum.reduce(values, axis=1))) / len(_NORMAL)
        challenger = int(values[0].argmin())
        if not 0 < gain < math.inf or challenger == row:
            notes["hidden"] = 0.0
            return None
        notes["hidden"] += gain
        middle = values[2]
        return challenger if middle[challenger] - middle[row] <= notes["hidden"] else None


def _probe(inner: Decision, row: int, why: str) -> Decision:
    return Decision(row, f"a probe: {why}", True, inner.propensity, inner.ranking)


def _wider(lives: float) -> float:
    """By how much more a logarithm may be off that wandered for so long; in steps, so that `_spread` is kept."""
    return math.sqrt(2.0 ** math.floor(math.log2(lives))) if lives >= 2 else 1.0


@functools.lru_cache(maxsize=64)
def _spread(sigmas: tuple[float, ...]) -> NDArray[np.float64]:
    """What beliefs are multiplied with, for each of the five values; shape (5, 6)."""
    return np.exp(np.outer(_NORMAL, sigmas))
