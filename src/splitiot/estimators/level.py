"""A level that holds for a while, jumps, and holds again: what factors and bandwidths do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from splitiot.estimators._base import SIGMA_OVER_MEAN_DEVIATION, Detector, median
from splitiot.estimators.cusum import LogCusum

__all__ = ["Level"]

JUMP: Final = math.log(1.5)
_FAR: Final = 4.0
_HELD: Final = 5  # samples that make a level one that held
_OVERRULED: Final = 50  # samples that say more of the baseline than a prior does: at a bad moment there are few
_DETECTING: Final = 3  # samples that it takes to detect a drift
_TREND: Final = 0.3  # weight of the newest level in the baseline


class Level:
    """Follows the logarithm of a number: slowly while it holds, at once where it drifts.

    Between drifts it is the mean of the samples since the last one, and of many the exponential moving average. A
    sample that is off by more than half, or by more than four times the usual deviation, changes nothing until a second
    one in a row confirms it on the same side: then the level jumps to the nearer of both. So a single hiccup (a cold
    start, a context switch) is ignored, and a real change is followed after two samples. Smaller changes are detected
    by a drift detector; then the level is the median of the last three, and what was before no longer counts.

    Parameters
    ----------
    alpha : float
        Least weight of the newest sample, in (0, 1].
    detector : callable
        Makes a drift detector: `LogCusum`, or another one with `update(x)` and `drift_detected`, such as River's. It
        is given numbers around a constant. Its state is in the snapshot where it has a `snapshot` and a `restore` of
        its own, else it begins anew after a restart.

    Attributes
    ----------
    log : float
        Logarithm of the level.
    baseline : float
        Logarithm of the average level of those that held; until there was one that of the start, where that was known
        (fifty samples overrule it), else of the first.
    samples : int
        How many the level rests on, since the last drift.
    taken : int
        How many were believed since the start.
    drifts : int
    drift_detected : bool
        Whether the last sample showed one.
    """

    __slots__ = (
        "_detector",
        "_deviation",
        "_drifting",
        "_has_prior",
        "_make",
        "_part",
        "_part_mismatches",
        "_pending",
        "_recent",
        "alpha",
        "baseline",
        "drift_detected",
        "drifts",
        "log",
        "samples",
        "taken",
    )

    def __init__(self, alpha: float = 0.2, detector: Callable[[], Detector] = LogCusum) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha lies in (0, 1], got {alpha}")
        self.alpha = alpha
        self._make = detector
        self.drifts = 0
        self.start()

    def start(self, log: float = 0.0, *, held: bool = False, has_prior: bool = False) -> None:
        """Begin at a level, as if there had been no sample, or as if it had `held` for some.

        With `has_prior` somebody has measured it: it is the baseline until fifty samples overrule it, or levels behind
        a drift have held.
        """
        self.log = self.baseline = log
        self._has_prior = has_prior
        self.samples = _HELD if held else 0
        self.taken = 0
        self.drift_detected = False
        self._deviation = 0.0
        self._pending: float | None = None
        self._recent: deque[float] = deque(maxlen=_DETECTING)
        self._watch(None)

    def _watch(self, part: object) -> None:
        self._detector, self._part, self._part_mismatches, self._drifting = self._make(), part, 0, False

    def update(self, log: float, part: object = None) -> bool:
        """Take a sample's logarithm; say whether it was believed.

        Parameters
        ----------
        log : float
        part : object
            What was measured. A profile may be more wrong for one part than for another, which is no drift: the
            detector sees samples of one part only, and turns to another when that comes twice in a row.
        """
        self.drift_detected = False
        off = log - self.log
        if abs(off) > max(JUMP, _FAR * self._deviation):
            if self._pending is None or (self._pending > 0) != (off > 0):
                self._pending = off
                return False
            self._drift()
            self._recent.clear()
            self.taken += 2
            self.log += math.copysign(min(abs(off), abs(self._pending)), off)
            self.samples = 2
            self._pending = None
            self._watch(part)
            return True
        self._pending = None
        self.taken += 1
        self._recent.append(log)
        if self._shows_drift(log, part):
            self._drift()
            self.log, self.samples = median(self._recent), len(self._recent)
        else:
            self.samples += 1
            self.log += off * max(self.alpha, 1 / self.samples)
        self._deviation += self.alpha * (abs(off) - self._deviation)
        if self.drifts == 0 and (self.samples == _OVERRULED if self._has_prior else self.samples < _HELD):
            self.baseline = self.log
        return True

    def _shows_drift(self, log: float, part: object) -> bool:
        if part != self._part:
            self._part_mismatches += 1
            if self._part_mismatches < 2:
                return False
            self._watch(part)
        self._part_mismatches = 0
        self._detector.update(math.exp(log))
        before, self._drifting = self._drifting, self._detector.drift_detected
        return self._drifting and not before  # some detectors say so for as long as it lasts

    def _drift(self) -> None:
        if self.samples == 0:  # this is where it begins
            return
        self.hold()
        self.drifts += 1
        self.drift_detected = True

    def hold(self) -> None:
        """Let the present level count for the baseline, if it held."""
        if self.samples >= _HELD:
            self.baseline += _TREND * (self.log - self.baseline)

    @property
    def awaiting_confirmation(self) -> bool:
        """Whether the last sample was far off, and no second one has confirmed it yet."""
        return self._pending is not None

    @property
    def spread(self) -> float:
        """Typical deviation of one sample from the level, relative, like one sigma."""
        return SIGMA_OVER_MEAN_DEVIATION * self._deviation

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        state: dict[str, Any] = {
            "log": self.log,
            "baseline": self.baseline,
            "deviation": self._deviation,
            "pending": self._pending,
            "recent": list(self._recent),
            "samples": self.samples,
            "taken": self.taken,
            "drifts": self.drifts,
        }
        keep = getattr(self._detector, "snapshot", None)
        if keep is not None:
            part = list(self._part) if isinstance(self._part, tuple) else self._part
            state |= {"detector": keep(), "part": part}
            state |= {"part_mismatches": self._part_mismatches, "drifting": self._drifting}
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self.log, self.baseline = float(state["log"]), float(state["baseline"])
        self._deviation = float(state["deviation"])
        self._pending = None if state["pending"] is None else float(state["pending"])
        self._recent = deque(map(float, state["recent"]), maxlen=_DETECTING)
        self.samples, self.taken, self.drifts = int(state["samples"]), int(state["taken"]), int(state["drifts"])
        self.drift_detected = False
        self._watch(None)
        take: Any = getattr(self._detector, "restore", None)
        if "detector" in state and take is not None:
            take(state["detector"])
            part = state["part"]
            self._part = tuple(part) if isinstance(part, list) else part
            self._part_mismatches, self._drifting = int(state["part_mismatches"]), bool(state["drifting"])
