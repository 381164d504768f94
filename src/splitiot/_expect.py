"""Telling callers what was expected of them, at once and in a sentence."""

from __future__ import annotations

from typing import Any

__all__ = ["described", "expect"]


def expect(value: Any, kind: type[Any], name: str, advice: str = "") -> Any:
    """Return a value that has the right type.

    Parameters
    ----------
    value : object
    kind : type
    name : str
        Of the parameter.
    advice : str
        How to make one.

    Raises
    ------
    TypeError
        It is something else; the message says what, and what to do.

    Examples
    --------
    >>> expect("3", int, "window", "write 3")
    Traceback (most recent call last):
    TypeError: window must be of type int, got the str '3': write 3
    >>> expect(int, int, "window")
    Traceback (most recent call last):
    TypeError: window must be of type int, got the class itself: write int(...)
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, type) and issubclass(value, kind):
        raise TypeError(f"{name} must be of type {kind.__name__}, got the class itself: write {value.__name__}(...)")
    raise TypeError(f"{name} must be of type {kind.__name__}, got {described(value)}{advice and ': '}{advice}")


def described(value: Any) -> str:
    """Return words for a value of a wrong type, on one line.

    Examples
    --------
    >>> described("http://edge:8765"), described([1, 2]), described(None), described(described)
    ("the str 'http://edge:8765'", 'the list [1, 2]', 'None', 'the function described')
    """
    if value is None:
        return "None"
    name = getattr(value, "__name__", None)
    text = name if callable(value) and isinstance(name, str) else " ".join(repr(value).split())
    return f"the {type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
