"""The edge's side of HTTP: an endpoint for any ASGI server."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from splitiot.adapters.http._address import FRAME_TYPE, PATH
from splitiot.adapters.http._budget import Budget, Share
from splitiot.adapters.http._gate import CONNECTION, Connection
from splitiot.adapters.http._turns import Pace, Turns
from splitiot.errors import MissingDependencyError
from splitiot.limits import Limits

if TYPE_CHECKING:
    import asyncio

    from starlette.applications import Starlette
    from starlette.types import Receive, Scope
    from starlette.types import Send as AsgiSend

    from splitiot.edge import EdgeService

__all__ = ["asgi", "lifespan"]


_DRAIN_BYTES = 256 * 1024
_DRAIN_S = 1.0
_PIECE_BYTES = 64 * 1024  # of a large answer, and roughly of a large body: others get their turn between two pieces
_LARGE_BYTES = 1024 * 1024
_REFUSALS_PER_S = 100.0
_REFUSALS_AT_ONCE = 50
_REFUSAL_WAIT_S = 1.0


class _Refused(Exception):
    """A request that is answered without the service.

    Parameters
    ----------
    status : int
    reason : str
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _Endpoint:
    def __init__(self, service: EdgeService, tokens: Mapping[str, str] | None, limits: Limits) -> None:
        self._service, self._limits = service, limits
        self._budget = Budget(limits.max_body_bytes, limits.max_body_bytes_per_name)
        self._turns = Turns()
        self._pace = Pace(per_s=_REFUSALS_PER_S, burst=_REFUSALS_AT_ONCE, most_s=_REFUSAL_WAIT_S)
        # looked up by hash, so that the time taken tells nothing about a token
        self._names = None if tokens is None else {_hash(token): name for token, name in tokens.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        import asyncio

        body = _Body(receive, self._turns)
        connection: Connection | None = scope.get("state", {}).get(CONNECTION)
        try:
            reply, share = await self._answer(scope, body, connection)
        except _Refused as refused:
            status, reason = refused.status, refused.reason
        else:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": _headers(FRAME_TYPE, reply)})
                for start in range(0, len(reply) - _PIECE_BYTES, _PIECE_BYTES):
                    piece = reply[start : start + _PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await self._turns.next()  # `send` never yields if the peer takes everything at once
                rest = (len(reply) - 1) // _PIECE_BYTES * _PIECE_BYTES
                await send({"type": "http.response.body", "body": reply[rest:]})
            finally:
                if connection is None:
                    share.release()
                else:
                    connection.answered(share)
            return
        # a flood of refusals must not take others' time
        await asyncio.sleep(self._pace.wait_s(asyncio.get_running_loop().time()))
        await _refuse(status, reason, scope, body, send)  # outside the `except`: a traceback would keep what was read

    async def _answer(self, scope: Scope, body: _Body, connection: Connection | None) -> tuple[bytes, Share]:
        if scope["method"] != "POST":
            raise _Refused(405, "post a splitiot frame here")
        peer = self._peer(scope)
        if connection is not None and self._names is not None:
            connection.prove()
        digits = dict(scope["headers"]).get(b"content-length", b"0")
        limit = self._service.max_frame_bytes
        if not digits.isdigit() or len(digits) > 15 or (length := int(digits)) > limit:
            raise _Refused(413, f"at most {limit} bytes")
        share = self._budget.share(peer)
        if not share.has_room(length):
            raise _Refused(503, "too many bytes are held already: come again")
        client = (scope.get("client") or ("",))[0]
        spoken_for = connection if connection is not None and connection.by_proxy else None
        if spoken_for is not None and not spoken_for.gate.begin_request(client):
            raise _Refused(503, "too many requests of this address at once")
        try:
            frame = await body.read(share, self._limits, length, limit)
            received_s = self._service.clock()
            reply = await self._service.handle_async(frame, peer=peer, received_s=received_s)
        except BaseException:
            share.release()
            raise
        finally:
            if spoken_for is not None:
                spoken_for.gate.end_request(client)
        if connection is not None:
            connection.prove()
        share.swap(len(reply))
        return reply, share

    def _peer(self, scope: Scope) -> str:
        credentials = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(credentials) > 1:  # ambiguous: one for a proxy, and one for us?
            raise _Refused(400, "one Authorization header, not several")
        if self._names is None:
            client = scope.get("client")
            return f"anonymous@{client[0]}" if client else "anonymous"
        scheme, _, token = (credentials[0] if credentials else b"").decode("latin-1").partition(" ")
        name = self._names.get(_hash(token)) if scheme.lower() == "bearer" else None
        if name is None:
            raise _Refused(401, "a valid bearer token is needed")
        return name


class _Body:
    """The body of one request, as it comes."""

    __slots__ = ("_receive", "_turns", "complete")

    def __init__(self, receive: Receive, turns: Turns) -> None:
        self._receive, self._turns = receive, turns
        self.complete = False
        """Nothing more will come: all is here, or the client has gone."""

    async def next(self) -> bytes | None:
        """Return what comes next, None if the client has gone."""
        message = await self._receive()
        if message["type"] != "http.request":
            self.complete = True
            return None
        self.complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    async def read(self, share: Share, limits: Limits, length: int, max_bytes: int) -> bytes | memoryview:
        """Read all of it, as long as it comes fast enough and there is room.

        Parameters
        ----------
        share : Share
        limits : Limits
        length : int
            As its header says; 0 where it does not.
        max_bytes : int
        """
        import asyncio

        loop = asyncio.get_running_loop()
        if length < _LARGE_BYTES:
            return await self._read(loop, share, limits, length, max_bytes, None)
        memory = _memory(length)
        whole = memoryview(memory)
        try:
            await self._read(loop, share, limits, length, max_bytes, whole)
        except BaseException:
            whole.release()
            loop.run_in_executor(None, memory.close)  # takes milliseconds, in which others may go on
            raise
        return whole

    async def _read(
        self,
        loop: asyncio.AbstractEventLoop,
        share: Share,
        limits: Limits,
        length: int,
        max_bytes: int,
        whole: memoryview | None,
    ) -> bytes:
        """Read into memory that is given, or return what was read."""
        import asyncio

        clock = loop.time
        begun_s = clock()
        end_s = begun_s + limits.body_timeout_s
        quantum = limits.min_bytes_per_s * limits.stall_s  # that much must come within each `stall_s`
        chunks: list[bytes] = []
        size, due = 0, quantum
        try:
            async with asyncio.timeout_at(min(end_s, begun_s + limits.stall_s)) as patience:
                while not self.complete:
                    if size >= _PIECE_BYTES:
                        await self._turns.next()
                    chunk = await self.next()
                    if chunk is None:
                        raise _Refused(400, "cut off")
                    begin, size = size, size + len(chunk)
                    if size > max_bytes or (whole is not None and size > length):
                        raise _Refused(413, f"at most {max_bytes} bytes")
                    if not share.take(len(chunk)):
                        raise _Refused(503, "too many bytes are held already: come again")
                    if whole is None:
                        chunks.append(chunk)
                    else:
                        whole[begin:size] = chunk
                    if size >= due and not self.complete:
                        due = size + quantum
                        patience.reschedule(min(end_s, clock() + limits.stall_s))
        except TimeoutError:
            raise _Refused(408, f"the body came too slowly: {size} bytes in {clock() - begun_s:.0f} s") from None
        if whole is not None:
            if size != length:
                raise _Refused(400, f"{size} bytes instead of {length}")
            return b""
        if size < _LARGE_BYTES:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return await asyncio.to_thread(b"".join, chunks)

    async def drain(self) -> None:
        """Take a little of what still comes: a client that is still sending would else miss the answer."""
        import asyncio

        size = 0
        try:
            async with asyncio.timeout(_DRAIN_S):
                while not self.complete and size < _DRAIN_BYTES:
                    size += len(await self.next() or b"")
        except TimeoutError:
            pass


def _memory(nbytes: int) -> mmap.mmap:
    """Return memory that is taken page by page as it is filled.

    An array of numpy takes huge pages, each of which held the loop up for 4 ms.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, nbytes)
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


async def _refuse(status: int, reason: str, scope: Scope, body: _Body, send: AsgiSend) -> None:
    """Say why, and end the connection: what a client sends that was refused is not worth reading."""
    content = reason.encode()
    headers = _headers("text/plain; charset=utf-8", content)
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 405:
        headers.append((b"allow", b"POST"))
    names = {name for name, _ in scope["headers"]}
    if not names & {b"content-length", b"transfer-encoding"}:
        body.complete = True
    if scope.get("http_version", "1.1").startswith("1"):  # later ones have no such header
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    await body.drain()
    await send({"type": "http.response.body", "body": b""})


def _headers(kind: str, body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def asgi(
    service: EdgeService, *, tokens: Mapping[str, str] | None = None, path: str = PATH, limits: Limits | None = None
) -> Starlette:
    """Make an ASGI application of a service, to be served alone or mounted in one of your own.

    Served alone it closes the service when the server shuts down. A mounted application is not told of that, since ASGI
    servers tell only the outermost one: give yours `lifespan`.

    Parameters
    ----------
    service : EdgeService
    tokens : mapping of str to str, optional
        Bearer tokens and the devices that they identify. Without them everybody is let in: an address is whose quota is
        used, and no identity. A device is then known by what it drew at its start, which only it knows.
    path : str
        Where frames are posted to; ``"/"`` if the mount says it already.
    limits : Limits, optional
        Of the bodies of requests; the service's unless given. Connections are counted by the server around it.

    Raises
    ------
    MissingDependencyError
        The extra ``http`` is not installed.

    Examples
    --------
    In a FastAPI or Starlette application::

        app = FastAPI(lifespan=splitiot.adapters.http.lifespan(service))
        app.mount("/splitiot/v1", splitiot.adapters.http.asgi(service, tokens={...}, path="/"))
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError as error:
        raise MissingDependencyError("starlette", "http") from error
    endpoint = _Endpoint(service, tokens, limits or service.limits)
    return Starlette(routes=[Route(path, endpoint=endpoint)], lifespan=lifespan(service))


def lifespan(service: EdgeService) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """Make the `lifespan` of an application in which a service is mounted: it closes the service at shutdown.

    What tasks hold, a camera or a connection, is so left in order. Where your application has a lifespan already, close
    the service there.

    Parameters
    ----------
    service : EdgeService

    Returns
    -------
    callable
        What FastAPI and Starlette take as ``lifespan=``.
    """

    @contextlib.asynccontextmanager
    async def closing(app: Any) -> AsyncIterator[None]:
        import asyncio

        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    return closing
