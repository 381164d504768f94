"""Always the placement that is believed to be best."""

from __future__ import annotations

from attrs import frozen

from splitiot.cost import Objective
from splitiot.policies._base import Context, Decision, Policy

__all__ = ["Best", "LeastLatency"]


@frozen
class Best(Policy):
    """Choose the row with the least value of an objective.

    Parameters
    ----------
    objective : {"latency_s", "period_s", "energy_j"} or callable
        A callable takes the `Costs` and gives one number a row.
    """

    objective: Objective = "latency_s"

    def decide(self, context: Context) -> Decision:
        return context.best(self.objective)


@frozen
class LeastLatency(Policy):
    """Choose the row with the least latency."""

    def decide(self, context: Context) -> Decision:
        return context.best("latency_s")
