"""Small parts for tests of sessions, device and edge: a pipeline that counts, plans, a world on a virtual clock."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from splitiot import wire
from splitiot.errors import TransportError
from splitiot.functions import TaskPipeline, task, tasks
from splitiot.observation import Observation
from splitiot.pipeline import Executable, Part, Payload, Pipeline, Runtime, RuntimeInfo, Sink
from splitiot.plan import Outcome, Plan
from splitiot.planner import Planner
from splitiot.policies import Fixed, Policy
from splitiot.session import (
    DeviceEffect,
    DeviceSession,
    EdgeEffect,
    EdgeProfile,
    EdgeSession,
    ForgetState,
    Job,
    NewObservation,
    RequestDone,
    RunLocal,
    RunPart,
    Send,
)
from splitiot.topology import Link, TierProfile, Topology
from splitiot.transports import Transport

T = TypeVar("T")

RUNTIME = RuntimeInfo("made-up", "1", "default", "none")
OTHER = RuntimeInfo("made-up", "2", "default", "none")
LINK = Link(0.01, 1e6, 1e6)


def boot_of(number: int) -> bytes:
    """A boot that can be told from others."""
    return number.to_bytes(wire.BOOT_BYTES, "big")


BOOT, EDGE_BOOT = boot_of(11), boot_of(22)


def add_one(x: Any) -> Any:
    return x + 1


def double(x: Any) -> Any:
    return x * 2


def minus_three(x: Any) -> Any:
    return x - 3


def numbers(sink: Sink = "device") -> TaskPipeline:
    """x -> (x + 1) * 2 - 3."""
    return tasks([add_one, double, minus_three], sink=sink)


def profile_of(pipeline: Pipeline, step_s: float = 0.01) -> TierProfile:
    """Every step takes as long, 100 bytes cross anywhere."""
    ends = [100.0] * pipeline.n
    return TierProfile.from_steps(
        pipeline.digest, [step_s] * pipeline.n, sent_bytes=[*ends, 0.0], returned_bytes=[*ends, 0.0]
    )


def planner_of(pipeline: Pipeline, policy: Policy | int | None = 1, step_s: float = 0.01, link: Link = LINK) -> Planner:
    chosen = Fixed(policy) if isinstance(policy, int) else policy
    own = profile_of(pipeline, step_s)
    return Planner(pipeline, Topology(tiers=[own, own.scaled(0.1)], links=[link]), chosen)


def plan_of(pipeline: Pipeline, cut: int = 1, *, step_s: float = 0.01) -> Plan:
    return planner_of(pipeline, cut, step_s).decide(0.0)


def only(kind: type[T], effects: Iterable[object]) -> T:
    """The single effect of this kind."""
    (found,) = every(kind, effects)
    return found


def every(kind: type[T], effects: Iterable[object]) -> list[T]:
    return [effect for effect in effects if isinstance(effect, kind)]


def read(frame: bytes) -> Any:
    return wire.decode(frame)[0]


def messages(effects: Iterable[object]) -> list[Any]:
    """What the sent frames say."""
    return [read(effect.frame) for effect in every(Send, effects)]


def welcome(hello: wire.Hello, pipeline: Pipeline, **more: Any) -> bytes:
    """An edge's answer to a hello."""
    served = {"digest": bytes.fromhex(pipeline.digest), "n": pipeline.n, "runtime": _words(RUNTIME)}
    served |= more.pop("served", {})
    told = {"edge_boot": EDGE_BOOT, "pipelines": (wire.PipelineHello(**served),)} | more
    return wire.encode(wire.Welcome(boot=hello.boot, sequence=hello.sequence, **told))


def _words(info: RuntimeInfo) -> tuple[str, str, str, str]:
    return info.name, info.version, info.kernels, info.machine


def reply(request: wire.Request, value: Payload, **more: Any) -> bytes:
    packed = wire.pack(value)
    told = {"edge_boot": EDGE_BOOT, "names": packed.names, "payload": packed.payload, "arrays": packed.arrays}
    told |= {"runtime": bytes.fromhex(RUNTIME.fingerprint)} | more
    return wire.encode(wire.Reply(boot=request.boot, sequence=request.sequence, **told), packed.buffers)


def greeted(pipeline: Pipeline, *, now_s: float = 0.0, answer: Callable[..., bytes] = welcome, **more: Any) -> Any:
    """A DeviceSession that an edge has welcomed, its link measured."""
    session = DeviceSession(pipeline, boot=BOOT, runtime=RUNTIME, **more)
    (hello,) = messages(session.tick(now_s))
    effects = session.receive(answer(hello, pipeline), now_s)
    while probes := [m for m in messages(effects) if isinstance(m, wire.Probe)]:
        echo = wire.Echo(boot=BOOT, sequence=probes[0].sequence, edge_boot=EDGE_BOOT)
        effects = session.receive(wire.encode(echo), now_s + 0.001)
    return session


def request_of(pipeline: Pipeline, cut: int, payload: Payload, *, sequence: int = 1, **more: Any) -> bytes:
    """A device's request as it stands on the wire."""
    packed = wire.pack(payload)
    told = {
        "boot": BOOT,
        "digest": bytes.fromhex(pipeline.digest),
        "start": cut,
        "stop": pipeline.n,
        "fingerprint": bytes.fromhex(pipeline.boundary(cut).fingerprint),
        "names": packed.names,
        "payload": packed.payload,
        "arrays": packed.arrays,
        "sink": pipeline.sink,
    } | more
    return wire.encode(wire.Request(sequence=sequence, **told), packed.buffers)


def edge_session(*pipelines: Pipeline, boot: bytes = EDGE_BOOT, **more: Any) -> EdgeSession:
    return EdgeSession(pipelines, boot=boot, runtimes={p.digest: RUNTIME for p in pipelines}, **more)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class Remembering(TaskPipeline):
    """n steps, each a running sum of its inputs: one that is lost, repeated or out of order shows in the result."""

    def __init__(self, n: int = 3) -> None:
        super().__init__([task(add_one, name=f"sum{i}") for i in range(n)], version="1", sink="device")
        self.stateful = True

    def part(self, start: int, stop: int) -> Part:
        return _RememberingPart(start, stop)

    def with_sink(self, sink: Sink) -> TaskPipeline:
        return self

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        return RUNTIME


def sums(values: Iterable[int], n: int = 3) -> list[int]:
    """What `Remembering` gives for these, in this order."""
    run = _Sums(n)
    return [run(value) for value in values]


class _RememberingPart(Part):
    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def open(self, runtime: Runtime | None = None) -> Executable:
        return _Sums(self.stop - self.start)


class _Sums:
    nbytes = 1

    def __init__(self, steps: int) -> None:
        self._sums = np.zeros(steps, np.int64)

    def __call__(self, payload: Payload, /) -> Payload:
        value = int(payload)
        for step in range(len(self._sums)):
            self._sums[step] += value
            value = int(self._sums[step])
        return value

    def reset(self) -> None:
        self._sums[:] = 0

    def close(self) -> None:
        pass


Fate = Sequence[float]
"""The delays after which copies of a frame arrive: none for a lost one. A negative one: the transport says so then."""


class World:
    """A device and an edge on one virtual clock, with a link that does as it is told."""

    def __init__(
        self,
        device: DeviceSession,
        edge: EdgeSession,
        pipeline: Pipeline,
        fates: Iterable[Fate] = (),
        *,
        usual: Fate = (0.01,),
        edge_s: float = 0.01,
        local_s: float = 0.03,
    ) -> None:
        self.device, self.edge, self.pipeline = device, edge, pipeline
        self.fates = itertools.chain(fates, itertools.repeat(usual))
        self.edge_s, self.local_s = edge_s, local_s
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.done: dict[int, list[tuple[float, Outcome]]] = {}
        self.executed: Counter[tuple[EdgeSession, bytes, int]] = Counter()
        self.local_runs: Counter[int] = Counter()
        self.observed: list[Observation] = []
        self.profiles: list[TierProfile] = []
        self.forgotten: list[ForgetState] = []
        self.compute: Callable[[Job], Payload] = lambda job: pipeline.part(job.start, job.stop).run(job.payload)

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time_s, self.now_s), next(self._number), action))

    def submit(self, plan: Plan, payload: Payload, *, deadline_s: float, finish_s: float | None) -> int:
        sequence, effects = self.device.submit(
            plan, payload, now_s=self.now_s, deadline_s=self.now_s + deadline_s, finish_s=finish_s
        )
        self.done.setdefault(sequence, [])
        self.from_device(effects)
        return sequence

    def restart(self, edge: EdgeSession) -> None:
        """The edge dies and comes back without a memory."""
        self.edge = edge

    def run(self, until_s: float) -> None:
        """Let time pass."""
        self.tick()
        while True:
            wake_s = self.device.wake_s()
            next_s = min(self._events[0][0] if self._events else until_s, until_s if wake_s is None else wake_s)
            # between events the owner looks in now and then, as Device does
            next_s = min(max(next_s, self.now_s), self.now_s + 0.5)
            if next_s >= until_s:
                self.now_s = until_s
                self.tick()
                return
            self.now_s = next_s
            while self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            self.tick()

    def tick(self) -> None:
        self.from_device(self.device.tick(self.now_s))

    def from_device(self, effects: Iterable[DeviceEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._carry(effect.frame, lambda f: self.from_edge(self.edge.receive(f, "me", self.now_s)), up=True)
            elif isinstance(effect, RunLocal):
                self.local_runs[effect.sequence] += 1
                self.at(self.now_s + self.local_s, lambda e=effect: self._ran(e))
            elif isinstance(effect, RequestDone):
                self.done[effect.sequence].append((self.now_s, effect.outcome))
            elif isinstance(effect, NewObservation):
                self.observed.append(effect.observation)
            elif isinstance(effect, EdgeProfile):
                self.profiles.append(effect.profile)

    def from_edge(self, effects: Iterable[EdgeEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._carry(effect.frame, lambda f: self.from_device(self.device.receive(f, self.now_s)), up=False)
            elif isinstance(effect, RunPart):
                _, boot, sequence = effect.job.key
                self.executed[self.edge, boot, sequence] += 1  # itself: of one that is gone another may have the id
                self.at(self.now_s + self.edge_s, lambda j=effect.job, e=self.edge: self._computed(j, e))
            else:
                self.forgotten.append(effect)

    def _computed(self, job: Job, edge: EdgeSession) -> None:
        if edge is not self.edge:
            return  # it died meanwhile
        result = job.late(self.now_s)
        if result is None:
            result = self.compute(job)
        self.from_edge(edge.complete(job, result, self.now_s))

    def _ran(self, effect: RunLocal) -> None:
        result = self.pipeline.part(effect.start, effect.stop).run(effect.payload)
        self.from_device(self.device.local_done(effect.sequence, result, self.local_s, self.now_s))

    def _carry(self, frame: bytes, arrive: Callable[[bytes], None], *, up: bool) -> None:
        for delay_s in next(self.fates):
            if delay_s >= 0:
                self.at(self.now_s + delay_s, lambda: arrive(frame))
            elif up:
                self.at(self.now_s - delay_s, lambda: self._lost(frame))

    def _lost(self, frame: bytes) -> None:
        self.from_device(self.device.failed(frame, TransportError("cut off"), self.now_s))


class Scripted(Transport):
    """Answers each frame with what a function returns, later on a virtual clock; waiting moves that clock.

    The function gives pairs (delay, answer); an answer that is an exception is raised by `receive`.
    """

    def __init__(self, clock: Clock, answer: Callable[[bytes], Iterable[tuple[float, bytes | Exception]]]) -> None:
        self._clock, self.answer = clock, answer
        self._under_way: list[tuple[float, int, bytes | Exception]] = []
        self._number = itertools.count()
        self.sent: list[bytes] = []
        self.closed = 0

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        self.sent.append(frame)
        for delay_s, answer in self.answer(frame):
            heapq.heappush(self._under_way, (self._clock.now_s + delay_s, next(self._number), answer))

    def receive(self, *, timeout_s: float) -> bytes | None:
        until_s = self._clock.now_s + timeout_s
        if not self._under_way or self._under_way[0][0] > until_s:
            self._clock.now_s = until_s
            return None
        at_s, _, answer = heapq.heappop(self._under_way)
        self._clock.now_s = max(self._clock.now_s, at_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed += 1

    def requests(self) -> list[wire.Request]:
        return [m for m in map(read, self.sent) if isinstance(m, wire.Request)]
