from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.estimators import LogCusum, VarianceDetector
from splitiot.estimators.level import Level


def feed(level: Level, values: list[float], part: object = None) -> list[int]:
    """Return where it detected a drift."""
    detected = []
    for number, value in enumerate(values):
        level.update(math.log(value), part)
        if level.drift_detected:
            detected.append(number)
    return detected


def noisy(value: float, count: int, seed: int = 0, sigma: float = 0.05) -> list[float]:
    return (value * np.exp(sigma * np.random.default_rng(seed).standard_normal(count))).tolist()


def test_a_mean_at_first_and_a_moving_average_then() -> None:
    level = Level(alpha=0.2)
    values = [1.1, 1.2, 1.15, 1.25, 1.1]
    for count, value in enumerate(values, 1):
        level.update(math.log(value))
        assert level.log == pytest.approx(np.log(values[:count]).mean())
    before = level.log
    level.update(math.log(1.3))
    assert level.log == pytest.approx(before + 0.2 * (math.log(1.3) - before))


def test_one_hiccup_is_ignored_two_are_believed() -> None:
    level = Level()
    feed(level, noisy(1.0, 30))
    before = level.log
    assert not level.update(math.log(4.0))
    assert level.awaiting_confirmation
    assert level.log == before
    feed(level, [1.0])
    assert not level.awaiting_confirmation
    assert level.update(math.log(4.0)) is False
    assert level.update(math.log(5.0)) is True
    assert math.exp(level.log) == pytest.approx(4.0, rel=0.1)  # the nearer of both
    assert (level.drifts, level.samples, level.drift_detected) == (1, 2, True)


def test_a_drift_makes_what_was_before_count_no_more() -> None:
    """A step of 1.25 is too small for the jump; the detector tells it, and the level follows at once."""
    patient = Level(detector=lambda: LogCusum(h=1e9))  # never tells
    quick = Level()
    for level in (patient, quick):
        feed(level, noisy(1.0, 60, 1))
        assert feed(level, noisy(1.25, 5, 2)) == ([] if level is patient else [2])
    assert abs(quick.log - math.log(1.25)) < 0.6 * abs(patient.log - math.log(1.25))
    assert quick.samples < 6 < patient.samples


def test_the_baseline_is_the_average_of_levels_that_held() -> None:
    level = Level()
    level.start(math.log(3.0))
    assert math.exp(level.baseline) == pytest.approx(3.0)
    feed(level, noisy(1.0, 40))
    assert math.exp(level.baseline) == pytest.approx(1.0, rel=0.1)
    feed(level, noisy(8.0, 40))
    assert math.exp(level.baseline) == pytest.approx(1.0, rel=0.1)  # only what ended counts
    feed(level, noisy(1.0, 3))
    assert math.exp(level.baseline) == pytest.approx(8.0**0.3, rel=0.1)
    feed(level, [9.0, 9.0])  # the level before did not hold: it was two samples long
    assert math.exp(level.baseline) == pytest.approx(8.0**0.3, rel=0.1)


def test_a_prior_is_the_baseline_until_another_level_held() -> None:
    level = Level()
    level.start(has_prior=True)
    for _ in range(49):
        level.update(math.log(30.0))
        assert level.baseline == 0.0
    level.update(math.log(30.0))
    assert math.exp(level.baseline) == pytest.approx(30.0)
    restored = Level()
    restored.start(has_prior=True)
    restored.restore(level.snapshot())
    assert restored.baseline == level.baseline


def test_a_level_that_has_held_is_the_baseline() -> None:
    level = Level()
    level.start(0.0, held=True)
    feed(level, [50.0, 50.0, 50.0])
    assert level.drifts == 1
    assert level.baseline == 0.0


def test_where_it_begins_is_no_drift() -> None:
    level = Level()
    assert feed(level, [7.0, 7.0, 7.0]) == []
    assert (level.drifts, round(math.exp(level.log), 6)) == (0, 7.0)


def test_the_detector_follows_one_part() -> None:
    """A profile that is more wrong for one part than for another is no drift."""
    given: list[list[float]] = []

    class Notes:
        drift_detected = False

        def __init__(self) -> None:
            given.append([])

        def update(self, x: float) -> None:
            given[-1].append(round(x, 6))

    level = Level(detector=Notes)
    for value, part in [(1.0, "a"), (1.0, "a"), (1.1, "a"), (1.3, "b"), (1.2, "a"), (1.3, "b"), (1.4, "b"), (1.3, "b")]:
        level.update(math.log(value), part)
    assert given[-2:] == [[1.0, 1.1, 1.2], [1.4, 1.3]]  # what comes twice in a row is turned to
    moved = Level()
    feed(moved, noisy(1.0, 60, 4), (0, 9))
    assert feed(moved, noisy(1.3, 60, 5), (0, 3)) == []  # it turns to the other part


def test_a_detector_that_signals_for_as_long_as_it_lasts_detects_once() -> None:
    level = Level(detector=lambda: VarianceDetector(window=10, threshold=0.15))
    feed(level, noisy(1.0, 30, 6, sigma=0.02))
    assert len(feed(level, noisy(1.4, 8, 7, sigma=0.02))) == 1


@given(
    first=st.lists(st.floats(0.2, 5), max_size=60),
    then=st.lists(st.floats(0.2, 5), max_size=30),
    parts=st.lists(st.sampled_from([(0, 3), (0, 5), None]), min_size=90, max_size=90),
)
def test_state_goes_on_where_it_was(first: list[float], then: list[float], parts: list[object]) -> None:
    one, other = Level(), Level()
    for value, part in zip(first, parts, strict=False):
        one.update(math.log(value), part)
    other.restore(json.loads(json.dumps(one.snapshot())))
    for value, part in zip(then, parts[60:], strict=False):
        assert one.update(math.log(value), part) == other.update(math.log(value), part)
        assert one.drift_detected == other.drift_detected
        assert one.snapshot() == other.snapshot()


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.1, math.nan])
def test_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Level(alpha)
