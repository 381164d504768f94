"""HTTP/1.1 as a client, on one connection: each exchange within a deadline and within bounds.

What comes is read as strictly as RFC 9112 wants it, and no more of it than is told: a server may be hostile, and what
answers in its place may be anything. `http.client` waits anew for each packet and bounds neither heads nor bodies.
"""

from __future__ import annotations

import contextlib
import io
import re
import select
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

from splitiot.adapters.http._lookup import Lookup

__all__ = ["MAX_FIELDS", "MAX_HEAD_BYTES", "BadAnswer", "Body", "Connection", "Cut", "Head", "left_s"]

MAX_HEAD_BYTES: Final = 64 * 2**10
"""The most that the heads of one answer may have: interim ones, its own, and the trailer."""

MAX_FIELDS: Final = 100
"""The most fields of one head."""

_BUFFER_BYTES: Final = 64 * 2**10
_MAX_LINE_BYTES: Final = 4096  # of the line with a chunk's size and its extensions
_SHOWN_BYTES: Final = 60
_STATUS = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?: ([^\r\n\0]*))?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class BadAnswer(Exception):
    """What came is no answer of HTTP/1.1, or has more than it may have."""


class Cut(ConnectionError):
    """The connection ended before the answer did."""


def left_s(until_s: float) -> float:
    """Return the time that is left.

    Raises
    ------
    TimeoutError
        There is none.
    """
    seconds = until_s - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the time is over")
    return seconds


class Connection:
    """A connection to a server. It carries one exchange at a time: `send`, then `head`, then the `Body`.

    Parameters
    ----------
    host : str
    port : int
    context : ssl.SSLContext or None
        None: not encrypted.
    lookup : Lookup
        Finds the host's addresses.

    Attributes
    ----------
    socket : socket.socket, optional
        To shut it down from another thread ends what waits on it.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, lookup: Lookup) -> None:
        self._host, self._port, self._context, self._lookup = host, port, context, lookup
        self.socket: socket.socket | None = None
        self._whole = True  # whether the request was sent to its end

    def open(self, until_s: float) -> None:
        """Connect, and agree on keys.

        Several addresses share the time that is left, so that one where nobody answers does not take all of it.
        """
        addresses = self._lookup(self._host, self._port, until_s)
        for number, (family, address) in enumerate(addresses):
            self.socket = sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(left_s(until_s) / (len(addresses) - number))
                sock.connect(address)
                break
            except OSError:
                sock.close()
                if number == len(addresses) - 1:
                    raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            # an end without a goodbye is an error: else who is in between could cut an answer off unseen (RFC 9112 9.8)
            self.socket = sock = self._context.wrap_socket(
                sock, server_hostname=self._host, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            sock.settimeout(left_s(until_s))
            sock.do_handshake()
        self._source = _Source(sock)
        self._file: io.BufferedReader = io.BufferedReader(self._source, _BUFFER_BYTES)

    @property
    def quiet(self) -> bool:
        """Whether nothing came since the last exchange: neither the connection's end nor what nobody asked for.

        Some servers say 408 on a connection that was idle for too long (RFC 9110 15.5.9). Nothing that is here before
        the request is sent can be the answer to it.
        """
        return self.socket is not None and not _readable(self.socket)

    def send(self, head: bytes, body: bytes, until_s: float) -> None:
        """Send a request, up to where the server answers already: it does not want the rest (RFC 9112 9.5)."""
        assert self.socket is not None
        self._source.until_s = until_s
        self._whole = False
        if len(body) <= _BUFFER_BYTES:
            head, body = head + body, b""
        for piece in (head, body):
            view = memoryview(piece)
            while view:
                self.socket.settimeout(left_s(until_s))
                view = view[self.socket.send(view) :]
                # with TLS, readable bytes need not be part of an answer
                if view and self._context is None and _answers(self.socket, left_s(until_s)):
                    return
        self._whole = True

    def head(self) -> Head:
        """Read up to the head of the answer. Interim ones before it say nothing that is of use here.

        Raises
        ------
        BadAnswer, Cut, TimeoutError
        """
        budget = _Budget(self._file, MAX_HEAD_BYTES)
        while True:
            line = budget.line()
            match = _STATUS.fullmatch(line)
            if match is None:
                raise BadAnswer(f"no answer of HTTP/1.1, but {line[:_SHOWN_BYTES]!r}")
            head = Head(int(match[2]), (match[3] or b"").decode("latin-1"), int(match[1]) > 0, budget.fields())
            if head.status >= 200:
                return head
            if head.status == 101:  # nobody asked for it (RFC 9110 15.2.2)
                raise BadAnswer("it wants to speak something else than HTTP")

    def body(self, head: Head) -> Body:
        """Return the body behind a head, of which nothing is read yet."""
        return Body(self._file, head)

    def reusable(self, head: Head, body: Body) -> bool:
        """Whether another exchange may follow on this connection (RFC 9112 9.3)."""
        if not (self._whole and body.ended and head.keeps):
            return False
        self._source.until_s = None  # only look, and don't wait
        return not self._file.peek(1)

    def close(self) -> None:
        """Close it, whatever is under way."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.close()


class Head:
    """The head of an answer.

    Parameters
    ----------
    status : int
    reason : str
        As the server says it: of no use but to be shown, and not fit for that as it is.
    current : bool
        Whether it is HTTP/1.1, not 1.0.
    fields : mapping of str to str
        By names in small letters; values of the same name with ``", "`` between them.
    """

    def __init__(self, status: int, reason: str, current: bool, fields: Mapping[str, str]) -> None:
        self.status, self.reason, self.fields = status, reason, fields
        options = {option.strip().lower() for option in fields.get("connection", "").split(",")}
        self.keeps = "close" not in options if current else "keep-alive" in options
        self.length: int | None = None
        """The bytes of its body, where they are told."""
        self.chunked = False
        coding = fields.get("transfer-encoding")
        content_length = fields.get("content-length")
        if status in (204, 304):
            self.length = 0
        elif coding is not None:
            # with both, two readers would see different answers: a way to smuggle one (RFC 9112 6.3)
            if content_length is not None or coding.lower() != "chunked":
                twice = " and with a length" if content_length is not None else ""
                raise BadAnswer(f"a body in the coding {coding[:_SHOWN_BYTES]!r}{twice}")
            self.chunked = True
            self.keeps = self.keeps and current  # (RFC 9112 6.1)
        elif content_length is not None:
            lengths = {length.strip() for length in content_length.split(",")}
            (length,) = lengths if len(lengths) == 1 else ("",)
            if not _LENGTH.fullmatch(length):
                raise BadAnswer(f"a body of {content_length[:_SHOWN_BYTES]!r} bytes")
            self.length = int(length)


class Body:
    """The body of an answer: as many bytes as its head tells, in chunks, or up to the connection's end.

    Attributes
    ----------
    ended : bool
        Whether it was read to its end.
    """

    def __init__(self, file: io.BufferedReader, head: Head) -> None:
        self._file, self._chunked = file, head.chunked
        # bytes left of the body or the chunk; None: up to the connection's end
        self._left = 0 if head.chunked else head.length
        self._begun = False
        self.ended = head.length == 0

    def read(self, most: int) -> bytes:
        """Return the next `most` bytes, fewer only where it ends.

        Raises
        ------
        BadAnswer, Cut, TimeoutError
        """
        if self._left is not None and not self._chunked:
            data = self._take(most)
            self.ended = not self._left
            return data
        buffer = io.BytesIO()  # a list of small pieces would take many times their bytes
        while not self.ended and (wanted := min(most - buffer.tell(), _BUFFER_BYTES)) > 0:
            if self._left is None:
                piece = self._file.read(wanted)
                self.ended = len(piece) < wanted
            else:
                piece = self._chunk(wanted)
            buffer.write(piece)
        return buffer.getvalue()

    def _take(self, most: int) -> bytes:
        """Return what is left of a body or chunk whose length is told, at most so much."""
        assert self._left is not None
        wanted = min(most, self._left)
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise Cut("it ended within its body")
        self._left -= wanted
        return data

    def _chunk(self, most: int) -> bytes:
        """Return what is left of a chunk, or of the next one, at most so much."""
        if not self._left:
            if self._begun and _Budget(self._file, _MAX_LINE_BYTES).line():
                raise BadAnswer("a chunk that is longer than it says")
            self._begun = True
            line = _Budget(self._file, _MAX_LINE_BYTES).line()
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise BadAnswer(f"a chunk of {line[:_SHOWN_BYTES]!r} bytes")
            self._left = int(match[1], 16)
            if not self._left:
                _Budget(self._file, MAX_HEAD_BYTES).fields()  # the trailer
                self.ended = True
                return b""
        return self._take(most)


class _Budget:
    """Reads lines, of so many bytes in all."""

    def __init__(self, file: io.BufferedReader, most: int) -> None:
        self._file, self._most, self._left = file, most, most

    def line(self) -> bytes:
        line = self._file.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise BadAnswer(f"more than {self._most} bytes of heads")
        if not line.endswith(b"\n"):
            begun = self._left < self._most
            raise Cut("it ended within its head" if begun else "it closed the connection")
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]  # either ends a line (RFC 9112 2.2)

    def fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        name = ""
        for _ in range(MAX_FIELDS + 1):
            line = self.line()
            if not line:
                return fields
            raw, colon, value = line.partition(b":")
            text = value.strip(b" \t").decode("latin-1")
            if line[:1] in (b" ", b"\t") and name:  # it goes on with the one before (RFC 9112 5.2)
                fields[name] += " " + line.strip(b" \t").decode("latin-1")
            elif not colon or not _NAME.fullmatch(raw) or b"\r" in value or b"\0" in value:
                raise BadAnswer(f"a field {line[:_SHOWN_BYTES]!r}")
            else:
                name = raw.decode("ascii").lower()
                fields[name] = f"{fields[name]}, {text}" if name in fields else text
        raise BadAnswer(f"more than {MAX_FIELDS} fields")


class _Source(io.RawIOBase):
    """What a socket receives, by a deadline that holds for all reads together."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.until_s: float | None = None
        """None: a read waits for nothing, and gives nothing."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.until_s is None:
            return None
        self._socket.settimeout(left_s(self.until_s))
        return self._socket.recv_into(buffer)


def _answers(sock: socket.socket, timeout_s: float) -> bool:
    """Wait until more can be sent; True where something can be read instead, an answer that came early.

    A server that has said no may read nothing more: whoever waits only to send then waits in vain.

    Raises
    ------
    TimeoutError
    """
    if not hasattr(select, "poll"):
        reading, writing, _ = select.select([sock], [sock], [], timeout_s)
        come, room = len(reading), len(writing)
    else:
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        events = sum(event for _, event in poll.poll(timeout_s * 1e3))
        come, room = events & ~select.POLLOUT, events & select.POLLOUT
    if not (come or room):
        raise TimeoutError("nothing more could be sent")
    return bool(come)


def _readable(sock: socket.socket) -> bool:
    """Whether a read would not wait: for bytes, or for the end."""
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()  # `select` takes no descriptors above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
