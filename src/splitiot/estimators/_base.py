"""What estimators share. Work is done in `update`; reading is O(1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Protocol, runtime_checkable

import msgspec

__all__ = [
    "SIGMA_OVER_MAD",
    "SIGMA_OVER_MEAN_DEVIATION",
    "UNKNOWN",
    "Belief",
    "Beliefs",
    "Detector",
    "Scalar",
    "Staleness",
    "age",
    "median",
    "unsure",
    "usable",
]

_FEW: Final = 10
SIGMA_OVER_MAD: Final = 1.4826
"""Sigma of a normal distribution over its median absolute deviation."""
SIGMA_OVER_MEAN_DEVIATION: Final = 1.2533
"""Sigma of a normal distribution over its mean absolute deviation: sqrt(pi / 2)."""
UNKNOWN: Final = 1.5
"""Sigma of the logarithm of what nobody has measured: a guess may be off by 4.5 times."""


class Belief(msgspec.Struct, frozen=True):
    """An estimate.

    Parameters
    ----------
    value : float
    spread : float
        Typical deviation of one sample, relative to `value` (like one sigma over the mean).
    age_s : float
        Seconds since the last sample; inf before the first.
    samples : int
        How many it rests on: those since the last drift. 0 means that it is a prior.
    drifts : int
        How many drifts were detected: it did not hold any more, and what came before does not count since.
    baseline : float
        The level around which it lies between drifts; the first one, or the prior, where there was none yet.
    awaiting_confirmation : bool
        The last sample was far off; it is not believed before another one confirms it.
    """

    value: float
    spread: float
    age_s: float
    samples: int
    drifts: int = 0
    baseline: float = math.nan
    awaiting_confirmation: bool = False


class Beliefs(msgspec.Struct, frozen=True):
    """All that a planner believes.

    Parameters
    ----------
    device, edge : Belief
        How many times slower than their profiles.
    rtt_s, up_bytes_per_s, down_bytes_per_s : Belief
    wait_s : Belief
        Seconds that a request spends on the edge without being computed.
    """

    device: Belief
    edge: Belief
    rtt_s: Belief
    up_bytes_per_s: Belief
    down_bytes_per_s: Belief
    wait_s: Belief


class Staleness(msgspec.Struct, frozen=True):
    """Of `Beliefs` what tells whether something should be measured again: read at every decision, so made quickly.

    Parameters
    ----------
    ages_s : (float, float, float)
        Seconds since the device, the edge, and the link with bytes enough to tell its bandwidth were measured.
    drifts : (int, int, int)
        How many were detected of each; the link's are those of bandwidth and round trip.
    baseline : tuple of 5 float
        Factors of device and edge, seconds a byte up and down, and the round trip, as they are between drifts.
    awaiting_confirmation : bool
        A last sample was far off, and no second one has confirmed it yet.
    unsure : (float, float, float)
        Of device, edge and bandwidth: the probability that what is believed does not hold, since it was never measured
        or only by a few samples, which may have come at a bad moment.
    widths : (float, float, float)
        How far off each may then be: sigma of the logarithm; 0 where that is usual. The bandwidth's is above 0 where it
        is a lower bound, since frames were too small to tell more: it can only be higher.
    """

    ages_s: tuple[float, float, float]
    drifts: tuple[int, int, int]
    baseline: tuple[float, float, float, float, float]
    awaiting_confirmation: bool
    unsure: tuple[float, float, float] = (0.0, 0.0, 0.0)
    widths: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(cls, beliefs: Beliefs) -> Staleness:
        """Take it from all beliefs."""
        b = beliefs
        up, down = b.up_bytes_per_s, b.down_bytes_per_s
        return cls(
            (b.device.age_s, b.edge.age_s, up.age_s),
            (b.device.drifts, b.edge.drifts, up.drifts + b.rtt_s.drifts),
            (b.device.baseline, b.edge.baseline, 1.0 / up.baseline, 1.0 / down.baseline, b.rtt_s.baseline),
            b.device.awaiting_confirmation or b.edge.awaiting_confirmation or up.awaiting_confirmation,
        )


@runtime_checkable
class Scalar(Protocol):
    """An estimator of one number: the names of River's `stats`, so that they fit."""

    def update(self, x: float) -> object:
        """Take one sample."""

    def get(self) -> float:
        """Return the estimate."""


@runtime_checkable
class Detector(Protocol):
    """It detects when numbers no longer fit those before: the names of River's `drift`, so that they fit."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last update detected a change."""

    def update(self, x: float) -> object:
        """Take one sample."""


def unsure(samples: int) -> float:
    """How likely it is that what so few samples say does not hold: a cold start, a connection that was set up."""
    if samples == 0:
        return 1.0
    return 0.5 / (1 + samples) if samples < _FEW else 0.0


def usable(seconds: float) -> bool:
    """Whether it can be a duration at all: finite and not negative."""
    return 0.0 <= seconds < math.inf


def age(now_s: float, last_s: float) -> float:
    """Seconds since `last_s`; inf where the clock stands before it: then it was read on another clock."""
    return now_s - last_s if now_s >= last_s else math.inf


def median(values: Iterable[float]) -> float:
    """The middle of a few values, or the mean of the two (`statistics` costs an import of 1 MB, and is slower)."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
