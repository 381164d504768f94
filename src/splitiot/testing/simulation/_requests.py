"""What an owner knows of a device's requests, and how each may end: finds late, wrong and missing values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from splitiot.device._core import Core, PlannedRequest
from splitiot.errors import Dropped, StepError
from splitiot.pipeline import DROP, Tier
from splitiot.plan import Outcome
from splitiot.testing.simulation._heap import TICK_S
from splitiot.testing.simulation._role import Role
from splitiot.testing.simulation._work import same

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = ["Request", "RequestOracle"]

_MARGIN_S = 0.005


class Request(msgspec.Struct, eq=False):
    """One request, as its owner has seen it so far."""

    number: int
    value: Any
    begun_s: float  # on the heap's clock
    deadline_s: float | None
    expected: Any = None
    sequence: int = 0
    boot: bytes = b""
    can_finish: bool = False
    finish_s: float = 0.0  # what the rest takes here at worst, the wait for the lane included
    fits: bool = False
    asked_s: float | None = None  # when a local finish was asked for
    finished_s: float | None = None
    waited_s: float = 0.0
    over: bool = False


class RequestOracle:
    """Checks how each request of a device ends.

    Parameters
    ----------
    world : World
    role : Role
    """

    def __init__(self, world: World, role: Role) -> None:
        self._world, self._role = world, role
        self.start_anew()

    def start_anew(self) -> None:
        """The device was reset, or has started: no value may depend on what came before."""
        self._kept_in: set[int] | None = None  # the edge's memories that all values since may have come from

    def foresee(self, core: Core, request: Request, begun: PlannedRequest, cut: int, queued_head_s: float) -> None:
        """Work out, without asking the session, whether the rest can be done here in time."""
        pipeline = self._role.work.pipeline
        assert core.planner is not None
        request.can_finish = (
            pipeline.sink == "device"
            and (cut == 0 == request.sequence or not pipeline.remembers_from(cut) or begun.cut == pipeline.n)
            and pipeline.runs_on(Tier.DEVICE, cut, pipeline.n)
            and (self._role.parts is None or (cut, pipeline.n) in self._role.parts or begun.cut == pipeline.n)
        )
        if begun.cut < pipeline.n and pipeline.remembers_from(cut):
            request.can_finish = False
        if not request.can_finish:
            return
        request.finish_s = core.planner.finish_s(cut) + queued_head_s
        if request.deadline_s is not None:
            latest_s = request.begun_s + request.deadline_s - request.finish_s - _MARGIN_S
            request.fits = self._world.heap.now_s + 2 * TICK_S < latest_s

    def check(self, request: Request, outcome: Outcome, latency_s: float) -> None:
        """Compare how a request has ended with what it may come to."""
        if abs(outcome.latency_s - latency_s) > 1e-6:
            detail = f"request {request.number} took {latency_s:.6f} s, the outcome says {outcome.latency_s:.6f}"
            self._violated("wrong latency", detail)
        if outcome.ok:
            self._check_value(request, outcome, latency_s)
        elif isinstance(outcome.error, Dropped | StepError):
            self._check_drop(request, outcome.error)
        else:
            self._check_failure(request, outcome)

    def _check_drop(self, request: Request, error: Dropped | StepError) -> None:
        """A step must have been told to raise, or to drop the frame."""
        if request.expected is not (StepError if isinstance(error, StepError) else DROP):
            self._violated("wrong failure", f"request {request.number}: {error!r:.200}")

    def _check_value(self, request: Request, outcome: Outcome, latency_s: float) -> None:
        if request.deadline_s is not None and latency_s > request.deadline_s + TICK_S:
            late_s = latency_s - request.deadline_s
            self._violated("late value", f"request {request.number} got its value {late_s:.6f} s after its deadline")
        value, expected = outcome.value, request.expected
        if outcome.source == "edge":
            value, expected = self._check_from_edge(request, outcome)
        if not same(value, expected):
            salt = value[0] if isinstance(value, tuple) else None
            whose = "" if salt == self._role.salt else ", which is another device's"
            detail = f"request {request.number} ({outcome.source}) got {value!r:.50}, not {expected!r:.50}{whose}"
            self._violated("leak" if whose else "wrong value", detail)

    def _check_from_edge(self, request: Request, outcome: Outcome) -> tuple[Any, Any]:
        """Compare a value with what the edge gave; return what is to be the same then."""
        work = self._role.work
        results = self._world.given.get((request.boot, request.sequence), [])
        fitting = [each for each in results if work.pipeline.sink == "edge" or same(each[0], outcome.value)]
        flavours = [flavour for _, flavour, _ in fitting]
        if not flavours:
            self._violated("wrong value", f"request {request.number} got what the edge did not give")
        elif all(flavours) and (outcome.exact or self._role.exact):
            self._violated("not exact", f"request {request.number} is of another runtime, and must not be")
        if any(memory is not None for _, _, memory in fitting):
            memories = {id(memory) for _, _, memory in fitting}
            self._kept_in = memories if self._kept_in is None else self._kept_in & memories
            if not self._kept_in:
                self._violated("state lost", f"request {request.number} got a value of a new state")
        value = outcome.value
        if work.pipeline.sink == "edge":
            value = results[-1][0] if results else None
        depends_on_others = work.memory_at is not None and not work.pipeline.stateful
        if depends_on_others or any(flavours):  # checked where it was made: by another runtime, or of a shared state
            return value, value
        return value, request.expected

    def _check_failure(self, request: Request, outcome: Outcome) -> None:
        """See that it could not have had a value, finished here in time."""
        counts, number = self._world.counts, request.number
        if not request.can_finish or request.expected is StepError:
            return
        if request.deadline_s is None:
            detail = f"request {number} has no deadline and could finish here: {outcome.error!r:.200}"
            self._violated("no value", detail)
            return
        if not request.fits:
            counts["did not fit"] += 1
            return
        if request.asked_s is None or request.finished_s is None:
            if request.waited_s > request.finish_s:
                counts["lane was taken"] += 1
                return
            if request.asked_s is None and outcome.plan is not None and outcome.plan.cut < self._role.work.pipeline.n:
                detail = f"request {number} could have finished here in time: {outcome.error!r:.200}"
                self._violated("no value", detail)
            return
        latest_s = request.begun_s + request.deadline_s - request.finish_s - _MARGIN_S
        seconds = request.finished_s - request.asked_s
        if request.asked_s > latest_s + 2 * TICK_S:
            late_s = request.asked_s - latest_s
            self._violated("late finish", f"request {number} was finished here {late_s:.6f} s too late")
        elif seconds <= request.finish_s:
            detail = f"request {number} finished here in {seconds:.3f} s, and failed: {outcome.error!r:.200}"
            self._violated("no value", detail)
        elif request.waited_s > 0:
            counts["lane was taken"] += 1
        else:
            counts["slower than believed"] += 1

    def _violated(self, promise: str, detail: str) -> None:
        self._world.violated(promise, detail, self._role.name)
