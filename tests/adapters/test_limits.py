"""The edge's bounds over HTTP: the counting on its own, bodies on a virtual clock, and the server against attackers."""

from __future__ import annotations

import asyncio
import logging
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot import Limits, wire
from splitiot.adapters.http import PATH, HttpTransport
from splitiot.adapters.http._budget import Budget
from splitiot.adapters.http._endpoint import _Endpoint
from splitiot.adapters.http._gate import Connection, Gate
from splitiot.adapters.http._sparingly import Sparingly
from splitiot.adapters.http._turns import Turns
from splitiot.errors import AuthenticationError
from tests.cli.helpers import environment
from tests.session.support import boot_of, numbers, read, request_of

WAIT_S = 30.0
PIPELINE = numbers()
PROBE = wire.encode(wire.Probe(boot=boot_of(1), sequence=1))
ENDLESS = request_of(PIPELINE, 1, 666)


# the counting


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=60))
def test_a_budget_is_never_overdrawn_and_ends_empty(taken: list[tuple[int, int]]) -> None:
    budget = Budget(total=100, per_name=60)
    shares = [budget.share(name) for name in ("a", "a", "b", "c")]
    held = [0, 0, 0, 0]
    for which, more in taken:
        fits = sum(held) + more <= 100 and (held[0] + held[1] + more <= 60 or which > 1) and held[which] + more <= 60
        assert shares[which].take(more) == fits
        held[which] += more * fits
        assert budget.held == sum(held)
    for share in shares:
        share.release()
        share.release()
    assert (budget.held, budget._of_name) == (0, {})


def gate_of(total: int, each: int, *proxies: str) -> tuple[Gate, Callable[..., Connection | None], list[Connection]]:
    gate = Gate(max_connections=total, max_per_address=each, proxies=proxies)
    ended: list[Connection] = []

    def admit(address: str, *, proven: bool = False, idle_since_s: float | None = None) -> Connection | None:
        made = gate.admit(address)
        if made is not None:
            made.end = lambda: ended.append(made)
            made.idle_since_s = idle_since_s
            if proven:
                made.prove()
        return made

    return gate, admit, ended


def test_who_only_connects_pushes_out_who_only_connects() -> None:
    gate, admit, ended = gate_of(4, 4)
    honest = admit("10.0.0.1", proven=True)
    silent = [admit(f"10.0.1.{n}") for n in range(100)]
    assert ended == silent[:97]  # the oldest first
    assert honest in gate
    assert len(gate) == 4


def test_one_address_pushes_out_itself_only() -> None:
    gate, admit, ended = gate_of(8, 3)
    other = admit("10.0.0.2")
    many = [admit("10.0.0.1") for _ in range(9)]
    assert ended == many[:6]
    assert other in gate


def test_who_works_is_not_pushed_out() -> None:
    gate, admit, ended = gate_of(2, 2)
    at_work, idle = admit("a", proven=True), admit("b", proven=True, idle_since_s=5.0)
    assert admit("c", proven=True) is not None
    assert ended == [idle]
    assert admit("d") is None
    assert gate.turned_away == 2
    assert at_work in gate


def test_the_longest_idle_one_goes() -> None:
    _, admit, ended = gate_of(3, 3)
    idle = [admit("a", proven=True, idle_since_s=since_s) for since_s in (7.0, 3.0, 5.0)]
    admit("a", proven=True)
    assert ended == [idle[1]]


def test_a_network_of_ipv6_is_one_address() -> None:
    _, admit, ended = gate_of(8, 2)
    many = [admit(f"2001:db8::{n:x}") for n in range(5)]
    assert ended == many[:3]


def test_a_trusted_proxy_may_have_many() -> None:
    gate, admit, ended = gate_of(8, 2, "10.0.0.0/24")
    for _ in range(8):
        admit("10.0.0.9", proven=True)
    assert (len(gate), ended) == (8, [])
    assert [gate.begin_request("7.7.7.7") for _ in range(3)] == [True, True, False]
    assert gate.begin_request("8.8.8.8")
    gate.end_request("7.7.7.7")
    assert gate.begin_request("7.7.7.7")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=80))
def test_the_gate_counts_right(events: list[tuple[str, bool, bool]]) -> None:
    gate, admit, ended = gate_of(6, 3)
    alive: list[Connection] = []
    for address, proven, leaves in events:
        if leaves and alive:
            gate.leave(alive.pop(0))
        made = admit(address, proven=proven, idle_since_s=0.0)
        if made is not None:
            alive.append(made)
        alive = [each for each in alive if each not in ended]
        assert len(gate) == len(alive) <= 6
        assert all(sum(each.group == one for each in alive) <= 3 for one in "abc")
        assert all(each in gate for each in alive)
    for each in alive:
        gate.leave(each)
        gate.leave(each)
    assert (len(gate), gate._of_group) == (0, {})


def test_a_log_that_can_t_be_filled() -> None:
    now_s = 0.0
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("test")
    logger.addHandler(Lines())
    logger.addFilter(Sparingly(clock=lambda: now_s))
    for _ in range(2):
        for n in range(1000):
            logger.warning("attack %d", n)
        now_s += 60.0
    logger.error("something else")
    assert lines[:5] == [f"attack {n}" for n in range(5)]
    assert lines[5] == "attack 0 (995 more like this were not logged)"
    assert lines[-1] == "something else"
    assert len(lines) == 11


# bodies, on a virtual clock


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time goes on when there is nothing to do, and not otherwise."""

    def __init__(self) -> None:
        self.now_s = 0.0
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop.now_s += timeout or 0.0
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now_s


class Heard:
    """A service that notes what it was given."""

    def __init__(self, answer: bytes = b"answer", max_frame_bytes: int = 1000) -> None:
        self.answer, self.max_frame_bytes = answer, max_frame_bytes
        self.frames: list[tuple[bytes, str]] = []
        self.waits: asyncio.Event | None = None

    def clock(self) -> float:
        return 0.0

    async def handle_async(self, frame: bytes, *, peer: str, received_s: float) -> bytes:
        self.frames.append((frame, peer))
        if self.waits is not None:
            await self.waits.wait()
        return self.answer


Chunks = list[tuple[float, bytes]]
"""After how many seconds each what comes."""


class Asked:
    """One request to an endpoint."""

    def __init__(self, *headers: tuple[bytes, bytes], chunks: Chunks, ends: bool = True) -> None:
        self.scope = {"type": "http", "method": "POST", "headers": list(headers), "client": ("10.0.0.1", 1)}
        self.chunks, self.ends = list(chunks), ends
        self.sent: list[dict[str, Any]] = []
        self.taken = 0

    async def receive(self) -> dict[str, Any]:
        if not self.chunks:
            await asyncio.Event().wait()
        wait_s, chunk = self.chunks.pop(0)
        await asyncio.sleep(wait_s)
        self.taken += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": bool(self.chunks) or not self.ends}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]  # type: ignore[no-any-return]

    @property
    def closes(self) -> bool:
        return (b"connection", b"close") in self.sent[0]["headers"]


BEARER = (b"authorization", b"Bearer secret")
LONG = (b"content-length", b"900")
CHUNKED = (b"transfer-encoding", b"chunked")


def virtually(work: Callable[[VirtualLoop], Awaitable[None]]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work(loop))  # type: ignore[arg-type]
    finally:
        loop.close()


def ask(asked: Asked, service: Heard | None = None, **limits: Any) -> tuple[Heard, float]:
    service = service or Heard()
    seconds = 0.0

    async def work(loop: VirtualLoop) -> None:
        nonlocal seconds
        endpoint = _Endpoint(service, {"secret": "me"}, Limits(**limits))  # type: ignore[arg-type]
        await endpoint(asked.scope, asked.receive, asked.send)  # type: ignore[arg-type]
        seconds = loop.now_s
        assert endpoint._budget.held == 0

    virtually(work)
    return service, seconds


FAST = {"min_bytes_per_s": 10, "stall_s": 5, "body_timeout_s": 60}


def test_a_body_that_comes_in_time() -> None:
    asked = Asked(BEARER, LONG, chunks=[(4.0, bytes(50))] * 14)
    service, seconds = ask(asked, **FAST)
    assert (asked.status, seconds) == (200, 56.0)
    assert service.frames == [(bytes(700), "me")]


@pytest.mark.parametrize(
    ("chunks", "after_s"),
    [
        ([], 5.0),  # nothing at all
        ([(0.0, bytes(800))], 5.0),  # much, and then nothing: what it has sent gives it no time
        ([(1.0, b"x")] * 100, 5.0),  # a little each second
        ([(4.9, b"x")] * 100, 5.0),
        ([(4.0, bytes(50))] * 18, 60.0),  # always fast enough, but in all too long
    ],
)
def test_a_body_that_comes_too_slowly(chunks: Chunks, after_s: float) -> None:
    asked = Asked(BEARER, LONG, chunks=chunks, ends=False)
    service, seconds = ask(asked, **FAST)
    assert (asked.status, asked.closes, service.frames) == (408, True, [])
    assert after_s <= seconds <= after_s + 1.0  # with the second that is given to hear the answer


def test_bytes_that_are_held_have_a_bound_in_all_and_by_name() -> None:
    service = Heard()

    async def work(loop: VirtualLoop) -> None:
        service.waits = asyncio.Event()
        names = {"a": "ann", "b": "bob", "c": "cat"}
        limits = Limits(max_body_bytes=1000, max_body_bytes_per_name=600)
        endpoint = _Endpoint(service, names, limits)  # type: ignore[arg-type]

        def begin(token: bytes, n_bytes: int) -> tuple[Asked, asyncio.Task[None]]:
            asked = Asked((b"authorization", b"Bearer " + token), CHUNKED, chunks=[(0.0, bytes(n_bytes))])
            return asked, loop.create_task(endpoint(asked.scope, asked.receive, asked.send))  # type: ignore[arg-type]

        begun = [begin(b"a", 400), begin(b"a", 400), begin(b"b", 400), begin(b"c", 400), begin(b"c", 200)]
        await asyncio.sleep(3.0)
        assert [task.done() for _, task in begun] == [False, True, False, True, False]
        assert [begun[1][0].status, begun[3][0].status] == [503, 503]
        assert endpoint._budget.held == 1000
        service.waits.set()
        await asyncio.gather(*(task for _, task in begun))
        assert [begun[n][0].status for n in (0, 2, 4)] == [200, 200, 200]
        assert endpoint._budget.held == 0

    virtually(work)


@pytest.mark.parametrize("header", [CHUNKED, (b"content-length", b"%d" % (3 * 2**20 + 5))])
@pytest.mark.parametrize("chunk", [10**5, 2**20, 2**22])
def test_a_large_body_is_what_was_sent(header: tuple[bytes, bytes], chunk: int) -> None:
    body = bytes(range(256)) * (3 * 2**12) + b"end, "
    chunks = [(0.001, body[start : start + chunk]) for start in range(0, len(body), chunk)]
    asked = Asked(BEARER, header, chunks=chunks)
    service, _ = ask(asked, Heard(max_frame_bytes=2**22))
    assert asked.status == 200
    ((frame, _),) = service.frames
    assert bytes(frame) == body


@pytest.mark.parametrize(("sent", "status"), [(2**20 - 1, 400), (2**20 + 1, 413)])
def test_a_large_body_has_the_length_that_it_says(sent: int, status: int) -> None:
    """Some servers leave that to the application; memory that was never filled must not be taken for a frame."""
    asked = Asked(BEARER, (b"content-length", b"%d" % 2**20), chunks=[(0.0, bytes(sent))])
    service, _ = ask(asked, Heard(max_frame_bytes=2**22))
    assert (asked.status, service.frames) == (status, [])


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 131072, 1_000_001])
def test_a_large_answer_leaves_in_pieces(size: int) -> None:
    """What waits to be sent is one piece, whatever the answer's size: the server waits for room before the next."""
    answer = bytes(n % 251 for n in range(size))
    asked = Asked(BEARER, (b"content-length", b"3"), chunks=[(0.0, b"abc")])
    ask(asked, Heard(answer))
    pieces = asked.sent[1:]
    assert b"".join(piece["body"] for piece in pieces) == answer
    assert max(len(piece["body"]) for piece in pieces) <= 65536
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]


def test_others_have_turns_while_a_large_answer_leaves() -> None:
    """A peer that takes everything at once, so that the server never waits for it."""
    asked = Asked(BEARER, LONG, chunks=[(0.0, bytes(900))])
    turn, sent_at = 0, []

    async def send(message: dict[str, Any]) -> None:
        sent_at.append(turn)

    async def work(loop: VirtualLoop) -> None:
        nonlocal turn
        endpoint = _Endpoint(Heard(bytes(2**20)), {"secret": "me"}, Limits())  # type: ignore[arg-type]
        answering = loop.create_task(endpoint(asked.scope, asked.receive, send))  # type: ignore[arg-type]
        while not answering.done():
            await asyncio.sleep(0)
            turn += 1

    virtually(work)
    assert len(sent_at) == 17
    assert len(set(sent_at)) >= 15  # the head and two pieces leave at once: nobody had a turn before them


def test_what_has_no_room_is_refused_before_it_is_read() -> None:
    asked = Asked(BEARER, LONG, chunks=[], ends=False)
    service, seconds = ask(asked, max_body_bytes=899)
    assert (asked.status, service.frames) == (503, [])
    assert seconds <= 1.0


def test_large_bodies_take_turns() -> None:
    """In one turn of the loop one piece is read, however many bodies come."""
    turns = Turns()
    turn = 0
    taken: list[tuple[int, int]] = []

    async def reader(which: int) -> None:
        for _ in range(3):
            await turns.next()
            taken.append((turn, which))

    async def work(loop: VirtualLoop) -> None:
        nonlocal turn
        readers = [loop.create_task(reader(which)) for which in range(5)]
        cancelled = readers.pop(2)
        while not all(each.done() for each in readers):
            await asyncio.sleep(0)
            turn += 1
            if turn == 1:
                cancelled.cancel()
        assert [which for _, which in taken] == [0, 0, 1, 3, 4, 0, 1, 3, 4, 1, 3, 4]  # the first one need not wait
        at = [turn for turn, _ in taken]
        assert at == sorted(set(at))  # never two in one
        assert at[-1] <= 2 * len(at)

    virtually(work)


def test_a_flood_of_refusals_waits() -> None:
    ended_s: list[float] = []

    async def work(loop: VirtualLoop) -> None:
        endpoint = _Endpoint(Heard(), {"secret": "me"}, Limits())  # type: ignore[arg-type]

        async def refused() -> None:
            asked = Asked(chunks=[])
            await endpoint(asked.scope, asked.receive, asked.send)  # type: ignore[arg-type]
            assert asked.status == 401
            ended_s.append(loop.now_s)

        await asyncio.gather(*(refused() for _ in range(120)))
        served = Asked(BEARER, LONG, chunks=[(0.0, bytes(900))])
        begun_s = loop.now_s
        await endpoint(served.scope, served.receive, served.send)  # type: ignore[arg-type]
        assert (served.status, loop.now_s) == (200, begun_s)  # who has a token waits for none of them

    virtually(work)
    assert ended_s[49] == 0.0  # a few hear it at once
    assert ended_s[-1] == pytest.approx(0.7)
    assert sum(0.1 < each <= 0.2 for each in ended_s) <= 11


def test_what_is_refused_is_not_swallowed() -> None:
    asked = Asked(LONG, chunks=[(0.001, bytes(65536))] * 100_000)
    service, seconds = ask(asked)
    assert (asked.status, asked.closes, service.frames) == (401, True, [])
    assert asked.sent[-1] == {"type": "http.response.body", "body": b""}
    assert asked.taken <= 2**18
    assert seconds <= 1.0
    asked = Asked(LONG, chunks=[(0.1, b"x")] * 100_000)
    _, seconds = ask(asked)
    assert seconds <= 1.1


def test_nothing_is_awaited_of_a_request_without_a_body() -> None:
    asked = Asked(chunks=[])
    assert ask(asked)[1] == 0.0
    assert asked.status == 401


@pytest.mark.parametrize("second", [b"Bearer secret", b"Bearer other", b"Basic eA=="])
@pytest.mark.parametrize("order", [1, -1])
def test_two_credentials_are_none(second: bytes, order: int) -> None:
    asked = Asked(*[BEARER, (b"authorization", second)][::order], chunks=[(0.0, b"frame")])
    service, _ = ask(asked)
    assert (asked.status, service.frames) == (400, [])
    assert b"Authorization" in asked.sent[1]["body"]


@pytest.mark.extra("http")
def test_the_limits_of_the_service_hold_unless_others_are_given() -> None:
    from splitiot.adapters.http import asgi
    from splitiot.edge import EdgeService

    ours, others = Limits(max_body_bytes=7), Limits(max_body_bytes=8)
    with EdgeService([PIPELINE], limits=ours) as service:
        for given, held in ((None, ours), (others, others)):
            (route,) = asgi(service, limits=given).routes
            assert route.app._limits is held  # type: ignore[attr-defined]


# processes of their own

EDGE = """
import os, resource, sys, time
import splitiot as si
from splitiot.adapters.http import serve

def add_one(x):
    return x + 1

def double(x):
    while x == 666:
        time.sleep(0.01)
    return x * 2

def minus_three(x):
    return x - 3

import logging
logging.basicConfig(filename=sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
limits = si.Limits(**eval(sys.argv[3]))
service = si.EdgeService([si.tasks([add_one, double, minus_three])])
tokens, more = {"honest": "honest", "hostile": "hostile"}, eval(sys.argv[4])
serve(service, port=0, tokens=tokens, limits=limits, ready=lambda port: os.write(1, b"%d\\n" % port), **more)
"""


class Edge:
    """An edge in a process of its own."""

    def __init__(
        self, log: Path, *, files: int = 1024, server: Mapping[str, str] | None = None, **limits: Any
    ) -> None:
        self.log = log
        arguments = [str(log), str(files), repr(limits), repr(server or {})]
        self.process = subprocess.Popen([sys.executable, "-c", EDGE, *arguments], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S, source_address=(address, 0))

    def ends(self, how: int = signal.SIGTERM, *, within_s: float) -> None:
        began_s = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(WAIT_S)
        assert time.monotonic() - began_s <= within_s

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def edges(tmp_path: Path) -> Iterator[Callable[..., Edge]]:
    with ExitStack() as stack:

        def make(**more: Any) -> Edge:
            edge = Edge(tmp_path / "log", **more)
            stack.callback(edge.close)
            return edge

        yield make


def head(token: bytes, length: int, method: bytes = b"POST", path: bytes = PATH.encode()) -> bytes:
    words = b"%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    return words % (method, path, token, length)


@contextmanager
def honest(edge: Edge) -> Iterator[Callable[[], None]]:
    """A device that is served at once, again and again: on a kept connection, and on a new one."""
    kept = HttpTransport(f"http://127.0.0.1:{edge.port}", token="honest")

    def served() -> None:
        assert isinstance(read(kept.exchange(PROBE, timeout_s=WAIT_S)), wire.Echo)
        new = HttpTransport(f"http://127.0.0.1:{edge.port}", token="honest")
        assert isinstance(read(new.exchange(PROBE, timeout_s=WAIT_S)), wire.Echo)
        new.close()

    try:
        served()
        yield served
    finally:
        kept.close()


posix = pytest.mark.skipif(sys.platform == "win32", reason="open files are limited in another way")
process = [pytest.mark.network, pytest.mark.extra("http"), posix]


@pytest.mark.network
@pytest.mark.extra("http")
@posix
@pytest.mark.parametrize("addresses", [1, 50])
def test_silent_connections_keep_nobody_out(edges: Any, addresses: int) -> None:
    edge = edges(files=128)  # more connections than files
    with honest(edge) as served, ExitStack() as stack:
        for n in range(300):
            # only Linux has so many addresses without being asked to
            address = f"127.0.1.{1 + n % addresses}" if sys.platform == "linux" else "127.0.0.1"
            stack.enter_context(edge.connect(address))
            if n % 50 == 0:
                served()
        served()
        assert edge.log.stat().st_size < 100_000
        edge.ends(within_s=WAIT_S)


@pytest.mark.network
@pytest.mark.extra("http")
@posix
@pytest.mark.parametrize(
    ("said", "waits"),
    [
        (b"", {"header_timeout_s": 0.5}),
        (b"POST ", {"header_timeout_s": 0.5}),
        (head(b"honest", 1000)[:-2], {"header_timeout_s": 0.5}),
        (head(b"honest", 1000), {"stall_s": 0.5}),
        (head(b"honest", 1000) + bytes(500), {"stall_s": 0.5}),
        (head(b"wrong", 0), {"idle_timeout_s": 0.5}),
        (head(b"wrong", 0, path=b"/elsewhere"), {"idle_timeout_s": 0.5}),
        (head(b"wrong", 0, path=b"/elsewhere") + b"P", {"header_timeout_s": 0.5}),
        (head(b"wrong", 1000), {}),
        (head(b"wrong", 1000, path=b"/elsewhere"), {"idle_timeout_s": 0.5}),
    ],
)
def test_who_says_half_is_sent_away(edges: Any, said: bytes, waits: dict[str, float]) -> None:
    edge = edges(**waits)
    with edge.connect() as raw:
        raw.sendall(said)
        while raw.recv(4096):  # closed in the end: else the test's own time-out ends it
            pass


@pytest.mark.network
@pytest.mark.extra("http")
@posix
@pytest.mark.parametrize("path", [PATH.encode(), b"/elsewhere"])
def test_a_rejected_body_is_not_swallowed(edges: Any, path: bytes) -> None:
    edge = edges()
    sent = 0
    with edge.connect() as raw, suppress(ConnectionError):
        raw.sendall(head(b"wrong", 2**30, path=path))
        while sent < 2**28:
            sent += raw.send(bytes(2**16))
    assert sent < 2**25  # what the kernel's buffers hold, and a little


@pytest.mark.network
@pytest.mark.extra("http")
@posix
def test_who_is_refused_while_it_sends_hears_why(edges: Any) -> None:
    edge = edges()
    transport = HttpTransport(f"http://127.0.0.1:{edge.port}", token="wrong")
    for size in (10, 10**5, 2 * 10**5):
        with pytest.raises(AuthenticationError, match="bearer"):
            transport.exchange(bytes(size), timeout_s=WAIT_S)
    transport.close()


@pytest.mark.network
@pytest.mark.extra("http")
@posix
def test_who_breaks_http_fills_no_log(edges: Any) -> None:
    edge = edges()
    broken = [
        b"nonsense\r\n\r\n",
        b"\x00" * 1000,
        head(b"honest", 5)[:-2] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" % PATH.encode(),
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        head(b"honest", 3) + b"abc" + b"nonsense\r\n\r\n",
        head(b"wrong", 3) + b"abc" + b"nonsense\r\n\r\n",
    ]
    with honest(edge) as served:
        for said in broken * 30:
            with edge.connect() as raw:
                raw.sendall(said)
                raw.settimeout(0.05)
                with suppress(OSError):
                    raw.recv(4096)
        served()
    assert edge.log.stat().st_size < 50_000
    said = edge.log.read_text("utf-8")
    assert "Traceback" not in said, said


def big_request(sequence: int) -> bytes:
    """A request of 4 MiB, whose answer is as large."""
    frame = request_of(PIPELINE, 2, np.zeros(2**19), sequence=sequence)
    return head(b"hostile", len(frame)) + frame


@pytest.mark.network
@pytest.mark.extra("http")
@posix
def test_who_takes_no_answer_holds_a_bounded_part_for_a_bounded_time(edges: Any) -> None:
    edge = edges(max_body_bytes=2**24, max_body_bytes_per_name=2**23, min_bytes_per_s=2**20, stall_s=2.0)
    with honest(edge) as served, ExitStack() as stack:
        readers = [stack.enter_context(edge.connect()) for _ in range(4)]
        for n, raw in enumerate(readers):
            with suppress(ConnectionError):  # 503 before all was sent
                raw.sendall(big_request(n + 1))
            served()
        statuses = [status_of(raw) for raw in readers]
        assert statuses.count(b"200") >= 1  # the system's own buffers hold a part of each answer
        assert set(statuses) <= {b"200", b"503"}
        assert b"503" in statuses  # another answer would not fit into the share of this name
        sequence, until_s = 5, time.monotonic() + WAIT_S
        while time.monotonic() < until_s:  # who takes nothing is sent away, and what it held is free again
            served()
            with edge.connect() as raw:
                with suppress(ConnectionError):
                    raw.sendall(big_request(sequence))
                if status_of(raw) == b"200":
                    assert received(raw) > 4 * 2**20
                    break
            sequence += 1
        else:
            raise AssertionError("what unread answers hold is never free again")
        for raw, status in zip(readers, statuses, strict=True):
            assert status == b"503" or received(raw) < 4 * 2**20


def status_of(raw: socket.socket) -> bytes:
    """Return the status of an answer, and leave the rest of it where it is."""
    return raw.recv(12, socket.MSG_WAITALL)[9:]


def received(raw: socket.socket) -> int:
    """Count what comes until the end of an answer, or of its connection."""
    nbytes = 0
    with suppress(OSError):
        while nbytes < 4 * 2**20 and (data := raw.recv(2**16)):
            nbytes += len(data)
    return nbytes


HANGS: dict[str, bytes] = {
    "silent": b"",
    "half a head": head(b"honest", 1000)[:-2],
    "half a body": head(b"honest", 1000) + bytes(500),
    "a step": head(b"honest", len(ENDLESS)) + ENDLESS,
    "idle": head(b"honest", len(PROBE)) + PROBE,
    "a reader": big_request(1),
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    files = {"certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem")}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", files["keyfile"], "-out", files["certfile"]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def wrapped(raw: socket.socket, certificate: dict[str, str]) -> ssl.SSLSocket:
    return ssl.create_default_context(cafile=certificate["certfile"]).wrap_socket(raw, server_hostname="localhost")


def hello_of_tls() -> bytes:
    """What a client begins TLS with."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.network
@pytest.mark.extra("http")
@posix
@pytest.mark.parametrize("hangs", [*HANGS, "all of them"])
@pytest.mark.parametrize("times", [1, 2])
def test_it_ends_in_time_whatever_hangs(edges: Any, hangs: str, times: int) -> None:
    edge = edges(shutdown_s=1.0)
    with honest(edge), ExitStack() as stack:
        for said in HANGS.values() if hangs == "all of them" else [HANGS[hangs]]:
            stack.enter_context(edge.connect()).sendall(said)
        ends_in_time(edge, times)


@pytest.mark.network
@pytest.mark.extra("http")
@posix
@pytest.mark.parametrize("hangs", ["half a handshake", "half a body", "a reader"])
@pytest.mark.parametrize("times", [1, 2])
def test_it_ends_in_time_whatever_hangs_in_tls(
    edges: Any, certificate: dict[str, str], hangs: str, times: int
) -> None:
    edge = edges(shutdown_s=1.0, server=certificate)
    with edge.connect() as raw:
        if hangs == "half a handshake":
            raw.sendall(hello_of_tls()[:100])
            ends_in_time(edge, times)
        else:
            with wrapped(raw, certificate) as encrypted:
                encrypted.sendall(HANGS[hangs])
                ends_in_time(edge, times)


def ends_in_time(edge: Edge, times: int) -> None:
    time.sleep(0.2)  # noqa: TID251 (nothing tells that the edge has read what was sent)
    if times == 2:
        edge.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)  # noqa: TID251 (nothing tells that the first signal has come)
    edge.ends(within_s=3.0)  # a second, and what a busy machine takes to run it


@pytest.mark.network
@pytest.mark.extra("http")
@posix
@pytest.mark.parametrize("slowly", [False, True])
def test_slow_handshakes_are_sent_away_and_keep_nobody_out(
    edges: Any, certificate: dict[str, str], slowly: bool
) -> None:
    edge = edges(header_timeout_s=1.0, max_connections=40, max_connections_per_address=40, server=certificate)
    hello = hello_of_tls()
    began_s = time.monotonic()
    with ExitStack() as stack:
        hostile = [stack.enter_context(edge.connect()) for _ in range(60)]  # more than there is room for
        for raw in hostile:
            with suppress(OSError):
                raw.sendall(hello[:1] if slowly else hello[:-1])
        context = ssl.create_default_context(cafile=certificate["certfile"])
        transport = HttpTransport(f"https://localhost:{edge.port}", token="honest", ssl_context=context)
        stack.callback(transport.close)
        place = 1
        while (open_ones := [raw for raw in hostile if is_open(raw)]) and time.monotonic() - began_s < WAIT_S:
            if slowly:  # a byte now and then does not help
                for raw in open_ones:
                    with suppress(OSError):
                        raw.sendall(hello[place : place + 1])
                place += 1
            assert isinstance(read(transport.exchange(PROBE, timeout_s=WAIT_S)), wire.Echo)
            time.sleep(0.05)  # noqa: TID251 (a byte now and then)
        assert not open_ones
        assert isinstance(read(transport.exchange(PROBE, timeout_s=WAIT_S)), wire.Echo)
    assert edge.log.stat().st_size < 50_000


def is_open(raw: socket.socket) -> bool:
    raw.setblocking(False)
    try:
        return bool(raw.recv(4096))
    except BlockingIOError:
        return True
    except OSError:
        return False


NO_DELAY = """
import asyncio.base_events, os, socket, splitiot as si
from splitiot.adapters.http import serve

open_it = asyncio.base_events.BaseEventLoop.connect_accepted_socket

async def telling(self, make, accepted, **more):
    opened = await open_it(self, make, accepted, **more)
    os.write(1, b"%d\\n" % accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return opened

asyncio.base_events.BaseEventLoop.connect_accepted_socket = telling
def double(x): return 2 * x
serve(si.EdgeService(si.tasks([double])), port=0, ready=lambda port: os.write(1, b"%d\\n" % port))
"""


@pytest.mark.network
@pytest.mark.extra("http")
def test_small_answers_do_not_wait_for_acknowledgements() -> None:
    """Head and body are two writes: with Nagle's algorithm the second waited 40 ms for the first one's ACK."""
    server = subprocess.Popen([sys.executable, "-c", NO_DELAY], stdout=subprocess.PIPE, env=environment())
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"G")  # who says nothing gets no transport
            assert int(server.stdout.readline()) != 0
    finally:
        server.kill()
        server.communicate()
