"""Objects taken to pieces: to compare them, to measure them, and to tell whether JSON can hold them."""

from __future__ import annotations

import functools
import json
import math
import sys
import types
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

import msgspec
import numpy as np

from splitiot.policies import PolicyMemory

__all__ = ["attributes", "json_size", "not_plain", "size_of", "taken_apart", "through_json"]

_LEAVES: Final = (str, bytes, int, float, complex, bool, type(None))
_BY_NAME: Final = (type, types.ModuleType, types.BuiltinFunctionType, functools.partial)
_CODE: Final = (*_BY_NAME, types.FunctionType, types.MethodType)


def taken_apart(thing: Any) -> Any:
    """Return nested tuples that are equal where two objects have the same state; NaN equals NaN here."""
    return _apart(thing, frozenset())


def _apart(thing: Any, above: frozenset[int]) -> Any:
    if isinstance(thing, float) and math.isnan(thing):
        return "nan"
    if isinstance(thing, _LEAVES):
        return thing
    if id(thing) in above:
        return "itself"
    above |= {id(thing)}
    if isinstance(thing, np.ndarray):
        return (
            thing.dtype.str,
            thing.shape,
            _apart(thing.tolist(), above) if thing.dtype.hasobject else thing.tobytes(),
        )
    if isinstance(thing, np.generic):
        return _apart(thing.item(), above)
    if isinstance(thing, Mapping):
        return (*((_apart(key, above), _apart(value, above)) for key, value in thing.items()),)
    if isinstance(thing, Set):
        return frozenset(_apart(x, above) for x in thing)
    if isinstance(thing, list | tuple | deque):
        return (type(thing).__name__, *(_apart(x, above) for x in thing))
    if isinstance(thing, types.FunctionType):
        return (id(thing), *(_apart(cell.cell_contents, above) for cell in _filled(thing)))
    if isinstance(thing, types.MethodType):
        return (id(thing.__func__), _apart(thing.__self__, above))
    if isinstance(thing, _BY_NAME):
        return id(thing)
    kind, state = type(thing), dict(attributes(thing))
    # what is written in C, such as a generator, keeps more than attributes
    plain = state and getattr(kind, "__reduce__", None) == object.__reduce__
    rest = None if plain else _apart(_reduced(thing), above)
    return (kind.__qualname__, *((name, _apart(value, above)) for name, value in state.items()), rest)


def _filled(function: types.FunctionType) -> Iterator[types.CellType]:
    for cell in function.__closure__ or ():
        try:
            _ = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield cell


def attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object keeps, in ``__dict__`` and in slots."""
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    yield name, member.__get__(thing, type(thing))
                except AttributeError:  # an empty slot
                    continue


def _reduced(thing: Any) -> Any:
    """Return the state of an object written in C, such as a generator; its identity where it has none to show."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            state = thing.__reduce_ex__(2)
    except Exception:
        return id(thing)
    return state if isinstance(state, str) else tuple(x for x in state[1:] if x is not None)


def size_of(thing: Any) -> int:
    """Return the bytes of an object and of all that it holds; what is shared counts once, code not at all."""
    return sum(map(sys.getsizeof, _held(thing)))


def _held(thing: Any) -> Iterator[Any]:
    known: set[int] = set()
    waiting = [thing]
    while waiting:
        thing = waiting.pop()
        if id(thing) in known or isinstance(thing, _CODE):
            continue
        known.add(id(thing))
        yield thing
        if isinstance(thing, np.ndarray):
            waiting += [] if thing.base is None else [thing.base]
        elif isinstance(thing, Mapping):
            waiting += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | deque | Set):
            waiting += thing
        elif not isinstance(thing, _LEAVES):
            waiting += [value for _, value in attributes(thing)]


def not_plain(value: Any, where: str) -> str | None:
    """Say what in a value would not come back from JSON as it was, None where all would.

    Parameters
    ----------
    value : object
    where : str
        What it is called in messages.
    """
    if isinstance(value, PolicyMemory):
        return _not_typed(value, where)
    if type(value) is dict:
        for key, inner in value.items():
            if type(key) is not str:
                return f"{where} has the key {key!r}, and JSON makes a string of it"
            if problem := not_plain(inner, f"{where}[{key!r}]"):
                return problem
        return None
    if type(value) is list:
        return next(filter(None, (not_plain(inner, f"{where}[{i}]") for i, inner in enumerate(value))), None)
    if type(value) is tuple:
        return f"{where} is a tuple, which comes back from JSON as a list"
    if type(value) not in (str, int, float, bool, type(None)):
        return f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which JSON does not know"
    if type(value) is float and not math.isfinite(value):
        return f"{where} is {value}, which JSON does not know"
    return None


def _not_typed(memory: PolicyMemory, where: str) -> str | None:
    name = type(memory).__name__
    try:
        again = msgspec.convert(through_json(memory), type(memory))
    except (TypeError, ValueError) as error:
        return f"{where} is a {name} that JSON does not bring back: {error}"
    return None if again == memory else f"{where} is {memory}, and comes back from JSON as {again}"


def through_json(value: Any) -> Any:
    """Write it as JSON and read it again."""
    return json.loads(json.dumps(msgspec.to_builtins(value), allow_nan=False))


def json_size(value: Any) -> int:
    """Return how many characters it is as JSON."""
    return len(json.dumps(msgspec.to_builtins(value)))
