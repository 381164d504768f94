"""The edge's side of HTTP: an endpoint for any ASGI server."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from splitiot.adapters.http._address import FRAME_TYPE, PATH
from splitiot.errors import MissingDependencyError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope
    from starlette.types import Send as AsgiSend

    from splitiot.edge import EdgeService

__all__ = ["asgi", "lifespan"]


class _Endpoint:
    def __init__(self, service: EdgeService, tokens: Mapping[str, str] | None) -> None:
        self._service = service
        # looked up by hash, so that the time taken tells nothing about a token
        self._names = None if tokens is None else {_hash(token): name for token, name in tokens.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        status, body = await self._answer(scope, receive)
        kind = FRAME_TYPE if status == 200 else "text/plain; charset=utf-8"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status == 405:
            headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        headers = dict(scope["headers"])
        if scope["method"] != "POST":
            return 405, b"post a splitiot frame here"
        peer = self._peer(scope, headers)
        if peer is None:
            return 401, b"a valid bearer token is needed"
        limit = self._service.max_frame_bytes
        told = headers.get(b"content-length", b"0")
        if not told.isdigit() or len(told) > 15 or int(told) > limit:
            return 413, f"at most {limit} bytes".encode()
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return 400, b"cut off"
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                return 413, f"at most {limit} bytes".encode()
            more = message.get("more_body", False)
        received_s = self._service.clock()
        frame = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return 200, await self._service.handle_async(frame, peer=peer, received_s=received_s)

    def _peer(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str | None:
        if self._names is None:
            client = scope.get("client")
            return f"anonymous@{client[0]}" if client else "anonymous"
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        return self._names.get(_hash(token)) if scheme.lower() == "bearer" else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def asgi(service: EdgeService, *, tokens: Mapping[str, str] | None = None, path: str = PATH) -> Starlette:
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
    return Starlette(routes=[Route(path, endpoint=_Endpoint(service, tokens))], lifespan=lifespan(service))


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
