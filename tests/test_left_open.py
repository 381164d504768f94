"""What nobody closes: resources of services that were mounted, of what was dropped, and of a process that ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import splitiot as si
from tests.cli.helpers import environment
from tests.served import Served

SERVICE = """
import contextlib, pathlib, sys
import splitiot as si

@contextlib.contextmanager
def camera():
    pathlib.Path(sys.argv[1], "opened").touch()
    try:
        yield 10
    finally:
        pathlib.Path(sys.argv[1], "closed").touch()

def add(held, x):
    return held + x

pipeline = si.tasks([si.task(add, resource=camera)])
service = si.EdgeService([pipeline])
"""

SCRIPT = SERVICE + "print(si.Runner(pipeline).run(0, 1, 5)[0])\n"

MOUNTED = (
    SERVICE
    + """
import uvicorn
from starlette.applications import Starlette
from splitiot.adapters.http import asgi, lifespan

if sys.argv[2] == "mounted":
    app = Starlette(lifespan=lifespan(service))
    app.mount("/splitiot/v1", asgi(service, path="/"))
else:
    app = asgi(service)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

Server(uvicorn.Config(app, port=0, log_config=None)).run()
"""
)


def add(held: int, x: int) -> int:
    return held + x


@contextmanager
def logged(log: list[str]) -> Iterator[int]:
    log.append("opened")
    yield 10
    log.append("closed")


def test_a_process_that_ends_leaves_what_its_tasks_hold(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("15\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"opened", "closed"}


def test_a_runner_that_is_dropped_leaves_what_its_tasks_hold() -> None:
    log: list[str] = []
    pipeline = si.tasks([si.task(add, resource=lambda: logged(log))])
    assert si.Runner(pipeline).run(0, 1, 5)[0] == 15
    gc.collect()
    assert log == ["opened", "closed"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_leave_what_its_parent_holds(tmp_path: Path) -> None:
    code = SERVICE + (
        "import os\n"
        "runner = si.Runner(pipeline)\n"
        "runner.run(0, 1, 5)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(pathlib.Path(sys.argv[1], 'closed').exists())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert ran.stdout == "False\n", ran.stderr
    assert (tmp_path / "closed").exists()


@pytest.mark.network
@pytest.mark.extra("http")
@pytest.mark.parametrize("how", ["mounted", "alone"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_ends_leaves_what_its_tasks_hold(tmp_path: Path, how: str, number: signal.Signals) -> None:
    command = [sys.executable, "-c", MOUNTED, str(tmp_path), how]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, server.communicate()[1]

        @contextmanager
        def camera() -> Iterator[int]:
            yield 10

        pipeline = si.tasks([si.task(add, resource=camera)])
        with si.Device(pipeline, si.HttpTransport(f"http://127.0.0.1:{line.strip()}"), sample=5, cache=False,
                       policy=si.Fixed(0)) as device:  # fmt: skip
            outcome = device.run(5)
        assert (outcome.value, outcome.source) == (15, "edge")
        assert (tmp_path / "opened").exists() and not (tmp_path / "closed").exists()
        server.send_signal(number)
        server.communicate(timeout=60)
        assert (tmp_path / "closed").exists()
    finally:
        server.kill()
        server.communicate()


@pytest.mark.network
@pytest.mark.extra("http")
def test_devices_that_are_dropped_leave_no_threads_and_no_sockets(served: Callable[..., Served]) -> None:
    from splitiot.adapters.http import asgi

    def double(x: int) -> int:
        return 2 * x

    pipeline = si.tasks([double])
    with si.EdgeService(pipeline) as service:
        url = f"http://127.0.0.1:{served(asgi(service)).port}"
        threads = threading.active_count()
        profile = si.TierProfile.from_steps(pipeline.digest, [1e-3], sent_bytes=[8, 0], returned_bytes=[8, 0])

        def use() -> None:
            device = si.Device(pipeline, si.HttpTransport(url), profile=profile, policy=si.Fixed(0), cache=False)
            assert device.run(4).source == "edge"

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            before = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
            for _ in range(20):
                use()
            gc.collect()
            for thread in threading.enumerate():
                if thread.name == "HttpTransport":
                    thread.join(10)
            assert threading.active_count() <= threads + 1  # one of the service may have begun
            if sys.platform == "linux":
                assert len(list(Path("/proc/self/fd").iterdir())) <= before + 25  # the server's ends of 20, at most
        told = [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]
        assert sum("HttpTransport was not closed" in words for words in told) == 20  # a socket may say so, too


def test_a_transport_that_is_closed_says_nothing() -> None:
    class Shout(si.RoundTrip):
        def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
            return request.upper()

    transport = Shout()
    transport.send(b"hello", timeout_s=1.0)
    assert transport.receive(timeout_s=10.0) == b"HELLO"
    transport.close()
    del transport
    gc.collect()
