"""Device.map: many frames at once, each ends once, in order, whatever edge, source, tasks and consumer do."""

from __future__ import annotations

import _thread
import contextlib
import inspect
import itertools
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from splitiot import wire
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import (
    DeadlineExceeded,
    EdgeUnavailable,
    LocalProtocolError,
    RemoteError,
    StepError,
    TransportError,
)
from splitiot.functions import task, tasks
from splitiot.observation import Observation
from splitiot.pipeline import DROP, Pipeline
from splitiot.plan import Outcome
from splitiot.policies import Context, Decision, Fixed, Policy
from splitiot.transports import InMemory, RoundTrip, Transport
from tests.session.support import Clock, add_one, double, numbers, profile_of, read
from tests.share import FULL
from tests.waiting import eventually

PIPELINE = numbers()
WAIT_S = 30.0


def streaming() -> list[str]:
    """The threads of streams that run."""
    ours = ("splitiot-source", "splitiot-lane", "splitiot-listener")
    return [thread.name for thread in threading.enumerate() if thread.name in ours]


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    assert streaming() == []


def device_on(transport: Transport, pipeline: Pipeline = PIPELINE, policy: Policy | int = 1, **more: Any) -> Device:
    chosen = Fixed(policy) if isinstance(policy, int) else policy
    more.setdefault("profile", profile_of(pipeline))
    return Device(pipeline, transport, policy=chosen, cache=False, **more)


def in_memory(service: EdgeService) -> InMemory:
    return InMemory(lambda frame: service.handle(frame, peer="me"))


class Gate(Transport):
    """Answers hellos and probes at once; requests when it is told, in any order."""

    def __init__(self, service: EdgeService, *, lossy: bool = False) -> None:
        self.service, self.lossy = service, lossy
        self._arrived: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self.held: list[bytes] = []
        self.most = 0
        self.receivers: set[int] = set()
        self.closed = False

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        if not isinstance(read(frame), wire.Request):
            self._arrived.put(self.service.handle(frame, peer="me"))
            return
        with self._changed:
            self.held.append(frame)
            self.most = max(self.most, len(self.held))
            self._changed.notify_all()

    def receive(self, *, timeout_s: float) -> bytes | None:
        try:
            answer = self._arrived.get(timeout=timeout_s) if timeout_s > 0 else self._arrived.get_nowait()
        except queue.Empty:
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True

    def wait(self, count: int) -> None:
        """Until so many requests are held."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.held) >= count, WAIT_S)

    def answer(self, place: int = 0) -> None:
        """Answer the one that stands there."""
        with self._changed:
            frame = self.held.pop(place)
        self._arrived.put(self.service.handle(frame, peer="me"))

    def lose(self, place: int = 0) -> None:
        with self._changed:
            frame = self.held.pop(place)
        self._arrived.put(TransportError("cut off", frame=frame))


class Threaded(RoundTrip):
    """An edge in threads: several requests at once."""

    def __init__(self, answer: Callable[[bytes], bytes], *, workers: int = 4) -> None:
        super().__init__(workers=workers)
        self._answer = answer

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        return self._answer(request)


def threaded(service: EdgeService) -> Threaded:
    return Threaded(lambda frame: service.handle(frame, peer="me"))


def background(work: Callable[[], None]) -> Callable[[], None]:
    """Run in a thread; what is returned waits for its end, and raises what it raised."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> None:
        thread.join(WAIT_S)
        assert not thread.is_alive()
        if failed:
            raise failed[0]

    return join


@pytest.fixture
def service() -> Iterator[EdgeService]:
    with EdgeService([PIPELINE]) as made:
        yield made


# the good life


@pytest.mark.parametrize("window", [1, 2, 3, 7])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_every_cut_gives_the_same_in_order(service: EdgeService, cut: int, window: int) -> None:
    for transport in (in_memory(service), threaded(service)):
        with device_on(transport, policy=cut) as device:
            outcomes = list(device.map(range(20), window=window))
        assert [outcome.unwrap() for outcome in outcomes] == [PIPELINE.run(x) for x in range(20)]
        assert [outcome.index for outcome in outcomes] == list(range(20))
        assert {outcome.source for outcome in outcomes} == {"local" if cut == 3 else "edge"}
        assert all(outcome.plan and outcome.plan.cut == cut for outcome in outcomes)
        assert len({outcome.plan.id for outcome in outcomes if outcome.plan}) == 20
        assert all(outcome.observation and outcome.latency_s > 0 for outcome in outcomes)
        assert device.counters.requests == 20


def test_nothing_and_one_after_another(service: EdgeService) -> None:
    with device_on(in_memory(service)) as device:
        assert list(device.map([])) == []
        assert [o.value for o in device.map([1])] == [1]
        assert device.run(2).value == 3
        assert [(o.value, o.index) for o in device.map(iter([3, 4]))] == [(5, 0), (7, 1)]


def test_answers_that_come_out_of_order(service: EdgeService) -> None:
    gate = Gate(service)
    random_ = random.Random(3)

    def answer() -> None:
        for _ in range(10):
            gate.wait(3)
            for left in (3, 2, 1):
                gate.answer(random_.randrange(left))
                gate.wait(left - 1)

    with device_on(gate) as device:
        join = background(answer)
        outcomes = list(device.map(range(30), window=3))
        join()
    assert [outcome.value for outcome in outcomes] == [PIPELINE.run(x) for x in range(30)]
    assert gate.most == 3


def test_never_more_than_a_window_on_their_way(service: EdgeService) -> None:
    """And the source is not read ahead: a value is asked for when there is room for it."""
    gate = Gate(service)
    asked, pulled = 0, 0
    beyond: list[int] = []

    def source() -> Iterator[int]:
        nonlocal pulled
        for value in range(40):
            pulled = value + 1
            if pulled > asked + 2:  # handed to the caller: at most what it has asked for, less the one that it gets now
                beyond.append(value)
            yield value

    def answer() -> None:
        for left in range(40, 0, -1):
            gate.wait(min(3, left))
            gate.answer()

    with device_on(gate) as device:
        join = background(answer)
        outcomes = device.map(source(), window=3)
        for value in range(40):
            asked += 1
            assert next(outcomes).value == PIPELINE.run(value)
            assert value < pulled <= asked + 3
        assert next(outcomes, None) is None
        join()
    assert gate.most == 3
    assert beyond == []


def test_a_consumer_that_does_not_come_holds_all_up(service: EdgeService) -> None:
    pulled = 0
    third = threading.Event()

    def source() -> Iterator[int]:
        nonlocal pulled
        for value in itertools.count():
            pulled += 1
            if pulled == 3:
                third.set()
            yield value

    with device_on(in_memory(service)) as device:
        outcomes = device.map(source(), window=2)
        assert next(outcomes).value == PIPELINE.run(0)
        assert third.wait(WAIT_S)  # one with the caller, two on their way
        stream = device._stream
        assert stream is not None
        with stream._changed:
            assert stream._changed.wait_for(lambda: len(stream._outcomes) == 2, WAIT_S)
        assert pulled == 3
        assert len(stream._order) == 2
        outcomes.close()


def test_a_window_larger_than_a_session_holds(service: EdgeService) -> None:
    gate = Gate(service)
    with device_on(gate) as device:
        limit = device._session._requests.most

        def answer() -> None:
            gate.wait(limit)
            for left in range(limit + 20, 0, -1):
                gate.wait(1)
                gate.answer(len(gate.held) - 1)
                assert left

        join = background(answer)
        outcomes = list(device.map(range(limit + 20), window=limit + 10))
        join()
    assert [outcome.unwrap() for outcome in outcomes] == [PIPELINE.run(x) for x in range(limit + 20)]
    assert gate.most == limit


# sources


def test_the_newest_takes_the_place_of_one_that_waits() -> None:
    begun, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    def head(x: int) -> int:
        ran.append(x)
        begun.set()
        assert go_on.wait(WAIT_S)
        return x

    def source() -> Iterator[int]:
        yield 0
        assert begun.wait(WAIT_S)
        yield from (1, 2, 3, 4, 5)
        go_on.set()  # asked for one more: 5 has taken its place
        yield 6

    pipeline = tasks([head, double])
    with EdgeService([pipeline]) as service, device_on(in_memory(service), pipeline) as device:
        outcomes = list(device.map(source(), window=2, keep="newest"))
        indices = [outcome.index for outcome in outcomes]
        assert indices[0] == 0
        assert indices[-1] == 6
        assert set(indices) <= {0, 5, 6}
        assert [outcome.value for outcome in outcomes] == [2 * index for index in indices]
        assert ran == indices
        assert device.counters.skipped == 7 - len(indices)
        assert device.counters.requests == len(indices)


def test_the_newest_waits_for_room_too() -> None:
    """With two on their way no third begins, however many come."""
    ran: list[int] = []

    def head(x: int) -> int:
        ran.append(x)
        return x

    pipeline = tasks([head, double])
    with EdgeService([pipeline]) as edge:
        gate = Gate(edge)

        def source() -> Iterator[int]:
            yield 0
            gate.wait(1)
            yield 1
            gate.wait(2)
            yield from range(2, 50)
            until_s = time.monotonic() + 0.1  # time enough to begin one
            while len(ran) == 2 and time.monotonic() < until_s:
                time.sleep(0.001)  # noqa: TID251 (what must not begin gets time to)
            assert ran == [0, 1]
            gate.answer()

        def answer() -> None:
            gate.wait(2)
            eventually(lambda: ran[-1] == 49)
            for left in (2, 1):
                gate.wait(left)
                gate.answer()

        with device_on(gate, pipeline) as device:
            join = background(answer)
            assert [outcome.index for outcome in device.map(source(), window=2, keep="newest")] == [0, 1, 49]
            join()
            assert device.counters.skipped == 47
    assert gate.most == 2


def test_frames_that_give_way_leave_nothing_behind(service: EdgeService) -> None:
    """A source without a pause, and a consumer that waits for long."""
    enough = threading.Event()

    def source() -> Iterator[int]:
        for value in range(20_000):
            if value == 10_000:
                enough.set()
            yield value

    with device_on(in_memory(service)) as device:
        outcomes = device.map(source(), window=2, keep="newest")
        assert next(outcomes).index >= 0
        assert enough.wait(WAIT_S)
        stream = device._stream
        assert stream is not None
        assert len(stream._outcomes) + len(stream._waiting) + len(stream._order) + len(stream._numbers) <= 7
        rest = [outcome.index for outcome in outcomes]
        assert rest == sorted(rest)
        assert rest[-1] == 19_999
        assert device.counters.skipped == 20_000 - 1 - len(rest)


def test_a_source_that_raises_does_so_behind_what_it_gave(service: EdgeService) -> None:
    def source() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("unplugged")

    got: list[Any] = []
    with device_on(in_memory(service)) as device:
        with pytest.raises(OSError, match="unplugged"):
            got.extend(outcome.value for outcome in device.map(source()))
        assert got == [1, 3, 5]
        with pytest.raises(TypeError, match="not iterable"):
            list(device.map(5))  # type: ignore[arg-type]
        assert device.run(1).value == 1


def test_what_is_on_its_way_ends_before_the_source_raises(service: EdgeService) -> None:
    gate = Gate(service)

    def source() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("unplugged")

    got: list[Any] = []
    with device_on(gate) as device:

        def answer() -> None:
            eventually(lambda: device._stream is not None and device._stream._exhausted)
            for _ in range(2):
                gate.wait(1)
                gate.answer()

        join = background(answer)
        with pytest.raises(OSError, match="unplugged"):
            got.extend(outcome.value for outcome in device.map(source()))
        join()
    assert got == [1, 3]


def test_a_source_that_blocks_does_not_hold_up_what_it_gave(service: EdgeService) -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        yield from (1, 2)
        assert release.wait(WAIT_S)
        yield 3

    with device_on(in_memory(service)) as device:
        outcomes = device.map(source(), window=5)
        assert [next(outcomes).value, next(outcomes).value] == [1, 3]
        release.set()
        assert [outcome.value for outcome in outcomes] == [5]


def test_a_source_that_blocks_for_ever_does_not_keep_the_stream(service: EdgeService) -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        assert release.wait(WAIT_S)
        yield 2

    with device_on(in_memory(service)) as device:
        outcomes = device.map(source())
        assert next(outcomes).value == 1
        outcomes.close()
        assert streaming() == ["splitiot-source"]
        assert device.run(5).value == 9
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "splitiot-source"]
        release.set()
        thread.join(WAIT_S)
        assert [outcome.value for outcome in device.map([1])] == [1]


def test_a_source_without_an_end(service: EdgeService) -> None:
    with device_on(in_memory(service)) as device:
        got = []
        for outcome in device.map(itertools.count(), window=4):
            got.append(outcome.value)
            if len(got) == 9:
                break
        assert got == [PIPELINE.run(x) for x in range(9)]
        assert streaming() == []
        assert device.run(5).value == 9
        assert device._session.pending == 0


# consumers


def test_leaving_early_ends_what_is_under_way(service: EdgeService) -> None:
    gate = Gate(service)
    with device_on(gate) as device:
        outcomes = device.map(range(10), window=3)
        join = background(lambda: (gate.wait(3), gate.answer()))  # type: ignore[arg-type, return-value]
        assert next(outcomes).value == PIPELINE.run(0)
        join()
        gate.wait(3)
        outcomes.close()
        assert streaming() == []
        assert device._session.pending == 0
        assert device._core.done == {}
        for _ in range(3):
            gate.answer()  # late answers teach, and disturb nobody
        join = background(lambda: (gate.wait(1), gate.answer()))  # type: ignore[arg-type, return-value]
        outcome = device.run(7)
        assert (outcome.value, outcome.source) == (PIPELINE.run(7), "edge")
        join()
        assert device.counters.late_replies == 3


class Stop(Exception):
    pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Stop])
def test_a_loop_that_raises(service: EdgeService, kind: type[BaseException]) -> None:
    def stop(outcome: Outcome) -> None:
        if outcome.index == 3:
            raise kind

    with device_on(in_memory(service)) as device:
        with pytest.raises(kind):
            any(map(stop, device.map(itertools.count())))
        assert streaming() == []
        assert device.run(5).value == 9


def test_ctrl_c_while_the_caller_waits(service: EdgeService) -> None:
    def press(x: int) -> int:
        if x == 2:
            _thread.interrupt_main()
        return x

    pipeline = tasks([press, double])
    gate = Gate(service)
    with EdgeService([pipeline]) as edge:
        gate.service = edge
        with device_on(gate, pipeline) as device:
            with pytest.raises(KeyboardInterrupt):
                list(device.map(range(10), window=4))  # no answer ever comes
            assert streaming() == []
            assert device._session.pending == 0


def test_meanwhile_the_device_does_nothing_else(service: EdgeService) -> None:
    with device_on(in_memory(service)) as device:
        never = device.map(range(3))  # not begun
        assert device.run(1).value == 1
        first = device.map(range(3))
        assert next(first).value == PIPELINE.run(0)
        for call in (lambda: device.run(1), device.connect, device.reset, lambda: next(device.map([1]))):
            with pytest.raises(LocalProtocolError, match="at work on a stream"):
                call()
        with pytest.raises(LocalProtocolError, match="at work on a stream"):
            next(never)
        assert [outcome.value for outcome in first] == [PIPELINE.run(x) for x in (1, 2)]
        assert device.run(1).value == 1
        del never


def test_what_map_does_not_take(service: EdgeService) -> None:
    with device_on(in_memory(service)) as device:
        for wrong in ({"window": 0}, {"window": True}, {"window": 1.5}, {"keep": "oldest"}, {"deadline_s": 0.0}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                device.map([1], **wrong)
    with pytest.raises(LocalProtocolError, match="closed"):
        next(device.map([1]))


def test_closing_the_device_ends_the_stream_with_an_error(service: EdgeService) -> None:
    """Frames are left that have no outcome: that must not look like the end."""
    gate = Gate(service)
    device = device_on(gate)
    device.connect()

    def close() -> None:
        gate.wait(3)
        gate.answer()
        eventually(lambda: got == [PIPELINE.run(0)])
        device.close()

    got: list[Any] = []
    join = background(close)
    with pytest.raises(LocalProtocolError, match="this device was closed"):
        got.extend(outcome.value for outcome in device.map(range(10), window=3))
    join()
    assert gate.closed
    assert got == [PIPELINE.run(0)]


def test_closing_between_two_outcomes(service: EdgeService) -> None:
    device = device_on(in_memory(service))
    outcomes = device.map(range(10), window=2)
    assert next(outcomes).value == PIPELINE.run(0)
    device.close()
    with pytest.raises(LocalProtocolError):
        list(outcomes)
    assert list(outcomes) == []


# edges


@pytest.mark.parametrize("window", [1, 3])
def test_an_edge_that_dies_in_the_middle(service: EdgeService, window: int) -> None:
    handled = 0

    def answer(frame: bytes) -> bytes:
        nonlocal handled
        if isinstance(read(frame), wire.Request):
            handled += 1
        if handled > 5:
            raise TransportError("cut off", frame=frame)
        return service.handle(frame, peer="me")

    for transport in (InMemory(answer), Threaded(answer)):
        handled = 0
        with device_on(transport) as device:
            outcomes = list(device.map(range(20), window=window))
        assert [outcome.unwrap() for outcome in outcomes] == [PIPELINE.run(x) for x in range(20)]
        assert [outcome.index for outcome in outcomes] == list(range(20))
        sources = [outcome.source for outcome in outcomes]
        assert sources.count("edge") == 5
        assert "fallback" in sources
        assert device.counters.requests == 20


def test_a_broken_transport_costs_no_frame_and_little_work() -> None:
    """All that it says, again and again, is that it is broken."""
    told = 0

    class Broken(InMemory):
        broken = False

        def receive(self, *, timeout_s: float) -> bytes | None:
            nonlocal told
            if not self.broken:
                return super().receive(timeout_s=timeout_s)
            told += 1
            raise TransportError("no cable")

    slow = tasks([task(lambda x: (time.sleep(0.01), x)[1], name="slow"), double])  # noqa: TID251 (a slow step)
    with EdgeService([slow]) as edge:
        transport = Broken(lambda frame: edge.handle(frame, peer="me"))
        with device_on(transport, slow) as device:
            transport.broken = True
            assert [outcome.unwrap() for outcome in device.map(range(10))] == [2 * x for x in range(10)]
    assert told < 1000


def test_no_way_to_finish_here(service: EdgeService) -> None:
    def answer(frame: bytes) -> bytes:
        if isinstance(read(frame), wire.Request):
            raise TransportError("cut off", frame=frame)
        return service.handle(frame, peer="me")

    with device_on(Threaded(answer), parts=[(0, 1)], patience_s=0.1) as device:
        outcomes = list(device.map(range(6), window=3))
    assert [outcome.index for outcome in outcomes] == list(range(6))
    assert all(isinstance(outcome.error, EdgeUnavailable) for outcome in outcomes)


def test_hedges_when_the_edge_is_silent(service: EdgeService) -> None:
    """Finished here in time, in the lane where the heads run."""
    gate = Gate(service)
    # the finish is thought to take much longer than it does, so that a slow machine is in time too
    with device_on(gate, profile=profile_of(PIPELINE, 0.2)) as device:
        outcomes = list(device.map(range(3), window=3, deadline_s=1.5))
    assert [outcome.unwrap() for outcome in outcomes] == [PIPELINE.run(x) for x in range(3)]
    assert {outcome.source for outcome in outcomes} == {"hedge"}
    assert all(0.1 < outcome.latency_s <= 1.5 for outcome in outcomes)
    assert device.counters.hedges == 3


@pytest.mark.parametrize("window", [1, 2])
def test_a_hedge_leaves_time_for_the_head_that_is_before_it_in_the_lane(service: EdgeService, window: int) -> None:
    gate, clock = Gate(service), Clock()
    with device_on(gate, profile=profile_of(PIPELINE, 0.2), clock=clock) as device:
        finish_s = {cut: device.planner.finish_s(cut) for cut in (0, 1)}
        outcomes = device.map([1], window=window, deadline_s=5.0)
        due: list[float | None] = []

        def look() -> None:
            gate.wait(1)
            due.extend(pending.hedge_s for pending in device._session._requests.pending.values())
            gate.answer()

        join = background(look)
        assert next(outcomes).source == "edge"
        join()
        outcomes.close()
    assert due == [pytest.approx(clock.now_s + 5.0 - finish_s[1 if window == 1 else 0] - 0.005)]


def test_deadlines_when_nothing_can_be_finished(service: EdgeService) -> None:
    gate = Gate(service)
    with device_on(gate, parts=[(0, 1)], profile=profile_of(PIPELINE, 0.002)) as device:
        outcomes = list(device.map(range(4), window=2, deadline_s=0.3))
    assert [outcome.index for outcome in outcomes] == list(range(4))
    assert {type(outcome.error) for outcome in outcomes} <= {DeadlineExceeded, EdgeUnavailable}
    assert isinstance(outcomes[0].error, DeadlineExceeded)
    assert outcomes[0].latency_s < 3


def test_a_finish_that_nobody_waits_for_is_not_run(service: EdgeService) -> None:
    """The edge answers while the lane is at work on a head: what was to be finished here is not."""
    ran: list[tuple[str, int]] = []
    head_begun, head_goes_on = threading.Event(), threading.Event()

    def head(x: int) -> int:
        ran.append(("head", x))
        if x == 1:
            head_begun.set()
            assert head_goes_on.wait(WAIT_S)
        return x

    def tail(x: int) -> int:
        ran.append(("tail", x))
        return x

    pipeline = tasks([head, tail])
    with EdgeService([pipeline]) as edge:
        gate = Gate(edge)
        clock = Clock()
        with device_on(gate, pipeline, clock=clock) as device:
            outcomes = device.map(range(2), window=2, deadline_s=10.0)

            def direct() -> None:
                assert head_begun.wait(WAIT_S)
                gate.wait(1)
                clock.now_s += 9.999  # the first one's hedge is due
                eventually(lambda: device._core.finishes)
                ran.append(("edge", 0))
                gate.answer()
                eventually(lambda: not device._session.pending)
                clock.now_s -= 9.0
                head_goes_on.set()
                gate.wait(1)
                gate.answer()

            join = background(direct)
            assert [(outcome.value, outcome.source) for outcome in outcomes] == [(0, "edge"), (1, "edge")]
            join()
    assert ran == [("head", 0), ("head", 1), ("edge", 0), ("tail", 0), ("tail", 1)]


def test_what_has_waited_beyond_its_deadline_is_not_begun(service: EdgeService) -> None:
    ran: list[int] = []
    clock = Clock()
    taken = threading.Event()

    def head(x: int) -> int:
        ran.append(x)
        if x == 0:
            assert taken.wait(WAIT_S)
            clock.now_s += 5.0
        return x

    def source() -> Iterator[int]:
        yield from range(3)
        taken.set()  # all three are taken

    pipeline = tasks([head, double])
    with EdgeService([pipeline]) as edge, device_on(in_memory(edge), pipeline, policy=2, clock=clock) as device:
        outcomes = list(device.map(source(), window=4, deadline_s=1.0))
    assert ran == [0]
    assert all(isinstance(outcome.error, DeadlineExceeded) for outcome in outcomes)
    assert "waited 5.000 s to begin" in str(outcomes[1].error)


def test_policies_know_what_is_left_of_the_time(service: EdgeService) -> None:
    left: list[float | None] = []
    clock = Clock()
    taken = threading.Event()

    class Ask(Policy):
        def decide(self, context: Context) -> Decision:
            left.append(context.deadline_s)
            return Decision(context.at_cut(2), "local")

    def head(x: int) -> int:
        if x == 0:
            assert taken.wait(WAIT_S)
            clock.now_s += 3.0
        return x

    def source() -> Iterator[int]:
        yield from range(2)
        taken.set()

    pipeline = tasks([head, double])
    with EdgeService([pipeline]) as edge, device_on(in_memory(edge), pipeline, Ask(), clock=clock) as device:
        list(device.map(source(), window=3, deadline_s=10.0))
    assert left == [10.0, 7.0]


# tasks and policies that do what they should not


def awkward(x: int) -> Any:
    if x % 5 == 0:
        raise ValueError(f"no {x}")
    if x % 5 == 1:
        return {x}  # can't cross
    if x % 5 == 2:
        return DROP
    return x


def strict(x: Any) -> int:
    return "four" if x % 5 == 4 else x  # type: ignore[return-value]


@pytest.mark.parametrize("cut", [0, 1, 2])
@pytest.mark.parametrize("window", [1, 3])
def test_tasks_that_fail_end_their_frames_alone(cut: int, window: int) -> None:
    pipeline = tasks([awkward, strict])
    with EdgeService([pipeline]) as edge, device_on(threaded(edge), pipeline, cut) as device:
        outcomes = list(device.map(range(15), window=window))
    assert [outcome.index for outcome in outcomes] == list(range(15))
    for x, outcome in enumerate(outcomes):
        if x % 5 == 0:
            assert isinstance(outcome.error, StepError)
            assert f"no {x}" in str(outcome.error)
            assert "in task 'awkward'" in str(outcome.error)
        elif x % 5 == 1:
            assert isinstance(outcome.error, LocalProtocolError)
            assert "a set can't cross" in str(outcome.error)
        elif x % 5 == 2:
            assert outcome.dropped
        elif x % 5 == 3:
            assert outcome.unwrap() == x
        else:
            assert "task 'strict' returned a str; its annotation says int" in str(outcome.error)
    assert device.counters.dropped == 3


def test_values_that_the_pipeline_does_not_take() -> None:
    from tests.pipelines import SizedPipeline

    class Picky(SizedPipeline):
        def bind(self, value: Any) -> Any:
            if value is None:
                raise LocalProtocolError("no value")
            return super().bind(value)

    pipeline = Picky([2, 2])
    with EdgeService([pipeline]) as edge, device_on(in_memory(edge), pipeline, 0) as device:
        outcomes = list(device.map([np.zeros(2), None, np.zeros(2)]))
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, LocalProtocolError)


class Mistaken(Policy):
    def __init__(self, after: int, *, learning: bool = False) -> None:
        self.after, self.learning = after, learning
        self.calls = self.learnt = 0

    def decide(self, context: Context) -> Decision:
        self.calls += 1
        if self.calls > self.after and not self.learning:
            raise ZeroDivisionError("a policy's bug")
        return Decision(context.at_cut(1), "told")

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.learnt += not observation.probe
        if self.learning and self.learnt > self.after:
            raise ZeroDivisionError("a policy's bug")


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("threaded", [False, True])
def test_a_policy_with_a_mistake_raises_to_the_caller(service: EdgeService, learning: bool, threaded: bool) -> None:
    def answer(frame: bytes) -> bytes:
        return service.handle(frame, peer="me")

    got: list[Any] = []
    transport = Threaded(answer) if threaded else InMemory(answer)
    with device_on(transport, policy=Mistaken(3, learning=learning)) as device:
        with pytest.raises(ZeroDivisionError, match="a policy's bug"):
            got.extend(outcome.value for outcome in device.map(itertools.count(), window=2))
        assert streaming() == []
    assert got == [PIPELINE.run(x) for x in range(len(got))]
    assert len(got) <= 3


def test_a_task_that_exits_does_so(service: EdgeService) -> None:
    def leave(x: int) -> int:
        if x == 2:
            raise SystemExit(5)
        return x

    pipeline = tasks([leave, double])
    with EdgeService([pipeline]) as edge, device_on(in_memory(edge), pipeline) as device:
        with pytest.raises(SystemExit):
            list(device.map(range(9), window=2))
        assert streaming() == []


class Interrupting:
    """Raises where Python runs handlers of signals: where the k-th function begins or ends, as Ctrl-C may do."""

    def __init__(self, place: int) -> None:
        self.left = place

    def __call__(self, frame: Any, event: str, argument: object) -> None:
        # not at the calls of C, which are over before a handler is run; and a generator would be left without its
        # `finally`, as never by a signal
        if event in ("call", "return") and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


def test_ctrl_c_at_any_place_ends_a_stream(service: EdgeService) -> None:
    """It must not leave a lock behind for which the threads wait that it waits for."""
    interrupted: list[int] = []

    def work(place: int) -> None:
        with device_on(in_memory(service)) as device:
            stream = device.map(itertools.count())
            next(stream)
            with contextlib.suppress(KeyboardInterrupt):
                sys.setprofile(Interrupting(place))
                try:
                    for _ in range(3):
                        next(stream)
                finally:
                    sys.setprofile(None)
                return
            interrupted.append(place)
            with contextlib.suppress(KeyboardInterrupt):
                stream.close()

    for place in range(1, 40):
        thread = threading.Thread(target=work, args=(place,), daemon=True)
        thread.start()
        thread.join(WAIT_S)
        assert not thread.is_alive(), f"interrupted at place {place}, it hangs"
    assert len(interrupted) > 20



def test_telemetry_is_asked_for_each_frame(service: EdgeService) -> None:
    seen: list[dict[str, float]] = []
    turn = itertools.count()

    class Ask(Policy):
        def decide(self, context: Context) -> Decision:
            seen.append(dict(context.telemetry))
            return Decision(context.at_cut(1), "told")

    def told() -> Mapping[str, float]:
        return {"turn": float(next(turn)), "battery": 1.0}

    with device_on(in_memory(service), policy=Ask(), telemetry=told) as device:
        assert [o.value for o in device.map(range(4), telemetry={"battery": 0.5})] == [-1, 1, 3, 5]
        assert seen == [{"turn": float(n), "battery": 0.5} for n in range(4)]
        assert device.run(5).value == 9
        assert seen[-1] == {"turn": 4.0, "battery": 1.0}


def test_a_profile_is_made_of_the_first_value() -> None:
    ran: list[int] = []

    def head(x: int) -> int:
        ran.append(x)
        if x < 0:
            raise ValueError("too small")
        return x

    pipeline = tasks([head, double])
    with EdgeService([pipeline]) as edge, device_on(in_memory(edge), pipeline, profile=None) as device:
        outcomes = list(device.map([-1, 7, 8]))
        assert [outcome.value for outcome in outcomes] == [None, 14, 16]
        assert isinstance(outcomes[0].error, StepError)
        assert outcomes[0].plan is None
        assert ran.count(7) > 5
        assert ran.count(8) == 1
        assert device.planner.topology.tiers[0].n == 2


# tails that remember


class Noting:
    """A running sum that notes how many are in it at once."""

    def __init__(self, log: list[int]) -> None:
        self.log, self.total, self.inside, self.most = log, 0, 0, 0

    def __enter__(self) -> Noting:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def add(self, x: int) -> int:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.001)  # noqa: TID251 (others would come in between)
        self.log.append(x)
        self.total += x
        self.inside -= 1
        return self.total


@pytest.mark.parametrize("tier", [None, "edge", "device"])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_tails_that_remember_run_one_at_a_time_in_order(tier: str | None, cut: int) -> None:
    log: list[int] = []
    made: list[Noting] = []

    def make() -> Noting:
        made.append(Noting(log))
        return made[-1]

    def remember(noting: Noting, x: int) -> int:
        return noting.add(x)

    note = task(remember, tier=tier, state="own", resource=make)
    pipeline = tasks([note, add_one] if tier == "device" else [add_one, note])
    if cut not in pipeline.cuts:
        return
    with EdgeService([pipeline], workers=4) as edge, device_on(threaded(edge), pipeline, cut) as device:
        outcomes = list(device.map(range(25), window=5))
        assert [outcome.error for outcome in outcomes] == [None] * 25
        assert edge.counters.busy == 0
    shift = 0 if tier == "device" else 1
    assert log == [x + shift for x in range(25)]
    sums = list(itertools.accumulate(log))
    assert [outcome.value for outcome in outcomes] == [total + 1 - shift for total in sums]
    assert len(made) == 1
    assert made[0].most == 1


def test_a_head_that_ran_for_nobody_is_noticed() -> None:
    """It has changed what the head remembers, and the tail never heard of it: a value would be wrong."""
    begun, leave = threading.Event(), threading.Event()

    def add(total: list[int], x: int) -> int:
        if x == 100:
            begun.set()
            assert leave.wait(WAIT_S)
        total[0] += x
        return total[0]

    both = [task(add, name=name, state="own", resource=lambda: contextlib.nullcontext([0])) for name in ("a", "b")]
    pipeline = tasks(both)
    with EdgeService([pipeline]) as edge, device_on(threaded(edge), pipeline) as device:
        outcomes = device.map([1, 100, 5], window=2)
        assert next(outcomes).value == 1
        assert begun.wait(WAIT_S)
        stream = device._stream
        assert stream is not None

        def release() -> None:
            eventually(lambda: stream._stopped)
            leave.set()

        join = background(release)
        outcomes.close()
        join()
        outcome = device.run(1)
        assert isinstance(outcome.error, RemoteError)
        assert "reset()" in str(outcome.error)
        device.reset()
        assert [outcome.value for outcome in device.map([1, 2, 3])] == [1, 4, 10]
        assert device.run(1).value == 17, "a stream that came to its end leaves no gap"


def test_a_tail_that_remembers_goes_on_behind_failures() -> None:
    def remember(total: list[int], x: int) -> Any:
        if x % 4 == 1:
            raise ValueError("no")
        total[0] += x
        return DROP if x % 4 == 2 else total[0]

    for tier in (None, "edge"):
        note = task(remember, tier=tier, state="own", resource=lambda: contextlib.nullcontext([0]))
        pipeline = tasks([add_one, note])
        with EdgeService([pipeline]) as edge, device_on(threaded(edge), pipeline, 1) as device:
            outcomes = list(device.map(range(12), window=3))
        total = 0
        for x, outcome in enumerate(outcomes, 1):
            if x % 4 == 1:
                assert isinstance(outcome.error, RemoteError)
                continue
            total += x
            assert outcome.dropped if x % 4 == 2 else outcome.unwrap() == total


# all at once


def one_run(seed: int) -> None:
    random_ = random.Random(seed)
    lock = threading.Lock()

    def chance(share: float) -> bool:
        with lock:
            return random_.random() < share

    def pause() -> None:
        if chance(0.3):
            with lock:
                delay_s = random_.random() * 0.003
            time.sleep(delay_s)  # noqa: TID251 (another order of events each time)

    bad = random_.choice([0.0, 0.0, 0.1, 0.5])
    raises = frozenset(x for x in range(30) if random_.random() < random_.choice([0, 0.2]))
    drops = frozenset(x for x in range(30) if random_.random() < random_.choice([0, 0.2]))

    def first(x: int) -> Any:
        pause()
        if x in drops:
            return DROP
        return x

    def second(x: int) -> Any:
        pause()
        if x in raises:
            raise ValueError("no")
        return x * 2

    pipeline = tasks([first, second])
    count, window = random_.randrange(1, 25), random_.randrange(1, 6)
    cut, keep = random_.randrange(3), random_.choice(["all", "all", "newest"])
    stop_at = random_.choice([None, None, random_.randrange(count)])
    deadline_s = random_.choice([None, None, 5.0])

    def source() -> Iterator[int]:
        for x in range(count):
            pause()
            yield x

    with EdgeService([pipeline]) as edge:

        def answer(frame: bytes) -> bytes:
            pause()
            if chance(bad):
                raise TransportError("cut off", frame=frame)
            return edge.handle(frame, peer="me")

        transport: Transport = Threaded(answer) if random_.random() < 0.8 else InMemory(answer)
        with device_on(transport, pipeline, cut, connect_s=0.5) as device:
            outcomes: list[Outcome] = []
            stream = device.map(source(), window=window, keep=keep, deadline_s=deadline_s)  # type: ignore[arg-type]
            for outcome in stream:
                pause()
                outcomes.append(outcome)
                if outcome.index == stop_at:
                    break
            del stream
            indices = [outcome.index for outcome in outcomes]
            if keep == "all" or stop_at is not None:
                assert indices == sorted(set(indices))
            if keep == "all":
                assert indices == list(range(count if stop_at is None else stop_at + 1))
            elif stop_at not in indices:
                assert indices[-1] == count - 1
                assert device.counters.skipped == count - len(indices)
            for outcome in outcomes:
                x = outcome.index
                if x in drops:
                    assert outcome.dropped, outcome
                elif x in raises:
                    assert isinstance(outcome.error, StepError), outcome
                else:
                    assert outcome.unwrap() == 2 * x
            assert device._session.pending == 0
            assert not device._core.finishes
            assert streaming() == []
            outcome = device.run(77)
            assert outcome.unwrap() == 154


RUNS = 60 if FULL else 10


def test_many_small_runs_with_random_delays() -> None:
    for seed in range(RUNS):
        try:
            one_run(seed)
        except BaseException as error:
            error.add_note(f"with seed {seed}")
            raise
