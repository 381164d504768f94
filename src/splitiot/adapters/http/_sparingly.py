"""Logs that nobody can fill from outside."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Sparingly", "sparingly"]


class Sparingly(logging.Filter):
    """Lets each place in the code log a few records a minute, and counts the rest.

    Parameters
    ----------
    few : int
    every_s : float
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, few: int = 5, every_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._few, self._every_s, self._clock = few, every_s, clock
        self._places: dict[tuple[str, int], tuple[float, int]] = {}  # since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        place, now_s = (record.pathname, record.lineno), self._clock()
        since_s, logged = self._places.get(place, (now_s, 0))
        if now_s - since_s >= self._every_s:
            if logged > self._few:
                record.msg = f"{record.getMessage()} ({logged - self._few} more like this were not logged)"
                record.args = None
            since_s, logged = now_s, 0
        self._places[place] = (since_s, logged + 1)
        return logged < self._few


@contextmanager
def sparingly(*names: str) -> Iterator[None]:
    """Make loggers log sparingly meanwhile."""
    filters = [(logging.getLogger(name), Sparingly()) for name in names]
    for logger, each in filters:
        logger.addFilter(each)
    try:
        yield
    finally:
        for logger, each in filters:
            logger.removeFilter(each)
