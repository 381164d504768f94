"""Now and then everything on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from splitiot.observation import Observation
from splitiot.policies._base import Context, Decision, Policy

__all__ = ["LocalMode"]


@frozen
class LocalMode(Policy):
    """With a probability run everything on the device, to measure it there; else ask another policy.

    SCIoT's exploration. Know what it costs: a local run teaches nothing about link and edge, and is often the dearest
    of all placements. A probe of the wrapped policy passes through.

    Parameters
    ----------
    policy : Policy
        It is asked each time, so that its notes do not depend on the coin.
    probability : float
        0..1.

    Notes
    -----
    The propensity is exact where the wrapped policy leaves nothing to chance, or has chosen the local row
    itself. Where it may choose that row by chance but did not this time, its part in the propensity is not
    known, and the probability alone is given: a lower bound.
    """

    policy: Policy
    probability: float = field(default=0.1, converter=float)

    @probability.validator
    def _check(self, _: object, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"a probability lies in 0..1, got {value}")

    def decide(self, context: Context) -> Decision:
        coin = bool(context.random.random() < self.probability)
        inner = self.policy.decide(context)
        local = context.local_row
        if local is None or inner.probe or not self.permits(context)[local]:
            return inner
        p = self.probability
        if inner.row == local:  # whatever the coin says
            return evolve(inner, propensity=p + (1 - p) * inner.propensity)
        if coin:
            return Decision(local, "local mode", probe=True, propensity=p)
        return evolve(inner, propensity=(1 - p) * inner.propensity)

    def permits(self, context: Context) -> NDArray[np.bool_]:
        return self.policy.permits(context)

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory)
