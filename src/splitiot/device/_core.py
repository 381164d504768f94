"""A device's requests, from the plan to the outcome: what its faces have in common."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from attrs import frozen

from splitiot._log import logger
from splitiot.device._carrier import Carrier
from splitiot.device._inbox import Received
from splitiot.device._options import Options
from splitiot.device._planning import Planning
from splitiot.device._reporter import Reporter
from splitiot.device._spool import Spool
from splitiot.errors import (
    DeadlineExceeded,
    Dropped,
    EdgeUnavailable,
    Infeasible,
    LocalProtocolError,
    SplitiotError,
    StepError,
    TransportError,
    with_notes,
)
from splitiot.observation import Observation
from splitiot.pipeline import DROP, Payload
from splitiot.plan import Outcome, Plan
from splitiot.planner import Planner
from splitiot.runner import Runner, TimedResult
from splitiot.session import DeviceEffect, DeviceSession, EdgeProfile, NewObservation, RequestDone, RunLocal, Send
from splitiot.topology import TierProfile
from splitiot.transports import Transport

__all__ = ["Core", "PlannedRequest", "RequestEnded", "failed_outcome", "step_error"]

_AT_ONCE: Final = 64  # as many frames as a session can have asked for


@frozen
class PlannedRequest:
    """A request that has a plan."""

    plan: Plan
    payload: Payload
    begun_s: float
    deadline_s: float | None
    telemetry: Mapping[str, float] | None

    @property
    def cut(self) -> int:
        """The number of steps on the device."""
        return self.plan.cut


class RequestEnded(Exception):
    """A request has its outcome, without the session."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Core:
    """What a device does, apart from waiting.

    It is not thread-safe, but for `receive`, `head` and `finish`, which change nothing here.

    The way out: `begin` (a plan), `head`, `submit`, `pump` (a frame to the carrier). The way back: `receive`,
    `handle_received` (to the session), `pump` (the outcome to `done`, the observation to the planner). What returns
    effects expects that they are given to `pump`, which carries them out; local finishes are left to `finish`.

    Parameters
    ----------
    options : Options
    transport : Transport
    session : DeviceSession
    runner : Runner
    planner : Planner, optional
        The user's own.
    seed : int
        Of the one that is made otherwise.
    spool : Spool, optional
    """

    def __init__(
        self,
        options: Options,
        transport: Transport,
        session: DeviceSession,
        runner: Runner,
        planner: Planner | None,
        *,
        seed: int = 0,
        spool: Spool | None = None,
    ) -> None:
        self._options, self.session, self.runner = options, session, runner
        self.pipeline, self.clock = options.pipeline, options.clock
        self.reporter = Reporter()
        self.carrier = Carrier(transport, options, self.reporter)
        self._spool, self._spooled, self._saving = spool, 0, threading.Lock()
        # new plans' ids follow those of the observations that an earlier start has saved
        first_id = 0 if spool is None else session.outbox.load(spool.load())
        self.planning = Planning(options, session, planner, first_id=first_id, seed=seed)
        self.done: dict[int, Outcome] = {}
        self.finishes: deque[RunLocal] = deque()
        self._warned = False

    @property
    def planner(self) -> Planner | None:
        """There is none before the device has a profile."""
        return self.planning.planner

    # the way out

    def begin(
        self, payload: Payload, begun_s: float, deadline_s: float | None, telemetry: Mapping[str, float] | None
    ) -> PlannedRequest:
        """Choose a placement, for what is left of the time.

        Raises
        ------
        RequestEnded
            There is no time left, or no placement.
        """
        now_s = self.clock()
        left_s = None if deadline_s is None else deadline_s - (now_s - begun_s)
        if left_s is not None and left_s <= 0:
            late = DeadlineExceeded(f"it waited {now_s - begun_s:.3f} s to begin, longer than its deadline")
            raise RequestEnded(failed_outcome(None, late, None, now_s - begun_s))
        try:
            plan = self.planning.decide(now_s, left_s, telemetry)
        except Infeasible as error:
            reason = f"the edge can't be used ({self.session.why_down}), nor anything else: {error}"
            lost = EdgeUnavailable(str(error) if self.session.edge_up(now_s) else reason)
            raise RequestEnded(failed_outcome(None, lost, None, self.clock() - begun_s)) from error
        if self._options.runs_alone(plan.cut):
            self.pump(self.session.rest(now_s))
        elif plan.cut:
            self.pump(self.session.rest(now_s, float(plan.costs.device_s[plan.row])))
        return PlannedRequest(plan, payload, begun_s, deadline_s, telemetry)

    def head(self, request: PlannedRequest) -> TimedResult | Exception:
        """Run the head, and return what it gives or raises.

        It takes as long as it takes, and may be called while other threads do other things here.
        """
        try:
            return self._run(0, request.cut, request.payload)
        except Exception as error:
            return error

    def submit(self, request: PlannedRequest, head: TimedResult | Exception, queued_head_s: float = 0.0) -> int:
        """Go on behind the head: ask the edge.

        Parameters
        ----------
        request : PlannedRequest
        head : TimedResult or Exception
        queued_head_s : float
            How long a local finish may have to wait for the device to be free.

        Returns
        -------
        int
            The number under which its outcome will be in `done`.

        Raises
        ------
        RequestEnded
            Nothing is left to be done.
        """
        plan, cut, clock = request.plan, request.cut, self.clock
        observation = Observation(plan_id=plan.id, cut=cut)
        if isinstance(head, Exception):
            raise RequestEnded(failed_outcome(plan, step_error(head), observation, clock() - request.begun_s)) from head
        if head.result is DROP:
            self._count_drop()
            dropped = Dropped("a task on the device dropped the frame")
            raise RequestEnded(failed_outcome(plan, dropped, observation, clock() - request.begun_s))
        if self._options.runs_alone(cut):
            raise RequestEnded(self._done_alone(request, head))
        deadline_s = request.deadline_s
        finish_s = self.planning.finish_s(cut)
        try:
            sequence, effects = self.session.submit(
                plan,
                head.result,
                now_s=clock(),
                begun_s=request.begun_s,
                deadline_s=math.inf if deadline_s is None else request.begun_s + deadline_s,
                patience_s=self._options.patience_s,
                head_s=head.seconds,
                head_steps_s=head.steps_s,
                finish_s=None if finish_s is None else finish_s + queued_head_s,
                telemetry=request.telemetry,
            )
        except SplitiotError as error:
            observation = Observation(plan_id=plan.id, cut=cut, head_s=head.seconds)
            raise RequestEnded(failed_outcome(plan, error, observation, clock() - request.begun_s)) from error
        self.pump(effects)
        return sequence

    def take(self, sequence: int) -> Outcome:
        """Take the outcome of a request that has ended."""
        outcome = self.done.pop(sequence)
        if outcome.source == "edge" and not outcome.exact and not self._warned:
            self._warned = True
            # if the edge that said hello is exact, another process has answered
            theirs = "something else" if self.session.exact else self.session.edge
            logger.warning("the edge runs %s, this device %s: results may differ", theirs, self._options.info)
        return outcome

    def next_finish(self) -> RunLocal | None:
        """Take a local finish that is still wanted: the edge may have answered before the device was free for it."""
        while self.finishes:
            finish = self.finishes.popleft()
            if self.session.waits_for(finish.sequence):
                return finish
        return None

    def abandon(self) -> None:
        """Nobody waits for the requests any more."""
        self.session.abandon()
        self.done.clear()
        self.finishes.clear()

    def reset(self) -> None:
        """Forget what a stateful pipeline remembers, here and on the edge."""
        self.runner.reset("device")
        self.session.reset()
        self.planning.reset()

    def _count_drop(self) -> None:
        self.session.counters.requests += 1
        self.session.counters.dropped += 1

    def _run(self, start: int, stop: int, payload: Payload) -> TimedResult:
        return TimedResult(*self.runner.run_timed(start, stop, payload, "device"))

    def _done_alone(self, request: PlannedRequest, head: TimedResult) -> Outcome:
        plan, now_s = request.plan, self.clock()
        sent, kept = self.pipeline.divide(plan.cut, head.result)
        observation = Observation(plan_id=plan.id, cut=plan.cut, head_s=head.seconds, head_steps_s=head.steps_s)
        self.pump(self.session.ran_alone(observation, now_s))
        latency_s = now_s - request.begun_s
        if request.deadline_s is not None and latency_s > request.deadline_s:
            late = DeadlineExceeded(f"ran locally, {latency_s - request.deadline_s:.3f} s longer than the deadline")
            return failed_outcome(plan, late, observation, latency_s)
        return Outcome(
            value=self.pipeline.join(kept, sent),
            error=None,
            source="local",
            exact=True,
            plan=plan,
            observation=observation,
            latency_s=latency_s,
        )

    # effects

    def pump(self, effects: Sequence[DeviceEffect]) -> None:
        """Carry out effects."""
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            if isinstance(effect, RequestDone):
                self.done[effect.sequence] = effect.outcome
            elif isinstance(effect, NewObservation):
                self.planning.observe(effect.observation)
            elif isinstance(effect, Send):
                error = self.carrier.send(effect.frame, self.session.wake_s)
                if error is not None:
                    waiting += self.session.failed(effect.frame, error, self.clock())
            elif isinstance(effect, RunLocal):
                self.finishes.append(effect)
            elif isinstance(effect, EdgeProfile):
                self.planning.use_edge_profile(effect.profile)
        if self.session.trouble is not self.reporter.known:
            self.reporter.look(self.session, self.clock())

    def finish(self, effect: RunLocal) -> TimedResult:
        """Run a local finish, like `head`; tell `finished` what it gives."""
        try:
            return self._run(effect.start, effect.stop, effect.payload)
        except Exception as error:
            return TimedResult(error, 0.0, ())

    def finished(self, effect: RunLocal, rest: TimedResult) -> list[DeviceEffect]:
        """A local finish has ended."""
        return self.session.local_done(effect.sequence, rest.result, rest.seconds, self.clock(), rest.steps_s)

    # the way back

    def receive(self, timeout_s: float) -> Received | None:
        """Wait for a frame or for news of one that was lost; give it to `handle_all`."""
        return self.carrier.receive(timeout_s)

    def handle_received(self, received: Received) -> list[DeviceEffect]:
        """Something came."""
        frame = received.frame
        if isinstance(frame, TransportError):
            if frame.frame is None:
                return self.session.broken(frame, self.clock())
            return self.session.failed(frame.frame, frame, self.clock())
        return self.session.receive(frame, self.clock(), received.arrival)

    def handle_all(self, received: Received | None) -> None:
        """Take in what came, and all else that waits; only then judge the time.

        Nobody may have listened for long: what the edge has said is no silence because it was not read.
        """
        for _ in range(_AT_ONCE):
            if received is None:
                break
            self.pump(self.handle_received(received))
            if isinstance(received.frame, Exception):
                break  # a broken transport may have nothing else to say
            received = self.receive(0.0)
        self.pump(self.session.tick(self.clock(), self.carrier.heard_s))

    def listen(self, timeout_s: float) -> None:
        """Wait for what comes, at most so long, and take it in."""
        self.handle_all(self.receive(timeout_s))

    def unsaved(self, *, due: bool = True) -> bytes | None:
        """Return what should be saved in the spool now, if anything: give it to `save`."""
        outbox = self.session.outbox
        if self._spool is None or outbox.changes == self._spooled or (due and not self._spool.due(self.clock())):
            return None
        self._spooled = outbox.changes
        return self.session.dump()

    def save(self, data: bytes | None) -> None:
        """Save that; it takes as long as the disk takes, and may be called while other threads do other things here."""
        if data is not None and self._spool is not None:
            with self._saving:
                self._spool.save(data, self.clock())

    def disown(self) -> None:
        """Tell whoever goes on here with a request, in a process that was forked meanwhile, that it is the parent's."""
        self.session = _Parents()  # type: ignore[assignment]

    # the start

    def connect(self, connect_s: float) -> bool:
        """Greet the edge; whether it answered in time."""
        session, began_s = self.session, self.clock()
        self.listen(0.0)
        outages = session.outages
        while not session.settled and session.outages == outages and (left_s := began_s + connect_s - self.clock()) > 0:
            self.listen(min(left_s, 0.05))
        if not session.met:
            self.reporter.absent(session.trouble)
        return session.edge_up(self.clock())

    def spare_s(self, begun_s: float, deadline_s: float | None) -> float:
        """How long a request may wait for the edge at the start: what is run here must still be in time, if it can."""
        if deadline_s is None:
            return math.inf
        left_s = deadline_s - (self.clock() - begun_s)
        finish_s = self.planning.finish_s(0) or 0.0
        return left_s - finish_s if finish_s < left_s else left_s

    def plan_with(self, sample: Any) -> None:
        """Make the planner, with the device's own profile; to measure that on `sample` takes a while."""
        self.planning.begin(self.planning.own_profile(sample, self.runner))

    def measured(self, value: Any, begun_s: float) -> TierProfile:
        """Return the device's own profile, measured on a request's value if need be.

        Raises
        ------
        RequestEnded
            A step raised, or dropped the frame.
        """
        try:
            return self.planning.own_profile(value, self.runner)
        except Exception as error:
            if isinstance(error, Dropped):
                self._count_drop()
            outcome = failed_outcome(None, step_error(error), None, self.clock() - begun_s)
            raise RequestEnded(outcome) from error


class _Parents:
    """Stands for a session of the process that this one was forked from."""

    def __getattr__(self, name: str) -> NoReturn:
        raise LocalProtocolError("this process was forked while it ran a request: that ends in the parent only")


def step_error(error: Exception) -> SplitiotError:
    """Return an error that ends a request, made of what a step raised."""
    if isinstance(error, SplitiotError):
        return error
    wrapped = StepError(with_notes(f"a step raised {error!r}", error))
    wrapped.__cause__ = error
    return wrapped


def failed_outcome(
    plan: Plan | None, error: SplitiotError, observation: Observation | None, latency_s: float
) -> Outcome:
    """Return the outcome of a request without a value."""
    return Outcome(
        value=None, error=error, source="none", exact=False, plan=plan, observation=observation, latency_s=latency_s
    )
