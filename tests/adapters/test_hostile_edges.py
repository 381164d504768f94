"""A device whose edge means harm: each exchange ends in time, little is held, and an honest edge is found again."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from pathlib import Path

import pytest

from splitiot import wire
from splitiot.adapters.http import HttpTransport
from splitiot.adapters.http._lookup import Lookup
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import TransportError, TransportTimeout
from splitiot.policies import Fixed
from tests.adapters.hostile import HEAD, KINDS, Way, hostile_edge
from tests.http_servers import TYPE, http_server
from tests.session.support import boot_of, numbers, profile_of

pytestmark = pytest.mark.network

PIPELINE = numbers()
PROBE = wire.encode(wire.Probe(boot=boot_of(1), sequence=1))
ECHO = wire.encode(wire.Echo(boot=boot_of(1), sequence=1, edge_boot=boot_of(2)))
MiB = 2**20
WAIT_S = 30.0

ANSWERS = {"another version of the protocol", "an answer to another request"}
"""What is well-formed HTTP: only the session can refuse it."""


class Memory:
    """The most that this process holds beyond what it held at first."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.first = self.most = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.most = max(self.most, self._now())

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def more(self) -> int:
        return self.most - self.first


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ANSWERS])
def test_an_exchange_ends_in_time_whatever_comes(kind: str) -> None:
    """One deadline holds for all of it, and no more is read than an answer may have."""
    with hostile_edge(KINDS[kind]) as edge:
        transport = HttpTransport(edge.url, token="s3cret-token", max_frame_bytes=MiB)
        for _ in range(2):  # the second one would be on a kept connection
            began_s = time.monotonic()
            with pytest.raises(TransportError) as caught:
                transport.exchange(PROBE, timeout_s=0.4)
            assert time.monotonic() - began_s < 5.0
            assert "s3cret" not in str(caught.value)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 1000
        assert repr(transport).endswith("/splitiot/v1')")  # nothing is remembered of it
        transport.close()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to see how much is held")
@pytest.mark.parametrize("kind", KINDS)
def test_the_device_works_on_and_is_back_once_there_is_an_honest_edge(kind: str) -> None:
    with Memory() as memory:
        with hostile_edge(KINDS[kind]) as edge:
            transport = HttpTransport(edge.url, timeout_s=1.0)
            device = Device(
                PIPELINE, transport, policy=Fixed(1), profile=profile_of(PIPELINE), cache=False, connect_s=0.2
            )
            until_s = time.monotonic() + 1.5
            x = 0
            while x < 5 or time.monotonic() < until_s:
                outcome = device.run(x, deadline_s=0.5)
                assert (outcome.value, outcome.exact) == (PIPELINE.run(x), True)
                assert outcome.source in ("local", "fallback", "hedge")
                x += 1
                edge.over.wait(0.02)
            assert edge.requests > 0
            port = edge.port
        with (
            EdgeService([PIPELINE]) as service,
            http_server(lambda frame, headers: (200, TYPE, service.handle(frame, peer="me")), port=port),
            device,
        ):
            began_s = time.monotonic()
            while device.run(x, deadline_s=0.5).source != "edge":
                assert time.monotonic() - began_s < 10.0
                edge.over.wait(0.02)
            outcomes = [device.run(x) for x in range(20)]
            assert [outcome.value for outcome in outcomes] == [PIPELINE.run(x) for x in range(20)]
            assert [outcome.source for outcome in outcomes].count("edge") >= 18  # a machine may have much to do
    assert memory.more <= 20 * MiB


def answering(*answers: bytes) -> Way:
    """Answer the first request, and as many that follow on the connection, then close it."""

    def way(sock: socket.socket, over: threading.Event) -> None:
        for number, answer in enumerate(answers):
            if number and not _request(sock):
                return
            sock.sendall(answer)

    return way


def _request(sock: socket.socket) -> bytes:
    """Read a request without more behind its first packets; empty at the end."""
    sock.settimeout(WAIT_S)
    data = b""
    while b"\r\n\r\n" not in data or not data.split(b"\r\n\r\n", 1)[1].endswith(PROBE):
        more = sock.recv(65536)
        if not more:
            return b""
        data += more
    return data


def with_length(body: bytes, start: bytes = HEAD) -> bytes:
    return start + b"Content-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(body: bytes, size: int, trailer: bytes = b"") -> bytes:
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    chunks = b"".join(b"%x;name=value\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        with_length(ECHO),
        with_length(ECHO, HEAD.replace(b"1.1", b"1.0")),
        in_chunks(ECHO, 1),
        in_chunks(ECHO, 1000, b"X-Sum: 12\r\n"),
        HEAD.replace(b"1.1", b"1.0") + b"\r\n" + ECHO,
        HEAD + b"Connection: close\r\n\r\n" + ECHO,
        HEAD.replace(b"application/vnd.splitiot", b"application/octet-stream") + b"\r\n" + ECHO,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + with_length(ECHO),
        with_length(ECHO).replace(b"\r\n", b"\n", 3),
        with_length(ECHO, HEAD + b"X-Folded: a\r\n b\r\nX-Empty:\r\n"),
        with_length(ECHO, HEAD + b"Content-Length: %d\r\n" % len(ECHO)),  # twice the same
        with_length(ECHO, HEAD.replace(b" OK", b"")),
    ],
)
def test_answers_that_are_whole(answer: bytes) -> None:
    """Proxies may send an answer in chunks, or as HTTP/1.0 does, up to the end of the connection."""
    with hostile_edge(answering(answer)) as edge:
        transport = HttpTransport(edge.url)
        for _ in range(3):
            assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
        transport.close()


@pytest.mark.parametrize("start", [HEAD + b"\r\n", HEAD.replace(b"1.1", b"1.0") + b"\r\n"])
@pytest.mark.parametrize("end", [0, 1, 15, len(ECHO) - 1])
def test_an_answer_without_a_length_that_is_cut_off_is_none(start: bytes, end: int) -> None:
    with hostile_edge(answering(start + ECHO[:end])) as edge:
        transport = HttpTransport(edge.url)
        with pytest.raises(TransportError) as caught:
            transport.exchange(PROBE, timeout_s=WAIT_S)
        assert not isinstance(caught.value, TransportTimeout)
        transport.close()


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    """A second answer behind the first, or later on the idle connection, ends that connection."""
    strange = wire.encode(wire.Echo(boot=boot_of(9), sequence=9, edge_boot=boot_of(2)))
    late = threading.Event()

    def way(sock: socket.socket, over: threading.Event) -> None:
        sock.sendall(with_length(ECHO) + (b"" if late.is_set() else with_length(strange)))
        if late.is_set():
            sock.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        over.wait(WAIT_S)

    with hostile_edge(way) as edge:
        transport = HttpTransport(edge.url)
        for number in range(6):
            if number == 3:
                late.set()
            assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
            for connection in transport._idle:  # what comes behind the answer is here
                assert connection.socket is not None
                assert select.select([connection.socket], [], [], WAIT_S)[0]
        assert edge.requests == 6
        transport.close()


def test_a_request_that_nobody_reads_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = HttpTransport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        began_s = time.monotonic()
        with pytest.raises(TransportTimeout):
            transport.exchange(bytes(30_000_000), timeout_s=0.4)
        assert time.monotonic() - began_s < 5.0
        transport.close()


def test_a_refusal_ends_the_upload() -> None:
    """The server says no after the head, reads nothing, and keeps the connection open: the rest is not sent."""
    said = threading.Event()

    def refuse() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1000)
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            said.wait(WAIT_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        transport = HttpTransport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TransportError, match="413") as caught:
            transport.exchange(bytes(30_000_000), timeout_s=WAIT_S / 3)
        assert not isinstance(caught.value, TransportTimeout)
        said.set()
        thread.join(WAIT_S)
        transport.close()


def test_large_answers_are_read_one_after_another() -> None:
    """Eight workers do not hold eight times the largest answer."""
    frame = wire.encode(wire.Probe(boot=boot_of(1), sequence=1), [bytes(32 * MiB)])
    begun = threading.Semaphore(0)
    go_on = threading.Event()

    def way(sock: socket.socket, over: threading.Event) -> None:
        sock.sendall(with_length(frame)[: 16 * MiB])
        begun.release()
        go_on.wait(WAIT_S)
        sock.sendall(with_length(frame)[16 * MiB :])

    with hostile_edge(way) as edge:
        transport = HttpTransport(edge.url)
        for _ in range(3):
            transport.send(PROBE, timeout_s=WAIT_S)
        assert begun.acquire(timeout=WAIT_S)
        assert transport._large.locked()
        assert not begun.acquire(timeout=0.3)  # the others' bytes stay in the network
        go_on.set()
        assert [transport.receive(timeout_s=WAIT_S) for _ in range(3)] == [frame] * 3
        transport.close()


# redirects


class Redirects:
    """Answers at one path, and says at all others where that is."""

    def __init__(self, location: str, path: str, status: int = 307, answer: bytes | None = None) -> None:
        self.location, self.path, self.status = location, path, status
        self.answer = with_length(ECHO) if answer is None else answer
        self.paths: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with sock:
                    while asked := _request(sock):
                        path = asked.split(b" ")[1].decode()
                        self.paths.append(path)
                        location = self.location.replace("PORT", str(self.port))
                        away = f"HTTP/1.1 {self.status} There\r\nLocation: {location}\r\nContent-Length: 3\r\n\r\nbye"
                        sock.sendall(self.answer if path == self.path else away.encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_S)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    ("base", "location", "path"),
    [
        ("/edge", "/edge/", "/edge/"),
        ("/edge", "edge/", "/edge/"),
        ("/edge", "http://127.0.0.1:PORT/edge/", "/edge/"),
        ("/site/edge", "/edge/", "/site/edge/"),  # a proxy took /site away
        ("/site/edge", "http://127.0.0.1:PORT/edge/", "/site/edge/"),
        ("/site/edge", "http://inside:8000/edge/", "/site/edge/"),  # and the host's name
        ("/edge", "https://127.0.0.1/edge/", "/edge/"),  # or the encryption
        ("/site", "/edge/", "/site/"),  # or has another path for it
        ("/edge", "/v2/edge", "/v2/edge"),
        ("/edge", "http://127.0.0.1:PORT/v2/edge", "/v2/edge"),
    ],
)
def test_redirects_that_are_followed(status: int, base: str, location: str, path: str) -> None:
    server = Redirects(location, path, status)
    transport = HttpTransport(f"http://127.0.0.1:{server.port}{base}", token="s3cret-token")
    for _ in range(2):
        assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
    assert server.paths == [base, path, path]
    transport.close()
    server.close()


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://elsewhere/edge",
        "http://127.0.0.1:1/v2",
        "https://127.0.0.1:PORT/v2",
        "//elsewhere/v2",
        "http://127.0.0.1:PORT@elsewhere/v2",
        "http://127.0.0.1:99999/v2",
        "http://[::1/v2",
        "/v2?token=yours",
        "/caf\u00e9",
        "/" + "a" * 5000,
        "file:///etc/passwd",
        "/edge",
        "/",
    ],
)
def test_redirects_that_are_not_followed(location: str) -> None:
    server = Redirects(location, "/nowhere")
    transport = HttpTransport(f"http://127.0.0.1:{server.port}/edge", token="s3cret-token")
    for _ in range(2):
        with pytest.raises(TransportError, match=r"307|redirects") as caught:
            transport.exchange(PROBE, timeout_s=WAIT_S)
        assert not caught.value.heals
    assert set(server.paths) <= {"/edge", "/"}
    assert repr(transport).endswith("/edge')")
    transport.close()
    server.close()


def test_a_path_is_remembered_once_an_edge_has_answered_there() -> None:
    """A portal that redirects for an hour must not lead the device astray for ever."""
    page = with_length(b"<html>log in", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n")
    server = Redirects("/portal", "/portal", answer=page)
    transport = HttpTransport(f"http://127.0.0.1:{server.port}/edge")
    with pytest.raises(TransportError, match="a web page"):
        transport.exchange(PROBE, timeout_s=WAIT_S)
    server.path, server.answer = "/edge", with_length(ECHO)
    assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
    assert server.paths == ["/edge", "/portal", "/edge"]
    transport.close()
    server.close()


def test_a_path_that_is_gone_is_forgotten() -> None:
    gone = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"
    server = Redirects("/v2", "/v2")
    transport = HttpTransport(f"http://127.0.0.1:{server.port}/edge")
    assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
    server.answer = gone
    with pytest.raises(TransportError, match="404"):
        transport.exchange(PROBE, timeout_s=WAIT_S)
    server.path, server.answer = "/edge", with_length(ECHO)
    assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
    transport.close()
    server.close()


# names


def test_a_resolver_that_hangs_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread waits for it, however many ask."""
    found, asked = threading.Event(), []

    def slow(host: str, port: int, **more: object) -> list[object]:
        asked.append(host)
        found.wait(WAIT_S)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("splitiot.adapters.http._lookup.socket.getaddrinfo", slow)
    lookup = Lookup()
    for _ in range(5):
        with pytest.raises(TimeoutError, match=r"edge\.example"):
            lookup("edge.example", 80, time.monotonic() + 0.02)
    threading.Timer(0.02, found.set).start()
    assert lookup("edge.example", 80, time.monotonic() + WAIT_S) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert asked == ["edge.example"]


def test_an_address_where_nobody_answers_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(3):  # its queue is full: whoever comes now is not answered
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            waiting[-1].connect(silent.getsockname())
    with http_server(lambda body, headers: (200, TYPE, ECHO)) as server:
        both = [(socket.AF_INET, silent.getsockname()), (socket.AF_INET, ("127.0.0.1", server.port))]
        transport = HttpTransport(server.url)
        monkeypatch.setattr(transport, "_lookup", lambda host, port, until_s: both)
        assert transport.exchange(PROBE, timeout_s=2.0) == ECHO
        transport.close()
    for each in (silent, *waiting):
        each.close()
