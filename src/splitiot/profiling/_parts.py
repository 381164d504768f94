"""Measures the parts that are here, where the others are not: what `splitiot.profile` does for a bundle."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitiot.errors import ProfileError
from splitiot.estimators._base import SIGMA_OVER_MAD
from splitiot.pipeline import Payload, Pipeline
from splitiot.runner import Runner
from splitiot.topology import TierProfile

__all__ = ["GUESS_S", "profile_parts"]

_LEAST_ROUNDS = 3
GUESS_S: Final = 1e-3  # a step, where nothing of it can be measured here


def profile_parts(
    pipeline: Pipeline,
    sample: Any,
    *,
    runner: Runner | None = None,
    repeats: int = 15,
    budget_s: float = 2.0,
    heads: int = 8,
    clock: Callable[[], float] = time.perf_counter,
    machine: str | None = None,
) -> TierProfile:
    """Measure the heads and tails that a pipeline has here.

    Seconds at cuts whose parts are not here are guesses: between measured heads by the number of steps, and behind the
    last one as if the steps went on like that. No placement uses them on this tier.

    Parameters
    ----------
    pipeline : Pipeline
        With `parts`.
    sample : object
        A typical input.
    runner : Runner, optional
        Whose runtime to measure.
    repeats, budget_s
        Rounds, and after how many seconds no further one begins; 3 are always run.
    heads : int
        The most heads to measure.
    clock : callable
        Gives seconds.
    machine : str, optional
        Words for people; the operating system's name for it unless given.

    Raises
    ------
    ProfileError
        The pipeline has values of unknown size: only the whole tells what crosses.
    """
    n, have = pipeline.n, set(pipeline.parts or ())
    untyped = [c for c in pipeline.cuts if None in (pipeline.boundary(c).nbytes, pipeline.returned(c).nbytes)]
    if untyped:
        raise ProfileError(
            f"what crosses at cut {untyped[0]} is known only to the whole pipeline, and this device has parts of it: "
            "profile the whole on such a machine, and give the Device that profile"
        )
    cuts = _spread(sorted(stop for start, stop in have if start == 0), heads)
    parts = [(0, c) for c in cuts] + [(c, n) for c in cuts if c < n and (c, n) in have]
    payload = pipeline.bind(sample)
    runtime = None if runner is None else runner.runtime
    with Runner(pipeline, runtime=runtime, clock=clock) as own:
        times = _measure(own, payload, parts, repeats, budget_s, clock)
    middle = {part: float(np.median(seconds)) for part, seconds in times.items()}
    heads_s, tails_s = _curves(n, middle)
    spreads = [SIGMA_OVER_MAD * float(np.median(np.abs(np.array(t) - middle[p]))) / middle[p] for p, t in times.items()]
    return TierProfile(
        pipeline.digest,
        heads_s.tolist(),
        tails_s.tolist(),
        spread=float(np.median(spreads)) if spreads else 0.0,
        runtime=pipeline.runtime_info(runtime),
        machine=platform.platform(terse=True) if machine is None else machine,
    )


def _spread(cuts: list[int], most: int) -> list[int]:
    """Choose some of them, the first and the last among them."""
    if len(cuts) <= most:
        return cuts
    return [cuts[i] for i in np.unique(np.linspace(0, len(cuts) - 1, most).round().astype(int))]


def _measure(
    runner: Runner,
    payload: Payload,
    parts: list[tuple[int, int]],
    repeats: int,
    budget_s: float,
    clock: Callable[[], float],
) -> dict[tuple[int, int], list[float]]:
    payloads = {0: payload}
    times: dict[tuple[int, int], list[float]] = {part: [] for part in parts}
    for start, stop in parts:  # heads first: they make what the tails take
        result, _ = runner.run(start, stop, payloads[start], owner=(start, stop))
        payloads.setdefault(stop, runner.pipeline.divide(stop, result)[0] if start == 0 else None)
    began_s = clock()
    for done in range(repeats):
        if done >= _LEAST_ROUNDS and clock() - began_s >= budget_s:
            break
        for start, stop in parts:  # interleaved, so that a slow moment hits all parts alike
            owner = (start, stop)
            runner.run(start, stop, payloads[start], owner=owner)  # the other parts have emptied the caches
            _, seconds = runner.run(start, stop, payloads[start], owner=owner)
            if not 0 < seconds < math.inf:
                raise ProfileError(f"running [{start}, {stop}) took {seconds} s: the clock is broken, or too coarse")
            times[start, stop].append(seconds)
    return times


def _curves(n: int, middle: dict[tuple[int, int], float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heads and tails at every cut."""
    at = np.arange(n + 1, dtype=np.float64)
    known = sorted((stop, seconds) for (start, stop), seconds in middle.items() if start == 0)
    stops, seconds = [0, *(c for c, _ in known)], [0.0, *(s for _, s in known)]
    if stops[-1] < n:
        stops, seconds = [*stops, n], [*seconds, seconds[-1] * n / stops[-1] if stops[-1] else GUESS_S * n]
    heads: NDArray[np.float64] = np.interp(at, stops, np.maximum.accumulate(seconds))
    whole = float(heads[-1])
    back = sorted((start, s) for (start, stop), s in middle.items() if start > 0)
    if not back:
        return heads, whole - heads
    tails = np.interp(at, [0, *(c for c, _ in back), n], [whole, *(s for _, s in back), 0.0])
    return heads, np.minimum.accumulate(np.minimum(tails, whole))
