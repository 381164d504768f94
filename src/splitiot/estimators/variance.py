"""The spread of the last samples: SCIoT's detector."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

from splitiot.estimators._base import usable

__all__ = ["VarianceDetector"]

_FEWEST: Final = 3


class VarianceDetector:
    """The coefficient of variation of the last samples against a threshold, as SCIoT has it.

    Drift is where their sample standard deviation over their mean is above the threshold, for as long as it is. That
    measures noise, not shifts: steady noise above the threshold is drift all the time, and a small shift none.
    `LogCusum` detects shifts; this is for comparison and compatibility.

    Parameters
    ----------
    window : int
        How many samples, at least 3. With fewer than 3 there is no drift.
    threshold : float

    Attributes
    ----------
    refused : int
        Samples that were not a finite number >= 0. They change nothing else.
    samples : int
        All others.

    Examples
    --------
    >>> detector = VarianceDetector()
    >>> for x in (1.0, 1.0, 1.3): detector.update(x)
    >>> round(detector.get(), 3), detector.drift_detected
    (0.157, True)
    """

    __slots__ = ("_last", "_variation", "refused", "samples", "threshold")

    def __init__(self, window: int = 10, threshold: float = 0.15) -> None:
        if window < _FEWEST:
            raise ValueError(f"window is {_FEWEST} or more, got {window}")
        if not 0 <= threshold < math.inf:
            raise ValueError(f"threshold is a finite number >= 0, got {threshold}")
        self.threshold = threshold
        self._last: deque[float] = deque(maxlen=window)
        self.refused = 0
        self.reset()

    def reset(self) -> None:
        """Forget all samples; only `refused` stays."""
        self.samples = 0
        self._last.clear()
        self._variation = math.nan

    def update(self, x: float) -> None:
        """Take one sample."""
        if not usable(x):
            self.refused += 1
            return
        self.samples += 1
        self._last.append(float(x))
        self._measure()

    def _measure(self) -> None:
        n = len(self._last)
        if n < _FEWEST:
            return
        # Each time anew: sums that are carried along would lose digits.
        mean = sum(self._last) / n
        if mean == math.inf:
            mean = sum([x / n for x in self._last])
        deviation = math.dist(self._last, (mean,) * n) / math.sqrt(n - 1)
        if deviation == math.inf:  # their squares are too large, their shares are not
            deviation, mean = math.dist([x / mean for x in self._last], (1.0,) * n) / math.sqrt(n - 1), 1.0
        self._variation = deviation / mean if mean > 0.0 else 0.0

    @property
    def drift_detected(self) -> bool:
        """Whether the last samples vary by more than the threshold."""
        return self._variation > self.threshold

    def get(self) -> float:
        """Return the coefficient of variation of the last samples; 0 if all are 0, NaN before the third."""
        return self._variation

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {"last": list(self._last), "samples": self.samples, "refused": self.refused}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self.reset()
        self._last.extend(float(x) for x in state["last"])
        self._measure()
        self.samples = int(state["samples"])
        self.refused = int(state["refused"])
