"""A device's transport, whatever it does: each call ends in time, and each exception is news of a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from splitiot.device._inbox import Inbox, Received
from splitiot.device._options import Options
from splitiot.device._reporter import Reporter
from splitiot.errors import TransportBug, TransportError
from splitiot.transports import Punctual, Transport, failure_of

__all__ = ["SLICE_S", "Carrier"]

SLICE_S: Final = 0.5
"""The longest single wait, so that Ctrl-C is heard on every platform."""


class Carrier:
    """Sends frames, and receives them with the time at which they were here.

    Parameters
    ----------
    transport : Transport
    options : Options
    reporter : Reporter
        Is told what the transport must not do.
    """

    def __init__(self, transport: Transport, options: Options, reporter: Reporter) -> None:
        self._name, self._reporter, self._clock = type(transport).__name__, reporter, options.clock
        self._transport = Punctual(transport) if options.real_time and not transport.punctual else transport
        self._inbox = Inbox(self._transport, options.clock, self._name, self._failure)

    @property
    def heard_s(self) -> float:
        """All that had come by then has been received."""
        return self._inbox.heard_s

    def send(self, frame: bytes, wake_s: Callable[[], float | None]) -> TransportError | None:
        """Hand a frame on, and wait for that until something is to be done; return why it can't be carried, if known.

        Parameters
        ----------
        frame : bytes
        wake_s : callable
            Gives when something is to be done, None where nothing is.
        """
        transport = self._transport
        try:
            if isinstance(transport, Punctual):
                due_s = wake_s()
                wait_s = SLICE_S if due_s is None else min(max(due_s - self._clock(), 0.0), SLICE_S)
                transport.send(frame, timeout_s=SLICE_S, wait_s=wait_s)
            else:
                transport.send(frame, timeout_s=SLICE_S)
        except Exception as error:
            return self._failure(error, "send", frame)
        return None

    def receive(self, timeout_s: float) -> Received | None:
        """Wait for a frame, or for news of one that was lost."""
        return self._inbox.receive(timeout_s)

    def close(self) -> None:
        """Close the transport; one that can't even do that keeps nobody from going on."""
        try:
            self._transport.close()
        except Exception as error:
            self._failure(error, "close")

    def _failure(self, error: Exception, method: str = "receive", frame: bytes | None = None) -> TransportError:
        """Return what a transport raised as what it means: a frame, or all of them, could not be carried."""
        if not isinstance(error, TransportError):
            error = failure_of(self._name, method, error, frame)
        if isinstance(error, TransportBug):
            self._reporter.bug(error)
        return error
