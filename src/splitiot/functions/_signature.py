"""What a function's signature says: how many values it takes, what it takes and returns, and what of that can cross."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from attrs import frozen

from splitiot.errors import CutError
from splitiot.pipeline import Drop

__all__ = ["Signature", "obstacle", "read", "several"]

_UNKNOWN: Final = object()
_PLAIN: Final[tuple[Any, ...]] = (type(None), bool, int, float, str, bytes, list, tuple, dict)
_ABSTRACT: Final = frozenset(
    {
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
        collections.abc.Collection,
        collections.abc.Sized,
        collections.abc.Container,
        collections.abc.Reversible,
        collections.abc.Iterable,
        collections.abc.Hashable,
        collections.abc.Buffer if hasattr(collections.abc, "Buffer") else bytes,
    }
)
# array element types that can't cross
_FOREIGN: Final = (np.object_, np.flexible, np.datetime64, np.timedelta64)
# the classes that an annotation accepts besides its own (PEP 484's numeric tower, and numpy's scalars)
_WIDER: Final[dict[Any, tuple[type, ...]]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (float, int, np.floating, np.integer),
}


@frozen
class Signature:
    """What a task takes and returns.

    Parameters
    ----------
    least, most : int, int or None
        How many values it takes, without what its set-up gives. 0: none. 1: the value as it is. More: the items of a
        tuple. `most` is None where there is no limit.
    takes : tuple
        Annotations of the values; those that are missing or can't be told are left out as unknown.
    returns : object
        Annotation of what it returns.
    """

    least: int
    most: int | None
    takes: tuple[Any, ...]
    returns: Any

    def obstacle_before(self) -> str | None:
        """Why what it takes can't cross, None where it can or nobody knows."""
        return next((why for hint in self.takes if (why := obstacle(hint))), None)

    def obstacle_behind(self) -> str | None:
        """Why what it returns can't cross."""
        return obstacle(self.returns)

    def classes(self) -> tuple[type, ...] | None:
        """Of what a returned value must be an instance of one; None where the annotation does not say."""
        return _classes(self.returns)

    def unfit(self, before: Any) -> str | None:
        """Why the task can't take what the one before returns, by its annotation; None where it may."""
        kinds = [hint for hint in _members(before) if hint is not Drop]
        if not kinds or any(hint is _UNKNOWN or hint is Any or hint is object for hint in kinds):
            return None
        if self.least == 0:
            return None if type(None) in kinds else "it takes nothing"
        if self.least == 1:
            return None
        counts = [_count(hint) for hint in kinds]
        if all(count is not _UNKNOWN and not self._fits(count) for count in counts):
            return f"it takes {self.arity}"
        return None

    def _fits(self, count: Any) -> bool:
        return count is not None and self.least <= count <= (count if self.most is None else self.most)

    @property
    def arity(self) -> str:
        """How many values, in words."""
        if self.least == self.most:
            return f"{self.least} values"
        return f"{self.least} values or more" if self.most is None else f"{self.least} to {self.most} values"


def read(function: Callable[..., Any], name: str, *, holds: bool) -> Signature:
    """Read a function's signature.

    Parameters
    ----------
    function : callable
    name : str
    holds : bool
        Whether its first argument is what a set-up gave.

    Raises
    ------
    CutError
        It can't be called with values in order, or it is a generator.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    run = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner).__call__
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        raise CutError(f"task {name!r} is a generator: a task returns once for each value that it is given")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # a function written in C has no signature: it gets the value as it is
        return Signature(1, 1, (), _UNKNOWN)
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if needed:
        raise CutError(f"task {name!r} needs the keyword argument {needed[0]!r}: give it with functools.partial")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    endless = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if holds:
        if not positional and not endless:
            raise CutError(f"task {name!r} has a resource, but takes no argument: the resource is its first one")
        positional = positional[1:]
    least = sum(p.default is p.empty for p in positional)
    most = None if endless else len(positional)
    if least == 0 and most != 0:
        least = most = 1
    elif least == 1:
        most = 1
    hints = _hints(inner)
    takes = tuple(hints.get(p.name, _UNKNOWN) for p in positional[: max(least, 1) if least else 0])
    return Signature(least, most, takes, _awaited(hints.get("return", _UNKNOWN)))


def several(payload: Any, least: int, most: int | None, name: str) -> tuple[Any, ...]:
    """Return the items of what the task before gave, as arguments.

    Raises
    ------
    TypeError
        It gave something else, or another number.
    """
    if type(payload) is not tuple:
        raise TypeError(f"task {name!r} takes several values, and was given a {type(payload).__name__}, not a tuple")
    if len(payload) < least or (most is not None and len(payload) > most):
        wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        raise TypeError(f"task {name!r} takes {wanted} values, and was given {len(payload)}")
    return payload


def obstacle(hint: Any) -> str | None:
    """Why no value of an annotation can cross, in words; None where one can, or nobody knows.

    Examples
    --------
    >>> obstacle(set[int]), obstacle(int | None), obstacle(list[set[str]])
    ('a set', None, 'a set')
    """
    members = _members(hint)
    if len(members) > 1:
        obstacles = [obstacle(member) for member in members if member is not Drop]
        return obstacles[0] if obstacles and all(obstacles) else None
    (hint,) = members
    if hint is _UNKNOWN or hint is Any or hint is object or hint is Drop or isinstance(hint, typing.TypeVar):
        return None
    origin = typing.get_origin(hint)
    kind = hint if origin is None else origin
    if not isinstance(kind, type):
        return None
    arguments = typing.get_args(hint)
    if kind in (list, tuple):
        return next((why for inner in arguments if inner is not ... and (why := obstacle(inner))), None)
    if kind is dict and len(arguments) == 2:
        return obstacle(arguments[1]) or (
            None if _may_be_text(arguments[0]) else "a dict with keys that are no strings"
        )
    if kind in _PLAIN or kind in _ABSTRACT or typing.is_typeddict(kind) or getattr(kind, "_is_protocol", False):
        return None
    if issubclass(kind, np.ma.MaskedArray):
        return "a masked array"
    if issubclass(kind, np.ndarray):
        if kind not in (np.ndarray, np.memmap):
            return f"a {kind.__name__}"
        kept = [element for inner in arguments[1:] for element in typing.get_args(inner)]
        return next((why for element in kept if (why := obstacle(element))), None)
    if issubclass(kind, np.generic) and not issubclass(kind, _FOREIGN):
        return None
    return f"a {kind.__name__}"


def _may_be_text(hint: Any) -> bool:
    return any(member in (str, Any, object, _UNKNOWN) or not isinstance(member, type) for member in _members(hint))


def _awaited(hint: Any) -> Any:
    """What comes of an annotation when it has been awaited."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is collections.abc.Awaitable or origin is collections.abc.Coroutine:
        return arguments[-1]
    kind = hint if origin is None else origin
    return _UNKNOWN if isinstance(kind, type) and issubclass(kind, collections.abc.Awaitable) else hint


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function).__call__  # an object that can be called
    try:
        return typing.get_type_hints(function)
    except Exception:  # the annotations use names that exist for type checkers only
        return {}


def _members(hint: Any) -> list[Any]:
    """The members of a union, or the annotation itself; without wrappers that change nothing."""
    while True:
        if hint is None:
            return [type(None)]
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif type(typing.get_origin(hint)).__name__ == "TypeAliasType":
            hint = _expanded(hint)
        elif typing.get_origin(hint) in (typing.Annotated, typing.Final, typing.ClassVar):
            hint = typing.get_args(hint)[0]
        else:
            break
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [member for inner in typing.get_args(hint) for member in _members(inner)]
    if origin is typing.Literal:
        return list(dict.fromkeys(type(value) for value in typing.get_args(hint)))
    return [hint]


def _expanded(hint: Any) -> Any:
    """What an alias with parameters stands for: numpy's NDArray is one from numpy 2.5 on."""
    alias = typing.get_origin(hint)
    given = dict(zip(alias.__type_params__, typing.get_args(hint), strict=False))
    parameters = getattr(alias.__value__, "__parameters__", ())
    try:
        return alias.__value__[tuple(given.get(one, one) for one in parameters)] if parameters else alias.__value__
    except TypeError:
        return _UNKNOWN


def _count(hint: Any) -> Any:
    """How many values an annotation returns: None where it is no tuple, unknown where its length is."""
    origin = typing.get_origin(hint) or hint
    if origin is tuple:
        arguments = typing.get_args(hint)
        return _UNKNOWN if not arguments or ... in arguments else len(arguments)
    return None if isinstance(origin, type) and (origin in _PLAIN or issubclass(origin, np.ndarray)) else _UNKNOWN


def _classes(hint: Any) -> tuple[type, ...] | None:
    classes: list[type] = []
    for member in _members(hint):
        kind = typing.get_origin(member) or member
        if kind is Drop:
            continue
        if not isinstance(kind, type) or not (kind in _PLAIN or issubclass(kind, np.ndarray | np.generic)):
            return None
        classes += _WIDER.get(kind, (kind,))
    return (*classes, Drop) if classes else None
