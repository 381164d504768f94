"""One thread at a time in a function: most have something of their own, a buffer say, that two would share."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Final

from splitiot import _fork

__all__ = ["Turn", "turns_of"]


class Turn:
    """Whose turn it is in one function. A thread that has it already may go on."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def take(self) -> tuple[Callable[[], None], float]:
        """Wait for it; return what lets the next one have it, and the seconds that this took."""
        lock = self.lock  # after a fork inside the function, `self.lock` is a new one that is not held
        if lock.acquire(blocking=False):
            return lock.release, 0.0
        began_s = time.perf_counter()
        lock.acquire()
        return lock.release, time.perf_counter() - began_s


_turns_lock = threading.Lock()
_turns: Final[weakref.WeakKeyDictionary[Any, Turn]] = weakref.WeakKeyDictionary()


def turns_of(functions: Iterable[Callable[..., Any]]) -> Sequence[Turn]:
    """Return the turns in functions that run behind each other, in an order that is the same for all.

    A function has one turn, in however many pipelines it stands; so have the methods of one object.
    """
    turns = {id(turn): turn for turn in map(_turn_of, functions)}
    return [turns[key] for key in sorted(turns)]


def _turn_of(function: Callable[..., Any]) -> Turn:
    owner = getattr(function, "__self__", None)
    key = function if owner is None or isinstance(owner, ModuleType) else owner  # a builtin's __self__ is a module
    with _turns_lock:
        try:
            return _turns.setdefault(key, Turn())
        except TypeError:  # it can't be hashed or weakly referenced: nobody shares its turn
            return Turn()


def _forked() -> None:
    global _turns_lock
    _turns_lock = threading.Lock()
    for turn in list(_turns.values()):
        turn.lock = threading.RLock()  # a thread of the parent may have held the old one


_fork.in_child(_forked)
