"""Who is connected, and who has to go when there is no room for another one: the counting, without a socket."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable

from splitiot.adapters.http._budget import Share

__all__ = ["CONNECTION", "Connection", "Gate", "group_of"]

CONNECTION = "splitiot.connection"
"""Where an endpoint finds its `Connection`: a key of the ASGI scope's ``state``."""


def group_of(address: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits, which one host may fill alone.

    Examples
    --------
    >>> group_of("10.0.0.7"), group_of("2001:db8::1:2:3:4"), group_of("::ffff:10.0.0.7")
    ('10.0.0.7', '2001:db8::/64', '10.0.0.7')
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))


class Connection:
    """One that is open.

    Parameters
    ----------
    address : str
        Of the peer.
    by_proxy : bool
        The peer is a trusted proxy, and speaks for others.
    """

    __slots__ = ("_owed", "address", "by_proxy", "end", "gate", "group", "idle_since_s", "unsent")

    def __init__(self, gate: Gate, address: str, *, by_proxy: bool) -> None:
        self.gate, self.address, self.by_proxy = gate, address, by_proxy
        self.group = group_of(address)
        self.end: Callable[[], object] = _nothing
        self.unsent: Callable[[], int] = _nothing
        self._owed: list[Share] = []
        self.idle_since_s: float | None = None  # None while a request is under way

    def prove(self) -> None:
        """Note that a request with a valid credential came on it."""
        self.gate.prove(self)

    def answered(self, share: Share) -> None:
        """Let go what a request held, as soon as the peer has taken its answer."""
        if self.unsent():
            self._owed.append(share)
        else:
            share.release()

    def taken(self) -> None:
        """Note that the peer has taken all answers, or will not any more."""
        while self._owed:
            self._owed.pop().release()


def _nothing() -> int:
    return 0


class Gate:
    """Keeps the number of connections within bounds.

    Where there is no room, the oldest connection that has shown no credential yet goes; or else the one that was idle
    longest. So those who only connect push out each other, and nobody who works.

    Parameters
    ----------
    max_connections, max_per_address : int
    proxies : iterable of str
        Addresses and networks of trusted proxies: many peers are behind one, so its address has no bound of its own.

    Examples
    --------
    >>> gate = Gate(max_connections=2, max_per_address=2)
    >>> first, second = gate.admit("10.0.0.1"), gate.admit("10.0.0.2")
    >>> first.prove()
    >>> third = gate.admit("10.0.0.3")
    >>> first in gate, second in gate, third in gate
    (True, False, True)
    """

    def __init__(self, *, max_connections: int, max_per_address: int, proxies: Iterable[str] = ()) -> None:
        self.max_connections, self.max_per_address = max_connections, max_per_address
        self._proxies = [ipaddress.ip_network(each) for each in proxies]
        # both in the order of age: the oldest are evicted first, and often
        self._new: OrderedDict[Connection, None] = OrderedDict()
        self._proven: OrderedDict[Connection, None] = OrderedDict()
        self._of_group: dict[str, OrderedDict[Connection, None]] = {}
        self._asking: dict[str, int] = {}
        self.turned_away = 0

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._new or connection in self._proven

    def __len__(self) -> int:
        return len(self._new) + len(self._proven)

    def admit(self, address: str) -> Connection | None:
        """Let one more in, or return None: every other one works.

        Another connection may be ended for it.
        """
        connection = Connection(self, address, by_proxy=self._is_proxy(address))
        if not connection.by_proxy:
            of_group = self._of_group.get(connection.group, ())
            if len(of_group) >= self.max_per_address and not self._make_room(of_group):
                return None
        if len(self) >= self.max_connections and not self.make_room():
            return None
        self._new[connection] = None
        self._of_group.setdefault(connection.group, OrderedDict())[connection] = None
        return connection

    def make_room(self) -> bool:
        """End the connection that matters least; return whether there was one."""
        if self._new:
            return self._end(next(iter(self._new)))
        return self._make_room(self._proven)

    def prove(self, connection: Connection) -> None:
        """See `Connection.prove`."""
        if connection in self._new:
            del self._new[connection]
            self._proven[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        if connection in self._new:
            del self._new[connection]
        elif connection in self._proven:
            del self._proven[connection]
        else:
            return
        of_group = self._of_group[connection.group]
        del of_group[connection]
        if not of_group:
            del self._of_group[connection.group]

    def begin_request(self, address: str) -> bool:
        """Count one more request of an address that a proxy speaks for; False if it has enough."""
        group = group_of(address)
        under_way = self._asking.get(group, 0)
        if under_way >= self.max_per_address:
            self.turned_away += 1
            return False
        self._asking[group] = under_way + 1
        return True

    def end_request(self, address: str) -> None:
        """Count it off again."""
        group = group_of(address)
        self._asking[group] -= 1
        if not self._asking[group]:
            del self._asking[group]

    def _make_room(self, among: Iterable[Connection]) -> bool:
        idlest = None
        for each in among:
            if each in self._new:
                return self._end(each)
            since_s = each.idle_since_s
            if since_s is not None and (idlest is None or idlest.idle_since_s is None or since_s < idlest.idle_since_s):
                idlest = each
        if idlest is None:
            self.turned_away += 1
            return False
        return self._end(idlest)

    def _end(self, connection: Connection) -> bool:
        self.turned_away += 1
        self.leave(connection)
        connection.end()
        return True

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)
