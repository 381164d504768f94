"""Functions between a device and an edge: what they hold, remember and drop, wherever the cut is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from splitiot import wire
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import (
    CutError,
    Dropped,
    EdgeUnavailable,
    LocalProtocolError,
    RemoteError,
    StepError,
    TaskKilled,
    TransportError,
)
from splitiot.functions import Task, task, tasks
from splitiot.pipeline import DROP, Part, Pipeline, Tier
from splitiot.plan import Outcome
from splitiot.policies import Context, Decision, Policy
from splitiot.profiling import profile
from splitiot.runner import Runner
from splitiot.transports import InMemory
from tests import isolated
from tests.pipelines import SizedPipeline
from tests.session.support import add_one, double, minus_three, profile_of, read
from tests.share import FULL, examples


@frozen
class Told(Policy):
    """Cuts where the telemetry says."""

    def decide(self, context: Context) -> Decision:
        return Decision(context.at_cut(int(context.telemetry["cut"])), "told")


class Sides:
    """A device and an edge in one process; `here` says on which of them something runs."""

    def __init__(self, pipeline: Pipeline, service: EdgeService | None = None, name: str = "me", **more: Any) -> None:
        self.here = "device"
        self.results: list[Any] = []
        self.service = service or EdgeService([pipeline], on_result=lambda peer, value: self.results.append(value))
        self.carries = True
        self.name = name
        self.device = Device(
            pipeline,
            InMemory(lambda frame: self.answer(frame)),
            policy=Told(),
            profile=profile_of(pipeline),
            cache=False,
            **more,
        )

    def answer(self, frame: bytes) -> bytes:
        if not self.carries and isinstance(read(frame), wire.Request):
            raise TransportError("cut off", frame=frame)
        self.here = "edge"
        try:
            return self.service.handle(frame, peer=self.name)
        finally:
            self.here = "device"

    def run(self, value: Any, cut: int) -> Outcome:
        return self.device.run(value, telemetry={"cut": cut})

    def __enter__(self) -> Sides:
        return self

    def __exit__(self, *error: object) -> None:
        self.device.close()
        self.service.close()


class Held:
    """What a set-up gives: it counts, and notes when it is opened and closed."""

    def __init__(self, log: list[str], name: str = "held") -> None:
        self.log, self.name = log, name
        self.total = 0

    def __enter__(self) -> Held:
        self.log.append(f"open {self.name}")
        return self

    def __exit__(self, *error: object) -> None:
        self.log.append(f"close {self.name}")

    def add(self, x: int) -> int:
        self.total += x
        return self.total


def adding(held: Held, x: int) -> int:
    return held.add(x)


# what tasks hold


def test_a_resource_is_opened_once_on_each_side_wherever_the_cut_moves() -> None:
    log: list[str] = []
    sides: list[Sides] = []

    def make() -> Held:
        return Held(log, sides[0].here)

    pipeline = tasks([add_one, task(lambda held, x: x * 10, name="held", resource=make), minus_three])
    with Sides(pipeline) as both:
        sides.append(both)
        for cut in (3, 0, 1, 2, 3, 1, 0, 2):
            assert both.run(1, cut).unwrap() == 17
        assert log == ["open device", "open edge"]
        both.device.close()
        assert log[2:] == ["close device"]
        both.service.close()
        assert log[3:] == ["close edge"]


def test_a_runner_closes_what_tasks_hold() -> None:
    log: list[str] = []
    pipeline = tasks([add_one, task(adding, resource=lambda: Held(log))])
    with Runner(pipeline) as runner:
        assert [runner.run(0, 2, 1)[0], runner.run(1, 2, 1)[0], runner.run(0, 2, 1)[0]] == [2, 3, 5]
    assert log == ["open held", "close held"]


def test_nothing_is_opened_before_it_is_needed() -> None:
    log: list[str] = []
    behind = task(adding, name="behind", resource=lambda: Held(log, "behind"))
    pipeline = tasks([task(adding, resource=lambda: Held(log)), task(lambda x: DROP, name="drop"), behind])
    with Sides(pipeline) as both:
        assert log == []
        both.run(1, 3)
        assert log == ["open held"]


@pytest.mark.parametrize("tier", [None, "device", "edge"])
def test_a_set_up_that_raises_is_tried_again(tier: str | None) -> None:
    tries: list[int] = []

    def make() -> contextlib.AbstractContextManager[int]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("no camera")
        return contextlib.nullcontext(7)

    pipeline = tasks([add_one, task(lambda held, x: held + x, name="shoot", tier=tier, resource=make), double])
    cut = {"device": 2, "edge": 1, None: 3}[tier]
    with Sides(pipeline) as both:
        for _ in range(2):
            outcome = both.run(1, cut)
            assert isinstance(outcome.error, RemoteError if tier == "edge" else StepError)
            assert "no camera" in str(outcome.error)
            assert "in the set-up of task 'shoot'" in str(outcome.error)
        assert both.run(1, cut).unwrap() == 18
    assert len(tries) == 3


def test_what_is_no_context_manager_is_told() -> None:
    with Sides(tasks([task(lambda held, x: x, name="f", resource=lambda: 5)])) as both:  # type: ignore[return-value, arg-type]
        assert "in the set-up of task 'f'" in str(both.run(1, 1).error)


def test_tear_downs_come_in_reverse_and_are_logged_when_they_raise(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    class Broken(Held):
        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            raise OSError("stuck")

    # opened as one part, since all of it remembers
    pipeline = tasks(
        [
            task(adding, name="a", state="own", resource=lambda: Held(log, "a")),
            task(adding, name="b", state="own", resource=lambda: Broken(log, "b")),
            task(adding, name="c", state="own", resource=lambda: Held(log, "c")),
        ]
    )
    with caplog.at_level(logging.WARNING, "splitiot"), Runner(pipeline) as runner:
        runner.run(0, 3, 1)
        assert log == ["open a", "open b", "open c"]
    assert log[3:] == ["close c", "close b", "close a"]
    assert ["tear-down" in record.getMessage() for record in caplog.records] == [True]
    assert caplog.records[0].exc_info is not None


def test_what_was_set_up_before_one_that_raises_is_torn_down() -> None:
    log: list[str] = []

    def fail() -> Held:
        raise OSError("no camera")

    pipeline = tasks([task(adding, name="a", resource=lambda: Held(log, "a")), task(adding, name="b", resource=fail)])
    with pytest.raises(OSError, match="no camera"):
        pipeline.part(0, 2).open()
    assert log == ["open a", "close a"]


def test_a_reset_part_does_its_set_ups_anew() -> None:
    log: list[str] = []
    chain = tasks([task(adding, resource=lambda: Held(log))]) + tasks([add_one])
    executable = chain.part(0, 2).open()
    assert [executable(1), executable(1)] == [2, 3]
    executable.reset()
    assert executable(1) == 2
    executable.close()
    assert log == ["open held", "close held"] * 2


def test_async_resources_live_where_coroutines_run() -> None:
    loops: list[Any] = []

    @contextlib.asynccontextmanager
    async def connection() -> AsyncIterator[asyncio.Queue[int]]:
        loops.append(asyncio.get_running_loop())
        try:
            yield asyncio.Queue()
        finally:
            loops.append(asyncio.get_running_loop())

    async def through(queue: asyncio.Queue[int], x: int) -> int:
        loops.append(asyncio.get_running_loop())
        await queue.put(x)
        return await queue.get()

    with Sides(tasks([task(through, resource=connection), double])) as both:
        assert [both.run(value, 1).unwrap() for value in range(3)] == [0, 2, 4]
        assert len(loops) == 4
    assert len(loops) == 5, "closed with the device"
    assert len(set(map(id, loops))) == 1


def test_several_values_and_none_with_a_resource() -> None:
    def pair(held: int) -> Any:
        return held, 2

    def put_together(held: int, a: int, b: int) -> int:
        return held + a * b

    make = lambda: contextlib.nullcontext(10)  # noqa: E731  (lambdas are a case)
    pipeline = tasks([task(pair, resource=make), task(put_together, resource=make)])
    with Sides(pipeline) as both:
        assert [both.run(None, cut).unwrap() for cut in (0, 1, 2)] == [30, 30, 30]


def test_a_lack_of_memory_does_not_close_what_tasks_hold_or_remember() -> None:
    """A network that is larger than the bound is beside them in the runner."""
    log: list[str] = []
    network = SizedPipeline([8, 8])
    chain = (
        tasks([task(lambda held, x: np.full(8, held.add(x), np.uint8), name="shoot", resource=lambda: Held(log))])
        + network
        + tasks(
            [task(lambda held, r: held.add(1), name="count", state="own", tier="device", resource=lambda: Held(log))]
        )
    )
    with Runner(chain, max_bytes=0) as runner:
        assert [runner.run(0, 3, 1, "me")[0] for _ in range(4)] == [1, 2, 3, 4]
        assert log == ["open held"] * 2
    assert log[2:] == ["close held"] * 2


class Leaving(SizedPipeline):
    """Its middle step holds something; what it has already of the results stays where it was made."""

    exclusive_parts = MappingProxyType({(1, 2): False})

    def divide(self, cut: int, payload: Any) -> tuple[Any, Any]:
        return {name: value for name, value in payload.items() if name != "early"}, None

    def part(self, start: int, stop: int) -> Part:
        part = super().part(start, stop)
        opened: Callable[..., Any] = part.open

        def open_(runtime: Any = None) -> Any:
            executable = opened(runtime)

            class Strict(type(executable)):  # type: ignore[misc]
                def __call__(self, payload: Any) -> Any:
                    assert "early" not in payload
                    return {**super().__call__(payload), "early": 1}

            executable.__class__ = Strict
            return executable

        part.open = open_  # type: ignore[method-assign]
        return part


def test_pieces_hand_on_what_would_cross_between_them() -> None:
    pipeline = Leaving([3, 3, 3, 3])
    with Runner(pipeline) as runner:
        assert runner.run(0, 3, {"t0": np.zeros(3, np.uint8)})[0].keys() == {"t3", "early"}
        assert runner.opened == 3
        with pytest.raises(CutError, match="divides"):
            Runner(tasks([counting("edge", "a"), counting("edge", "b")])).run(0, 1, 1)


# what tasks remember


def counting(tier: str | None, name: str = "count", state: Any = "own") -> Task:
    return task(adding, name=name, tier=tier, state=state, resource=lambda: Held([]))


def test_devices_do_not_see_each_others_state() -> None:
    pipeline = tasks([add_one, counting("edge")])
    with EdgeService([pipeline]) as service:
        first, second = (Sides(pipeline, service, name) for name in "ab")
        assert [first.run(1, 1).unwrap() for _ in range(3)] == [2, 4, 6]
        assert [second.run(0, 0).unwrap() for _ in range(3)] == [1, 2, 3]
        assert first.run(1, 0).unwrap() == 8
        first.device.reset()
        assert first.run(1, 1).unwrap() == 2
        assert second.run(0, 1).unwrap() == 4
        first.device.close()
        second.device.close()


def test_the_cut_moves_while_pinned_tasks_keep_their_state() -> None:
    pipeline = tasks([counting("device", "here"), add_one, double, counting("edge", "there")])
    with Sides(pipeline) as both:
        here = there = 0
        for turn, cut in enumerate((1, 2, 3, 1, 3, 2)):
            if turn == 4:
                both.device.reset()
                here = there = 0
            here += turn
            there += (here + 1) * 2
            assert both.run(turn, cut).unwrap() == there


def test_state_without_a_pin_fixes_the_cut_until_a_reset() -> None:
    pipeline = tasks([add_one, counting(None), double])
    with Sides(pipeline) as both:
        assert [both.run(1, 1).unwrap() for _ in range(3)] == [4, 8, 12]
        with pytest.raises(CutError):
            both.run(1, 2)
        both.device.reset()
        assert [both.run(1, 2).unwrap() for _ in range(3)] == [4, 8, 12]


@pytest.mark.parametrize(("tier", "cut"), [("device", 2), ("edge", 1), (None, 3), (None, 2), (None, 1), (None, 0)])
def test_a_task_that_raises_keeps_its_resource_and_its_state(tier: str | None, cut: int) -> None:
    log: list[str] = []

    def picky(held: Held, x: int) -> int:
        if x < 0:
            raise ValueError("too small")
        return held.add(x)

    pipeline = tasks([add_one, task(picky, tier=tier, state="own", resource=lambda: Held(log)), double])
    with Sides(pipeline) as both:
        values = [1, -5, 2, -5, -5, 3]
        outcomes = [both.run(value, cut) for value in values]
        assert [outcome.value for outcome in outcomes] == [4, None, 10, None, None, 18]
        for outcome in outcomes:
            assert outcome.ok or "too small" in str(outcome.error)
            assert outcome.ok or "in task 'picky'" in str(outcome.error)
        assert log == ["open held"]


class Fragile(SizedPipeline):
    """A network that raises on 0, and is no good then."""

    def with_sink(self, sink: Any) -> Fragile:
        return Fragile(self.nbytes, sink=sink)

    def part(self, start: int, stop: int) -> Part:
        part = super().part(start, stop)
        opened: Callable[..., Any] = part.open

        def open_(runtime: Any = None) -> Any:
            executable = opened(runtime)

            class Wrapped:
                nbytes = executable.nbytes

                def __call__(self, payload: Any) -> Any:
                    if start < stop and not payload["t0"][0]:
                        raise OSError("broken")
                    return executable(payload)

                def reset(self) -> None:
                    pass

                def close(self) -> None:
                    pass

            return Wrapped()

        part.open = open_  # type: ignore[method-assign]
        return part


@pytest.mark.parametrize("tier", [None, "device"])
def test_a_task_that_raises_in_a_chain_keeps_what_it_holds(tier: str | None) -> None:
    """Also where one executable holds tasks and network, since all of it remembers."""
    log: list[str] = []

    def shoot(held: Held, x: int) -> Any:
        if x < 0:
            raise ValueError("too small")
        return np.full(4, held.add(x), np.uint8)

    chain = tasks([task(shoot, state="own", tier=tier, resource=lambda: Held(log))]) + Fragile([4, 4])
    chain += tasks([task(lambda r: int(r["t1"][0]), name="first")])
    with Sides(chain) as both:
        outcomes = [both.run(value, 3) for value in (1, -1, 2, -1)]
        assert [outcome.value for outcome in outcomes] == [2, None, 4, None]
        assert log == ["open held"]
        both.device.reset()
        assert "broken" in str(both.run(0, 3).error)
        after = both.run(5, 3)
        if tier is None:  # what the network remembers is in doubt
            assert type(after.error).__name__ == "StateLost"
        else:
            assert after.unwrap() == 6
            assert log == ["open held", "close held", "open held"]


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_task_that_raises_keeps_a_resource_that_remembers_nothing(cut: int) -> None:
    log: list[str] = []

    def picky(held: Held, x: int) -> int:
        if x < 0:
            raise ValueError("too small")
        return x

    pipeline = tasks([task(picky, resource=lambda: Held(log)), double])
    with Sides(pipeline) as both:
        assert [both.run(value, cut).value for value in (1, -1, -1, 2)] == [2, None, None, 4]
        # where the edge raised, the device tried, and holds one of its own
        assert log == ["open held"] * (2 if cut == 0 else 1)
    assert log.count("close held") == log.count("open held")


def test_a_wrong_result_keeps_the_state_too() -> None:
    def note(held: Held, x: int) -> int:
        total = held.add(x)
        return "odd" if total % 2 else total  # type: ignore[return-value]

    pipeline = tasks([task(note, tier="edge", state="own", resource=lambda: Held([]))])
    with Sides(pipeline) as both:
        assert [both.run(value, 0).value for value in (1, 1, 2, 1)] == [None, 2, 4, None]


@pytest.mark.parametrize("cut", range(4))
def test_a_wrong_result_is_the_same_error_at_every_cut(cut: int) -> None:
    def wrong(x: Any) -> int:
        return str(x)  # type: ignore[return-value]

    pipeline = tasks([add_one, task(wrong), double])
    with Sides(pipeline) as both:
        error = both.run(1, cut).error
    assert isinstance(error, StepError)
    assert str(error) == "task 'wrong' returned a str; its annotation says int"


@pytest.mark.parametrize("cut", range(3))
def test_what_can_not_cross_is_told_at_every_cut_and_the_next_frames_go_on(cut: int) -> None:
    pipeline = tasks([task(lambda x: {x} if x else x, name="maybe"), task(lambda x: x, name="same")])
    with Sides(pipeline) as both:
        error = both.run(1, cut).error
        assert isinstance(error, LocalProtocolError)
        assert "the result of task 'maybe': a set can't cross" in str(error)
        assert both.run(0, cut).unwrap() == 0


# what tasks drop


def odd(x: int) -> Any:
    return DROP if x % 2 else x


@pytest.mark.parametrize("sink", ["device", "edge"])
@pytest.mark.parametrize("cut", range(4))
def test_dropped_frames(cut: int, sink: Any) -> None:
    pipeline = tasks([add_one, task(odd), double], sink=sink)
    with Sides(pipeline) as both:
        outcomes = [both.run(value, cut) for value in range(6)]
        for value, outcome in enumerate(outcomes):
            assert outcome.dropped == (value % 2 == 0)
            assert outcome.ok == (value % 2 == 1)
            if outcome.dropped:
                assert isinstance(outcome.error, Dropped)
                assert (outcome.value, outcome.source, outcome.exact) == (None, "none", False)
                with pytest.raises(Dropped):
                    outcome.unwrap()
                assert outcome.plan is not None
                assert outcome.observation is not None
                assert outcome.observation.round_trip_s is None, "a tail that did not run to its end teaches nothing"
        values = [(value + 1) * 2 for value in range(6) if value % 2]
        assert [outcome.value for outcome in outcomes if outcome.ok] == (values if sink == "device" else [None] * 3)
        assert both.results == (values if sink == "edge" else [])
        assert both.device.counters.dropped == 3
        assert both.device.counters.requests == 6
        at_edge = 3 if cut < 2 else 0
        assert both.service.counters.dropped == at_edge
        assert both.service.counters.failures == 0
        assert both.device.edge_up, "that is no failure"


def test_what_is_dropped_in_a_chain_around_a_network() -> None:
    chain = (
        tasks([task(lambda x: DROP if x == 1 else np.full(4, x, np.uint8), name="fill")])
        + SizedPipeline([4, 6, 3])
        + tasks([task(lambda r: DROP if r["t2"][0] == 5 else int(r["t2"].sum()), name="sum")])
    )
    wanted = [chain.run(value) for value in range(4)]
    assert [value is DROP for value in wanted] == [False, True, True, False]
    for cut in chain.cuts:
        with Sides(chain) as both:
            outcomes = [both.run(value, cut) for value in range(4)]
        assert [DROP if outcome.dropped else outcome.unwrap() for outcome in outcomes] == wanted


@pytest.mark.parametrize("tier", [None, "device", "edge"])
@pytest.mark.parametrize("cut", range(5))
def test_a_drop_does_not_disturb_what_is_remembered(tier: str | None, cut: int) -> None:
    pipeline = tasks([add_one, task(odd), counting(tier), double])
    if cut not in pipeline.cuts:
        assert tier is not None
        return
    with Sides(pipeline) as both:
        outcomes = [both.run(value, cut) for value in range(8)]
        assert [o.value for o in outcomes] == [None, 4, None, 12, None, 24, None, 40]
        assert all(o.dropped for o in outcomes[::2])


def test_a_state_that_drops() -> None:
    def third(held: Held, x: int) -> Any:
        return x if held.add(1) % 3 == 0 else DROP

    for tier, cut in (("device", 1), ("edge", 0), (None, 0), (None, 1), (None, 2)):
        pipeline = tasks([task(third, tier=tier, state="own", resource=lambda: Held([])), double])
        with Sides(pipeline) as both:
            assert [both.run(value, cut).value for value in range(1, 7)] == [None, None, 6, None, None, 12]


@pytest.mark.parametrize("cut", [0, 1])
def test_a_fallback_that_drops(cut: int) -> None:
    with Sides(tasks([add_one, task(odd), double])) as both:
        assert both.run(1, cut).source == "edge"
        both.carries = False
        outcome = both.run(2, cut)
        assert outcome.dropped
        assert outcome.source == "fallback"
        assert (both.device.counters.dropped, both.device.counters.fallbacks) == (1, 1)


def test_a_sample_that_is_dropped_can_not_be_profiled() -> None:
    ran: list[int] = []

    def far(x: int) -> int:
        ran.append(x)
        return x

    pipeline = tasks([task(odd), far])
    with pytest.raises(Dropped, match="give one that passes"):
        profile(pipeline, 1, budget_s=0.01)
    service = EdgeService([pipeline])
    with Device(pipeline, InMemory(lambda f: service.handle(f, peer="a")), cache=False) as device:
        assert [device.run(1).dropped, device.run(3).dropped] == [True, True]
        assert (device.counters.dropped, device.counters.requests) == (2, 2)
        assert ran == []
        assert device.run(2).unwrap() == 2
        assert [outcome.dropped for outcome in device.map([1, 2, 3])] == [True, False, True]
    with Device(pipeline, InMemory(lambda f: service.handle(f, peer="a")), cache=False) as device:
        assert [outcome.dropped for outcome in device.map([1, 2, 3])] == [True, False, True]
    service.close()


# where tasks run


@pytest.mark.parametrize("carries", [True, False])
def test_pinned_steps_run_nowhere_else(carries: bool) -> None:
    """Whatever the cut, and when the edge can't be reached."""
    ran: list[tuple[str, str]] = []

    def noting(name: str, tier: str | None = None, **more: Any) -> Task:
        return task(lambda x: ran.append((name, both.here)) or x, name=name, tier=tier, **more)  # type: ignore[func-returns-value]

    pipeline = tasks([noting("sensor", "device"), noting("any"), noting("window", "edge"), noting("last")])
    for cut in pipeline.cuts:
        with Sides(pipeline) as both:
            both.carries = carries
            outcome = both.run(5, cut)
            if carries:
                assert outcome.unwrap() == 5
            else:
                assert isinstance(outcome.error, EdgeUnavailable)
                assert both.device.counters.fallbacks == 0
        assert ("sensor", "edge") not in ran
        assert ("window", "device") not in ran
        assert (("window", "edge") in ran) == carries
        ran.clear()


def test_a_late_edge_does_not_bring_pinned_steps_here() -> None:
    """No hedge either: the request ends in an error by its deadline."""
    ran: list[str] = []

    def window(x: int) -> int:
        ran.append(both.here)
        return x

    pipeline = tasks([add_one, task(window, tier="edge")])
    with Sides(pipeline) as both:
        both.device.connect()
        answer = both.answer
        both.answer = lambda frame: None if isinstance(read(frame), wire.Request) else answer(frame)  # type: ignore[method-assign]
        outcome = both.device.run(5, deadline_s=0.02, telemetry={"cut": 1})
    assert type(outcome.error).__name__ == "DeadlineExceeded"
    assert ran == []
    assert both.device.counters.hedges == 0


# tasks in processes of their own


@pytest.mark.parametrize(("tier", "cut", "streamed"), [("device", 2, True), ("edge", 1, False)])
def test_what_dies_or_hangs_in_a_process_of_its_own_ends_its_frame_alone(tier: str, cut: int, streamed: bool) -> None:
    pipeline = tasks([add_one, task(isolated.delicate, tier=tier, isolated=True, timeout_s=1.5), minus_three])
    values = [4, 0, 1, 2, 3, 5, 4]
    with Sides(pipeline, patience_s=60.0) as both:
        if streamed:
            outcomes = list(both.device.map(values, window=3, telemetry={"cut": cut}))
        else:
            outcomes = [both.run(value, cut) for value in values]
    assert [outcome.value for outcome in outcomes] == [7, None, None, None, None, 9, 7]
    died, hung, raised, dropped = outcomes[1:5]
    for outcome, words in ((died, "delicate"), (hung, "1.5"), (raised, "three")):
        assert isinstance(
            outcome.error, RemoteError if tier == "edge" else TaskKilled if outcome is not raised else StepError
        )
        assert words in str(outcome.error)
        assert "in task 'delicate'" in str(outcome.error) or tier == "device"
    assert dropped.dropped


def test_isolated_tasks_give_the_same_at_every_cut() -> None:
    pipeline = tasks([add_one, task(isolated.delicate, isolated=True), double])
    assert pipeline.exclusive_parts == {(1, 2): False}
    with Sides(pipeline) as both:
        for cut in (0, 3, 1, 2):
            assert both.run(6, cut).unwrap() == 28


# any chain at all


@frozen
class Op:
    """A small function: of what kind its input and its output are."""

    name: str
    takes: str
    gives: str
    arity: int
    function: Callable[..., Any] = field(eq=False)


OPS = [
    Op("add", "int", "int", 1, lambda x: x + 1),
    Op("split", "int", "pair", 1, lambda x: (x, x * 2)),
    Op("spread", "int", "array", 1, lambda x: np.arange(x % 5, dtype=np.int16)),
    Op("wrap", "int", "dict", 1, lambda x: {"a": x, "b": [x, None, (x,)], "c": np.float32(x)}),
    Op("lose", "int", "none", 1, lambda x: None),
    Op("thirds", "int", "int", 1, lambda x: DROP if x % 3 == 0 else x),
    Op("sum", "pair", "int", 2, lambda a, b: a + b),
    Op("turn", "pair", "pair", 2, lambda a, b: (b, a)),
    Op("keep", "pair", "pair", 1, lambda x: x),
    Op("filter", "pair", "pair", 2, lambda a, b: DROP if a > b else (a, b)),
    Op("make", "none", "int", 0, lambda: 7),
    Op("still", "none", "none", 1, lambda x: x),
    Op("total", "array", "int", 1, lambda x: int(x.sum())),
    Op("long", "array", "array", 1, lambda x: DROP if x.size == 2 else np.concatenate([x, x])),
    Op("open", "dict", "int", 1, lambda x: x["a"] + len(x["b"])),
    Op("pick", "dict", "array", 1, lambda x: np.full(3, x["c"])),
]


def composed(ops: Sequence[Op], value: Any) -> Any:
    for op in ops:
        value = op.function(*(() if op.arity == 0 else value if op.arity > 1 else (value,)))
        if value is DROP:
            return DROP
    return value


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def as_coroutine(function: Callable[..., Any], arity: int) -> Callable[..., Any]:
    async def none() -> Any:
        return function()

    async def one(x: Any) -> Any:
        await asyncio.sleep(0)
        return function(x)

    async def two(a: Any, b: Any) -> Any:
        return function(a, b)

    return (none, one, two)[arity]


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Op], Pipeline]:
    ops: list[Op] = []
    kind = "int"
    for _ in range(draw(st.integers(1, 6))):
        ops.append(draw(st.sampled_from([op for op in OPS if op.takes == kind])))
        kind = ops[-1].gives
    n = len(ops)
    first, last = draw(st.integers(0, n)), draw(st.integers(0, n))
    made = []
    for index, op in enumerate(ops):
        tier = Tier.DEVICE if index < first and draw(st.booleans()) else None
        tier = Tier.EDGE if index >= max(first, last) and draw(st.booleans()) else tier
        function = as_coroutine(op.function, op.arity) if draw(st.integers(0, 4)) == 0 else op.function
        made.append(task(function, name=f"{index}-{op.name}", tier=tier))
    sink = draw(st.sampled_from(["device", "edge"]))
    seams = sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=2))})
    pipeline: Pipeline | None = None
    for a, b in itertools.pairwise(seams):
        link = tasks(made[a:b], sink=sink)
        pipeline = link if pipeline is None else pipeline + link
    assert pipeline is not None
    return ops, pipeline


@settings(max_examples=examples(120 if FULL else 20))
@given(chains(), st.lists(st.integers(-9, 9), min_size=1, max_size=4))
def test_any_chain_gives_the_same_at_every_cut(chain: tuple[list[Op], Pipeline], values: list[int]) -> None:
    ops, pipeline = chain
    wanted = [composed(ops, value) for value in values]
    for value, result in zip(values, wanted, strict=True):
        assert same(pipeline.run(value), result)
    with Sides(pipeline) as both:
        for cut in pipeline.cuts:
            both.results.clear()
            outcomes = [both.run(value, cut) for value in values]
            for outcome, result in zip(outcomes, wanted, strict=True):
                assert outcome.plan is not None
                assert outcome.plan.cut == cut
                assert outcome.dropped == (result is DROP)
                assert outcome.dropped or outcome.ok, outcome.error
            passed = [result for result in wanted if result is not DROP]
            local = pipeline.sink == "device"
            got = [outcome.value for outcome in outcomes if outcome.ok] if local else both.results
            assert len(got) == len(passed)
            assert all(map(same, got, passed))


@define
class Reference:
    """Tasks that remember, one after another, as one would write them."""

    keeps: list[bool]
    totals: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.totals = [0] * len(self.keeps)

    def run(self, x: int) -> Any:
        for index, keeps in enumerate(self.keeps):
            if keeps:
                self.totals[index] += x
                x = self.totals[index]
            else:
                x += 1
            if x % 4 == 3:
                return DROP
        return x


def _memo(held: Held, x: int) -> Any:
    total = held.add(x)
    return DROP if total % 4 == 3 else total


def _plain(x: int) -> Any:
    return DROP if (x + 1) % 4 == 3 else x + 1


@st.composite
def remembering(draw: st.DrawFn) -> tuple[list[bool], Pipeline]:
    n = draw(st.integers(1, 5))
    keeps = [draw(st.booleans()) for _ in range(n)]
    pinned = draw(st.booleans())
    border = draw(st.integers(0, n))
    made = []
    for index, keep in enumerate(keeps):
        tier = None if not pinned else "device" if index < border else "edge"
        if keep:
            state: Any = draw(st.sampled_from(["own", "shared"]))
            made.append(task(_memo, name=f"t{index}", tier=tier, state=state, resource=lambda: Held([])))
        else:
            made.append(task(_plain, name=f"t{index}"))
    at = draw(st.integers(0, n))
    return keeps, tasks(made) if at in (0, n) else tasks(made[:at]) + tasks(made[at:])


@settings(max_examples=examples(150 if FULL else 25))
@given(remembering(), st.lists(st.tuples(st.sampled_from("aabR"), st.integers(-9, 9), st.integers(0, 99)), max_size=14))
def test_any_state_is_that_of_each_device_alone(
    chain: tuple[list[bool], Pipeline], script: list[tuple[str, int, int]]
) -> None:
    """Two devices over one edge, in any order, with resets; pinned state stays while the cut moves."""
    keeps, pipeline = chain
    if not pipeline.cuts:
        return
    with EdgeService([pipeline]) as service:
        sides = {name: Sides(pipeline, service, name) for name in "ab"}
        references = {name: Reference(keeps) for name in "ab"}
        fixed: dict[str, int] = {}
        for name, value, choice in script:
            if name == "R":
                sides["a"].device.reset()
                references["a"] = Reference(keeps)
                fixed.pop("a", None)
                continue
            cut = pipeline.cuts[choice % len(pipeline.cuts)]
            if pipeline.stateful:
                cut = fixed.setdefault(name, cut)
            outcome = sides[name].run(value, cut)
            wanted = references[name].run(value)
            assert (DROP if outcome.dropped else outcome.unwrap()) == wanted
        for side in sides.values():
            side.device.close()


def test_an_iterator_of_frames_is_no_frame() -> None:
    """A generator object that a plain function returns can't cross, and is told."""

    def numbers(x: int) -> Iterator[int]:
        return iter(range(x))

    assert tasks([task(numbers), task(sum, name="sum")]).cuts == (0, 2)
