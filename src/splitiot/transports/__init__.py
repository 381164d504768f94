"""What carries frames, and the ways that need nothing but the standard library."""

from __future__ import annotations

from splitiot.transports._base import RoundTrip, Transport
from splitiot.transports._failure import failure_of
from splitiot.transports._punctual import Punctual
from splitiot.transports.memory import InMemory

__all__ = ["InMemory", "Punctual", "RoundTrip", "Transport", "failure_of"]
