"""How much slower than its profile a tier is now, and how long its queue keeps requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitiot.estimators._base import SIGMA_OVER_MAD, UNKNOWN, Belief, Detector, Freshness, age, median, unsure, usable
from splitiot.estimators.cusum import LogCusum
from splitiot.estimators.level import JUMP, Level
from splitiot.observation import Observation
from splitiot.pipeline import Tier
from splitiot.topology import TierProfile

__all__ = ["TierEstimator", "WaitEstimator"]

_MAX_LOG: Final = math.log(1e6)  # beyond that it is no slow-down but a wrong profile or clock

_GUESSED: Final = 1.0  # a profile that may be wrong by as much as it says was not measured there
_LEAST_S: Final = 1e-6  # of a step: less is not measured


class TierEstimator:
    """One slow-down factor times the profile, so that one run refreshes every step.

    The factor is a `Level` of measured seconds over those of the profile: an exponential moving average that ignores a
    single hiccup, follows a jump after two runs, and forgets what was before when a drift is detected.

    Where steps are timed one by one (tasks are), the profile is refined as well: of each step the deviation from the
    factor is kept, as a moving average in logarithms.

    Parameters
    ----------
    profile : TierProfile
    tier : Tier
        Which of an observation's seconds are this tier's.
    alpha : float
        Least weight of the newest sample, in (0, 1].
    detector : callable
        Makes the drift detector; see `Level`.

    Attributes
    ----------
    heads_s, tails_s : array of float, shape (n + 1,)
        The refined profile, at factor 1. Read-only, a new array where it changes.
    refused : int
        Numbers that were not finite, negative, impossible, or not as many as steps.

    Examples
    --------
    >>> estimator = TierEstimator(TierProfile.from_steps("ab", [0.1, 0.1]), Tier.DEVICE)
    >>> estimator.update(Observation(plan_id=1, cut=1, head_s=0.12), now_s=0.0)
    >>> round(estimator.get(), 6)
    1.2
    >>> steps = (0.12, 0.36)
    >>> estimator.update(Observation(plan_id=2, cut=2, head_s=sum(steps), head_steps_s=steps), now_s=0.5)
    >>> estimator.update(Observation(plan_id=3, cut=2, head_s=sum(steps), head_steps_s=steps), now_s=1.0)
    >>> (estimator.heads_s * estimator.get()).round(3).tolist()
    [0.0, 0.12, 0.48]
    """

    __slots__ = (
        "_counts",
        "_deviations",
        "_guessed",
        "_heads",
        "_last_s",
        "_level",
        "_log_steps",
        "_more_s",
        "_steps_s",
        "_tails",
        "_tier",
        "_value",
        "heads_s",
        "profile",
        "refused",
        "tails_s",
    )

    heads_s: NDArray[np.float64]
    tails_s: NDArray[np.float64]

    def __init__(
        self,
        profile: TierProfile,
        tier: Tier,
        *,
        alpha: float = 0.2,
        detector: Callable[[], Detector] = LogCusum,
    ) -> None:
        self._tier = tier
        self._level = Level(alpha, detector)
        self.refused = 0
        self.set_profile(profile)

    def set_profile(self, profile: TierProfile) -> None:
        """Start again from another profile, at factor 1."""
        self.profile = profile
        self._guessed = profile.noise >= _GUESSED
        self._level.start(has_prior=not self._guessed)
        self._value = 1.0
        self._last_s = -math.inf
        self._counts: NDArray[np.int64] | None = None  # and the rest: once steps are timed
        self._take_curves(profile.heads_s, profile.tails_s)

    def _take_curves(self, heads_s: NDArray[np.float64], tails_s: NDArray[np.float64]) -> None:
        heads_s.flags.writeable = tails_s.flags.writeable = False
        self.heads_s, self.tails_s = heads_s, tails_s
        self._heads, self._tails = heads_s.tolist(), tails_s.tolist()  # quicker to read one by one

    def update(self, observation: Observation, now_s: float) -> None:
        """Take the seconds of this tier from an observation, if it has any."""
        self._level.drift_detected = False
        if observation.probe:
            return
        o, n = observation, self.profile.n
        if not 0 <= o.cut <= n:
            self.refused += 1
            return
        if self._tier is Tier.DEVICE:
            drift = self._take(o.head_s, 0, o.cut, o.head_steps_s, now_s)
            drift |= self._take(o.local_s, o.cut, n, o.local_steps_s, now_s)
            self._level.drift_detected = drift
            return
        steps: tuple[float, ...] = ()
        seconds = o.tail_s
        if o.edge is not None:
            steps = o.edge.steps_s
            if seconds is None:
                seconds = o.edge.compute_s
        self._take(seconds, o.cut, n, steps, now_s)

    def _take(self, measured: float | None, start: int, stop: int, steps: Sequence[float], now_s: float) -> bool:
        """Take the seconds of a part; say whether they show a drift."""
        if measured is None:
            return False
        if not usable(measured):
            self.refused += 1
            return False
        predicted: float = self._heads[stop] if start == 0 else self._tails[start]
        if predicted <= 0:
            return False  # an empty part says nothing
        ratio = math.log(measured) - math.log(predicted) if measured > 0 else -math.inf
        if abs(ratio) > _MAX_LOG:
            self.refused += 1
            return False
        self._last_s = now_s
        level = self._level
        if level.update(ratio, (start, stop)):
            self._value = math.exp(level.log)
            if steps:
                self._refine(steps, start, stop, ratio)
        return level.drift_detected

    def _refine(self, steps: Sequence[float], start: int, stop: int, ratio: float) -> None:
        """Take the seconds of single steps, in a part that was `ratio` (a logarithm) slower than expected."""
        if len(steps) != stop - start:
            self.refused += 1
            return
        seconds = np.array(steps, dtype=np.float64)
        if not (seconds.min() > 0 and seconds.max() < math.inf):
            self.refused += 1
            return
        if self._counts is None:
            self._counts = np.zeros(self.profile.n, np.int64)
            self._deviations = np.zeros(self.profile.n)
            self._expect()
        if self._level.samples <= 2:  # after a drift the old ones count no more than a new one
            np.minimum(self._counts, 1, out=self._counts)
        part = slice(start, stop)
        off = np.log(seconds) - self._log_steps[part]
        off -= ratio + self._deviations[part]
        off[~(np.abs(off) < _MAX_LOG)] = 0.0
        counts = self._counts[part]
        counts += 1
        self._deviations[part] += off * np.maximum(self._level.alpha, 1.0 / counts)
        self._recount()

    def _expect(self) -> None:
        """Note what the profile says of each step, never nothing: no multiple of nothing is a second."""
        steps_s = np.diff(self.profile.heads_s)
        self._steps_s = np.maximum(steps_s, _LEAST_S)
        self._log_steps = np.log(self._steps_s)
        self._more_s = self._steps_s - steps_s

    def _recount(self) -> None:
        """Work out the curves anew."""
        more = self._steps_s * np.expm1(self._deviations) + self._more_s
        heads_s, tails_s = self.profile.heads_s.copy(), self.profile.tails_s.copy()
        heads_s[1:] += np.cumsum(more)
        tails_s[:-1] += np.cumsum(more[::-1])[::-1]
        # a profile's tails are no sums of steps (start-ups, copies): what is taken off them must leave a curve
        tails_s = np.maximum.accumulate(np.maximum(tails_s, 0.0)[::-1])[::-1]
        self._take_curves(heads_s, tails_s)

    def get(self) -> float:
        """Return the factor: how many times slower than the (refined) profile."""
        return self._value

    @property
    def alpha(self) -> float:
        """Least weight of the newest sample."""
        return self._level.alpha

    @property
    def samples(self) -> int:
        """How many samples the factor rests on: those since the last drift."""
        return self._level.samples

    @property
    def drift_detected(self) -> bool:
        """Whether the last update detected a drift."""
        return self._level.drift_detected

    @property
    def spread(self) -> float:
        """Relative spread of one run around the estimate, like one sigma; at least the profile's own."""
        return max(self.profile.spread, self._level.spread)

    @property
    def baseline(self) -> float:
        """The factor around which it lies between drifts."""
        return math.exp(self._level.baseline)

    @property
    def awaiting_confirmation(self) -> bool:
        """Whether the last sample was far off, and no second one has confirmed it yet."""
        return self._level.awaiting_confirmation

    def freshness(self, now_s: float) -> Freshness:
        """Return how much the factor still counts for."""
        level = self._level
        # a few samples count for less where they contradict a profile, and nothing is known where there is neither
        few = unsure(level.taken) if self._guessed or abs(level.log - level.baseline) > JUMP else 0.0
        width = UNKNOWN if self._guessed and not level.taken else 0.0
        return Freshness(age(now_s, self._last_s), level.drifts, few, width)

    def belief(self, now_s: float) -> Belief:
        """Return the factor with all that is known of how good it is."""
        level = self._level
        return Belief(
            self._value,
            self.spread,
            age(now_s, self._last_s),
            level.samples,
            level.drifts,
            self.baseline,
            level.awaiting_confirmation,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        refined = self._counts is not None
        return {
            "level": self._level.snapshot(),
            "last_s": None if math.isinf(self._last_s) else self._last_s,
            "refused": self.refused,
            "deviations": self._deviations.tolist() if refined else None,
            "counts": self._counts.tolist() if self._counts is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self._level.restore(state["level"])
        self._value = math.exp(self._level.log)
        self._last_s = -math.inf if state["last_s"] is None else float(state["last_s"])
        self.refused = int(state["refused"])
        if state["counts"] is None:
            self._counts = None
            self._take_curves(self.profile.heads_s, self.profile.tails_s)
        else:
            self._counts = np.array(state["counts"], np.int64)
            self._deviations = np.array(state["deviations"], np.float64)
            self._expect()
            if not self._counts.shape == self._deviations.shape == self._steps_s.shape:
                raise ValueError(f"deviations of {len(self._counts)} steps, the profile has {self.profile.n}")
            self._recount()


class WaitEstimator:
    """Seconds that a request spends on the edge without being computed: queue, decoding, encoding, hand-over.

    What it waits for others of the same device does not count: that depends on the cut.

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
        wait_s = times.residence_s - times.compute_s - observation.held_s
        if not (usable(wait_s) and usable(times.compute_s)):
            self.refused += 1
            return
        fade = self._fade(now_s)
        self.samples += 1
        self._last_s = now_s
        self._window = [w * fade for w in self._window[1:]]
        self._window.append(float(wait_s))
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
        spread = SIGMA_OVER_MAD * off / self._median if self._median > 0 else 0.0
        return Belief(self.get(now_s), spread, age(now_s, self._last_s), self.samples, baseline=0.0)

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
