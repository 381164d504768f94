"""A transport inside one process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

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

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self._answer = answer
        self._arrived: deque[bytes] = deque()

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        answer = self._answer(frame)
        if answer is not None:
            self._arrived.append(answer)

    def receive(self, *, timeout_s: float) -> bytes | None:
        if self._arrived:
            return self._arrived.popleft()
        if timeout_s > 0:
            time.sleep(timeout_s)  # nothing can arrive meanwhile: answers come in the caller's own thread
        return None
