"""The device's side of HTTP, on the client of the standard library."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import threading
from urllib.parse import urlsplit

from splitiot import _fork, wire
from splitiot.adapters.http._address import FRAME_TYPE, PATH, is_loopback
from splitiot.errors import AuthenticationError, FrameTooLarge, TransportError, TransportTimeout
from splitiot.transports import RoundTrip

__all__ = ["HttpTransport"]

_PASSING = (408, 421, 425, 429)
_LASTING = (501, 505, 511)
_PORTAL = "log in where this network wants it (a captive portal?), or give the address of a splitiot edge"
_NO_NAME = {getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)}
_SECRET = 6  # a shorter token is part of many words, and no secret
_SECRETS = re.compile(r"(//)[^/?#]*@|[?#].*")

# how a connection ends that was kept, and that the edge has closed meanwhile
_STALE = (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class HttpTransport(RoundTrip):
    """Carry frames to an edge over HTTP or HTTPS.

    Parameters
    ----------
    url : str
        ``https://edge:8443``; a path only if the edge is mounted elsewhere than at `PATH`.
    token : str, optional
        The device's credential.
    timeout_s : float
        The longest an exchange may take.
    workers : int
        How many exchanges may be under way at once.
    ssl_context : ssl.SSLContext, optional
        The system's trust unless given.
    allow_plaintext : bool
        Permit ``http://`` to other machines: everybody on the way reads and changes what crosses.

    Raises
    ------
    TypeError, ValueError
        The URL is none, or it is plaintext to another machine and that was not permitted; or the token has characters
        that no HTTP header can carry. No message shows the token.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        workers: int = 8,
        ssl_context: ssl.SSLContext | None = None,
        allow_plaintext: bool = False,
        max_frame_bytes: int = wire.MAX_FRAME_BYTES,
    ) -> None:
        super().__init__(workers=workers, timeout_s=timeout_s)
        self._host, self._port, self._path, encrypted = _address(url)
        if not encrypted and not is_loopback(self._host) and not allow_plaintext:
            raise ValueError(
                f"{url} is plaintext to another machine: use https, or allow_plaintext=True in a network that you trust"
            )
        self._context = None
        if encrypted:
            self._context = ssl_context or ssl.create_default_context()
        self._headers = {"Content-Type": FRAME_TYPE}
        self._token = token
        if token is not None:
            _check_token(token)
            self._headers["Authorization"] = f"Bearer {token}"
        self._max_frame_bytes = max_frame_bytes
        # the one used last is taken first: measurements should not meet a connection that must be set up
        self._idle: list[http.client.HTTPConnection] = []
        self._at_work: set[http.client.HTTPConnection] = set()
        self._idle_lock = threading.Lock()
        _fork.in_child(self._let_go)

    def __repr__(self) -> str:
        scheme, host = "http" if self._context is None else "https", self._host
        return f"HttpTransport('{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}{self._path}')"

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        with self._idle_lock:
            kept = self._idle.pop() if self._idle else None
        try:
            if kept is not None:
                try:
                    return self._post(kept, request, timeout_s)
                except _STALE:  # once more: the same id is executed once
                    if self._closed:
                        raise
            return self._post(self._connect(timeout_s), request, timeout_s)
        except TimeoutError as error:
            raise TransportTimeout(f"no answer from {self._host}:{self._port} in {timeout_s} s") from error
        except (OSError, http.client.HTTPException) as error:
            words = self._masked(f"{self._host}:{self._port}: {error!r}")
            remedy = _remedy(error)
            raise TransportError(words, heals=not remedy, remedy=remedy) from error

    def close(self) -> None:
        with self._idle_lock:
            self._closed = True
            at_work = [connection.sock for connection in self._at_work if connection.sock is not None]
        for sock in at_work:  # ends exchanges that hang
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        super().close()
        with self._idle_lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __del__(self) -> None:
        super().__del__()
        for connection in getattr(self, "_idle", ()):
            connection.close()

    def after_fork(self) -> None:
        pass  # `_let_go` has done it

    def _let_go(self) -> None:
        """Close this process's copies of its parent's connections: only descriptors, nothing is said on them."""
        for connection in (*self._idle, *self._at_work):
            with contextlib.suppress(AttributeError, OSError):  # it has no socket, or a closed one
                os.close(connection.sock.detach())
        self._idle, self._at_work, self._idle_lock = [], set(), threading.Lock()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._context)

    def _post(self, connection: http.client.HTTPConnection, request: bytes, timeout_s: float) -> bytes:
        """Exchange on one connection, and keep it if all went well."""
        with self._idle_lock:
            self._at_work.add(connection)
        body = None
        try:
            if connection.sock is None:
                connection.connect()
            else:
                connection.sock.settimeout(timeout_s)
            self.sending()
            body = self._answer(connection, request)
        finally:
            with self._idle_lock:
                self._at_work.discard(connection)
                keep = body is not None and not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()
        return body

    def _answer(self, connection: http.client.HTTPConnection, request: bytes) -> bytes:
        try:
            connection.request("POST", self._path, request, self._headers)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            if connection.sock is None:  # nobody is there
                raise
            # who refuses a request while it is still being sent says why, and closes: that can be read yet
        response = connection.getresponse()
        status = response.status
        if status in (307, 308):
            there = urlsplit(response.getheader("Location", "")).path
            response.read()
            if there == self._path + "/":  # it is mounted, and frameworks want the slash
                self._path = there
                return self._answer(connection, request)
        length = response.length
        where = f"{self._host}:{self._port}"
        if status == 200:
            kind = response.getheader("Content-Type", "")
            start = b"" if kind == FRAME_TYPE else response.read(len(wire.MAGIC))
            if start != (b"" if kind == FRAME_TYPE else wire.MAGIC):
                words = wire.no_frame(start + response.read(200), kind or "of no type")
                raise TransportError(self._masked(f"{where} answered {words}"), heals=False, remedy=_PORTAL)
            if length is not None and length <= self._max_frame_bytes:
                return start + response.read() if start else response.read()
        detail = response.read(200).decode("utf-8", "replace") if status != 200 else f"{length} bytes"
        words = self._masked(f"{where} answered {status} {response.reason}: {detail}")
        if status in (401, 403):
            raise AuthenticationError(words)
        if status == 413:
            raise FrameTooLarge(words)
        if (200 < status < 500 and status not in _PASSING) or status in _LASTING:
            remedy = f"see that an edge is served at the path {self._path} of this address"
            raise TransportError(words, heals=False, remedy=remedy)
        raise TransportError(words)

    def _masked(self, words: str) -> str:
        """Take the token out: some servers show what they were sent."""
        token = self._token
        if token is None:
            return words
        words = words.replace(f"Bearer {token}", "Bearer ***")
        return words.replace(token, "***") if len(token) >= _SECRET else words


def _address(url: str) -> tuple[str, int, str, bool]:
    """Return host, port, path, and whether it is encrypted, of an edge's address."""
    if not isinstance(url, str):
        raise TypeError(f"an edge's address is a text such as https://edge:8443, not {type(url).__name__}")
    shown = _SECRETS.sub(r"\1", url)
    wrong = ValueError(f"{shown!r} is no edge's address: expected something like https://edge:8443")
    for place, character in enumerate(url):
        if character.isspace() or not character.isprintable():  # urlsplit would take some of them out
            raise ValueError(f"{wrong}, without {character!r} (character {place + 1})")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{wrong} ({error})") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("give the credential as token=, not in the address")
    if parts.scheme not in ("http", "https") or not host:
        raise wrong
    if parts.query or parts.fragment:
        raise ValueError(f"{wrong}, without ? and #")
    if port == 0:
        raise ValueError(f"{wrong}, and port 0 is none to connect to")
    try:
        host.encode("idna")
        parts.path.encode("ascii")
    except UnicodeError:
        raise ValueError(f"{wrong}, with a host name that exists and other characters in its path as %XX") from None
    encrypted = parts.scheme == "https"
    return host, port or (443 if encrypted else 80), parts.path if parts.path not in ("", "/") else PATH, encrypted


def _check_token(token: str) -> None:
    if not isinstance(token, str):
        raise TypeError(f"a token is a text, not {type(token).__name__}")
    if not token:
        raise ValueError("the token is empty: give None where there is none")
    for place, character in enumerate(token):
        if not (character.isprintable() and character <= "\xff") or character == " ":
            what = "a space" if character == " " else "a line break" if character in "\r\n" else "a character"
            raise ValueError(f"the token has {what} at place {place + 1} of {len(token)} that no HTTP header carries")


def _remedy(error: Exception) -> str:
    """Say what would mend it; empty where it may end by itself."""
    if isinstance(error, socket.gaierror) and error.errno in _NO_NAME:
        return "see that the name of the host is right"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "trust the edge's certificate: ssl_context=, with a name that it is made out to"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "use http:// if the edge does not encrypt, or its other port"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return "see that an edge is served at this address: what is there speaks something else"
    return ""
