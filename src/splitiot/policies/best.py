"""Always the placement that is believed to be best."""

from __future__ import annotations

from attrs import field, frozen

from splitiot.cost import Constraint, Objective, as_constraints, met, name_of
from splitiot.policies._base import Context, Policy, Ranking, checked_objective

__all__ = ["Best", "LeastEnergy", "LeastLatency"]


@frozen(repr=False)
class Best(Policy):
    """Choose the row with the least value of an objective, among those that meet some constraints.

    These are wishes: where no allowed row meets all of them, the least value of all is taken, and said so. What must
    never happen belongs into ``Planner(subject_to=...)`` or ``Device(subject_to=...)``.

    Parameters
    ----------
    objective : {"latency_s", "period_s", "energy_j"} or callable
        A callable takes the `Costs` and gives one number a row.
    subject_to : constraint, or iterable of them
        `AtMost`, `StepsOnDevice`, or a callable that takes the `Costs` and gives one bool a row.

    Examples
    --------
    >>> from splitiot.cost import AtMost
    >>> Best("energy_j", subject_to=AtMost("latency_s", 0.2))
    Best('energy_j', subject_to=[AtMost(column='latency_s', value=0.2)])
    """

    objective: Objective = "latency_s"
    subject_to: tuple[Constraint, ...] = field(default=(), converter=as_constraints, kw_only=True)

    def __attrs_post_init__(self) -> None:
        checked_objective(self.objective)

    def rank(self, context: Context) -> Ranking:
        if not self.subject_to:
            return context.ranked(self.objective)
        mask, name = met(self.subject_to, context.costs), name_of(self.objective)
        wanted = " and ".join(map(str, self.subject_to))
        why, otherwise = f"least {name} with {wanted}", f"nothing has {wanted}: least {name} of all"
        return context.ranked(self.objective, mask=mask, why=why, otherwise=otherwise)

    def __repr__(self) -> str:
        options = [repr(self.objective)] if type(self) is Best else []
        options += [f"subject_to={list(self.subject_to)}"] if self.subject_to else []
        return f"{type(self).__name__}({', '.join(options)})"


@frozen(repr=False)
class LeastLatency(Best):
    """Choose the row with the least latency."""

    objective: Objective = field(default="latency_s", init=False)


@frozen(repr=False)
class LeastEnergy(Best):
    """Choose the row that takes the least energy from the device; the planner must know its power."""

    objective: Objective = field(default="energy_j", init=False)
