"""Measure again what was not measured for long, when that is worth what it costs."""

from __future__ import annotations

import functools
import math
from typing import Final, TypeAlias

import numpy as np
from attrs import field, frozen
from msgspec.structs import replace
from numpy.typing import NDArray

from splitiot.cost import DEVICE, DOWN, EDGE, RTT, UP, WAIT, Costs, Objective
from splitiot.estimators import Staleness
from splitiot.policies._base import GROUPS, Context, Decision, Ranking
from splitiot.policies._memory import PolicyMemory
from splitiot.policies.wrapper import Wrapper

__all__ = ["StaleProbe"]

# five equally likely values of a standard normal variable: its 10, 30, 50, 70 and 90 % quantiles
_NORMAL: Final = np.array([-1.2816, -0.5244, 0.0, 0.5244, 1.2816])
_HALF_NORMAL: Final = np.array([1.6449, 1.0364, 0.6745, 0.3853, 0.1257])  # of its absolute value, the most first
_ALIKE: Final = 0.25  # a row measures for another one what it does at least a quarter of
_DOUBT: Final = 0.2  # how far to believe that the cheapest test did not show all
_WANDERS: Final = 8  # after so many `lasts_s` beliefs begin to wander: earlier costs more probes than it gains

Floats: TypeAlias = NDArray[np.float64]


class Losses(PolicyMemory, frozen=True):
    """What was probably lost by not knowing, in the unit of the objective.

    Parameters
    ----------
    began_s : float
        When the first request was decided.
    missed : float
        Since the cheapest row that measures all was tried.
    tried : float
        The share of it that is saved for trying the row that may be the best one.
    waited : int
        Requests since that was tried.
    hidden : float
        Since a row that sends more was tried, where too little is sent to see the bandwidth.
    to_confirm : int, optional
        The row of the last probe, which is repeated if it brought a surprise.
    """

    began_s: float
    missed: float = 0.0
    tried: float = 0.0
    waited: int = 0
    hidden: float = 0.0
    to_confirm: int | None = None

    def more(self, missed: float) -> Losses:
        """Add what one more request missed."""
        return replace(
            self, missed=self.missed + missed, tried=self.tried + _DOUBT * missed, waited=self.waited + 1
        )

    def settled(self) -> Losses:
        """Nothing is stale any more, or nothing would be gained."""
        return replace(self, missed=0.0, tried=0.0, waited=0)

    def paid(self, row: int) -> Losses:
        """A row was probed that shows all: begin anew."""
        return Losses(self.began_s, to_confirm=row)


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
        staleness, objective = context.staleness, ranking.objective
        if inner.probe or staleness is None:
            return inner
        if objective is None:
            if np.count_nonzero(ranking.mask) > 1:
                self._warn("its ranking names no objective, so that nobody knows what a probe might gain")
            return inner
        losses = Losses.of(context.memory) or Losses(context.now_s)
        row = losses.to_confirm
        if row is not None:
            losses = replace(losses, to_confirm=None)
            if staleness.awaiting_confirmation and row != inner.row and ranking.allows(row):
                losses.keep(context.memory)
                return _probe(inner, row, "to confirm what the last one showed")
        decision, losses = self._weigh(context, inner, ranking, objective, staleness, losses)
        losses.keep(context.memory)
        return decision

    def _weigh(
        self,
        context: Context,
        inner: Decision,
        ranking: Ranking,
        objective: Objective,
        staleness: Staleness,
        losses: Losses,
    ) -> tuple[Decision, Losses]:
        """Add to the losses what this request may miss; decide for a probe once they have reached what it costs."""
        permitted, costs = ranking.mask, context.costs
        if permitted is not costs.mask:
            costs = costs.masked(permitted)
        terms = costs.terms
        does = terms[inner.row].tolist()
        stale = tuple([column for column in GROUPS if does[column] <= 0])
        if RTT not in stale and staleness.link.width > 0:
            hidden_s, larger = _hidden(costs, staleness.link.width, inner.row, objective, losses.hidden)
            if larger is not None:
                return _probe(inner, larger, "what more bytes would take is not known"), losses.paid(larger)
            losses = replace(losses, hidden=hidden_s)
        if not stale:
            return inner, losses.settled()
        if context.now_s < losses.began_s:  # another clock
            losses = replace(losses, began_s=context.now_s)
        # profiles and prior link are as old as this policy
        oldest_s = context.now_s - losses.began_s
        missed, challenger = self._missed(costs, staleness, stale, oldest_s, inner.row, objective)
        if challenger is None:  # nothing to gain
            return inner, losses.settled()
        losses = losses.more(missed)
        values = ranking.values
        dearer = values - values[inner.row]
        if dearer[challenger] <= losses.tried or losses.waited >= self.every:
            return _probe(inner, challenger, "may have become the best"), losses.paid(challenger)
        measures = permitted
        for column in stale:
            measures = measures & (terms[:, column] > 0)
        cheapest = int(np.where(measures, dearer, math.inf).argmin())
        if dearer[cheapest] <= losses.missed and measures[cheapest]:
            names = " and ".join(GROUPS[column] for column in stale)
            alike = (terms[cheapest, :DOWN] >= _ALIKE * terms[challenger, :DOWN]).all()
            losses = losses.paid(cheapest) if alike else replace(losses, missed=0.0, to_confirm=cheapest)
            return _probe(inner, cheapest, f"{names} not measured for long"), losses
        return inner, losses

    def _missed(
        self,
        costs: Costs,
        staleness: Staleness,
        stale: tuple[int, ...],
        oldest_s: float,
        row: int,
        objective: Objective,
    ) -> tuple[float, int | None]:
        """Return what one request may be expected to miss, and the row that may be best; None for nothing."""
        hoped, baseline = costs.beliefs.copy(), staleness.baseline
        freshness = [getattr(staleness, GROUPS[column]) for column in stale]
        age_s = min(max([group.age_s for group in freshness]), oldest_s)
        wider = _wider(age_s / self.lasts_s / _WANDERS)
        sigmas = [0.0] * len(hoped)
        if DEVICE in stale:
            hoped[DEVICE] = min(hoped[DEVICE], baseline.device)
            sigmas[DEVICE] = staleness.device.width or self.device_width * wider
        if EDGE in stale:
            hoped[EDGE], hoped[WAIT] = min(hoped[EDGE], baseline.edge), 0.0  # its queue may be empty by now
            sigmas[EDGE] = staleness.edge.width or self.width * wider
        if RTT in stale:
            hoped[UP] = min(hoped[UP], baseline.up_s_per_byte)
            hoped[DOWN] = min(hoped[DOWN], baseline.down_s_per_byte)
            hoped[RTT] = min(hoped[RTT], baseline.rtt_s)
            sigmas[UP] = sigmas[DOWN] = sigmas[RTT] = self.width * wider
        gain, values = _gain(costs, _spread(tuple(sigmas)) * hoped, row, objective)
        if not 0 < gain < math.inf:
            return 0.0, None
        changed = max(-math.expm1(-age_s / self.lasts_s), max([group.unsure for group in freshness]))
        return changed * gain, int(values[0].argmin())


def _hidden(costs: Costs, width: float, row: int, objective: Objective, hidden: float) -> tuple[float, int | None]:
    """Add to what was missed for sending too little to see a bandwidth; return a row that sends more, if it is time."""
    draws = np.tile(costs.beliefs, (len(_NORMAL), 1))
    draws[:, [UP, DOWN]] *= np.exp(-width * _HALF_NORMAL)[:, None]
    gain, values = _gain(costs, draws, row, objective)
    challenger = int(values[0].argmin())
    if not 0 < gain < math.inf or challenger == row:
        return 0.0, None
    hidden += gain
    middle = values[2]
    return hidden, challenger if middle[challenger] - middle[row] <= hidden else None


def _gain(costs: Costs, draws: Floats, row: int, objective: Objective) -> tuple[float, Floats]:
    """Return by how much the best of each draw is better than a row, in the mean; and all values, shape (5, rows)."""
    values = costs.under(draws, objective)
    return float(np.add.reduce(values[:, row] - np.minimum.reduce(values, axis=1))) / len(_NORMAL), values


def _probe(inner: Decision, row: int, why: str) -> Decision:
    return Decision(row, f"a probe: {why}", True, inner.propensity, inner.ranking)


def _wider(lives: float) -> float:
    """By how much more a logarithm may be off that wandered for so long; in steps, so that `_spread` is kept."""
    return math.sqrt(2.0 ** math.floor(math.log2(lives))) if lives >= 2 else 1.0


@functools.lru_cache(maxsize=64)
def _spread(sigmas: tuple[float, ...]) -> Floats:
    """What beliefs are multiplied with, for each of the five values; shape (5, 6)."""
    return np.exp(np.outer(_NORMAL, sigmas))
