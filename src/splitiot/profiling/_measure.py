"""Runs parts again and again, and says what they take."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from splitiot.errors import Dropped, ProfileError
from splitiot.pipeline import DROP, Payload, Pipeline, Runtime
from splitiot.profiling._bytes import crossing_bytes, payload_bytes
from splitiot.profiling._curves import curve, fit_joints
from splitiot.profiling._parts import profile_parts
from splitiot.profiling._times import Times
from splitiot.runner import Runner
from splitiot.topology import TierProfile

__all__ = ["NOISY", "profile"]

NOISY: Final = 0.1
"""From this `TierProfile.noise` on a machine is called noisy, and is measured again."""

_LEAST_ROUNDS: Final = 3
_VISIT_S: Final = 0.003  # a part is run again and again for so long, or so often, before it is another's turn
_VISIT_RUNS: Final = 8
_CLOCK_S: Final = 10e-6  # what a clock and an interpreter's call may be off: noise below it is not the machine's
_HEADS_MOST: Final = 8
_WALKS: Final = 3
_ATTEMPTS: Final = 4

_Runs: TypeAlias = dict[tuple[int, int], list[list[float]]]
_WALKING: Final = 0.3  # the share of the progress


class _Pass(msgspec.Struct, frozen=True):
    """What one walk through the pipeline, from legal cut to legal cut, tells."""

    cuts: tuple[int, ...]
    pieces_s: tuple[float, ...]
    """Seconds between neighbouring cuts."""
    sent_bytes: Mapping[int, int]
    result_bytes: int


def profile(
    pipeline: Pipeline,
    sample: Any,
    *,
    runner: Runner | None = None,
    repeats: int = 15,
    budget_s: float = 2.0,
    heads: int = _HEADS_MOST,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[float], None] | None = None,
    machine: str | None = None,
) -> TierProfile:
    """Measure what a pipeline's parts cost on this machine.

    Where the machine turns out to be noisy (other work, a changing clock rate: the same work took 10 % more or
    less), it is measured again while the budget lasts; the steadiest attempt counts, or all of them together. What
    noise is left stands in the profile, and the logger ``splitiot`` warns if that is still 10 %.

    Of a bundle only the parts that are there are measured; seconds elsewhere are guesses, which its device never uses.

    Parameters
    ----------
    pipeline : Pipeline
    sample : object
        A typical input: what ``pipeline.run`` takes. Functions should take their usual time on it.
    runner : Runner, optional
        Whose runtime to measure. What it has open stays as it is: everything is opened anew, and closed again.
    repeats : int
        Rounds of an attempt; each runs every chosen head and tail once to warm up, then a few times for the clock.
    budget_s : float
        A first attempt begins no further round after half of it, and no other attempt begins that would not be done
        within it; but 3 rounds are always run. What comes before is not counted: each step run alone, and that twice
        more if all of it takes less than a quarter of the budget.
    heads : int
        The most heads to measure, the whole pipeline among them. Each one, and its tail, stays open meanwhile.
    clock : callable
        Gives seconds.
    progress : callable, optional
        Told the share that is done, 0..1.
    machine : str, optional
        Words for people; the operating system's name for it unless given.

    Returns
    -------
    TierProfile
        With the bytes that cross where only a run can tell them (between Python functions).

    Raises
    ------
    ProfileError
        A run took less than no time: the clock is broken.
    Dropped
        A task dropped the sample.
    ValueError
        `repeats` or `heads` is less than 1, or `heads` more than 8.

    Examples
    --------
    >>> from splitiot import tasks
    >>> def spread_out(x): return np.repeat(x, 4)
    >>> pipeline = tasks([spread_out, np.sort], version="1")
    >>> measured = profile(pipeline, np.arange(100.0), budget_s=0.01)
    >>> measured.n, measured.sent_bytes.tolist(), measured.returned_bytes.tolist()
    (2, [800.0, 3200.0, 0.0], [3200.0, 3200.0, 0.0])
    """
    if repeats < 1 or heads < 1:
        raise ValueError(f"repeats and heads must be at least 1, got {repeats} and {heads}")
    if heads > _HEADS_MOST:
        raise ValueError(f"at most {_HEADS_MOST} heads are measured, got {heads}: more cost memory and tell little")
    if pipeline.parts is not None:
        return profile_parts(
            pipeline, sample, runner=runner, repeats=repeats, budget_s=budget_s, heads=heads, clock=clock,
            machine=machine,
        )  # fmt: skip
    runtime = None if runner is None else runner.runtime
    tell = progress or (lambda share: None)
    payload = pipeline.bind(sample)
    walked = _walk(pipeline, runtime, payload, budget_s / 4, clock, tell)
    chosen = _spread_cuts(walked, heads)
    with Runner(pipeline, runtime=runtime, clock=clock) as own:
        times = _steadiest(own, payload, chosen, repeats, budget_s, clock, tell)
    made = _fit(pipeline, walked, times, runtime, machine)
    if _noisy(times, pipeline.n):
        from splitiot._log import logger

        logger.warning(
            "this machine is noisy: the same work took up to %.0f %% more or less while it was measured. Profile "
            "again when it has less else to do, or with a larger budget",
            100 * times.noise,
        )
    tell(1.0)
    return made


def _walk(
    pipeline: Pipeline,
    runtime: Runtime | None,
    payload: Payload,
    again_s: float,
    clock: Callable[[], float],
    tell: Callable[[float], None],
) -> _Pass:
    """Walk once, and up to twice more if that took less than `again_s`: then a slow moment in one does not count."""
    cuts = sorted({0, pipeline.n, *pipeline.cuts})
    runs: _Runs = {piece: [] for piece in pairwise(cuts)}
    began_s = clock()
    for done in range(_WALKS):
        if done and (clock() - began_s) * (done + 1) / done > again_s:
            break
        sizes, result_bytes = _walk_once(
            pipeline, runtime, payload, runs, clock, tell if done == 0 else lambda share: None
        )
    times = Times(runs)
    return _Pass(tuple(cuts), tuple(times.seconds(piece) for piece in runs), sizes, result_bytes)


def _walk_once(
    pipeline: Pipeline,
    runtime: Runtime | None,
    payload: Payload,
    runs: _Runs,
    clock: Callable[[], float],
    tell: Callable[[float], None],
) -> tuple[dict[int, int], int]:
    """Run from legal cut to legal cut: payloads and their bytes at each, and each piece's seconds."""
    sizes, result_bytes = {0: payload_bytes(payload)}, 0
    kept: Payload = None
    for (start, stop), took in runs.items():
        executable = pipeline.part(start, stop).open(runtime)  # one at a time: many together are large
        try:
            if executable(payload) is DROP:  # the first run fills caches
                raise Dropped("a task dropped the sample, so what is behind it can't be measured: give one that passes")
            seconds: list[float] = []
            while _goes_on(seconds):
                began_s = clock()
                after = executable(payload)
                seconds.append(_checked(clock() - began_s, start, stop))
            took.append(seconds)
        finally:
            executable.close()
        if isinstance(after, Mapping) and isinstance(kept, Mapping):
            after = {**kept, **after}  # early results stay behind: the next piece does not hand them on
        payload, kept = pipeline.divide(stop, after)
        if stop == pipeline.n:
            result_bytes = max(payload_bytes(payload), payload_bytes(kept))
        sizes[stop] = payload_bytes(payload)
        tell(_WALKING * stop / pipeline.n)
    return sizes, result_bytes


def _goes_on(seconds: Sequence[float]) -> bool:
    """Whether a part is run once more before it is another's turn."""
    # by the fastest: one that was interrupted must not be the only one
    return not seconds or (len(seconds) < _VISIT_RUNS and len(seconds) * min(seconds) < _VISIT_S)


def _checked(seconds: float, start: int, stop: int) -> float:
    if not 0 <= seconds < math.inf:
        raise ProfileError(f"running [{start}, {stop}) took {seconds} s: the clock is broken")
    return seconds


def _spread_cuts(walked: _Pass, heads: int) -> list[int]:
    """Choose the cuts to measure: n, the ones at both ends, others at about equal shares of the work."""
    inner, n = walked.cuts[1:-1], walked.cuts[-1]
    if len(inner) <= heads - 1:
        return [*inner, n]
    done = np.cumsum(walked.pieces_s)
    whole = float(done[-1])
    shares = done[:-1] / whole if whole > 0 else np.linspace(0, 1, len(inner) + 2)[1:-1]
    # the shortest head and the shortest tail tell what a part costs at least
    picked = {inner[0], inner[-1]} if heads > 3 else set()
    between = heads - len(picked)
    for goal in np.arange(1, between) / between:
        left = [index for index, cut in enumerate(inner) if cut not in picked]
        picked.add(inner[min(left, key=lambda index: abs(float(shares[index] - goal)))])
    return [*sorted(picked), n]


def _steadiest(
    runner: Runner,
    payload: Payload,
    chosen: Sequence[int],
    repeats: int,
    budget_s: float,
    clock: Callable[[], float],
    tell: Callable[[float], None],
) -> Times:
    """Measure; where that was noisy, again while the budget lasts. Return what was measured most steadily."""
    pipeline, n = runner.pipeline, runner.pipeline.n
    payloads = {0: payload}
    parts = [(0, cut) for cut in chosen] + [(cut, n) for cut in chosen if cut < n]

    def once(start: int, stop: int) -> tuple[Payload, float]:
        owner = (start, stop)  # each part's state for itself
        result, seconds = runner.run(start, stop, payloads[start], owner)
        return result, _checked(seconds, start, stop)

    def visit(start: int, stop: int) -> list[float]:
        once(start, stop)  # the other parts have emptied the caches; in use, one part runs again and again
        took: list[float] = []
        while _goes_on(took):
            took.append(once(start, stop)[1])
        return took

    for start, stop in parts:  # heads first: they make what the tails take
        result, _ = once(start, stop)
        if stop < n:
            payloads[stop] = pipeline.divide(stop, result)[0]
    began_s = clock()
    told = _WALKING

    def attempt(until_s: float) -> _Runs:
        nonlocal told
        runs: _Runs = {part: [] for part in parts}
        for done in range(repeats):
            if done >= min(_LEAST_ROUNDS, repeats) and clock() - began_s >= until_s:
                break
            # interleaved, so that a slow moment hits all parts alike
            for part in parts:
                runs[part].append(visit(*part))
            rest = 0.95 - told
            told += rest / (repeats - done + 1)
            tell(told)
        return runs

    every = attempt(budget_s / 2)
    best = Times(every)
    first_s = clock() - began_s
    least_s = first_s * min(1.0, _LEAST_ROUNDS / len(best.speeds))  # of 3 rounds
    for _ in range(1, _ATTEMPTS):
        if not _noisy(best, n) or clock() - began_s + least_s > budget_s:
            break
        again = attempt(min(budget_s, clock() - began_s + first_s))
        every = {part: [*rounds, *again[part]] for part, rounds in every.items()}
        # more rounds help against scatter, an attempt alone against a speed that changed between them
        best = min(best, Times(again), Times(every), key=lambda times: times.noise)
    return best


def _noisy(times: Times, n: int) -> bool:
    return times.noise > NOISY and times.noise * times.seconds((0, n)) > _CLOCK_S


def _fit(pipeline: Pipeline, walked: _Pass, times: Times, runtime: Runtime | None, machine: str | None) -> TierProfile:
    n = pipeline.n
    cuts, pieces = walked.cuts, len(walked.pieces_s)
    at = {cut: index for index, cut in enumerate(cuts)}  # cuts -> number of pieces
    crossed = [float(walked.sent_bytes[cut]) for cut in cuts[1:-1]]
    measured = {part: times.seconds(part) for part in times.parts}
    joints = fit_joints(walked.pieces_s, crossed, {(at[i], at[j]): s for (i, j), s in measured.items()})
    whole = measured[0, n]
    heads = curve(
        joints.heads_s(walked.pieces_s, crossed), {at[j]: s for (i, j), s in measured.items() if i == 0}, whole
    )
    tails = curve(
        joints.heads_s(walked.pieces_s[::-1], crossed[::-1]),
        {pieces - at[i]: s for (i, j), s in measured.items() if j == n},
        whole,
    )
    startup = min(times.startup_s(n), *measured.values())
    sent, returned = crossing_bytes(pipeline, walked.sent_bytes, walked.result_bytes)
    return TierProfile(
        pipeline.digest,
        _at_every_cut(cuts, [startup, *heads]).tolist(),
        _at_every_cut([n - cut for cut in reversed(cuts)], [startup, *tails])[::-1].tolist(),
        startup_s=startup,
        spread=times.spread,
        noise=times.noise,
        steps_s=np.diff(np.interp(np.arange(n + 1), cuts, [0.0, *np.cumsum(walked.pieces_s)])).tolist(),
        sent_bytes=sent,
        returned_bytes=returned,
        runtime=pipeline.runtime_info(runtime),
        machine=platform.platform(terse=True) if machine is None else machine,
    )


def _at_every_cut(cuts: Sequence[int], seconds: Sequence[float]) -> NDArray[np.float64]:
    """Spread seconds at legal cuts over all of them; an empty part costs nothing."""
    every: NDArray[np.float64] = np.interp(np.arange(cuts[-1] + 1), cuts, seconds)
    every[0] = 0.0
    return np.maximum.accumulate(every)
