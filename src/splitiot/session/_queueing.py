"""The way to the edge, on which requests that are sent at once wait for each other."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["QueueingEstimator"]

_SMALL_BYTES: Final = 512  # both ways together: it took little more than the round trip
_MEMORY_S: Final = 30.0
_AHEAD: Final = 64  # as many as can be on their way at once


class QueueingEstimator:
    """Tells what requests waited for those before them, so that neither link nor edge is blamed for it.

    An answer less the edge's residence is when its request was over the link: a round trip's share (`floor_s`, the
    least that was seen, of small frames lately) later. A request that was sent before the one ahead of it was over
    waited until then; and one that reached the edge before the one ahead of it was answered waited there, if the edge
    had it wait at all. Answers may come in any order; of those that have not come nothing is known, so what is told is
    at most the truth.
    """

    def __init__(self) -> None:
        # sent, over (a round trip's share included), answered
        self._over: deque[tuple[float, float, float]] = deque(maxlen=_AHEAD)
        self._floor_s = math.inf
        self._floor_at_s = -math.inf

    def update(
        self, sent_s: float, now_s: float, residence_s: float, *, nbytes: int, behind: bool, queue_s: float = 0.0
    ) -> tuple[float, float]:
        """A request was answered; return how long it had waited for others on the link, and on the edge.

        Parameters
        ----------
        sent_s, now_s : float
        residence_s, queue_s : float
            On the edge: all of it, and until it ran.
        nbytes : int
            Both ways together.
        behind : bool
            Others were on their way when it was sent.
        """
        if not 0 <= residence_s <= now_s - sent_s:
            return 0.0, 0.0  # the edge's clock is wrong
        over_s = now_s - residence_s
        alone_s = over_s - sent_s
        # a large one may have taken long for its bytes, or for those before it: it tells no longer round trip
        stale = nbytes <= _SMALL_BYTES and now_s - self._floor_at_s > _MEMORY_S
        if alone_s <= self._floor_s or stale:
            self._floor_s, self._floor_at_s = alone_s, now_s
        queued_s = held_s = 0.0
        if behind:  # what was sent before it, and was over before it
            ahead = [(over, answered) for sent, over, answered in self._over if sent <= sent_s and over <= over_s]
            over_before_s = max((over for over, _ in ahead), default=-math.inf)
            answered_s = max((answered for _, answered in ahead), default=-math.inf)
            queued_s = max(0.0, over_before_s - self._floor_s - sent_s)  # no more than it took: see `ahead`
            held_s = min(max(0.0, answered_s - over_s), max(0.0, queue_s), residence_s)
        self._over.append((sent_s, over_s, now_s))
        return queued_s, held_s
