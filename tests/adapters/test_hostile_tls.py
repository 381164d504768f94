"""The device's side of HTTPS, on servers that are slow or are cut off at each place: TLS has reads of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from splitiot import wire
from splitiot.adapters.http import HttpTransport
from splitiot.errors import TransportError, TransportTimeout
from tests.adapters.hostile import HEAD
from tests.session.support import boot_of

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with"),
]

PROBE = wire.encode(wire.Probe(boot=boot_of(1), sequence=1))
ECHO = wire.encode(wire.Echo(boot=boot_of(1), sequence=1, edge_boot=boot_of(2)))
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(ECHO) + ECHO
WAIT_S = 30.0
PAUSE_S = 0.02
SHORT_S = 0.4


class Tls:
    """The server's end of one connection, whose records are sent as a test wants it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, over: threading.Event) -> None:
        self._sock, self._over = sock, over
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.slow = False

    def _flush(self) -> None:
        data = self._out.read()
        if not self.slow:
            self._sock.sendall(data)
            return
        for place in range(len(data)):
            self._sock.sendall(data[place : place + 1])
            if self._over.wait(PAUSE_S):
                raise ConnectionAbortedError

    def _done(self, step: Callable[[], object]) -> object:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._sock.recv(65536)
                if not data:
                    raise ConnectionResetError from None
                self._in.write(data)
            else:
                self._flush()
                return result

    def handshake(self) -> None:
        self._done(self._tls.do_handshake)

    def request(self) -> None:
        data = b""
        while PROBE not in data:
            data += bytes(self._done(lambda: self._tls.read(65536)))  # type: ignore[call-overload]

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()


Way: TypeAlias = Callable[[Tls, threading.Event], None]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@contextlib.contextmanager
def transport_to(way: Way, certificate: tuple[Path, Path]) -> Iterator[HttpTransport]:
    cert, key = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            way(Tls(sock, server, over), over)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(WAIT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        context = ssl.create_default_context(cafile=str(cert))
        transport = HttpTransport(f"https://127.0.0.1:{listener.getsockname()[1]}", ssl_context=context)
        try:
            yield transport
        finally:
            over.set()
            transport.close()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _silent(tls: Tls, over: threading.Event) -> None:
    over.wait(WAIT_S)


def _slow_handshake(tls: Tls, over: threading.Event) -> None:
    tls.slow = True
    tls.handshake()


def _small_records(tls: Tls, over: threading.Event) -> None:
    """Each record has a byte, and comes in time."""
    tls.handshake()
    tls.request()
    tls.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    while not over.wait(PAUSE_S):
        tls.send(b"a")


def _slow_record(tls: Tls, over: threading.Event) -> None:
    """One record, of which nothing can be read before its last byte."""
    tls.handshake()
    tls.request()
    tls.slow = True
    tls.send(WHOLE + bytes(2000))


def _no_answer(tls: Tls, over: threading.Event) -> None:
    tls.handshake()
    tls.request()
    over.wait(WAIT_S)


@pytest.mark.parametrize("way", [_silent, _slow_handshake, _small_records, _slow_record, _no_answer])
def test_an_encrypted_exchange_ends_in_time(way: Way, certificate: tuple[Path, Path]) -> None:
    """One deadline holds for the handshake and all records together, however small the steps."""
    with transport_to(way, certificate) as transport:
        began_s = time.monotonic()
        with pytest.raises(TransportTimeout):
            transport.exchange(PROBE, timeout_s=SHORT_S)
        assert SHORT_S <= time.monotonic() - began_s < 10 * SHORT_S


def answering(answer: bytes, *, goodbye: bool) -> Way:
    def way(tls: Tls, over: threading.Event) -> None:
        tls.handshake()
        tls.request()
        tls.send(answer)
        if goodbye:
            tls.goodbye()

    return way


CUT_OFF = {
    "within a head": HEAD[:20],
    "within a body": HEAD + b"Content-Length: 5000\r\n\r\nSI",
    "within a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\nSI" % len(ECHO),
    "before the last chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(ECHO), ECHO),
    "without a length": HEAD + b"\r\n" + ECHO[:-1],
    "before anything": b"",
}


@pytest.mark.parametrize("goodbye", [False, True])
@pytest.mark.parametrize("place", CUT_OFF)
def test_an_encrypted_answer_that_is_cut_off_is_none(
    place: str, goodbye: bool, certificate: tuple[Path, Path]
) -> None:
    with transport_to(answering(CUT_OFF[place], goodbye=goodbye), certificate) as transport:
        with pytest.raises(TransportError) as caught:
            transport.exchange(PROBE, timeout_s=WAIT_S)
        assert not isinstance(caught.value, TransportTimeout)


@pytest.mark.parametrize("goodbye", [False, True])
def test_an_end_without_a_goodbye_is_no_end_of_an_answer(goodbye: bool, certificate: tuple[Path, Path]) -> None:
    """Without a length only the goodbye tells that nobody in between has cut it off (RFC 9112 9.8)."""
    with transport_to(answering(HEAD + b"\r\n" + ECHO, goodbye=goodbye), certificate) as transport:
        if goodbye:
            assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
        else:
            with pytest.raises(TransportError):
                transport.exchange(PROBE, timeout_s=WAIT_S)


@pytest.mark.parametrize("goodbye", [False, True])
def test_a_whole_answer_needs_no_goodbye(goodbye: bool, certificate: tuple[Path, Path]) -> None:
    with transport_to(answering(WHOLE, goodbye=goodbye), certificate) as transport:
        for _ in range(3):  # the kept connection has ended: another one is made
            assert transport.exchange(PROBE, timeout_s=WAIT_S) == ECHO
