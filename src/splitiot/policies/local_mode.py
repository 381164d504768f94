"""Now and then everything on the device."""

from __future__ import annotations

from attrs import evolve, field, frozen

from splitiot.policies._base import Context, Decision, Ranking
from splitiot.policies.wrapper import Wrapper

__all__ = ["LocalMode"]


@frozen
class LocalMode(Wrapper):
    """With a probability run everything on the device, to measure it there; else ask another policy.

    SCIoT's exploration. Know what it costs: a local run teaches nothing about link and edge, and is often the dearest
    of all placements. A probe of the wrapped policy passes through. Where that policy does not permit everything on the
    device (`Fixed`, a `Deadline` that would be missed), it is asked alone.

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

    probability: float = field(default=0.1, converter=float)

    @probability.validator
    def _check(self, _: object, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"a probability lies in 0..1, got {value}")

    def revise(self, context: Context, inner: Decision, ranking: Ranking) -> Decision:
        coin = bool(context.random.random() < self.probability)
        local = context.local_row
        if local is None or inner.probe or not ranking.allows(local):
            return inner
        p = self.probability
        if inner.row == local:  # whatever the coin says
            return evolve(inner, propensity=p + (1 - p) * inner.propensity)
        if coin:
            return Decision(local, "local mode", True, p, ranking)
        return evolve(inner, propensity=(1 - p) * inner.propensity)
