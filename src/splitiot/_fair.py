"""Threads that serve many names fairly."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from splitiot._log import logger

__all__ = ["FairExecutor"]


class FairExecutor:
    """A pool of threads, shared out evenly among those who have something to run.

    The next run is always of the name with the fewest threads at that moment; of several such, of the one whose turn
    was longest ago. So whoever asks for much waits for his own runs, and others for one of them at most. How much may
    wait is bounded by who submits.

    Parameters
    ----------
    workers : int
        How many threads.
    thread_name_prefix : str
    """

    def __init__(self, workers: int, *, thread_name_prefix: str) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=thread_name_prefix)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Callable[[], object]]] = {}  # in the order of their turns
        self._running: Counter[str] = Counter()

    def submit(self, name: str, run: Callable[[], object]) -> None:
        """Run this for a name, as soon as it is its turn.

        Raises
        ------
        RuntimeError
            It was shut down.
        """
        with self._lock:
            self._threads.submit(self._run_next)
            self._waiting.setdefault(name, deque()).append(run)

    def shutdown(self) -> None:
        """Take no more, and wait for what was submitted."""
        self._threads.shutdown(wait=True)

    def _run_next(self) -> None:
        with self._lock:
            name = min(self._waiting, key=self._running.__getitem__)
            waiting = self._waiting.pop(name)
            run = waiting.popleft()
            if waiting:
                self._waiting[name] = waiting  # behind the others
            self._running[name] += 1
        try:
            run()
        except Exception:  # nobody waits here for what it gives
            logger.exception("a run in a thread of the edge raised")
        finally:
            with self._lock:
                self._running[name] -= 1
                if not self._running[name]:
                    del self._running[name]
