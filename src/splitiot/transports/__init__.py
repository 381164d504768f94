"""What carries frames, and the ways that need nothing but the standard library."""

from __future__ import annotations

from splitiot.transports._base import RoundTrip, Transport
from splitiot.transports.memory import InMemory

__all__ = ["InMemory", "RoundTrip", "Transport"]
