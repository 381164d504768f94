"""Where payloads were too large to be sent."""

from __future__ import annotations

from typing import Final

__all__ = ["OversizedCuts"]

_REST_S: Final = 60.0  # payloads of tasks differ in size: the next ones may be smaller


class OversizedCuts:
    """The cuts at which a payload was too large not long ago.

    Examples
    --------
    >>> oversized = OversizedCuts()
    >>> oversized.add(3, now_s=0.0)
    >>> oversized.at(59.0), oversized.at(60.0)
    (frozenset({3}), frozenset())
    """

    def __init__(self) -> None:
        self._until_s: dict[int, float] = {}
        self._cuts: frozenset[int] = frozenset()

    def add(self, cut: int, now_s: float) -> None:
        """A payload was too large there."""
        self._until_s[cut] = now_s + _REST_S
        self._cuts = frozenset(self._until_s)

    def at(self, now_s: float) -> frozenset[int]:
        """Return those that should be left out."""
        if self._until_s and now_s >= min(self._until_s.values()):
            self._until_s = {cut: until_s for cut, until_s in self._until_s.items() if now_s < until_s}
            self._cuts = frozenset(self._until_s)
        return self._cuts

    def clear(self) -> None:
        """Larger payloads are accepted now."""
        self._until_s, self._cuts = {}, frozenset()
