"""What an edge remembers of the devices that it has heard of."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from splitiot.planner import Planner
from splitiot.session._effects import Forget

__all__ = ["Peer", "Peers", "owner"]

_BOOTS: Final = 8


class Peer(msgspec.Struct, eq=False):
    """One boot of a device. All tables by pipeline digest."""

    runtimes: dict[str, tuple[str, str, str, str] | None] = {}
    planners: dict[str, Planner] = {}
    orders: dict[str, int | None] = {}
    """The number of the next request of each stateful pipeline; None once one was not run, or failed."""
    running: set[str] = set()
    """The stateful pipelines that run for it at this moment."""
    greeted: bool = False


def owner(name: str, boot: int) -> str:
    """Whose state the steps of a stateful pipeline keep."""
    return f"{name}/{boot}"


class Peers:
    """A bounded table of peers, by name and boot; what was heard of longest ago is dropped first.

    A name has few boots here: it can't push others out. It may have several, since devices without a credential are
    told apart by address only, and several can share one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._peers: OrderedDict[tuple[str, int], Peer] = OrderedDict()
        self._boots: dict[str, list[int]] = {}  # by name, the one heard of last behind

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, name: str, boot: int) -> Peer | None:
        """Return a peer if it is known."""
        return self._peers.get((name, boot))

    def at(self, name: str, boot: int) -> tuple[Peer, list[Forget]]:
        """Return a peer, a new one if need be; and whose state to drop because it made place."""
        key = (name, boot)
        peer = self._peers.get(key)
        boots = self._boots.setdefault(name, [])
        if peer is not None:
            self._peers.move_to_end(key)
            if boots[-1] != boot:
                boots.remove(boot)
                boots.append(boot)
            return peer, []
        peer = self._peers[key] = Peer()
        boots.append(boot)
        dropped: list[Forget] = []
        if len(boots) > _BOOTS:
            dropped += self._drop(name, boots[0])
        if len(self._peers) > self._most:
            dropped += self._drop(*next(iter(self._peers)))
        return peer, dropped

    def _drop(self, name: str, boot: int) -> list[Forget]:
        """Forget a peer; the state of what runs at this moment is dropped when that completes."""
        peer = self._peers.pop((name, boot))
        boots = self._boots[name]
        boots.remove(boot)
        if not boots:
            del self._boots[name]
        return [Forget(digest, owner(name, boot)) for digest in peer.orders if digest not in peer.running]
