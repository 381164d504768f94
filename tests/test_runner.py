"""The Runner: what it keeps, what it closes, and what threads may rely on. No interpreter needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from splitiot.errors import CutError, LocalProtocolError, NotCuttable, Overloaded
from splitiot.functions import task, tasks
from splitiot.pipeline import (
    UNTYPED,
    Boundary,
    Executable,
    Part,
    Payload,
    Pipeline,
    Runtime,
    RuntimeInfo,
    Sink,
    Step,
)
from splitiot.runner import Runner
from tests.pipelines import SizedPipeline

WAIT_S = 20.0


class Adder(Pipeline):
    """n steps, each adds 1. Counts and checks everything that is opened."""

    def __init__(self, n: int = 4, *, stateful: bool = False, nbytes: int = 10, illegal: Sequence[int] = ()) -> None:
        self.steps = tuple(Step(f"add{i}", "task") for i in range(n))
        self.digest, self.sink, self.stateful = "0" * 64, "device", stateful
        self.refused = dict.fromkeys(illegal, "not here")
        self.cuts = tuple(cut for cut in range(n + 1) if cut not in illegal)
        self.size = nbytes
        self.opened: list[Opened] = []
        self.inside: Callable[[Opened], None] = lambda executable: None
        self.lock = threading.Lock()

    def boundary(self, cut: int) -> Boundary:
        return UNTYPED

    returned = boundary

    def part(self, start: int, stop: int) -> Part:
        for cut in (self.check_cut(start), self.check_cut(stop)):
            if cut in self.refused and 0 < cut < self.n:
                raise NotCuttable(self.refused[cut])
        return AdderPart(self, start, stop)

    def bind(self, value: Any) -> Payload:
        return value

    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        return payload, None

    def join(self, kept: Payload, returned: Payload) -> Any:
        return returned

    def with_sink(self, sink: Sink) -> Pipeline:
        return self

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        return RuntimeInfo("python", "3", "default", "any")

    @property
    def open_now(self) -> list[Opened]:
        return [e for e in self.opened if not e.closed]


class AdderPart(Part):
    def __init__(self, pipeline: Adder, start: int, stop: int) -> None:
        self.pipeline, self.start, self.stop = pipeline, start, stop
        self.inputs = self.outputs = UNTYPED

    def open(self, runtime: Runtime | None = None) -> Executable:
        executable = Opened(self.pipeline, self.start, self.stop, runtime)
        with self.pipeline.lock:
            self.pipeline.opened.append(executable)
        return executable


class Opened:
    def __init__(self, pipeline: Adder, start: int, stop: int, runtime: Runtime | None) -> None:
        self.pipeline, self.start, self.stop, self.runtime = pipeline, start, stop, runtime
        self.nbytes = pipeline.size
        self.runs = 0
        self.closed = False
        self.busy = threading.Lock()

    def __call__(self, payload: Payload, /) -> Payload:
        assert self.busy.acquire(blocking=False), "two threads in one executable"
        try:
            assert not self.closed, "run after close"
            self.pipeline.inside(self)
            self.runs += 1
            extra = self.runs * 1000 if self.pipeline.stateful else 0
            return payload + self.stop - self.start + extra
        finally:
            self.busy.release()

    def reset(self) -> None:
        self.runs = 0

    def close(self) -> None:
        assert not self.closed, "closed twice"
        assert not self.busy.locked(), "closed at work"
        self.closed = True


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in threads; their results, or the first error."""
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


def ticks(step: float = 0.25) -> Callable[[], float]:
    def count() -> Iterator[float]:
        now = 100.0
        while True:
            yield now
            now += step

    return count().__next__


def test_opens_once_and_times_the_run() -> None:
    pipeline = Adder()
    runtime = Runtime(threads=2)
    with Runner(pipeline, runtime=runtime, clock=ticks()) as runner:
        assert [runner.run(0, 3, x) for x in (1, 2, 3)] == [(4, 0.25), (5, 0.25), (6, 0.25)]
        assert runner.run(3, 4, 0) == (1, 0.25)
        assert len(pipeline.opened) == runner.opened == 2
        assert runner.nbytes == 20
        assert all(e.runtime is runtime for e in pipeline.opened)
    assert pipeline.open_now == []
    assert runner.opened == runner.nbytes == 0


def test_the_owner_does_not_count_without_state() -> None:
    pipeline = Adder()
    with Runner(pipeline) as runner:
        for owner in ("a", "b", None):
            runner.run(0, 4, 0, owner)
        runner.reset("a")
        assert len(pipeline.opened) == 1


def test_least_recently_used_goes_first() -> None:
    pipeline = Adder(n=6, nbytes=10)
    with Runner(pipeline, max_bytes=30) as runner:
        for stop in (1, 2, 3, 1, 4):  # 2 was used longest ago when 4 comes
            runner.run(0, stop, 0)
        assert sorted(e.stop for e in pipeline.open_now) == [1, 3, 4]
        assert runner.nbytes == 30
        runner.run(0, 2, 0)
        assert sorted(e.stop for e in pipeline.open_now) == [1, 2, 4]


def test_one_that_is_larger_than_the_limit_is_kept_while_it_is_the_last() -> None:
    pipeline = Adder(nbytes=100)
    with Runner(pipeline, max_bytes=30) as runner:
        for _ in range(3):
            runner.run(0, 4, 0)
        assert len(pipeline.opened) == 1
        runner.run(0, 2, 0)
        assert [e.stop for e in pipeline.open_now] == [2]


def test_threads_get_executables_of_their_own_and_leave_them_for_others() -> None:
    pipeline = Adder()
    meeting = threading.Barrier(4, timeout=WAIT_S)
    pipeline.inside = lambda executable: None if meeting.broken else meeting.wait() and None
    with Runner(pipeline) as runner:
        assert in_threads(4, lambda i: runner.run(0, 4, i)[0]) == [4, 5, 6, 7]
        assert len(pipeline.opened) == 4, "all four were at work at once"
        pipeline.inside = lambda executable: None
        in_threads(4, lambda i: [runner.run(0, 4, i) for _ in range(200)])
        assert len(pipeline.opened) == 4, "never more than threads"


def test_of_one_part_the_executable_that_ran_last_stays() -> None:
    """Its memory is in the caches."""
    pipeline, second = Adder(nbytes=10), threading.Event()
    pipeline.inside = lambda executable: None if executable is not pipeline.opened[0] else _wait_for(second)
    with Runner(pipeline, max_bytes=10) as runner:
        first = threading.Thread(target=runner.run, args=(0, 4, 0))
        first.start()
        while not pipeline.opened or not pipeline.opened[0].busy.locked():
            pass
        runner.run(0, 4, 0)
        assert len(pipeline.open_now) == 2, "one is at work, the other ran last"
        second.set()
        first.join(WAIT_S)
        assert pipeline.open_now == [pipeline.opened[0]]


def _wait_for(event: threading.Event) -> None:
    assert event.wait(WAIT_S)


def test_nothing_at_work_is_evicted_or_closed() -> None:
    pipeline = Adder(nbytes=10)
    at_work, go_on = threading.Event(), threading.Event()

    def inside(executable: Opened) -> None:
        if executable.stop == 1:
            at_work.set()
            assert go_on.wait(WAIT_S)

    pipeline.inside = inside
    runner = Runner(pipeline, max_bytes=15)

    def work(index: int) -> Any:
        if index == 0:
            return runner.run(0, 1, 0)[0]
        assert at_work.wait(WAIT_S)
        runner.run(0, 2, 0)
        runner.run(0, 3, 0)
        first = next(e for e in pipeline.opened if e.stop == 1)
        assert not first.closed
        runner.close()
        assert not first.closed
        go_on.set()
        return None

    assert in_threads(2, work)[0] == 1
    assert pipeline.open_now == []
    assert runner.nbytes == 0


def test_a_run_that_fails_takes_its_executable_with_it() -> None:
    pipeline = Adder()
    with Runner(pipeline) as runner:
        runner.run(0, 4, 0)
        with pytest.raises(TypeError):
            runner.run(0, 4, "not a number")
        assert pipeline.open_now == []
        assert runner.run(0, 4, 0)[0] == 4

        def refuses(executable: Opened) -> None:
            raise LocalProtocolError("does not fit")

        pipeline.inside = refuses
        with pytest.raises(LocalProtocolError, match="does not fit"):
            runner.run(0, 4, 0)
        assert len(pipeline.open_now) == runner.opened == 1, "a payload that was refused has run nothing"


def test_parts_that_do_not_exist() -> None:
    with Runner(Adder(illegal=(2,))) as runner:
        with pytest.raises(NotCuttable, match="not here"):
            runner.run(0, 2, 0)
        with pytest.raises(CutError, match="cut 5"):
            runner.run(0, 5, 0)
        assert runner.opened == 0


def test_warm() -> None:
    pipeline = Adder()
    with Runner(pipeline) as runner:
        runner.warm(0, 3)
        runner.warm(0, 3)
        runner.run(0, 3, 0)
        assert len(pipeline.opened) == 1


def test_closed() -> None:
    for stateful in (False, True):
        pipeline = Adder(stateful=stateful)
        runner = Runner(pipeline)
        runner.run(0, 4, 0)
        runner.close()
        runner.close()
        assert pipeline.open_now == []
        with pytest.raises(LocalProtocolError, match="was closed"):
            runner.run(0, 4, 0)
        with pytest.raises(LocalProtocolError, match="was closed"):
            runner.warm(0, 4)
    with pytest.raises(ValueError, match="max_bytes"):
        Runner(pipeline, max_bytes=-1)


def test_state_belongs_to_its_owner() -> None:
    pipeline = Adder(stateful=True)
    with Runner(pipeline) as runner:
        answers = [(owner, runner.run(0, 4, 0, owner)[0]) for owner in "aabab"]
        assert answers == [("a", 1004), ("a", 2004), ("b", 1004), ("a", 3004), ("b", 2004)]
        runner.reset("a")
        runner.reset("nobody")
        assert runner.run(0, 4, 0, "a")[0] == 1004
        assert runner.run(0, 4, 0, "b")[0] == 3004
        assert len(pipeline.open_now) == 2


def test_with_state_the_cut_does_not_move_until_reset() -> None:
    pipeline = Adder(stateful=True)
    with Runner(pipeline) as runner:
        runner.run(0, 2, 0, "a")
        runner.run(2, 4, 0, "a")  # the other side of the same cut
        with pytest.raises(CutError, match=r"'a' has run \[0, 2\) .* asks for \[0, 3\): its cut can't move"):
            runner.run(0, 3, 0, "a")
        assert runner.run(0, 2, 0, "a")[0] == 2002, "a refused request changes nothing"
        runner.run(0, 3, 0, "b")
        runner.reset("a")
        assert runner.run(0, 3, 0, "a")[0] == 1003


def test_one_owners_requests_run_one_after_another_and_others_do_not_wait() -> None:
    pipeline = Adder(stateful=True)
    with Runner(pipeline) as runner:
        answers = in_threads(4, lambda i: [runner.run(0, 4, 0, "a")[0] for _ in range(50)])
        assert sorted(a for several in answers for a in several) == [k * 1000 + 4 for k in range(1, 201)]
        assert len(pipeline.opened) == 1
        meeting = threading.Barrier(2, timeout=WAIT_S)
        pipeline.inside = lambda executable: meeting.wait() and None
        in_threads(2, lambda i: runner.run(0, 4, 0, f"owner {i}"))


def test_a_lost_state_is_told_until_reset() -> None:
    pipeline = Adder(stateful=True, nbytes=10)
    with Runner(pipeline, max_bytes=20) as runner:
        for owner in "abac":
            runner.run(0, 4, 0, owner)
        for _ in range(2):
            with pytest.raises(Overloaded, match=r"the state of 'b' was evicted for lack of memory.*reset"):
                runner.run(0, 4, 0, "b")
        assert runner.run(0, 4, 0, "a")[0] == 3004
        runner.reset("b")
        assert runner.run(0, 4, 0, "b")[0] == 1004
        assert runner.nbytes == 20


def test_one_owner_never_evicts_itself() -> None:
    pipeline = Adder(stateful=True, nbytes=100)
    with Runner(pipeline, max_bytes=20) as runner:
        for k in (1, 2, 3):
            assert runner.run(0, 2, 0, "a")[0] == k * 1000 + 2
            assert runner.run(2, 4, 0, "a")[0] == k * 1000 + 2


def test_a_state_is_in_doubt_after_a_failed_run() -> None:
    pipeline = Adder(stateful=True)
    with Runner(pipeline) as runner:
        runner.run(0, 4, 0, "a")
        with pytest.raises(TypeError):
            runner.run(0, 4, "no number", "a")
        with pytest.raises(Overloaded, match="in doubt"):
            runner.run(0, 4, 0, "a")
        assert pipeline.open_now == []


def test_lost_states_are_not_remembered_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitiot.runner._states._MAX_LOST", 3)
    pipeline = Adder(stateful=True, nbytes=10)
    with Runner(pipeline, max_bytes=10) as runner:
        for owner in range(4):
            runner.run(0, 4, 0, owner)
        with pytest.raises(Overloaded, match="3 owners") as caught:
            runner.run(0, 4, 0, "new")
        assert caught.value.retry_after_s > 0
        assert runner.run(0, 4, 0, 3)[0] == 2004, "who has a state goes on"
        runner.reset(0)
        assert runner.run(0, 4, 0, "new")[0] == 1004


def test_reset_while_it_runs_waits_and_the_next_request_starts_anew() -> None:
    pipeline = Adder(stateful=True)
    at_work, go_on = threading.Event(), threading.Event()

    def inside(executable: Opened) -> None:
        at_work.set()
        assert go_on.wait(WAIT_S)

    runner = Runner(pipeline)
    pipeline.inside = inside

    def work(index: int) -> Any:
        if index == 0:
            return runner.run(0, 4, 0, "a")[0]
        assert at_work.wait(WAIT_S)
        if index == 1:
            runner.reset("a")  # comes back only when the run has ended
            assert pipeline.opened[0].closed
            return None
        go_on.set()
        return None

    assert in_threads(3, work)[0] == 1004
    pipeline.inside = lambda executable: None
    assert runner.run(0, 4, 0, "a")[0] == 1004
    runner.close()


def test_many_threads_parts_and_too_little_memory() -> None:
    for stateful in (False, True):
        pipeline = Adder(n=6, stateful=stateful, nbytes=10)
        with Runner(pipeline, max_bytes=40) as runner:

            def work(index: int, runner: Runner = runner, stateful: bool = stateful) -> None:
                random = np.random.default_rng(index)
                for _ in range(300):
                    stop = 6 if stateful else int(random.integers(1, 7))
                    owner = int(random.integers(0, 8))
                    try:
                        answer, _ = runner.run(0, stop, 0, owner)
                        assert answer % 1000 == stop
                    except Overloaded:
                        runner.reset(owner)

            in_threads(6, work)
            assert runner.nbytes == 10 * len(pipeline.open_now) == 10 * runner.opened <= 40
        assert pipeline.open_now == []


def test_steps_that_run_one_by_one_are_timed_singly() -> None:
    now = [0.0]

    def takes(seconds: float) -> Any:
        def step(x: int) -> int:
            now[0] += seconds
            return x + 1

        return step

    pipeline = tasks([task(takes(s), name=f"{s}") for s in (0.1, 0.2, 0.4)])
    with Runner(pipeline, clock=lambda: now[0]) as runner:
        result, seconds, steps = runner.run_timed(0, 3, 0)
        assert result == 3
        assert seconds == pytest.approx(0.7)
        assert steps == pytest.approx((0.1, 0.2, 0.4))
        assert runner.run_timed(1, 2, 0)[2] == pytest.approx((0.2,))
        assert runner.run_timed(2, 2, 5)[2] == ()
        assert runner.run(1, 3, 0) == (2, pytest.approx(0.6))
    other = SizedPipeline([4, 4, 4])  # as a network: one piece, whatever it holds
    with Runner(other) as runner:
        assert runner.run_timed(0, 2, other.bind(other.sample()))[2] == ()
