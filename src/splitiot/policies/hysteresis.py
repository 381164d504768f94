"""No change for a little."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from splitiot.observation import Observation
from splitiot.policies._base import Context, Decision, Policy

__all__ = ["Hysteresis"]


@frozen
class Hysteresis(Policy):
    """Stay with the last placement that was no probe, unless another is better by more than a margin.

    Parameters
    ----------
    policy : Policy
    margin : float
        Relative: 0.05 asks for 5 % less.
    """

    policy: Policy
    margin: float = field(default=0.05, converter=float)

    @margin.validator
    def _check(self, _: object, value: float) -> None:
        if not 0 <= value < math.inf:
            raise ValueError(f"a margin is a finite number >= 0, got {value}")

    def decide(self, context: Context) -> Decision:
        inner, stay = self.policy.decide(context), context.incumbent
        if inner.probe or stay is None or stay == inner.row or not self.permits(context)[stay]:
            return inner
        values = context.costs.values(context.objective if inner.objective is None else inner.objective)
        # negated: a NaN is no reason to stay
        if not values[stay] <= values[inner.row] + self.margin * abs(values[stay]):
            return inner
        return evolve(inner, row=stay, why=f"{inner.why} is better by less than {self.margin:.0%}: stay")

    def permits(self, context: Context) -> NDArray[np.bool_]:
        return self.policy.permits(context)

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory)
