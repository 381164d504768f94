"""What an edge remembers of the devices that it has heard of."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from splitiot.limits import Limits
from splitiot.planner import Planner
from splitiot.session._effects import ForgetState

__all__ = ["Held", "Owner", "Peer", "Peers"]


class Owner(NamedTuple):
    """Whose state the steps of a pipeline keep: that of one boot of a device.

    One that is forgotten and comes back has another number: to drop its old state, however late, is not to drop the new
    one.
    """

    name: str
    boot: bytes
    number: int

    def __repr__(self) -> str:  # who knows a whole boot can ask in the device's place
        return f"{self.name} (boot {self.boot.hex()[:6]})"


class Held(msgspec.Struct, eq=False):
    """How far one boot of a device is with a pipeline that remembers."""

    epoch: int
    """How often the device had reset when this began."""
    order: int | None = 0
    """The number of the next request of a stateful pipeline; None once one was not run, or failed."""
    begun: bool = False
    """Whether a request has run in this epoch; the first one drops what an earlier epoch left."""


class Peer(msgspec.Struct, eq=False):
    """One boot of a device. All tables by pipeline digest."""

    owner: Owner
    planners: dict[str, Planner] = {}
    held: dict[str, Held] = {}
    running: set[str] = set()
    """The pipelines that remember and run for it at this moment."""
    forgot: int = -1
    """The last of the requests whose answers were forgotten."""
    greeted: bool = False
    heard_s: float = 0.0


class Peers:
    """A bounded table of peers, by name and boot. Who was heard of within the ttl is not dropped: one more is refused.

    Boots have the same name where devices share a credential, or have none and one address. A name has a share of the
    table only, so that it can't fill it alone.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self._most, self._each, self._ttl_s = limits.max_peers, limits.max_peers_per_name, limits.ttl_s
        self._boots: dict[str, int] = {}  # how many
        self._peers: OrderedDict[tuple[str, bytes], Peer] = OrderedDict()  # the one heard of last behind
        self._number = itertools.count().__next__

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, name: str, boot: bytes) -> Peer | None:
        """Return a peer if it is known."""
        return self._peers.get((name, boot))

    def heard(self, name: str, boot: bytes, now_s: float) -> Peer | None:
        """Note that something came from a peer, if it is known."""
        peer = self._peers.get((name, boot))
        if peer is not None:
            peer.heard_s = now_s
            self._peers.move_to_end((name, boot))
        return peer

    def at(self, name: str, boot: bytes, now_s: float) -> tuple[Peer | None, list[ForgetState]]:
        """Return a peer, a new one if need be, None where there is no place; and whose state to drop: of the silent."""
        dropped = self._drop_silent(now_s)
        peer = self.heard(name, boot, now_s)
        if peer is None and len(self._peers) < self._most and self._boots.get(name, 0) < self._each:
            peer = self._peers[name, boot] = Peer(Owner(name, boot, self._number()), heard_s=now_s)
            self._boots[name] = self._boots.get(name, 0) + 1
        return peer, dropped

    def _drop_silent(self, now_s: float) -> list[ForgetState]:
        dropped: list[ForgetState] = []
        while self._peers:
            key, peer = next(iter(self._peers.items()))
            if now_s - peer.heard_s <= self._ttl_s:
                break
            dropped += self._drop(*key)
        return dropped

    def _drop(self, name: str, boot: bytes) -> list[ForgetState]:
        """Forget a peer; the state of what runs at this moment is dropped when that completes."""
        peer = self._peers.pop((name, boot))
        self._boots[name] -= 1
        if not self._boots[name]:
            del self._boots[name]
        return [ForgetState(digest, peer.owner) for digest in peer.held if digest not in peer.running]
