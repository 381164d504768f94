"""What a check is given: a class, or a function without arguments that makes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["create", "name_of"]

T = TypeVar("T")


def create(make: Callable[[], T]) -> T:
    """Make what is checked.

    Raises
    ------
    TypeError
        It can't be made without arguments, or is an object and no class or function.
    """
    if not callable(make):
        kind = type(make).__name__
        raise TypeError(f"a check takes a class or a function that makes one, got a {kind}: give lambda: {kind}(...)")
    try:
        return make()
    except TypeError as error:
        kind = getattr(make, "__name__", "it")
        raise TypeError(f"{kind} can't be made without arguments ({error}): give lambda: {kind}(...)") from error


def name_of(thing: Any) -> str:
    """Return what messages call it."""
    return type(thing).__name__
