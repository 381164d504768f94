"""The way to the edge, on which requests that are sent at once wait for each other."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Way"]

_MEMORY_S: Final = 30.0


class Way:
    """Tells what requests waited on the link for those before them, so that the link is not blamed for it.

    An answer less the edge's residence is when its request was over the link, and a round trip's share later (the least
    that was seen lately). A request that was sent before the one ahead of it was over waited until then.
    """

    def __init__(self) -> None:
        self._over_s = -math.inf  # when the last request was over, a round trip's share included
        self._floor_s = math.inf
        self._floor_at_s = -math.inf

    def passed(self, sent_s: float, now_s: float, residence_s: float, *, behind: bool) -> float:
        """A request was answered; return how long it had waited for others."""
        if not 0 <= residence_s <= now_s - sent_s:
            return 0.0  # the edge's clock is wrong
        over_s = now_s - residence_s
        alone_s = over_s - sent_s
        if alone_s < self._floor_s or now_s - self._floor_at_s > _MEMORY_S:
            self._floor_s, self._floor_at_s = alone_s, now_s
        queued_s = 0.0
        if behind:  # it took no less than it would have taken alone
            queued_s = min(max(0.0, self._over_s - self._floor_s - sent_s), max(0.0, alone_s - self._floor_s))
        self._over_s = max(self._over_s, over_s)
        return queued_s
