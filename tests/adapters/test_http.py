"""HTTP: the client against awkward servers, the server against awkward clients, and both with a device and an edge."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Never

import pytest

from splitiot import wire
from splitiot.adapters.http import PATH, HttpTransport, asgi, serve
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import AuthenticationError, FrameTooLarge, TransportError, TransportTimeout
from splitiot.functions import TaskPipeline, task, tasks
from splitiot.limits import Limits
from splitiot.policies import Fixed
from tests.http_servers import TYPE, http_server
from tests.session.support import Clock, add_one, boot_of, double, minus_three, numbers, profile_of, read, request_of

pytestmark = pytest.mark.network
needs_server = pytest.mark.extra("http")

PIPELINE = numbers()
WAIT_S = 30.0
PROBE = wire.encode(wire.Probe(boot=boot_of(1), sequence=1))


# a server that does as it is told, of sockets


class Raw:
    """Answers HTTP with what a function gives; None closes the connection without an answer."""

    def __init__(self, answer: Callable[[int, bytes], bytes | None]) -> None:
        self.answer = answer
        self.connections = self.requests = 0
        self.heard = threading.Semaphore(0)
        self.release = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        self._serving: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._serving.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file, contextlib.suppress(OSError):
            while line := file.readline():
                length = 0
                while (header := file.readline()).strip():
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                body = file.read(length)
                assert line.startswith(b"POST")
                self.requests += 1
                self.heard.release()
                answer = self.answer(self.requests, body)
                if answer is None:
                    return
                connection.sendall(answer)

    def close(self) -> None:
        self.release.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_S)
        for thread in self._serving:
            thread.join(WAIT_S)


OURS = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.splitiot\r\n%s\r\n\r\n"


def ok(body: bytes, *more: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.splitiot\r\nContent-Length: %d\r\n" % len(body)
    return head + b"".join(line + b"\r\n" for line in more) + b"\r\n" + body


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[int, bytes], bytes | None]], Raw]]:
    made: list[Raw] = []

    def make(answer: Callable[[int, bytes], bytes | None]) -> Raw:
        made.append(Raw(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


@contextlib.contextmanager
def client(port: int, **options: Any) -> Iterator[HttpTransport]:
    transport = HttpTransport(f"http://127.0.0.1:{port}", **options)
    try:
        yield transport
    finally:
        transport.close()


def test_a_connection_is_kept(raw: Any) -> None:
    server = raw(lambda number, body: ok(body.upper()))
    with client(server.port) as transport:
        for _ in range(20):
            assert transport.exchange(b"abc", timeout_s=WAIT_S) == b"ABC"
    assert (server.connections, server.requests) == (1, 20)


def test_a_stale_connection_is_tried_once_more(raw: Any) -> None:
    def answer(number: int, body: bytes) -> bytes | None:
        return None if number == 2 else ok(body)

    server = raw(answer)
    with client(server.port) as transport:
        assert transport.exchange(b"1", timeout_s=WAIT_S) == b"1"
        assert transport.exchange(b"2", timeout_s=WAIT_S) == b"2"
    assert (server.connections, server.requests) == (2, 3)


def test_it_is_tried_only_once_more(raw: Any) -> None:
    server = raw(lambda number, body: ok(body) if number == 1 else None)
    with client(server.port) as transport:
        transport.exchange(b"1", timeout_s=WAIT_S)
        with pytest.raises(TransportError):
            transport.exchange(b"2", timeout_s=WAIT_S)
        assert server.requests == 3
        with pytest.raises(TransportError):  # there is no kept one now
            transport.exchange(b"3", timeout_s=WAIT_S)
        assert server.requests == 4


def test_a_server_that_ends_its_connections_is_no_error(raw: Any) -> None:
    server = raw(lambda number, body: ok(body, b"Connection: close"))
    with client(server.port) as transport:
        for _ in range(3):
            assert transport.exchange(b"x", timeout_s=WAIT_S) == b"x"
    assert server.requests == 3


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", AuthenticationError, "401 Unauthorized: no"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", AuthenticationError, "403"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nbugs", TransportError, "500 Oh: bugs"),
        (b"HTTP/1.1 307 There\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", TransportError, "307"),
        (OURS % b"Content-Length: 99999999999", TransportError, "99999999999"),
        (b"SSH-2.0-OpenSSH_9.0\r\n", TransportError, "no answer of HTTP/1.1, but b'SSH-2.0-OpenSSH_9.0'"),
    ],
)
def test_what_else_a_server_may_answer(raw: Any, answer: bytes, kind: type[Exception], words: str) -> None:
    server = raw(lambda number, body: answer if number % 2 == 0 else ok(b"fine"))
    with client(server.port) as transport:
        for _ in range(2):  # on a kept connection and (after an error) on a new one
            assert transport.exchange(b"x", timeout_s=WAIT_S) == b"fine"
            with pytest.raises(kind, match=words):
                transport.exchange(b"x", timeout_s=WAIT_S)


@pytest.mark.parametrize("first", [True, False])
def test_no_answer_in_time(raw: Any, first: bool) -> None:
    server = raw(lambda number, body: ok(body) if number == 1 and not first else server.release.wait(WAIT_S) and None)
    with client(server.port) as transport:
        if not first:
            transport.exchange(b"x", timeout_s=WAIT_S)
        with pytest.raises(TransportTimeout, match=r"0\.05 s"):
            transport.exchange(b"x", timeout_s=0.05)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with client(port) as transport, pytest.raises(TransportError, match=str(port)):
        transport.exchange(b"x", timeout_s=WAIT_S)


def test_closing_ends_exchanges_that_hang(raw: Any) -> None:
    server = raw(lambda number, body: server.release.wait(WAIT_S) and None)
    transport = HttpTransport(f"http://127.0.0.1:{server.port}")
    for _ in range(2):
        transport.send(b"x", timeout_s=WAIT_S)
    for _ in range(2):
        assert server.heard.acquire(timeout=WAIT_S)
    threads = [thread for thread in threading.enumerate() if thread.name == "HttpTransport"]
    assert len(threads) == 2
    began_s = time.monotonic()
    transport.close()
    assert time.monotonic() - began_s < 0.9
    assert not any(thread.is_alive() for thread in threads)


def test_exchanges_at_once_have_connections_of_their_own(raw: Any) -> None:
    both = threading.Barrier(2)

    def answer(number: int, body: bytes) -> bytes:
        if number <= 2:
            both.wait(WAIT_S)
        return ok(body)

    server = raw(answer)
    with client(server.port) as transport:
        for _ in range(2):
            transport.send(b"x", timeout_s=WAIT_S)
        assert [transport.receive(timeout_s=WAIT_S) for _ in range(2)] == [b"x", b"x"]
        transport.send(b"y", timeout_s=WAIT_S)
        assert transport.receive(timeout_s=WAIT_S) == b"y"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://192.0.2.1", "plaintext"),
        ("http://edge.example:80/", "plaintext"),
        ("edge:8443", "no edge's address"),
        ("ftp://127.0.0.1", "no edge's address"),
        ("http://127.0.0.1/x?y=1", "no edge's address"),
        ("https://", "no edge's address"),
        ("https://user:secret@edge", "token="),
        ("http://user:secret@127.0.0.1", "token="),
        ("http://127.0.0.1/?token=secret", r"without \? and #"),
        ("http://:secret@", "token="),
        ("ftp://user:secret@edge", "token="),
        ("https://user:secret@ed ge", "without ' '"),
        ("http://127.0.0.1:99999", "expected something like .* out of range"),
        ("http://127.0.0.1:port", "expected something like .* could not be cast"),
        ("http://127.0.0.1:0", "port 0"),
        ("http://127.0.0.1:80 80", "without ' ' .character 20"),
        (" http://127.0.0.1", "without ' '"),
        ("http://127.0.0.1\n", r"without '\\n'"),
        ("http://127.0.0.1/a\tb", r"without '\\t'"),
        ("http://127.0.0.1/\x00", r"without '\\x00'"),
        ("http://127.0.0.1/\u2028", r"without '\\u2028'"),
        ("http://127.0.0.1/caf\u00e9", "as %XX"),
        ("https://a..b/", "as %XX"),
        ("http://[::1", "expected something like"),
        ("", "no edge's address"),
    ],
)
def test_addresses_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        HttpTransport(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", [None, b"https://edge", 8443, Path("edge")])
def test_what_is_no_address(url: Any) -> None:
    with pytest.raises(TypeError, match="https://edge:8443"):
        HttpTransport(url)


@pytest.mark.parametrize(
    ("token", "kind", "words"),
    [
        ("s3cret-token\n", ValueError, "a line break at place 13 of 13"),
        ("s3cret-token\r\nX: y", ValueError, "a line break at place 13"),
        ("s3cret token", ValueError, "a space at place 7"),
        ("s3cret-t\u00f6ken\u20ac", ValueError, "a character at place 13"),
        ("s3cret-token\x00", ValueError, "a character at place 13"),
        ("s3cret-token\x7f", ValueError, "a character at place 13"),
        ("", ValueError, "is empty"),
        (b"s3cret-token", TypeError, "bytes"),
    ],
)
def test_tokens_that_no_header_carries(token: Any, kind: type[Exception], words: str) -> None:
    """They were found out when the first frame was sent, by an error that showed them."""
    with pytest.raises(kind, match=words) as caught:
        HttpTransport("http://127.0.0.1", token=token)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("token", ["abc", "a-b.c_d~e+f/g==", "t\u00f6ken!"])
def test_tokens_that_are_fine(token: str) -> None:
    HttpTransport("http://127.0.0.1", token=token).close()


def test_what_a_transport_is_called() -> None:
    for url, shown in (
        ("http://127.0.0.1:81", "http://127.0.0.1:81/splitiot/v1"),
        ("http://[::1]/edge", "http://[::1]:80/edge"),
        ("https://192.0.2.1", "https://192.0.2.1:443/splitiot/v1"),
    ):
        transport = HttpTransport(url, token="s3cret")
        assert repr(transport) == f"HttpTransport('{shown}')"
        transport.close()


def test_a_refusal_that_comes_while_the_body_is_sent_is_read() -> None:
    """The server closes, so sending fails; what it said before says why."""
    with http_server(lambda body, headers: (200, TYPE, b""), limit=1000) as server:
        transport = HttpTransport(server.url)
        for _ in range(2):
            with pytest.raises(FrameTooLarge, match="413"):
                transport.exchange(bytes(20_000_000), timeout_s=WAIT_S)
        assert len(server.uploads) == 2  # it is not begun once more
        transport.close()


@pytest.mark.parametrize(
    ("status", "heals"),
    [
        *((status, False) for status in (204, 301, 404, 405, 501, 511)),
        *((status, True) for status in (408, 429, 500, 502, 503, 504)),
    ],
)
def test_what_may_end_by_itself(status: int, heals: bool) -> None:
    with http_server(lambda body, headers: (status, "text/plain", b"")) as server:
        transport = HttpTransport(server.url)
        with pytest.raises(TransportError) as caught:
            transport.exchange(b"x", timeout_s=WAIT_S)
        assert caught.value.heals is heals
        assert bool(caught.value.remedy) is not heals
        transport.close()


def test_a_host_that_does_not_exist() -> None:
    transport = HttpTransport("https://edge.invalid")
    with pytest.raises(TransportError) as caught:
        transport.exchange(b"x", timeout_s=WAIT_S)
    if isinstance(caught.value.__cause__, socket.gaierror) and caught.value.__cause__.errno == socket.EAI_NONAME:
        assert not caught.value.heals
        assert "name of the host" in caught.value.remedy
    transport.close()


def test_encryption_on_one_side_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                connection.recv(10_000)

        thread = threading.Thread(target=refuse)
        thread.start()
        transport = HttpTransport(f"https://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TransportError, match="SSL") as caught:
            transport.exchange(b"x", timeout_s=WAIT_S)
        thread.join(WAIT_S)
    assert not caught.value.heals
    assert "http://" in caught.value.remedy
    transport.close()


@pytest.mark.parametrize(
    "url", ["http://localhost", "http://127.0.0.1:1", "http://[::1]", "https://192.0.2.1", "http://127.8.8.8/x"]
)
def test_addresses_that_are_fine(url: str) -> None:
    HttpTransport(url).close()


def test_an_ipv6_address_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def lookup(host: str, port: int, *kinds: object, **more: object) -> Never:
        asked.append((host, port))
        raise OSError("not today")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    transport = HttpTransport("http://[::1]")
    with pytest.raises(TransportError, match="not today"):
        transport.exchange(b"a frame", timeout_s=WAIT_S)
    assert asked == [("::1", 80)]
    assert "Host: [::1]\r\n" in transport._fields
    transport.close()


def test_plaintext_to_others_can_be_permitted() -> None:
    HttpTransport("http://192.0.2.1", allow_plaintext=True).close()


# the server


class Named(EdgeService):
    """Notes who asked."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.peers: list[str] = []

    async def handle_async(self, frame: bytes, *, peer: str, received_s: float | None = None) -> bytes:
        assert received_s is not None
        assert received_s <= self.clock()
        self.peers.append(peer)
        return await super().handle_async(frame, peer=peer, received_s=received_s)


@pytest.fixture
def service() -> Iterator[Named]:
    with Named([PIPELINE]) as made:
        yield made


def device_on(transport: HttpTransport, pipeline: TaskPipeline = PIPELINE, **more: Any) -> Device:
    return Device(pipeline, transport, policy=Fixed(1), profile=profile_of(pipeline), cache=False, **more)


def asked(port: int, method: str, path: str, body: Any = None, headers: Any = None, **more: Any) -> tuple[Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request(method, path, body, headers or {}, **more)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@needs_server
def test_a_device_and_an_edge_over_kept_connections(served: Any, service: Named) -> None:
    server = served(asgi(service))
    with device_on(HttpTransport(f"http://127.0.0.1:{server.port}")) as device:
        for x in range(50):
            outcome = device.run(x)
            assert (outcome.value, outcome.source, outcome.exact) == (PIPELINE.run(x), "edge", True)
    assert len(server.clients) <= 2  # one a worker
    assert set(service.peers) == {"anonymous@127.0.0.1"}
    assert service.counters.requests == 50
    assert service.counters.duplicates == 0


@needs_server
@pytest.mark.parametrize("cut", range(4))
def test_a_stream_of_many_at_once(served: Any, service: Named, cut: int) -> None:
    server = served(asgi(service))
    transport = HttpTransport(f"http://127.0.0.1:{server.port}")
    with Device(
        PIPELINE, transport, policy=Fixed(cut), profile=profile_of(PIPELINE), cache=False, patience_s=WAIT_S
    ) as device:
        outcomes = list(device.map(range(40), window=4))
        assert [(o.index, o.value, o.exact) for o in outcomes] == [(x, PIPELINE.run(x), True) for x in range(40)]
        assert {o.source for o in outcomes} == {"local" if cut == 3 else "edge"}
        for outcome in device.map(range(40), window=4):
            if outcome.index == 2:
                break
        assert device.run(9).value == PIPELINE.run(9)
    assert service.counters.duplicates == 0


@needs_server
def test_a_stream_whose_tail_remembers(served: Any) -> None:
    """The server has threads, and the requests several connections: still one after another, in order."""
    order: list[int] = []

    def add(total: list[int], x: int) -> int:
        time.sleep(0.003)  # noqa: TID251 (a slow step)
        order.append(x)
        total[0] += x
        return total[0]

    note = task(add, tier="edge", state="own", resource=lambda: contextlib.nullcontext([0]))
    pipeline = tasks([add_one, note, double])
    with Named([pipeline], workers=4, inline_s=0.0) as service:
        server = served(asgi(service))
        with device_on(HttpTransport(f"http://127.0.0.1:{server.port}"), pipeline) as device:
            outcomes = list(device.map(range(30), window=5))
    assert order == list(range(1, 31))
    assert [outcome.unwrap() for outcome in outcomes] == [x * (x + 1) for x in range(1, 31)]


@needs_server
def test_tokens_say_who_it_is(served: Any, service: Named) -> None:
    server = served(asgi(service, tokens={"s3cret": "camera-1", "other": "camera-2"}))
    for token, name in (("s3cret", "camera-1"), ("other", "camera-2")):
        with client(server.port, token=token) as transport:
            assert isinstance(read(transport.exchange(PROBE, timeout_s=WAIT_S)), wire.Echo)
        assert service.peers[-1] == name
    for token in (None, "S3CRET", "s3cret2", "s3cre"):
        with client(server.port, token=token) as transport:
            with pytest.raises(AuthenticationError, match="401"):
                transport.exchange(PROBE, timeout_s=WAIT_S)
            transport.send(PROBE, timeout_s=WAIT_S)
            with pytest.raises(AuthenticationError) as caught:
                transport.receive(timeout_s=WAIT_S)
            assert caught.value.frame == PROBE
    for scheme in ("Basic s3cret", "s3cret", "bearer  s3cret"):
        response, _ = asked(server.port, "POST", PATH, PROBE, {"Authorization": scheme})
        assert (response.status, response.getheader("WWW-Authenticate")) == (401, "Bearer")
    assert len(service.peers) == 2


@needs_server
def test_a_device_with_a_wrong_token_begins_alone_and_says_why(served: Any, service: Named) -> None:
    server = served(asgi(service, tokens={"right": "me"}))
    transport = HttpTransport(f"http://127.0.0.1:{server.port}", token="wrong")
    with device_on(transport, parts=[(0, 1)]) as device:
        outcome = device.run(1)
    assert "401" in str(outcome.error)
    assert service.peers == []


@needs_server
def test_what_is_too_large_is_refused_before_it_is_read(served: Any) -> None:
    with Named([PIPELINE], limits=Limits(max_frame_bytes=1000)) as service:
        server = served(asgi(service, tokens={"t": "me"}))
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw:
            raw.sendall(
                b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: 999999999\r\n\r\n"
                % PATH.encode()
            )
            assert raw.recv(100).startswith(b"HTTP/1.1 413")  # of a body of which nothing was sent
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw:
            raw.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n" % PATH.encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 401")  # nor of one without a credential
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw:
            raw.sendall(
                b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nTransfer-Encoding: chunked\r\n\r\n"
                % PATH.encode()
            )
            raw.sendall(b"400\r\n" + bytes(1024) + b"\r\n")  # the end never comes
            assert raw.recv(100).startswith(b"HTTP/1.1 413")
        assert service.peers == []


@needs_server
def test_people_who_come_with_a_browser(served: Any, service: Named) -> None:
    server = served(asgi(service))
    response, body = asked(server.port, "GET", PATH)
    assert (response.status, response.getheader("Allow")) == (405, "POST")
    assert b"splitiot" in body
    assert asked(server.port, "GET", "/")[0].status == 404
    response, body = asked(server.port, "POST", PATH, b"hello?")
    assert response.status == 200
    assert read(body).code == "bad-frame"
    assert asked(server.port, "POST", PATH, iter([PROBE[:5], PROBE[5:]]), encode_chunked=True)[0].status == 200


@needs_server
@pytest.mark.parametrize("url", ["/splitiot/v1", "/splitiot/v1/", ""])
def test_mounted_in_an_application_of_ones_own(served: Any, service: Named, url: str) -> None:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def home(request: Any) -> Any:
        return PlainTextResponse("mine")

    app = Starlette(routes=[Route("/", home), Mount("/splitiot/v1", app=asgi(service, path="/"))])
    server = served(app)
    with device_on(HttpTransport(f"http://127.0.0.1:{server.port}{url}")) as device:
        for x in range(5):
            outcome = device.run(x)
            assert (outcome.value, outcome.source) == (PIPELINE.run(x), "edge")
    assert asked(server.port, "GET", "/")[1] == b"mine"
    assert service.counters.duplicates == 0
    assert len(server.clients) <= 3


@needs_server
def test_a_client_that_hangs_up_harms_nobody(served: Any, service: Named) -> None:
    server = served(asgi(service))
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nhalf" % PATH.encode())
    with client(server.port) as transport:
        assert isinstance(read(transport.exchange(PROBE, timeout_s=WAIT_S)), wire.Echo)
        answer = transport.exchange(request_of(PIPELINE, 1, 21), timeout_s=WAIT_S)
    assert isinstance(read(answer), wire.Reply)


def test_open_servers_want_encryption_and_tokens(service: Named) -> None:
    with pytest.raises(ValueError, match="without encryption"):
        serve(service, host="0.0.0.0")
    with pytest.raises(ValueError, match="tokens"):
        serve(service, host="0.0.0.0", allow_plaintext=True)
    with pytest.raises(ValueError, match="tokens"):
        serve(service, host="edge.example", certfile="x")


@needs_server
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_encrypted(served: Any, service: Named, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    server = served(asgi(service, tokens={"t": "me"}), ssl_certfile=str(cert), ssl_keyfile=str(key))
    context = ssl.create_default_context(cafile=str(cert))
    transport = HttpTransport(f"https://localhost:{server.port}", token="t", ssl_context=context)
    with device_on(transport) as device:
        for x in range(5):
            outcome = device.run(x)
            assert (outcome.value, outcome.source) == (PIPELINE.run(x), "edge")
    distrusting = HttpTransport(f"https://localhost:{server.port}", token="t")
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
        distrusting.exchange(PROBE, timeout_s=WAIT_S)
    distrusting.close()


# in processes of their own

EDGE = """
import os, sys
import splitiot as si
from splitiot.adapters.http import serve

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def add_one(x):
    return x + 1

def double(x):
    say("began", x)
    if x == 100 and sys.argv[2] == "hang":
        sys.stdin.read()  # never comes
    say("did", x)
    return x * 2

def minus_three(x):
    return x - 3

service = si.EdgeService([si.tasks([add_one, double, minus_three])])
serve(service, port=int(sys.argv[1]), ready=lambda port: say("port", port))
say("ended")
"""


class Child:
    """An edge in a process of its own, that tells line by line what it does."""

    def __init__(self, port: int = 0, how: str = "work") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", EDGE, str(port), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        word, port_told = self.line().split()
        assert word == "port"
        self.port = int(port_told)

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, f"the edge ended with {self.process.wait(WAIT_S)}"
        self.lines.append(line)
        return line

    def kill(self, how: int = signal.SIGKILL) -> int:
        self.process.send_signal(how)
        out, _ = self.process.communicate(timeout=WAIT_S)
        self.lines += out.split("\n")
        return self.process.returncode


@needs_server
def test_an_edge_killed_in_the_middle_of_a_request() -> None:
    heads: list[int] = []

    def add_one_here(x: int) -> int:
        heads.append(x)
        return add_one(x)  # type: ignore[no-any-return]

    add_one_here.__name__ = "add_one"
    pipeline = tasks([add_one_here, double, minus_three])
    clock = Clock()
    first = Child(how="hang")
    transport = HttpTransport(f"http://127.0.0.1:{first.port}")
    second = None
    # the device's clock stands still: what ends the request is the death of the edge, not a deadline
    device = Device(
        pipeline, transport, policy=Fixed(1), profile=profile_of(pipeline), cache=False, clock=clock, connect_s=5.0
    )
    try:
        with device:
            assert device.run(1).source == "edge"
            heads.clear()
            got: list[Any] = []
            running = threading.Thread(target=lambda: got.append(device.run(99)), daemon=True)
            running.start()
            while first.line() != "began 100":
                pass
            assert first.kill() == -signal.SIGKILL
            running.join(WAIT_S)
            (outcome,) = got
            assert (outcome.value, outcome.source, outcome.exact) == (197, "fallback", True)
            assert heads == [99]  # the payload was kept
            assert device.run(2).source == "local"
            second = Child(first.port)
            for _ in range(10):
                clock.now_s += 5  # it says hello again
                device.run(3)
                if device.connect():
                    break
            outcome = device.run(4)
            assert (outcome.value, outcome.source, outcome.exact) == (7, "edge", True)
    finally:
        for child in (first, second):
            if child is not None and child.process.poll() is None:
                child.kill()
            if child is not None and child.process.stdin is not None:
                child.process.stdin.close()
    assert second is not None
    assert not any(line.endswith(" 100") for line in second.lines)  # not computed again
    assert "did 100" not in first.lines
    assert len([line for line in second.lines if line == "did 5"]) == 1


@needs_server
def test_serve_ends_when_it_is_told_to() -> None:
    child = Child()
    with client(child.port) as transport:
        assert isinstance(read(transport.exchange(PROBE, timeout_s=WAIT_S)), wire.Echo)
    child.kill(signal.SIGINT)
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.process.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT, 1)
