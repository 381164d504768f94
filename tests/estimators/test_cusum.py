from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.estimators import LogCusum

BAD = [math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0]
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
# values around 1 are where something happens
near_one = st.lists(st.floats(0.25, 4.0), max_size=80)


def flags(detector: LogCusum, values: Iterable[float]) -> list[bool]:
    seen = []
    for x in values:
        detector.update(x)
        seen.append(detector.drift_detected)
    return seen


def stream(seed: int, noise: float, *levels: float, each: int = 60) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(x) for level in levels for x in level * rng.lognormal(0, noise, each)]


def through_json(detector: LogCusum) -> dict[str, object]:
    state = json.loads(json.dumps(detector.snapshot(), allow_nan=False))
    assert isinstance(state, dict)
    return state


@given(st.integers(0, 2**32), st.floats(0.02, 0.3), st.sampled_from([0.3, 0.8, 1.2, 3.0]), st.floats(1e-12, 1e12))
def test_the_unit_does_not_matter(seed: int, noise: float, step: float, factor: float) -> None:
    values = stream(seed, noise, 1.0, step)
    assert flags(LogCusum(), [x * factor for x in values]) == flags(LogCusum(), values)


@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.8, 1.2, 3.0]))
def test_rising_and_falling_are_treated_alike(seed: int, step: float) -> None:
    values = stream(seed, 0.1, 1.0, step)
    assert flags(LogCusum(), [1 / x for x in values]) == flags(LogCusum(), values)


@given(near_one)
def test_it_is_the_formula(values: list[float]) -> None:
    detector = LogCusum(k=0.4, h=3.0, clip=2.5)
    for x in values:
        before = detector.snapshot()
        detector.update(x)
        after = detector.snapshot()
        assert after["samples"] == before["samples"] + 1
        if before["first"] is not None:
            assert (after["up"], after["down"], after["drift_detected"]) == (0, 0, False)
            continue
        z = (math.log(x) - before["centre"]) / before["spread"] * before["n"] / (before["n"] + 1)
        z = min(max(z, -2.5), 2.5)
        assert after["up"] == pytest.approx(max(0.0, before["up"] + z - 0.4), abs=1e-9)
        assert after["down"] == pytest.approx(max(0.0, before["down"] - z - 0.4), abs=1e-9)
        assert after["drift_detected"] == (max(after["up"], after["down"]) > 3.0)
        assert abs(detector.get()) == max(after["up"], after["down"])
        assert (after["first"] is None) == (not after["drift_detected"])
        if max(before["up"], before["down"]) >= 1.5:  # nothing is learned from what may be a change
            assert (after["centre"], after["spread"], after["n"]) == (before["centre"], before["spread"], before["n"])
        # and a single sample moves it by no more than two sigmas would
        assert abs(after["centre"] - before["centre"]) <= 2.001 * before["spread"] / min(before["n"] + 1, 100)


def test_the_first_reference_is_median_and_mad() -> None:
    rng = np.random.default_rng(4)
    values = rng.lognormal(3, 0.3, 10)
    detector = LogCusum()
    for x in values:
        assert math.isnan(detector.reference)
        assert math.isnan(detector.spread)
        detector.update(float(x))
    logs = np.log(values)
    assert detector.reference == pytest.approx(math.exp(np.median(logs)))
    mad = float(np.median(abs(logs - np.median(logs))))
    assert detector.spread == pytest.approx(1.4826 * 1.1 * mad)


@given(near_one, st.data())
def test_refused_samples_change_nothing(values: list[float], data: st.DataObject) -> None:
    one, two, refused = LogCusum(h=2.0), LogCusum(h=2.0), 0
    for x in values:
        one.update(x)
        two.update(x)
        assert one.drift_detected == two.drift_detected
        for bad in data.draw(st.lists(st.sampled_from(BAD), max_size=2)):
            two.update(bad)
            refused += 1
            assert not two.drift_detected  # it has been detected
    assert two.refused == refused
    assert two.snapshot() | {"refused": 0, "drift_detected": False} == one.snapshot() | {"drift_detected": False}


@given(near_one, near_one)
def test_state_goes_on_where_it_was(first: list[float], then: list[float]) -> None:
    one, two = LogCusum(h=2.0), LogCusum(h=2.0)
    flags(one, first)
    two.restore(through_json(one))
    assert (two.drift_detected, two.get()) == (one.drift_detected, one.get())
    assert flags(two, then) == flags(one, then)
    assert two.snapshot() == one.snapshot()


@pytest.mark.parametrize("at", range(0, 180, 7))
def test_state_goes_on_where_it_was_amid_drifts(at: int) -> None:
    values = stream(2, 0.1, 1.0, 1.5, 0.5)
    whole = flags(LogCusum(), values)
    assert sum(whole) >= 2
    one, two = LogCusum(), LogCusum()
    head = flags(one, values[:at])
    two.restore(through_json(one))
    assert head + flags(two, values[at:]) == whole


@given(st.lists(positive, max_size=120))
def test_it_takes_every_positive_number_and_stays_small(values: list[float]) -> None:
    detector = LogCusum()
    for x in values:
        detector.update(x)
        assert math.isfinite(detector.get())
        state = detector.snapshot()
        assert len(state["first"] or []) <= 10
        assert len(state["recent"]) <= 3
    assert (detector.samples, detector.refused) == (len(values), 0)


def test_it_stays_small_for_ever() -> None:
    detector = LogCusum()
    sizes = []
    for level in (1.0, 2.0, 0.3) * 4:
        flags(detector, stream(9, 0.2, level, each=500))
        sizes.append(len(json.dumps(detector.snapshot())))
    assert max(sizes) < 500


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.2])
def test_false_alarms_are_rare(noise: float) -> None:
    # 0.8 of 1000 are expected, 24 here
    alarms = sum(sum(flags(LogCusum(), stream(seed, noise, 1.0, each=1030))[30:]) for seed in range(30))
    assert 5 <= alarms <= 50


def test_spikes_are_no_drift() -> None:
    alarms = 0
    for seed in range(30):
        rng = np.random.default_rng((seed, 1))
        values = rng.lognormal(0, 0.1, 1030) * np.where(rng.random(1030) < 0.02, rng.uniform(2, 6, 1030), 1.0)
        alarms += sum(flags(LogCusum(), values.tolist())[30:])
    assert alarms <= 80  # 1.5 of 1000 are expected, 45 here


@pytest.mark.parametrize(
    ("noise", "step", "median", "nine_tenths"),
    [(0.1, 1.2, 6, 13), (0.1, 1.5, 3, 4), (0.2, 1.5, 6, 11), (0.05, 2, 3, 3)],
)
@pytest.mark.parametrize("up", [True, False])
def test_steps_are_detected_soon_and_on_their_side(
    noise: float, step: float, median: int, nine_tenths: int, up: bool
) -> None:
    delays, sides = [], []
    for seed in range(200):
        detector, delay = LogCusum(), 1000
        for i, x in enumerate(stream(seed, noise, 1.0, step if up else 1 / step)):
            detector.update(x)
            if detector.drift_detected and i >= 60:
                delay = i - 59
                sides.append((detector.get() > 0) == up)
                break
        delays.append(delay)
    delays.sort()
    assert delays[100] <= median
    assert delays[180] <= nine_tenths
    assert delays[0] >= 1
    assert sum(sides) >= 198


@pytest.mark.parametrize("seed", range(5))
def test_it_starts_again_from_the_samples_behind_a_drift(seed: int) -> None:
    detector, level, detected, others = LogCusum(), 1.0, 0, 0
    rng = np.random.default_rng(seed)
    flags(detector, rng.lognormal(0, 0.1, 60).tolist())
    for i in range(100):
        level = 2.0 if i % 2 == 0 else 1.0
        seen = flags(detector, (level * rng.lognormal(0, 0.1, 30)).tolist())
        detected += any(seen[:6])
        others += max(0, sum(seen) - 1)
        assert detector.reference == pytest.approx(level, rel=0.2)
        assert detector.spread == pytest.approx(0.1, rel=0.7)
    assert detected >= 97
    assert others <= 12  # a second alarm for the same step: 3 of 100 are expected


def test_it_can_tell_the_next_drift_six_samples_later() -> None:
    detector = LogCusum()
    # 3 samples show a drift, 5 more make the reference, 3 show that it is over
    seen = flags(detector, [1.0] * 20 + [2.0] * 8 + [1.0] * 8)
    assert [i for i, flag in enumerate(seen) if flag] == [22, 30]
    assert detector.samples == 36


def test_two_samples_are_never_a_drift_three_are() -> None:
    assert not any(flags(LogCusum(), [1.0] * 50 + [1e9, 1e9] + [1.0] * 50))
    assert flags(LogCusum(), [1.0] * 50 + [1e9] * 3)[-1]
    # clipped at more, one is enough
    assert flags(LogCusum(clip=9.0), [1.0] * 50 + [1e9])[-1]


def test_the_spread_is_learned_whatever_the_first_ten_were() -> None:
    for first in (0.0, 0.02, 0.3):
        detector = LogCusum()
        flags(detector, np.random.default_rng(1).lognormal(0, first, 10).tolist())
        flags(detector, stream(1, 0.1, 1.0, each=400))
        assert detector.spread == pytest.approx(0.1, rel=0.3)
        assert detector.reference == pytest.approx(1, rel=0.06)


def test_no_noise_at_all_and_the_ticks_of_a_clock() -> None:
    assert not any(flags(LogCusum(), [0.02] * 300))
    assert not any(flags(LogCusum(), [0.02, 0.0201] * 150))
    assert not any(flags(LogCusum(), [0.02] * 100 + [0.0201] * 100))  # less than half a least spread
    assert any(flags(LogCusum(least=0.001), [0.02] * 100 + [0.0201] * 100))


def test_what_creeps_is_followed() -> None:
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(10):
        detector = LogCusum()
        values = np.linspace(1, 1.25, 1000) * rng.lognormal(0, 0.1, 1000)
        alarms += sum(flags(detector, values.tolist())[30:])
        assert detector.reference == pytest.approx(1.25, rel=0.1)
    assert alarms <= 25  # 10 are expected; a step of 1.25 alone would be 10


def test_innovations_of_a_model_that_is_off_by_a_factor() -> None:
    rng = np.random.default_rng(8)
    detector, alarms = LogCusum(), []
    for i in range(200):
        predicted = float(rng.uniform(0.01, 1.0))  # by a profile, at whatever cut
        truth = 1.7 if i < 150 else 2.4
        detector.update(truth * predicted * float(rng.lognormal(0, 0.05)) / predicted)
        alarms += [i] if detector.drift_detected else []
    assert len(alarms) == 1
    assert 150 <= alarms[0] <= 154
    assert detector.reference == pytest.approx(2.4, rel=0.05)


def test_reset_forgets_all_but_what_was_refused() -> None:
    detector = LogCusum()
    flags(detector, [*stream(0, 0.1, 1.0, 5.0), math.nan])
    detector.reset()
    assert detector.snapshot() == LogCusum().snapshot() | {"refused": 1}
    assert not detector.drift_detected
    assert math.isnan(detector.reference)


@pytest.mark.parametrize(
    "wrong",
    [{"k": -0.1}, {"k": 3.0}, {"k": math.nan}, {"clip": math.inf}, {"h": 0}, {"h": math.nan}, {"least": 0.0}],
)
def test_arguments(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LogCusum(**wrong)
