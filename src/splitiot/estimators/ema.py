"""An exponential moving average."""

from __future__ import annotations

import math
from typing import Any

from splitiot.estimators._base import SIGMA_OVER_MEAN_DEVIATION, usable

__all__ = ["Ema"]

_FAR = 4.0  # mean absolute deviations; about 3.2 sigma of a normal distribution
_ENOUGH = 5  # samples before anything is called far


class Ema:
    """An exponential moving average: ``mean += alpha * (x - mean)``, the first value taken as it is.

    Parameters
    ----------
    alpha : float
        Weight of the newest sample, in (0, 1].

    Attributes
    ----------
    refused : int
        Samples that were not a finite number >= 0. They change nothing.
    samples : int

    Examples
    --------
    >>> mean = Ema(alpha=0.5)
    >>> for x in (4.0, float("nan"), 2.0): mean.update(x)
    >>> mean.get(), mean.samples, mean.refused
    (3.0, 2, 1)
    """

    __slots__ = ("_deviation", "_far", "_mean", "alpha", "refused", "samples")

    def __init__(self, alpha: float = 0.2) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha lies in (0, 1], got {alpha}")
        self.alpha = alpha
        self.samples = 0
        self.refused = 0
        self._mean = math.nan
        self._deviation = 0.0
        self._far = 0  # how many of the last samples in a row were far off, with their sign

    def update(self, x: float) -> None:
        """Take one sample."""
        if not usable(x):
            self.refused += 1
            return
        self.samples += 1
        if self.samples == 1:
            self._mean = float(x)
            return
        off = x - self._mean
        size, limit = abs(off), _FAR * self._deviation
        if self.samples > _ENOUGH and size > limit:
            if limit > 0:
                size = limit  # one outlier shall not hide the next
            side = 1 if off > 0 else -1
            self._far = self._far + side if self._far * side > 0 else side
        else:
            self._far = 0
        self._mean += self.alpha * off
        self._deviation += self.alpha * (size - self._deviation)

    def get(self) -> float:
        """Return the average, NaN before the first sample."""
        return self._mean

    @property
    def spread(self) -> float:
        """Mean absolute deviation of the samples, scaled to the sigma of a normal distribution."""
        return SIGMA_OVER_MEAN_DEVIATION * self._deviation

    @property
    def drift_detected(self) -> bool:
        """Whether two samples or more in a row lay far off on one side: it sees big shifts only."""
        return abs(self._far) >= 2

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "mean": None if self.samples == 0 else self._mean,
            "deviation": self._deviation,
            "far": self._far,
            "samples": self.samples,
            "refused": self.refused,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self._mean = math.nan if state["mean"] is None else float(state["mean"])
        self._deviation = float(state["deviation"])
        self._far = int(state["far"])
        self.samples = int(state["samples"])
        self.refused = int(state["refused"])
