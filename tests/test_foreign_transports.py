"""Transports of users, with their mistakes: each request has its value in time, and the log says whose fault it is."""

from __future__ import annotations

import contextlib
import gc
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from splitiot import wire
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import LocalProtocolError, TransportBug, TransportError, TransportTimeout
from splitiot.plan import Outcome
from splitiot.planner import Planner
from splitiot.policies import Fixed
from splitiot.topology import Topology
from splitiot.transports import InMemory, Punctual, RoundTrip, Transport
from tests.session.support import LINK, numbers, profile_of, read
from tests.waiting import eventually

PIPELINE = numbers()
WAIT_S = 30.0
HANGS_S = 20.0  # how long what hangs does; a test that takes as long has failed
DEADLINE_S = 1.0


class SerialFailed(OSError):
    """As pyserial raises them."""


class Faulty(Transport):
    """An edge in the same process, reached in a user's way: `sending` and `receiving` are what goes wrong, if anything.

    Nothing of `Transport` is set up: users forget that.
    """

    def __init__(self) -> None:
        self.service = EdgeService([PIPELINE])
        self.arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.sending: Callable[[bytes], Any] = lambda frame: None
        self.receiving: Callable[[], Any] = lambda: None
        self.closing: Callable[[], Any] = lambda: None
        self.calls = 0
        self.go = threading.Event()

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        self.sending(frame)
        self.arrived.put(self.service.handle(frame, peer="me"))

    def receive(self, *, timeout_s: float) -> bytes | None:
        self.calls += 1
        found: bytes | None = self.receiving()
        if found is not None:
            return found
        try:
            return self.arrived.get(timeout=timeout_s) if timeout_s > 0 else self.arrived.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        self.closing()
        self.go.set()

    def hang(self, *_: Any) -> None:
        self.go.wait(HANGS_S)


class Direct(Faulty):
    """One that says that it keeps its time-outs: it is called in the device's own thread."""

    punctual = True


@pytest.fixture(params=[Faulty, Direct])
def faulty(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    made: Faulty = request.param()
    yield made
    made.go.set()


@pytest.fixture
def late() -> Iterator[Faulty]:
    made = Faulty()
    yield made
    made.go.set()


class Careful(Planner):
    """Believes that a local finish takes long, though it takes no time: so late may a thread be where all are busy."""

    def finish_s(self, cut: int) -> float:
        return DEADLINE_S / 2


def device_on(transport: Transport, **more: Any) -> Device:
    own = profile_of(PIPELINE)
    planner = Careful(PIPELINE, Topology(tiers=[own, own], links=[LINK]), Fixed(1))
    return Device(PIPELINE, transport, planner=planner, cache=False, **more)


def one_by_one(device: Device, values: range) -> list[Outcome]:
    return [device.run(value, deadline_s=DEADLINE_S) for value in values]


def mapped(device: Device, values: range) -> list[Outcome]:
    return list(device.map(values, deadline_s=DEADLINE_S))


both = pytest.mark.parametrize("run", [one_by_one, mapped])


def right(outcomes: list[Outcome], values: range) -> bool:
    return [outcome.value for outcome in outcomes] == [PIPELINE.run(value) for value in values]


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def raised_in(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [(record.getMessage(), None if record.exc_info is None else record.exc_info[1]) for record in found]


# exceptions


@both
@pytest.mark.parametrize("method", ["send", "receive"])
@pytest.mark.parametrize("error", [ValueError("a topic can't hold #"), AttributeError("no port"), KeyError(1)])
def test_what_a_transport_raises_is_a_failure_of_the_network(
    run: Any, method: str, error: Exception, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    with device_on(faulty) as device:
        assert device.edge_up
        if method == "send":
            faulty.sending = raising(error)
        else:
            faulty.receiving = raising(error)
        outcomes = run(device, range(6))
        trouble = device.trouble
    assert right(outcomes, range(6))
    assert {outcome.source for outcome in outcomes} <= {"fallback", "local"}
    assert trouble is not None
    assert f".{method} raised {error!r}" in trouble.reason
    assert not trouble.heals
    ((words, cause),) = raised_in(caplog)
    assert f"{type(faulty).__name__}.{method} raised" in words
    assert cause is error
    assert cause.__traceback__ is not None


@both
def test_what_networks_raise_is_no_bug(run: Any, faulty: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    with device_on(faulty) as device:
        faulty.sending = raising(SerialFailed("the cable is out"))
        assert right(run(device, range(6)), range(6))
        assert device.trouble is not None
        assert "the cable is out" in device.trouble.reason
        assert device.trouble.heals
        faulty.sending = lambda frame: None
        until_s = time.monotonic() + WAIT_S
        while not device.edge_up and time.monotonic() < until_s:
            device.run(20)
        assert run(device, range(3))[-1].source == "edge"
    assert raised_in(caplog) == []


@both
@pytest.mark.parametrize("given", ["a text", 5, ["a", "list"]])
def test_what_is_no_bytes_is_a_failure(
    run: Any, given: Any, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    with device_on(faulty) as device:
        faulty.receiving = lambda: given
        assert right(run(device, range(6)), range(6))
    ((words, _),) = raised_in(caplog)
    assert f"receive returned the {type(given).__name__} " in words


class Asking(RoundTrip):
    def __init__(self, answer: Callable[[bytes], Any]) -> None:
        super().__init__(workers=2)
        self.answer = answer

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        return self.answer(request)  # type: ignore[no-any-return]


@both
@pytest.mark.parametrize("wrong", [ValueError("a bug"), "a text", None])
def test_what_an_exchange_gives(run: Any, wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    service, broken = EdgeService([PIPELINE]), False

    def answer(request: bytes) -> Any:
        if not broken:
            return service.handle(request, peer="me")
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    with device_on(Asking(answer)) as device:
        assert run(device, range(2))[-1].source == "edge"
        broken = True
        outcomes = run(device, range(6))
        assert right(outcomes, range(6))
        assert outcomes[0].source == "fallback"
        assert device.trouble is not None
        assert "Asking.exchange" in device.trouble.reason
    ((words, cause),) = raised_in(caplog)
    assert "Asking.exchange" in words
    assert cause is (wrong if isinstance(wrong, Exception) else None)


def test_an_exchange_that_exits_leaves_no_request() -> None:
    """The request waited for ever, and for a worker that was gone."""
    transport = Asking(lambda request: sys.exit(3) if request == b"exit" else request)
    for _ in range(3):
        transport.send(b"exit", timeout_s=WAIT_S)
        with pytest.raises(TransportBug, match="SystemExit") as caught:
            transport.receive(timeout_s=WAIT_S)
        assert caught.value.frame == b"exit"
    transport.send(b"more", timeout_s=WAIT_S)
    assert transport.receive(timeout_s=WAIT_S) == b"more"
    transport.close()


def test_a_transport_that_can_not_be_closed(faulty: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("not open")
    device = device_on(faulty)
    assert device.run(20).source == "edge"
    faulty.closing = raising(error)
    device.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        device.run(20)
    ((words, cause),) = raised_in(caplog)
    assert "close raised" in words
    assert cause is error


@pytest.mark.parametrize("stops", [KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("method", ["send", "receive"])
def test_what_ends_a_program_passes(stops: BaseException, method: str, faulty: Faulty) -> None:
    with device_on(faulty) as device:
        setattr(faulty, "sending" if method == "send" else "receiving", raising(stops))
        with pytest.raises(type(stops)):
            device.run(20)
        faulty.sending = faulty.receiving = lambda *_: None
        assert device.run(20).value == 39


def test_a_transport_that_fails_from_the_start(faulty: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    faulty.sending = raising(TypeError("send() got an unexpected argument"))
    with device_on(faulty) as device:
        assert device.run(20).source == "local"
    warned = [words for words, cause in raised_in(caplog) if cause is not None]
    assert len(warned) == 1


# time-outs


@both
def test_a_receive_that_hangs_makes_no_deadline_late(
    run: Any, late: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    with device_on(late) as device:
        assert run(device, range(3))[-1].source == "edge"
        late.receiving = late.hang
        began_s = time.monotonic()
        outcomes = run(device, range(4))
        assert time.monotonic() - began_s < HANGS_S / 2
        assert right(outcomes, range(4))
        assert {outcome.source for outcome in outcomes} <= {"hedge", "local"}
        assert late.calls < 1000
        late.receiving = lambda: None
        late.go.set()  # it comes back: nothing is lost, and the edge is used again
        until_s = time.monotonic() + WAIT_S
        while run(device, range(1))[0].source != "edge" and time.monotonic() < until_s:
            pass
        assert run(device, range(1))[0].source == "edge"
    ((words, _),) = raised_in(caplog)
    assert "Faulty.receive waits longer than it may" in words


@both
def test_a_send_that_hangs_makes_no_deadline_late(run: Any, late: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    with device_on(late) as device:
        assert run(device, range(3))[-1].source == "edge"
        late.sending = late.hang
        began_s = time.monotonic()
        outcomes = run(device, range(4))
        assert time.monotonic() - began_s < HANGS_S / 2
        assert right(outcomes, range(4))
        assert "edge" not in {outcome.source for outcome in outcomes}
        late.sending = lambda frame: None
        late.go.set()
        until_s = time.monotonic() + WAIT_S
        while run(device, range(1))[0].source != "edge" and time.monotonic() < until_s:
            pass
        assert run(device, range(1))[0].source == "edge"
    assert len(raised_in(caplog)) <= 1


@both
def test_a_receive_that_waits_for_a_frame_however_long(run: Any, late: Faulty) -> None:
    """As a blocking socket does: it works, in a thread."""
    late.receiving = lambda: late.arrived.get()
    with device_on(late) as device:
        outcomes = run(device, range(20))
        assert right(outcomes, range(20))
        assert {outcome.source for outcome in outcomes} == {"edge"}
        late.closing = lambda: late.arrived.put(b"")


@both
def test_a_receive_that_never_waits_is_asked_now_and_then(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """While the edge is silent it was asked a hundred thousand times a second."""
    class Polling(Faulty):
        def receive(self, *, timeout_s: float) -> bytes | None:
            self.calls += 1
            try:
                return self.arrived.get_nowait()
            except queue.Empty:
                return None

    polling = Polling()
    with device_on(polling) as device:
        outcomes = run(device, range(20))
        assert right(outcomes, range(20))
        assert {outcome.source for outcome in outcomes} == {"edge"}

        polling.calls = 0
        handle = polling.service.handle

        def silent(frame: bytes, *, peer: str) -> Any:
            if not isinstance(read(frame), wire.Request):
                return handle(frame, peer=peer)
            return b"\0" * 32  # no answer to anybody

        polling.service.handle = silent  # type: ignore[method-assign, assignment]
        assert right(run(device, range(1)), range(1))
        assert polling.calls < 1500  # in three quarters of a second
    if run is one_by_one:
        assert any("gives None too early" in words for words, _ in raised_in(caplog))


# the guard alone


class Slow(Transport):
    """Does what it is told when it is told."""

    lossy = False

    def __init__(self) -> None:
        self.go = threading.Event()
        self.sent: list[bytes] = []
        self.fails: Exception | None = None
        self.gives: bytes | None = b"late"

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        if frame != b"quick":
            assert self.go.wait(WAIT_S)
        if self.fails is not None:
            raise self.fails
        self.sent.append(frame)

    def receive(self, *, timeout_s: float) -> bytes | None:
        assert self.go.wait(WAIT_S)
        return self.gives


def first_error(call: Callable[[], Any]) -> TransportError:
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        try:
            call()
        except TransportError as error:
            return error
    raise AssertionError("there was none")


@pytest.fixture
def slow() -> Iterator[tuple[Slow, Punctual]]:
    inner = Slow()
    guard = Punctual(inner)
    yield inner, guard
    inner.go.set()
    guard.close()


def test_what_comes_late_is_not_lost(slow: tuple[Slow, Punctual]) -> None:
    inner, guard = slow
    assert not guard.lossy
    assert guard.receive(timeout_s=0.0) is None
    assert guard.receive(timeout_s=0.01) is None
    inner.go.set()
    assert guard.receive(timeout_s=WAIT_S) == b"late"


def test_a_frame_that_goes_late_fails_under_its_own_name(slow: tuple[Slow, Punctual]) -> None:
    inner, guard = slow
    inner.fails = ValueError("a bug")
    guard.send(b"first", timeout_s=WAIT_S, wait_s=0.0)
    inner.go.set()
    inner.gives = None
    error = first_error(lambda: guard.receive(timeout_s=0.05))
    assert isinstance(error, TransportBug)
    assert "send raised ValueError" in str(error)
    assert error.frame == b"first"
    assert error.__cause__ is inner.fails
    inner.fails = None
    guard.send(b"quick", timeout_s=WAIT_S)
    assert inner.sent == [b"quick"]


def test_nothing_is_sent_behind_what_hangs(slow: tuple[Slow, Punctual]) -> None:
    inner, guard = slow
    guard.send(b"first", timeout_s=0.01)
    error = first_error(lambda: guard.send(b"quick", timeout_s=0.01))
    assert isinstance(error, TransportTimeout)
    assert error.frame == b"quick"
    inner.gives = None
    error = first_error(lambda: guard.receive(timeout_s=0.01))  # once it is late beyond doubt
    assert isinstance(error, TransportTimeout)
    assert error.frame == b"first"
    inner.go.set()
    eventually(lambda: inner.sent)
    while inner.sent[-1] == b"first":
        with contextlib.suppress(TransportTimeout):  # its thread has yet to say that it is back
            guard.send(b"quick", timeout_s=WAIT_S)
    assert inner.sent == [b"first", b"quick"]


def test_exceptions_come_as_they_are(slow: tuple[Slow, Punctual]) -> None:
    inner, guard = slow
    inner.fails = TransportError("no")
    with pytest.raises(TransportError, match="no"):
        guard.send(b"quick", timeout_s=WAIT_S)


def test_threads_end_with_the_guard() -> None:
    def ours() -> int:
        return sum(thread.name.startswith("Slow.") for thread in threading.enumerate())

    inner = Slow()
    inner.go.set()
    guard = Punctual(inner)
    guard.send(b"quick", timeout_s=WAIT_S)
    assert guard.receive(timeout_s=WAIT_S) == b"late"
    assert ours() == 2
    guard.close()
    assert ours() == 0
    guard = Punctual(inner)
    guard.send(b"quick", timeout_s=WAIT_S)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("Slow.")]
    del guard  # dropped without a word
    gc.collect()
    for thread in threads:
        thread.join(WAIT_S)
    assert ours() == 0


# one transport, one device


def test_one_transport_for_two_devices_is_refused() -> None:
    service = EdgeService([PIPELINE])
    transport = InMemory(lambda frame: service.handle(frame, peer="me"))
    first = device_on(transport)
    with pytest.raises(LocalProtocolError, match="another device uses this transport"):
        device_on(transport)
    first.close()
    with device_on(transport) as second:
        assert second.run(20).source == "edge"
    third = device_on(transport)
    del third
    gc.collect()
    device_on(transport).close()


def test_a_device_that_could_not_be_made_holds_no_transport() -> None:
    service = EdgeService([PIPELINE])
    transport = InMemory(lambda frame: service.handle(frame, peer="me"))
    with pytest.raises(ValueError, match="deadline_s"):
        device_on(transport, deadline_s=-1.0)
    device_on(transport).close()
