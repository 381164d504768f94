"""The edge: bytes in, bytes out, inside any framework."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from splitiot import _fork, wire
from splitiot._boot import new_boot
from splitiot._expect import expect
from splitiot._fair import FairExecutor
from splitiot.errors import LocalProtocolError, StepError
from splitiot.limits import Limits
from splitiot.observation import EdgeTimes
from splitiot.pipeline import DROP, Pipeline, Runtime, Tier, expect_pipeline
from splitiot.planner import Planner
from splitiot.policies import Policy
from splitiot.profiling import profile
from splitiot.runner import Runner
from splitiot.session import (
    EdgeCounters,
    EdgeEffect,
    EdgeSession,
    ForgetState,
    Job,
    MakePlanner,
    Received,
    RunPart,
    Send,
)
from splitiot.topology import DEFAULT_LINK, Link, TierProfile, Topology

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["EdgeService"]

_FORGET = 0.8  # the slowest time shrinks to this share with each quicker run


class EdgeService:
    """Serves tails of pipelines to any number of devices.

    Put it behind a protocol of your own: give `handle` the bytes that came and the identity that the credential
    proved, and send back what it returns.

    A process that is forked has an edge of its own, which knows no device yet.

    Parameters
    ----------
    pipelines : Pipeline, or iterable of them
        What can be asked for; told apart by digest.
    runtime : Runtime, optional
        What models are run with. Results are exact where the device uses the same.
    profiles : iterable of TierProfile, optional
        What the pipelines cost here, for devices that ask; `measure` makes one.
    policy : Policy, optional
        Plan on the edge: each device has a planner and a state of its own, and finds its next placement in the reply.
        Needs profiles.
    link : Link, optional
        What those planners believe of the link at first.
    make_planner : callable, optional
        Makes those planners, instead of `policy` and `link`: for other estimators, an objective, a seed. It takes the
        pipeline, the device's profile and the edge's.
    on_result : callable, optional
        Takes (peer, value): results of pipelines with ``sink="edge"``.
    inline_s : float
        `handle_async` runs in the event loop what takes less than this and can't surprise: a network's steps, whose
        shapes are fixed, when the slowest of their last runs was that quick. All else, Python functions always, runs in
        threads.
    workers : int
        How many threads.
    limits : Limits, optional
        How much is taken on, in all and for one name; the usual ones unless given.
    clock : callable
        Monotonic seconds.

    Examples
    --------
    >>> from splitiot import Device, InMemory, Fixed, tasks
    >>> def double(x): return 2 * x
    >>> def increment(x): return x + 1
    >>> pipeline = tasks([double, increment])
    >>> service = EdgeService([pipeline])
    >>> transport = InMemory(lambda frame: service.handle(frame, peer="me"))
    >>> with Device(pipeline, transport, sample=20, policy=Fixed(1)) as device:
    ...     outcome = device.run(20)
    >>> outcome.value, outcome.source, outcome.plan.cut
    (41, 'edge', 1)
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline] | Pipeline,
        *,
        runtime: Runtime | None = None,
        profiles: Iterable[TierProfile] = (),
        policy: Policy | None = None,
        link: Link | None = None,
        make_planner: MakePlanner | None = None,
        on_result: Callable[[str, Any], None] | None = None,
        inline_s: float = 0.002,
        workers: int = 2,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        served = [pipelines] if isinstance(pipelines, Pipeline) else _each_a_pipeline(pipelines)
        served = [pipeline.with_runtime(runtime) for pipeline in served]  # which cuts are legal depends on the kernels
        self.clock = clock
        if workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        limits = Limits() if limits is None else expect(limits, Limits, "limits", "Limits(max_in_flight=64), say")
        if policy is not None:
            expect(policy, Policy, "policy", "adaptive(), say")
        self._runtime = runtime
        self._runners: dict[tuple[str, str], Runner] = {}  # by digest and sink: the sink changes what the parts return
        if make_planner is not None and (policy is not None or link is not None):
            raise ValueError("make_planner says how to plan: leave policy and link out")

        def usual(pipeline: Pipeline, device: TierProfile, edge: TierProfile) -> Planner:
            return Planner(pipeline, Topology(tiers=[device, edge], links=[link or DEFAULT_LINK]), policy)

        if policy is not None:
            make_planner = usual
        self._new_session = partial(
            EdgeSession,
            served,
            runtimes={p.digest: p.runtime_info(runtime) for p in served},
            make_planner=make_planner,
            limits=limits,
        )
        self._on_result, self._inline_s, self._workers = on_result, inline_s, workers
        self._slowest_s: dict[tuple[str, int], float] = {}
        self._closed = False
        self._boot({p.digest: p for p in profiles})
        _fork.in_child(self._forked)

    def _boot(self, profiles: Mapping[str, TierProfile]) -> None:
        self._session = self._new_session(boot=new_boot(), profiles=profiles)
        self._lock = threading.Lock()
        self._executor: FairExecutor | None = None
        self._reader: ThreadPoolExecutor | None = None

    def _forked(self) -> None:
        """Be another edge than the parent's, whose requests, answers and threads stay where they are."""
        _fork.leave(self._executor)
        _fork.leave(self._reader)
        self._boot(self._session.profiles)

    @property
    def counters(self) -> EdgeCounters:
        """What was counted since the start."""
        return self._session.counters

    @property
    def limits(self) -> Limits:
        """How much is taken on."""
        return self._session.limits

    @property
    def max_frame_bytes(self) -> int:
        """The largest frame that is accepted."""
        return self._session.max_frame_bytes

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """What is served."""
        return tuple(self._session.pipelines.values())

    def measure(self, sample: Any, pipeline: Pipeline | None = None, *, budget_s: float = 2.0) -> TierProfile:
        """Profile a pipeline here, for the devices that ask.

        Parameters
        ----------
        sample : object
            What `pipeline.run` takes.
        pipeline : Pipeline, optional
            Which one, if several are served.
        budget_s : float
            About how long it may take.

        Raises
        ------
        ProfileError
            A step that is pinned to the device does not run here, so nothing can be measured behind it. Devices learn
            what this edge costs from its answers.
        """
        if pipeline is None:
            if len(self.pipelines) != 1:
                raise LocalProtocolError(f"{len(self.pipelines)} pipelines are served: say which one to measure")
            (pipeline,) = self.pipelines
        runner = self._runner(pipeline)
        measured = profile(pipeline, sample, runner=runner, budget_s=budget_s, tier=Tier.EDGE)
        with self._lock:
            self._session.profiles[pipeline.digest] = measured
        return measured

    def handle(self, frame: bytes | memoryview, *, peer: str, received_s: float | None = None) -> bytes:
        """Answer one frame; runs what it asks for in this thread.

        Parameters
        ----------
        frame : bytes
            A view of bytes will do; they must not change any more.
        peer : str
            The device's identity, from its credential (never from the frame).
        received_s : float, optional
            When its last byte was there, on `clock`; now, unless given.

        Returns
        -------
        bytes
            The answer, whatever came: bytes that break the protocol get a typed failure.
        """
        _fork.check()
        waiter, session, begun_s = _Waiter(), self._session, self.clock()
        received_s = begun_s if received_s is None else received_s
        for effect, decode_s in self._handle(session.read(frame), peer, begun_s, received_s, waiter):
            self._carry_out(effect, decode_s)
        if self._session is not session:
            raise LocalProtocolError("this process was forked while it ran a request: the parent answers it")
        if waiter.frame is None:  # another thread runs the same request
            waiter.wait(self._lock)
        return waiter.taken()

    async def handle_async(self, frame: bytes | memoryview, *, peer: str, received_s: float | None = None) -> bytes:
        """Answer one frame from an event loop; the same as `handle`, without holding the loop up."""
        import asyncio

        _fork.check()
        loop = asyncio.get_running_loop()
        waiter, begun_s, session = _AsyncWaiter(loop), self.clock(), self._session
        reader = None if session.reads_quickly(frame) else self._reader_thread()
        received = session.read(frame) if reader is None else await loop.run_in_executor(reader, session.read, frame)
        received_s = begun_s if received_s is None else received_s
        for effect, decode_s in self._handle(received, peer, begun_s, received_s, waiter):
            if isinstance(effect, RunPart) and self._is_quick(effect.job):
                self._run(effect.job, decode_s)
            else:
                self._submit(effect, decode_s)
        if waiter.frame is None:
            await waiter.future()
        return waiter.taken()

    def close(self) -> None:
        """End the threads and free the interpreters; waits for what runs. Requests that come later fail."""
        with self._lock:
            self._closed = True
            executors, runners = (self._reader, self._executor), list(self._runners.values())
        for executor in executors:
            if executor is not None:
                executor.shutdown()
        for runner in runners:
            runner.close()

    def __enter__(self) -> EdgeService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_quick(self, job: Job) -> bool:
        """Whether nothing that this job does can hold up an event loop: no code of others, and nothing to be opened."""
        if self._slowest_s.get((job.digest, job.start), self._inline_s) >= self._inline_s:
            return False
        if job.owner is not None or not job.pipeline.is_even_from(job.start):
            return False
        if job.pipeline.sink == "edge" and self._on_result is not None:
            return False
        runner = self._runners.get((job.digest, job.pipeline.sink))
        return runner is not None and runner.is_open(job.start, job.stop)

    def _reader_thread(self) -> ThreadPoolExecutor | None:
        """Where large frames are read: not behind jobs, so that who must be told "busy" hears it at once."""
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._reader is None and not self._closed:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="splitiot-edge-read")
            return None if self._closed else self._reader

    def _submit(self, effect: RunPart | ForgetState, decode_s: float) -> None:
        """Run in a thread. Not awaited: when the caller is cancelled, others may still wait for the job."""
        with self._lock:
            if not self._closed:
                if self._executor is None:
                    self._executor = FairExecutor(self._workers, thread_name_prefix="splitiot-edge")
                name = effect.job.key[0] if isinstance(effect, RunPart) else ""  # nobody waits to forget
                self._executor.submit(name, partial(self._carry_out, effect, decode_s))
                return
        self._carry_out(effect, decode_s)  # closed meanwhile: this tells those who wait

    def _runner(self, pipeline: Pipeline) -> Runner:
        key = (pipeline.digest, pipeline.sink)
        with self._lock:
            runner = self._runners.get(key)
            if runner is None:
                if self._closed:
                    raise LocalProtocolError("this service was closed")
                runner = self._runners[key] = Runner(
                    pipeline, runtime=self._runtime, max_owners=self.limits.max_owners, clock=self.clock
                )
            return runner

    def _handle(
        self, received: Received, peer: str, begun_s: float, received_s: float, waiter: _Waiter
    ) -> list[tuple[RunPart | ForgetState, float]]:
        """Send what can be sent; return what runs code of others, with the seconds that it took until here."""
        with self._lock:
            effects = self._session.handle(received, peer, received_s, waiter)
        runs = self._send(effects)
        return [(effect, self.clock() - begun_s) for effect in runs]

    def _send(self, effects: list[EdgeEffect]) -> list[RunPart | ForgetState]:
        runs: list[RunPart | ForgetState] = []
        for effect in effects:
            if isinstance(effect, Send):
                effect.reply_to.give(effect.frame, self._lock)
            else:
                runs.append(effect)
        return runs

    def _carry_out(self, effect: RunPart | ForgetState, decode_s: float) -> None:
        if isinstance(effect, RunPart):
            self._run(effect.job, decode_s)
        else:
            self._forget(effect)

    def _forget(self, effect: ForgetState) -> None:
        with self._lock:
            runners = [runner for (digest, _), runner in self._runners.items() if digest == effect.digest]
        for runner in runners:
            runner.reset(effect.owner)

    def _run(self, job: Job, decode_s: float) -> None:
        clock = self.clock
        began_s = clock()
        compute_s = encode_s = 0.0
        steps_s: tuple[float, ...] = ()
        interruption: BaseException | None = None
        runner: Runner | None = None
        state_kept = False
        result: Any = job.late(began_s)
        if result is None:
            try:
                runner = self._runner(job.pipeline)
                if job.reset:
                    runner.reset(job.owner)
                result, compute_s, steps_s = runner.run_timed(job.start, job.stop, job.payload, job.owner)
                ran_s = clock()
                if result is not DROP:
                    if job.pipeline.sink == "device":
                        result = wire.pack(result)
                        encode_s = clock() - ran_s
                    else:
                        if self._on_result is not None:
                            self._on_result(job.key[0], job.pipeline.join(None, result))
                        result = wire.pack(None)
                    key, total_s = (job.digest, job.start), clock() - began_s
                    self._slowest_s[key] = max(total_s, _FORGET * self._slowest_s.get(key, 0.0))
            except Exception as error:  # whatever a task raises ends its request, not the service
                result = error
                state_kept = runner is not None and runner.keeps(job.owner, error)
            except BaseException as error:  # Ctrl-C or SystemExit: duplicates that wait must hear of it
                interruption, result = error, StepError(f"the edge was interrupted: {error!r}")
        times = EdgeTimes(
            queue_s=max(0.0, began_s - job.received_s - decode_s),
            decode_s=decode_s,
            compute_s=compute_s,
            encode_s=encode_s,
            steps_s=steps_s,
        )
        with self._lock:
            effects = self._session.complete(job, result, clock(), times, state_kept=state_kept)
        for effect in self._send(effects):
            self._carry_out(effect, 0.0)
        if interruption is not None:
            raise interruption


def _each_a_pipeline(values: Iterable[Pipeline]) -> list[Pipeline]:
    if isinstance(values, str | os.PathLike) or not isinstance(values, Iterable):
        return [expect_pipeline(values, "what is served")]
    return [expect_pipeline(value, "each that is served") for value in values]


class _Waiter:
    """One caller's place for the answer."""

    __slots__ = ("_event", "frame")

    def __init__(self) -> None:
        self.frame: bytes | None = None
        self._event: threading.Event | None = None

    def give(self, frame: bytes, lock: threading.Lock) -> None:
        with lock:
            self.frame = frame
            if self._event is not None:
                self._event.set()

    def wait(self, lock: threading.Lock) -> None:
        with lock:
            if self.frame is not None:
                return
            self._event = threading.Event()
        self._event.wait()

    def taken(self) -> bytes:
        if self.frame is None:
            raise LocalProtocolError("the service was closed before the request ended")
        return self.frame


class _AsyncWaiter(_Waiter):
    """The same for a coroutine."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def give(self, frame: bytes, lock: threading.Lock) -> None:
        self.frame = frame  # write before the check: whoever comes second sees what the first has written
        if self._future is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended, so this waiter has gone; others may wait
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def future(self) -> asyncio.Future[None]:
        self._future = self._loop.create_future()
        if self.frame is not None:
            self._future.set_result(None)
        return self._future
