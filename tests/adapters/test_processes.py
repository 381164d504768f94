"""One edge of several processes, several devices of one name, and what a header may say: real servers, real sockets."""

from __future__ import annotations

import collections
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from splitiot import wire
from splitiot.adapters.http import PATH, HttpTransport, asgi, serve
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import RemoteError
from splitiot.functions import TaskPipeline
from splitiot.limits import Limits
from splitiot.plan import Outcome
from splitiot.policies import Fixed
from tests.adapters import several
from tests.served import Served
from tests.session.support import boot_of, numbers, profile_of, read, request_of
from tests.share import FULL

pytestmark = [pytest.mark.network, pytest.mark.extra("http")]

WAIT_S = 60.0
REQUESTS = 1000 if FULL else 100
APP = "tests.adapters.several:app"
SERVERS = {
    "uvicorn": [sys.executable, "-m", "uvicorn", APP, "--workers", "2", "--port", "{port}", "--log-level", "error"],
    "gunicorn": [
        *[sys.executable, "-m", "gunicorn", APP, "-w", "3", "-b", "127.0.0.1:{port}", "--log-level", "error"],
        *["-k", "uvicorn_worker.UvicornWorker"],
    ],
}
NEEDS = {"uvicorn": ("uvicorn",), "gunicorn": ("gunicorn", "uvicorn_worker")}
CODES = ("state-lost", "bad-order")
"""How an edge says that it does not have what a request goes on with."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(params=SERVERS)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Several processes at one port."""
    for module in NEEDS[request.param]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    chosen = free_port()
    words = [word.format(port=chosen) for word in SERVERS[request.param]]
    root = Path(__file__).parents[2]
    server = subprocess.Popen(words, cwd=root, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    try:
        began_s = time.monotonic()
        while len(pids(chosen)) < 2:
            assert server.poll() is None
            assert time.monotonic() - began_s < WAIT_S, "the workers do not come"
        yield chosen
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(WAIT_S)


def pids(port: int) -> set[bytes]:
    """Ask some times, each on a connection of its own, which process answers."""
    found = set()
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/pid")
            found.add(connection.getresponse().read())
        except OSError:
            time.sleep(0.05)  # noqa: TID251 (a worker is being replaced; the next of 20 tries)
        finally:
            connection.close()
    return found


class Fresh(HttpTransport):
    """A connection of its own for each frame: whichever process takes it answers."""

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        answer = super().exchange(request, timeout_s=timeout_s)
        with self._idle_lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        return answer


def device_of(pipeline: TaskPipeline, port: int, cut: int, *, kept: bool = False, **more: Any) -> Device:
    transport = (HttpTransport if kept else Fresh)(f"http://127.0.0.1:{port}", workers=2)
    return Device(pipeline, transport, policy=Fixed(cut), profile=profile_of(pipeline), cache=False, **more)


@pytest.mark.parametrize("exact", [False, True])
def test_stateless_pipelines_do_not_care_which_process_answers(port: int, exact: bool) -> None:
    boots = set()
    with device_of(several.STATELESS, port, 1, exact=exact) as device:
        for x in range(REQUESTS):
            outcome = device.run(x)
            assert (outcome.value, outcome.exact) == (several.STATELESS.run(x), True)
            boots.add(outcome.source)
        assert device._session.exact
        assert len(device._session._handshake._edge_boots) > 1, "only one process answered"
        assert device.counters.fallbacks == 0
    assert boots == {"edge"}


@pytest.mark.parametrize("name", ["own", "shared", "pinned"])
def test_what_remembers_is_right_or_says_that_it_is_lost(port: int, name: str) -> None:
    """Sums of what came since the last reset: a value from another process's state would be a wrong one."""
    pipeline, cut = several.REMEMBERING[name]
    ends: collections.Counter[str] = collections.Counter()
    with device_of(pipeline, port, cut) as device:
        total = 0
        for x in range(1, REQUESTS + 1):
            outcome = device.run(x)
            total += x
            if outcome.ok:
                assert outcome.value == total
                ends["right"] += 1
            else:
                assert code_of(outcome) in CODES, outcome.error
                ends["lost"] += 1
                device.reset()
                total = 0
    assert ends["right"] > REQUESTS / 20
    assert ends["lost"] > REQUESTS / 20, "only one process answered"


def test_on_a_kept_connection_a_state_stays(port: int) -> None:
    pipeline, cut = several.REMEMBERING["pinned"]
    with device_of(pipeline, port, cut, kept=True) as device:
        outcomes = [device.run(1) for _ in range(20)]
    right = [outcome.value for outcome in outcomes if outcome.ok]
    assert right == list(range(1, len(right) + 1))
    assert len(right) > 0


def code_of(outcome: Outcome) -> str:
    assert isinstance(outcome.error, RemoteError), outcome
    return outcome.error.code


# an edge that starts anew


def test_a_pinned_task_that_lost_its_state_says_so_until_a_reset(served: Callable[..., Served]) -> None:
    pipeline, cut = several.REMEMBERING["pinned"]
    services = [EdgeService([pipeline]) for _ in range(2)]
    current = [asgi(services[0])]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await current[0](scope, receive, send)

    server = served(app)
    with device_of(pipeline, server.port, cut, kept=True) as device:
        assert [device.run(x).value for x in (1, 2, 3)] == [1, 3, 6]
        current[0] = asgi(services[1])  # the edge starts anew, behind the same address
        for _ in range(3):
            outcome = device.run(4)
            assert code_of(outcome) == "state-lost"
            assert "reset()" in str(outcome.error)
        device.reset()
        assert [device.run(x).value for x in (5, 6)] == [5, 11]


# one name


DEVICES = 20


@pytest.mark.parametrize("name", ["stateless", "own", "pinned"])
@pytest.mark.parametrize("names", [1, DEVICES])
def test_twenty_devices_at_once(served: Callable[..., Served], name: str, names: int) -> None:
    """Of one name, as behind one address without tokens, and of twenty."""
    pipeline, cut = several.REMEMBERING.get(name, (several.STATELESS, 1))
    tokens = None if names == 1 else {f"token-{k}": f"device {k}" for k in range(DEVICES)}
    service = EdgeService([pipeline], limits=Limits(max_in_flight=64))
    server = served(asgi(service, tokens=tokens))
    each = REQUESTS if names == 1 else 50
    wrong: list[Any] = []
    counts: collections.Counter[str] = collections.Counter()

    def work(number: int) -> None:
        token = None if tokens is None else f"token-{number}"
        transport = HttpTransport(f"http://127.0.0.1:{server.port}", token=token, workers=1)
        total = 0
        with Device(
            pipeline, transport, policy=Fixed(cut), profile=profile_of(pipeline), cache=False, patience_s=WAIT_S
        ) as device:
            for index in range(each):
                x = 1000 * number + index
                outcome = device.run(x)
                total += x
                wanted = total if name in several.REMEMBERING else several.STATELESS.run(x)
                if outcome.value != wanted:
                    wrong.append((number, index, outcome))
                    return
                counts[outcome.source] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(DEVICES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert counts["edge"] > 0.99 * counts.total()
    assert service.counters.full == 0
    hellos = sum(peer.greeted for peer in service._session._peers._peers.values())
    assert hellos == DEVICES, "each said hello, and none was thrown out"


# an address is no identity


def forwarded(port: int, frame: bytes, address: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("POST", PATH, frame, {"X-Forwarded-For": address})
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.fixture
def serving() -> Iterator[Callable[..., tuple[int, list[str]]]]:
    """`serve` in a process of its own would do; in a thread its peers can be looked at."""
    import uvicorn

    servers: list[Any] = []
    threads: list[threading.Thread] = []
    real = uvicorn.Server.__init__

    def noted(self: Any, config: Any) -> None:
        real(self, config)
        servers.append(self)

    def make(**options: Any) -> tuple[int, list[str]]:
        peers: list[str] = []
        service = EdgeService([numbers()])
        handle = service.handle_async

        async def handled(frame: bytes, *, peer: str, **more: Any) -> bytes:
            peers.append(peer)
            return await handle(frame, peer=peer, **more)

        service.handle_async = handled  # type: ignore[method-assign]
        ready = threading.Event()
        ports: list[int] = []

        def told(port: int) -> None:
            ports.append(port)
            ready.set()

        options |= {"port": 0, "ready": told}
        thread = threading.Thread(target=serve, args=(service,), kwargs=options, daemon=True)
        thread.start()
        threads.append(thread)
        assert ready.wait(WAIT_S)
        return ports[0], peers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "__init__", noted)
        yield make
    for server in servers:
        server.should_exit = True
    for thread in threads:
        thread.join(WAIT_S)


def test_a_header_makes_nobody_another_device(serving: Any) -> None:
    port, peers = serving()
    frame = request_of(numbers(), 1, 21)
    forwarded(port, frame, "10.0.0.66")
    assert peers == ["anonymous@127.0.0.1"]


def test_a_proxy_that_is_trusted_says_whose_request_it_is(serving: Any) -> None:
    port, peers = serving(proxies=["127.0.0.0/8", "::1"])
    forwarded(port, request_of(numbers(), 1, 21), "10.0.0.66")
    assert peers == ["anonymous@10.0.0.66"]
    port, peers = serving(proxies=["10.0.0.1"])
    forwarded(port, request_of(numbers(), 1, 21), "10.0.0.66")
    assert peers == ["anonymous@127.0.0.1"]


@pytest.mark.parametrize(
    ("proxies", "words"),
    [("10.0.0.1", r"give \['10.0.0.1'\]"), (["*"], "no address"), (["proxy.example"], "no address")],
)
def test_proxies_are_named(proxies: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        serve(EdgeService([numbers()]), proxies=proxies)


def test_who_has_a_device_s_name_has_not_its_answers(served: Callable[..., Served]) -> None:
    """Even where the address is that of another: its boot stands on no other wire."""
    service = EdgeService([numbers()])
    server = served(asgi(service), proxy_headers=True, forwarded_allow_ips="127.0.0.1")  # of somebody's own
    victim = request_of(numbers(), 1, 21, boot=boot_of(2**100 + 7))
    assert isinstance(read(forwarded(server.port, victim, "10.0.0.1")), wire.Reply)
    for guess in range(200):
        frame = request_of(numbers(), 1, 5, boot=boot_of(guess))
        reply, buffers = wire.decode(forwarded(server.port, frame, "10.0.0.1"))
        assert isinstance(reply, wire.Reply)
        assert wire.unpack(reply, buffers) == 7, "its own value"
    assert service.counters.duplicates == 0
