"""Listening to a planner: what it decided and what it was told, for a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from splitiot.cost import Costs, Objective
from splitiot.observation import Observation
from splitiot.pipeline import Pipeline
from splitiot.plan import Plan
from splitiot.policies import Policy
from splitiot.topology import TierProfile, Topology

__all__ = ["GuardedRecorder", "Recorded", "Recorder"]


class Recorded(Protocol):
    """What a recorder may ask of the planner that it listens to: a `Planner` has it all."""

    @property
    def pipeline(self) -> Pipeline:
        """What is placed."""

    @property
    def topology(self) -> Topology:
        """The profiles, and the link that is believed until there are samples."""

    @property
    def policy(self) -> Policy:
        """Who decides."""

    @property
    def objective(self) -> Objective:
        """What is made small."""

    @property
    def costs(self) -> Costs:
        """All placements under what is believed now."""

    def snapshot(self) -> dict[str, Any]:
        """Return all that was learnt as plain data."""


class Recorder:
    """Is told all that happens to one planner. These methods do nothing: override those that you need.

    They are called in the planner's own thread, inside a request: be quick. What they raise ends the recording, with a
    line in the log, and no request.

    Examples
    --------
    >>> class Cuts(Recorder):
    ...     def __init__(self):
    ...         self.cuts = []
    ...     def planned(self, plan, now_s, **asked):
    ...         self.cuts.append(plan.cut)
    """

    def began(self, planner: Recorded) -> None:
        """A planner was made, or restored from a stored state: what comes next follows from that."""

    def planned(
        self,
        plan: Plan,
        now_s: float,
        *,
        deadline_s: float | None = None,
        telemetry: Mapping[str, float] | None = None,
        edge_up: bool = True,
    ) -> None:
        """A plan was made (or adopted), and this is what had been asked."""

    def observed(self, observation: Observation, now_s: float) -> None:
        """The planner was given an observation, new or repeated, and has learnt from it."""

    def profiled(self, tier_index: int, profile: TierProfile) -> None:
        """The planner took another profile of a tier (0 is the device, 1 the edge)."""


class GuardedRecorder(Recorder):
    """Another recorder that can't hurt: at its first error it is let go, and the log is told why.

    Parameters
    ----------
    recorder : Recorder
    """

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        self._recorder: Recorder | None = recorder

    def began(self, planner: Recorded) -> None:
        self._tell("began", planner)

    def planned(
        self,
        plan: Plan,
        now_s: float,
        *,
        deadline_s: float | None = None,
        telemetry: Mapping[str, float] | None = None,
        edge_up: bool = True,
    ) -> None:
        self._tell("planned", plan, now_s, deadline_s=deadline_s, telemetry=telemetry, edge_up=edge_up)

    def observed(self, observation: Observation, now_s: float) -> None:
        self._tell("observed", observation, now_s)

    def profiled(self, tier_index: int, profile: TierProfile) -> None:
        self._tell("profiled", tier_index, profile)

    def _tell(self, name: str, *args: Any, **kwargs: Any) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        try:
            getattr(recorder, name)(*args, **kwargs)
        except Exception as error:  # whatever it is, a request is worth more than its record
            from splitiot._log import logger

            self._recorder = None
            logger.warning("recording has ended: %s.%s raised %r", type(recorder).__name__, name, error, exc_info=True)
