"""RoundTrip: its queue, its workers, and how it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from splitiot.errors import AuthenticationError, TransportError, TransportTimeout
from splitiot.transports import RoundTrip

WAIT_S = 20.0


class Held(RoundTrip):
    """Each exchange waits until it is let go."""

    def __init__(self, *, workers: int = 2, answer: Callable[[bytes], Any] = bytes.upper, **more: int) -> None:
        super().__init__(workers=workers, **more)
        self.answer = answer
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.requests: list[bytes] = []
        self.timeouts: list[float] = []

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        self.requests.append(request)
        self.timeouts.append(timeout_s)
        self.begun.release()
        assert self.go.acquire(timeout=WAIT_S)
        return self.answer(request)  # type: ignore[no-any-return]

    def let(self, number: int) -> None:
        self.go.release(number)

    def wait_for(self, number: int) -> None:
        for _ in range(number):
            assert self.begun.acquire(timeout=WAIT_S)


def threads_of(transport: RoundTrip) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == type(transport).__name__]


def test_frames_go_and_come() -> None:
    transport = Held()
    transport.let(3)
    for frame in (b"a", b"b", b"c"):
        transport.send(frame, timeout_s=WAIT_S)
        assert transport.receive(timeout_s=WAIT_S) == frame.upper()
    assert transport.receive(timeout_s=0) is None
    assert len(threads_of(transport)) == 1  # one at a time needs one
    assert set(transport.timeouts) == {10.0}
    transport.close()


def test_workers_start_when_they_are_needed_and_are_bounded() -> None:
    transport = Held(workers=3)
    assert threads_of(transport) == []
    for k in range(8):
        transport.send(bytes([k]), timeout_s=WAIT_S)
    transport.wait_for(3)
    assert len(threads_of(transport)) == 3
    assert not transport.begun.acquire(blocking=False)
    transport.let(8)
    got = {transport.receive(timeout_s=WAIT_S) for _ in range(8)}
    assert got == {bytes([k]) for k in range(8)}
    transport.close()
    assert threads_of(transport) == []


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (TransportError("no"), TransportError),
        (AuthenticationError("no"), AuthenticationError),
        (OSError("no"), TransportError),
        (ValueError("a bug"), TransportError),
    ],
)
def test_what_an_exchange_raises_comes_with_its_frame(raised: Exception, kind: type[TransportError]) -> None:
    def answer(request: bytes) -> bytes:
        if request == b"bad":
            raise raised
        return request

    transport = Held(answer=answer)
    transport.let(2)
    transport.send(b"bad", timeout_s=WAIT_S)
    with pytest.raises(kind) as caught:
        transport.receive(timeout_s=WAIT_S)
    assert caught.value.frame == b"bad"
    assert caught.value is raised or caught.value.__cause__ is raised
    transport.send(b"good", timeout_s=WAIT_S)  # the worker lives
    assert transport.receive(timeout_s=WAIT_S) == b"good"
    transport.close()


@pytest.mark.parametrize("answer", [None, "text", 5])
def test_an_exchange_that_returns_no_bytes_is_an_error(answer: Any) -> None:
    transport = Held(answer=lambda request: answer)
    transport.let(1)
    transport.send(b"x", timeout_s=WAIT_S)
    with pytest.raises(TransportError, match="returned"):
        transport.receive(timeout_s=WAIT_S)
    transport.close()


def test_a_frame_that_waited_too_long_is_not_carried() -> None:
    """The edge would compute what nobody wants any more."""
    transport = Held(workers=1)
    transport.send(b"first", timeout_s=WAIT_S)
    transport.wait_for(1)
    transport.send(b"stale", timeout_s=-1.0)
    transport.send(b"fresh", timeout_s=WAIT_S)
    transport.let(2)
    assert transport.receive(timeout_s=WAIT_S) == b"FIRST"
    with pytest.raises(TransportTimeout) as caught:
        transport.receive(timeout_s=WAIT_S)
    assert caught.value.frame == b"stale"
    assert transport.receive(timeout_s=WAIT_S) == b"FRESH"
    assert transport.requests == [b"first", b"fresh"]
    transport.close()


def test_closing_while_an_exchange_hangs() -> None:
    transport = Held(workers=2)
    for k in range(5):
        transport.send(bytes([k]), timeout_s=WAIT_S)
    transport.wait_for(2)
    threads = threads_of(transport)
    began_s = time.monotonic()
    transport.close()
    assert time.monotonic() - began_s < 1.9  # a second for all of them together
    with pytest.raises(TransportError, match="closed") as caught:
        transport.send(b"x", timeout_s=1)
    assert caught.value.frame == b"x"
    transport.close()
    transport.let(5)
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert len(transport.requests) == 2  # what was queued is not sent after all


def test_workers_do_not_keep_the_process_alive() -> None:
    transport = Held()
    transport.send(b"x", timeout_s=WAIT_S)
    transport.wait_for(1)
    assert all(thread.daemon for thread in threads_of(transport))
    transport.let(1)
    transport.close()


def test_closing_what_was_never_used() -> None:
    Held().close()


def test_no_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Held(workers=0)


def test_what_waits_is_bounded_by_number() -> None:
    """It was not: an edge that hangs made a device hold all the frames that it had sent."""
    transport = Held(max_waiting=4)
    for frame in (b"a", b"b", b"c", b"d"):
        transport.send(frame, timeout_s=WAIT_S)
    transport.wait_for(2)
    for _ in range(3):  # at once, and again and again
        with pytest.raises(TransportError, match="4 frames with 4 bytes wait already") as caught:
            transport.send(b"e", timeout_s=WAIT_S)
        assert (caught.value.frame, caught.value.heals) == (b"e", True)
    transport.let(4)
    transport.wait_for(2)
    for number in range(4):  # answers that nobody has read count too
        if number == 0:
            with pytest.raises(TransportError, match="wait already"):
                transport.send(b"e", timeout_s=WAIT_S)
        assert transport.receive(timeout_s=WAIT_S) is not None
    transport.let(1)
    transport.send(b"e", timeout_s=WAIT_S)
    assert transport.receive(timeout_s=WAIT_S) == b"E"
    assert transport._held_bytes == 0
    transport.close()


def test_what_waits_is_bounded_by_bytes() -> None:
    def answer(request: bytes) -> bytes:
        if request == b"fail":
            raise OSError("no")
        return request * 2

    transport = Held(answer=answer, max_waiting_bytes=1000)
    transport.send(bytes(5000), timeout_s=WAIT_S)  # alone it may be as large as it likes
    with pytest.raises(TransportError, match="1 frames with 5000 bytes wait already"):
        transport.send(b"x", timeout_s=WAIT_S)
    transport.let(1)
    assert transport.receive(timeout_s=WAIT_S) == bytes(10000)
    for frame in (bytes(300), b"fail", bytes(300)):
        transport.send(frame, timeout_s=WAIT_S)
    with pytest.raises(TransportError, match="3 frames with 604 bytes wait already"):
        transport.send(bytes(397), timeout_s=WAIT_S)
    transport.let(3)
    for _ in range(3):
        with contextlib.suppress(TransportError):
            transport.receive(timeout_s=WAIT_S)
    assert transport._held_bytes == 0
    transport.close()
