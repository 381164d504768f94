"""What keeps a device from its edge is told: at once, once, in words, and with what would mend it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from splitiot import wire
from splitiot.adapters.http import HttpTransport
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import FrameTooLarge, PayloadTooLarge, TransportError
from splitiot.functions import task, tasks
from splitiot.pipeline import Pipeline
from splitiot.policies import Context, Decision, Fixed, Policy
from splitiot.session import Trouble
from splitiot.topology import TierProfile
from splitiot.transports import InMemory, RoundTrip, Transport
from tests.http_servers import TYPE, Answer, HttpServer, http_server
from tests.session.support import Clock, Scripted, double, minus_three, numbers, planner_of, profile_of

PIPELINE = numbers()
WAIT_S = 30.0
TOKEN = "s3cret-of-the-camera"
PAGE = b"<!DOCTYPE html><html><body>Welcome to the hotel's network, please log in"


def device_on(transport: Transport, **more: Any) -> Device:
    more.setdefault("policy", Fixed(1))
    return Device(PIPELINE, transport, profile=profile_of(PIPELINE), cache=False, **more)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def infos_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


# what can't heal by itself, over real HTTP


def served(frame: bytes, headers: dict[str, str]) -> Answer:
    return 200, TYPE, SERVICE.handle(frame, peer="me")


SERVICE = EdgeService([PIPELINE])


def of_another_version(frame: bytes, headers: dict[str, str]) -> Answer:
    answer = bytearray(SERVICE.handle(frame, peer="me"))
    answer[2] = wire.VERSION + 5
    return 200, TYPE, bytes(answer)


def older_edge(frame: bytes, headers: dict[str, str]) -> Answer:
    """It can't read what it gets, and says so in the version that it speaks."""
    other = bytearray(frame)
    other[2] = wire.VERSION + 1
    return 200, TYPE, SERVICE.handle(bytes(other), peer="me")


def of_another_pipeline(frame: bytes, headers: dict[str, str]) -> Answer:
    return 200, TYPE, OTHER.handle(frame, peer="me")


OTHER = EdgeService([tasks([double, minus_three])])

CASES: dict[str, tuple[Callable[[bytes, dict[str, str]], Answer], str, str]] = {
    "a captive portal": (lambda frame, headers: (200, "text/html", PAGE), "a web page (text/html)", "captive portal"),
    "a page without a type": (lambda frame, headers: (200, "", PAGE), "a web page", "captive portal"),
    "other software": (lambda frame, headers: (200, "application/json", b'{"ok": 1}'), '{"ok": 1}', "splitiot edge"),
    "nothing at all": (lambda frame, headers: (200, "text/plain", b""), "but nothing", "splitiot edge"),
    "a wrong path": (lambda frame, headers: (404, "text/plain", b"not here"), "404", "the path /splitiot/v1"),
    "no POST": (lambda frame, headers: (405, "text/plain", b""), "405", "the path /splitiot/v1"),
    "a wrong token": (lambda frame, headers: (401, "text/plain", b"who are you?"), "401", "token that the edge knows"),
    "a withdrawn token": (lambda frame, headers: (403, "text/plain", b""), "403", "token that the edge knows"),
    "another version": (of_another_version, f"version {wire.VERSION + 5}", "of the same version"),
    "an older edge": (older_edge, f"version {wire.VERSION + 1}", "of the same version"),
    "an echo": (lambda frame, headers: (200, TYPE, frame), "own frame came back", "splitiot edge"),
    "another pipeline": (of_another_pipeline, PIPELINE.digest[:12], "the same model file"),
}


@pytest.mark.network
@pytest.mark.parametrize("case", CASES)
def test_what_must_be_mended_is_told_at_once_and_once(case: str, caplog: pytest.LogCaptureFixture) -> None:
    answer, words, remedy = CASES[case]
    caplog.set_level(logging.INFO, "splitiot")
    began_s = time.monotonic()
    with http_server(answer) as server, device_on(HttpTransport(server.url, token=TOKEN), connect_s=WAIT_S) as device:
        trouble = device.trouble
        assert isinstance(trouble, Trouble)
        assert words in trouble.reason
        assert remedy in trouble.remedy
        assert not trouble.heals
        assert began_s <= trouble.since_s <= time.monotonic()
        greeted = len(server.uploads)
        assert greeted <= 2  # nothing had to be repeated, nor waited for
        again = 1 if case == "another pipeline" else 3  # (which is asked for after ten seconds only)
        until_s = time.monotonic() + WAIT_S
        while len(server.uploads) < again and time.monotonic() < until_s:
            outcome = device.run(20)
            assert (outcome.value, outcome.source) == (39, "local")
            assert outcome.plan is not None
            assert trouble.reason in outcome.plan.why
            assert trouble.reason in outcome.plan.explain()
        assert device.trouble == trouble  # the same, since the same time
    assert warnings_in(caplog) == [f"the edge can't be used, all runs here: {trouble}"]


@pytest.mark.network
def test_two_troubles_are_two_warnings(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Answer] = [(404, "text/plain", b"")]
    with http_server(lambda frame, headers: answers[-1]) as server, device_on(HttpTransport(server.url)) as device:
        first = device.trouble
        answers.append((401, "text/plain", b""))
        until_s = time.monotonic() + WAIT_S
        while device.trouble == first and time.monotonic() < until_s:
            device.run(20)
        second = device.trouble
    assert first is not None and second is not None
    assert first.since_s == second.since_s  # since then it can't be used
    assert ["404" in each for each in warnings_in(caplog)] == [True, False]
    assert len(warnings_in(caplog)) == 2


@pytest.mark.network
@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", TYPE, ""])
def test_frames_are_frames_whatever_their_type_is_called(kind: str) -> None:
    """Some frameworks call everything text/html."""

    def answer(frame: bytes, headers: dict[str, str]) -> Answer:
        return 200, kind, SERVICE.handle(frame, peer="me")

    with http_server(answer) as server, device_on(HttpTransport(server.url)) as device:
        assert device.run(20).source == "edge"
        assert device.trouble is None


@pytest.mark.network
@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_a_token_is_never_told(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Not even where the server shows what it was sent."""
    caplog.set_level(logging.DEBUG)
    transport = HttpTransport("http://127.0.0.1:1", token=TOKEN)
    said = [repr(transport), str(transport)]
    transport.close()

    def answer(frame: bytes, headers: dict[str, str]) -> Answer:
        return status, "text/html", f"<html>{headers['Authorization']} {TOKEN}".encode()

    with http_server(answer) as server:
        transport = HttpTransport(server.url, token=TOKEN)
        with device_on(transport, parts=[(0, 1)], patience_s=0.1) as device:
            outcome = device.run(20)
            said += [str(device.trouble), repr(device.trouble), str(outcome), repr(outcome.error), repr(transport)]
            assert str(status) in str(outcome.error) or status == 200
    assert "Bearer ***" in "".join(said)
    assert TOKEN not in "".join(said) + caplog.text


def test_words_of_others_are_bounded() -> None:
    def send(frame: bytes) -> None:
        raise TransportError("x" * 100_000)

    device = device_on(InMemory(send))
    device.connect()
    assert device.trouble is not None
    assert len(device.trouble.reason) < 500
    device.close()


# an edge that comes and goes


@pytest.mark.network
def test_an_edge_dies_and_returns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "splitiot")
    server = HttpServer(served)
    with device_on(HttpTransport(server.url)) as device:
        assert device.run(20).source == "edge"
        assert device.trouble is None
        assert caplog.records == []
        server.close()
        sources = [device.run(20).source for _ in range(50)]
        assert sources[0] == "fallback" and set(sources[1:]) == {"local"}
        trouble = device.trouble
        assert trouble is not None
        assert trouble.heals
        assert str(server.port) in trouble.reason
        with http_server(served, port=server.port):
            until_s = time.monotonic() + WAIT_S
            while device.trouble is not None and time.monotonic() < until_s:
                device.run(20)
            assert device.trouble is None
            assert device.run(20).source == "edge"
    gone, back = infos_in(caplog)
    assert gone.startswith("the edge is gone, all runs here: ")
    assert back.startswith("the edge can be used again, after ")
    assert warnings_in(caplog) == []


def test_an_edge_that_is_silent_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "splitiot")
    clock = Clock()
    service = EdgeService([PIPELINE], clock=clock)
    silent = False

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        return [] if silent else [(0.01, service.handle(frame, peer="me"))]

    transport = Scripted(clock, answer)
    with Device(PIPELINE, transport, planner=planner_of(PIPELINE), cache=False, clock=clock) as device:
        assert device.run(20).source == "edge"
        silent = True
        for _ in range(20):
            assert device.run(20, deadline_s=0.3).value == 39
        trouble = device.trouble
        assert trouble is not None
        assert (trouble.reason, trouble.heals) == ("it does not answer", True)
        assert 100 < trouble.since_s <= clock.now_s
        silent = False
        for _ in range(20):
            clock.now_s += 1.0
            device.run(20)
        assert device.trouble is None
    assert [words.partition(",")[0] for words in infos_in(caplog)] == ["the edge is gone", "the edge can be used again"]
    assert warnings_in(caplog) == []


def test_an_edge_that_was_never_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The address may be wrong: nobody can tell."""

    def send(frame: bytes) -> None:
        raise TransportError("nobody is there", frame=frame)

    with device_on(InMemory(send)) as device:
        for _ in range(5):
            assert device.run(20).source == "local"
        assert device.trouble is not None
        assert device.trouble.heals
    (only,) = warnings_in(caplog)
    assert "nobody is there" in only
    assert "address" in only


def test_noise_on_a_line_is_no_trouble_while_the_edge_is_up() -> None:
    clock = Clock()
    service = EdgeService([PIPELINE], clock=clock)

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        return [(0.001, b"\x00\xffnoise"), (0.002, frame), (0.01, service.handle(frame, peer="me"))]

    transport = Scripted(clock, answer)
    with Device(PIPELINE, transport, planner=planner_of(PIPELINE), cache=False, clock=clock) as device:
        assert [device.run(20).source for _ in range(5)] == ["edge"] * 5
        assert device.trouble is None
        assert device.counters.bad_frames > 10


@pytest.mark.parametrize("lossy", [True, False])
def test_only_noise_is_told_for_what_it_is(lossy: bool) -> None:
    clock = Clock()
    transport = Scripted(clock, lambda frame: [(0.001, b"login: ")])
    transport.lossy = lossy
    device = Device(PIPELINE, transport, planner=planner_of(PIPELINE), cache=False, clock=clock)
    device.connect()
    assert device.trouble is not None
    assert "begins 'login:'" in device.trouble.reason
    assert clock.now_s - 100 < (2.1 if lossy else 0.01)  # noise may be followed by the answer
    device.close()


@pytest.mark.parametrize("finishes", [True, False])
def test_an_answer_that_is_none_ends_the_wait_for_it(finishes: bool) -> None:
    """Where each frame gets one answer, and that one can't be read, no other will come."""
    clock = Clock()
    service = EdgeService([PIPELINE], clock=clock)
    portal = False

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        return [(0.01, PAGE if portal else service.handle(frame, peer="me"))]

    transport = Scripted(clock, answer)
    transport.lossy = False
    parts = None if finishes else [(0, 1)]
    planner = planner_of(PIPELINE)
    with Device(PIPELINE, transport, planner=planner, cache=False, clock=clock, parts=parts) as device:
        assert device.run(20).source == "edge"
        portal = True
        began_s = clock.now_s
        outcome = device.run(20, deadline_s=2.0)
        if finishes:
            assert (outcome.value, outcome.source) == (39, "fallback")
            assert clock.now_s - began_s == pytest.approx(0.01)
        assert device.trouble is not None
        assert "a web page" in device.trouble.reason


# an edge that answers, and not with what it was asked for


@pytest.mark.parametrize("garbled", [False, True])
def test_an_edge_that_computes_nothing_is_told(garbled: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Each request was asked for, failed there, and was finished here: nobody heard of it."""
    clock = Clock()
    service = EdgeService([PIPELINE], clock=clock)
    failing = True

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        request, _ = wire.decode(frame)
        if not (failing and isinstance(request, wire.Request)):
            return [(0.01, service.handle(frame, peer="me"))]
        told = {"boot": request.boot, "sequence": request.sequence, "edge_boot": service._session._boot}
        if garbled:
            return [(0.01, wire.encode(wire.Reply(**told, codec="unheard-of")))]
        return [(0.01, wire.encode(wire.Failure(**told, message=f"out of memory at {clock.now_s}")))]

    transport = Scripted(clock, answer)
    with Device(PIPELINE, transport, planner=planner_of(PIPELINE), cache=False, clock=clock) as device:
        for _ in range(10):
            assert (device.run(20).value, device.edge_up) == (39, True)
        trouble = device.trouble
        assert trouble is not None
        assert ("unheard-of" if garbled else "could not compute: out of memory") in trouble.reason
        assert len(warnings_in(caplog)) == 1
        failing = False
        assert device.run(20).source == "edge"
        assert device.trouble is None


# frames that are too large


def narrow(pixels: Any) -> Any:
    return pixels[::1000].copy()


def total(pixels: Any) -> int:
    return int(pixels.sum())


LARGE = tasks([narrow, total])
PIXELS = np.ones(2_000_000, np.uint8)


class FewestHere(Policy):
    """As few steps on the device as are allowed."""

    def decide(self, context: Context) -> Decision:
        return Decision(int(np.flatnonzero(context.mask)[0]), "as few here as may be")


def large_on(transport: Transport, **more: Any) -> Device:
    sizes = {"sent_bytes": [2e6, 2e3, 0.0], "returned_bytes": [8.0, 8.0, 0.0]}
    own = TierProfile.from_steps(LARGE.digest, [1e-3, 1e-3], **sizes)
    return Device(LARGE, transport, profile=own, policy=FewestHere(), cache=False, **more)


@pytest.mark.network
@pytest.mark.parametrize("reads", [True, False])
def test_413_is_about_that_frame_and_not_the_edge(reads: bool, caplog: pytest.LogCaptureFixture) -> None:
    with EdgeService([LARGE]) as service:

        def answer(frame: bytes, headers: dict[str, str]) -> Answer:
            return 200, TYPE, service.handle(frame, peer="me")

        with http_server(answer, limit=1_000_000, reads=reads) as server:
            transport = HttpTransport(server.url)
            with large_on(transport) as device:
                first = device.run(PIXELS)
                assert (first.value, first.source) == (2000, "fallback")
                assert first.plan is not None and first.plan.cut == 0
                assert device.edge_up
                for _ in range(10):
                    outcome = device.run(PIXELS)
                    assert (outcome.value, outcome.source) == (2000, "edge")
                    assert outcome.plan is not None and outcome.plan.cut == 1
                trouble = device.trouble
        assert trouble is not None
        assert "413" in trouble.reason
        assert not trouble.heals
        assert "client_max_body_size" in trouble.remedy
        assert [length for length in server.uploads if length > 1_000_000] == [pytest.approx(2e6, rel=0.01)]
        (warning,) = warnings_in(caplog)
        assert "413" in warning


@pytest.mark.network
def test_413_for_all_that_could_be_sent() -> None:
    """A proxy that lets nothing of use through: all runs here, and why says it."""
    with EdgeService([LARGE]) as service:

        def answer(frame: bytes, headers: dict[str, str]) -> Answer:
            return 200, TYPE, service.handle(frame, peer="me")

        with http_server(answer, limit=1500) as server, large_on(HttpTransport(server.url)) as device:
            sources = [device.run(PIXELS).source for _ in range(6)]
            assert sources == ["fallback", "local", "local", "local", "local", "local"]
            plan = device.run(PIXELS).plan
            assert device.edge_up
            assert plan is not None
            assert "413" in plan.why
        large = [length for length in server.uploads if length > 1500]
        assert len(large) <= 4  # 2 kB, and probes of the link: those told before that 2 MB need not be tried
        assert max(large) < 5000


def test_a_device_that_can_do_nothing_else_is_told_each_time_without_an_upload() -> None:
    clock = Clock()
    service = EdgeService([LARGE], clock=clock)
    large: list[int] = []

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        if len(frame) > 1_000_000:
            large.append(len(frame))
            return [(0.01, FrameTooLarge("at most a million", frame=frame, limit=1_000_000))]
        return [(0.01, service.handle(frame, peer="me"))]

    transport = Scripted(clock, answer)
    with large_on(transport, clock=clock, parts=[(0, 0)]) as device:
        for _ in range(5):
            assert isinstance(device.run(PIXELS).error, FrameTooLarge)
        assert len(large) == 1
        assert device.run(np.ones(1000, np.uint8)).value == 1  # others are not concerned
        assert device.edge_up


def test_probes_of_the_link_keep_to_the_limit() -> None:
    clock = Clock()
    service = EdgeService([PIPELINE], clock=clock)
    refused: list[int] = []

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        if len(frame) > 1000:
            refused.append(len(frame))
            return [(0.01, FrameTooLarge("at most a thousand", frame=frame))]
        return [(0.01, service.handle(frame, peer="me"))]

    transport = Scripted(clock, answer)
    with Device(PIPELINE, transport, planner=planner_of(PIPELINE), cache=False, clock=clock) as device:
        for _ in range(50):
            clock.now_s += 3.0
            assert device.run(20).source == "edge"
    assert len(refused) < 5  # from 4 kB down


def test_another_edge_may_take_more() -> None:
    """What was learned of one edge does not bind the next."""
    clock = Clock()
    limit = 1_000_000
    service = EdgeService([LARGE], clock=clock)

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        if len(frame) > limit:
            return [(0.001, FrameTooLarge("too large", frame=frame, limit=limit))]
        return [(0.001, service.handle(frame, peer="me"))]

    transport = Scripted(clock, answer)
    with large_on(transport, clock=clock) as device:
        cuts = [device.run(PIXELS).plan.cut for _ in range(3)]  # type: ignore[union-attr]
        assert cuts == [0, 1, 1]
        assert device.trouble is not None
        service, limit = EdgeService([LARGE], clock=clock), 10_000_000
        for _ in range(5):
            outcome = device.run(PIXELS)
        assert outcome.plan is not None
        assert (outcome.plan.cut, outcome.source) == (0, "edge")
        assert device.trouble is None


class Silent(RoundTrip):
    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        raise TransportError("no")


def test_a_trouble_is_words() -> None:
    trouble = Trouble("it is broken", 1.0, "mend it", False)
    assert str(trouble) == "it is broken (mend it)"
    assert str(Trouble("it is broken", 1.0)) == "it is broken"
    with pytest.raises(AttributeError):
        trouble.reason = "other"  # type: ignore[misc]
    with device_on(Silent()) as device:
        assert device.trouble is not None


def read_file(number: int) -> bytes:
    return bytes([number % 256]) * 3_000_000


def mirrored(photograph: bytes) -> bytes:
    return photograph[::-1]


def spelled(number: int) -> str:
    return "x" * (2_000_000 + number)


def counted(text: str) -> int:
    return len(text)


def first_cut(pipeline: Pipeline, service: EdgeService, **more: Any) -> Device:
    own = TierProfile.from_steps(
        pipeline.digest, [1e-3] * pipeline.n, sent_bytes=[8.0, 9.0, 0.0], returned_bytes=[8.0, 8.0, 0.0]
    )
    transport = InMemory(lambda frame: service.handle(frame, peer="me"))
    return Device(pipeline, transport, profile=own, policy=FewestHere(), cache=False, **more)


def test_a_photograph_crosses_both_ways() -> None:
    pipeline = tasks([task(read_file, tier="device"), mirrored])
    with EdgeService([pipeline]) as service, first_cut(pipeline, service) as device:
        outcome = device.run(7)
        assert (outcome.source, outcome.exact) == ("edge", True)
        assert outcome.value == read_file(7)


def test_what_no_frame_carries_is_finished_here_and_told(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = tasks([task(spelled, tier="device"), counted])
    with EdgeService([pipeline]) as service, first_cut(pipeline, service) as device:
        for number in range(4):
            outcome = device.run(number)
            assert outcome.value == 2_000_000 + number
            assert outcome.source == ("local" if number else "fallback")
        assert device.trouble is not None and "too large to send" in device.trouble.reason
        assert device.edge_up
        (warning,) = warnings_in(caplog)
        assert "too large to send" in warning
    assert service.counters.requests == 0


def test_what_no_frame_carries_ends_in_words_where_the_device_has_no_tail() -> None:
    pipeline = tasks([task(spelled, tier="device"), task(counted, tier="edge")])
    with EdgeService([pipeline]) as service, first_cut(pipeline, service) as device:
        outcome = device.run(1)
    assert isinstance(outcome.error, PayloadTooLarge)
