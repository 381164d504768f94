"""Pre-forking servers: a device, or an edge, that gunicorn makes in its master before it forks the workers."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import splitiot as si
from splitiot import wire
from splitiot.adapters.http import HttpTransport
from tests.adapters.test_forks import pipeline, url
from tests.cli.helpers import environment
from tests.forks import FORKS, WAIT_S
from tests.waiting import eventually

pytest.importorskip("gunicorn", reason="needs gunicorn (tools/requirements/servers.txt)")
pytestmark = [pytest.mark.extra("http"), pytest.mark.network, FORKS]

__all__ = ["url"]  # a fixture

DEVICE = """
import json, os, threading
import splitiot as si
from splitiot.adapters.http import HttpTransport
from tests.adapters.test_forks import pipeline, wrong

device = si.Device(pipeline, HttpTransport({url!r}), policy=si.Fixed(1), sample=1, connect_s=20.0)
used = {used}
if used:
    assert wrong(device, range(-20, 0)) == []


def application(environ, start_response):
    x = int(environ["QUERY_STRING"])
    outcome = device.run(x)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), x, outcome.value, outcome.source, outcome.exact]).encode()]


def in_master():
    found = wrong(device, range(250))
    with open({told!r}, "w") as file:
        json.dump(found, file)


# in the configuration: called in the master, before the first worker is forked
def when_ready(server):
    if used:
        threading.Thread(target=in_master).start()
"""

EDGE = """
import splitiot as si
from tests.adapters.test_forks import pipeline

service = si.EdgeService([pipeline])


def application(environ, start_response):
    frame = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    answer = service.handle(frame, peer=environ["REMOTE_ADDR"])
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""


@contextmanager
def preforked(app: Path, *words: str) -> Iterator[str]:
    """Serve app.py:application with gunicorn; its address."""
    log, paths = app.with_suffix(".log"), [str(app.parent), str(Path(__file__).parents[2])]
    with socket.create_server(("127.0.0.1", 0)) as listening, open(log, "w") as file:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = ["--preload", "-w", "3", "-b", f"fd://{listening.fileno()}", *words, "app:application"]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *command],
            pass_fds=[listening.fileno()],
            stdout=file,
            stderr=file,
            env={**environment(), "PYTHONPATH": ":".join([*paths, environment()["PYTHONPATH"]])},
        )
    try:
        yield address
        server.send_signal(signal.SIGTERM)
        assert server.wait(WAIT_S) == 0, log.read_text()
    except OSError as error:
        raise AssertionError(log.read_text()) from error
    finally:
        server.kill()
        server.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


def asked(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=WAIT_S) as answer:
        return json.load(answer)


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_thousand_requests_of_a_master_and_three_workers(url: str, tmp_path: Path, used: bool, threads: str) -> None:
    """Used: the master runs requests before the workers are forked, while they are, and beside them."""
    app, told = tmp_path / "app.py", tmp_path / "told.json"
    app.write_text(DEVICE.format(url=url, used=used, told=str(told)))
    with preforked(app, "-c", "python:app", "--threads", threads) as address:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda x: asked(f"{address}/?{x}"), range(1000, 1750 if used else 2000)))
        if used:
            eventually(lambda: told.exists() and told.read_text())
    assert [answer for answer in found if (answer[2], answer[4]) != (2 * answer[1] + 1, True)] == []
    assert sum(answer[3] == "edge" for answer in found) > 0.5 * len(found)
    assert [answer[1] for answer in found] == list(range(1000, 1000 + len(found)))
    assert len({answer[0] for answer in found}) == 3, "not all workers were asked"
    assert not used or json.loads(told.read_text()) == []


def test_workers_are_edges_of_their_own(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(EDGE)
    with preforked(app) as address:
        boots = set()
        transport = HttpTransport(address)
        for sequence in range(1, 200):
            transport.send(wire.encode(wire.Probe(boot=_boot(), sequence=sequence)), timeout_s=WAIT_S)
            frame = transport.receive(timeout_s=WAIT_S)
            assert frame is not None
            boots.add(wire.decode(frame)[0].edge_boot)
        transport.close()
        assert len(boots) == 3
        devices = [si.Device(pipeline, HttpTransport(address), policy=si.Fixed(1), sample=1) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(_values, devices, [range(1000 * k, 1000 * k + 100) for k in range(4)])
            assert list(found) == [[2 * x + 1 for x in range(1000 * k, 1000 * k + 100)] for k in range(4)]


def _values(device: si.Device, values: range) -> list[Any]:
    with device:
        return [device.run(x).value for x in values]


def _boot() -> Any:
    return 5 if wire.Probe.__annotations__["boot"] == "int" else bytes(16)
