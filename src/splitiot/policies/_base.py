"""What a policy sees, and what it answers."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from splitiot.cost import Costs, Objective, name_of
from splitiot.estimators import Beliefs, Staleness
from splitiot.observation import Observation

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Context", "Decision", "Policy"]

NO_TELEMETRY: Final[Mapping[str, float]] = MappingProxyType({})
# What an observation can tell of, and which column of `Costs.terms` says how much a row does.
GROUPS: Final = ("device", "edge", "link")
COLUMNS: Final = (0, 1, 4)
_WHY: Final = {name: f"least {name}" for name in ("latency_s", "period_s", "energy_j")}


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
    objective : Objective, optional
        What was made small, for explanations; the planner's where None.
    """

    row: int
    why: str
    probe: bool = False
    propensity: float = 1.0
    objective: Objective | None = None


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
        What policies remember about this device: plain data (it is stored as JSON), one key a policy.
    random : callable
        Gives the generator, which is part of the planner's state.
    beliefs, staleness : callable, optional
        Give the beliefs, and what tells whether something should be measured again.
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
        """Of the beliefs what tells whether something should be measured again; quicker to read than all of them."""
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

    def best(self, objective: Objective | None = None, *, why: str | None = None) -> Decision:
        """Decide for the allowed row with the least value; of equals the most local one.

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
        if objective is None:
            objective = self.objective
        row = self.costs.best(objective)
        if why is None:
            why = _WHY[objective] if isinstance(objective, str) else f"least {name_of(objective)}"
        return Decision(row, why, False, 1.0, objective)


class Policy(abc.ABC):
    """Chooses a row.

    A policy is frozen configuration and can serve many devices: what it remembers about one is plain data in
    ``context.memory``, and the only chance that it may use is ``context.random``. The same context gives the
    same decision.

    Examples
    --------
    >>> from attrs import frozen
    >>> @frozen
    ... class KeepBattery(Policy):
    ...     floor: float = 0.2
    ...     def decide(self, context):
    ...         if context.telemetry.get("battery", 1.0) < self.floor:
    ...             return context.best("energy_j", why="battery low")
    ...         return context.best()
    """

    @abc.abstractmethod
    def decide(self, context: Context) -> Decision:
        """Choose one of the rows that ``context.mask`` allows."""

    def permits(self, context: Context) -> NDArray[np.bool_]:
        """Return the rows that this policy would choose at all: ``context.mask``, unless it has wishes of its own.

        Wrappers pass it on, and make no probe of another row.
        """
        return context.mask

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:  # noqa: B027 (may be left out)
        """Take notes of what a run measured. Wrappers pass it on."""
