"""Measures what a pipeline's parts cost on this machine.

Heads and tails are measured, never sums of steps: fused kernels make such sums wrong by up to three times. A few
heads and tails are run, in interleaved rounds; a monotone curve goes through their medians, shaped between them
by the shares of the steps, which are timed one by one.
"""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.errors import ProfileError
from splitiot.estimators._base import median
from splitiot.pipeline import Payload, Pipeline, Runtime
from splitiot.runner import Runner
from splitiot.topology import TierProfile

__all__ = ["payload_bytes", "profile"]

_LEAST_ROUNDS: Final = 3
_SIGMA: Final = 1.4826  # median absolute deviation of a normal distribution -> its sigma


@frozen
class _Pass:
    """What one walk through the pipeline, from legal cut to legal cut, tells."""

    cuts: tuple[int, ...]
    pieces_s: tuple[float, ...]
    """Seconds between neighbouring cuts."""
    sent_bytes: Mapping[int, int]
    result_bytes: int


@frozen
class _Times:
    """Seconds of each run, by cut."""

    heads: dict[int, list[float]] = field(factory=dict)
    tails: dict[int, list[float]] = field(factory=dict)


def profile(
    pipeline: Pipeline,
    sample: Any,
    *,
    runner: Runner | None = None,
    repeats: int = 15,
    budget_s: float = 2.0,
    heads: int = 6,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[float], None] | None = None,
    machine: str | None = None,
) -> TierProfile:
    """Measure what a pipeline's parts cost on this machine.

    Parameters
    ----------
    pipeline : Pipeline
    sample : object
        A typical input: what ``pipeline.run`` takes. Functions should take their usual time on it.
    runner : Runner, optional
        Whose runtime to measure. What it has open stays as it is: everything is opened anew, and closed again.
    repeats : int
        Rounds of measuring; each runs every chosen head and tail twice, and times the second run.
    budget_s : float
        No further round begins after that many seconds, but 3 are always run.
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
    ValueError
        `repeats` or `heads` is less than 1.

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
    runtime = None if runner is None else runner.runtime
    tell = progress or (lambda share: None)
    payload = pipeline.bind(sample)
    walked = _walk(pipeline, runtime, payload, clock, tell)
    chosen = _spread_cuts(walked, heads)
    with Runner(pipeline, runtime=runtime, clock=clock) as own:
        times = _measure(own, payload, chosen, repeats, budget_s, clock, tell)
    return _fit(pipeline, walked, times, runtime, machine)


def _walk(
    pipeline: Pipeline,
    runtime: Runtime | None,
    payload: Payload,
    clock: Callable[[], float],
    tell: Callable[[float], None],
) -> _Pass:
    """Run from legal cut to legal cut: payloads and their bytes at each, and each piece's seconds."""
    cuts = sorted({0, pipeline.n, *pipeline.cuts})
    sizes, pieces, result_bytes = {0: payload_bytes(payload)}, [], 0
    kept: Payload = None
    for start, stop in pairwise(cuts):
        executable = pipeline.part(start, stop).open(runtime)  # one at a time: many together are large
        try:
            executable(payload)  # the first run fills caches
            began_s = clock()
            after = executable(payload)
            pieces.append(_checked(clock() - began_s, start, stop))
        finally:
            executable.close()
        if isinstance(after, Mapping) and isinstance(kept, Mapping):
            after = {**kept, **after}  # early results stay behind: the next piece does not hand them on
        payload, kept = pipeline.divide(stop, after)
        if stop == pipeline.n:
            result_bytes = max(payload_bytes(payload), payload_bytes(kept))
        sizes[stop] = payload_bytes(payload)
        tell(0.3 * stop / pipeline.n)
    return _Pass(tuple(cuts), tuple(pieces), sizes, result_bytes)


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
        picked.add(inner[int(np.abs(shares - goal).argmin())])
    return [*sorted(picked), n]


def _measure(
    runner: Runner,
    payload: Payload,
    chosen: Sequence[int],
    repeats: int,
    budget_s: float,
    clock: Callable[[], float],
    tell: Callable[[float], None],
) -> _Times:
    pipeline, n, times = runner.pipeline, runner.pipeline.n, _Times()
    payloads = {0: payload}
    parts = [(0, cut) for cut in chosen] + [(cut, n) for cut in chosen if cut < n]

    def once(start: int, stop: int) -> tuple[Payload, float]:
        owner = (start, stop)  # each part's state for itself
        result, seconds = runner.run(start, stop, payloads[start], owner)
        return result, _checked(seconds, start, stop)

    for start, stop in parts:  # heads first: they make what the tails take
        result, _ = once(start, stop)
        if stop < n:
            payloads[stop] = pipeline.divide(stop, result)[0]
    began_s = clock()
    for done in range(repeats):
        if done >= min(_LEAST_ROUNDS, repeats) and clock() - began_s >= budget_s:
            break
        # interleaved, so that a slow moment hits all parts alike
        for start, stop in parts:
            once(start, stop)  # the other parts have emptied the caches; in use, one part runs again and again
            _, seconds = once(start, stop)
            if start == 0:
                times.heads.setdefault(stop, []).append(seconds)
            else:
                times.tails.setdefault(start, []).append(seconds)
        tell(0.3 + 0.7 * (done + 1) / repeats)
    tell(1.0)
    return times


def _fit(pipeline: Pipeline, walked: _Pass, times: _Times, runtime: Runtime | None, machine: str | None) -> TierProfile:
    n = pipeline.n
    head = {cut: median(seconds) for cut, seconds in times.heads.items()}
    tail = {cut: median(seconds) for cut, seconds in times.tails.items()}
    whole = head[n]
    startup = max(0.0, median([head[c] + tail[c] - whole for c in tail])) if tail else 0.0
    work = _work(walked, n)
    startup = min(startup, *head.values(), *tail.values())
    known = sorted(head)
    heads_s = _curve(work, [0, *known], [startup, *(head[c] for c in known)], whole)
    back = sorted(tail, reverse=True)
    tails_s = _curve(
        work[-1] - work[::-1], [0, *(n - c for c in back), n], [startup, *(tail[c] for c in back), whole], whole
    )[::-1]
    runs = [*times.heads.values(), *times.tails.values()]
    spreads = [s for s in map(_relative_spread, runs) if s is not None]
    sent, returned = _bytes(pipeline, walked)
    return TierProfile(
        pipeline.digest,
        heads_s.tolist(),
        tails_s.tolist(),
        startup_s=startup,
        spread=median(spreads) if spreads else 0.0,
        sent_bytes=sent,
        returned_bytes=returned,
        runtime=pipeline.runtime_info(runtime),
        machine=platform.platform(terse=True) if machine is None else machine,
    )


def _work(walked: _Pass, n: int) -> NDArray[np.float64]:
    """Seconds of single pieces summed up, at every cut; even between legal ones."""
    at = np.concatenate([[0.0], np.cumsum(walked.pieces_s)])
    if at[-1] <= 0:
        return np.arange(n + 1, dtype=np.float64)
    work: NDArray[np.float64] = np.interp(np.arange(n + 1), walked.cuts, at)
    return work


def _curve(
    work: NDArray[np.float64], cuts: Sequence[int], seconds: Sequence[float], whole: float
) -> NDArray[np.float64]:
    """Lay a curve that never falls through what was measured, shaped by `work` between; 0 at 0, `whole` at n."""
    monotone = np.minimum(_never_falling(seconds), whole)
    x = work[list(cuts)]
    curve = np.interp(work, x, monotone)
    curve[0], curve[-1] = 0.0, whole
    return np.maximum.accumulate(curve)


def _never_falling(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the nearest sequence (least squares) that never falls, by pooling adjacent violators.

    References
    ----------
    Ayer, Brunk, Ewing, Reid, Silverman, "An empirical distribution function for sampling with incomplete
    information", Annals of Mathematical Statistics 26(4), 1955.
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    return np.concatenate([np.full(size, mean) for mean, size in pools])


def _relative_spread(seconds: Sequence[float]) -> float | None:
    middle = median(seconds)
    if middle <= 0 or len(seconds) < 2:
        return None
    return _SIGMA * median([abs(s - middle) for s in seconds]) / middle


def _bytes(pipeline: Pipeline, walked: _Pass) -> tuple[list[float] | None, list[float] | None]:
    """Return what crosses at each cut where no boundary knows it; None where all do."""
    sent: dict[int, int | None] = {cut: pipeline.boundary(cut).nbytes for cut in pipeline.cuts}
    returned: dict[int, int | None] = {cut: pipeline.returned(cut).nbytes for cut in pipeline.cuts}
    return (
        _filled(pipeline.n, sent, walked.sent_bytes),
        _filled(pipeline.n, returned, dict.fromkeys(pipeline.cuts, walked.result_bytes)),
    )


def _filled(n: int, known: Mapping[int, int | None], measured: Mapping[int, int]) -> list[float] | None:
    if all(size is not None for size in known.values()):
        return None
    cuts = sorted(known)
    sizes = [float(measured[c] if (size := known[c]) is None else size) for c in cuts]
    filled: list[float] = np.interp(np.arange(n + 1), cuts, sizes).tolist()  # cuts that are not legal never cross
    return filled


def payload_bytes(payload: Payload) -> int:
    """About the bytes that a payload takes on the wire: arrays by their contents, the rest roughly.

    Examples
    --------
    >>> payload_bytes({"image": np.zeros((2, 3), np.float32), "boxes": [1, 2.5, "ab"]})
    57
    """
    if payload is None or isinstance(payload, bool):
        return 1
    if isinstance(payload, np.ndarray | np.generic):
        return payload.nbytes
    if isinstance(payload, int | float):
        return 9
    if isinstance(payload, str):
        return 1 + len(payload.encode())
    if isinstance(payload, bytes | bytearray | memoryview):
        return memoryview(payload).nbytes
    if isinstance(payload, Mapping):
        return sum(payload_bytes(k) + payload_bytes(v) for k, v in payload.items())
    if isinstance(payload, list | tuple | set | frozenset):
        return sum(map(payload_bytes, payload))
    return sys.getsizeof(payload)
