"""Which steps of a tier are unstable, and which may be because the step before is: SCIoT's cascade."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from splitiot.estimators.variance import VarianceDetector

__all__ = ["VarianceCascade"]

Reading = Literal["always", "confirmed"]


class VarianceCascade:
    """A `VarianceDetector` for each of a tier's steps; an unstable step may mark the next one.

    SCIoT's cascade has two readings. Its code marks step i + 1 whenever step i is flagged ("always"). Its guide marks
    step i + 1 only if it is unstable itself ("confirmed"): then the marks are the steps' own flags. A mark made by the
    step before marks nothing further.

    Parameters
    ----------
    n : int
        Number of steps.
    window : int
    threshold : float
        Those of each `VarianceDetector`.
    cascade : {"always", "confirmed"}

    Examples
    --------
    >>> steps = VarianceCascade(4)
    >>> for x in (1.0, 2.0, 1.0):
    ...     for step, seconds in enumerate((1.0, x, 1.0, 1.0)): steps.update(step, seconds)
    >>> steps.flags
    array([False,  True,  True, False])
    """

    __slots__ = ("_always", "_flags", "_own", "_steps")

    def __init__(self, n: int, window: int = 10, threshold: float = 0.15, cascade: Reading = "always") -> None:
        if n < 0:
            raise ValueError(f"n is a number of steps, got {n}")
        if cascade not in get_args(Reading):
            raise ValueError(f"cascade is one of {', '.join(get_args(Reading))}, got {cascade!r}")
        self._always = cascade == "always"
        self._steps = [VarianceDetector(window, threshold) for _ in range(n)]
        self._own = np.zeros(n, dtype=np.bool_)
        self._mark()

    @property
    def n(self) -> int:
        """Number of steps."""
        return len(self._steps)

    @property
    def refused(self) -> int:
        """Samples of all steps that were not a finite number >= 0."""
        return sum(step.refused for step in self._steps)

    @property
    def flags(self) -> npt.NDArray[np.bool_]:
        """Which steps are unstable or marked: shape (n,), read-only. Later updates do not change it."""
        return self._flags

    @property
    def drift_detected(self) -> bool:
        """Whether any step is unstable."""
        return bool(self._own.any())

    def update(self, step: int, seconds: float) -> None:
        """Take what a step took.

        Raises
        ------
        IndexError
            If there is no such step.
        """
        if not 0 <= step < len(self._steps):
            raise IndexError(f"there are steps 0 to {len(self._steps) - 1}, got {step}")
        detector = self._steps[step]
        detector.update(seconds)
        if detector.drift_detected != self._own[step]:
            self._own[step] = detector.drift_detected
            self._mark()

    def _mark(self) -> None:
        flags = self._own.copy()
        if self._always:
            flags[1:] |= self._own[:-1]
        flags.flags.writeable = False
        self._flags = flags

    def reset(self) -> None:
        """Forget all samples; only `refused` stays."""
        for step in self._steps:
            step.reset()
        self._own[:] = False
        self._mark()

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {"steps": [step.snapshot() for step in self._steps]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned.

        Raises
        ------
        ValueError
            If it is of another number of steps.
        """
        if len(state["steps"]) != len(self._steps):
            raise ValueError(f"the state is of {len(state['steps'])} steps, not of {len(self._steps)}")
        for i, (step, kept) in enumerate(zip(self._steps, state["steps"], strict=True)):
            step.restore(kept)
            self._own[i] = step.drift_detected
        self._mark()
