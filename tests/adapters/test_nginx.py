"""nginx between devices and an edge, set up as people have it: nothing is lost, nothing is wrong."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from splitiot import Outcome, wire
from splitiot.adapters.http import HttpTransport, asgi
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import FrameTooLarge, TransportError
from splitiot.functions import tasks
from splitiot.policies import Fixed
from tests.session.support import boot_of, profile_of
from tests.waiting import eventually

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.network,
    pytest.mark.extra("http"),
    pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light"),
]

WAIT_S = 30.0
REQUESTS = 200
MOST = 190  # are the edge's: a machine that has much to do may lose it for a moment
PROBE = wire.encode(wire.Probe(boot=boot_of(1), sequence=1))


Array: TypeAlias = NDArray[np.int32]


def doubled(data: Array) -> Array:
    return np.concatenate([data, data])


def backwards(data: Array) -> Array:
    return data[::-1].copy()


def right(outcome: Outcome, data: Array) -> bool:
    return outcome.error is None and outcome.exact and np.array_equal(outcome.value, PIPELINE.run(data))


PIPELINE = tasks([doubled, backwards])

CONF = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {server}
    }}
}}
"""


class Nginx:
    """A process of its own, with a configuration of its own."""

    def __init__(self, folder: Path, server: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        conf = folder / "nginx.conf"
        conf.write_text(CONF.format(folder=folder, port=self.port, server=server))
        assert NGINX is not None
        command = [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(conf)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._process.communicate()[1].decode()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S):
            return True
        return False

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=WAIT_S)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Any]:
    made: list[Nginx] = []

    def make(server: str) -> Nginx:
        made.append(Nginx(tmp_path, server))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def service() -> Iterator[EdgeService]:
    with EdgeService([PIPELINE]) as made:
        yield made


def device_at(url: str, **more: Any) -> Device:
    """It sends what it gets as it is."""
    transport = HttpTransport(url, token="s3cret-token", **more)
    return Device(
        PIPELINE, transport, policy=Fixed(0), profile=profile_of(PIPELINE), cache=False, connect_s=WAIT_S
    )


def inputs() -> list[Array]:
    return [np.arange(x, x + 1 + 37 * x % 4000, dtype=np.int32) for x in range(REQUESTS)]


def wrong(device: Device, *, window: int = 1, pause_s: float = 0.0, pause_each: int = 0) -> tuple[list[Any], list[str]]:
    """Run many requests; return what is wrong of their values, and where they were computed."""
    given = inputs()

    def paused() -> Iterator[Array]:
        for x, data in enumerate(given):
            if pause_each and x % pause_each == pause_each - 1:
                time.sleep(pause_s)  # noqa: TID251 (nginx closes what is idle meanwhile)
            yield data

    outcomes = list(device.map(paused(), window=window) if window > 1 else map(device.run, paused()))
    bad = [outcome for data, outcome in zip(given, outcomes, strict=True) if not right(outcome, data)]
    return bad, [outcome.source for outcome in outcomes]


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("path", ["/site", "/site/", "/site/splitiot/v1", "/site/splitiot/v1/"])
def test_behind_a_prefix(served: Any, nginx: Any, service: EdgeService, path: str, window: int) -> None:
    """The proxy takes /site away; the edge is mounted, so that its framework redirects to the path with the slash."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    server = served(Starlette(routes=[Mount("/splitiot/v1", app=asgi(service, path="/"))]))
    proxy = nginx(
        f"location /site/ {{ proxy_pass http://127.0.0.1:{server.port}/; proxy_set_header Host $host; }}"
        if "splitiot" in path
        else f"location /site {{ proxy_pass http://127.0.0.1:{server.port}/splitiot/v1; proxy_set_header Host $host; }}"
    )
    with device_at(proxy.url + path) as device:
        bad, sources = wrong(device, window=window)
    assert bad == []
    assert sources.count("edge") >= MOST
    assert service.counters.duplicates == 0


def test_a_limit_of_one_megabyte(served: Any, nginx: Any, service: EdgeService) -> None:
    """The default of nginx: what is larger is computed here, what is smaller goes on crossing."""
    server = served(asgi(service))
    proxy = nginx(f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}")
    transport = HttpTransport(proxy.url)
    for _ in range(3):
        with pytest.raises(FrameTooLarge, match="413"):
            transport.exchange(bytes(5_000_000), timeout_s=WAIT_S)
    transport.close()
    with device_at(proxy.url) as device:
        sources = []
        for x in range(REQUESTS):
            data = np.arange(300_000 if x % 20 == 10 else 100, dtype=np.int32)
            outcome = device.run(data)
            assert right(outcome, data)
            sources.append((outcome.source, data.nbytes))
        assert sum(source == "edge" for source, _ in sources[:10]) >= 8  # until the first that is too large
        assert all(source != "edge" for source, size in sources if size > 1_000_000)
        assert device.edge_up


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_as_the_page_on_deployment_says(served: Any, nginx: Any, service: EdgeService, tmp_path: Path) -> None:
    """Its commands make a certificate and tokens, its block takes what is larger than a megabyte."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md").read_text("utf-8")
    commands = re.findall(r"^```bash\n(.*?)^```", page, flags=re.S | re.M)[:2]
    subprocess.run(["bash", "-euc", "\n".join(commands)], cwd=tmp_path, check=True, capture_output=True)
    tokens = {token: name for name, token in map(str.split, (tmp_path / "tokens.txt").read_text().splitlines())}
    token = (tmp_path / "camera-7.token").read_text().split()[-1]
    assert (sorted(tokens.values()), tokens[token]) == (["camera-7", "camera-8"], "camera-7")
    assert (tmp_path / "tokens.txt").stat().st_mode & 0o077 == 0

    server = served(asgi(service, tokens=tokens))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    block = re.findall(r"^```nginx\n(.*?)^```", page, flags=re.S | re.M)[0]
    files = f"ssl_certificate {tmp_path}/edge.pem; ssl_certificate_key {tmp_path}/edge.key;"
    nginx(f"listen 127.0.0.1:{port} ssl; {files} {block.replace('127.0.0.1:8765', f'127.0.0.1:{server.port}')}")
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    transport = HttpTransport(f"https://localhost:{port}/vision", token=token, ssl_context=trust)
    with Device(
        PIPELINE, transport, policy=Fixed(0), profile=profile_of(PIPELINE), cache=False, connect_s=WAIT_S
    ) as device:
        for count in (3, 300_000):
            data = np.arange(count, dtype=np.int32)
            outcome = device.run(data)
            assert right(outcome, data)
            assert outcome.source == "edge"


@pytest.mark.parametrize("window", [1, 4])
def test_connections_that_end_after_a_second(served: Any, nginx: Any, service: EdgeService, window: int) -> None:
    server = served(asgi(service))
    proxy = nginx(f"keepalive_timeout 1s; location / {{ proxy_pass http://127.0.0.1:{server.port}; }}")
    with device_at(proxy.url) as device:
        bad, sources = wrong(device, window=window, pause_s=1.0, pause_each=50)  # just when they end
    assert bad == []
    assert sources.count("edge") >= MOST
    assert service.counters.duplicates == 0


def test_connections_that_end_after_a_few_requests(served: Any, nginx: Any, service: EdgeService) -> None:
    server = served(asgi(service))
    proxy = nginx(f"keepalive_requests 3; location / {{ proxy_pass http://127.0.0.1:{server.port}; }}")
    with device_at(proxy.url) as device:
        bad, sources = wrong(device, window=4)
    assert bad == []
    assert sources.count("edge") >= MOST
    assert service.counters.duplicates == 0


def test_a_page_that_says_bad_gateway(served: Any, nginx: Any, service: EdgeService) -> None:
    """The edge is away: the device works on alone, knows why, and finds the edge once it is back."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = nginx(f"location / {{ proxy_pass http://127.0.0.1:{port}; }}")
    with device_at(proxy.url, timeout_s=5.0) as device:
        bad, sources = wrong(device)
        assert (bad, set(sources)) == ([], {"local"})
        trouble = device.trouble
        assert trouble is not None
        assert trouble.heals
        assert "502" in trouble.reason
        server = served(asgi(service), port=port)
        eventually(lambda: device.run(np.arange(3, dtype=np.int32)).source == "edge")
        bad, sources = wrong(device)
        assert bad == []
        assert sources.count("edge") >= MOST
        assert server.port == port


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("length", [True, False])
def test_an_upstream_of_http_1_0(nginx: Any, service: EdgeService, window: int, length: bool) -> None:
    """It has no kept connections, and may end its answers by closing: nginx makes chunks of them."""
    upstream = Old(service, length)
    proxy = nginx(f"location / {{ proxy_pass http://127.0.0.1:{upstream.port}; proxy_http_version 1.0; }}")
    with device_at(proxy.url) as device:
        bad, sources = wrong(device, window=window)
    assert bad == []
    assert sources.count("edge") >= MOST
    transport = HttpTransport(proxy.url)
    upstream.cut = True
    for _ in range(5):  # an answer of which only a part comes is none
        with pytest.raises(TransportError):
            transport.exchange(PROBE, timeout_s=WAIT_S)
    transport.close()
    upstream.close()


class Old:
    """A server of HTTP/1.0: one request a connection."""

    def __init__(self, service: EdgeService, length: bool) -> None:
        self._service, self._length = service, length
        self.cut = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(WAIT_S)
                self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as file:
            size = 0
            while (field := file.readline()).strip():
                name, _, value = field.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            answer = self._service.handle(file.read(size), peer="me")
        head = b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.splitiot\r\n"
        if self._length:
            head += b"Content-Length: %d\r\n" % len(answer)
        sock.sendall(head + b"\r\n" + (answer[:-1] if self.cut else answer))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)
