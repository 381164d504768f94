from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.estimators import VarianceDetector

seconds = st.one_of(st.just(0.0), st.floats(1e-200, 1e200), st.floats(0.5, 2.0))
BAD = [math.nan, math.inf, -math.inf, -1e-9]


def reference(values: list[float], window: int) -> float:
    last = np.array(values[-window:], dtype=np.longdouble)
    if len(last) < 3:
        return math.nan
    return float(last.std(ddof=1) / last.mean()) if last.any() else 0.0


@given(st.lists(seconds, max_size=40), st.integers(3, 12), st.sampled_from([0.0, 0.15, 0.5, 1.0]))
def test_it_is_the_formula(values: list[float], window: int, threshold: float) -> None:
    detector = VarianceDetector(window, threshold)
    for i, x in enumerate(values, start=1):
        detector.update(x)
        wanted = reference(values[:i], window)
        assert detector.get() == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True)
        if abs(wanted - threshold) > 1e-9:
            assert detector.drift_detected == (wanted > threshold)


def test_the_defaults_are_sciots() -> None:
    detector = VarianceDetector()
    assert detector.threshold == 0.15
    for x in (*[9.0] * 5, *[1.0, 1.2] * 5):
        detector.update(x)
    assert detector.get() == pytest.approx(np.std([1.0, 1.2] * 5, ddof=1) / 1.1)  # ten samples, no more
    two = VarianceDetector()
    for x in (1.0, 9.0):
        two.update(x)
    assert not two.drift_detected  # not before the third
    assert math.isnan(two.get())


def test_at_the_threshold_there_is_no_drift() -> None:
    detector = VarianceDetector(3, threshold=0.5)
    for x in (1.0, 2.0, 3.0):  # mean 2, deviation 1
        detector.update(x)
    assert detector.get() == 0.5
    assert not detector.drift_detected
    detector.update(1e-9)
    assert detector.drift_detected


def test_it_lasts_for_as_long_as_the_window_varies() -> None:
    detector, seen = VarianceDetector(), []
    for x in [1.0] * 10 + [2.0] * 10:
        detector.update(x)
        seen.append(detector.drift_detected)
    assert seen == [False] * 10 + [True] * 9 + [False]


def test_it_measures_noise_not_shifts() -> None:
    """Nearly always flagged at noise of 20 %, blind to a step of 1.2 without noise."""
    rng = np.random.default_rng(0)
    detector, flagged = VarianceDetector(), 0
    for x in rng.lognormal(0, 0.2, 2000):
        detector.update(float(x))
        flagged += detector.drift_detected
    assert 1500 < flagged < 1800
    detector = VarianceDetector()
    for x in [1.0] * 10 + [1.2] * 10:
        detector.update(x)
        assert not detector.drift_detected


@given(st.lists(seconds, max_size=20), st.data())
def test_refused_samples_change_nothing(values: list[float], data: st.DataObject) -> None:
    one, two, refused = VarianceDetector(), VarianceDetector(), 0
    for x in values:
        one.update(x)
        two.update(x)
        for bad in data.draw(st.lists(st.sampled_from(BAD), max_size=2)):
            two.update(bad)
            refused += 1
        assert two.drift_detected == one.drift_detected
    assert two.refused == refused
    assert two.snapshot() | {"refused": 0} == one.snapshot()


@given(st.lists(seconds, max_size=20), st.lists(seconds, max_size=20))
def test_state_goes_on_where_it_was(first: list[float], then: list[float]) -> None:
    one, two = VarianceDetector(5), VarianceDetector(5)
    for x in first:
        one.update(x)
    two.restore(json.loads(json.dumps(one.snapshot(), allow_nan=False)))
    assert two.get() == pytest.approx(one.get(), nan_ok=True)
    for x in then:
        one.update(x)
        two.update(x)
        assert two.drift_detected == one.drift_detected
    assert two.snapshot() == one.snapshot()
    assert len(one.snapshot()["last"]) <= 5
    one.reset()
    assert one.snapshot() == VarianceDetector(5).snapshot()
    assert not one.drift_detected


def test_the_largest_and_the_smallest_numbers() -> None:
    detector = VarianceDetector()
    for x in [1.7e308, 1.7e308, 0.0] * 5 + [5e-324] * 10:
        detector.update(x)
        assert not math.isnan(detector.get()) or detector.samples < 3


@pytest.mark.parametrize("wrong", [{"window": 2}, {"threshold": -0.1}, {"threshold": math.nan}])
def test_arguments(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VarianceDetector(**wrong)


def test_a_variation_is_finite_where_squares_are_not() -> None:
    large, small = VarianceDetector(), VarianceDetector()
    for i in range(10):
        large.update(1.7e308 * (i % 2))
        small.update(1.7 * (i % 2))
    assert large.get() == pytest.approx(small.get())
