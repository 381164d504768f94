"""As much on the device as the deadline permits."""

from __future__ import annotations

import math

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.cost import AtMost, Objective, met, most_local
from splitiot.policies._base import Context, Decision
from splitiot.policies.best import Best

__all__ = ["Deadline"]


@frozen
class Deadline(Best):
    """Choose the most local placement that meets the deadline: the edge does only what it must.

    Where none meets it, or there is no deadline, the least latency.

    Parameters
    ----------
    deadline_s : float, optional
        For requests that have none of their own.
    margin : float
        How much of the deadline is kept in reserve, 0..1.
    subject_to : constraint, or iterable of them
        Further ones; see `Best`.
    """

    objective: Objective = field(default=most_local, init=False, repr=False)
    deadline_s: float | None = None
    margin: float = field(default=0.1, converter=float)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin is a share of the deadline, 0..1, got {self.margin}")
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be a positive number of seconds, got {self.deadline_s}")

    def decide(self, context: Context) -> Decision:
        deadline_s = self.deadline_s if context.deadline_s is None else context.deadline_s
        if deadline_s is None:
            return Best("latency_s", subject_to=self.subject_to).decide(context)
        mask = met([self._within(deadline_s), *self.subject_to], context.costs)
        if not mask.any():
            return Best("latency_s", subject_to=self.subject_to).decide(context)
        row = context.costs.masked(mask).best(most_local)
        return Decision(row, f"the most local within {deadline_s:g} s", objective="latency_s")

    def permits(self, context: Context) -> NDArray[np.bool_]:
        deadline_s = self.deadline_s if context.deadline_s is None else context.deadline_s
        if deadline_s is not None:
            mask = met([self._within(deadline_s), *self.subject_to], context.costs)
            if mask.any():
                return mask
        return Best("latency_s", subject_to=self.subject_to).permits(context)

    def _within(self, deadline_s: float) -> AtMost:
        return AtMost("latency_s", deadline_s * (1 - self.margin))
