"""What estimators of one number, and drift detectors, must do, as checks to run over your own.

An object fits that has ``update(x)``, and ``get()`` or ``drift_detected``, as `Ema`, `LogCusum` and River's have. Where
it counts `refused` numbers the count is checked, where it has `snapshot` and `restore` these are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from splitiot.estimators import Detector, Scalar
from splitiot.testing import _estimating as checks
from splitiot.testing._create import create
from splitiot.testing._feeds import NUMBERS
from splitiot.testing._readings import keeps_state

__all__ = [
    "MakeScalar",
    "check_goes_on_after_a_restart",
    "check_instances_share_nothing",
    "check_keeps_no_alias",
    "check_memory_stays_bounded",
    "check_reading_changes_nothing",
    "check_refuses_impossible_numbers",
    "check_same_numbers_same_estimates",
    "check_survives_any_number",
    "scalar_checks",
]

MakeScalar: TypeAlias = Callable[[], Scalar | Detector]
"""A class, or a function without arguments that makes a new estimator each time."""


def check_reading_changes_nothing(make: MakeScalar) -> None:
    """Reading it, however often, changes neither what it says nor what it will say."""
    checks.reading_changes_nothing(make, NUMBERS)


def check_refuses_impossible_numbers(make: MakeScalar) -> None:
    """NaN, infinities and negative numbers change nothing but `refused`: it goes on as if they had not been."""
    checks.refuses_the_impossible(make, NUMBERS)


def check_survives_any_number(make: MakeScalar) -> None:
    """Zeros, the tiniest and the largest numbers leave it running, and give no NaN."""
    checks.survives_anything(make, NUMBERS)


def check_same_numbers_same_estimates(make: MakeScalar) -> None:
    """The same numbers give the same estimates, whatever the global random generators do."""
    checks.same_input_same_estimates(make, NUMBERS)


def check_instances_share_nothing(make: MakeScalar) -> None:
    """Two that are updated in turn say what each says alone."""
    checks.instances_share_nothing(make, NUMBERS)


def check_goes_on_after_a_restart(make: MakeScalar) -> None:
    """With `snapshot` and `restore`: one restored from JSON says what the first one would have said."""
    if keeps_state(create(make)):
        checks.goes_on_after_a_restart(make, NUMBERS)


def check_keeps_no_alias(make: MakeScalar) -> None:
    """Changing a snapshot, a restored state or an array that it gave does not change it."""
    checks.keeps_no_alias(make, NUMBERS)


def check_memory_stays_bounded(make: MakeScalar, *, updates: int = 100_000) -> None:
    """It does not grow from the first half of many updates to the second.

    Parameters
    ----------
    make : class or function
    updates : int
        How many. With fewer than 10,000 a window that is still filling may be taken for a leak.
    """
    checks.bounded(make, NUMBERS, updates)


scalar_checks: Final[tuple[Callable[[MakeScalar], None], ...]] = (
    check_reading_changes_nothing,
    check_refuses_impossible_numbers,
    check_survives_any_number,
    check_same_numbers_same_estimates,
    check_instances_share_nothing,
    check_goes_on_after_a_restart,
    check_keeps_no_alias,
    check_memory_stays_bounded,
)
"""All of them, to parametrize a test with."""
