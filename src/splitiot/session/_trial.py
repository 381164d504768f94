"""A frame that asks whether the edge is there."""

from __future__ import annotations

import msgspec

from splitiot.session._breaker import LEASE_S

__all__ = ["Trial"]


class Trial(msgspec.Struct, eq=False):
    """A Hello or a Probe on its way, with a lease of its own: no request's fate decides it."""

    sequence: int
    sent_s: float
    nbytes: int

    @property
    def ends_s(self) -> float:
        """When it is lost."""
        return self.sent_s + LEASE_S
