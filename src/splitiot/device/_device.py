"""The device: its blocking face."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, SupportsFloat
from weakref import WeakValueDictionary

from splitiot import _fork
from splitiot._boot import new_boot
from splitiot._expect import described, expect
from splitiot._log import logger
from splitiot.cost import Constraint, as_constraints
from splitiot.device._carrier import SLICE_S
from splitiot.device._core import Core, RequestEnded, failed_outcome
from splitiot.device._options import Options
from splitiot.device._profile_cache import ProfileCache
from splitiot.device._spool import Spool
from splitiot.device._stream import Keep, Stream
from splitiot.errors import DeadlineExceeded, LocalProtocolError, ProfileError, StateLost
from splitiot.pipeline import Payload, Pipeline, Runtime, expect_pipeline
from splitiot.plan import Outcome
from splitiot.planner import Planner
from splitiot.policies import Policy
from splitiot.recorder import Recorder
from splitiot.runner import Runner
from splitiot.session import DeviceCounters, DeviceSession, RunLocal, Trouble
from splitiot.telemetry import as_numbers
from splitiot.topology import DEFAULT_LINK, Link, TierProfile
from splitiot.transports import Transport

__all__ = ["Device"]


class Device:
    """Runs a pipeline: its head here, its tail on an edge, the cut chosen anew for each request.

    A request ends in exactly one `Outcome` by its deadline. If the edge can't be reached or is too late, the device
    finishes from the payload that it kept.

    Several threads may call `run`; they take turns, and the deadline of each counts from its call. To have several
    values under way at once use `map`, or a device of its own for each thread.

    A process that is forked has a device of its own: another one for the edge, with new connections, which has learnt
    nothing yet but its profile. Streams, the spool and what a pipeline remembers stay with the parent.

    Parameters
    ----------
    pipeline : Pipeline
        The same as on the edge.
    transport : Transport
        What carries its frames, and no other device's.
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
        What models are run with. The cuts are those that are legal with it: see `Pipeline.with_runtime`.
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
    telemetry : callable, optional
        Gives what policies may want to know of this device, for each request: `splitiot.DeviceLoad`, for example.
    spool : path, optional
        A file for the observations that an edge which plans has not been told yet: they survive a restart.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    LocalProtocolError
        Another device, which is not closed, uses the transport.

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
        telemetry: Callable[[], Mapping[str, float]] | None = None,
        spool: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check(pipeline, transport, policy, profile, link, runtime, telemetry)
        _check_seconds(deadline_s, patience_s, connect_s)
        constraints = as_constraints(subject_to)
        _check_planner(planner, recorder, constraints)
        profile = _profile_of(pipeline, profile, planner)
        runtime = runtime if runner is None else runner.runtime
        pipeline = pipeline.with_runtime(runtime)  # which cuts are legal depends on the kernels
        self._pipeline, self._transport, self._clock, self._sample = pipeline, transport, clock, sample
        self._own_runner = runner is None
        self._runner = runner or Runner(pipeline, runtime=runtime, clock=clock)
        self._deadline_s, self._connect_s, self._telemetry = deadline_s, connect_s, telemetry
        info = pipeline.runtime_info(runtime)
        parts = pipeline.parts if parts is None else parts
        self._new_session = partial(
            DeviceSession, pipeline, runtime=info, parts=parts, exact=exact, lossy=transport.lossy
        )
        self._options = Options(
            pipeline=pipeline,
            info=info,
            policy=policy,
            link=link or DEFAULT_LINK,
            subject_to=constraints,
            parts=None if parts is None else frozenset((int(a), int(b)) for a, b in parts),
            recorder=recorder,
            cache=ProfileCache(cache),
            patience_s=patience_s,
            follow=follow,
            clock=clock,
        )
        self._own_planner, self._spool = planner is None, spool
        self._closed = self._parents = self._state_lost = False
        self._boot(profile, planner, spool=None if spool is None else Spool.at(spool))
        _claim(transport, self)
        _fork.in_child(self._forked)

    def _boot(
        self, profile: TierProfile | None, planner: Planner | None, *, spool: Spool | None, seed: int = 0
    ) -> None:
        self._session = self._new_session(
            boot=new_boot(), profile=profile, chance=random.Random().random
        )
        self._core = Core(
            self._options, self._transport, self._session, self._runner, planner, seed=seed, spool=spool
        )
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._connected = False

    def _forked(self) -> None:
        """Be another device than the parent's, whose requests stay there; the rest is for `_move_in`."""
        before, session = self._core, self._session
        before.disown()
        self._state_lost |= self._pipeline.remembers and session.counters.requests > 0
        planner = None if self._own_planner else before.planner
        self._boot(session.profile, planner, seed=_seed(), spool=None)
        self._parents = True

    def _move_in(self) -> None:
        """Make the parent's things one's own, before they are used for the first time."""
        self._transport.after_fork()
        if not self._own_planner:
            self.planner.renew(seed=_seed())
        if self._spool is not None:
            logger.warning(
                "%s is the spool of the process that this one was forked from: observations are kept in memory only. "
                "Make a Device in each process, with a file of its own",
                self._spool,
            )
        self._parents = False

    @property
    def pipeline(self) -> Pipeline:
        """What it runs."""
        return self._pipeline

    @property
    def planner(self) -> Planner:
        """Its beliefs and its policy; there is none before the device has a profile."""
        if self._core.planner is None:
            raise ProfileError("not profiled yet: give Device a sample or a profile, or run something first")
        return self._core.planner

    @property
    def edge_up(self) -> bool:
        """Whether the edge can be used now."""
        return self._session.edge_up(self._clock())

    @property
    def trouble(self) -> Trouble | None:
        """What keeps this device from its edge; None while nothing is known to be wrong, or the edge is only busy.

        `Trouble` says why, since when, what would mend it, and whether it may end by itself.
        """
        return self._session.trouble

    @property
    def counters(self) -> DeviceCounters:
        """What was counted since the start."""
        return self._session.counters

    def connect(self) -> bool:
        """Say hello and measure the link; whether the edge answered within `connect_s`.

        Called by ``with``, and by the first `run`.
        """
        _fork.check()
        with self._lock:
            self._check_free()
            if self._core.planner is None and (self._sample is not None or self._session.profile is not None):
                self._core.plan_with(self._sample)
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
            From the call: where other threads use this device, the wait for them counts, and so do measuring the
            pipeline and greeting the edge where that was not done before (`connect` does it).
        telemetry : mapping of str to float, optional
            What policies may want to know: ``{"battery": 0.4}``; goes before what the device's `telemetry` gives.

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
            `value` is not what the pipeline takes, the device was closed, or is at work on a stream; or the process was
            forked, and the transport does not know how to go on (`Transport.after_fork`).
        StateLost
            The process was forked, and the pipeline remembers something: `reset` begins anew here.
        """
        deadline_s = _positive(self._deadline_s if deadline_s is None else deadline_s)
        _fork.check()
        called_s, lock = self._clock(), self._lock  # kept: a task may fork this process, which renews the lock
        if not lock.acquire(timeout=-1 if deadline_s is None else min(deadline_s, threading.TIMEOUT_MAX)):
            waited_s = self._clock() - called_s
            late = DeadlineExceeded(
                f"other threads kept this device at work for {waited_s:.3f} s, longer than the deadline; it runs one "
                "value at a time: use map, or a device of its own for each thread"
            )
            return failed_outcome(None, late, None, waited_s)
        try:
            self._check_free()
            payload = self._pipeline.bind(value)
            if self._core.planner is None:
                self._core.planning.begin(self._core.measured(value, called_s))
            if not self._connected:
                self._connect(self._core.spare_s(called_s, deadline_s))
            try:
                return self._run(payload, called_s, deadline_s, self._merged_telemetry(telemetry))
            except RequestEnded:
                raise
            except BaseException:  # KeyboardInterrupt, say: nobody waits for the answer any more
                self._core.abandon()
                raise
        except RequestEnded as ended:
            return ended.outcome
        finally:
            lock.release()

    def map(
        self,
        values: Iterable[Any],
        *,
        window: int = 3,
        keep: Keep = "all",
        copy: bool = True,
        deadline_s: float | None = None,
        telemetry: Mapping[str, float] | None = None,
    ) -> Iterator[Outcome]:
        """Run the pipeline on many values, several at a time: device, link and edge work on different ones at once.

        Parameters
        ----------
        values : iterable
            What `pipeline.run` takes, each. It is read in a thread of its own, as there is room.
        window : int
            The most values that are on their way at once. As many as there are resources in series (device, link,
            edge) keep all of them at work, if round trips are short; else ``latency_s / period_s`` of the costs.
        keep : {"all", "newest"}
            Where values come faster than they can be worked on: make the source wait, or let the newest take the place
            of one that waits. Those that gave way have no outcome, and are counted in ``counters.skipped``.
        copy : bool
            Copy each value when it is taken from the source, so that the source may use one buffer again and again.
            False where each value is a new one, which stays as it is.
        deadline_s : float, optional
            For each, from when it was taken from the source.
        telemetry : mapping of str to float, optional
            As for `run`.

        Returns
        -------
        iterator of Outcome
            In the order of the values; ``outcome.index`` says of which. An outcome waits for those before it, and not
            more than `window` wait for the caller. Closing the iterator (``break`` in a loop does it) ends what is
            under way. Until then the device does nothing else.

        Raises
        ------
        ValueError
            `window`, `keep` or the deadline is out of range.
        LocalProtocolError
            The device was closed, or is at work on another stream.
        Exception
            Whatever the source raises, behind the outcomes of what it gave before; and mistakes of a policy.

        Examples
        --------
        >>> from splitiot import EdgeService, Fixed, InMemory, tasks
        >>> def double(x): return 2 * x
        >>> def increment(x): return x + 1
        >>> pipeline = tasks([double, increment])
        >>> service = EdgeService([pipeline])
        >>> transport = InMemory(lambda frame: service.handle(frame, peer="me"))
        >>> with Device(pipeline, transport, sample=20, policy=Fixed(1)) as device:
        ...     [outcome.value for outcome in device.map(range(4))]
        [1, 3, 5, 7]
        """
        deadline_s = _positive(self._deadline_s if deadline_s is None else deadline_s)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"a window is a whole number of at least 1, got {window!r}")
        if keep not in ("all", "newest"):
            raise ValueError(f"keep is 'all' or 'newest', got {keep!r}")
        stream = Stream(
            self._core,
            values,
            window=window,
            keep=keep,
            copy=copy,
            deadline_s=deadline_s,
            telemetry=lambda: self._merged_telemetry(telemetry),
        )
        return self._streamed(stream)

    def _streamed(self, stream: Stream) -> Iterator[Outcome]:
        _fork.check()
        with self._lock:
            self._check_free()
            if self._core.planner is None and self._session.profile is not None:
                self._core.plan_with(None)
            if not self._connected:
                self._connect()
            self._core.listen(0.0)
            self._stream = stream
        try:
            yield from stream.outcomes()
        finally:
            if self._stream is stream:  # it differs in a process that was forked meanwhile
                self._stream = None

    def reset(self) -> None:
        """Forget what a stateful pipeline remembers, here and on the edge; the cut may then move."""
        with self._lock:
            self._check_free(resets=True)
            self._core.reset()
            self._state_lost = False

    def close(self) -> None:
        """Close the transport, and the runner unless it was given."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            stream = self._stream
            self._core.save(self._core.unsaved(due=False) if stream is None else stream.stop())
            if not self._parents:
                self._core.carrier.close()
            if self._own_runner:
                self._runner.close()

    def __enter__(self) -> Device:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_free(self, *, resets: bool = False) -> None:
        if self._closed:
            raise LocalProtocolError("this device was closed")
        if self._parents:
            self._move_in()
        if self._state_lost and not resets:
            raise StateLost(
                "what this pipeline remembers is in the process that this one was forked from: start again with reset()"
            )
        if self._stream is not None:
            raise LocalProtocolError("this device is at work on a stream: close that first, or use its outcomes up")

    def _merged_telemetry(self, telemetry: Mapping[str, float] | None) -> Mapping[str, float] | None:
        given = None if telemetry is None else as_numbers(telemetry)
        if self._telemetry is None:
            return given
        return {**as_numbers(self._telemetry()), **(given or {})}

    def _connect(self, most_s: float = math.inf) -> bool:
        self._connected = True
        return self._core.connect(min(self._connect_s, most_s))

    # one request

    def _run(
        self, payload: Payload, begun_s: float, deadline_s: float | None, telemetry: Mapping[str, float] | None
    ) -> Outcome:
        core = self._core
        core.listen(0.0)
        core.save(core.unsaved())
        request = core.begin(payload, begun_s, deadline_s, telemetry)
        sequence = core.submit(request, core.head(request))
        while sequence not in core.done:
            if finish := core.next_finish():
                self._finish(finish)
            else:
                self._wait(core.session.wake_s())
        return core.take(sequence)

    def _finish(self, effect: RunLocal) -> None:
        core = self._core
        rest = core.finish(effect)
        core.listen(0.0)  # an answer that came meanwhile wins
        core.pump(core.finished(effect, rest))

    def _wait(self, wake_s: float | None) -> None:
        self._core.listen(SLICE_S if wake_s is None else min(max(0.0, wake_s - self._clock()), SLICE_S))


def _seed() -> int:
    return int.from_bytes(os.urandom(8), "little")


_carrying: WeakValueDictionary[int, Device] = WeakValueDictionary()  # by the ids of their transports


def _claim(transport: Transport, device: Device) -> None:
    """Two devices would take each other's answers."""
    other = _carrying.get(id(transport))
    if other is not None and not other._closed:
        raise LocalProtocolError(
            "another device uses this transport: give each device one of its own, or close the other one first"
        )
    _carrying[id(transport)] = device


def _positive(seconds: float | None, name: str = "deadline_s") -> float | None:
    if seconds is not None and not (isinstance(seconds, SupportsFloat) and 0 < float(seconds) < math.inf):
        raise ValueError(f"{name} must be a positive number of seconds, got {seconds!r}")
    return seconds


def _check_seconds(deadline_s: float | None, patience_s: float, connect_s: float) -> None:
    _positive(deadline_s)
    _positive(patience_s, "patience_s")
    if not connect_s >= 0:
        raise ValueError(f"connect_s must be a number of seconds >= 0, got {connect_s}")


def _check_planner(planner: Planner | None, recorder: Recorder | None, constraints: tuple[Constraint, ...]) -> None:
    """One of the user's own has what the device's would be given."""
    if planner is not None and recorder is not None:
        raise ValueError("a planner of your own has its own recorder: Planner(..., recorder=...)")
    if planner is not None and constraints:
        raise ValueError("a planner of your own has its own constraints: Planner(..., subject_to=...)")


def _profile_of(pipeline: Pipeline, profile: TierProfile | None, planner: Planner | None) -> TierProfile | None:
    """Return what is known of the pipeline's costs here."""
    if profile is None and planner is not None:
        profile = planner.topology.tiers[0]
    if profile is not None and profile.digest != pipeline.digest:
        raise ProfileError("this profile is of another pipeline: measure this one with splitiot.profile()")
    return profile


def _check(
    pipeline: Any, transport: Any, policy: Any, profile: Any, link: Any, runtime: Any, telemetry: Any
) -> None:
    """Say what is wrong with an argument here, not at the first request."""
    expect_pipeline(pipeline)
    url = f"HttpTransport({transport!r})" if isinstance(transport, str) else "HttpTransport(url), say"
    expect(transport, Transport, "transport", url)
    if policy is not None:
        expect(policy, Policy, "policy", "LeastLatency(), say, or leave it out for adaptive()")
    if profile is not None:
        expect(profile, TierProfile, "profile", "TierProfile.load(path), or splitiot.profile(pipeline, sample)")
    if link is not None:
        expect(link, Link, "link", "Link.from_mbit_per_s(10, rtt_s=0.02)")
    if runtime is not None:
        expect(runtime, Runtime, "runtime", "Runtime('litert'), say")
    if telemetry is not None and not callable(telemetry):
        raise TypeError(
            f"telemetry must be a function that is called for each request, got {described(telemetry)}: "
            "DeviceLoad(), say; what is known only for one request goes to run(..., telemetry={...})"
        )
