"""Measure again what was not measured for long, when that is worth what it costs."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.cost import Objective
from splitiot.estimators import Beliefs
from splitiot.observation import Observation
from splitiot.policies._base import Context, Decision, Policy

__all__ = ["StaleProbe"]

# five equally likely values of a standard normal variable: its 10, 30, 50, 70 and 90 % quantiles
_NORMAL: Final = np.array([-1.2816, -0.5244, 0.0, 0.5244, 1.2816])
_ALIKE: Final = 0.25  # a row tells of another one what it does not do less than a quarter of
_DOUBT: Final = 0.2  # how far to believe that the cheapest test did not tell all
_NOTES: Final = "stale_probe"

Floats = NDArray[np.float64]


@frozen
class StaleProbe(Policy):
    """Ask another policy, and now and then measure what its choices leave unmeasured.

    While everything runs on the edge nobody sees how fast the device is by now; while everything runs on the device
    nobody sees link and edge. What was not measured for `age` seconds has changed with probability
    ``1 - exp(-age / lasts_s)``, and is then about as good as it usually is, or as it was, give or take a factor of
    ``exp(width)``. From that follows how much each request can be expected to lose by not knowing. These losses add up,
    and when they have reached what a probe costs, the cheapest row that measures all that is stale is chosen, as a
    probe. So cheap probes are frequent, dear ones rare, and hopeless ones do not occur.

    The cheapest row often does little of what is in doubt (a last step, a few bytes). A fifth of the loss is therefore
    saved for the row that would be the best one: it is tried itself when that has reached its cost.

    Parameters
    ----------
    policy : Policy
    lasts_s : float
        How long things usually stay as they are.
    width : float
        How far they may then change: sigma of the logarithm, of factors, bandwidth and round trip.

    Notes
    -----
    With constant rates a probe comes every ``sqrt(2 * cost * lasts / gain)`` requests, as in the formula for economic
    order quantities (Harris 1913): half of the loss is the probes', half is not knowing.
    """

    policy: Policy
    lasts_s: float = field(default=300.0, converter=float)
    width: float = field(default=1.5, converter=float)

    def __attrs_post_init__(self) -> None:
        for name, value in (("lasts_s", self.lasts_s), ("width", self.width)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value}")

    def decide(self, context: Context) -> Decision:
        inner = self.policy.decide(context)
        beliefs = context.beliefs
        if inner.probe or beliefs is None:
            return inner
        terms = context.costs.terms
        row = terms[inner.row]
        stale = (row[0] <= 0, row[1] <= 0, row[4] <= 0)  # device, edge, link: does this row tell of them?
        objective = context.objective if inner.objective is None else inner.objective
        found = self._missed(context, beliefs, stale, inner.row, objective) if any(stale) else None
        notes = context.memory.get(_NOTES)
        if found is None:  # nothing to gain
            if notes is not None:
                notes["missed"] = notes["tried"] = 0.0
            return inner
        missed, challenger = found
        if notes is None:
            notes = context.memory[_NOTES] = {"missed": 0.0, "tried": 0.0}
        notes["missed"] += missed
        notes["tried"] += _DOUBT * missed
        values = context.costs.values(objective) - context.costs.values(objective)[inner.row]
        if values[challenger] <= notes["tried"]:
            notes["missed"] = notes["tried"] = 0.0
            return Decision(challenger, "a probe: may have become the best", True, inner.propensity, inner.objective)
        tells = context.mask.copy()
        for column, is_stale in zip((0, 1, 4), stale, strict=True):
            if is_stale:
                tells &= terms[:, column] > 0
        cheapest = int(np.where(tells, values, math.inf).argmin())
        if values[cheapest] <= notes["missed"]:
            notes["missed"] = 0.0
            if (terms[cheapest, :3] >= _ALIKE * terms[challenger, :3]).all():
                notes["tried"] = 0.0
            return Decision(cheapest, _why(stale), True, inner.propensity, inner.objective)
        return inner

    def _missed(
        self, context: Context, beliefs: Beliefs, stale: tuple[bool, bool, bool], row: int, objective: Objective
    ) -> tuple[float, int] | None:
        """Return what one request may be expected to miss, and the row that may be best; None for nothing."""
        now = context.costs.beliefs
        draws = np.repeat(now[None, :], len(_NORMAL), axis=0)
        factors = np.exp(self.width * _NORMAL)
        age_s = 0.0
        b = beliefs
        groups = (
            ((b.device,), (0,), (b.device.usual,)),
            ((b.edge,), (1,), (b.edge.usual,)),
            (
                (b.up_bytes_per_s, b.rtt_s),
                (2, 3, 4),
                (1 / b.up_bytes_per_s.usual, 1 / b.down_bytes_per_s.usual, b.rtt_s.usual),
            ),
        )
        for is_stale, (believed, columns, usual) in zip(stale, groups, strict=True):
            if not is_stale:
                continue
            age_s = max(age_s, believed[0].age_s)
            for column, level in zip(columns, usual, strict=True):
                draws[:, column] = np.fmin(now[column], level) * factors
        values = context.costs.under(draws, objective)
        gains = values[:, row] - values.min(axis=1)
        gain = float(gains.mean())
        if not 0 < gain < math.inf:
            return None
        changed = -math.expm1(-age_s / self.lasts_s)
        return changed * gain, int(values[0].argmin())

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory)


def _why(stale: tuple[bool, bool, bool]) -> str:
    words = [name for name, is_stale in zip(("device", "edge", "link"), stale, strict=True) if is_stale]
    return f"a probe: {' and '.join(words)} not measured for long"
