"""Ending as one is asked to: SIGTERM and SIGHUP end a command as Ctrl-C does, with everything put in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Terminated", "terminable"]

_NAMES = ("SIGTERM", "SIGHUP")  # a system without one of them never sends it


class Terminated(KeyboardInterrupt):
    """Another process asked this one to end.

    Parameters
    ----------
    number : int
        The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM or SIGHUP comes; once, so that the clean-up is left alone.

    A signal that is ignored (``nohup``) stays ignored. A web server that has its own handler for SIGTERM meanwhile gets
    SIGTERM for SIGHUP as well, and so ends in its own way. In other threads signals can't be caught: nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        if number != signal.SIGTERM and signal.getsignal(signal.SIGTERM) is not end:
            signal.raise_signal(signal.SIGTERM)
        elif not ending:
            ending = True
            raise Terminated(number)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
