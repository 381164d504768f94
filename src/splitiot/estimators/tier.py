"""How much slower than its profile a tier is now, and how long its queue keeps requests."""

from __future__ import annotations

import math
from typing import Any, Final

from splitiot.estimators._base import Belief, age, median, usable
from splitiot.observation import Observation
from splitiot.pipeline import Tier
from splitiot.topology import TierProfile

__all__ = ["TierEstimator", "WaitEstimator"]

_JUMP: Final = math.log(1.5)
_FAR: Final = 4.0
_MAX_LOG: Final = math.log(1e6)  # beyond that it is no slow-down but a wrong profile or clock


class TierEstimator:
    """One slow-down factor times the profile, so that one run refreshes every step.

    An exponential moving average of log(measured / profile). A sample that is off by more than half, or by
    more than four times the usual deviation, changes nothing until a second one in a row confirms it on the
    same side: then the estimate jumps to the nearer of both. So a single hiccup (a cold start, a context
    switch) is ignored, and a real change is followed after two runs.

    Parameters
    ----------
    profile : TierProfile
    tier : Tier
        Which of an observation's seconds are this tier's.
    alpha : float
        Weight of the newest sample, in (0, 1].

    Examples
    --------
    >>> estimator = TierEstimator(TierProfile.from_steps("ab", [0.1, 0.1]), Tier.DEVICE)
    >>> estimator.update(Observation(plan_id=1, cut=1, head_s=0.12), now_s=0.0)
    >>> round(estimator.get(), 6)
    1.2
    """

    __slots__ = (
        "_deviation",
        "_last_s",
        "_log",
        "_pending",
        "_tier",
        "_value",
        "alpha",
        "profile",
        "refused",
        "samples",
    )

    def __init__(self, profile: TierProfile, tier: Tier, *, alpha: float = 0.2) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha lies in (0, 1], got {alpha}")
        self.alpha = alpha
        self._tier = tier
        self.refused = 0
        self.set_profile(profile)

    def set_profile(self, profile: TierProfile) -> None:
        """Start again from another profile, at factor 1."""
        self.profile = profile
        self.samples = 0
        self._log = 0.0
        self._value = 1.0
        self._deviation = 0.0
        self._pending: float | None = None
        self._last_s = -math.inf

    def update(self, observation: Observation, now_s: float) -> None:
        """Take the seconds of this tier from an observation, if it has any."""
        if observation.probe:
            return
        cut, profile = observation.cut, self.profile
        if not 0 <= cut <= profile.n:
            self.refused += 1
            return
        if self._tier is Tier.DEVICE:
            self._take(observation.head_s, profile.heads_s[cut], now_s)
            self._take(observation.local_s, profile.tails_s[cut], now_s)
            return
        seconds = observation.tail_s
        if seconds is None and observation.edge is not None:
            seconds = observation.edge.compute_s
        self._take(seconds, profile.tails_s[cut], now_s)

    def _take(self, measured: float | None, predicted: float, now_s: float) -> None:
        if measured is None:
            return
        if not usable(measured):
            self.refused += 1
            return
        if predicted <= 0:
            return  # an empty part tells nothing
        ratio = math.log(measured) - math.log(predicted) if measured > 0 else -math.inf
        if abs(ratio) > _MAX_LOG:
            self.refused += 1
            return
        self._last_s = now_s
        off = ratio - self._log
        if abs(off) > max(_JUMP, _FAR * self._deviation):
            if self._pending is None or (self._pending > 0) != (off > 0):
                self._pending = off
                return
            self._log += math.copysign(min(abs(off), abs(self._pending)), off)
            self.samples += 1
        else:
            self.samples += 1
            self._log += off if self.samples == 1 else self.alpha * off
            self._deviation += self.alpha * (abs(off) - self._deviation)
        self._pending = None
        self._value = math.exp(self._log)

    def get(self) -> float:
        """Return the factor: how many times slower than the profile."""
        return self._value

    @property
    def spread(self) -> float:
        """Relative spread of one run around the estimate, like one sigma; at least the profile's own."""
        return max(self.profile.spread, 1.2533 * self._deviation)

    def belief(self, now_s: float) -> Belief:
        """Return the factor with its spread, age and number of samples."""
        return Belief(self._value, self.spread, age(now_s, self._last_s), self.samples)

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "log": self._log,
            "deviation": self._deviation,
            "pending": self._pending,
            "last_s": None if math.isinf(self._last_s) else self._last_s,
            "samples": self.samples,
            "refused": self.refused,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self._log = float(state["log"])
        self._value = math.exp(self._log)
        self._deviation = float(state["deviation"])
        self._pending = None if state["pending"] is None else float(state["pending"])
        self._last_s = -math.inf if state["last_s"] is None else float(state["last_s"])
        self.samples = int(state["samples"])
        self.refused = int(state["refused"])


class WaitEstimator:
    """Seconds that a request spends on the edge without being computed: queue, decoding, encoding, hand-over.

    The median of the last five (beginning with zeros), so one cold start is ignored. Queues pass: the belief
    is halved every `half_life_s` without news, or a placement that avoids the edge would never learn that it
    is free again.

    Parameters
    ----------
    half_life_s : float

    Examples
    --------
    >>> from splitiot.observation import EdgeTimes
    >>> wait = WaitEstimator(half_life_s=10)
    >>> for _ in range(3):
    ...     times = EdgeTimes(queue_s=0.04, compute_s=0.1, residence_s=0.14)
    ...     wait.update(Observation(plan_id=1, cut=0, edge=times), now_s=0.0)
    >>> round(wait.get(now_s=0.0), 6), round(wait.get(now_s=10.0), 6)
    (0.04, 0.02)
    """

    __slots__ = ("_last_s", "_median", "_window", "half_life_s", "refused", "samples")

    def __init__(self, half_life_s: float = 10.0) -> None:
        self.half_life_s = half_life_s
        self.samples = 0
        self.refused = 0
        self._window = [0.0] * 5
        self._median = 0.0
        self._last_s = -math.inf

    def update(self, observation: Observation, now_s: float) -> None:
        """Take the edge's times from an observation, if it has any."""
        times = observation.edge
        if times is None or observation.probe or observation.censored:
            return
        wait_s = times.residence_s - times.compute_s
        if not (usable(wait_s) and usable(times.compute_s)):
            self.refused += 1
            return
        fade = self._fade(now_s)
        self.samples += 1
        self._last_s = now_s
        self._window = [w * fade for w in self._window[1:]]
        self._window.append(wait_s)
        self._median = median(self._window)

    def get(self, now_s: float) -> float:
        """Return the seconds, halved with every half-life since the last sample."""
        if self._median == 0.0:
            return 0.0
        return self._median * self._fade(now_s)

    def _fade(self, now_s: float) -> float:
        return math.exp2(-age(now_s, self._last_s) / self.half_life_s)

    def belief(self, now_s: float) -> Belief:
        """Return the seconds with their spread, age and number of samples."""
        off = median(abs(w - self._median) for w in self._window)
        spread = 1.4826 * off / self._median if self._median > 0 else 0.0
        return Belief(self.get(now_s), spread, age(now_s, self._last_s), self.samples)

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "window": list(self._window),
            "last_s": None if math.isinf(self._last_s) else self._last_s,
            "samples": self.samples,
            "refused": self.refused,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self._window = [float(w) for w in state["window"]]
        self._median = median(self._window)
        self._last_s = -math.inf if state["last_s"] is None else float(state["last_s"])
        self.samples = int(state["samples"])
        self.refused = int(state["refused"])
