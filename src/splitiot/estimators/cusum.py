"""Cumulated sums of logarithms: they detect a shift, and take no noise for one."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

from splitiot.estimators._base import SIGMA_OVER_MAD, median

__all__ = ["LogCusum"]

_LEARN: Final = 10  # samples before the first reference
_AGAIN: Final = 8  # samples for the next ones,
_AFTER: Final = 3  # among them the last before a drift was detected: fewer do not detect one
_SLOWEST: Final = 0.01  # weight of a sample in an old reference, which so follows what creeps
_BEND: Final = 2.0  # sigmas that a sample may move the reference by
_QUIET: Final = 0.5  # the reference learns while both sums are below this part of the limit
# mean of min(|z|, _BEND) over standard normal z
_BENT: Final = math.sqrt(2 / math.pi) * (1 - math.exp(-(_BEND**2) / 2)) + _BEND * math.erfc(_BEND / math.sqrt(2))


class LogCusum:
    """A two-sided CUSUM of logarithms: it detects shifts, up or down, and takes no noise or single spike for one.

    Each sample becomes ``z = (log(x) - centre) / spread``, taken as z n / (n + 1) while the reference is young (n is
    what it rests on), clipped at +-`clip`, and added to two sums that never fall below 0: ``up += z - k`` and
    ``down += -z - k``. A sum above `h` is a drift.

    Centre and spread begin as median and median absolute deviation of the first 10 samples, which detect nothing. Then
    each sample moves them by 1/n, at least 1/100, but by no more than two sigmas would, so that spikes hardly count,
    and only while neither sum is above ``h / 2``, so that a change that is under way is not taken for the old state.
    What creeps is followed, not detected.

    After a drift it starts again: the spread stays, the centre becomes the median of 8 samples. The three that showed
    the drift are the first of them, so it is blind for 5.

    With the defaults, noise of 5 to 20 % gives about one false alarm in 1000 samples (1.5 where 2 % of the samples are
    2 to 6 times too large); at noise of 10 %, a step of 1.2 is detected after 5 samples (median). The spread is
    learned, so it is steps in sigmas that count. See `benchmarks/detectors.py`. Where noise is not new with each sample
    there are more false alarms: 6 in 1000 at an autocorrelation of 0.3.

    Parameters
    ----------
    k : float
        Allowance, in sigmas: half the smallest shift worth detecting.
    h : float
        Limit of the sums, in sigmas. Higher: fewer false alarms, longer delays.
    clip : float
        What one sample may count, in sigmas; above `k`. With 3 it takes three samples to detect anything, so two spikes
        in a row are no drift.
    least : float
        Least spread believed, relative: 0.01 is 1 %. Without it the ticks of a clock would be drifts.

    Attributes
    ----------
    refused : int
        Samples that were not a finite number above 0. They change nothing else, and show no drift.
    samples : int
        All others.

    Notes
    -----
    It takes any positive numbers whose noise is relative: seconds, bytes per second, or *innovations*. For those give
    ``measured / predicted``, the prediction made before the sample was seen. A model that is off by a constant factor
    is no drift, since the centre is learned. Steps that a quick model soon learns itself are short pulses here: one
    that predicts with an average of weight 0.2 hides three of four steps of 2 sigmas, and one of seven of 3 sigmas. To
    detect all, predict with what does not follow, such as the profile.

    The sums are those of Page (Biometrika 1954), their reading while the reference is still learned is Hawkins' self-
    starting CUSUM (The Statistician 1987), with bent instead of plain residuals.

    Examples
    --------
    >>> detector = LogCusum()
    >>> for i in range(60):
    ...     detector.update((1.0, 1.1, 0.9)[i % 3] * (2.0 if i >= 40 else 1.0))
    ...     if detector.drift_detected:
    ...         print(i, detector.get() > 0)
    42 True
    >>> round(detector.reference, 1)
    2.0
    """

    __slots__ = (
        "_centre",
        "_down",
        "_drift_detected",
        "_first",
        "_n",
        "_quiet",
        "_recent",
        "_spread",
        "_up",
        "clip",
        "h",
        "k",
        "least",
        "refused",
        "samples",
    )

    def __init__(self, k: float = 0.5, h: float = 6.0, *, clip: float = 3.0, least: float = 0.01) -> None:
        if not 0 <= k < clip < math.inf:
            raise ValueError(f"0 <= k < clip < inf, got k={k}, clip={clip}")
        for name, value in (("h", h), ("least", least)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is a finite number above 0, got {value}")
        self.k = k
        self.h = h
        self.clip = clip
        self.least = least
        self._quiet = h * _QUIET
        self.refused = 0
        self.reset()

    def reset(self) -> None:
        """Forget all samples; only `refused` stays."""
        self.samples = 0
        self._n = 0  # how many the reference rests on; 0 before the first reference
        self._centre = math.nan
        self._spread = math.nan
        self._first: list[float] | None = []  # logarithms that wait for a reference, None where there is one
        self._recent: deque[float] = deque(maxlen=_AFTER)
        self._up = self._down = 0.0
        self._drift_detected = False

    def update(self, x: float) -> None:
        """Take one sample."""
        self._drift_detected = False
        if not 0.0 < x < math.inf:
            self.refused += 1
            return
        y = math.log(x)
        self.samples += 1
        if self._first is not None:
            self._learn(y)
            return
        spread, clip, k = self._spread, self.clip, self.k
        z = (y - self._centre) / spread
        quiet = self._up < self._quiet and self._down < self._quiet  # before this sample: else it would be a bias
        counted = z / (1.0 + 1.0 / self._n)  # a young reference is uncertain
        counted = clip if counted > clip else -clip if counted < -clip else counted
        up = self._up + counted - k
        down = self._down - counted - k
        self._up = up = up if up > 0.0 else 0.0
        self._down = down = down if down > 0.0 else 0.0
        self._recent.append(y)
        if up > self.h or down > self.h:
            self._first = list(self._recent)
            self._drift_detected = True
        elif quiet:
            self._n += 1
            moved = spread * (1.0 / self._n if self._n * _SLOWEST < 1.0 else _SLOWEST)
            bent = _BEND if z > _BEND else -_BEND if z < -_BEND else z
            self._centre += moved * bent
            spread += moved * (abs(bent) / _BENT - 1.0)
            self._spread = spread if spread > self.least else self.least

    def _learn(self, y: float) -> None:
        self._up = self._down = 0.0
        first = self._first
        assert first is not None
        first.append(y)
        if len(first) < (_AGAIN if self._n else _LEARN):
            return
        self._centre = centre = median(first)
        if not self._n:
            # the deviation of few is too small in the mean
            spread = SIGMA_OVER_MAD * (1 + 1 / len(first)) * median(abs(y - centre) for y in first)
            self._spread = max(spread, self.least)
        self._n = len(first)
        self._first = None

    @property
    def drift_detected(self) -> bool:
        """Whether the last update detected a drift: True once a drift, then it starts again."""
        return self._drift_detected

    def get(self) -> float:
        """Return the larger sum, negative where it is that of falling numbers; beyond +-`h` at a drift only."""
        return self._up if self._up >= self._down else -self._down

    @property
    def reference(self) -> float:
        """What samples are compared with: about their median. NaN before the first 10."""
        return math.exp(self._centre)

    @property
    def spread(self) -> float:
        """Relative noise of the samples: one sigma of their logarithms. NaN before the first 10."""
        return self._spread

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "centre": self._centre if self._n else None,
            "spread": self._spread if self._n else None,
            "n": self._n,
            "first": None if self._first is None else list(self._first),
            "recent": list(self._recent),
            "up": self._up,
            "down": self._down,
            "drift_detected": self._drift_detected,
            "samples": self.samples,
            "refused": self.refused,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self._n = int(state["n"])
        self._centre = float(state["centre"]) if self._n else math.nan
        self._spread = float(state["spread"]) if self._n else math.nan
        first = state["first"]
        self._first = None if first is None else [float(y) for y in first]
        self._recent = deque((float(y) for y in state["recent"]), maxlen=_AFTER)
        self._up = float(state["up"])
        self._down = float(state["down"])
        self._drift_detected = bool(state["drift_detected"])
        self.samples = int(state["samples"])
        self.refused = int(state["refused"])
