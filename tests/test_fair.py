"""A pool of threads that is shared out evenly among names."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from splitiot._fair import FairExecutor

WAIT_S = 20.0


class Runs:
    """Runs that wait until they may go on, in the order in which they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._began = threading.Condition()

    def __call__(self, name: str, gate: threading.Event | None = None) -> Callable[[], None]:
        def run() -> None:
            with self._began:
                self.begun.append(name)
                self._began.notify_all()
            assert gate is None or gate.wait(WAIT_S)

        return run

    def until(self, count: int) -> None:
        with self._began:
            assert self._began.wait_for(lambda: len(self.begun) >= count, WAIT_S), self.begun


def test_who_has_few_runs_does_not_wait_behind_who_has_many() -> None:
    runs, gate = Runs(), threading.Event()
    pool = FairExecutor(1, thread_name_prefix="test")
    pool.submit("many", runs("many 0", gate))
    runs.until(1)
    for k in range(1, 10):
        pool.submit("many", runs(f"many {k}"))
    pool.submit("few", runs("few 0"))
    pool.submit("few", runs("few 1"))
    gate.set()
    pool.shutdown()
    assert runs.begun[1:5] == ["many 1", "few 0", "many 2", "few 1"]
    assert runs.begun[5:] == [f"many {k}" for k in range(3, 10)]


def test_a_thread_goes_to_who_has_the_fewest() -> None:
    runs, gates = Runs(), [threading.Event() for _ in range(2)]
    pool = FairExecutor(2, thread_name_prefix="test")
    for k, gate in enumerate(gates):
        pool.submit("slow", runs(f"slow {k}", gate))
    runs.until(2)
    pool.submit("slow", runs("slow 2"))
    for k in range(3):
        pool.submit("quick", runs(f"quick {k}"))
    gates[0].set()
    runs.until(6)
    gates[1].set()
    pool.shutdown()
    assert runs.begun[2:] == ["quick 0", "quick 1", "quick 2", "slow 2"]


def test_what_raises_is_told_and_keeps_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs()
    pool = FairExecutor(1, thread_name_prefix="test")

    def broken() -> None:
        raise ValueError("no such file")

    with caplog.at_level(logging.ERROR, logger="splitiot"):
        pool.submit("a", broken)
        pool.submit("a", runs("after"))
        pool.shutdown()
    assert runs.begun == ["after"]
    assert "no such file" in caplog.text
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit("a", broken)
