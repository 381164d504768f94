"""The end of a process that was told to end, whatever hangs in it."""

from __future__ import annotations

import os
import threading
from types import TracebackType

from splitiot._log import logger

__all__ = ["ENDED_BY_FORCE", "Grace"]

ENDED_BY_FORCE = 3
"""The exit code of a process that did not end in time by itself."""


class Grace:
    """Ends this process by force when it has been told to end and is still there some time later.

    A thread can't be stopped in Python: a step that never returns would keep the process for ever. As a context, its
    end calls the force off.

    Parameters
    ----------
    seconds : float
        How long it has, from `begin`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # plain locks: `begin` is called in signal handlers, where an Event may wait for itself
        self._begun, self._over = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._over.acquire()
        threading.Thread(target=self._watch, daemon=True, name="splitiot-grace").start()

    def begin(self) -> None:
        """Count from now; a second time changes nothing."""
        if self._begun.locked():
            self._begun.release()

    def __enter__(self) -> Grace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.release()
        self.begin()

    def _watch(self) -> None:
        self._begun.acquire()
        if not self._over.acquire(timeout=self._seconds):
            logger.error("still running %g s after it was told to end: this process ends by force", self._seconds)
            os._exit(ENDED_BY_FORCE)
