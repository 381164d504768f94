"""A server of its own for an edge (uvicorn)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from splitiot.adapters.http._address import is_loopback
from splitiot.adapters.http._endpoint import asgi
from splitiot.adapters.http._grace import Grace
from splitiot.adapters.http._sparingly import sparingly
from splitiot.errors import MissingDependencyError
from splitiot.limits import Limits

if TYPE_CHECKING:
    from splitiot.edge import EdgeService

__all__ = ["serve", "serve_within"]


def serve(
    service: EdgeService,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    tokens: Mapping[str, str] | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    allow_plaintext: bool = False,
    allow_anonymous: bool = False,
    proxies: Sequence[str] = (),
    limits: Limits | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until interrupted.

    It ends within ``limits.shutdown_s`` of SIGTERM or SIGINT: requests under way may finish, then connections are
    closed. If the event loop itself hangs, the process ends by force.

    Parameters
    ----------
    service : EdgeService
    host, port : str and int
        Port 0 takes a free one; `ready` is told which.
    tokens : mapping of str to str, optional
        As for `asgi`.
    certfile, keyfile : str, optional
        PEM files: then HTTPS is spoken.
    allow_plaintext, allow_anonymous : bool
        Permit other machines without encryption, or without tokens.
    proxies : sequence of str
        The addresses or networks of reverse proxies that are trusted to say in ``X-Forwarded-For`` whose request it is.
        Of others that header says nothing.
    limits : Limits, optional
        Of connections and bodies; the service's unless given.
    ready : callable, optional
        Called with the port once connections are accepted.

    Raises
    ------
    ValueError
        Other machines could connect, and encryption or tokens are missing; or a proxy's address is none.
    MissingDependencyError
        The extra ``http`` is not installed.
    """
    limits = limits or service.limits
    with Grace(limits.shutdown_s) as grace:
        serve_within(
            grace,
            service,
            host=host,
            port=port,
            tokens=tokens,
            certfile=certfile,
            keyfile=keyfile,
            allow_plaintext=allow_plaintext,
            allow_anonymous=allow_anonymous,
            proxies=proxies,
            limits=limits,
            ready=ready,
        )


def serve_within(
    grace: Grace,
    service: EdgeService,
    *,
    host: str,
    port: int,
    tokens: Mapping[str, str] | None,
    certfile: str | None,
    keyfile: str | None,
    allow_plaintext: bool,
    allow_anonymous: bool,
    proxies: Sequence[str],
    limits: Limits,
    ready: Callable[[int], None] | None,
) -> None:
    """Serve as `serve` does, in a process that has more to end than this server: the time counts from the signal."""
    if isinstance(proxies, str):
        raise ValueError(f"proxies are several addresses: give [{proxies!r}]")
    for address in proxies:
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise ValueError(f"{address!r} is no address or network of a proxy: {error}") from None
    if not is_loopback(host):
        if certfile is None and not allow_plaintext:
            raise ValueError(
                f"{host} is open to other machines without encryption: give a certificate, or allow_plaintext=True "
                "in a network that you trust"
            )
        if tokens is None and not allow_anonymous:
            raise ValueError(f"{host} is open to other machines: give tokens, or allow_anonymous=True")
    try:
        import uvicorn

        from splitiot.adapters.http._server import FINISHING_S, EdgeServer
    except ImportError as error:
        raise MissingDependencyError("uvicorn", "http") from error

    settings: dict[str, Any] = {"host": host, "port": port, "log_config": None, "access_log": False, "ws": "none"}
    settings |= {"proxy_headers": bool(proxies), "forwarded_allow_ips": list(proxies), "http": "h11"}
    settings |= {"timeout_keep_alive": limits.idle_timeout_s}
    settings |= {"timeout_graceful_shutdown": max(limits.shutdown_s - FINISHING_S, limits.shutdown_s / 2)}
    config = uvicorn.Config(
        asgi(service, tokens=tokens, limits=limits),
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
        lifespan="off",
        **settings,
    )
    with sparingly("uvicorn.error", "asyncio", "splitiot"):
        EdgeServer(config, limits=limits, proxies=proxies, grace=grace, ready=ready).run()
