"""What an edge remembers of the devices that it has heard of."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from splitiot.planner import Planner
from splitiot.session._effects import Forget
from splitiot.session._quota import Bucket, Quota

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
    heard_s: float = 0.0


def owner(name: str, boot: int) -> str:
    """Whose state the steps of a stateful pipeline keep."""
    return f"{name}/{boot}"


class Peers:
    """A bounded table of peers, by name and boot; what was heard of longest ago is dropped first.

    A name has few boots here: it can't push others out. It may have several, since devices without a credential are
    told apart by address only, and several can share one.

    Parameters
    ----------
    most : int
    quota : Quota
        Of each name.
    ttl_s : float
        What was not heard of for so long is dropped, too.
    """

    def __init__(self, most: int, quota: Quota, ttl_s: float) -> None:
        self._most, self._quota, self._ttl_s = most, quota, ttl_s
        self._buckets: dict[str, Bucket] = {}  # of the names that have boots
        self._peers: OrderedDict[tuple[str, int], Peer] = OrderedDict()
        self._boots: dict[str, list[int]] = {}  # by name, the one heard of last behind

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, name: str, boot: int) -> Peer | None:
        """Return a peer if it is known."""
        return self._peers.get((name, boot))

    def wait_s(self, name: str, now_s: float) -> float:
        """Take a request from a name's quota and return 0, or return how long it must wait for one."""
        bucket = self._buckets.get(name)
        return 0.0 if bucket is None else bucket.take(now_s)

    def at(self, name: str, boot: int, now_s: float) -> tuple[Peer, list[Forget]]:
        """Return a peer, a new one if need be; and whose state to drop because it made place or was long silent."""
        key = (name, boot)
        dropped = self._drop_silent(now_s)
        peer = self._peers.get(key)
        boots = self._boots.setdefault(name, [])
        if peer is not None:
            peer.heard_s = now_s
            self._peers.move_to_end(key)
            if boots[-1] != boot:
                boots.remove(boot)
                boots.append(boot)
            return peer, dropped
        peer = self._peers[key] = Peer(heard_s=now_s)
        boots.append(boot)
        if name not in self._buckets:
            self._buckets[name] = Bucket(self._quota, now_s)
        if len(boots) > _BOOTS:
            dropped += self._drop(name, boots[0])
        if len(self._peers) > self._most:
            dropped += self._drop(*next(iter(self._peers)))
        return peer, dropped

    def _drop_silent(self, now_s: float) -> list[Forget]:
        dropped: list[Forget] = []
        while self._peers:
            key, peer = next(iter(self._peers.items()))
            if now_s - peer.heard_s <= self._ttl_s:
                break
            dropped += self._drop(*key)
        return dropped

    def _drop(self, name: str, boot: int) -> list[Forget]:
        """Forget a peer; the state of what runs at this moment is dropped when that completes."""
        peer = self._peers.pop((name, boot))
        boots = self._boots[name]
        boots.remove(boot)
        if not boots:
            del self._boots[name], self._buckets[name]
        return [Forget(digest, owner(name, boot)) for digest in peer.orders if digest not in peer.running]
