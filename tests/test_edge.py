"""EdgeService: bytes in, bytes out, from threads and from event loops."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from splitiot import wire
from splitiot.edge import EdgeService
from splitiot.errors import LocalProtocolError
from splitiot.functions import TaskPipeline, task, tasks
from splitiot.limits import Limits
from splitiot.models import load_model
from splitiot.observation import Observation
from splitiot.policies import Best
from splitiot.session import ForgetState
from tests import networks
from tests.session.support import (
    Clock,
    Remembering,
    boot_of,
    double,
    numbers,
    profile_of,
    read,
    request_of,
    sums,
)
from tests.session.test_edge_session import garbage, hello_of
from tests.waiting import eventually

WAIT_S = 20.0
PIPELINE = numbers()


def value_of(frame: bytes) -> Any:
    message, buffers = wire.decode(frame)
    assert isinstance(message, wire.Reply), message
    return wire.unpack(message, buffers)


def halve(x: Any) -> Any:
    return x


class Gate:
    """A step that waits until it may go on, and counts."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.calls = 0
        self.threads: list[str] = []

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.open.wait(WAIT_S)
        return x + 1

    def pipeline(self) -> TaskPipeline:
        return tasks([task(self, name="gate")])


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(function()), daemon=True)
    thread.start()
    return thread, got


def test_several_pipelines_on_one_service() -> None:
    other = tasks([double])
    with EdgeService([PIPELINE, other]) as service:
        assert service.pipelines == (PIPELINE, other)
        assert value_of(service.handle(request_of(PIPELINE, 1, 21), peer="a")) == 39
        assert value_of(service.handle(request_of(other, 0, 21, sequence=2), peer="a")) == 42
        assert read(service.handle(request_of(tasks([abs]), 0, 1, sequence=3), peer="a")).code == "unknown-pipeline"
        with pytest.raises(LocalProtocolError, match="say which"):
            service.measure(1)
        assert service.measure(1, other, budget_s=0.01).digest == other.digest
        answer = read(service.handle(hello_of(other), peer="a"))
        assert answer.profiles == ()
        wanted = wire.Hello(boot=boot_of(1), sequence=1, want_profiles=(bytes.fromhex(other.digest),))
        assert len(read(service.handle(wire.encode(wanted), peer="a")).profiles) == 1


def test_bytes_that_are_no_frame_get_an_answer() -> None:
    service = EdgeService([PIPELINE])
    for noise in (b"", b"GET / HTTP/1.0\r\n\r\n", bytes(100)):
        assert read(service.handle(noise, peer="a")).code == "bad-frame"


def test_a_task_that_raises_ends_its_request_only() -> None:
    def broken(x: Any) -> Any:
        if x < 0:
            raise ValueError(f"no square root of {x}")
        return math.sqrt(x)

    service = EdgeService([tasks([broken])])
    (pipeline,) = service.pipelines
    answer = read(service.handle(request_of(pipeline, 0, -4), peer="a"))
    assert (answer.code, answer.message) == ("failed", "ValueError: no square root of -4; in task 'broken'")
    assert value_of(service.handle(request_of(pipeline, 0, 4, sequence=2), peer="a")) == 2.0


def test_a_result_that_can_not_cross_is_told() -> None:
    for wrong in ({1, 2}, "\ud800", "x" * 2**21):
        pipeline = tasks([task(lambda x, wrong=wrong: wrong, name="wrong")])
        answer = read(EdgeService([pipeline]).handle(request_of(pipeline, 0, 1), peer="a"))
        assert answer.code == "failed"


def test_an_interrupted_run_is_told_to_all_who_wait() -> None:
    gate = Gate()

    def interrupted(x: Any) -> Any:
        gate(x)
        raise KeyboardInterrupt

    pipeline = tasks([interrupted])
    service = EdgeService([pipeline])
    frame = request_of(pipeline, 0, 1)

    def first() -> Any:
        try:
            service.handle(frame, peer="a")
        except KeyboardInterrupt:
            return "interrupted"

    one, got_one = in_thread(first)
    assert gate.entered.wait(WAIT_S)
    two, got_two = in_thread(lambda: read(service.handle(frame, peer="a")))
    eventually(lambda: service.counters.duplicates == 1)
    gate.open.set()
    one.join(WAIT_S)
    two.join(WAIT_S)
    assert got_one == ["interrupted"]
    assert got_two[0].code == "failed"
    assert "interrupted" in got_two[0].message
    assert service._session.in_flight == 0


def test_a_duplicate_in_flight_is_run_once_and_answered_twice() -> None:
    gate = Gate()
    service = EdgeService([gate.pipeline()])
    frame = request_of(gate.pipeline(), 0, 1)
    waiting = [in_thread(lambda: service.handle(frame, peer="a")) for _ in range(5)]
    assert gate.entered.wait(WAIT_S)
    eventually(lambda: service.counters.duplicates == 4)
    gate.open.set()
    for thread, _ in waiting:
        thread.join(WAIT_S)
    answers = [got[0] for _, got in waiting]
    assert len(set(answers)) == 1
    assert value_of(answers[0]) == 2
    assert service.handle(frame, peer="a") == answers[0]
    assert gate.calls == 1


def test_many_threads_at_once() -> None:
    service = EdgeService([PIPELINE], limits=Limits(max_in_flight=64))
    frames = [(f"device{k % 7}", k, request_of(PIPELINE, 1, k, sequence=k)) for k in range(300)]
    start = threading.Barrier(8)

    def work(part: int) -> list[tuple[int, Any]]:
        start.wait(WAIT_S)
        # each frame is sent by two threads
        mine = [f for f in frames if f[1] % 4 == part % 4]
        return [(k, value_of(service.handle(frame, peer=peer))) for peer, k, frame in mine]

    with ThreadPoolExecutor(8) as pool:
        found = [pair for got in pool.map(work, range(8)) for pair in got]
    assert len(found) == 600
    assert all(value == k * 2 - 3 for k, value in found)
    assert service.counters.requests == 600
    assert service.counters.duplicates == 300
    assert service._session.in_flight == 0


def test_busy_in_threads() -> None:
    gate = Gate()
    service = EdgeService([gate.pipeline()], limits=Limits(max_in_flight=1))
    thread, got = in_thread(lambda: service.handle(request_of(gate.pipeline(), 0, 1), peer="a"))
    assert gate.entered.wait(WAIT_S)
    busy = read(service.handle(request_of(gate.pipeline(), 0, 1, sequence=2), peer="b"))
    assert isinstance(busy, wire.Busy)
    gate.open.set()
    thread.join(WAIT_S)
    assert value_of(got[0]) == 2
    assert gate.calls == 1
    assert value_of(service.handle(request_of(gate.pipeline(), 0, 1, sequence=2), peer="b")) == 2


def test_a_deadline_that_passed_in_the_queue_is_not_run() -> None:
    clock, calls = Clock(), []
    pipeline = tasks([task(lambda x: calls.append(x), name="note")])
    service = EdgeService([pipeline], clock=clock)
    frame = request_of(pipeline, 0, 1, deadline_s=0.5)
    answer = read(service.handle(frame, peer="a", received_s=clock() - 0.6))
    assert answer.code == "late"
    assert answer.times.residence_s == pytest.approx(0.6)
    assert answer.times.queue_s == pytest.approx(0.6)
    assert calls == []
    frame = request_of(pipeline, 0, 1, deadline_s=0.5, sequence=2)
    assert isinstance(read(service.handle(frame, peer="a", received_s=clock() - 0.4)), wire.Reply)
    assert calls == [1]


def test_times_are_told() -> None:
    clock = Clock()

    def slow(x: Any) -> Any:
        clock.now_s += 0.25
        return x

    pipeline = tasks([slow])
    service = EdgeService([pipeline], clock=clock)
    times = read(service.handle(request_of(pipeline, 0, 1), peer="a", received_s=clock() - 0.5)).times
    assert times.compute_s == pytest.approx(0.25)
    assert times.queue_s == pytest.approx(0.5)
    assert times.residence_s == pytest.approx(0.75)


def test_results_for_the_edge_stay_there() -> None:
    got: list[tuple[str, Any]] = []
    pipeline = numbers(sink="edge")
    service = EdgeService([pipeline], on_result=lambda peer, value: got.append((peer, value)))
    for cut, given in ((0, 20), (1, 21), (3, 39)):
        assert value_of(service.handle(request_of(pipeline, cut, given, sequence=cut), peer="a")) is None
    assert got == [("a", 39)] * 3
    service.handle(request_of(pipeline, 3, 39, sequence=3), peer="a")
    assert len(got) == 3  # a duplicate is not delivered again
    back = request_of(PIPELINE, 1, 21, sequence=9)
    assert value_of(service.handle(back, peer="a")) == 39
    assert len(got) == 3


def test_a_result_is_given_once_whatever_others_send_meanwhile() -> None:
    pipeline = PIPELINE.with_sink("edge")
    given: list[Any] = []
    service = EdgeService([pipeline], on_result=lambda peer, value: given.append((peer, value)))
    frame = request_of(pipeline, 1, 21)
    first = service.handle(frame, peer="b")
    for k in range(1500):
        service.handle(request_of(PIPELINE, 1, k, sequence=k), peer="a")
    assert service.handle(frame, peer="b") == first, "sent again, since the answer got lost"
    assert given == [("b", 39)]


def test_on_result_that_raises_is_a_failure() -> None:
    def broken(peer: str, value: Any) -> None:
        raise OSError("disk full")

    pipeline = numbers(sink="edge")
    service = EdgeService([pipeline], on_result=broken)
    answer = read(service.handle(request_of(pipeline, 1, 21), peer="a"))
    assert answer.code == "failed"
    assert "disk full" in answer.message


@pytest.mark.extra("litert")
def test_early_outputs_cross_where_results_are_wanted_on_the_edge() -> None:
    got: list[Any] = []
    model = load_model(networks.early_output())
    image = np.random.default_rng(1).standard_normal(model.inputs[0].shape).astype(np.float32)
    whole = model.run(image)
    turned = model.with_sink("edge")
    with EdgeService([model], on_result=lambda peer, value: got.append(value)) as service:
        for cut in turned.cuts:
            if cut < model.n:  # the same tail for a device that wants its results back
                sent, kept = model.divide(cut, model.part(0, cut).run(model.bind(image)) if cut else model.bind(image))
                back = value_of(service.handle(request_of(model, cut, sent, sequence=100 + cut), peer="a"))
                joined = model.join(kept, back)
                assert all(np.array_equal(joined[name], whole[name]) for name in whole)
            payload = turned.part(0, cut).run(turned.bind(image)) if cut else turned.bind(image)
            sent, _ = turned.divide(cut, payload)
            assert value_of(service.handle(request_of(turned, cut, sent, sequence=cut), peer="a")) is None
    assert len(got) == len(turned.cuts)
    for value in got:
        assert value.keys() == whole.keys()
        assert all(np.array_equal(value[name], whole[name]) for name in whole)


# the planner on the edge


def test_each_device_has_a_plan_of_its_own() -> None:
    profile = profile_of(PIPELINE, 0.001)
    with EdgeService([PIPELINE], profiles=[profile], policy=Best()) as service:

        def following(peer: str, sequence: int, **more: Any) -> Any:
            return read(service.handle(request_of(PIPELINE, 1, 21, sequence=sequence, **more), peer=peer)).next

        for peer, step_s in (("slow", 0.5), ("fast", 1e-6), ("bad", 0.5)):
            service.handle(hello_of(PIPELINE, told=profile_of(PIPELINE, step_s)), peer=peer)
        assert following("slow", 1).cuts == (0,)
        assert following("fast", 1).cuts == (3,)
        for k in range(10):
            service.handle(
                request_of(PIPELINE, 1, 21, sequence=k, observations=tuple(garbage()), telemetry={"x": math.inf}),
                peer="bad",
            )
            service.handle(bytes(k), peer="bad")
            service.handle(hello_of(PIPELINE, boot=boot_of(k), told={"digest": PIPELINE.digest}), peer="bad")
        assert following("slow", 2).cuts == (0,)
        assert following("fast", 2).cuts == (3,)
        away = tuple(
            Observation(plan_id=0, cut=0, probe=True, round_trip_s=60.0, sent_bytes=10**3 + k) for k in range(3)
        )
        assert following("slow", 3, observations=away).cuts == (3,)
        assert following("slow", 4, boot=boot_of(12)) is None  # started anew: not known yet


# stateful pipelines


def test_stateful_requests_of_several_devices_do_not_mix() -> None:
    pipeline = Remembering()
    service = EdgeService([pipeline])
    for number in range(1, 5):
        for peer, scale in (("a", 1), ("b", 10)):
            frame = request_of(pipeline, 0, scale * number, sequence=number, order=number - 1)
            expected = sums([scale * k for k in range(1, number + 1)])[-1]
            assert value_of(service.handle(frame, peer=peer)) == expected
            assert value_of(service.handle(frame, peer=peer)) == expected  # a duplicate adds nothing
    again = request_of(pipeline, 1, 5, sequence=9, order=0, epoch=1)  # and another cut
    assert value_of(service.handle(again, peer="a")) == 5
    assert (
        value_of(service.handle(request_of(pipeline, 0, 50, sequence=9, order=4), peer="b"))
        == sums([10, 20, 30, 40, 50])[-1]
    )


def test_the_cut_of_a_stateful_pipeline_can_not_move() -> None:
    pipeline = Remembering()
    service = EdgeService([pipeline])
    service.handle(request_of(pipeline, 0, 1, sequence=1, order=0), peer="a")
    moved = read(service.handle(request_of(pipeline, 1, 1, sequence=2, order=1), peer="a"))
    assert moved.code == "failed"
    assert "reset()" in moved.message
    following = read(service.handle(request_of(pipeline, 0, 1, sequence=3, order=2), peer="a"))
    assert following.code == "state-lost"


def test_a_late_stateful_request_makes_the_next_ones_fail() -> None:
    """Its input is missing in the state: going on would give wrong values."""
    clock = Clock()
    pipeline = Remembering()
    service = EdgeService([pipeline], clock=clock)
    assert value_of(service.handle(request_of(pipeline, 0, 1, sequence=1, order=0), peer="a")) == 1
    late = request_of(pipeline, 0, 2, sequence=2, order=1, deadline_s=0.1)
    assert read(service.handle(late, peer="a", received_s=clock() - 1)).code == "late"
    assert read(service.handle(request_of(pipeline, 0, 3, sequence=3, order=2), peer="a")).code == "state-lost"


def test_a_restarted_edge_has_no_state() -> None:
    pipeline = Remembering()
    frame = request_of(pipeline, 0, 3, sequence=3, order=2)
    assert read(EdgeService([pipeline]).handle(frame, peer="a")).code == "state-lost"


def test_the_state_of_devices_that_are_gone_is_freed() -> None:
    pipeline, clock = Remembering(), Clock()
    service = EdgeService([pipeline], limits=Limits(ttl_s=15.0), clock=clock)
    for boot in map(boot_of, range(200)):
        clock.now_s += 1.0
        assert value_of(service.handle(request_of(pipeline, 0, 1, boot=boot, order=0), peer="a")) == 1
    (runner,) = service._runners.values()
    assert runner.opened < 20
    assert len(runner._owners) < 20


def test_what_is_forgotten_late_takes_nothing_from_who_is_back() -> None:
    """A thread is told to drop the state of a device that was silent, and comes to it when the device has a new one."""
    late: list[ForgetState] = []

    class Slow(EdgeService):
        def _forget(self, effect: ForgetState) -> None:
            late.append(effect)

    pipeline, clock = Remembering(), Clock()
    with Slow([pipeline], limits=Limits(ttl_s=15.0), clock=clock) as service:
        for k in range(3):
            frame = request_of(pipeline, 0, 5, sequence=k, order=k)
            assert value_of(service.handle(frame, peer="a")) == sums([5] * (k + 1))[-1]
        clock.now_s += 20.0
        again = [request_of(pipeline, 0, 1, sequence=k + 10, order=k) for k in range(2)]
        assert value_of(service.handle(again[0], peer="a")) == 1
        (effect,) = late
        EdgeService._forget(service, effect)
        assert value_of(service.handle(again[1], peer="a")) == sums([1, 1])[-1]
        (runner,) = service._runners.values()
        assert runner.opened == 1, "the old state was dropped"


@pytest.mark.parametrize("asked", ["handle", "handle_async"])
def test_payloads_are_read_without_the_lock(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """The arrays of a frame may take 64 MiB: every device would wait while one thread copies them."""
    held: list[bool] = []
    unpack = wire.unpack

    def spy(*words: Any, **more: Any) -> Any:
        held.append(service._lock.locked())
        return unpack(*words, **more)

    monkeypatch.setattr(wire, "unpack", spy)
    pipeline = tasks([double])
    with EdgeService([pipeline]) as service:
        frame = request_of(pipeline, 0, np.ones(100_000))
        answer = service.handle(frame, peer="a") if asked == "handle" else handled(service, frame)[0]
    assert value_of(answer).sum() == 200_000
    assert held[0] is False


# event loops


def handled(service: EdgeService, *frames: bytes) -> list[bytes]:
    async def main() -> list[bytes]:
        return await asyncio.gather(*(service.handle_async(frame, peer="a") for frame in frames))

    return asyncio.run(main())


def test_a_function_that_was_quick_does_not_stop_the_others_once_it_is_not() -> None:
    """Forty quick requests, then one that takes long: nobody can know that before."""
    gate = Gate()
    gate.open.set()
    pipeline = gate.pipeline()

    async def main(service: EdgeService) -> None:
        for k in range(40):
            assert value_of(await service.handle_async(request_of(pipeline, 0, k, sequence=k), peer="a")) == k + 1
        gate.open.clear()
        gate.entered.clear()
        slow = asyncio.ensure_future(service.handle_async(request_of(pipeline, 0, 1, sequence=99), peer="a"))
        while not gate.entered.is_set():
            await asyncio.sleep(0)
        probe = await service.handle_async(wire.encode(wire.Probe(boot=boot_of(1), sequence=1)), peer="b")
        assert isinstance(read(probe), wire.Echo)
        assert not slow.done()
        gate.open.set()
        assert value_of(await slow) == 2

    with EdgeService([pipeline], inline_s=10.0) as service:
        asyncio.run(main(service))
    assert all(name.startswith("splitiot-edge") for name in gate.threads)


class Counting(EdgeService):
    """Counts what it runs in threads."""

    def __init__(self, *pipelines: Any, **more: Any) -> None:
        super().__init__(pipelines, **more)
        self.submitted = 0

    def _submit(self, *words: Any) -> None:
        self.submitted += 1
        super()._submit(*words)

    def takes(self, sequence: int) -> bool:
        """Whether a request is run in a thread."""
        before = self.submitted
        (pipeline,) = self.pipelines
        payload = pipeline.bind(pipeline.random_input())
        (answer,) = handled(self, request_of(pipeline, 0, payload, sequence=sequence))
        assert isinstance(read(answer), wire.Reply)
        return self.submitted > before


@pytest.mark.extra("litert")
def test_a_network_that_was_always_quick_of_late_runs_in_the_loop() -> None:
    clock = Clock()
    with Counting(load_model(networks.chain()), clock=clock, inline_s=0.002) as service:
        assert [service.takes(k) for k in range(4)] == [True, False, False, False]  # not known, then quick
        (key,) = service._slowest_s
        service._slowest_s[key] = 0.004  # one was slow: that counts for a while
        assert [service.takes(k) for k in range(10, 16)] == [True, True, True, True, False, False]
        (runner,) = service._runners.values()
        runner._pool._idle[0, runner.pipeline.n].clear()  # at work, or closed: to open one may take long
        assert [service.takes(k) for k in range(20, 22)] == [True, False]


@pytest.mark.extra("litert")
def test_what_can_surprise_runs_in_threads() -> None:
    clock = Clock()
    model = load_model(networks.chain())
    assert model.is_even_from(0)
    results: list[Any] = []
    with Counting(
        load_model(networks.chain(), sink="edge"), clock=clock, on_result=lambda peer, value: results.append(value)
    ) as service:
        assert all(service.takes(k) for k in range(3))  # what is done with the result is somebody else's code
    assert len(results) == 3
    behind, before = model + tasks([halve]), tasks([halve]) + model
    assert not behind.is_even_from(0)
    assert not before.is_even_from(0)
    assert before.is_even_from(1)


def test_a_tear_down_does_not_stop_the_loop() -> None:
    """A device was silent for long, and another one's request finds that out: what the task held is closed."""
    entered, gate, clock = threading.Event(), threading.Event(), Clock()

    @contextlib.contextmanager
    def camera() -> Iterator[list[int]]:
        yield [0]
        entered.set()
        assert gate.wait(WAIT_S)

    def count(held: list[int], x: int) -> int:
        held[0] += x
        return held[0]

    pipeline = tasks([task(count, state="own", resource=camera, tier="edge")])

    async def main(service: EdgeService) -> None:
        assert value_of(await service.handle_async(request_of(pipeline, 0, 1), peer="a")) == 1
        clock.now_s += 20.0
        other = asyncio.ensure_future(service.handle_async(request_of(pipeline, 0, 5), peer="b"))
        while not entered.is_set():
            await asyncio.sleep(0)
        probe = await service.handle_async(wire.encode(wire.Probe(boot=boot_of(1), sequence=1)), peer="c")
        assert isinstance(read(probe), wire.Echo)
        assert value_of(await other) == 5  # the other thread's
        gate.set()

    with EdgeService([pipeline], limits=Limits(ttl_s=15.0), clock=clock) as service:
        asyncio.run(main(service))


def test_the_loop_goes_on_while_a_thread_computes() -> None:
    gate = Gate()

    async def main(service: EdgeService) -> None:
        run = asyncio.ensure_future(service.handle_async(request_of(gate.pipeline(), 0, 1), peer="a"))
        second = asyncio.ensure_future(service.handle_async(request_of(gate.pipeline(), 0, 1), peer="a"))
        while not gate.entered.is_set():
            await asyncio.sleep(0)
        probe = await service.handle_async(wire.encode(wire.Probe(boot=boot_of(1), sequence=1)), peer="b")
        assert isinstance(read(probe), wire.Echo)
        assert not run.done()
        gate.open.set()
        assert value_of(await run) == 2
        assert await second == await run

    with EdgeService([gate.pipeline()]) as service:
        asyncio.run(main(service))
        assert service.counters.duplicates == 1
    assert gate.calls == 1
    assert gate.threads[0].startswith("splitiot-edge")


def test_a_device_does_not_wait_behind_another_ones_queue() -> None:
    gate, order = Gate(), []

    def noted(x: int) -> int:
        order.append(x)
        return gate(x)

    pipeline = tasks([noted])

    async def main(service: EdgeService) -> None:
        asked = [
            asyncio.ensure_future(service.handle_async(request_of(pipeline, 0, k, sequence=k), peer=peer))
            for k, peer in enumerate("aaaaaab")
        ]
        while not gate.entered.is_set():
            await asyncio.sleep(0)
        gate.open.set()
        assert [value_of(answer) for answer in await asyncio.gather(*asked)] == list(range(1, 8))

    with EdgeService([pipeline], workers=1) as service:
        asyncio.run(main(service))
    assert order.index(6) <= 2, order


def test_a_cancelled_caller_takes_nothing_from_those_who_wait() -> None:
    """As when a framework ends a request at its own time limit."""
    gate = Gate()
    frame = request_of(gate.pipeline(), 0, 1, sequence=2)

    async def main(service: EdgeService) -> None:
        first = asyncio.ensure_future(service.handle_async(request_of(gate.pipeline(), 0, 1), peer="a"))
        while not gate.entered.is_set():  # the one thread is taken: what follows is queued
            await asyncio.sleep(0)
        queued = asyncio.ensure_future(service.handle_async(frame, peer="a"))
        await asyncio.sleep(0)
        duplicate = asyncio.ensure_future(service.handle_async(frame, peer="a"))
        await asyncio.sleep(0)
        queued.cancel()
        await asyncio.gather(queued, return_exceptions=True)
        gate.open.set()
        assert value_of(await asyncio.wait_for(duplicate, WAIT_S)) == 2
        assert value_of(await first) == 2

    with EdgeService([gate.pipeline()], workers=1) as service:
        asyncio.run(main(service))
        assert service._session.in_flight == 0
    assert gate.calls == 2


def test_a_loop_that_ended_takes_nothing_from_a_thread_that_waits() -> None:
    gate = Gate()
    frame = request_of(gate.pipeline(), 0, 1)
    service = EdgeService([gate.pipeline()])

    async def main() -> None:
        run = asyncio.ensure_future(service.handle_async(frame, peer="a"))
        while not gate.entered.is_set():
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    asyncio.run(main())
    thread, got = in_thread(lambda: service.handle(frame, peer="a"))
    eventually(lambda: service.counters.duplicates == 1)
    gate.open.set()
    thread.join(WAIT_S)
    assert value_of(got[0]) == 2
    service.close()


def test_closed_services_say_so() -> None:
    service, unused = EdgeService([PIPELINE]), EdgeService([PIPELINE])
    assert value_of(service.handle(request_of(PIPELINE, 1, 21), peer="a")) == 39
    for each in (service, service, unused):
        each.close()
    for answer in (
        service.handle(request_of(PIPELINE, 1, 21, sequence=2), peer="a"),
        *handled(service, request_of(PIPELINE, 1, 21, sequence=3)),
        unused.handle(request_of(PIPELINE, 1, 21), peer="a"),
    ):
        failure = read(answer)
        assert failure.code == "failed"
        assert "closed" in failure.message
    assert service._session.in_flight == 0
