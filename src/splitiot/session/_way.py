"""The way to the edge, on which requests that are sent at once wait for each other."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["Way"]

_MEMORY_S: Final = 30.0
_AHEAD: Final = 64  # as many as can be on their way at once


class Way:
    """Tells what requests waited on the link for those before them, so that the link is not blamed for it.

    An answer less the edge's residence is when its request was over the link: a round trip's share (`floor_s`, the
    least that was seen lately) later. A request that was sent before the one ahead of it was over waited until then.
    Answers may come in any order; of those that have not come nothing is known, so what is told is at most the truth.
    """

    def __init__(self) -> None:
        self._over: deque[tuple[float, float]] = deque(maxlen=_AHEAD)  # sent, and over: a round trip's share included
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
        if behind:  # what was sent before it, and was over before it
            ahead_s = max((over for sent, over in self._over if sent <= sent_s and over <= over_s), default=-math.inf)
            queued_s = max(0.0, ahead_s - self._floor_s - sent_s)
        self._over.append((sent_s, over_s))
        return queued_s
