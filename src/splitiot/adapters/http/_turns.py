"""Who has to wait so that others need not: large bodies for their next piece, refusals for a moment."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["Pace", "Turns"]


class Turns:
    """One turn of an event loop for each who waits, in the order in which they came.

    Whatever is small is served between two pieces of what is large.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def next(self) -> None:
        """Return in a turn that nobody else has."""
        import asyncio  # only servers need it

        loop = asyncio.get_running_loop()
        if self._taken:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._taken = True
            loop.call_soon(self._give, loop)

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else who waited was cancelled
                turn.set_result(None)
                loop.call_soon(self._give, loop)
                return
        self._taken = False


class Pace:
    """How long each has to wait so that not too many come at once.

    Parameters
    ----------
    per_s : float
        So many may come in the long run.
    burst : int
        So many at once, after a pause.
    most_s : float
        Nobody waits longer, however many there are.

    Examples
    --------
    >>> pace = Pace(per_s=10, burst=2, most_s=0.25)
    >>> [round(pace.wait_s(now_s=0.0), 2) for _ in range(6)]
    [0.0, 0.0, 0.1, 0.2, 0.25, 0.25]
    >>> pace.wait_s(now_s=60.0)
    0.0
    """

    def __init__(self, *, per_s: float, burst: int, most_s: float) -> None:
        self._every_s, self._burst_s, self._most_s = 1 / per_s, (burst - 1) / per_s, most_s
        self._next_s = float("-inf")  # when one more may come without a burst

    def wait_s(self, now_s: float) -> float:
        """Count one more; return how long it has to wait."""
        at_s = max(self._next_s, now_s - self._burst_s)
        wait_s = min(max(0.0, at_s - now_s), self._most_s)
        self._next_s = min(at_s, now_s + self._most_s) + self._every_s
        return wait_s
