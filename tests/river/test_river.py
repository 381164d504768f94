"""River's detectors and averages fit where ours do: the same code drives both. `make test-river` installs River."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from splitiot.estimators import Detector, Ema, JointEstimator, LogCusum, Scalar, VarianceDetector
from splitiot.observation import Observation
from splitiot.topology import Link, TierProfile

drift = pytest.importorskip("river.drift", reason="needs River (make test-river)")
stats = pytest.importorskip("river.stats", reason="needs River (make test-river)")

# Each with a setting for numbers around 1 that jump to 3.
DETECTORS: dict[str, Callable[[], Detector]] = {
    "LogCusum": LogCusum,
    "VarianceDetector": VarianceDetector,
    "Ema": Ema,
    "ADWIN": drift.ADWIN,
    "PageHinkley": lambda: drift.PageHinkley(threshold=5.0),
    "KSWIN": lambda: drift.KSWIN(alpha=1e-4, seed=0),
}
SCALARS: dict[str, Callable[[], Scalar]] = {
    "Ema": Ema,
    "EWMean": lambda: stats.EWMean(fading_factor=0.2),
    "Mean": stats.Mean,
}


def drifts(detector: Detector, values: Iterable[float]) -> list[int]:
    """Where a detector detects a drift, whoever made it."""
    detected = []
    for i, x in enumerate(values):
        detector.update(x)
        if detector.drift_detected:
            detected.append(i)
    return detected


def averages(estimator: Scalar, values: Iterable[float]) -> list[float]:
    """What an estimator says after each number, whoever made it."""
    said = []
    for x in values:
        estimator.update(x)
        said.append(estimator.get())
    return said


def stream(*levels: float, noise: float = 0.05, each: int = 200) -> list[float]:
    rng = np.random.default_rng(5)
    return [float(x) for level in levels for x in level * rng.lognormal(0, noise, each)]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_one(name: str) -> None:
    detector = DETECTORS[name]()
    assert isinstance(detector, Detector)
    assert detector.drift_detected is False
    detector.update(x=1.0)  # the name is part of it
    assert type(detector.drift_detected) is bool


@pytest.mark.parametrize("name", DETECTORS)
def test_it_tells_a_jump_and_nothing_before(name: str) -> None:
    detected = drifts(DETECTORS[name](), stream(1.0, 3.0))
    assert detected
    assert 200 <= detected[0] < 300


@pytest.mark.parametrize("name", ["LogCusum", "ADWIN", "PageHinkley", "KSWIN"])
def test_a_jump_is_told_once_or_a_few_times_then_it_starts_again(name: str) -> None:
    detected = drifts(DETECTORS[name](), stream(1.0, 3.0, 1.0))
    assert any(200 <= i < 300 for i in detected)
    assert any(400 <= i < 500 for i in detected)
    assert len(detected) < 30


@pytest.mark.parametrize("name", SCALARS)
def test_an_estimator_is_one(name: str) -> None:
    estimator = SCALARS[name]()
    assert isinstance(estimator, Scalar)
    estimator.update(x=2.0)
    assert estimator.get() == 2.0


@pytest.mark.parametrize("name", SCALARS)
def test_it_follows_its_numbers(name: str) -> None:
    said = averages(SCALARS[name](), stream(5.0))
    assert said[-1] == pytest.approx(5.0, rel=0.1)


def test_the_same_average_is_the_same_number() -> None:
    values = stream(1.0, 3.0)
    assert averages(SCALARS["EWMean"](), values) == pytest.approx(averages(Ema(0.2), values))
    assert averages(SCALARS["Mean"](), values)[-1] == pytest.approx(math.fsum(values) / len(values))


def test_what_is_none_is_none() -> None:
    assert not isinstance(stats.Mean(), Detector)
    assert not isinstance(drift.ADWIN(), Scalar)


@pytest.mark.parametrize("name", ["LogCusum", "ADWIN", "PageHinkley"])
def test_a_planner_learns_with_it(name: str) -> None:
    """A step of 1.4, too small for a jump, makes a tier's samples from before count no more."""
    profile = TierProfile.from_steps("ab", [0.1, 0.2])
    make = DETECTORS[name]
    joint = JointEstimator([profile, profile], Link.from_mbit_per_s(10, rtt_s=0.01), detector=make)
    for i, factor in enumerate([*stream(1.0, each=120), *stream(1.4, each=60)]):
        joint.update(Observation(plan_id=i + 1, cut=2, head_s=0.3 * factor), now_s=float(i))
    belief = joint.device.belief(180.0)
    assert belief.drifts == 1
    assert belief.samples < 100
    assert belief.value == pytest.approx(1.4, rel=0.05)
    other = JointEstimator([profile, profile], Link.from_mbit_per_s(10, rtt_s=0.01), detector=make)
    other.restore(json.loads(json.dumps(joint.snapshot())))  # a detector without a snapshot begins anew
    assert other.device.get() == joint.device.get()
