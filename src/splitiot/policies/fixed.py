"""Always the same cut."""

from __future__ import annotations

import operator

import numpy as np
from attrs import field, frozen

from splitiot.policies._base import Context, Policy, Ranking

__all__ = ["Fixed"]


@frozen
class Fixed(Policy):
    """Always choose the same cut, and permit no other.

    While that cut is not allowed (the edge is down, say) everything runs on the device, if that is allowed,
    else what is best.

    Parameters
    ----------
    cut : int
        The number of steps on the device.

    Raises
    ------
    TypeError, ValueError
        `cut` is no int, or below 0.
    CutError
        By `decide`: the pipeline can't be cut there.
    """

    cut: int = field(converter=operator.index)

    @cut.validator
    def _check(self, _: object, value: int) -> None:
        if value < 0:
            raise ValueError(
                f"a cut is the number of steps on the device, 0 or more, got {value}; all local is Fixed(pipeline.n)"
            )

    def rank(self, context: Context) -> Ranking:
        row = context.at_cut(self.cut)
        if context.allows(row):
            return _only(context, row, f"fixed at cut {self.cut}")
        local = context.local_row
        if local is not None:
            return _only(context, local, f"cut {self.cut} is not allowed now: all local")
        return context.ranked(why=f"cut {self.cut} is not allowed now, nor is all local: the best of the rest")


def _only(context: Context, row: int, why: str) -> Ranking:
    rows = len(context.costs)
    return Ranking(np.zeros(rows), np.arange(rows) == row, why)
