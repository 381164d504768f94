"""A virtual clock with one heap of events, and chance that is the same on every Python."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from splitiot.wire import BOOT_BYTES

__all__ = ["TICK_S", "Chance", "Heap", "on_grid"]

T = TypeVar("T")

TICK_S: Final = 2.0**-20
"""All events lie on this grid: so clocks that differ by whole seconds measure the same durations, to the last bit."""

_TICKS_A_SECOND: Final = 2.0**20


def on_grid(time_s: float) -> float:
    """Return the first moment on the grid that is not earlier.

    Examples
    --------
    >>> on_grid(0.5), on_grid(0.1) - 0.1 < TICK_S
    (0.5, True)
    """
    return math.ceil(time_s * _TICKS_A_SECOND) / _TICKS_A_SECOND


class Heap:
    """What happens when. Events of the same moment happen in the order in which they were put in."""

    __slots__ = ("_events", "_number", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, time_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time, or now if that is past."""
        self._number += 1
        when_s = on_grid(time_s)
        heapq.heappush(self._events, (max(when_s, self.now_s), self._number, action, arguments))

    def step(self, until_s: float) -> bool:
        """Let the next thing happen, unless that is later than `until_s`; say whether there was one."""
        if not self._events or self._events[0][0] > until_s:
            self.now_s = max(self.now_s, until_s)
            return False
        self.now_s, _, action, arguments = heapq.heappop(self._events)
        action(*arguments)
        return True


class Chance:
    """A seeded generator. Only what is the same on every Python is used of the one below.

    Parameters
    ----------
    seed : int
    """

    __slots__ = ("_bits", "_random")

    def __init__(self, seed: int) -> None:
        generator = random.Random(seed)
        self._random, self._bits = generator.random, generator.getrandbits

    def hit(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return self._random() < probability

    def between(self, least: float, most: float) -> float:
        """A number of [least, most)."""
        return least + (most - least) * self._random()

    def below(self, count: int) -> int:
        """A whole number of 0 .. count - 1."""
        return int(self._random() * count)

    def whole(self, least: int, most: int) -> int:
        """A whole number of least .. most."""
        return least + self.below(most - least + 1)

    def pick(self, things: Sequence[T]) -> T:
        """One of them."""
        return things[self.below(len(things))]

    def some(self, things: Sequence[T], count: int) -> list[T]:
        """So many of them, none twice, in their order."""
        rest = list(range(len(things)))
        chosen = [rest.pop(self.below(len(rest))) for _ in range(min(count, len(rest)))]
        return [things[index] for index in sorted(chosen)]

    def bits(self, count: int) -> int:
        """A whole number of so many bits."""
        return self._bits(count)

    def boot(self) -> bytes:
        """The boot of a device or an edge."""
        return (self._bits(62) + 1).to_bytes(BOOT_BYTES, "little")

    def child(self) -> Chance:
        """A generator of its own: what is drawn from it moves nothing here."""
        return Chance(self._bits(64))
