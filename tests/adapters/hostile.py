"""Edges that mean harm, or are none: each answers a request on a bare socket in a way of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from splitiot import wire

__all__ = ["HEAD", "KINDS", "HostileEdge", "Way", "hostile_edge"]

Way: TypeAlias = Callable[[socket.socket, threading.Event], None]
"""What is done on a connection on which a request has come; the event tells that the test is over."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.splitiot\r\n"
BLOCK = b"x" * 65536
PAUSE_S = 0.02
MOST_BYTES = 600 * 2**20  # what is endless ends there: a test that fails should leave a machine
MOST_S = 20.0

# an answer that is one, but to a request that nobody made
STRANGE = wire.encode(wire.Reply(boot=bytes(16), sequence=2**31, edge_boot=bytes(range(16))))


def _slow(start: bytes, data: bytes) -> Way:
    def way(sock: socket.socket, over: threading.Event) -> None:
        sock.sendall(start)
        until_s = time.monotonic() + MOST_S
        while time.monotonic() < until_s:
            for place in range(len(data)):
                sock.sendall(data[place : place + 1])
                if over.wait(PAUSE_S):
                    return

    return way


def _endless(start: bytes, block: bytes) -> Way:
    def way(sock: socket.socket, over: threading.Event) -> None:
        sock.sendall(start)
        sent = 0
        while not over.is_set() and sent < MOST_BYTES:
            sock.sendall(block)
            sent += len(block)

    return way


def _says(answer: bytes, *, then_closes: bool = False) -> Way:
    def way(sock: socket.socket, over: threading.Event) -> None:
        sock.sendall(answer)
        if not then_closes:
            over.wait(MOST_S)

    return way


def _never(sock: socket.socket, over: threading.Event) -> None:
    over.wait(MOST_S)


def _closes(sock: socket.socket, over: threading.Event) -> None:
    pass


def _resets(sock: socket.socket, over: threading.Event) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _to(location: bytes) -> bytes:
    return b"HTTP/1.1 307 There\r\nLocation: %s\r\n" % location


KINDS: dict[str, Way] = {
    "never answers": _never,
    "closes at once": _closes,
    "resets the connection": _resets,
    "a head byte by byte": _slow(b"HTTP/1.1 200 OK\r\nX-Pad: ", b"a"),
    "a body byte by byte": _slow(HEAD + b"Content-Length: 100000\r\n\r\n", b"a"),
    "chunks byte by byte": _slow(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "endless fields": _endless(HEAD, b"X-Pad: aaaa\r\n" * 1000),
    "one endless field": _endless(HEAD + b"X-Pad: ", BLOCK),
    "an endless body without a length": _endless(HEAD + b"\r\n", BLOCK),
    "an endless page": _endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", BLOCK),
    "an endless error": _endless(b"HTTP/1.1 500 Oh\r\n\r\n", BLOCK),
    "a huge length": _endless(HEAD + b"Content-Length: 999999999999\r\n\r\n", BLOCK),
    "a length that never comes": _says(HEAD + b"Content-Length: 60000000\r\n\r\nSI"),
    "a negative length": _says(HEAD + b"Content-Length: -5\r\n\r\nhello"),
    "a length that is no number": _says(HEAD + b"Content-Length: 0x5\r\n\r\nhello"),
    "two lengths": _says(HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello"),
    "a length and chunks": _says(
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    ),
    "a coding that nobody asked for": _says(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunks of bad sizes": _says(HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"),
    "chunks longer than they say": _says(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n"),
    "endless chunks": _endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + BLOCK + b"\r\n"),
    "tiny endless chunks": _endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 1000),
    "an endless chunk extension": _endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;", BLOCK),
    "an endless trailer": _endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Pad: aaaa\r\n" * 1000),
    "redirects to itself": _says(_to(b"/splitiot/v1") + b"Content-Length: 0\r\n\r\n"),
    "redirects to another host": _says(_to(b"http://192.0.2.1/splitiot/v1/x") + b"Content-Length: 0\r\n\r\n"),
    "redirects with an endless body": _endless(_to(b"/splitiot/v1/") + b"\r\n", BLOCK),
    "100 Continue for ever": _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "100 Continue slowly for ever": _slow(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "switches protocols": _says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    "garbage": _says(bytes(range(256)) * 4, then_closes=True),
    "endless garbage": _endless(b"", bytes(range(1, 10)) * 7000),
    "an alert of TLS": _says(b"\x15\x03\x01\x00\x02\x02\x46", then_closes=True),
    "another version of the protocol": _says(
        HEAD + b"Content-Length: 16\r\n\r\nSI" + bytes([wire.VERSION + 7]) + bytes(13)
    ),
    "an answer to another request": _says(HEAD + b"Content-Length: %d\r\n\r\n" % len(STRANGE) + STRANGE),
    "a body that is cut off": _says(HEAD + b"Content-Length: 5000\r\n\r\nSI", then_closes=True),
}
"""By what they do."""


class HostileEdge:
    """Listens, and does to each request what it is told."""

    def __init__(self, way: Way, port: int = 0) -> None:
        self.way = way
        self.requests = 0
        self.heads: list[bytes] = []
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError), sock.makefile("rb") as file:
            while not self.over.is_set() and file.readable() and (line := file.readline()):
                head, length = line, 0
                while (field := file.readline()).strip():
                    head += field
                    name, _, value = field.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                file.read(length)
                self.requests += 1
                self.heads.append(head)
                self.way(sock, self.over)
                return

    def close(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(30.0)


@contextlib.contextmanager
def hostile_edge(way: Way, port: int = 0) -> Iterator[HostileEdge]:
    """Serve until the block ends."""
    edge = HostileEdge(way, port)
    try:
        yield edge
    finally:
        edge.close()
