"""No change for a little."""

from __future__ import annotations

import math

from attrs import evolve, field, frozen

from splitiot.policies._base import Context, Decision, Ranking
from splitiot.policies.wrapper import Wrapper

__all__ = ["Hysteresis"]


@frozen
class Hysteresis(Wrapper):
    """Stay with the last placement that was no probe, unless another is better by more than a margin.

    Better by what the policy inside ranks by, and only where that permits the last one.

    Parameters
    ----------
    policy : Policy
    margin : float
        Relative: 0.05 asks for 5 % less.
    """

    margin: float = field(default=0.05, converter=float)

    @margin.validator
    def _check(self, _: object, value: float) -> None:
        if not 0 <= value < math.inf:
            raise ValueError(f"a margin is a finite number >= 0, got {value}")

    def revise(self, context: Context, inner: Decision, ranking: Ranking) -> Decision:
        stay = context.incumbent
        if inner.probe or stay is None or stay == inner.row or not ranking.allows(stay):
            return inner
        values = ranking.values
        # negated: a NaN is no reason to stay
        if not values[stay] <= values[inner.row] + self.margin * abs(values[stay]):
            return inner
        return evolve(inner, row=stay, why=f"{inner.why} is better by less than {self.margin:.0%}: stay")
