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
    "Baseline",
    "Belief",
    "Beliefs",
    "Detector",
    "Freshness",
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


class Freshness(msgspec.Struct, frozen=True):
    """How much a measurement of a device, an edge or a link still counts for.

    Parameters
    ----------
    age_s : float
        Seconds since it was measured; of a link: with bytes enough to show its bandwidth.
    drifts : int
        How many were detected; a link's are those of bandwidth and round trip.
    unsure : float
        The probability that what is believed does not hold, since it was never measured or only by a few samples,
        which may have come at a bad moment.
    width : float
        How far off it may then be: sigma of the logarithm; 0 where that is as for any other. A bandwidth's is above 0
        where it is a lower bound, since frames were too small to show more: it can only be higher.
    """

    age_s: float
    drifts: int
    unsure: float = 0.0
    width: float = 0.0


class Baseline(msgspec.Struct, frozen=True):
    """What lies between drifts: factors of device and edge, seconds a byte both ways, and the round trip."""

    device: float
    edge: float
    up_s_per_byte: float
    down_s_per_byte: float
    rtt_s: float


class Staleness(msgspec.Struct, frozen=True):
    """What says of `Beliefs` whether something should be measured again: read at every decision, so made quickly.

    Parameters
    ----------
    device, edge, link : Freshness
    baseline : Baseline
    awaiting_confirmation : bool
        A last sample was far off, and no second one has confirmed it yet.
    """

    device: Freshness
    edge: Freshness
    link: Freshness
    baseline: Baseline
    awaiting_confirmation: bool

    @classmethod
    def of(cls, beliefs: Beliefs) -> Staleness:
        """Take it from all beliefs."""
        b = beliefs
        up, down = b.up_bytes_per_s, b.down_bytes_per_s
        return cls(
            Freshness(b.device.age_s, b.device.drifts),
            Freshness(b.edge.age_s, b.edge.drifts),
            Freshness(up.age_s, up.drifts + b.rtt_s.drifts),
            Baseline(b.device.baseline, b.edge.baseline, 1.0 / up.baseline, 1.0 / down.baseline, b.rtt_s.baseline),
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
