"""Asks an edge what there is to know before a session: how far away it is, and what a pipeline costs there.

Works over any transport that carries frames; nothing is executed on the edge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from attrs import field, frozen

from splitiot import wire
from splitiot._boot import new_boot
from splitiot.errors import Overloaded, ProfileError, RemoteError, RemoteProtocolError, TransportTimeout
from splitiot.estimators._base import median
from splitiot.pipeline import Pipeline
from splitiot.topology import Link, TierProfile
from splitiot.transports import Transport

__all__ = ["LinkProbe", "fetch_profile", "measure_link", "probe_link"]

_ECHO_BYTES: Final = 65536  # the most that an edge sends back, and never more than it got
_UP_BYTES: Final = (4096, 4 * 2**20)  # the first size that is tried, and the last
_CLEAR_SHARE: Final = 1.0  # the bytes of a probe shall take that share of the round trip, or 20 ms
_CLEAR_S: Final = 0.02
_FASTEST: Final = 1e12

_M = TypeVar("_M", wire.Echo, wire.Welcome)


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


@frozen
class LinkProbe:
    """What probes measured of a link.

    Parameters
    ----------
    link : Link
        The median round trip of probes that carry nothing, and the bandwidths apart. What can't be told from the
        scatter of the round trips is at least that much.
    rtts_s : tuple of float
        Round trips of probes that carry nothing, as they were measured.
    up_bytes, down_bytes : int
        What the probes for the bandwidths carried.
    up_clear, down_clear : bool
        Whether these bytes took longer than round trips scatter; else the bandwidth is a lower bound.
    """

    link: Link
    rtts_s: tuple[float, ...] = field(converter=_floats)
    up_bytes: int
    down_bytes: int
    up_clear: bool
    down_clear: bool

    @property
    def rtt_min_s(self) -> float:
        """The shortest round trip."""
        return min(self.rtts_s)


def measure_link(
    transport: Transport,
    *,
    count: int = 10,
    timeout_s: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Link:
    """Measure round trip and bandwidths to an edge: `probe_link`, without the details.

    Examples
    --------
    >>> from splitiot import EdgeService, InMemory, tasks
    >>> service = EdgeService([tasks([abs])])
    >>> link = measure_link(InMemory(lambda frame: service.handle(frame, peer="me")))
    >>> link.rtt_s < 0.1
    True
    """
    return probe_link(transport, count=count, timeout_s=timeout_s, clock=clock).link


def probe_link(
    transport: Transport,
    *,
    count: int = 10,
    timeout_s: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[float], None] | None = None,
) -> LinkProbe:
    """Measure round trip and bandwidths to an edge, up and down apart.

    Kinds of probes take turns: bare ones, ones that carry padding up, and ones that bring the same padding back. The
    bandwidth is the padding over what it added to the median. Upwards the padding is doubled, from 4 kB to 4 MB,
    until it takes as long as the round trip, or 20 ms. What comes down is as much, and at most 64 kB: an edge gives no
    more, and no more than it was sent.

    Parameters
    ----------
    transport : Transport
        Nothing else may use it meanwhile. It is left open.
    count : int
        Probes of each kind.
    timeout_s : float
        For each probe.
    clock : callable
        Gives seconds.
    progress : callable, optional
        Told the share that is done, 0..1.

    Raises
    ------
    TransportError
        The edge can't be reached; `TransportTimeout`: it does not answer in time.
    RemoteError, RemoteProtocolError
        It answers, but not to probes.
    Overloaded
        It has been busy for `timeout_s`.
    ValueError
        `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    report = progress or (lambda share: None)
    edge = _EdgeConnection(transport, timeout_s, clock)
    edge.probe()  # sets the connection up
    first_s = min(edge.probe() for _ in range(min(3, count)))
    up_bytes, most = _UP_BYTES
    while up_bytes < most and edge.probe(up_bytes) - first_s < max(_CLEAR_SHARE * first_s, _CLEAR_S):
        up_bytes *= 2
    down_bytes = min(up_bytes, _ECHO_BYTES)
    edge.probe(down_bytes, down_bytes)
    bare: list[float] = []
    up: list[float] = []
    one_way: list[float] = []  # the times of the same bytes up alone, to subtract from both ways
    both_ways: list[float] = []
    for done in range(count):
        bare.append(edge.probe())
        up.append(edge.probe(up_bytes))
        one_way.append(up[-1] if down_bytes == up_bytes else edge.probe(down_bytes))
        both_ways.append(edge.probe(down_bytes, down_bytes))
        report((done + 1) / count)
    up_s, up_scatter_s = median(up) - median(bare), _scatter(bare)
    down_s, down_scatter_s = median(both_ways) - median(one_way), max(_scatter(one_way), up_scatter_s)
    link = Link(
        rtt_s=median(bare),
        up_bytes_per_s=min(up_bytes / max(up_s, up_scatter_s), _FASTEST),
        down_bytes_per_s=min(down_bytes / max(down_s, down_scatter_s), _FASTEST),
    )
    return LinkProbe(link, bare, up_bytes, down_bytes, up_s > up_scatter_s, down_s > down_scatter_s)


def _scatter(seconds: list[float]) -> float:
    middle = median(seconds)
    return max(median([abs(s - middle) for s in seconds]), 1e-9)


def fetch_profile(transport: Transport, pipeline: Pipeline, *, timeout_s: float = 10.0) -> TierProfile:
    """Ask an edge what a pipeline costs there.

    Parameters
    ----------
    transport : Transport
        Nothing else may use it meanwhile. It is left open.
    pipeline : Pipeline
    timeout_s : float

    Returns
    -------
    TierProfile
        As the edge measured it, of the same digest.

    Raises
    ------
    ProfileError
        The edge does not serve this pipeline, has no profile of it, or a broken one.
    TransportError
        The edge can't be reached, or does not answer in time.
    RemoteError, RemoteProtocolError
        It answers something else.
    Overloaded
        It is asked for too much at once, or knows as many devices as it may.

    Examples
    --------
    >>> from splitiot import EdgeService, InMemory, tasks
    >>> pipeline = tasks([abs])
    >>> service = EdgeService([pipeline], profiles=[TierProfile.from_steps(pipeline.digest, [0.25])])
    >>> fetch_profile(InMemory(lambda frame: service.handle(frame, peer="me")), pipeline).whole_s
    0.25
    """
    edge = _EdgeConnection(transport, timeout_s, time.perf_counter)
    digest = bytes.fromhex(pipeline.digest)
    known = wire.PipelineHello(digest=digest, n=pipeline.n, sink=pipeline.sink, stateful=pipeline.stateful)
    hello = wire.Hello(boot=edge.boot, sequence=1, pipelines=(known,), want_profiles=(digest,))
    edge.sequence = 1
    welcome = edge.exchange(wire.encode(hello), wire.Welcome)
    if all(each.digest != digest for each in welcome.pipelines):
        raise ProfileError(
            f"the edge does not serve this pipeline (digest {pipeline.digest[:12]}): give both sides the same model "
            "file, tasks and version"
        )
    for data in welcome.profiles:
        if data.get("digest") == pipeline.digest:
            profile = TierProfile.from_dict(data)
            if profile.n != pipeline.n:
                raise ProfileError(f"the edge's profile has {profile.n} steps, this pipeline {pipeline.n}")
            return profile
    raise ProfileError(
        f"the edge has no profile of this pipeline (digest {pipeline.digest[:12]}): make one there, with "
        "EdgeService.measure(), or with `splitiot serve` without --no-profile"
    )


class _EdgeConnection:
    """Sends one frame and waits for its answer, again and again."""

    def __init__(self, transport: Transport, timeout_s: float, clock: Callable[[], float]) -> None:
        self._transport, self._timeout_s, self._clock = transport, timeout_s, clock
        self.boot = new_boot()
        self.sequence = 0
        self._came_s = 0.0

    def probe(self, up_bytes: int = 0, down_bytes: int = 0) -> float:
        """Return the seconds of one probe on the link; one that the edge is too busy for is sent again."""
        until_s = self._clock() + self._timeout_s
        while True:
            try:
                return self._probe(up_bytes, down_bytes)
            except Overloaded as busy:
                if self._clock() + busy.retry_after_s > until_s:
                    raise
                time.sleep(busy.retry_after_s)

    def _probe(self, up_bytes: int, down_bytes: int) -> float:
        self.sequence += 1
        message = wire.Probe(boot=self.boot, sequence=self.sequence, echo_bytes=down_bytes)
        frame = wire.encode(message, (bytes(up_bytes),) if up_bytes else ())
        began_s = self._clock()
        echo = self.exchange(frame, wire.Echo)
        transport = self._transport  # it may know how long the echo waited here, and the probe before it was sent
        waited_s = max(0.0, transport.waited_s or 0.0) + max(0.0, transport.queued_s)
        return max(0.0, self._came_s - began_s - waited_s - max(0.0, echo.residence_s))

    def exchange(self, frame: bytes, kind: type[_M]) -> _M:
        """Return the answer to a frame, if it is of that kind."""
        self._transport.send(frame, timeout_s=self._timeout_s)
        until_s = time.monotonic() + self._timeout_s
        while (rest_s := until_s - time.monotonic()) > 0:
            answer = self._transport.receive(timeout_s=rest_s)
            self._came_s = self._clock()
            if answer is None:
                continue
            message, _ = wire.decode(answer)
            if isinstance(message, wire.Failure):
                raise RemoteError(f"the edge answered: {message.message}", code=message.code)
            if (message.boot, message.sequence) != (self.boot, self.sequence):
                continue  # a late answer to somebody else
            if isinstance(message, wire.Busy):
                wait_s = max(0.0, message.retry_after_s)
                raise Overloaded("the edge is asked for too much at once", retry_after_s=wait_s)
            if not isinstance(message, kind):
                raise RemoteProtocolError(f"the edge answered with a {type(message).__name__}, not a {kind.__name__}")
            return message
        raise TransportTimeout(f"no answer from the edge in {self._timeout_s} s")
