"""The transport inside one process."""

from __future__ import annotations

import threading
import time

import pytest

from splitiot.errors import TransportError
from splitiot.transports import InMemory


def test_answers_come_in_order() -> None:
    transport = InMemory(lambda frame: frame.upper())
    assert transport.receive(timeout_s=0) is None
    transport.send(b"a", timeout_s=1)
    transport.send(b"b", timeout_s=1)
    assert transport.receive(timeout_s=0) == b"A"
    assert transport.receive(timeout_s=0) == b"B"
    assert transport.receive(timeout_s=-1) is None
    transport.close()


def test_waiting_takes_the_time_it_is_given() -> None:
    began_s = time.monotonic()
    assert InMemory(lambda frame: None).receive(timeout_s=0.05) is None
    assert time.monotonic() - began_s >= 0.045


def test_an_answer_ends_the_wait_of_another_thread() -> None:
    transport = InMemory(lambda frame: frame)
    got: list[bytes | None] = []
    thread = threading.Thread(target=lambda: got.append(transport.receive(timeout_s=30.0)))
    thread.start()
    transport.send(b"a", timeout_s=1)
    thread.join(20.0)
    assert got == [b"a"]


def test_a_lost_frame_and_one_that_fails() -> None:
    def answer(frame: bytes) -> bytes | None:
        if frame == b"fail":
            raise TransportError("cut off")
        return None

    transport = InMemory(answer)
    transport.send(b"lost", timeout_s=1)
    assert transport.receive(timeout_s=0) is None
    with pytest.raises(TransportError):
        transport.send(b"fail", timeout_s=1)
    assert transport.receive(timeout_s=0) is None
