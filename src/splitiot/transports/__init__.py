"""What a transport is, and those that speak no protocol of their own. One over a real protocol is in `adapters`."""

from __future__ import annotations

from splitiot.transports._base import RoundTrip, Transport
from splitiot.transports._failure import failure_of
from splitiot.transports._punctual import Punctual
from splitiot.transports.memory import InMemory

__all__ = ["InMemory", "Punctual", "RoundTrip", "Transport", "failure_of"]
