"""The shaped link carries bytes unchanged, never faster than told, and breaks when told."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from splitiot.errors import LocalProtocolError
from splitiot.sim import ShapedLink
from splitiot.topology import Link

FAST = Link(0.0, float("inf"), float("inf"))


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what these tests make."""


@pytest.fixture
def port() -> Iterator[int]:
    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def exchange(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            piece = connection.recv(65536)
            if not piece:
                break
            got += piece
        sender.join()
        return got


def test_bytes_come_back_unchanged(port: int) -> None:
    data = bytes(range(256)) * 2000
    with ShapedLink(port, FAST) as link:
        assert exchange(link.port, data) == data
        assert exchange(link.port, data) == data  # a second connection


@pytest.mark.parametrize(
    ("link", "least_s"),
    [
        (Link(0.0, 200_000, float("inf")), 0.1),
        (Link(0.0, float("inf"), 200_000), 0.1),
        (Link(0.2, float("inf"), float("inf")), 0.2),
    ],
    ids=["up", "down", "round trip"],
)
def test_never_faster_than_told(port: int, link: Link, least_s: float) -> None:
    with ShapedLink(port, link) as shaped:
        began = time.monotonic()
        assert len(exchange(shaped.port, bytes(20_000))) == 20_000
        assert time.monotonic() - began >= least_s * 0.99  # a lower bound: load on the machine can't break it


def test_changes_take_effect_at_once(port: int) -> None:
    with ShapedLink(port, FAST) as shaped:
        exchange(shaped.port, bytes(1000))
        shaped.link = Link(0.15, float("inf"), float("inf"))
        began = time.monotonic()
        exchange(shaped.port, bytes(1000))
        assert time.monotonic() - began >= 0.148


def test_cut_breaks_and_heal_mends(port: int) -> None:
    with ShapedLink(port, FAST) as shaped, socket.create_connection(("127.0.0.1", shaped.port), timeout=10) as kept:
        kept.sendall(b"hello")
        assert kept.recv(5) == b"hello"
        shaped.cut()
        assert kept.recv(5) == b""  # closed
        assert exchange_or_nothing(shaped.port) == b""
        shaped.heal()
        assert exchange(shaped.port, b"again") == b"again"


def exchange_or_nothing(port: int) -> bytes:
    try:
        return exchange(port, b"lost")
    except OSError:
        return b""


def test_an_edge_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        gone = reserved.getsockname()[1]
    with ShapedLink(gone, FAST) as shaped:
        assert exchange_or_nothing(shaped.port) == b""


def test_close_is_harmless_before_and_after(port: int) -> None:
    shaped = ShapedLink(port, FAST)
    shaped.close()
    with pytest.raises(LocalProtocolError, match="once"):
        shaped.start()
    other = ShapedLink(port, FAST).start()
    other.close()
    other.close()


def test_it_can_not_be_started_twice(port: int) -> None:
    with ShapedLink(port, FAST) as shaped, pytest.raises(LocalProtocolError, match="once"):
        shaped.start()
