"""When an edge that fails is left alone, and when it is tried again."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["CAP_S", "LEASE_S", "Breaker"]

CAP_S: Final = 2.0
"""The longest time that the breaker stays open."""
LEASE_S: Final = 2.0
"""How long the one trial of a half-open breaker may take, whatever becomes of any request."""

_FIRST_S: Final = 0.25
_FAILURES: Final = 2


class Breaker:
    """A circuit breaker: closed while requests pass, open after failures, half-open while one hello is on its way.

    The time that it stays open doubles up to `CAP_S`. It counts from when the trial before was sent, so a trial that
    was lost in silence does not add its lease to it: after a partition ends, the next trial comes within `CAP_S`.
    """

    def __init__(self) -> None:
        self._failures = self._opened = 0
        self.retry_s = -math.inf
        """When the next trial may be made."""

    @property
    def tried(self) -> bool:
        """Whether a trial has failed since it was closed last."""
        return self._opened > 0

    def failed(self, *, reported: bool) -> bool:
        """A request failed; whether the breaker must open: at once if the transport reported it, else at the second."""
        self._failures += 1
        return reported or self._failures >= _FAILURES

    def succeeded(self) -> None:
        """A request was answered."""
        self._failures = 0

    def open(self, since_s: float) -> None:
        """Open it; `since_s` is when the trial that failed was sent, or now."""
        self._failures = 0
        self.retry_s = since_s + min(_FIRST_S * 2**self._opened, CAP_S)
        self._opened = min(self._opened + 1, 16)

    def wait(self, until_s: float) -> None:
        """Make no trial before."""
        self.retry_s = until_s

    def close(self) -> None:
        """A trial was answered."""
        self._failures = self._opened = 0
