"""Taking objects to pieces sees every change, and nothing else."""

from __future__ import annotations

import functools
import random
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import pytest
from attrs import define

from splitiot.estimators import Belief, LogCusum
from splitiot.testing._plain import not_plain, size_of, taken_apart


class Slotted:
    __slots__ = ("empty", "value")

    def __init__(self, value: Any) -> None:
        self.value = value


@define
class Holds:
    value: Any


def closure(value: list[int]) -> Any:
    return lambda: value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1.0, 2.0),
        ([1, 2], [1, 3]),
        ({"a": [1]}, {"a": [2]}),
        ({1, 2}, {1, 3}),
        (deque([1]), deque([2])),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
        (np.array([1.0]), np.array([2.0])),
        (np.array([1.0]), np.array([1], np.int64)),
        (Slotted(1), Slotted(2)),
        (Slotted(Holds([1])), Slotted(Holds([2]))),
        (Belief(1.0, 0.0, 0.0, 1), Belief(2.0, 0.0, 0.0, 1)),
        (np.random.default_rng(1), np.random.default_rng(2)),
        (random.Random(1), random.Random(2)),
        (closure([1]), closure([2])),
        (LogCusum(h=5), LogCusum(h=6)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_changes_are_seen(one: Any, other: Any) -> None:
    assert taken_apart(one) == taken_apart(one)
    assert taken_apart(one) != taken_apart(other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: float("nan"),
        lambda: {"a": [np.float64("nan")]},
        lambda: np.array([np.nan]),
        lambda: Slotted(Holds({"a"})),
        lambda: np.random.default_rng(3),
        lambda: functools.partial,
        LogCusum,
    ],
)
def test_equal_ones_are_equal(make: Any) -> None:
    assert taken_apart(make()) == taken_apart(make())


def test_what_holds_itself_ends() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert taken_apart(loop) == taken_apart(loop)
    assert size_of(loop) > 0


def test_sizes_count_what_is_held_once() -> None:
    shared = list(range(1000))
    assert size_of(Slotted(shared)) == size_of(Slotted([shared])) - size_of([0]) + size_of(0)
    assert size_of([shared, shared]) < 1.1 * size_of(shared)
    assert size_of(Holds(np.zeros(1000))) > 8000
    assert size_of({"a": deque(range(1000))}) > 8000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {1: 2}}, r"m\['a'\] has the key 1"),
        ([0, (1,)], r"m\[1\] is a tuple"),
        ([np.float64(1)], r"m\[0\] is a numpy.float64"),
        ({"a": float("inf")}, r"m\['a'\] is inf"),
        ({1}, "m is a builtins.set"),
    ],
)
def test_what_json_would_change(value: Any, words: str) -> None:
    found = not_plain(value, "m")
    assert found is not None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found)


def test_plain_data() -> None:
    assert not_plain({"a": [1, 2.5, None, True, "b", {"c": []}]}, "m") is None
