"""What comes from the edge, and when it came."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import frozen

from splitiot._expect import described
from splitiot.errors import TransportBug, TransportError
from splitiot.session import Arrival
from splitiot.transports import Transport

__all__ = ["Inbox", "Received"]

_GAP_S: Final = 0.001


@frozen
class Received:
    """A frame, or news of one that was lost, and when it was here."""

    frame: bytes | TransportError
    arrival: Arrival


class Inbox:
    """Reads a transport, and knows when what it reads was here.

    Some transports say so (`Transport.waited_s`). Of the others a frame has just come if somebody was waiting for it;
    if not, it came at any time since somebody looked last.

    Parameters
    ----------
    transport : Transport
    clock : callable
    name : str
        What the transport is called where it does what it must not.
    failure : callable
        Returns what any exception of `receive` means.

    Attributes
    ----------
    heard_s : float
        All that had come by then has been read.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Callable[[], float],
        name: str,
        failure: Callable[[Exception], TransportError],
    ) -> None:
        self._transport, self._clock = transport, clock
        self._name, self._failure = name, failure
        self.heard_s = -math.inf

    def receive(self, timeout_s: float) -> Received | None:
        """Wait for what comes next; None when there was nothing in this time."""
        if timeout_s > 0 and self._clock() - self.heard_s > _GAP_S:
            waiting = self._read(0.0)  # take what has waited first, to tell it from what comes now
            if waiting is not None:
                return waiting
        return self._read(timeout_s)

    def _read(self, timeout_s: float) -> Received | None:
        transport, clock = self._transport, self._clock
        began_s = clock()
        frame: bytes | TransportError | None
        try:
            frame = transport.receive(timeout_s=timeout_s)
            if frame is not None and not isinstance(frame, bytes | bytearray | memoryview):
                raise TransportBug(f"{self._name}.receive returned {described(frame)}, neither bytes nor None")
        except Exception as error:
            frame = self._failure(error)
        now_s = clock()
        if frame is None:
            # a suspended machine comes back late: count as listening only the time that was asked for
            self.heard_s = max(self.heard_s, min(now_s, began_s + max(0.0, timeout_s)))
            return None
        waited_s = transport.waited_s
        if waited_s is None:
            arrival = Arrival(now_s, max(0.0, began_s - self.heard_s))
        else:
            arrival = Arrival(now_s - max(0.0, waited_s), 0.0, transport.queued_s)
        # frames come in order: all that came before this one has been read
        self.heard_s = max(self.heard_s, arrival.came_s - arrival.unsure_s)
        return Received(frame, arrival)
