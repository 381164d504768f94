"""Which observations were taken already."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from splitiot.observation import Observation

__all__ = ["Kind", "ObservationDeduplicator"]

_REMEMBERED: Final = 1024
MAX_ID: Final = 2**62


class Kind:
    """What an observation can say, each counted once a plan: bits of an int (an IntFlag is 20 times slower)."""

    NONE: Final = 0
    HEAD: Final = 1
    TAIL: Final = 2
    LOCAL: Final = 4
    WAIT: Final = 8
    EXCHANGE: Final = 16
    BOUND: Final = 32


class ObservationDeduplicator:
    """Knows what is new in an observation, for the last 1024 plans; older ones are taken for repeated.

    Attributes
    ----------
    repeated : int
        Observations in which nothing was new.
    """

    __slots__ = ("_floor", "_taken", "repeated")

    def __init__(self) -> None:
        self._taken: OrderedDict[int, int] = OrderedDict()  # of each plan, the kinds that were taken
        self._floor = 0
        self.repeated = 0

    def take(self, observation: Observation) -> int:
        """Return what is new in an observation, and remember it.

        Probes of the link have no plan: they are always new.
        """
        o = observation
        if o.probe:
            return Kind.BOUND if o.censored else Kind.EXCHANGE
        kinds = _kinds(o)
        known = self._taken.get(o.plan_id, 0)
        if known & Kind.EXCHANGE:
            known |= Kind.BOUND  # the answer is known: a bound says nothing more
        new = kinds & ~known
        if not new or o.plan_id <= self._floor:
            self.repeated += 1
            return Kind.NONE
        self._taken[o.plan_id] = known | new
        if len(self._taken) > _REMEMBERED:
            oldest, _ = self._taken.popitem(last=False)
            if oldest < MAX_ID:
                self._floor = max(self._floor, oldest)
        return new

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "seen": [[plan_id, kinds] for plan_id, kinds in self._taken.items()],
            "floor": self._floor,
            "repeated": self.repeated,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self._taken = OrderedDict((int(plan_id), int(kinds)) for plan_id, kinds in state["seen"])
        self._floor, self.repeated = int(state["floor"]), int(state["repeated"])


def _kinds(o: Observation) -> int:
    kinds: int = Kind.NONE
    if o.head_s is not None:
        kinds |= Kind.HEAD
    if o.local_s is not None:
        kinds |= Kind.LOCAL
    if o.tail_s is not None or o.edge is not None:
        kinds |= Kind.TAIL
    if o.edge is not None:
        kinds |= Kind.WAIT
    if o.round_trip_s is not None and (o.censored or o.edge is not None):
        kinds |= Kind.BOUND if o.censored else Kind.EXCHANGE
    return kinds
