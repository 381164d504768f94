"""What estimators that learn from observations must do, as checks to run over your own.

An object fits that has ``update(observation, now_s)``, something to read (``get``, ``belief``, ``beliefs``, ``vector``
or ``..._belief``, with or without ``now_s``), `refused`, `snapshot` and `restore`. The observations are of pipelines on
`splitiot.testing.topology()`: make the estimator for these profiles and this link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from splitiot.observation import Observation
from splitiot.testing import _estimating as checks
from splitiot.testing._create import create, name_of
from splitiot.testing._feeds import OBSERVATIONS
from splitiot.testing._readings import keeps_state, nonsense, readings, refused

__all__ = [
    "Learns",
    "MakeEstimator",
    "check_goes_on_after_a_restart",
    "check_has_what_a_planner_needs",
    "check_instances_share_nothing",
    "check_keeps_no_alias",
    "check_memory_stays_bounded",
    "check_reading_changes_nothing",
    "check_refuses_impossible_numbers",
    "check_same_observations_same_beliefs",
    "check_survives_any_clock",
    "check_survives_any_observation",
    "estimator_checks",
]


class Learns(Protocol):
    """What can be checked."""

    def update(self, observation: Observation, now_s: float) -> object:
        """Take what the observation says."""


MakeEstimator: TypeAlias = Callable[[], Learns]
"""A class, or a function without arguments that makes a new estimator each time."""

_TIMES: Final = (0.0, 1.0, 1.0, 1e9, 2.0, -50.0, 1e15, 0.0, -1e12, 3.0, 3.5, 4.0, 1e6, 4.5)


def check_has_what_a_planner_needs(make: MakeEstimator) -> None:
    """It counts what it `refused`, has `snapshot` and `restore`, and says something before the first observation."""
    estimator = create(make)
    if refused(estimator) is None:
        raise AssertionError(f"{name_of(estimator)} has no `refused`: count there what it could not use")
    if not keeps_state(estimator):
        raise AssertionError(f"{name_of(estimator)} needs snapshot() and restore(state), or a restart forgets it")
    if wrong := nonsense(readings(estimator, 0.0)):
        raise AssertionError(f"{name_of(estimator)}: {wrong} before the first observation. Begin with a prior")


def check_reading_changes_nothing(make: MakeEstimator) -> None:
    """Reading it, however often and for whatever time, changes neither what it says nor what it will say."""
    checks.reading_changes_nothing(make, OBSERVATIONS)


def check_refuses_impossible_numbers(make: MakeEstimator) -> None:
    """An observation of NaNs, infinities or negative numbers changes nothing but `refused`."""
    checks.refuses_the_impossible(make, OBSERVATIONS)


def check_survives_any_observation(make: MakeEstimator) -> None:
    """Missing, repeated, censored and absurd ones leave finite beliefs, and a snapshot that JSON can hold."""
    checks.survives_anything(make, OBSERVATIONS)


def check_survives_any_clock(make: MakeEstimator) -> None:
    """Clocks that stand, jump far ahead or go back (another machine's) leave finite beliefs and no negative ages."""
    estimator: Any = create(make)
    for i in range(20 * len(_TIMES)):
        now_s = _TIMES[i % len(_TIMES)]
        observation, _ = OBSERVATIONS.ordinary(0, i)
        try:
            estimator.update(observation, now_s)
            read = [readings(estimator, now_s + later_s) for later_s in (0.0, 10.0, -10.0, 1e12, -1e12)]
        except Exception as error:
            raise AssertionError(
                f"{name_of(estimator)} raised {error!r} at {now_s:g} s, after {_TIMES[(i - 1) % len(_TIMES)]:g} s: "
                "a clock may be another one after a restart"
            ) from error
        if wrong := next(filter(None, map(nonsense, read)), None):
            raise AssertionError(
                f"{name_of(estimator)}: {wrong} at {now_s:g} s, after {_TIMES[(i - 1) % len(_TIMES)]:g} s. "
                "Where the clock stands before the last sample, its age is inf"
            )


def check_same_observations_same_beliefs(make: MakeEstimator) -> None:
    """The same observations give the same beliefs, whatever the global random generators do."""
    checks.same_input_same_estimates(make, OBSERVATIONS)


def check_instances_share_nothing(make: MakeEstimator) -> None:
    """Two that are updated in turn say what each says alone."""
    checks.instances_share_nothing(make, OBSERVATIONS)


def check_goes_on_after_a_restart(make: MakeEstimator) -> None:
    """One restored from its snapshot as JSON says what the first one would have said."""
    checks.goes_on_after_a_restart(make, OBSERVATIONS)


def check_keeps_no_alias(make: MakeEstimator) -> None:
    """Changing a snapshot, a restored state or an array that it gave does not change it."""
    checks.keeps_no_alias(make, OBSERVATIONS)


def check_memory_stays_bounded(make: MakeEstimator, *, updates: int = 100_000) -> None:
    """It does not grow from the first half of many updates to the second.

    Parameters
    ----------
    make : class or function
    updates : int
        How many. With fewer than 10,000 a window that is still filling may be taken for a leak.
    """
    checks.bounded(make, OBSERVATIONS, updates)


estimator_checks: Final[tuple[Callable[[MakeEstimator], None], ...]] = (
    check_has_what_a_planner_needs,
    check_reading_changes_nothing,
    check_refuses_impossible_numbers,
    check_survives_any_observation,
    check_survives_any_clock,
    check_same_observations_same_beliefs,
    check_instances_share_nothing,
    check_goes_on_after_a_restart,
    check_keeps_no_alias,
    check_memory_stays_bounded,
)
"""All of them, to parametrize a test with."""
