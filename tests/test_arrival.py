"""A frame's time is when it came, not when somebody came to read it; a deadline's, the caller's call."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from splitiot import wire
from splitiot.adapters.http import HttpTransport
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import DeadlineExceeded, TransportError
from splitiot.functions import TaskPipeline, task, tasks
from splitiot.link_probe import measure_link
from splitiot.observation import Observation
from splitiot.planner import Planner
from splitiot.policies import Fixed
from splitiot.topology import Link, Topology
from splitiot.transports import RoundTrip
from splitiot.transports import _base as base
from tests.session.support import Clock, Scripted, add_one, double, minus_three, profile_of, read
from tests.waiting import eventually

WAIT_S = 30.0
HEAD_S = 0.45
WAY_S, RATE = 0.01, 1e6


class Stamping(Scripted):
    """Tells when frames came, as one with a thread or a callback of its own can."""

    def receive(self, *, timeout_s: float) -> bytes | None:
        at_s = self._under_way[0][0] if self._under_way else self._clock.now_s
        try:
            return super().receive(timeout_s=timeout_s)
        finally:
            self.waited_s = self._clock.now_s - at_s


class Sensor:
    """One thread takes a frame every few seconds and runs a head that takes 0.45 s; the edge is well, 10 ms away."""

    def __init__(self, transport: type[Scripted], cut: int, *, known: Link | None = None, **more: Any) -> None:
        self.clock = Clock()

        def head(x: int) -> int:
            self.clock.now_s += HEAD_S
            return x + 1

        self.pipeline = tasks([head, task(double), task(minus_three)], check_code=False)
        self.edge = tasks([task(add_one, name="head"), double, minus_three], check_code=False)
        assert self.edge.digest == self.pipeline.digest
        self.service = EdgeService([self.edge], clock=self.clock)
        self.lost: tuple[type, ...] = ()
        self.transport = transport(self.clock, self.answer)
        own = profile_of(self.pipeline, HEAD_S)
        topology = Topology(tiers=[own, own.scaled(0.1)], links=[known or Link(WAY_S, 1e6, 1e6)])
        self.planner = Planner(self.pipeline, topology, Fixed(cut))
        self.device = Device(
            self.pipeline, self.transport, planner=self.planner, cache=False, clock=self.clock, **more
        )

    def answer(self, frame: bytes) -> Iterator[tuple[float, bytes | Exception]]:
        if not isinstance(read(frame), self.lost or ()):
            yield WAY_S + len(frame) / RATE, self.service.handle(frame, peer="me")

    def sample(self, count: int, every_s: float) -> Iterator[Any]:
        for value in range(count):
            yield self.device.run(value)
            self.clock.now_s += every_s - HEAD_S


def probes_of(planner: Planner) -> list[Observation]:
    """What the device tells of its link, from now on."""
    seen: list[Observation] = []
    class Noting(type(planner._estimators.link)):  # type: ignore[misc]
        __slots__ = ()

        def update(self, observation: Observation, *more: Any) -> None:
            seen.append(observation)
            super().update(observation, *more)

    planner._estimators.link.__class__ = Noting
    return seen


# slow sampling


@pytest.mark.parametrize("every_s", [1.2, 2.5, 6.0, 3600.0])
@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("transport", [Scripted, Stamping])
def test_a_slow_sensor_keeps_its_edge(transport: type[Scripted], cut: int, every_s: float) -> None:
    sensor = Sensor(transport, cut)
    sensor.device.connect()
    for outcome in sensor.sample(8, every_s):
        assert outcome.unwrap() is not None
        assert outcome.source == ("local" if cut == 3 else "edge")
        assert sensor.device.edge_up
    assert sensor.device._session.outages == 0
    link = sensor.planner.link
    assert WAY_S / 3 <= link.rtt_s + 1000 / link.up_bytes_per_s <= 6 * WAY_S  # it was 45 and more


@pytest.mark.parametrize("every_s", [2.5, 30.0])
def test_a_sensor_whose_edge_dies_notices_and_comes_back(every_s: float) -> None:
    sensor = Sensor(Stamping, 3)
    sensor.device.connect()
    sensor.lost = wire.KINDS
    list(sensor.sample(6, every_s))
    assert not sensor.device.edge_up and sensor.device._session.outages > 0
    sensor.lost = ()
    list(sensor.sample(3, every_s))
    assert sensor.device.edge_up


def test_a_device_that_was_not_connected_greets_between_frames() -> None:
    """The welcome waits behind a head, and then for the next frame."""
    sensor = Sensor(Scripted, 3, connect_s=0.0)
    list(sensor.sample(3, 2.5))
    assert sensor.device.edge_up
    assert sensor.device._session.outages == 0


# what a probe takes


def test_a_probe_is_timed_when_its_echo_comes_not_behind_the_head() -> None:
    sensor = Sensor(Stamping, 3)
    sensor.device.connect()
    seen = probes_of(sensor.planner)
    list(sensor.sample(6, 2.5))
    assert len(seen) >= 4
    for one in seen:
        assert one.round_trip_s == pytest.approx(WAY_S + one.sent_bytes / RATE)
        assert not one.upper_bound


def test_where_the_transport_can_not_tell_it_is_a_bound_and_no_sample() -> None:
    sensor = Sensor(Scripted, 3)
    sensor.device.connect()
    before, seen = sensor.planner.link, probes_of(sensor.planner)
    list(sensor.sample(6, 2.5))
    assert len(seen) >= 3
    assert all(one.upper_bound and one.round_trip_s > WAY_S for one in seen if one.round_trip_s is not None)
    assert sensor.planner.link == before


def test_a_bound_still_says_that_a_link_is_better_than_was_believed() -> None:
    sensor = Sensor(Scripted, 3, known=Link(5.0, 1000.0, 1000.0), connect_s=0.0)
    list(sensor.sample(6, 2.5))
    link = sensor.planner.link
    assert link.rtt_s <= 2.5 and link.up_bytes_per_s > 1500.0


def test_a_request_that_is_waited_for_is_measured_on_any_transport() -> None:
    for transport in (Scripted, Stamping):
        sensor = Sensor(transport, 1)
        sensor.device.connect()
        for outcome in sensor.sample(4, 2.5):
            assert outcome.observation.round_trip_s == pytest.approx(WAY_S, abs=0.001)
            assert not outcome.observation.upper_bound


# late answers, and answers during a local finish


def test_a_late_answer_is_measured_as_it_came() -> None:
    """It comes 30 ms behind the deadline, and is read with the next frame, two seconds later."""
    for transport, upper_bound in ((Stamping, False), (Scripted, True)):
        sensor = Sensor(transport, 1, parts=[(0, 1)])
        sensor.device.connect()
        answer = sensor.answer

        def slowly(frame: bytes, answer: Any = answer) -> Iterator[tuple[float, bytes | Exception]]:
            for delay_s, reply in answer(frame):
                yield (0.08 if isinstance(read(frame), wire.Request) else delay_s), reply

        sensor.transport.answer = slowly
        outcome = sensor.device.run(1, deadline_s=HEAD_S + 0.05)
        assert isinstance(outcome.error, DeadlineExceeded)
        sensor.clock.now_s += 2.0
        seen = probes_of(sensor.planner)
        sensor.device.run(2)
        late = next(one for one in seen if one.plan_id == outcome.plan.id)
        assert late.upper_bound is upper_bound
        assert late.round_trip_s == pytest.approx(0.08 if not upper_bound else 2.05, abs=0.02)


def test_an_answer_that_came_during_the_local_finish_is_first_also_behind_other_frames() -> None:
    clock = Clock()

    def finish(x: int) -> int:
        clock.now_s += 1.0
        return 2 * x

    pipeline = tasks([task(add_one), task(finish, name="double")], check_code=False)
    service = EdgeService([tasks([add_one, double], check_code=False)], clock=clock)
    noise = wire.encode(wire.Echo(boot=wire.NOBODY, sequence=99, edge_boot=wire.NOBODY))

    def answer(frame: bytes) -> Iterator[tuple[float, bytes | Exception]]:
        if isinstance(read(frame), wire.Request):
            yield 0.6, noise
            yield 0.7, noise
            yield 0.8, service.handle(frame, peer="me")
        else:
            yield 0.01, service.handle(frame, peer="me")

    own = profile_of(pipeline, 1.0)
    planner = Planner(pipeline, Topology(tiers=[own, own.scaled(0.1)], links=[Link(0.01, 1e6, 1e6)]), Fixed(1))
    transport = Stamping(clock, answer)
    with Device(pipeline, transport, planner=planner, cache=False, clock=clock, patience_s=0.5) as device:
        outcome = device.run(20)
    assert (outcome.source, outcome.value) == ("edge", 42)
    assert outcome.observation is not None
    assert outcome.observation.round_trip_s == pytest.approx(0.8)


# suspended machines


@pytest.mark.parametrize("slept_s", [60.0, 86400.0])
def test_a_machine_that_slept_while_it_waited_does_not_blame_the_edge(slept_s: float) -> None:
    """The clock jumps in the middle of a wait; the answer is there, and the transport has not read it yet."""

    class Sleepy(Scripted):
        asleep = False

        def receive(self, *, timeout_s: float) -> bytes | None:
            if self.asleep:
                self.asleep = False
                self._clock.now_s += slept_s
                return None
            return super().receive(timeout_s=timeout_s)

    sensor = Sensor(Sleepy, 1, patience_s=5.0)
    sensor.device.connect()
    assert sensor.device.run(1).source == "edge"
    seen = probes_of(sensor.planner)
    sleepy = sensor.transport
    assert isinstance(sleepy, Sleepy)

    def send(frame: bytes, *, timeout_s: float) -> None:
        Scripted.send(sleepy, frame, timeout_s=timeout_s)
        sleepy.asleep = isinstance(read(frame), wire.Request)

    sleepy.send = send  # type: ignore[method-assign]
    for value in range(4):
        assert sensor.device.run(value).ok
    assert sensor.device.edge_up
    assert sensor.device._session.outages == 0
    assert not any(one.censored and (one.round_trip_s or 0.0) > 5.0 for one in seen)
    assert sensor.planner.link.rtt_s < 0.1


# what waits before it is sent


class Slow:
    """`time`, standing still."""

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock


def test_an_exchange_is_timed_where_its_bytes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(base, "time", Slow(clock))
    begun, done = threading.Semaphore(0), threading.Semaphore(0)

    class Timed(RoundTrip):
        def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
            begun.release()
            assert done.acquire(timeout=WAIT_S)
            if request == b"dial":
                clock.now_s += 5.0  # a connection is set up
                self.sending()
            clock.now_s += 0.25
            if request == b"fail":
                raise TransportError("no")
            return request

    transport = Timed(workers=1)
    for frame in (b"first", b"dial", b"fail"):  # one worker: the others wait
        transport.send(frame, timeout_s=1000.0)
    assert begun.acquire(timeout=WAIT_S)
    clock.now_s += 2.0
    done.release(3)
    eventually(lambda: transport._replies.qsize() == 3)
    clock.now_s += 0.75  # nobody reads
    got = []
    for _ in range(3):
        try:
            got.append((transport.receive(timeout_s=WAIT_S), transport.waited_s, transport.queued_s))
        except TransportError:
            got.append((None, transport.waited_s, transport.queued_s))
    assert [frame for frame, _, _ in got] == [b"first", b"dial", None]
    assert [queued_s for _, _, queued_s in got] == [0.0, 2.25 + 5.0, 2.25 + 5.25]
    transport.close()
    assert got[2][1] == 0.75
    assert got[0][1] == 0.75 + 5.25 + 0.25


def test_the_own_queue_is_no_time_of_the_link() -> None:
    """Each request waits 1.5 s for a worker, or for a connection: the link is not blamed."""

    class Queued(Scripted):
        def receive(self, *, timeout_s: float) -> bytes | None:
            frame = super().receive(timeout_s=timeout_s)
            self.waited_s, self.queued_s = 0.0, 1.5
            return frame

    sensor = Sensor(Queued, 1, connect_s=20.0)
    answer = sensor.answer
    sensor.transport.answer = lambda frame: [(1.5 + delay_s, reply) for delay_s, reply in answer(frame)]
    assert sensor.device.connect()
    outcome = sensor.device.run(1)
    assert outcome.observation is not None
    assert outcome.observation.round_trip_s == pytest.approx(WAY_S, abs=0.001)
    assert outcome.latency_s == pytest.approx(HEAD_S + 1.5 + WAY_S, abs=0.001)
    assert sensor.planner.link.rtt_s == pytest.approx(WAY_S, rel=0.6)


def test_measuring_a_link_takes_the_time_of_arrival() -> None:
    """Whoever measures may be slow, and the transport may have to queue."""
    clock = Clock()

    class Dawdling(Scripted):
        def receive(self, *, timeout_s: float) -> bytes | None:
            frame = super().receive(timeout_s=timeout_s)
            self._clock.now_s += 0.5
            self.waited_s, self.queued_s = 0.5, 0.0
            return frame

    service = EdgeService([tasks([add_one])], clock=clock)
    transport = Dawdling(clock, lambda frame: [(WAY_S, service.handle(frame, peer="me"))])
    assert measure_link(transport, clock=clock, count=3).rtt_s == pytest.approx(WAY_S)


# deadlines of callers that wait for each other


class Watched(Clock):
    """Says when a thread has looked at it."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: set[int] = set()
        self._changed = threading.Condition()

    def __call__(self) -> float:
        with self._changed:
            self.looked.add(threading.get_ident())
            self._changed.notify_all()
        return self.now_s

    def wait_for(self, thread: threading.Thread) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: thread.ident in self.looked, WAIT_S)


def busy_device(clock: Clock, begun: threading.Event, go: threading.Event) -> tuple[Device, TaskPipeline]:
    def hold(x: int) -> int:
        if x == 0:
            begun.set()
            assert go.wait(WAIT_S)
        return x + 1

    pipeline = tasks([hold, double])
    own = profile_of(pipeline)
    planner = Planner(pipeline, Topology(tiers=[own, own], links=[Link(0.01, 1e6, 1e6)]), Fixed(2))
    return Device(pipeline, Scripted(clock, lambda frame: ()), planner=planner, cache=False, clock=clock), pipeline


def test_a_deadline_ends_the_wait_for_other_threads() -> None:
    """The one that is at work does not end before those that wait have their outcomes: so these are in time."""
    begun, go = threading.Event(), threading.Event()
    device, _ = busy_device(Clock(), begun, go)
    with device:
        holder = threading.Thread(target=device.run, args=(0,))
        holder.start()
        assert begun.wait(WAIT_S)
        outcomes: list[Any] = []
        threads = [
            threading.Thread(target=lambda x=x: outcomes.append(device.run(x, deadline_s=0.05))) for x in range(1, 8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        go.set()
        holder.join(WAIT_S)
        assert len(outcomes) == 7
        for outcome in outcomes:
            assert isinstance(outcome.error, DeadlineExceeded)
            assert "other threads" in str(outcome.error)
            assert outcome.source == "none"
        assert device.run(1, deadline_s=1.0).unwrap() == 4


def test_the_wait_for_other_threads_counts() -> None:
    begun, go, clock = threading.Event(), threading.Event(), Watched()
    device, _ = busy_device(clock, begun, go)
    with device:
        holder = threading.Thread(target=device.run, args=(0,))
        holder.start()
        assert begun.wait(WAIT_S)
        outcomes: dict[float, Any] = {}
        threads = []
        for deadline_s in (5.0, 100.0):
            thread = threading.Thread(
                target=lambda d=deadline_s: outcomes.__setitem__(d, device.run(1, deadline_s=d))
            )
            thread.start()
            clock.wait_for(thread)
            threads.append(thread)
        clock.now_s += 6.0
        go.set()
        for thread in (holder, *threads):
            thread.join(WAIT_S)
            assert not thread.is_alive()
        assert isinstance(outcomes[5.0].error, DeadlineExceeded)
        assert outcomes[100.0].unwrap() == 4
        assert outcomes[5.0].latency_s == outcomes[100.0].latency_s == 6.0


@pytest.mark.parametrize("deadline_s", [0.2, 1.0])
def test_the_first_request_does_not_wait_longer_for_the_edge_than_it_has_time(deadline_s: float) -> None:
    """Nobody answers; `with` was forgotten."""
    sensor = Sensor(Scripted, 3, connect_s=2.0)
    sensor.lost = wire.KINDS
    outcome = sensor.device.run(1, deadline_s=deadline_s)
    assert outcome.latency_s <= deadline_s + HEAD_S
    # it takes 0.45 s here, and may take 1.35 s as far as is known
    assert outcome.ok or deadline_s < 1.35
    patient = Sensor(Scripted, 3, connect_s=2.0)
    patient.lost = wire.KINDS
    assert patient.device.run(1, deadline_s=2.5).ok


# a real edge in a process of its own

EDGE = """
import sys
from splitiot.adapters.http import serve
from splitiot.edge import EdgeService
from splitiot.functions import tasks, task

def head(x): return x + 1
def double(x): return 2 * x

serve(EdgeService([tasks([head, double])]), port=0, ready=lambda port: print(port, flush=True))
"""


@pytest.mark.network
@pytest.mark.extra("http")
def test_a_real_link_behind_long_heads() -> None:
    """The head sleeps 0.45 s in the thread that would read; the edge is on this machine."""
    edge = subprocess.Popen([sys.executable, "-c", EDGE], stdout=subprocess.PIPE, text=True)
    assert edge.stdout is not None

    def head(x: int) -> int:
        time.sleep(HEAD_S)  # noqa: TID251 (a slow step)
        return x + 1

    pipeline = tasks([head, double])
    own = profile_of(pipeline, HEAD_S)
    try:
        transport = HttpTransport(f"http://127.0.0.1:{int(edge.stdout.readline())}")
        planner = Planner(pipeline, Topology(tiers=[own, own.scaled(0.1)], links=[Link(0.01, 1e6, 1e6)]), Fixed(2))
        with Device(pipeline, transport, planner=planner, cache=False) as device:
            assert device.edge_up
            seen = probes_of(planner)
            for value in range(6):
                assert device.run(value).unwrap() == 2 * (value + 1)
            assert device._session.outages == 0
            assert device.edge_up
        assert seen
        assert all(one.network_s is not None and 0 < one.network_s < HEAD_S / 3 for one in seen)
        assert planner.link.rtt_s < HEAD_S / 3
        assert planner.link.up_bytes_per_s > 50e3  # 18 kB/s were believed
    finally:
        edge.send_signal(signal.SIGTERM)
        edge.communicate(timeout=WAIT_S)
