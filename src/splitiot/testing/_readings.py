"""What an estimator says, whatever kind it is."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitiot.estimators import Belief, Beliefs
from splitiot.testing._create import name_of
from splitiot.testing._plain import attributes, not_plain, taken_apart, through_json

__all__ = ["arrays", "keeps_state", "nonsense", "readings", "refused", "restored", "same", "stored"]

_METHODS: Final = ("get", "belief", "beliefs", "vector")
_VALUES: Final = ("drift_detected", "samples", "refused", "spread", "identified")


def readings(estimator: Any, now_s: float | None = None, *, but: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return all that can be read, by name: ``get``, ``belief(s)``, ``vector``, ``..._belief``, arrays, counts.

    Parameters
    ----------
    estimator : object
    now_s : float, optional
        For methods that want it.
    but : tuple of str
        What to leave out.
    """
    kind: Any = type(estimator)
    methods = {name: _read(estimator, name, wants, now_s) for name, wants in _methods(kind) if name not in but}
    values = {name: getattr(estimator, name) for name in _VALUES if hasattr(estimator, name) and name not in but}
    public = {name: value for name, value in attributes(estimator) if name[0] != "_" and isinstance(value, np.ndarray)}
    if not methods and not hasattr(estimator, "drift_detected"):
        raise AssertionError(
            f"{name_of(estimator)} can't be read: give it get(), belief(now_s), beliefs(now_s) or drift_detected"
        )
    whole = public | methods | values
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in whole.items()}


@functools.lru_cache(maxsize=64)
def _methods(kind: type) -> tuple[tuple[str, bool], ...]:
    """Return the names of a class's reading methods, and whether each wants the time."""
    names = [*_METHODS, *(name for name in dir(kind) if name.endswith("_belief") and name[0] != "_")]
    methods = [(name, getattr(kind, name)) for name in names if inspect.isfunction(getattr(kind, name, None))]
    return tuple((name, _wants(method)) for name, method in methods)


def _wants(function: Any) -> bool:
    _, *others = inspect.signature(function).parameters.values()
    return any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in others)


def _read(estimator: Any, name: str, wants: bool, now_s: float | None) -> Any:
    method = getattr(estimator, name)
    return method(now_s) if wants else method()


def arrays(estimator: Any, now_s: float | None = None) -> Iterator[NDArray[Any]]:
    """Yield the arrays that it hands out, and no copies of them."""
    kind: Any = type(estimator)
    values = [value for name, value in attributes(estimator) if name[0] != "_"]
    values += [_read(estimator, name, wants, now_s) for name, wants in _methods(kind)]
    yield from (value for value in values if isinstance(value, np.ndarray))


def nonsense(read: dict[str, Any]) -> str | None:
    """Say which of the numbers read is none that can be reckoned with, None where all are."""
    for name, value in read.items():
        for where, belief in _beliefs(name, value):
            if not math.isfinite(belief.value):
                return f"{where}.value is {belief.value}"
            for what, number in (("spread", belief.spread), ("age_s", belief.age_s), ("samples", belief.samples)):
                if not number >= 0:
                    return f"{where}.{what} is {number}"
        numbers = value.tolist() if isinstance(value, np.ndarray) else [value]
        for number in numbers:
            if name != "spread" and isinstance(number, float) and not math.isfinite(number):
                return f"{name} gives {number}"
    return None


def _beliefs(name: str, value: Any) -> Iterator[tuple[str, Belief]]:
    if isinstance(value, Belief):
        yield name, value
    if isinstance(value, Beliefs):
        for field in value.__struct_fields__:
            yield f"{name}.{field}", getattr(value, field)


def refused(estimator: Any) -> int | None:
    """Return how many numbers it has refused, None where it does not count them."""
    count = getattr(estimator, "refused", None)
    return None if count is None else int(count)


def keeps_state(estimator: Any) -> bool:
    """Whether it can be stored."""
    return callable(getattr(estimator, "snapshot", None)) and callable(getattr(estimator, "restore", None))


def stored(estimator: Any) -> dict[str, Any]:
    """Return its snapshot, which must be plain data."""
    state: dict[str, Any] = estimator.snapshot()
    if problem := not_plain(state, "snapshot()"):
        raise AssertionError(
            f"{name_of(estimator)}: {problem}. Keep dicts of str keys, lists, str, int, bool, None, finite floats"
        )
    return state


def restored(estimator: Any, state: dict[str, Any]) -> Any:
    """Return an estimator, new so far, with a state that went through JSON."""
    estimator.restore(through_json(state))
    return estimator


def same(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Say which reading differs, None where none does."""
    for name in one:
        if taken_apart(one[name]) != taken_apart(other[name]):
            return f"{name} is {other[name]}, not {one[name]}"
    return None
