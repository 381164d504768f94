"""One thread at a time in a function: its own buffer must not give one request's value to another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import splitiot as si
from splitiot.functions._turns import turns_of
from splitiot.runner import Runner

SCRATCH = np.zeros(4)


def paused(x: int) -> Any:
    """Use one buffer for all, and be slow between writing and reading it."""
    SCRATCH[:] = x
    threading.Event().wait(0.001)
    return SCRATCH


def fill(x: int) -> Any:
    SCRATCH[:] = x
    return SCRATCH


def total(array: Any) -> float:
    threading.Event().wait(0.001)
    return float(array.sum())


def in_threads(runner: Runner, count: int = 6, each: int = 10) -> list[tuple[int, Any]]:
    results: list[tuple[int, Any]] = []

    def work(first: int) -> None:
        for x in range(first, first + each):
            results.append((x, runner.run(0, runner.pipeline.n, x)[0]))

    threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == count * each
    return results


def test_a_function_with_a_buffer_of_its_own() -> None:
    with Runner(si.tasks([paused])) as runner:
        assert all(y.tolist() == [x] * 4 for x, y in in_threads(runner))


def test_what_it_returned_is_read_before_the_next_one_writes() -> None:
    with Runner(si.tasks([fill, total])) as runner:
        assert all(y == 4 * x for x, y in in_threads(runner))


def test_also_in_two_pipelines() -> None:
    with Runner(si.tasks([paused])) as one, Runner(si.tasks([paused, total])) as other:
        wrong: list[Any] = []

        def check(runner: Runner, right: Callable[[int, Any], bool]) -> None:
            wrong.extend((x, y) for x, y in in_threads(runner, count=3) if not right(x, y))

        threads = [
            threading.Thread(target=check, args=(one, lambda x, y: y.tolist() == [x] * 4)),
            threading.Thread(target=check, args=(other, lambda x, y: y == 4 * x)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong


@pytest.mark.parametrize("kind", ["parallel", "resource", "coroutine"])
def test_others_do_not_wait_for_each_other(kind: str) -> None:
    both = threading.Barrier(2, timeout=30)

    def meet(x: int) -> int:
        both.wait()
        return x

    def meet_with(held: Any, x: int) -> int:
        return meet(x)

    async def meet_there(x: int) -> int:
        import asyncio

        await asyncio.to_thread(both.wait)
        return x

    made = {
        "parallel": lambda: si.task(meet, parallel=True),
        "resource": lambda: si.task(meet_with, resource=contextlib.nullcontext),
        "coroutine": lambda: si.task(meet_there),
    }[kind]()
    with Runner(si.tasks([made])) as runner:
        assert sorted(in_threads(runner, count=2, each=1)) == [(0, 0), (100, 100)]


def test_waiting_is_no_work() -> None:
    entered, leave = threading.Event(), threading.Event()
    measured: list[float] = []

    def wait(x: int) -> int:
        if x == 0:
            entered.set()
            assert leave.wait(30)
        return x

    with Runner(si.tasks([wait])) as runner:
        first = threading.Thread(target=runner.run, args=(0, 1, 0))
        second = threading.Thread(target=lambda: measured.append(runner.run_timed(0, 1, 1)[1]))
        first.start()
        assert entered.wait(30)
        second.start()
        second.join(0.3)  # it waits for its turn meanwhile
        leave.set()
        first.join(30)
        second.join(30)
    assert measured[0] < 0.15


def test_a_function_may_run_itself() -> None:
    def down(x: int) -> int:
        return x if x == 0 else int(pipeline.run(x - 1))

    pipeline = si.tasks([down])
    assert pipeline.run(3) == 0


def test_whose_turn_it_is() -> None:
    class Camera:
        def shoot(self, x: int) -> int:
            return x

        def rest(self, x: int) -> int:
            return x

    one, other = Camera(), Camera()
    (shoot,), (rest,), (elsewhere,) = (turns_of([f]) for f in (one.shoot, one.rest, other.shoot))
    assert shoot is rest and shoot is not elsewhere
    assert turns_of([fill])[0] is turns_of([fill])[0]
    assert turns_of([abs])[0] is not turns_of([len])[0]
    assert turns_of([fill, total]) == turns_of([total, fill])
