"""Session, planner, runner and transport of a device, put together: what its faces have in common."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from attrs import evolve, frozen

from splitiot._log import logger
from splitiot.cost import Constraint
from splitiot.device._inbox import Found, Inbox
from splitiot.device._profile_cache import ProfileCache
from splitiot.device._reporter import Reporter
from splitiot.device._spool import Spool
from splitiot.errors import (
    DeadlineExceeded,
    Dropped,
    EdgeUnavailable,
    Infeasible,
    LocalProtocolError,
    ProfileError,
    SplitiotError,
    StepError,
    TransportBug,
    TransportError,
    with_notes,
)
from splitiot.observation import Observation
from splitiot.pipeline import DROP, Payload, Pipeline, RuntimeInfo, Tier
from splitiot.plan import Outcome, Plan
from splitiot.planner import Planner
from splitiot.policies import Policy
from splitiot.profiling import profile as measure
from splitiot.recorder import Recorder
from splitiot.runner import Runner
from splitiot.session import DeviceEffect, DeviceSession, EdgeProfile, NewObservation, RequestDone, RunLocal, Send
from splitiot.topology import Link, TierProfile, Topology
from splitiot.transports import Punctual, Transport, failure_of
from splitiot.wire import NextPlacement

__all__ = ["SLICE_S", "Begun", "Core", "Head", "ended", "step_error"]

_AT_ONCE = 64  # as many frames as a session can have asked for
_GUESS = 2.0  # noise of a profile that nobody measured
SLICE_S = 0.5  # the longest single wait, so that Ctrl-C is heard on every platform


@frozen
class Begun:
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


@frozen
class Head:
    """What a head gave."""

    result: Payload
    seconds: float
    steps_s: tuple[float, ...]


class Core:
    """What a device does, apart from waiting. Not thread-safe, but for `receive` and `head`, which change nothing here.

    A request: `begin` (a plan), `head`, `submit` (which may end it at once), then effects until it has ended. What
    returns effects expects that they are given to `pump`, which carries them out; local finishes are left to `finish`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        transport: Transport,
        session: DeviceSession,
        runner: Runner,
        info: RuntimeInfo,
        *,
        clock: Callable[[], float],
        policy: Policy | None,
        link: Link,
        subject_to: tuple[Constraint, ...],
        parts: frozenset[tuple[int, int]] | None,
        planner: Planner | None,
        recorder: Recorder | None,
        cache: ProfileCache,
        patience_s: float,
        follow: bool,
        seed: int = 0,
        spool: Spool | None = None,
    ) -> None:
        self.pipeline, self.session = pipeline, session
        self._carrier = type(transport).__name__
        # on another clock, a simulated one, no real time passes in a transport
        self.transport = transport if transport.punctual or clock is not time.monotonic else Punctual(transport)
        self.runner, self.clock = runner, clock
        self.inbox = Inbox(self.transport, clock, self._carrier, self._failure)
        self._info, self._cache, self._policy, self._link = info, cache, policy, link
        self._subject_to, self._parts, self._recorder = subject_to, parts, recorder
        self._patience_s, self._follow, self._seed = patience_s, follow, seed
        self.planner = planner
        if planner is not None:
            self._restrict(planner)
        self._spool, self._spooled, self._saving = spool, 0, threading.Lock()
        # plans get ids behind those of the observations that an earlier start left
        self._behind = 0 if spool is None else session.outbox.load(spool.load())
        if planner is not None:
            planner.number_behind(self._behind)
        self.done: dict[int, Outcome] = {}
        self.finishes: deque[RunLocal] = deque()
        self._warned = False
        self.reporter = Reporter()
        self._limits: tuple[int, frozenset[int]] = (session.max_frame_bytes, frozenset())
        self._proposed: tuple[NextPlacement | None, float] = (None, 0.0)
        # what came before there was a planner
        self._edge_profile: TierProfile | None = None
        self._early: deque[Observation] = deque(maxlen=16)

    # one request

    def begin(
        self, payload: Payload, begun_s: float, deadline_s: float | None, telemetry: Mapping[str, float] | None
    ) -> Begun | Outcome:
        """Choose a placement, for what is left of the time."""
        now_s = self.clock()
        left_s = None if deadline_s is None else deadline_s - (now_s - begun_s)
        if left_s is not None and left_s <= 0:
            late = DeadlineExceeded(f"it waited {now_s - begun_s:.3f} s to begin, longer than its deadline")
            return ended(None, late, None, now_s - begun_s)
        try:
            plan = self._decide(now_s, left_s, telemetry)
        except Infeasible as error:
            words = f"the edge can't be used ({self.session.why_down}), nor anything else: {error}"
            lost = EdgeUnavailable(str(error) if self.session.edge_up(now_s) else words)
            return ended(None, lost, None, self.clock() - begun_s)
        alone = self._alone(plan.cut)
        if alone:
            self.pump(self.session.rest(now_s))
        elif plan.cut:
            self.pump(self.session.rest(now_s, float(plan.costs.device_s[plan.row])))
        return Begun(plan, payload, begun_s, deadline_s, telemetry)

    def head(self, begun: Begun) -> Head | Exception:
        """Run the head; takes as long as it takes, and may be called while other threads do other things here."""
        try:
            return Head(*self.runner.run_timed(0, begun.cut, begun.payload, "device"))
        except Exception as error:
            return error

    def submit(self, begun: Begun, head: Head | Exception, lane_s: float = 0.0) -> int | Outcome:
        """Go on behind the head: ask the edge, or end the request if nothing is left to be done.

        Parameters
        ----------
        begun : Begun
        head : Head or Exception
        lane_s : float
            How long a local finish may have to wait for the device to be free.

        Returns
        -------
        int
            The number under which its outcome will be in `done`.
        Outcome
            It has ended.
        """
        plan, cut, clock = begun.plan, begun.cut, self.clock
        if isinstance(head, Exception):
            seen = Observation(plan_id=plan.id, cut=cut)
            return ended(plan, step_error(head), seen, clock() - begun.begun_s)
        if head.result is DROP:
            self._count_drop()
            dropped = Dropped("a task on the device dropped the frame")
            return ended(plan, dropped, Observation(plan_id=plan.id, cut=cut), clock() - begun.begun_s)
        if self._alone(cut):
            return self._done_alone(begun, head)
        deadline_s = begun.deadline_s
        finish_s = self._finish_s(cut)
        try:
            sequence, effects = self.session.submit(
                plan,
                head.result,
                now_s=clock(),
                begun_s=begun.begun_s,
                deadline_s=math.inf if deadline_s is None else begun.begun_s + deadline_s,
                patience_s=self._patience_s,
                head_s=head.seconds,
                head_steps_s=head.steps_s,
                finish_s=None if finish_s is None else finish_s + lane_s,
                telemetry=begun.telemetry,
            )
        except SplitiotError as error:
            seen = Observation(plan_id=plan.id, cut=cut, head_s=head.seconds)
            return ended(plan, error, seen, clock() - begun.begun_s)
        self.pump(effects)
        return sequence

    def take(self, sequence: int) -> Outcome:
        """Take the outcome of a request that has ended."""
        outcome = self.done.pop(sequence)
        if outcome.source == "edge" and not outcome.exact and not self._warned:
            self._warned = True
            theirs = "something else" if self.session.exact else self.session.edge  # another process than said hello
            logger.warning("the edge runs %s, this device %s: results may differ", theirs, self._info)
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
        self.session.take_next()
        self._proposed = (None, 0.0)  # it kept to the old cut
        if self.planner is not None:
            self.planner.reset()

    def _count_drop(self) -> None:
        self.session.counters.requests += 1
        self.session.counters.dropped += 1

    def _alone(self, cut: int) -> bool:
        return cut == self.pipeline.n and self.pipeline.sink == "device"

    def _done_alone(self, begun: Begun, head: Head) -> Outcome:
        plan, now_s = begun.plan, self.clock()
        sent, kept = self.pipeline.divide(plan.cut, head.result)
        seen = Observation(plan_id=plan.id, cut=plan.cut, head_s=head.seconds, head_steps_s=head.steps_s)
        self.pump(self.session.ran_alone(seen, now_s))
        latency_s = now_s - begun.begun_s
        if begun.deadline_s is not None and latency_s > begun.deadline_s:
            late = DeadlineExceeded(f"ran locally, {latency_s - begun.deadline_s:.3f} s longer than the deadline")
            return ended(plan, late, seen, latency_s)
        return Outcome(
            value=self.pipeline.join(kept, sent),
            error=None,
            source="local",
            exact=True,
            plan=plan,
            observation=seen,
            latency_s=latency_s,
        )

    def _decide(self, now_s: float, deadline_s: float | None, telemetry: Mapping[str, float] | None) -> Plan:
        planner = self.planner
        assert planner is not None
        up = self.session.edge_up(now_s)
        limits = (self.session.max_frame_bytes, self.session.too_large(now_s))
        if limits != self._limits:
            self._limits = limits
            planner.exclude(limits[1], sent_bytes=limits[0])
        if self._follow:
            self._proposed = self.session.take_next() or self._proposed
        proposal, until_s = self._proposed
        if up and proposal is not None and now_s < until_s:
            if proposal.probe:
                self._proposed = (None, 0.0)  # it is to be tried once
            return planner.adopt(
                now_s,
                proposal.cuts[0],
                plan_id=proposal.plan_id,
                why=proposal.why,
                probe=proposal.probe,
                propensity=proposal.propensity,
                deadline_s=deadline_s,
                telemetry=telemetry,
            )
        plan = planner.decide(now_s, deadline_s=deadline_s, telemetry=telemetry, edge_up=up)
        why = self._why_local(plan) if up else self._why_down()
        return evolve(plan, decision=evolve(plan.decision, why=f"{plan.why}; {why}")) if why else plan

    def _why_local(self, plan: Plan) -> str:
        """Say why a plan had no choice although the edge is up; empty where it had one."""
        trouble = self.session.trouble
        if trouble is None or (plan.costs.mask & plan.costs.exchanges).any():
            return ""
        return f"all that could be sent is too large: {trouble.reason}"

    def _why_down(self) -> str:
        trouble = self.session.trouble
        return f"the edge can't be used: {self.session.why_down if trouble is None else trouble.reason}"

    def _finish_s(self, cut: int) -> float | None:
        n = self.pipeline.n
        if self._parts is not None and (cut, n) not in self._parts:
            return None
        if self.planner is None or not self.pipeline.runs_on(Tier.DEVICE, cut, n):
            return None
        return self.planner.finish_s(cut)

    # effects

    def pump(self, effects: Sequence[DeviceEffect]) -> None:
        """Carry out effects."""
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            if isinstance(effect, RequestDone):
                self.done[effect.sequence] = effect.outcome
            elif isinstance(effect, NewObservation):
                if self.planner is None:
                    self._early.append(effect.observation)
                else:
                    self.planner.observe(effect.observation, now_s=self.clock())
            elif isinstance(effect, Send):
                error = self._send(effect.frame)
                if error is not None:
                    waiting += self.session.failed(effect.frame, error, self.clock())
            elif isinstance(effect, RunLocal):
                self.finishes.append(effect)
            elif isinstance(effect, EdgeProfile):
                self._edge_profile = effect.profile
                if self.planner is not None:
                    self._use_edge_profile(self.planner)
        if self.session.trouble is not self.reporter.known:
            self.reporter.look(self.session, self.clock())

    def _send(self, frame: bytes) -> TransportError | None:
        transport = self.transport
        try:
            if isinstance(transport, Punctual):
                wake_s = self.session.wake_s()
                wait_s = SLICE_S if wake_s is None else wake_s - self.clock()
                transport.send(frame, timeout_s=SLICE_S, wait_s=min(max(wait_s, 0.0), SLICE_S))
            else:
                transport.send(frame, timeout_s=SLICE_S)
        except Exception as error:
            return self._failure(error, "send", frame)
        return None

    def _failure(self, error: Exception, method: str = "receive", frame: bytes | None = None) -> TransportError:
        """Return what a transport raised as what it means: a frame, or all of them, could not be carried."""
        if not isinstance(error, TransportError):
            error = failure_of(self._carrier, method, error, frame)
        if isinstance(error, TransportBug):
            self.reporter.bug(error)
        return error

    def finish(self, effect: RunLocal) -> tuple[Payload | Exception, float, tuple[float, ...]]:
        """Run a local finish, like `head`; tell `finished` what it gives."""
        try:
            return self.runner.run_timed(effect.start, effect.stop, effect.payload, "device")
        except Exception as error:
            return error, 0.0, ()

    def finished(
        self, effect: RunLocal, result: Payload | Exception, seconds: float, steps_s: tuple[float, ...]
    ) -> list[DeviceEffect]:
        """A local finish has ended."""
        return self.session.local_done(effect.sequence, result, seconds, self.clock(), steps_s)

    def receive(self, timeout_s: float) -> Found | None:
        """Wait for a frame or for news of one that was lost; give it to `heard`."""
        return self.inbox.receive(timeout_s)

    def took(self, found: Found) -> list[DeviceEffect]:
        """Something came."""
        frame = found.frame
        if isinstance(frame, TransportError):
            if frame.frame is None:
                return self.session.broken(frame, self.clock())
            return self.session.failed(frame.frame, frame, self.clock())
        return self.session.receive(frame, self.clock(), found.arrival)

    def heard(self, found: Found | None) -> None:
        """Take in what came, and all else that waits; only then judge the time.

        Nobody may have listened for long: what the edge has said is no silence because it was not read.
        """
        for _ in range(_AT_ONCE):
            if found is None:
                break
            self.pump(self.took(found))
            if isinstance(found.frame, Exception):
                break  # a broken transport may have nothing else to say
            found = self.receive(0.0)
        self.pump(self.session.tick(self.clock(), self.inbox.heard_s))

    def listen(self, timeout_s: float) -> None:
        """Wait for what comes, at most so long, and take it in."""
        self.heard(self.receive(timeout_s))

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

    def close_transport(self) -> None:
        """Close the transport; one that can't even do that keeps nobody from going on."""
        try:
            self.transport.close()
        except Exception as error:
            self._failure(error, "close")

    def spare_s(self, begun_s: float, deadline_s: float | None) -> float:
        """How long a request may wait for the edge at the start: what is run here must still be in time, if it can."""
        if deadline_s is None:
            return math.inf
        left_s = deadline_s - (self.clock() - begun_s)
        finish_s = self._finish_s(0) or 0.0
        return left_s - finish_s if finish_s < left_s else left_s

    def own_profile(self, sample: Any) -> TierProfile:
        """Return what the pipeline costs here: given, kept from before, or measured now, which takes a while."""
        own = self.session.profile or self._cache.load(self.pipeline, self._info)
        if own is None:
            logger.info("measuring what the pipeline costs here")
            own = measure(self.pipeline, sample, runner=self.runner, tier=Tier.DEVICE)
            self._cache.save(own, self.pipeline, self._info)
        return own

    def measured(self, value: Any, begun_s: float) -> TierProfile | Outcome:
        """Return `own_profile`, or how the request ends that it was to be measured with."""
        try:
            return self.own_profile(value)
        except Exception as error:  # a step raised, or dropped the frame
            if isinstance(error, Dropped):
                self._count_drop()
            return ended(None, step_error(error), None, self.clock() - begun_s)

    def plan_with(self, own: TierProfile) -> None:
        """Make the planner."""
        self.session.profile = own
        # until the edge tells its profile, it is believed to be as fast as the device, and known to be a guess
        topology = Topology(tiers=[own, evolve(own, noise=_GUESS)], links=[self._link])
        planner = Planner(
            self.pipeline,
            topology,
            self._policy,
            seed=self._seed,
            recorder=self._recorder,
            subject_to=self._subject_to,
        )
        self._restrict(planner)
        planner.number_behind(self._behind)
        self._use_edge_profile(planner)
        planner.observe(*self._early, now_s=self.clock())
        self._early.clear()
        self.planner = planner

    def _restrict(self, planner: Planner) -> None:
        """Forbid what can't be run here; a planner of the user's may know the pipeline as it is with other kernels."""
        cuts = set(planner.pipeline.cuts)
        if self._parts is not None:
            cuts &= {0, *(stop for start, stop in self._parts if start == 0)}
        if self._parts is not None or not cuts.issubset(self.pipeline.cuts):
            planner.restrict(cuts.intersection(self.pipeline.cuts))

    def _use_edge_profile(self, planner: Planner) -> None:
        if self._edge_profile is not None:
            with contextlib.suppress(ProfileError):
                planner.set_profile(1, self._edge_profile)


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


def ended(plan: Plan | None, error: SplitiotError, seen: Observation | None, latency_s: float) -> Outcome:
    """Return the outcome of a request without a value."""
    return Outcome(
        value=None, error=error, source="none", exact=False, plan=plan, observation=seen, latency_s=latency_s
    )
