"""How two things are compared: side by side, in turns, by medians."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

from attrs import field, frozen

Unit = Literal["s", "bytes"]


@frozen
class Pair:
    """What two things took, in rounds that took turns."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def quotients(self) -> list[float]:
        """Ours over theirs, round by round: what slows a whole round cancels out."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]


@frozen
class Row:
    """One line of the table.

    Parameters
    ----------
    name, what : str
    measured, reference : float
        Medians over all rounds: of splitiot, and of what it is compared with.
    unit : {"s", "bytes"}
    ratios : tuple of float
        One a round. Measured over reference; for "times faster" reference over measured.
    target : float, optional
        None where the figure is shown for information.
    faster : bool
        The ratio shall be at least, not at most, the target.
    limit_s : float, optional
        Instead of a ratio: what the measured figure itself may be.
    note : str
    """

    name: str
    what: str
    measured: float
    reference: float | None
    ratios: tuple[float, ...] = ()
    unit: Unit = "s"
    target: float | None = None
    faster: bool = False
    limit_s: float | None = None
    note: str = field(default="")

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The quartiles of the rounds' ratios."""
        if len(self.ratios) < 3:
            return (min(self.ratios), max(self.ratios)) if self.ratios else None
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        if self.limit_s is not None:
            return self.measured <= self.limit_s
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target if self.faster else self.ratio <= self.target


def compared(
    name: str,
    what: str,
    pair: Pair,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    faster: bool = False,
    unit: Unit = "s",
    note: str = "",
) -> Row:
    """Make a row of a pair, with its target, if there is one."""
    faster = faster or at_least is not None
    quotients = pair.quotients
    return Row(
        name=name,
        what=what,
        measured=statistics.median(pair.ours),
        reference=statistics.median(pair.theirs),
        ratios=tuple(1 / q for q in quotients) if faster else tuple(quotients),
        unit=unit,
        target=at_least if faster else at_most,
        faster=faster,
        note=note,
    )


def in_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, rounds: int, calls: int, repeat: int = 1, warm: int = 3
) -> Pair:
    """Time two functions in turns: a block of calls of ours, a block of theirs, ours, theirs, ...

    A block has `calls` timings, its figure is their median. Both keep the caches to themselves for a block, as a
    device does that runs the same part again and again; single calls in turns would measure how two working sets
    push each other out. A timing is of `repeat` calls on end (more than one for what takes microseconds, so that
    reading the clock does not count). The collector of garbage is off meanwhile.
    """
    return times_in_turns(_timed(ours, repeat), _timed(theirs, repeat), rounds=rounds, calls=calls, warm=warm)


def times_in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int, calls: int, warm: int = 3
) -> Pair:
    """Do the same with functions that say themselves how long they took."""
    for _ in range(warm):
        ours()
        theirs()
    a: list[float] = []
    b: list[float] = []
    on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            a.append(statistics.median([ours() for _ in range(calls)]))
            b.append(statistics.median([theirs() for _ in range(calls)]))
    finally:
        if on:
            gc.enable()
    return Pair(tuple(a), tuple(b))


def _timed(function: Callable[[], Any], repeat: int) -> Callable[[], float]:
    clock = time.perf_counter

    def once() -> float:
        began = clock()
        function()
        return clock() - began

    def several() -> float:
        began = clock()
        for _ in itertools.repeat(None, repeat):
            function()
        return (clock() - began) / repeat

    return once if repeat == 1 else several
