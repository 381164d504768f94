"""How much an edge takes on: bounds for what comes from outside, with defaults that suit a small server."""

from __future__ import annotations

import math

from attrs import field, fields, frozen

__all__ = ["Limits"]

_MIB = 2**20


@frozen(kw_only=True)
class Limits:
    """What an edge accepts at most, and how long it waits.

    One value for the service, the endpoint and the server; each enforces its own rows.

    Parameters
    ----------
    max_body_bytes : int
        ``asgi``: the bodies of all requests that are held at once. What would be more is refused with status 503.
    max_body_bytes_per_name : int
        ``asgi``: the same of one name (of one address, where there are no tokens).
    body_timeout_s : float
        ``asgi``: how long a body may take.
    min_bytes_per_s : float
        ``asgi`` and ``serve``: a peer that sends a body, or takes an answer, more slowly than this over any
        `stall_s` is sent away.
    stall_s : float
        Over how many seconds `min_bytes_per_s` is measured.
    max_connections : int
        ``serve``: open connections. One more takes the place of the oldest that has not shown a token yet, or else of
        the one that was idle longest; where there is neither, it is closed. The limit of open files lowers this.
    max_connections_per_address : int
        ``serve``: the same of one address. Behind a trusted proxy: the requests under way of one forwarded address.
    header_timeout_s : float
        ``serve``: how long the TLS handshake and the headers of a request may take.
    idle_timeout_s : float
        ``serve``: how long a connection is kept between two requests.
    shutdown_s : float
        ``serve``: how long the server takes to end, whatever hangs.

    Examples
    --------
    >>> Limits(max_connections=64).max_connections
    64
    """

    max_body_bytes: int = field(default=256 * _MIB)
    max_body_bytes_per_name: int = field(default=128 * _MIB)
    body_timeout_s: float = field(default=60.0, converter=float)
    min_bytes_per_s: float = field(default=1024.0, converter=float)
    stall_s: float = field(default=5.0, converter=float)
    max_connections: int = field(default=512)
    max_connections_per_address: int = field(default=128)
    header_timeout_s: float = field(default=10.0, converter=float)
    idle_timeout_s: float = field(default=5.0, converter=float)
    shutdown_s: float = field(default=10.0, converter=float)

    def __attrs_post_init__(self) -> None:
        for each in fields(Limits):
            value = getattr(self, each.name)
            if each.name.startswith("max_"):
                if not isinstance(value, int) or isinstance(value, bool):
                    raise TypeError(f"{each.name} is a whole number, not {type(value).__name__}")
                if value < 1:
                    raise ValueError(f"{each.name} must be at least 1, got {value}")
            elif not 0 < value < math.inf:
                raise ValueError(f"{each.name} must be a positive number, got {value}")
