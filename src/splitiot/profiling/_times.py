"""What repeated runs show: each part's typical seconds, and how steady the machine was meanwhile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from splitiot.estimators._base import SIGMA_OVER_MAD, median

__all__ = ["Times", "unsteadiness"]

_QUARTILES = 1.349  # their distance in a normal distribution, in sigmas
_MEDIAN_ERROR = 1.2533  # standard error of a median -> of a mean, for a normal distribution: sqrt(pi / 2)


class Times:
    """Seconds of each run, by part and round.

    Parameters
    ----------
    runs : mapping of (int, int) to sequence of sequence of float
        For each part its rounds, for each round its runs. All parts have the same number of rounds, at least one.

    Attributes
    ----------
    speeds : array of float, shape (rounds,)
        How much longer than usual everything took in each round: 1 is usual.
    noise : float
        How far off the seconds may be, relative, since the machine was unsteady. The larger of two: the
        `unsteadiness` of its speed, and twice the standard error that a part's median still has besides.

    Examples
    --------
    The machine was half as fast in the second of three rounds:

    >>> times = Times({(0, 1): [[1.0], [2.0], [1.0]], (0, 2): [[3.0], [6.0], [3.0]]})
    >>> times.speeds.tolist(), times.seconds((0, 2)), times.spread
    ([1.0, 2.0, 1.0], 3.0, 0.0)
    """

    def __init__(self, runs: Mapping[tuple[int, int], Sequence[Sequence[float]]]) -> None:
        self._runs = runs
        by_round = {part: np.array([median(each) for each in rounds]) for part, rounds in runs.items()}
        medians = {part: median(rounds.tolist()) for part, rounds in by_round.items()}
        relative = [rounds / medians[part] for part, rounds in by_round.items() if medians[part] > 0]
        rounds = len(next(iter(by_round.values())))
        # the median over the parts: a hiccup in one of them says nothing about the round
        self.speeds: NDArray[np.float64] = np.median(relative, axis=0) if relative else np.ones(rounds)
        self.speeds = np.where(self.speeds > 0, self.speeds, 1.0)
        self._seconds = {part: rounds / self.speeds for part, rounds in by_round.items()}
        scatter = [_scatter(s) for part, s in self._seconds.items() if medians[part] > 0 and len(s) > 1]
        error = 2 * _MEDIAN_ERROR * median(scatter) / math.sqrt(rounds) if scatter else 0.0
        self.noise = max(unsteadiness(self.speeds.tolist()), error)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """What was measured."""
        return list(self._runs)

    @property
    def spread(self) -> float:
        """Typical relative spread of one run of a part, scaled to sigma."""
        spreads = []
        for rounds in self._runs.values():
            every = np.array([seconds for each in rounds for seconds in each])
            if len(every) > 1 and median(every.tolist()) > 0:
                spreads.append(_deviation(every))
        return median(spreads) if spreads else 0.0

    def seconds(self, part: tuple[int, int]) -> float:
        """Return a part's typical seconds: rounds in which all was slow are set right by as much."""
        return median(self._seconds[part].tolist())

    def startup_s(self, whole: tuple[int, int]) -> float:
        """Return what a second part costs: head + tail - whole, compared within each round; 0 where that is unknown."""
        first, end = whole
        if whole not in self._seconds:
            return 0.0
        extra = [
            self._seconds[first, start] + tail - self._seconds[whole]
            for (start, stop), tail in self._seconds.items()
            if stop == end and (first, start) in self._seconds
        ]
        return max(0.0, float(np.median(extra))) if extra else 0.0


def unsteadiness(speeds: Sequence[float]) -> float:
    """Return how unsteady a machine was, from how long the same work took again and again; 0 is steady.

    The larger of two: the typical deviation (the distance of the quartiles, scaled to sigma), and the drift from the
    first third to the last.

    Examples
    --------
    >>> unsteadiness([1.0, 1.0, 1.0, 1.0]), unsteadiness([1.0, 1.0, 1.0, 1.5, 1.5, 1.5])
    (0.0, 0.5)
    """
    if len(speeds) < 2 or median(speeds) <= 0:
        return 0.0
    wobble = _scatter(np.array(speeds))
    third = max(1, len(speeds) // 3)
    first, last = median(speeds[:third]), median(speeds[-third:])
    drift = max(first, last) / min(first, last) - 1 if min(first, last) > 0 else 0.0
    return max(wobble, drift)


def _scatter(values: NDArray[np.float64]) -> float:
    # not the median absolute deviation: where a machine has two speeds, it sees one of them only
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(high - low) / _QUARTILES / float(middle)


def _deviation(values: NDArray[np.float64]) -> float:
    middle = float(np.median(values))
    return SIGMA_OVER_MAD * float(np.median(np.abs(values - middle))) / middle
