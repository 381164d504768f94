"""How much an edge takes on: bounds for what comes from outside, with defaults that suit a small server."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attrs import Factory, field, fields, frozen

__all__ = ["Limits"]

_MIB = 2**20


def _part(most: Any, share: float, rounded: Callable[[float], int] = math.floor) -> Any:
    """What one name may have of it; what is no number is found where all fields are checked."""
    return max(1, rounded(most * share)) if isinstance(most, int) else most


@frozen(kw_only=True)
class Limits:
    """What an edge accepts at most, and how long it waits.

    One value for the service, the endpoint and the server; each enforces its own rows. A *name* is a device's identity,
    or its address where there are no tokens: many devices may have the same.

    Parameters
    ----------
    max_frame_bytes : int
        ``EdgeService``: larger frames are refused. Not more than `max_bytes_in_flight_per_name` counts.
    max_in_flight, max_bytes_in_flight : int
        ``EdgeService``: requests that run or wait to be run, and the bytes of their frames. What would be more is
        answered with "busy".
    max_in_flight_per_name, max_bytes_in_flight_per_name : int
        ``EdgeService``: the same of one name, which must not fill the edge alone. Three quarters of all requests, and
        half of all bytes, unless given.
    requests_per_s : float
        ``EdgeService``: requests of one name in the long run, and what it sends that is no frame. More is answered with
        "busy".
    hellos_per_s : float
        ``EdgeService``: the same of hellos. Each profile that one asks for counts as a further hello.
    probes_per_s : float
        ``EdgeService``: the same of probes.
    burst_s : float
        ``EdgeService``: as many at once as in so many seconds, after a pause.
    max_peers : int
        ``EdgeService``: devices that are known at once; each start of a device counts as one. None that was heard of
        within `ttl_s` is dropped for another: one more is told "busy".
    max_peers_per_name : int
        ``EdgeService``: the same of one name: all devices behind one address without tokens, or with one token, and
        their restarts. Three quarters unless given.
    ttl_s : float
        ``EdgeService``: a device that was silent for longer is forgotten; what pipelines remember of it is lost, and
        told so.
    max_owners : int
        ``EdgeService``: devices that a pipeline which remembers keeps a state for, each in an interpreter of its own.
        One more takes the place of the one that was heard of longest ago, which gets a "state-lost" failure until it
        resets.
    max_answers, max_answer_bytes : int
        ``EdgeService``: answers that are remembered, so that a request that comes again is not run again.
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
    >>> limits = Limits(max_in_flight=8)
    >>> limits.max_in_flight_per_name
    6
    """

    max_frame_bytes: int = field(default=64 * _MIB)
    max_in_flight: int = field(default=32)
    max_bytes_in_flight: int = field(default=256 * _MIB)
    max_in_flight_per_name: int = field(
        default=Factory(lambda limits: _part(limits.max_in_flight, 0.75, math.ceil), True)
    )
    max_bytes_in_flight_per_name: int = field(
        default=Factory(lambda limits: _part(limits.max_bytes_in_flight, 0.5), True)
    )
    requests_per_s: float = field(default=2000.0, converter=float)
    hellos_per_s: float = field(default=200.0, converter=float)
    probes_per_s: float = field(default=500.0, converter=float)
    burst_s: float = field(default=1.0, converter=float)
    max_peers: int = field(default=4096)
    max_peers_per_name: int = field(default=Factory(lambda limits: _part(limits.max_peers, 0.75), True))
    ttl_s: float = field(default=3600.0, converter=float)
    max_owners: int = field(default=1024)
    max_answers: int = field(default=1024)
    max_answer_bytes: int = field(default=64 * _MIB)
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
