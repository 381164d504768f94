"""Always the same cut."""

from __future__ import annotations

from attrs import frozen

from splitiot.policies._base import Context, Decision, Policy

__all__ = ["Fixed"]


@frozen
class Fixed(Policy):
    """Always choose the same cut.

    While that cut is not allowed (the edge is down, say) everything runs on the device, if that is allowed,
    else what is best.

    Parameters
    ----------
    cut : int
        The number of steps on the device.

    Raises
    ------
    CutError
        By `decide`: the pipeline can't be cut there.
    """

    cut: int

    def decide(self, context: Context) -> Decision:
        row = context.at_cut(self.cut)
        if context.allows(row):
            return Decision(row, f"fixed at cut {self.cut}")
        local = context.local_row
        if local is not None:
            return Decision(local, f"cut {self.cut} is not allowed now: all local")
        return context.best(why=f"cut {self.cut} is not allowed now, nor is all local: the best of the rest")
