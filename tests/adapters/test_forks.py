"""A device made before a fork, over real sockets: parent and children ask one edge at the same time."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import splitiot as si
from splitiot.adapters.http import HttpTransport, asgi
from tests.cli.helpers import serving
from tests.forks import FORKS, WAIT_S, Child, forked, script
from tests.served import Served

pytestmark = [pytest.mark.extra("http"), pytest.mark.network, FORKS]

PIPELINE = '''
import splitiot as si


def double(x):
    return 2 * x


def increment(x):
    return x + 1


pipeline = si.tasks([double, increment])
'''


def double(x: int) -> int:
    return 2 * x


def increment(x: int) -> int:
    return x + 1


pipeline = si.tasks([double, increment])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An edge in a process of its own."""
    app = tmp_path_factory.mktemp("edge") / "app.py"
    app.write_text(PIPELINE)
    with serving(app, "--no-profile") as (url, _):
        yield url


@pytest.fixture(params=["used", "new"])
def device(url: str, request: pytest.FixtureRequest) -> Iterator[si.Device]:
    """A device as a server preloads it: just made, or at work already, with kept connections and threads."""
    device = si.Device(pipeline, HttpTransport(url), policy=si.Fixed(1), sample=1, connect_s=20.0)
    if request.param == "used":
        for outcome in device.map(range(20)):
            assert outcome.source == "edge"
    yield device
    device.close()


def wrong(device: si.Device, values: Iterable[int], streamed: bool = False) -> list[Any]:
    """Run values, which no other process runs; return what is wrong of what they gave."""
    values = list(values)
    outcomes = list(device.map(values) if streamed else map(device.run, values))
    found: list[Any] = [
        [value, outcome.value, outcome.source, repr(outcome.error)]
        for value, outcome in zip(values, outcomes, strict=True)
        if (outcome.value, outcome.exact) != (2 * value + 1, True)
    ]
    sources = [outcome.source for outcome in outcomes]
    if sources.count("edge") < 0.5 * len(values):  # a machine that has much to do may lose its edge for a moment
        found.append(f"only {sources.count('edge')} of {len(values)} are the edge's: {set(sources)}")
    return found


@pytest.mark.parametrize("streamed", [False, True])
def test_a_thousand_requests_of_parent_and_children(device: si.Device, streamed: bool) -> None:
    children = [Child(wrong, device, range(1000 * k, 1000 * k + 250), streamed) for k in (1, 2, 3)]
    here = wrong(device, range(250), streamed)
    assert [here, *(child.result() for child in children)] == [[], [], [], []]


def test_forks_while_threads_are_at_work(device: si.Device) -> None:
    """At the moment of each fork locks are held, requests and connections are under way, and a stream is read."""
    with ThreadPoolExecutor(1) as pool:
        here = pool.submit(wrong, device, range(400), True)
        children = []
        for k in range(1, 11):
            children.append(Child(wrong, device, range(1000 * k, 1000 * k + 60)))
            device.counters.requests  # noqa: B018
        found = [child.result() for child in children]
        assert [here.result(), *found] == [[]] * 11


_inherited: si.Device | None = None


def _pooled(values: list[int]) -> list[list[Any]]:
    assert _inherited is not None
    return wrong(_inherited, values)


def test_a_pool_of_processes(device: si.Device) -> None:
    global _inherited
    _inherited = device
    values = [list(range(20 * k, 20 * k + 20)) for k in range(1, 51)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(3) as pool:
            answers = pool.map_async(_pooled, values, chunksize=1)
            assert wrong(device, range(20)) == []
            assert [found for found in answers.get(WAIT_S) if found] == []


NATIVE = """
import ctypes, sys
import splitiot as si
from splitiot.adapters.http import HttpTransport
from tests.adapters.test_forks import pipeline, wrong
from tests.forks import Child

device = si.Device(pipeline, HttpTransport(sys.argv[1]), policy=si.Fixed(1), sample=1, connect_s=20.0)
children = [Child(wrong, device, range(1000 * k, 1000 * k + 100), by=ctypes.PyDLL(None).fork) for k in (1, 2)]
print(wrong(device, range(100)), *(child.result() for child in children))
device.close()
"""


def test_a_fork_that_python_was_not_told_of(url: str) -> None:
    """uWSGI, for one, forks in C, and tells Python only where it is asked to (in a process with one thread)."""
    assert script(NATIVE, url) == "[] [] []\n"


def test_a_child_ends_no_connection_of_its_parent(served: Callable[..., Served]) -> None:
    """Neither by closing the device, nor at its end; and the parent has no connection that a child holds open."""
    edge = served(asgi(si.EdgeService([pipeline])))
    with si.Device(pipeline, HttpTransport(f"http://127.0.0.1:{edge.port}"), policy=si.Fixed(1), sample=1) as device:
        assert wrong(device, range(5)) == []
        before = set(edge.clients)

        def child() -> list[list[Any]]:
            found = wrong(device, range(5, 10))
            device.close()
            return found

        assert forked(child) == []
        theirs = edge.clients - before
        assert theirs
        assert wrong(device, range(10, 20)) == []
        assert edge.clients - before == theirs


def test_descriptors_of_the_parent_are_closed(device: si.Device) -> None:
    def sockets() -> int:
        return sum("socket:" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is(fd))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list a process's descriptors")
    assert wrong(device, range(5)) == []
    inherited = sockets()
    assert inherited >= 1
    assert forked(sockets) < inherited


def _is(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")
