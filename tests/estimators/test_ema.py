from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.estimators import Ema

BAD = [math.nan, math.inf, -math.inf, -1e-9]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_it_is_the_formula(values: list[float], alpha: float) -> None:
    ema = Ema(alpha)
    mean = values[0]
    for i, x in enumerate(values):
        mean = x if i == 0 else alpha * x + (1 - alpha) * mean
        ema.update(x)
        assert ema.get() == pytest.approx(mean, abs=1e-9 * max(1, *values))


@pytest.mark.parametrize("bad", BAD)
def test_garbage_changes_nothing(bad: float) -> None:
    ema = Ema()
    assert math.isnan(ema.get())
    ema.update(bad)
    assert math.isnan(ema.get())
    ema.update(2.0)
    ema.update(bad)
    assert (ema.get(), ema.samples, ema.refused) == (2.0, 1, 2)


@pytest.mark.parametrize("alpha", [0, -0.1, 1.1, math.nan])
def test_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Ema(alpha)


def test_convergence_and_spread_under_noise() -> None:
    rng = np.random.default_rng(0)
    ema = Ema()
    for x in rng.normal(10, 1, 500):
        ema.update(x)
    assert ema.get() == pytest.approx(10, abs=1.5)
    ema = Ema(alpha=0.01)
    for x in rng.normal(10, 1, 3000):
        ema.update(x)
    assert ema.get() == pytest.approx(10, abs=0.3)
    assert ema.spread == pytest.approx(1, rel=0.3)


def test_drift_is_seen_when_big_and_rarely_without() -> None:
    rng = np.random.default_rng(1)
    alarms, ema = 0, Ema()
    for x in rng.normal(10, 1, 5000):
        ema.update(x)
        alarms += ema.drift_detected
    assert alarms <= 25
    found = 0
    for _ in range(100):
        ema = Ema()
        for x in rng.normal(10, 1, 30):
            ema.update(x)
        for x in rng.normal(20, 1, 2):
            ema.update(x)
        found += ema.drift_detected
    assert found >= 60


@given(st.lists(st.floats(0, 1e9), max_size=20), st.lists(st.floats(0, 1e9), max_size=20))
def test_state_goes_on_where_it_was(first: list[float], then: list[float]) -> None:
    one, two = Ema(), Ema()
    for x in first:
        one.update(x)
    two.restore(json.loads(json.dumps(one.snapshot(), allow_nan=False)))
    for x in then:
        one.update(x)
        two.update(x)
    assert two.snapshot() == one.snapshot()
