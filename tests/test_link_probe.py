"""Asking an edge: on a link with a clock of its own, and over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import splitiot as si
from splitiot import wire
from splitiot.adapters.http import HttpTransport, asgi
from splitiot.edge import EdgeService
from splitiot.errors import Overloaded, ProfileError, RemoteError, RemoteProtocolError, TransportError, TransportTimeout
from splitiot.functions import tasks
from splitiot.limits import Limits
from splitiot.link_probe import fetch_profile, measure_link, probe_link
from splitiot.topology import TierProfile
from splitiot.transports import InMemory, Transport
from tests.served import Served
from tests.session.support import EDGE_BOOT


def double(x: Any) -> Any:
    return 2 * x


def halve(x: Any) -> Any:
    return x / 2


PIPELINE = tasks([double, halve])


class Slow(Transport):
    """A link with numbers of its own in front of an edge; its clock moves when frames do."""

    def __init__(
        self,
        answer: Callable[[bytes], bytes],
        *,
        rtt_s: float = 0.04,
        up: float = 1e6,
        down: float = 4e6,
        scatter_s: float = 0.0,
    ) -> None:
        self.now_s = 0.0
        self.sent = 0
        self.answer, self._rtt_s, self._up, self._down, self._scatter_s = answer, rtt_s, up, down, scatter_s
        self._random = np.random.default_rng(0)
        self._waiting: list[bytes] = []

    def clock(self) -> float:
        return self.now_s

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        answer = self.answer(frame)
        self.sent += 1
        self.now_s += self._rtt_s + len(frame) / self._up + len(answer) / self._down
        self.now_s += float(self._random.exponential(self._scatter_s))
        self._waiting.append(answer)

    def receive(self, *, timeout_s: float) -> bytes | None:
        return self._waiting.pop(0) if self._waiting else None


@pytest.fixture
def service() -> Iterator[EdgeService]:
    with EdgeService([PIPELINE], profiles=[TierProfile.from_steps(PIPELINE.digest, [0.5, 0.25])]) as made:
        yield made


@pytest.fixture
def handle(service: EdgeService) -> Callable[[bytes], bytes]:
    return lambda frame: service.handle(frame, peer="me")


@pytest.mark.parametrize(
    ("rtt_s", "up", "down"), [(0.04, 1e6, 4e6), (0.001, 125e3, 125e3), (0.2, 20e3, 1e6), (0.005, 50e6, 5e6)]
)
def test_both_ways_apart(handle: Any, rtt_s: float, up: float, down: float) -> None:
    link = Slow(handle, rtt_s=rtt_s, up=up, down=down)
    found = probe_link(link, clock=link.clock)
    assert rtt_s < found.link.rtt_s < rtt_s + 100 / up + 100 / down  # headers
    assert found.link.up_bytes_per_s == pytest.approx(up, rel=0.02)
    assert found.link.down_bytes_per_s == pytest.approx(down, rel=0.02)
    assert found.up_clear
    assert found.down_clear
    assert len(found.rtts_s) == 10
    assert found.rtt_min_s == min(found.rtts_s)


def test_an_edge_that_is_asked_too_often_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Slow(bytes, rtt_s=0.001)
    with EdgeService([PIPELINE], limits=Limits(probes_per_s=10, burst_s=1.0), clock=link.clock) as service:
        link.answer = lambda frame: service.handle(frame, peer="me")
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            link.now_s += seconds

        monkeypatch.setattr("splitiot.link_probe.time.sleep", sleep)
        found = probe_link(link, clock=link.clock)
        assert found.link.rtt_s == pytest.approx(0.001, rel=0.2)
        assert found.link.down_bytes_per_s == pytest.approx(4e6, rel=0.02)
        assert 1.0 < sum(waited) < 6.0
        monkeypatch.setattr("splitiot.link_probe.time.sleep", lambda seconds: None)
        with pytest.raises(Overloaded, match="too much at once"):
            probe_link(link, clock=link.clock, timeout_s=0.001)


def test_scatter_of_the_round_trips(handle: Any) -> None:
    link = Slow(handle, rtt_s=0.02, up=1e6, down=1e6, scatter_s=0.005)
    found = measure_link(link, count=40, clock=link.clock)
    assert found.rtt_s == pytest.approx(0.02 + 0.005 * np.log(2), rel=0.1)
    assert found.up_bytes_per_s == pytest.approx(1e6, rel=0.2)
    assert found.down_bytes_per_s == pytest.approx(1e6, rel=0.2)


def test_what_drowns_in_scatter_is_a_lower_bound(handle: Any) -> None:
    link = Slow(handle, rtt_s=0.02, up=1e12, down=1e12, scatter_s=0.01)
    found = probe_link(link, count=30, clock=link.clock)
    assert not found.down_clear
    assert 1e6 < found.link.down_bytes_per_s < 1e9


def test_a_slow_link_gets_small_probes_only(handle: Any) -> None:
    link = Slow(handle, rtt_s=0.01, up=1e4, down=1e6)
    found = probe_link(link, count=3, clock=link.clock)
    assert found.up_bytes == 4096
    assert link.sent < 20


def test_progress_and_count(handle: Any) -> None:
    told: list[float] = []
    link = Slow(handle)
    assert len(probe_link(link, count=4, clock=link.clock, progress=told.append).rtts_s) == 4
    assert told == [0.25, 0.5, 0.75, 1.0]
    with pytest.raises(ValueError, match="at least 1"):
        probe_link(link, count=0)


def test_late_answers_to_others_are_passed_over(handle: Any) -> None:
    other = wire.encode(wire.Echo(boot=bytes(range(16)), sequence=1, edge_boot=EDGE_BOOT))

    class Chatty(Slow):
        def send(self, frame: bytes, *, timeout_s: float) -> None:
            self._waiting.append(other)
            super().send(frame, timeout_s=timeout_s)

    link = Chatty(handle)
    assert measure_link(link, clock=link.clock).up_bytes_per_s == pytest.approx(1e6, rel=0.02)


def test_no_answer_in_time() -> None:
    with pytest.raises(TransportTimeout, match=r"0\.01 s"):
        measure_link(InMemory(lambda frame: None), timeout_s=0.01)


def test_answers_that_are_none() -> None:
    with pytest.raises(RemoteProtocolError):
        measure_link(InMemory(lambda frame: b"HTTP/1.1 teapot, as it were"))

    def refuse(frame: bytes) -> bytes:
        words = {"code": "bad-frame", "message": "not today"}
        return wire.encode(wire.Failure(boot=wire.NOBODY, sequence=0, edge_boot=EDGE_BOOT, **words))

    with pytest.raises(RemoteError, match="not today"):
        fetch_profile(InMemory(refuse), PIPELINE)

    def mistake(frame: bytes) -> bytes:
        hello, _ = wire.decode(frame)
        return wire.encode(wire.Echo(boot=hello.boot, sequence=hello.sequence, edge_boot=EDGE_BOOT))

    with pytest.raises(RemoteProtocolError, match="Echo, not a Welcome"):
        fetch_profile(InMemory(mistake), PIPELINE)


def test_the_edge_s_profile(handle: Any) -> None:
    assert fetch_profile(InMemory(handle), PIPELINE).heads_s.tolist() == [0, 0.5, 0.75]


def test_a_measured_profile_comes_whole(service: EdgeService, handle: Any) -> None:
    made = service.measure(np.arange(10.0), budget_s=0.01)
    assert fetch_profile(InMemory(handle), PIPELINE).to_dict() == made.to_dict()


def test_an_edge_without_profile_or_pipeline(handle: Any) -> None:
    with pytest.raises(ProfileError, match="does not serve this pipeline"):
        fetch_profile(InMemory(handle), tasks([halve]))
    with EdgeService([PIPELINE]) as bare, pytest.raises(ProfileError, match="has no profile"):
        fetch_profile(InMemory(lambda frame: bare.handle(frame, peer="me")), PIPELINE)


def test_a_broken_profile() -> None:
    def lie(frame: bytes) -> bytes:
        hello, _ = wire.decode(frame)
        assert isinstance(hello, wire.Hello)
        data = TierProfile.from_steps(PIPELINE.digest, [1, 1, 1]).to_dict()
        welcome = wire.Welcome(
            boot=hello.boot, sequence=hello.sequence, edge_boot=EDGE_BOOT, pipelines=hello.pipelines, profiles=(data,)
        )
        return wire.encode(welcome)

    with pytest.raises(ProfileError, match="3 steps, this pipeline 2"):
        fetch_profile(InMemory(lie), PIPELINE)


@pytest.mark.network
@pytest.mark.extra("http")
def test_over_http(service: EdgeService, served: Callable[..., Served]) -> None:
    transport = HttpTransport(f"http://127.0.0.1:{served(asgi(service)).port}")
    try:
        assert si.fetch_profile(transport, PIPELINE).whole_s == 0.75
        link = si.measure_link(transport, count=3)
    finally:
        transport.close()
    assert 0 < link.rtt_s < 5
    assert link.up_bytes_per_s > 1e5
    assert link.down_bytes_per_s > 1e3


@pytest.mark.network
def test_nobody_there() -> None:
    transport = HttpTransport("http://127.0.0.1:1", timeout_s=5)
    try:
        with pytest.raises(TransportError):
            measure_link(transport)
    finally:
        transport.close()
