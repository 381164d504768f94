"""The device's side of HTTP, on sockets of the standard library."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

from splitiot import _fork, wire
from splitiot.adapters.http._address import FRAME_TYPE, PATH, is_loopback
from splitiot.adapters.http._connection import BadAnswer, Body, Connection, Cut, Head, left_s
from splitiot.adapters.http._lookup import Lookup
from splitiot.errors import AuthenticationError, FrameTooLarge, TransportError, TransportTimeout
from splitiot.transports import RoundTrip

__all__ = ["HttpTransport"]

_PASSING = (408, 421, 425, 429)
_LASTING = (501, 505, 511)
_PORTAL = "log in where this network wants it (a captive portal?), or give the address of a splitiot edge"
_NO_NAME = {getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)}
_SECRET = 6  # a shorter token occurs in many words, and is no secret
_SECRETS = re.compile(r"(//)[^/?#]*@|[?#].*")

# errors of a kept connection that the edge has closed meanwhile
_STALE = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

_MAX_REDIRECTS: Final = 3
_MAX_DETAIL_BYTES: Final = 200
_MAX_IGNORED_BYTES: Final = 4096  # of a redirect's body: a new connection costs less than reading more
_PATH = re.compile(r"/[!-~]{0,2000}")
_MAX_LINE_CHARS: Final = 300
_PREFIX_BYTES: Final = 16  # of a frame: enough to know its length
_MAX_STRANGE_BYTES: Final = 64 * 2**10  # of a frame of another version, whose length can't be read
_LARGE_BYTES: Final = 2**20


class HttpTransport(RoundTrip):
    """Carry frames to an edge over HTTP or HTTPS.

    Parameters
    ----------
    url : str
        ``https://edge:8443``; a path only if the edge is mounted elsewhere than at `PATH`.
    token : str, optional
        The device's credential.
    timeout_s : float
        The longest an exchange may take, from connecting to the last byte of the answer.
    workers : int
        How many exchanges may be under way at once.
    ssl_context : ssl.SSLContext, optional
        The system's trust unless given.
    allow_plaintext : bool
        Permit ``http://`` to other machines: everybody on the way reads and changes what crosses.
    max_frame_bytes : int
        The largest answer that is taken. No more is read, and of several large ones one after another.

    Notes
    -----
    Redirects (307 and 308) are followed on the same host and port only, and where a framework wants a slash behind the
    path. The new path is remembered once an edge has answered there. The token goes nowhere else.

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
        name = self._host.encode("idna").decode() if not self._host.isascii() else self._host
        name = f"[{name}]" if ":" in name else name
        self._where = f"{name}:{self._port}"
        host = name if self._port == (443 if encrypted else 80) else self._where
        self._fields = f"Host: {host}\r\nAccept-Encoding: identity\r\nContent-Type: {FRAME_TYPE}\r\n"
        self._token = token
        if token is not None:
            _check_token(token)
            self._fields += f"Authorization: Bearer {token}\r\n"
        self._max_frame_bytes = max_frame_bytes
        self._given_path = self._path
        self._scheme = "https" if encrypted else "http"
        self._lookup = Lookup()
        # a stack: the connection used last is open most likely, and measurements should include no set-up
        self._idle: list[Connection] = []
        self._at_work: set[Connection] = set()
        self._idle_lock, self._large = threading.Lock(), threading.Lock()
        _fork.in_child(self._let_go)

    def __repr__(self) -> str:
        return f"HttpTransport('{self._scheme}://{self._where}{self._path}')"

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        until_s = time.monotonic() + timeout_s
        path, visited = self._path, [self._path]
        try:
            while True:
                answer = self._asked(path, request, until_s)
                if isinstance(answer, bytes):
                    self._path = path
                    return answer
                path = answer.path
                if path in visited or len(visited) > _MAX_REDIRECTS:
                    message = f"{self._where} redirects from one path to another, without end: {' -> '.join(visited)}"
                    raise TransportError(message, heals=False, remedy=_no_edge(self._path))
                visited.append(path)
        except TimeoutError as error:
            raise TransportTimeout(f"no answer from {self._where} in {timeout_s} s") from error
        except (OSError, BadAnswer) as error:
            message = self._masked(f"{self._where}: {error!r}")
            remedy = _remedy(error)
            raise TransportError(message, heals=not remedy, remedy=remedy) from error

    def close(self) -> None:
        with self._idle_lock:
            self._closed = True
            at_work = [connection.socket for connection in self._at_work if connection.socket is not None]
        for sock in at_work:  # this ends exchanges that hang
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
        _fork.leave(*self._at_work)  # their locks are held by threads that the child does not have
        for connection in (*self._idle, *self._at_work):
            with contextlib.suppress(AttributeError, OSError):  # it has no socket, or a closed one
                os.close(connection.socket.detach())  # type: ignore[union-attr]
        self._idle, self._at_work = [], set()
        self._idle_lock, self._large = threading.Lock(), threading.Lock()

    def _asked(self, path: str, request: bytes, until_s: float) -> bytes | _Elsewhere:
        kept = self._kept()
        if kept is not None:
            try:
                return self._post(kept, path, request, until_s)
            except _STALE:  # try once more: the edge executes each id only once
                if self._closed:
                    raise
        return self._post(Connection(self._host, self._port, self._context, self._lookup), path, request, until_s)

    def _kept(self) -> Connection | None:
        """Take a connection that is there and can be used."""
        while True:
            with self._idle_lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.quiet:
                return connection
            connection.close()

    def _post(self, connection: Connection, path: str, request: bytes, until_s: float) -> bytes | _Elsewhere:
        """Exchange on one connection, and keep it if all went well."""
        with self._idle_lock:
            self._at_work.add(connection)
        keep = False
        try:
            if connection.socket is None:
                connection.open(until_s)
            self.sending()
            start = f"POST {path} HTTP/1.1\r\n{self._fields}Content-Length: {len(request)}\r\n\r\n"
            # a server may refuse a request while it is still being sent, and close: its answer can still be read
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                connection.send(start.encode("latin-1"), request, until_s)
            head = connection.head()
            body = connection.body(head)
            answer = self._read(path, head, body, until_s)
            keep = connection.reusable(head, body)
        finally:
            with self._idle_lock:
                self._at_work.discard(connection)
                keep = keep and not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()
        return answer

    def _read(self, path: str, head: Head, body: Body, until_s: float) -> bytes | _Elsewhere:
        status = head.status
        if status == 200:
            return self._frame(head, body, until_s)
        if status in (307, 308):
            new_path = self._redirected(path, head.fields.get("location", ""))
            if new_path is not None:
                body.read(_MAX_IGNORED_BYTES)
                return _Elsewhere(new_path)
        self._path = self._given_path
        try:
            detail = body.read(_MAX_DETAIL_BYTES)
        except (OSError, BadAnswer):  # the status says enough
            detail = b""
        reply = f"{status} {_line(head.reason)}: {_line(detail.decode('utf-8', 'replace'))}"
        message = self._masked(f"{self._where} answered {reply}")
        if status in (401, 403):
            raise AuthenticationError(message)
        if status == 413:
            raise FrameTooLarge(message)
        if (status < 500 and status not in _PASSING) or status in _LASTING:
            raise TransportError(message, heals=False, remedy=_no_edge(path))
        raise TransportError(message)

    def _frame(self, head: Head, body: Body, until_s: float) -> bytes:
        kind, length, start = head.fields.get("content-type", ""), head.length, b""
        if kind != FRAME_TYPE or length is None:
            start = body.read(_PREFIX_BYTES)
            if not start.startswith(wire.MAGIC):
                reply = wire.no_frame(start + body.read(_MAX_DETAIL_BYTES), _line(kind) or "of no type")
                raise TransportError(self._masked(f"{self._where} answered {reply}"), heals=False, remedy=_PORTAL)
        if length is None:
            length = wire.frame_length(start)  # the frame tells it, where HTTP does not
            if length is None and body.ended:
                raise Cut("it ended within its frame")
            if length is None:
                return start + body.read(_MAX_STRANGE_BYTES)
        if length > self._max_frame_bytes:
            most = f"{self._max_frame_bytes} are taken (max_frame_bytes=)"
            raise TransportError(f"{self._where} answered {length} bytes, where at most {most}")
        with self._turn(length, until_s):
            # a body without a length must be seen to end here: if it is cut off, or goes on, it is no answer
            rest = body.read(length - len(start) + (head.length is None))
        if not body.ended or len(start) + len(rest) < length:
            raise Cut(f"a frame of {length} bytes is not what came")
        return start + rest if start else rest

    @contextlib.contextmanager
    def _turn(self, nbytes: int, until_s: float) -> Iterator[None]:
        """Let large answers be read one after another: else each worker would hold one."""
        if nbytes <= _LARGE_BYTES:
            yield
            return
        if not self._large.acquire(timeout=left_s(until_s)):
            raise TimeoutError("other large answers took all the time")
        try:
            yield
        finally:
            self._large.release()

    def _redirected(self, path: str, location: str) -> str | None:
        """Return the path on this host to which a redirect leads; None where it leads elsewhere."""
        origin = f"{self._scheme}://{self._where}"
        try:
            target = urlsplit(urljoin(origin + path, location))
            port = target.port or (443 if target.scheme == "https" else 80)
        except ValueError:
            return None
        # a mounted edge: frameworks want the slash. A proxy before it may have changed the start of the path,
        # and may know the host by another name
        if target.path.strip("/") and target.path.endswith("/") and not path.endswith("/"):
            return f"{path}/"
        same = (target.scheme, target.hostname, port) == (self._scheme, self._host, self._port)
        return target.path if same and not target.query and _PATH.fullmatch(target.path) else None

    def _masked(self, text: str) -> str:
        """Take the token out: some servers show what they were sent."""
        token = self._token
        if token is None:
            return text
        text = text.replace(f"Bearer {token}", "Bearer ***")
        return text.replace(token, "***") if len(token) >= _SECRET else text


class _Elsewhere:
    """Not here, but at another path."""

    def __init__(self, path: str) -> None:
        self.path = path


def _no_edge(path: str) -> str:
    return f"see that an edge is served at the path {path} of this address"


def _line(text: str) -> str:
    """Return a server's words as one line, of bounded length."""
    return " ".join(text[:_MAX_LINE_CHARS].split())


def _address(url: str) -> tuple[str, int, str, bool]:
    """Return host, port, path, and whether it is encrypted, of an edge's address."""
    if not isinstance(url, str):
        raise TypeError(f"an edge's address is a text such as https://edge:8443, not {type(url).__name__}")
    shown = _SECRETS.sub(r"\1", url)
    wrong = ValueError(f"{shown!r} is no edge's address: expected something like https://edge:8443")
    for place, character in enumerate(url):
        if character.isspace() or not character.isprintable():  # urlsplit would remove some of them
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
    if isinstance(error, BadAnswer):
        return "see that an edge is served at this address: what is there speaks something else"
    return ""
