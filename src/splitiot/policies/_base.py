"""What a policy sees, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from attrs import field, frozen
from numpy.typing import ArrayLike, NDArray

from splitiot.cost import DEVICE, EDGE, RTT, Costs, Objective, check_objective, name_of
from splitiot.errors import CutError, Infeasible
from splitiot.estimators import Beliefs, Staleness
from splitiot.observation import Observation

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Context", "Decision", "Policy", "Ranking"]

NO_TELEMETRY: Final[Mapping[str, float]] = MappingProxyType({})
GROUPS: Final = {DEVICE: "device", EDGE: "edge", RTT: "link"}
"""What observations measure, by the column of `Costs.terms` that says whether a row does it."""
_new: Final = object.__new__
_WHY: Final = {name: f"least {name}" for name in ("latency_s", "period_s", "energy_j")}


@frozen(eq=False, init=False)
class Ranking:
    """How good a policy finds each row, and which rows it permits at all.

    Most policies get theirs from `Context.ranked`. A decision carries the ranking that it follows from. So wrappers
    compare by what the policy wants, and probe nothing that it does not permit.

    Parameters
    ----------
    values : array of float, shape (rows,)
        One number a row of the unmasked `Costs`; less is better, NaN and inf mean never. Inf where `mask` is False,
        whatever was given there.
    mask : array of bool, shape (rows,)
        The rows that may be chosen, probes included: some of those in ``context.mask``.
    why : str
        Words for people: why the first of this ranking.
    objective : Objective, optional
        Where `values` are those of an objective. Only then can `StaleProbe` tell what they would be if link and
        machines were others, and `Plan` where the answer changes.
    """

    values: NDArray[np.float64]
    mask: NDArray[np.bool_]
    why: str
    objective: Objective | None

    def __init__(self, values: ArrayLike, mask: ArrayLike, why: str, objective: Objective | None = None) -> None:
        values, mask = np.asarray(values, dtype=np.float64), _kept(mask)
        if values.shape != mask.shape or values.ndim != 1:
            raise ValueError(f"a ranking has one value and one bool a row, got shapes {values.shape} and {mask.shape}")
        self.__attrs_init__(_read_only(np.where(mask, values, math.inf)), mask, why, objective)

    def allows(self, row: int) -> bool:
        """Whether a row may be chosen, be it for a probe."""
        return 0 <= row < len(self.mask) and bool(self.mask[row])

    def best(self) -> int:
        """Return the permitted row with the least value; of equals the one with most steps on the device.

        Raises
        ------
        Infeasible
            No row is permitted, or none has a finite value.
        """
        values = self.values
        row = len(values) - 1 - int(values[::-1].argmin())
        if not values[row] < math.inf:
            values = np.where(np.isnan(values), math.inf, values)
            row = len(values) - 1 - int(values[::-1].argmin())
            if values[row] == math.inf:
                raise Infeasible(self._nothing())
        return row

    def decision(self) -> Decision:
        """Decide for `best`; see there."""
        return Decision(self.best(), self.why, False, 1.0, self)

    def _nothing(self) -> str:
        if not self.mask.any():
            return f"none of the {len(self.mask)} legal placements is allowed (is the edge down? are parts missing?)"
        name = "the value" if self.objective is None else name_of(self.objective)
        return f"{name} is finite on none of {int(self.mask.sum())} allowed placements"


@frozen
class Decision:
    """Which row a policy chose.

    Parameters
    ----------
    row : int
        A row of the unmasked `Costs`.
    why : str
        Words for people.
    probe : bool
        Chosen to learn something, not for being best: it does not become the incumbent.
    propensity : float
        The probability with which this row was chosen here, for off-policy evaluation.
    ranking : Ranking, optional
        What the policy wants and permits: it must permit `row`. Without one nothing is known of that, and wrappers pass
        the decision on as it is.
    """

    row: int
    why: str
    probe: bool = False
    propensity: float = 1.0
    ranking: Ranking | None = field(default=None, eq=False, repr=False)


class Context:
    """What a policy may look at, for one decision.

    Parameters
    ----------
    costs : Costs
        Under what is believed now, with the mask of what is allowed now.
    now_s : float
    objective : Objective
        What `best` makes small unless told otherwise.
    deadline_s : float, optional
        Seconds from now.
    telemetry : mapping of str to float
        What the device tells of itself, such as ``battery``; can't be changed.
    incumbent : int, optional
        The row of the last decision that was not a probe.
    memory : dict
        What policies remember of this device, one key a policy: a `PolicyMemory`, or plain data (it is stored as JSON).
    random : callable
        Gives the generator, which is part of the planner's state.
    beliefs, staleness : callable, optional
        Give the beliefs, and what says whether something should be measured again.
    """

    __slots__ = (
        "_beliefs",
        "_random",
        "_read",
        "_read_staleness",
        "_staleness",
        "costs",
        "deadline_s",
        "incumbent",
        "memory",
        "now_s",
        "objective",
        "telemetry",
    )

    def __init__(
        self,
        costs: Costs,
        *,
        random: Callable[[], Generator],
        now_s: float = 0.0,
        objective: Objective = "latency_s",
        deadline_s: float | None = None,
        telemetry: Mapping[str, float] = NO_TELEMETRY,
        incumbent: int | None = None,
        memory: dict[str, Any] | None = None,
        beliefs: Callable[[float], Beliefs] | None = None,
        staleness: Callable[[float], Staleness] | None = None,
    ) -> None:
        self.costs = costs
        self.now_s = now_s
        self.objective: Objective = objective
        self.deadline_s = deadline_s
        self.telemetry = telemetry
        self.incumbent = incumbent
        self.memory = {} if memory is None else memory
        self._random = random
        self._beliefs = beliefs
        self._staleness = staleness
        self._read: Beliefs | None = None
        self._read_staleness: Staleness | None = None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which rows are allowed."""
        return self.costs.mask

    @property
    def random(self) -> Generator:
        """The generator of this planner; the only chance that a policy may use."""
        return self._random()

    @property
    def beliefs(self) -> Beliefs | None:
        """How good the estimates are: values, spreads, ages, numbers of samples, drifts."""
        if self._read is None and self._beliefs is not None:
            self._read = self._beliefs(self.now_s)
        return self._read

    @property
    def staleness(self) -> Staleness | None:
        """What says of the beliefs whether something should be measured again; quicker to read than all of them."""
        if self._read_staleness is None:
            if self._staleness is not None:
                self._read_staleness = self._staleness(self.now_s)
            elif self.beliefs is not None:
                self._read_staleness = Staleness.of(self.beliefs)
        return self._read_staleness

    @property
    def local_row(self) -> int | None:
        """The row with all steps on the device, None where it is not legal or not allowed."""
        row = self.costs.local_row
        return row if row is not None and self.costs.mask[row] else None

    def at_cut(self, cut: int) -> int:
        """Return the row of a cut, allowed or not; raise CutError where it is not legal."""
        return self.costs.at_cut(cut)

    def allows(self, row: int) -> bool:
        """Whether a row may be chosen now."""
        return bool(self.costs.mask[row])

    def ranked(
        self,
        objective: Objective | None = None,
        *,
        mask: NDArray[np.bool_] | None = None,
        why: str | None = None,
        otherwise: str | None = None,
    ) -> Ranking:
        """Rank the allowed rows by an objective.

        Parameters
        ----------
        objective : Objective, optional
            The planner's, unless given.
        mask : array of bool, shape (rows,), optional
            Permit only these of the allowed rows. It is a wish: where none of them is allowed, all that are allowed are
            ranked, and the words say so.
        why, otherwise : str, optional
            Words for people: for what is ranked first, and where nothing in `mask` is allowed. They name the objective
            unless given.
        """
        if objective is None:
            objective = self.objective
        costs = self.costs
        values, allowed = costs.allowed_values(objective), costs.mask
        if why is None:
            why = _WHY[objective] if isinstance(objective, str) else f"least {name_of(objective)}"
        if mask is not None:
            if np.shape(mask) != allowed.shape:
                raise ValueError(f"a mask has one bool a row, shape {allowed.shape}, got {np.shape(mask)}")
            # a mask of its own, always: at another bandwidth it may be another one
            if (permitted := allowed & mask).any():
                return Ranking(values, permitted, why, objective)
            if otherwise is None:
                otherwise = f"nothing that the policy wishes is allowed now ({why}): least {name_of(objective)} of all"
            return Ranking(values, allowed.copy(), otherwise, objective)
        ranking = _new(Ranking)  # checked and frozen as it is
        ranking.__attrs_init__(values, allowed, why, objective)
        return ranking

    def best(self, objective: Objective | None = None, *, why: str | None = None) -> Decision:
        """Decide for the allowed row with the least value; of equals the most local one.

        It is ``ranked(objective, why=why).decision()``.

        Parameters
        ----------
        objective : Objective, optional
            The planner's, unless given.
        why : str, optional

        Raises
        ------
        Infeasible
            No row is allowed.
        """
        return self.ranked(objective, why=why).decision()


class Policy:
    """Ranks the rows; its decision is for the first one.

    Write `rank`, and everything else follows: `decide`, wrappers around it, `Plan.explain`. Where a decision is more
    than the first of a ranking (chance, probes, patience), write `decide` as well or instead, and return decisions that
    carry a ranking: ``attrs.evolve(context.best(), row=...)``. A policy whose decisions carry none works too, but
    wrappers can do nothing for it.

    A policy is frozen configuration and can serve many devices: what it remembers of one is a `PolicyMemory` in
    ``context.memory``, and the only chance that it may use is ``context.random``. The same context gives the
    same decision.

    Examples
    --------
    >>> from attrs import frozen
    >>> @frozen
    ... class KeepBattery(Policy):
    ...     floor: float = 0.2
    ...     def rank(self, context):
    ...         if context.telemetry.get("battery", 1.0) < self.floor:
    ...             return context.ranked("energy_j", why="battery low")
    ...         return context.ranked()
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        if cls.rank is Policy.rank and cls.decide is Policy.decide:
            raise TypeError(f"{cls.__name__} has neither rank nor decide: write rank(self, context) -> Ranking")
        return super().__new__(cls)

    def rank(self, context: Context) -> Ranking:
        """Say how good each row is, and which ones may be chosen; called once a request."""
        raise NotImplementedError(f"{type(self).__name__} only decides: it has no ranking")

    def decide(self, context: Context) -> Decision:
        """Choose one of the rows that ``context.mask`` allows: the first of the ranking."""
        ranking = self.rank(context)
        if not isinstance(ranking, Ranking):
            raise TypeError(
                f"{type(self).__name__}.rank returned {_a(ranking)}: return context.ranked(...), "
                "or Ranking(values, mask, why)"
            )
        return ranking.decision()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        """Take notes of what a run measured."""


def asked(policy: Policy, context: Context) -> Decision:
    """Return what a policy decides, or say what is wrong with it.

    Raises
    ------
    TypeError
        It is no decision, or its row no int.
    CutError
        Its row is not allowed, or its ranking permits one that is not.
    """
    decision, mask = policy.decide(context), context.costs.mask
    if not isinstance(decision, Decision):
        raise TypeError(
            f"{type(policy).__name__}.decide returned {_a(decision)}: return a Decision, such as context.best() "
            "or Decision(row, why)"
        )
    row, ranking = decision.row, decision.ranking
    if type(row) is not int and not isinstance(row, np.integer):
        raise TypeError(f"{type(policy).__name__} chose row {row!r}, {_a(row)}: a row is an int")
    if ranking is not None and ranking.mask is not mask:
        mask = _within(policy, ranking, mask)
    if not (0 <= row < len(mask) and mask[row]):
        raise CutError(_not_allowed(policy, decision, context))
    return decision


def _within(policy: Policy, ranking: Ranking, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = ranking.mask
    if mask.shape != allowed.shape:
        raise CutError(f"{type(policy).__name__} ranked {len(mask)} rows, there are {len(allowed)}: rank them all")
    if (mask > allowed).any():
        raise CutError(
            f"the ranking of {type(policy).__name__} ({ranking.why}) permits row {int((mask > allowed).argmax())}, "
            "which is not allowed now: use context.ranked(mask=...), or mask & context.mask"
        )
    return mask


def _not_allowed(policy: Policy, decision: Decision, context: Context) -> str:
    row, allowed = decision.row, context.costs.mask
    choice = f"{type(policy).__name__} chose row {row} ({decision.why}), which "
    if decision.ranking is not None and 0 <= row < len(allowed) and allowed[row]:
        return f"{choice}its ranking ({decision.ranking.why}) does not permit: choose among ranking.mask"
    return f"{choice}is not allowed now: choose among context.mask"


def checked(policy: Any) -> Policy:
    """Return a policy, or say what is wrong with it.

    Raises
    ------
    TypeError
        It is a class, or no policy.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, type) and issubclass(policy, Policy):
        raise TypeError(f"{policy.__name__} is a class: give an object of it, {policy.__name__}(...)")
    raise TypeError(f"a policy is an object of a subclass of splitiot.Policy, got {_a(policy)}")


def checked_objective(objective: Any) -> Objective:
    """Return what is to be made small, if it is such a thing."""
    if isinstance(objective, Policy) or (isinstance(objective, type) and issubclass(objective, Policy)):
        raise TypeError("this objective is a policy: give it to a Planner, as policy=")
    return check_objective(objective)


def _kept(mask: ArrayLike) -> NDArray[np.bool_]:
    if isinstance(mask, np.ndarray) and mask.dtype.char == "?" and not mask.flags.writeable:
        return mask
    return _read_only(np.array(mask, dtype=np.bool_))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _a(thing: Any) -> str:
    kind = type(thing).__name__
    return "None" if thing is None else f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"
