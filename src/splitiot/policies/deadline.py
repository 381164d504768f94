"""As much on the device as the deadline permits."""

from __future__ import annotations

import math

from attrs import field, frozen

from splitiot.cost import AtMost, Objective, met, most_local
from splitiot.policies._base import Context, Ranking
from splitiot.policies.best import Best

__all__ = ["Deadline"]


@frozen
class Deadline(Best):
    """Choose the most local placement that meets the deadline: the edge does only what it must.

    Where none meets it, or there is no deadline, the least latency. It permits only what is believed to meet the
    deadline: no wrapper makes a request late on purpose, so that none can find out either whether a device that was too
    slow for any step has recovered.

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

    def rank(self, context: Context) -> Ranking:
        deadline_s = self.deadline_s if context.deadline_s is None else context.deadline_s
        if deadline_s is None:
            return Best("latency_s", subject_to=self.subject_to).rank(context)
        permitted = met(self.subject_to, context.costs)
        mask = permitted & AtMost("latency_s", deadline_s * (1 - self.margin))(context.costs)
        if mask.any():
            return context.ranked(most_local, mask=mask, why=f"the most local within {deadline_s:g} s")
        return context.ranked("latency_s", mask=permitted, why=f"nothing is within {deadline_s:g} s: least latency_s")
