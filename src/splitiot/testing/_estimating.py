"""The checks that estimators of numbers and of observations share."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from splitiot.testing._create import create, name_of
from splitiot.testing._feeds import Feed
from splitiot.testing._plain import json_size, size_of, taken_apart
from splitiot.testing._readings import arrays, keeps_state, nonsense, readings, refused, restored, same, stored

__all__ = [
    "bounded",
    "goes_on_after_a_restart",
    "instances_share_nothing",
    "keeps_no_alias",
    "reading_changes_nothing",
    "refuses_the_impossible",
    "same_input_same_estimates",
    "survives_anything",
]

Make = Callable[[], Any]

_STOPS: Final = (0, 1, 2, 3, 9, 10, 11, 60)
_MORE: Final = 50


def reading_changes_nothing(make: Make, feed: Feed) -> None:
    """What is read often, and what is not read, say the same then and later."""
    for count in _STOPS[1:]:
        read, quiet = create(make), create(make)
        for i in range(count):
            _update(read, feed.ordinary(0, i))
            _update(quiet, feed.ordinary(0, i))
            now_s = feed.now_s(i)
            first = readings(read, now_s)
            if now_s is not None:
                readings(read, now_s + 100)
                readings(read, now_s - 100)
            if where := same(first, readings(read, now_s)):
                raise AssertionError(f"{name_of(read)} gave two answers without an update between: {where}")
            if keeps_state(read):
                stored(read)
        now_s = feed.now_s(count)
        if where := same(readings(quiet, now_s), readings(read, now_s)):
            raise AssertionError(
                f"{name_of(read)} changed by being read: after {count} updates {where}. Do the work in update()"
            )
        if keeps_state(read) and taken_apart(stored(read)) != taken_apart(stored(quiet)):
            raise AssertionError(f"{name_of(read)} changed by being read: its snapshot is another. Work in update()")
        _go_on(quiet, read, feed, count, "was read in between")


def refuses_the_impossible(make: Make, feed: Feed) -> None:
    """With impossible numbers in between it says what it says without."""
    but = ("drift_detected", "refused")
    for count in _STOPS:
        usual, other = create(make), create(make)
        for i in range(count):
            _update(usual, feed.ordinary(0, i))
            _update(other, feed.ordinary(0, i))
        now_s = feed.now_s(count)
        for arguments in feed.impossible(count):
            before = refused(other)
            _update(other, arguments)
            after = refused(other)
            if before is not None and after is not None and after <= before:
                raise AssertionError(f"{name_of(other)} did not count in `refused` that it was given {arguments[0]}")
            if where := same(readings(usual, now_s, but=but), readings(other, now_s, but=but)):
                raise AssertionError(
                    f"{name_of(other)} took {arguments[0]} after {count} updates: {where}. "
                    "Refuse what is not finite or negative, and count it in `refused`"
                )
        _go_on(usual, other, feed, count, "was given impossible numbers in between", but=("refused",))


def survives_anything(make: Make, feed: Feed) -> None:
    """After odd input its estimates can be reckoned with, and its snapshot is plain data."""
    for seed in range(3):
        estimator = create(make)
        for i in range(400):
            # a quiet beginning, a storm, and ordinary things again
            stormy = 50 <= i < 300
            _update(estimator, feed.odd(seed, i) if stormy else feed.ordinary(seed, i))
            if i % 7:
                continue
            if i >= 20 and (wrong := nonsense(readings(estimator, feed.now_s(i)))):
                when = "after absurd updates" if i >= 50 else f"after {i + 1} ordinary updates"
                raise AssertionError(
                    f"{name_of(estimator)}: {wrong} {when} (seed {seed}, update {i}). "
                    "Refuse what can't be, and bound what you work out"
                )
            if keeps_state(estimator):
                again = restored(create(make), stored(estimator))
                but = ("drift_detected",)
                now_s = feed.now_s(i)
                if where := same(readings(estimator, now_s, but=but), readings(again, now_s, but=but)):
                    raise AssertionError(f"{name_of(again)}, restored after update {i} of seed {seed}: {where}")


def goes_on_after_a_restart(make: Make, feed: Feed) -> None:
    """Restored from JSON it says what it would have said."""
    for count in _STOPS:
        usual, before = create(make), create(make)
        for i in range(count):
            _update(usual, feed.ordinary(0, i))
            _update(before, feed.ordinary(0, i))
        after = restored(create(make), stored(before))
        but = ("drift_detected",)  # of the last update: a new one must say
        if where := same(readings(usual, feed.now_s(count), but=but), readings(after, feed.now_s(count), but=but)):
            raise AssertionError(f"{name_of(after)}, restored after {count} updates: {where}. Keep it in the snapshot")
        _go_on(usual, after, feed, count, "was stored as JSON and restored in between")


def keeps_no_alias(make: Make, feed: Feed) -> None:
    """What it gave and what it was given may change, and it does not."""
    for count in _STOPS:
        usual, other = create(make), create(make)
        for i in range(count):
            _update(usual, feed.ordinary(0, i))
            _update(other, feed.ordinary(0, i))
        now_s = feed.now_s(count)
        how = "an array that it had handed out"
        for array in arrays(other, now_s):
            if array.flags.writeable and array.size:
                array.flat[0] = 77
        if keeps_state(other):
            how += " or its snapshot"
            states = [copy.deepcopy(usual.snapshot()) for _ in range(2)]
            _spoil(other.snapshot())
        if where := same(readings(usual, now_s), readings(other, now_s)):
            raise AssertionError(f"{name_of(other)} changed with {how}: {where}. Give copies, or read-only arrays")
        _go_on(usual, other, feed, count, f"changed with {how}: give copies")
        if keeps_state(other):
            twin, taken = create(make), create(make)
            twin.restore(states[0])
            taken.restore(states[1])
            _spoil(states[1])
            _go_on(twin, taken, feed, count, "kept the state that restore() was given, which then changed: copy it")


def instances_share_nothing(make: Make, feed: Feed) -> None:
    """Two in turn say what each says alone."""
    if create(make) is (first := create(make)):
        raise TypeError(f"give a function that makes a new {name_of(first)} each time: lambda: {name_of(first)}(...)")
    alone = []
    for seed in (1, 2):
        estimator = create(make)
        alone.append([_step(estimator, feed, seed, i) for i in range(_MORE * 2)])
    both = create(make), create(make)
    for i in range(_MORE * 2):
        for seed, estimator in enumerate(both, 1):
            if where := same(alone[seed - 1][i], _step(estimator, feed, seed, i)):
                raise AssertionError(
                    f"{name_of(estimator)} differs when a second one is updated in between (update {i}): {where}. "
                    "Keep all state in the object, none in its class or module"
                )


def same_input_same_estimates(make: Make, feed: Feed) -> None:
    """The same twice, under other seeds of the global generators."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002  (the global one is what must not be touched)
    try:
        runs = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  (the global one is what must not be touched)
            estimator = create(make)
            runs.append([_step(estimator, feed, 1, i) for i in range(_MORE * 2)])
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002  (the global one is what must not be touched)
    for i, (one, other) in enumerate(zip(*runs, strict=True)):
        if where := same(one, other):
            raise AssertionError(
                f"{name_of(estimator)} gave two answers for the same input (update {i}): {where}. "
                "Use no chance, or a generator with a seed of its own"
            )


def bounded(make: Make, feed: Feed, updates: int) -> None:
    """The second half of many updates makes it no larger."""
    estimator = create(make)
    sizes: list[tuple[int, int]] = []
    for i, arguments in enumerate(feed.many(updates), 1):
        estimator.update(*arguments)
        if i in (updates // 2, updates):
            sizes.append((json_size(stored(estimator)) if keeps_state(estimator) else 0, size_of(estimator)))
    for what, unit, early, late in zip(("snapshot", "object"), ("characters", "bytes"), *sizes, strict=True):
        if late > 1.1 * early + 256:
            raise AssertionError(
                f"{name_of(estimator)} grows: its {what} had {early:,} {unit} after {updates // 2:,} updates, "
                f"{late:,} after {updates:,}. Keep sums, or the last few"
            )


def _update(estimator: Any, arguments: tuple[Any, ...]) -> None:
    try:
        estimator.update(*arguments)
    except Exception as error:
        raise AssertionError(
            f"{name_of(estimator)}.update raised {error!r} when it was given {arguments[0]}: "
            "refuse what you can't use, count it in `refused`, and go on"
        ) from error


def _step(estimator: Any, feed: Feed, seed: int, i: int) -> dict[str, Any]:
    _update(estimator, feed.ordinary(seed, i))
    return readings(estimator, feed.now_s(i))


def _go_on(usual: Any, other: Any, feed: Feed, start: int, what: str, but: tuple[str, ...] = ()) -> None:
    """Compare what comes later."""
    for i in range(start, start + _MORE):
        _update(usual, feed.ordinary(0, i))
        _update(other, feed.ordinary(0, i))
        now_s = feed.now_s(i)
        if where := same(readings(usual, now_s, but=but), readings(other, now_s, but=but)):
            raise AssertionError(f"{name_of(other)} {what}, after {start} updates: at update {i} {where}")


def _spoil(state: Any) -> None:
    """Change plain data all the way down."""
    if isinstance(state, dict):
        for key, value in state.items():
            _spoil(value)
            if not isinstance(value, dict | list):
                state[key] = 77
    elif isinstance(state, list):
        for value in state:
            _spoil(value)
        state[:] = [value if isinstance(value, dict | list) else 77 for value in state]
        state.append(77)
