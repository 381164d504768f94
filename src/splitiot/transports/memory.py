"""A transport inside one process."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from splitiot import _fork
from splitiot._expect import described
from splitiot.transports._base import Transport

__all__ = ["InMemory"]


class InMemory(Transport):
    """Answers come from a function in the same thread: for tests, examples, and a first try.

    Parameters
    ----------
    answer : callable
        Takes a frame, returns the answer's; None loses it. A `TransportError` that it raises reaches the session.

    Examples
    --------
    An edge and a device in one process::

        service = splitiot.EdgeService([pipeline])
        transport = splitiot.InMemory(lambda frame: service.handle(frame, peer="me"))
    """

    punctual = True  # `send` runs the edge itself, and takes as long as that

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        if not callable(answer):
            raise TypeError(
                f"answer must be a function from frame to frame, got {described(answer)}: "
                "lambda frame: service.handle(frame, peer='me'), say"
            )
        self._answer = answer
        self._new_queue()
        _fork.in_child(self._new_queue)

    def _new_queue(self) -> None:
        self._arrived: queue.SimpleQueue[tuple[bytes, float]] = queue.SimpleQueue()

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        answer = self._answer(frame)
        if answer is not None:
            self._arrived.put((answer, time.monotonic()))

    def receive(self, *, timeout_s: float) -> bytes | None:
        try:
            answer, came_s = self._arrived.get(timeout=timeout_s) if timeout_s > 0 else self._arrived.get_nowait()
        except queue.Empty:
            return None
        self.waited_s = time.monotonic() - came_s
        return answer

    def after_fork(self) -> None:
        pass  # there is nothing to do: the queue was renewed
