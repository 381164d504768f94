"""Forks: what belongs to one process is made anew in the processes that are forked from it.

Whoever holds a lock, a thread, a socket, a child process, a file or an identity says with `in_child` how to go on in a
child. That is called there, in the only thread that there is, before anything else runs: nothing is waited for, and
nothing of the parent's is ended, only descriptors are closed.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from types import MethodType

try:
    from ctypes import py_object, pythonapi
except ImportError:  # a Python that was built without it
    pythonapi = None  # type: ignore[assignment]

__all__ = ["check", "in_child", "leave"]

_renewals: dict[int, Callable[[], None]] = {}
_number = itertools.count().__next__
_pid = os.getpid()
_noticing = threading.Lock()
_left: list[object] = []


def in_child(renew: Callable[[], None]) -> None:
    """Call this in every child process.

    A method is called as long as there is its object, which is not kept alive: say it behind all that the method needs.
    """
    key = _number()
    if not isinstance(renew, MethodType):
        _renewals[key] = renew
        return
    forget = _renewals.pop  # a name of its own: at the end of the process this module has none any more
    whose, method = weakref.ref(renew.__self__, lambda _: forget(key, None)), renew.__func__

    def renew_if_there() -> None:
        if (thing := whose()) is not None:
            method(thing)

    _renewals[key] = renew_if_there


def check() -> None:
    """Notice a fork that Python was not told of, as by servers that fork in C (uWSGI). It costs one system call."""
    if os.getpid() != _pid:
        with _noticing:  # threads of the child may come at once
            if os.getpid() != _pid:
                _forked()


def leave(*things: object) -> None:
    """Never free these in this process, not even at its end: to tear them down is for the parent.

    To free an interpreter is to join the threads of its pool, which a child does not have (it crashes). To free what a
    task has opened may say goodbye over a connection that is the parent's.
    """
    _left.extend(things)
    if pythonapi is not None:  # else they live until the end, when the list is freed
        for thing in things:
            pythonapi.Py_IncRef(py_object(thing))


def _forked() -> None:
    global _pid
    for renew in list(_renewals.values()):
        renew()
    _pid = os.getpid()  # last: until then other threads wait in `check`


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forked)
