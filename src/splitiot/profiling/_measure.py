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
from splitiot.pipeline import DROP, Payload, Pipeline, Runtime, Tier, expect_pipeline
from splitiot.profiling._bytes import crossing_bytes, payload_bytes
from splitiot.profiling._curves import curve, fit_joints
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
_GUESS_S: Final = 1e-3  # a step, where nothing of it can be measured here

_Part: TypeAlias = tuple[int, int]
_Runs: TypeAlias = dict[_Part, list[list[float]]]
_WALKING: Final = 0.3  # the share of the progress
_DROPPED: Final = "a task dropped the sample, so what is behind it can't be measured: give one that passes"


class _Pieces(msgspec.Struct, frozen=True):
    """What is between neighbouring cuts, as one walk through the pipeline tells."""

    cuts: tuple[int, ...]
    """From the first step that is measured to the last one, with all legal ones between."""
    seconds: tuple[float, ...] | None = None
    """Of each piece alone; None where they are not here, as in a bundle."""
    sent_bytes: Mapping[int, int] = {}
    result_bytes: int = 0


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
    tier: Tier | str | None = None,
) -> TierProfile:
    """Measure what a pipeline's parts cost on this machine.

    Where the machine turns out to be noisy (other work, a changing clock rate: the same work took 10 % more or
    less), it is measured again while the budget lasts; the steadiest attempt counts, or all of them together. What
    noise is left stands in the profile, and the logger ``splitiot`` warns if that is still 10 %.

    Of a bundle only the parts that are there are measured, and with `tier` only the steps that this tier may run.
    Seconds elsewhere are guesses, which no placement of this tier uses.

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
    tier : Tier or str, optional
        What this machine is, for pipelines with steps that are pinned to the other one. The device then does not run
        those of the edge; the edge runs those of the device once, since they make what the others take. Unless given,
        all steps are run and measured.

    Returns
    -------
    TierProfile
        With the bytes that cross where only a run can tell them (between Python functions).

    Raises
    ------
    ProfileError
        A run took less than no time: the clock is broken. Or this is the edge, and a step that is pinned to the device
        (a camera) does not run here.
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
    expect_pipeline(pipeline)
    if repeats < 1 or heads < 1:
        raise ValueError(f"repeats and heads must be at least 1, got {repeats} and {heads}")
    if heads > _HEADS_MOST:
        raise ValueError(f"at most {_HEADS_MOST} heads are measured, got {heads}: more cost memory and tell little")
    runtime = None if runner is None else runner.runtime
    pipeline = pipeline.with_runtime(runtime)
    report = progress or (lambda share: None)
    payload = pipeline.bind(sample)
    if pipeline.parts is None:
        first, stop = _span(pipeline, None if tier is None else Tier(tier))
        if first < stop:
            payload = _payload_at(pipeline, runtime, payload, first)
            pieces = _walk(pipeline, runtime, payload, (first, stop), budget_s / 4, clock, report)
            parts = _spread_parts(pieces, heads)
        else:  # all is the other tier's
            pieces, parts = _Pieces((first,), (), {first: payload_bytes(payload) if first == 0 else 0}), []
    else:
        pieces, parts = _Pieces(tuple(range(pipeline.n + 1))), _parts_here(pipeline, heads)
    if not parts:
        report(1.0)
        return _guessed(pipeline, pieces, runtime, machine)
    with Runner(pipeline, runtime=runtime, clock=clock) as own:
        times = _steadiest(own, payload, parts, repeats, budget_s, clock, report)
    if _noisy(times):
        from splitiot._log import logger

        logger.warning(
            "this machine is noisy: the same work took up to %.0f %% more or less while it was measured. Profile "
            "again when it has less else to do, or with a larger budget",
            100 * times.noise,
        )
    report(1.0)
    return _fit(pipeline, pieces, times, runtime, machine)


def _parts_here(pipeline: Pipeline, most: int) -> list[_Part]:
    """Choose some of the heads that a bundle has here, the shortest and the longest among them, and their tails."""
    untyped = [c for c in pipeline.cuts if None in (pipeline.boundary(c).nbytes, pipeline.returned(c).nbytes)]
    if untyped:
        raise ProfileError(
            f"what crosses at cut {untyped[0]} is known only to the whole pipeline, and this device has parts of it: "
            "profile the whole on such a machine, and give the Device that profile"
        )
    n, parts = pipeline.n, set(pipeline.parts or ())
    cuts = sorted(stop for start, stop in parts if start == 0)
    if len(cuts) > most:
        cuts = [cuts[i] for i in np.unique(np.linspace(0, len(cuts) - 1, most).round().astype(int))]
    return [*((0, cut) for cut in cuts), *((cut, n) for cut in cuts if cut < n and (cut, n) in parts)]


def _span(pipeline: Pipeline, tier: Tier | None) -> tuple[int, int]:
    """Return the steps that a tier may run: from the first legal cut to the end, or from the start to the last one."""
    cuts, others = pipeline.cuts, any(step.tier not in (None, tier) for step in pipeline.steps)
    if tier is None or not others or not cuts:
        return 0, pipeline.n
    return (0, cuts[-1]) if tier is Tier.DEVICE else (cuts[0], pipeline.n)


def _payload_at(pipeline: Pipeline, runtime: Runtime | None, payload: Payload, cut: int) -> Payload:
    """Run the steps of the other tier, for what the ones behind them take."""
    if cut == 0:
        return payload
    executable = pipeline.part(0, cut).open(runtime)
    try:
        result = executable(payload)
    except Exception as error:
        raise ProfileError(
            f"what this edge costs can't be measured, since steps that only the device runs do not run here: {error!r}"
        ) from error
    finally:
        executable.close()
    if result is DROP:
        raise Dropped(_DROPPED)
    return pipeline.divide(cut, result)[0]


def _walk(
    pipeline: Pipeline,
    runtime: Runtime | None,
    payload: Payload,
    span: tuple[int, int],
    again_s: float,
    clock: Callable[[], float],
    report: Callable[[float], None],
) -> _Pieces:
    """Walk once, and up to twice more if that took less than `again_s`: then a slow moment in one does not count."""
    first, stop = span
    cuts = sorted({first, stop, *(cut for cut in pipeline.cuts if first <= cut <= stop)})
    runs: _Runs = {piece: [] for piece in pairwise(cuts)}
    began_s = clock()
    for done in range(_WALKS):
        if done and (clock() - began_s) * (done + 1) / done > again_s:
            break
        sizes, result_bytes = _walk_once(
            pipeline, runtime, payload, runs, clock, report if done == 0 else lambda share: None
        )
    times = Times(runs)
    return _Pieces(tuple(cuts), tuple(times.seconds(piece) for piece in runs), sizes, result_bytes)


def _walk_once(
    pipeline: Pipeline,
    runtime: Runtime | None,
    payload: Payload,
    runs: _Runs,
    clock: Callable[[], float],
    report: Callable[[float], None],
) -> tuple[dict[int, int], int]:
    """Run from legal cut to legal cut: payloads and their bytes at each, and each piece's seconds."""
    first, last = next(iter(runs))[0], list(runs)[-1][1]
    sizes, result_bytes = {first: payload_bytes(payload)}, 0
    kept: Payload = None
    for (start, stop), visits in runs.items():
        executable = pipeline.part(start, stop).open(runtime)  # one at a time: many together are large
        try:
            if executable(payload) is DROP:  # the first run fills caches
                raise Dropped(_DROPPED)
            seconds: list[float] = []
            while _goes_on(seconds):
                began_s = clock()
                after = executable(payload)
                seconds.append(_checked(clock() - began_s, start, stop))
            visits.append(seconds)
        finally:
            executable.close()
        if isinstance(after, Mapping) and isinstance(kept, Mapping):
            after = {**kept, **after}  # early results stay behind: the next piece does not hand them on
        payload, kept = pipeline.divide(stop, after)
        if stop == pipeline.n:
            result_bytes = max(payload_bytes(payload), payload_bytes(kept))
        sizes[stop] = payload_bytes(payload)
        report(_WALKING * (stop - first) / (last - first))
    return sizes, result_bytes


def _goes_on(seconds: Sequence[float]) -> bool:
    """Whether a part is run once more before it is another's turn."""
    # by the fastest: one that was interrupted must not be the only one
    return not seconds or (len(seconds) < _VISIT_RUNS and len(seconds) * min(seconds) < _VISIT_S)


def _checked(seconds: float, start: int, stop: int) -> float:
    if not 0 <= seconds < math.inf:
        raise ProfileError(f"running [{start}, {stop}) took {seconds} s: the clock is broken")
    return seconds


def _spread_parts(pieces: _Pieces, most: int) -> list[_Part]:
    """Choose heads and their tails: the whole, the ones at both ends, others at about equal shares of the work."""
    first, *inner, end = pieces.cuts
    picked = set(inner)
    if len(inner) >= most:
        done: NDArray[np.float64] = np.cumsum(pieces.seconds or ())
        whole = float(done[-1])
        shares = done[:-1] / whole if whole > 0 else np.linspace(0, 1, len(inner) + 2)[1:-1]
        # the shortest head and the shortest tail tell what a part costs at least
        picked = {inner[0], inner[-1]} if most > 3 else set()
        between = most - len(picked)
        for goal in np.arange(1, between) / between:
            left = [index for index, cut in enumerate(inner) if cut not in picked]
            picked.add(inner[min(left, key=lambda index: abs(float(shares[index] - goal)))])
    cuts = sorted(picked)
    return [*((first, cut) for cut in (*cuts, end)), *((cut, end) for cut in cuts)]


def _steadiest(
    runner: Runner,
    payload: Payload,
    parts: Sequence[_Part],
    repeats: int,
    budget_s: float,
    clock: Callable[[], float],
    report: Callable[[float], None],
) -> Times:
    """Measure parts, heads first; where that was noisy, again while the budget lasts. Return what was most steady."""
    payloads = {parts[0][0]: payload}
    progress = _WALKING

    def once(start: int, stop: int) -> tuple[Payload, float]:
        owner = (start, stop)  # each part's state for itself
        result, seconds = runner.run(start, stop, payloads[start], owner)
        return result, _checked(seconds, start, stop)

    def visit(start: int, stop: int) -> list[float]:
        once(start, stop)  # the other parts have emptied the caches; in use, one part runs again and again
        runs: list[float] = []
        while _goes_on(runs):
            runs.append(once(start, stop)[1])
        return runs

    tails = {start for start, _ in parts}
    for start, stop in parts:  # heads make what the tails take
        result, _ = once(start, stop)
        if stop in tails and stop not in payloads:
            payloads[stop] = runner.pipeline.divide(stop, result)[0]
    began_s = clock()

    def attempt(until_s: float) -> _Runs:
        nonlocal progress
        runs: _Runs = {part: [] for part in parts}
        for done in range(repeats):
            if done >= min(_LEAST_ROUNDS, repeats) and clock() - began_s >= until_s:
                break
            # interleaved, so that a slow moment hits all parts alike
            for part in parts:
                runs[part].append(visit(*part))
            progress += (0.95 - progress) / (repeats - done + 1)
            report(progress)
        return runs

    every = attempt(budget_s / 2)
    best = Times(every)
    first_s = clock() - began_s
    least_s = first_s * min(1.0, _LEAST_ROUNDS / len(best.speeds))  # of 3 rounds
    for _ in range(1, _ATTEMPTS):
        if not _noisy(best) or clock() - began_s + least_s > budget_s:
            break
        again = attempt(min(budget_s, clock() - began_s + first_s))
        every = {part: [*rounds, *again[part]] for part, rounds in every.items()}
        # more rounds help against scatter, an attempt alone against a speed that changed between them
        best = min(best, Times(again), Times(every), key=lambda times: times.noise)
    return best


def _noisy(times: Times) -> bool:
    return times.noise > NOISY and times.noise * max(map(times.seconds, times.parts)) > _CLOCK_S


def _fit(
    pipeline: Pipeline, pieces: _Pieces, times: Times, runtime: Runtime | None, machine: str | None
) -> TierProfile:
    cuts, count = pieces.cuts, len(pieces.cuts) - 1
    first, stop = cuts[0], cuts[-1]
    at = {cut: index for index, cut in enumerate(cuts)}  # cuts -> number of pieces
    pieces_s = [1.0] * count if pieces.seconds is None else pieces.seconds
    crossed = [float(pieces.sent_bytes.get(cut, 0)) for cut in cuts[1:-1]]
    measured = {(at[i], at[j]): times.seconds((i, j)) for i, j in times.parts}
    longest = max(j for i, j in measured if i == 0)
    # where the whole is not here, as if the steps went on like those of the longest head
    whole = measured.get((0, count), max(measured[0, longest] * count / longest, *measured.values()))
    joints = fit_joints(pieces_s, crossed, measured)
    heads = {count: whole} | {j: s for (i, j), s in measured.items() if i == 0}
    tails = {count: whole} | {count - i: s for (i, j), s in measured.items() if j == count}
    startup = min(times.startup_s((first, stop)), *measured.values())
    heads_s = _at_every_cut(cuts, [startup, *curve(joints.heads_s(pieces_s, crossed), heads, whole)])
    backwards = curve(joints.heads_s(pieces_s[::-1], crossed[::-1]), tails, whole)
    tails_s = _at_every_cut([stop - cut for cut in reversed(cuts)], [startup, *backwards])
    before, behind, steps = np.zeros(0), np.zeros(0), None
    if pieces.seconds is not None:
        alone = np.diff(np.interp(np.arange(first, stop + 1), cuts, [0.0, *np.cumsum(pieces_s)]))
        # those that this tier may not run are guessed to be like the others: another tier may take this for a start
        before, behind = np.full(first, alone.mean()), np.full(pipeline.n - stop, alone.mean())
        steps = [*before, *alone, *behind]
    sent, returned = crossing_bytes(pipeline, pieces.sent_bytes, pieces.result_bytes)
    return TierProfile(
        pipeline.digest,
        _longer(before, heads_s, behind).tolist(),
        _longer(behind, tails_s, before)[::-1].tolist(),
        startup_s=startup,
        spread=times.spread,
        noise=times.noise,
        steps_s=steps,
        sent_bytes=sent,
        returned_bytes=returned,
        runtime=pipeline.runtime_info(runtime),
        machine=_machine(machine),
    )


def _guessed(pipeline: Pipeline, pieces: _Pieces, runtime: Runtime | None, machine: str | None) -> TierProfile:
    sent, returned = crossing_bytes(pipeline, pieces.sent_bytes, pieces.result_bytes)
    return TierProfile.from_steps(
        pipeline.digest,
        [_GUESS_S] * pipeline.n,
        sent_bytes=sent,
        returned_bytes=returned,
        runtime=pipeline.runtime_info(runtime),
        machine=_machine(machine),
    )


def _machine(machine: str | None) -> str:
    return platform.platform(terse=True) if machine is None else machine


def _at_every_cut(cuts: Sequence[int], seconds: Sequence[float]) -> NDArray[np.float64]:
    """Spread seconds at legal cuts over all of them; an empty part costs nothing."""
    every: NDArray[np.float64] = np.interp(np.arange(cuts[0], cuts[-1] + 1), cuts, seconds)
    every[0] = 0.0
    return np.maximum.accumulate(every)


def _longer(
    before: NDArray[np.float64], curve: NDArray[np.float64], behind: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lengthen a curve by steps at both ends."""
    start = np.concatenate([[0.0], np.cumsum(before)])
    middle = start[-1] + curve
    return np.concatenate([start[:-1], middle, middle[-1] + np.cumsum(behind)])
