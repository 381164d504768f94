"""The transport of a simulated device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from splitiot.errors import TransportError
from splitiot.transports import Transport

__all__ = ["SimulatedTransport"]


class SimulatedTransport(Transport):
    """Carries frames over the simulated network. Waiting takes no time: there is something, or there is not.

    Parameters
    ----------
    send : callable
    clock : callable
    tells : bool
        Whether it tells when frames came.
    """

    def __init__(self, send: Callable[[bytes], None], clock: Callable[[], float], *, tells: bool = True) -> None:
        self._send, self._clock, self._tells = send, clock, tells
        self._inbox: deque[tuple[bytes | TransportError, float]] = deque()

    def came(self, frame: bytes | TransportError) -> None:
        """Something is here: it waits until it is read."""
        self._inbox.append((frame, self._clock()))

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        self._send(frame)

    def receive(self, *, timeout_s: float) -> bytes | None:
        if not self._inbox:
            return None
        frame, came_s = self._inbox.popleft()
        if self._tells:
            self.waited_s = self._clock() - came_s
        if isinstance(frame, TransportError):
            raise frame
        return frame
