"""The device: its blocking face."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import evolve

from splitiot._log import logger
from splitiot.cost import Constraint
from splitiot.errors import (
    DeadlineExceeded,
    EdgeUnavailable,
    Infeasible,
    LocalProtocolError,
    ProfileError,
    SplitiotError,
    StepError,
    TransportError,
)
from splitiot.observation import Observation
from splitiot.pipeline import Payload, Pipeline, Runtime
from splitiot.plan import Outcome, Plan
from splitiot.planner import Planner
from splitiot.policies import Policy
from splitiot.profiling import profile as measure
from splitiot.recorder import Recorder
from splitiot.runner import Runner
from splitiot.session import (
    DeviceCounters,
    DeviceEffect,
    DeviceSession,
    Done,
    EdgeProfile,
    Observed,
    RunLocal,
    Send,
)
from splitiot.topology import Link, TierProfile, Topology
from splitiot.transports import Transport
from splitiot.wire import NextPlacement

__all__ = ["Device"]

_DEFAULT_LINK = Link.from_mbit_per_s(10, rtt_s=0.02)
_SLICE_S = 0.5  # the longest single wait, so that Ctrl-C is heard on every platform


class Device:
    """Runs a pipeline: its head here, its tail on an edge, the cut chosen anew for each request.

    A request ends in exactly one `Outcome` by its deadline. If the edge can't be reached or is too late, the device
    finishes from the payload that it kept.

    Parameters
    ----------
    pipeline : Pipeline
        The same as on the edge.
    transport : Transport
    policy : Policy, optional
        How to choose; `adaptive()` unless given.
    profile : TierProfile, optional
        What the pipeline costs here. Unless given, it is read from the cache, or measured on `sample`, or on the first
        request's value (which takes a second or two, once a machine, runtime and pipeline).
    sample : object, optional
        What `pipeline.run` takes.
    link : Link, optional
        What to believe of the link until it has been measured.
    runtime : Runtime, optional
        What models are run with.
    parts : sequence of (int, int), optional
        The only parts that this device has; all, or those of a bundle, unless given.
    exact : bool
        Use the edge only while its results agree bit for bit with the device's.
    deadline_s : float, optional
        For requests that give none of their own. A result that comes after it is an error; without one, none is late.
    patience_s : float
        How long an edge may be silent, deadline or not, before the device finishes a request itself, or where it
        can't, gives it up.
    connect_s : float
        How long to wait for the edge at the start. Without it the device begins alone.
    subject_to : constraint, or iterable of them
        What every placement must have, such as ``StepsOnDevice(1)``: the raw input never leaves the device.
    follow : bool
        Use the placements that the edge's planner proposes, while they are valid.
    cache : bool or path
        Where own profiles are kept; True is the user's cache folder.
    planner : Planner, optional
        One of your own, instead of `policy`, `profile` and `link`: for other estimators, an objective, a seed.
    recorder : Recorder, optional
        Is told each plan and observation of the planner that the device makes: `splitiot.sim.TraceWriter` logs them.
        Give it to a planner of your own yourself.
    runner : Runner, optional
        One of your own, instead of `runtime`.
    clock : callable
        Monotonic seconds.

    Examples
    --------
    See `splitiot.EdgeService` for both sides in one process.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        transport: Transport,
        *,
        policy: Policy | None = None,
        profile: TierProfile | None = None,
        sample: Any = None,
        link: Link | None = None,
        runtime: Runtime | None = None,
        parts: Sequence[tuple[int, int]] | None = None,
        exact: bool = False,
        deadline_s: float | None = None,
        patience_s: float = 5.0,
        connect_s: float = 2.0,
        subject_to: Iterable[Constraint] | Constraint = (),
        follow: bool = False,
        cache: bool | str | os.PathLike[str] = True,
        planner: Planner | None = None,
        recorder: Recorder | None = None,
        runner: Runner | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _positive(deadline_s)
        _positive(patience_s)
        if recorder is not None and planner is not None:
            raise ValueError("a planner of your own has its own recorder: Planner(..., recorder=...)")
        if profile is None and planner is not None:
            profile = planner.topology.tiers[0]
        if profile is not None and profile.digest != pipeline.digest:
            raise ProfileError("this profile is of another pipeline: measure this one with splitiot.profile()")
        self._pipeline, self._transport, self._clock = pipeline, transport, clock
        self._policy, self._link, self._sample = policy, link or _DEFAULT_LINK, sample
        self._own_runner = runner is None
        self._runner = runner or Runner(pipeline, runtime=runtime, clock=clock)
        self._info = pipeline.runtime_info(runtime)
        parts = pipeline.parts if parts is None else parts
        self._parts = None if parts is None else frozenset((int(a), int(b)) for a, b in parts)
        self._deadline_s, self._patience_s = deadline_s, patience_s
        self._connect_s, self._follow = connect_s, follow
        self._cache = cache
        self._subject_to = (subject_to,) if callable(subject_to) else tuple(subject_to)
        if self._subject_to and planner is not None:
            raise ValueError("a planner of your own has its own constraints: Planner(..., subject_to=...)")
        self._planner, self._recorder = planner, recorder
        if planner is not None:
            self._restrict(planner)
        self._session = DeviceSession(
            pipeline,
            boot=int.from_bytes(os.urandom(8), "little") >> 1,
            runtime=self._info,
            profile=profile,
            parts=parts,
            exact=exact,
        )
        self._lock = threading.Lock()
        self._done: dict[int, Outcome] = {}
        self._connected = self._closed = self._warned = False
        self._proposed: tuple[NextPlacement | None, float] = (None, 0.0)
        # what came before there was a planner
        self._edge_profile: TierProfile | None = None
        self._early: deque[Observation] = deque(maxlen=16)

    @property
    def pipeline(self) -> Pipeline:
        """What it runs."""
        return self._pipeline

    @property
    def planner(self) -> Planner:
        """Its beliefs and its policy; there is none before the device has a profile."""
        if self._planner is None:
            raise ProfileError("not profiled yet: give Device a sample or a profile, or run something first")
        return self._planner

    @property
    def edge_up(self) -> bool:
        """Whether the edge can be used now."""
        return self._session.edge_up(self._clock())

    @property
    def counters(self) -> DeviceCounters:
        """What was counted since the start."""
        return self._session.counters

    def connect(self) -> bool:
        """Say hello and measure the link; whether the edge answered within `connect_s`.

        Called by ``with``, and by the first `run`.
        """
        with self._lock:
            if self._planner is None and (self._sample is not None or self._session.profile is not None):
                self._prepare(self._sample)
            return self._connect()

    def run(
        self, value: Any, *, deadline_s: float | None = None, telemetry: Mapping[str, float] | None = None
    ) -> Outcome:
        """Run the pipeline on one value.

        Parameters
        ----------
        value : object
            What `pipeline.run` takes.
        deadline_s : float, optional
            From now.
        telemetry : mapping of str to float, optional
            What policies may want to know: ``{"battery": 0.4}``.

        Returns
        -------
        Outcome
            With a value, or a typed error; `Outcome.unwrap` raises that.

        Raises
        ------
        TypeError, ValueError, CutError
            `value` is not what the pipeline takes, the deadline is no positive number, or the policy names an
            impossible cut: mistakes of the caller.
        LocalProtocolError
            `value` is not what the pipeline takes, or the device was closed.
        """
        deadline_s = _positive(self._deadline_s if deadline_s is None else deadline_s)
        with self._lock:
            if self._closed:
                raise LocalProtocolError("this device was closed")
            payload = self._pipeline.bind(value)
            began_s = self._clock()
            if self._planner is None:
                try:
                    self._prepare(value)
                except Exception as error:  # a step raised while it was measured
                    return _ended(None, _step_error(error), None, self._clock() - began_s)
            if not self._connected:
                self._connect()
            try:
                return self._run(payload, deadline_s, telemetry)
            except BaseException:  # Ctrl-C, say: nobody waits for the answer any more
                self._session.abandon()
                self._done.clear()
                raise

    def reset(self) -> None:
        """Forget what a stateful pipeline remembers, here and on the edge; the cut may then move."""
        with self._lock:
            self._runner.reset("device")
            self._session.reset()
            self._session.take_next()
            self._proposed = (None, 0.0)  # it kept to the old cut
            if self._planner is not None:
                self._planner.reset()

    def close(self) -> None:
        """Close the transport, and the runner unless it was given."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._transport.close()
            if self._own_runner:
                self._runner.close()

    def __enter__(self) -> Device:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # one request

    def _run(self, payload: Payload, deadline_s: float | None, telemetry: Mapping[str, float] | None) -> Outcome:
        clock, session = self._clock, self._session
        begun_s = clock()
        self._pump(session.tick(begun_s))
        self._drain()
        now_s = clock()
        try:
            plan = self._decide(now_s, deadline_s, telemetry)
        except Infeasible as error:
            lost = EdgeUnavailable(f"the edge can't be used ({session.trouble or 'busy'}), nor anything else: {error}")
            return _ended(None, lost, None, clock() - begun_s)
        cut = plan.cut
        if cut == self._pipeline.n and self._pipeline.sink == "device":
            return self._alone(plan, payload, begun_s, deadline_s)
        if cut:
            self._pump(session.rest(now_s, float(plan.costs.device_s[plan.row])))
        try:
            head, head_s, steps_s = self._runner.run_timed(0, cut, payload, "device")
        except Exception as error:
            return _ended(plan, _step_error(error), Observation(plan_id=plan.id, cut=cut), clock() - begun_s)
        try:
            sequence, effects = session.submit(
                plan,
                head,
                now_s=clock(),
                begun_s=begun_s,
                deadline_s=math.inf if deadline_s is None else begun_s + deadline_s,
                patience_s=self._patience_s,
                head_s=head_s,
                head_steps_s=steps_s,
                finish_s=self._finish_s(cut),
                telemetry=telemetry,
            )
        except LocalProtocolError as error:
            seen = Observation(plan_id=plan.id, cut=cut, head_s=head_s)
            return _ended(plan, error, seen, clock() - begun_s)
        self._pump(effects)
        while sequence not in self._done:
            self._wait(session.wake_s())
        outcome = self._done.pop(sequence)
        if outcome.source == "edge" and not outcome.exact and not self._warned:
            self._warned = True
            logger.warning("the edge runs %s, this device %s: results may differ", session.edge, self._info)
        return outcome

    def _alone(self, plan: Plan, payload: Payload, begun_s: float, deadline_s: float | None) -> Outcome:
        clock = self._clock
        self._pump(self._session.rest(clock()))
        try:
            result, seconds, steps_s = self._runner.run_timed(0, plan.cut, payload, "device")
        except Exception as error:
            return _ended(plan, _step_error(error), Observation(plan_id=plan.id, cut=plan.cut), clock() - begun_s)
        sent, kept = self._pipeline.divide(plan.cut, result)
        seen = Observation(plan_id=plan.id, cut=plan.cut, head_s=seconds, head_steps_s=steps_s)
        now_s = clock()
        self._pump(self._session.ran_alone(seen))
        if deadline_s is not None and now_s - begun_s > deadline_s:
            late = DeadlineExceeded(f"ran locally, {now_s - begun_s - deadline_s:.3f} s longer than the deadline")
            return _ended(plan, late, seen, now_s - begun_s)
        value = self._pipeline.join(kept, sent)
        return Outcome(
            value=value,
            error=None,
            source="local",
            exact=True,
            plan=plan,
            observation=seen,
            latency_s=now_s - begun_s,
        )

    def _decide(self, now_s: float, deadline_s: float | None, telemetry: Mapping[str, float] | None) -> Plan:
        up = self._session.edge_up(now_s)
        if self._follow:
            self._proposed = self._session.take_next() or self._proposed
        proposal, until_s = self._proposed
        if up and proposal is not None and now_s < until_s:
            if proposal.probe:
                self._proposed = (None, 0.0)  # it is to be tried once
            return self.planner.adopt(
                now_s,
                proposal.cuts[0],
                plan_id=proposal.plan_id,
                why=proposal.why,
                probe=proposal.probe,
                propensity=proposal.propensity,
                deadline_s=deadline_s,
                telemetry=telemetry,
            )
        return self.planner.decide(now_s, deadline_s=deadline_s, telemetry=telemetry, edge_up=up)

    def _finish_s(self, cut: int) -> float | None:
        if self._parts is not None and (cut, self._pipeline.n) not in self._parts:
            return None
        return self.planner.finish_s(cut)

    # effects

    def _pump(self, effects: Sequence[DeviceEffect]) -> None:
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            if isinstance(effect, Done):
                self._done[effect.sequence] = effect.outcome
            elif isinstance(effect, Observed):
                if self._planner is None:
                    self._early.append(effect.observation)
                else:
                    self._planner.observe(effect.observation, now_s=self._clock())
            elif isinstance(effect, Send):
                try:
                    self._transport.send(effect.frame, timeout_s=_SLICE_S)
                except (TransportError, OSError) as error:
                    waiting += self._session.failed(effect.frame, error, self._clock())
            elif isinstance(effect, RunLocal):
                waiting += self._finish(effect)
            elif isinstance(effect, EdgeProfile):
                self._edge_profile = effect.profile
                if self._planner is not None:
                    self._use_edge_profile(self._planner)

    def _finish(self, effect: RunLocal) -> list[DeviceEffect]:
        result: Any
        seconds = 0.0
        steps_s: tuple[float, ...] = ()
        try:
            result, seconds, steps_s = self._runner.run_timed(effect.start, effect.stop, effect.payload, "device")
        except Exception as error:
            result = error
        arrived = self._arrived(0.0)  # an answer that came meanwhile was first
        return [*(arrived or ()), *self._session.local_done(effect.sequence, result, seconds, self._clock(), steps_s)]

    def _arrived(self, timeout_s: float) -> list[DeviceEffect] | None:
        """Take in one frame; None when there was none."""
        try:
            frame = self._transport.receive(timeout_s=timeout_s)
        except (TransportError, OSError) as error:
            lost = getattr(error, "frame", None)
            if lost is None:
                return self._session.broken(error, self._clock())
            return self._session.failed(lost, error, self._clock())
        return None if frame is None else self._session.receive(frame, self._clock())

    def _drain(self) -> None:
        """Take in what came since the last request, at most as much as a session can have asked for."""
        for _ in range(64):
            effects = self._arrived(0.0)
            if effects is None:
                return
            self._pump(effects)

    def _wait(self, wake_s: float | None) -> None:
        now_s = self._clock()
        rest_s = _SLICE_S if wake_s is None else min(max(0.0, wake_s - now_s), _SLICE_S)
        self._pump(self._arrived(rest_s) or ())
        self._pump(self._session.tick(self._clock()))

    # the start

    def _connect(self) -> bool:
        self._connected = True
        began_s = self._clock()
        self._pump(self._session.tick(began_s))
        while not self._session.settled and (left_s := began_s + self._connect_s - self._clock()) > 0:
            self._pump(self._arrived(min(left_s, 0.05)) or ())
            self._pump(self._session.tick(self._clock()))
        if not self._session.edge_up(self._clock()):
            logger.info("no edge yet (%s): the device begins alone", self._session.trouble or "no answer")
        return self._session.edge_up(self._clock())

    def _prepare(self, sample: Any) -> None:
        own = self._session.profile
        if own is None:
            own = self._cached() or self._measured(sample)
            self._session.profile = own
        # until the edge tells its profile, it is believed to be as fast as the device: the first answers correct that
        topology = Topology(tiers=[own, evolve(own)], links=[self._link])
        self._planner = Planner(
            self._pipeline, topology, self._policy, recorder=self._recorder, subject_to=self._subject_to
        )
        self._restrict(self._planner)
        self._use_edge_profile(self._planner)
        self._planner.observe(*self._early, now_s=self._clock())
        self._early.clear()

    def _restrict(self, planner: Planner) -> None:
        if self._parts is not None:
            planner.restrict({0, *(stop for start, stop in self._parts if start == 0)})

    def _use_edge_profile(self, planner: Planner) -> None:
        if self._edge_profile is not None:
            with contextlib.suppress(ProfileError):
                planner.set_profile(1, self._edge_profile)

    def _cache_file(self) -> Path | None:
        if self._cache is False:
            return None
        if self._cache is True:
            base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
            folder = Path(base) / "splitiot"
        else:
            folder = Path(os.fspath(self._cache))
        i = self._info
        sink = "" if self._pipeline.sink == "device" else "-edge"
        if self._pipeline.parts is not None:  # what was measured is told by what is here
            sink += f"-parts-{hashlib.sha256(repr(self._pipeline.parts).encode()).hexdigest()[:8]}"
        return folder / f"{self._pipeline.digest[:32]}{sink}-{i.name}-{i.version}-{i.kernels}-{i.machine}.json"

    def _cached(self) -> TierProfile | None:
        path = self._cache_file()
        if path is None or not path.is_file():
            return None
        try:
            found = TierProfile.load(path)
        except (ProfileError, OSError):
            return None
        return found if found.digest == self._pipeline.digest and found.n == self._pipeline.n else None

    def _measured(self, sample: Any) -> TierProfile:
        logger.info("measuring what the pipeline costs here")
        own = measure(self._pipeline, sample, runner=self._runner)
        path = self._cache_file()
        if path is not None:
            with contextlib.suppress(OSError):  # a read-only home: measured again next time
                path.parent.mkdir(parents=True, exist_ok=True)
                own.save(path)
        return own


def _positive(deadline_s: float | None) -> float | None:
    if deadline_s is not None and not 0 < deadline_s < math.inf:
        raise ValueError(f"deadline_s must be a positive number of seconds, got {deadline_s}")
    return deadline_s


def _step_error(error: Exception) -> SplitiotError:
    if isinstance(error, SplitiotError):
        return error
    wrapped = StepError(f"a step raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _ended(plan: Plan | None, error: SplitiotError, seen: Observation | None, latency_s: float) -> Outcome:
    return Outcome(
        value=None, error=error, source="none", exact=False, plan=plan, observation=seen, latency_s=latency_s
    )
