"""Runs of one executable, timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from splitiot.pipeline import Executable, Payload

__all__ = ["TimedResult", "run_timed", "survives"]


class TimedResult(NamedTuple):
    """What a run gave, the seconds that it took, and those of each step where they run one by one."""

    result: Payload
    seconds: float
    steps_s: tuple[float, ...]


def run_timed(executable: Executable, payload: Payload, clock: Callable[[], float]) -> TimedResult:
    """Run an executable once. What it waits for other threads is no work, and not counted."""
    stepwise = getattr(executable, "stepwise", None)
    if stepwise is None:
        began_s = clock()
        result = executable(payload)
        return TimedResult(result, clock() - began_s, ())
    times = [clock()]
    waits_s: list[float] = []

    def lap(waited_s: float) -> None:
        times.append(clock())
        waits_s.append(waited_s)

    result = stepwise(payload, lap)
    total_s = max(0.0, clock() - times[0] - sum(waits_s))
    pairs = zip(itertools.pairwise(times), waits_s, strict=True)
    return TimedResult(result, total_s, tuple([max(0.0, after - before - wait_s) for (before, after), wait_s in pairs]))


def survives(executable: Executable) -> bool:
    """Whether an executable is still good when a run of it has raised."""
    return getattr(executable, "survives", False)
