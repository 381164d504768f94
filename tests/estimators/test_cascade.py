from __future__ import annotations

import json
import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.estimators import VarianceCascade

READINGS: list[Literal["always", "confirmed"]] = ["always", "confirmed"]
updates = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1.0, 1.01, 1.3, 2.0])), max_size=60)


def brute_force(samples: list[list[float]], window: int, reading: str) -> list[bool]:
    own = []
    for values in samples:
        last = values[-window:]
        own.append(len(last) >= 3 and float(np.std(last, ddof=1) / np.mean(last)) > 0.15)
    flags = list(own)
    for i, unstable in enumerate(own[:-1]):
        if unstable and (reading == "always" or own[i + 1]):
            flags[i + 1] = True
    return flags


@pytest.mark.parametrize("reading", READINGS)
@given(updates)
def test_flags_by_brute_force(reading: Literal["always", "confirmed"], given_updates: list[tuple[int, float]]) -> None:
    steps = VarianceCascade(5, window=4, cascade=reading)
    samples: list[list[float]] = [[] for _ in range(5)]
    for step, seconds in given_updates:
        samples[step].append(seconds)
        steps.update(step, seconds)
        assert steps.flags.tolist() == brute_force(samples, 4, reading)
        assert steps.drift_detected == any(brute_force(samples, 4, "confirmed"))


def test_a_mark_marks_nothing_further() -> None:
    marked = {}
    for reading in READINGS:
        steps = VarianceCascade(4, cascade=reading)
        for x in (1.0, 2.0, 1.0):
            for i in range(4):
                steps.update(i, x if i in (0, 3) else 1.0)
        marked[reading] = steps.flags.tolist()
    # the last step has none behind it
    assert marked == {"always": [True, True, False, True], "confirmed": [True, False, False, True]}


def test_flags_are_read_only_and_stay_as_they_were() -> None:
    steps = VarianceCascade(3)
    before = steps.flags
    for x in (1.0, 2.0, 1.0):
        steps.update(0, x)
    assert before.tolist() == [False] * 3
    assert steps.flags.tolist() == [True, True, False]
    assert (steps.flags.dtype, steps.flags.shape, steps.n) == (np.bool_, (3,), 3)
    with pytest.raises(ValueError, match="read-only"):
        steps.flags[0] = False


def test_no_and_one_step() -> None:
    assert VarianceCascade(0).flags.shape == (0,)
    assert not VarianceCascade(0).drift_detected
    one = VarianceCascade(1)
    for x in (1.0, 2.0, 1.0):
        one.update(0, x)
    assert one.flags.tolist() == [True]


@given(updates, updates)
def test_state_goes_on_where_it_was(first: list[tuple[int, float]], then: list[tuple[int, float]]) -> None:
    one, two = VarianceCascade(5), VarianceCascade(5)
    for step, seconds in first:
        one.update(step, seconds)
    two.restore(json.loads(json.dumps(one.snapshot(), allow_nan=False)))
    assert two.flags.tolist() == one.flags.tolist()
    for step, seconds in then:
        one.update(step, seconds)
        two.update(step, seconds)
        assert two.flags.tolist() == one.flags.tolist()
    assert two.snapshot() == one.snapshot()
    one.update(0, math.nan)
    one.reset()
    assert one.refused == 1
    assert not one.flags.any()
    with pytest.raises(ValueError, match="5 steps"):
        VarianceCascade(4).restore(two.snapshot())


@pytest.mark.parametrize("step", [-1, 3])
def test_there_is_no_such_step(step: int) -> None:
    with pytest.raises(IndexError, match="0 to 2"):
        VarianceCascade(3).update(step, 1.0)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="n is"):
        VarianceCascade(-1)
    with pytest.raises(ValueError, match="cascade"):
        VarianceCascade(3, cascade="never")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window"):
        VarianceCascade(3, window=1)
