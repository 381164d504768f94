"""uvicorn with bounds: for connections, for how long each may take, and for the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from splitiot._log import logger
from splitiot.adapters.http._gate import CONNECTION, Connection, Gate

if TYPE_CHECKING:
    from splitiot.adapters.http._grace import Grace
    from splitiot.limits import Limits

try:
    import h11
    import uvicorn
    from uvicorn import Server
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError:  # without the extra every module can still be imported: `serve` says what is missing
    H11Protocol = Server = object  # type: ignore[misc,assignment]  # never instantiated

__all__ = ["FINISHING_S", "EdgeProtocol", "EdgeServer"]

_AT_ONCE = 8  # connections accepted before others get their turn
_PIECE_BYTES = 64 * 1024  # bytes read before others get their turn
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S = 0.2  # before accepting again when the system has run out of something
_SWEEP_S = 0.25
_FAREWELL_S = 0.5
_SWALLOWED_BYTES = 256 * 1024
FINISHING_S = 0.5  # of the shutdown time, kept for what follows the last request
_uvicorn = logging.getLogger("uvicorn.error")


class EdgeProtocol(H11Protocol):
    """One connection, with an eye on what it does not do.

    Bodies are read by the endpoint, which bounds them; here is what comes before and behind them.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: Any,
        app_state: dict[str, Any],
        *,
        connection: Connection,
        limits: Limits,
    ) -> None:
        super().__init__(config, server_state, {**app_state, CONNECTION: connection})
        self._connection, self._limits = connection, limits
        self._watched: object = None  # the request that was under way at the last sweep
        self._waiting_since_s = self.loop.time()
        self._unsent, self._unsent_since_s = 0, 0.0
        self._closing_since_s = math.inf
        self._swallowed = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it as well
        """Take the place that the gate gave this connection."""
        super().connection_made(transport)
        self._connection.end = transport.abort
        self._connection.unsent = transport.get_write_buffer_size
        if hasattr(transport, "max_size"):  # what asyncio reads in one turn, 256 KiB; with TLS it is bounded elsewhere
            transport.max_size = _PIECE_BYTES
        if self._connection not in self._connection.gate:  # another one has taken its place meanwhile
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._connection.gate.leave(self._connection)
        self._connection.unsent = _nothing
        self._connection.taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; of a body that was refused already, only some."""
        self._connection.idle_since_s = None
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete:
            self._swallowed += len(data)
            if self._swallowed > _SWALLOWED_BYTES:
                self.transport.abort()

    def handle_events(self) -> None:
        """Take what has come; whatever it is, it ends this connection at most."""
        try:
            super().handle_events()
        except h11.ProtocolError:  # the peer breaks HTTP when no answer can be sent
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Tell the peer that it breaks HTTP, and a request that is under way that nobody takes its answer any more."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Note since when nothing is asked."""
        super().on_response_complete()
        if self.cycle.response_complete and not self._connection.unsent():  # else the next request is there already
            self._connection.idle_since_s = self.loop.time()

    def shutdown(self) -> None:
        """End once the request that is under way has its answer."""
        try:
            super().shutdown()
        except h11.ProtocolError:
            self.transport.abort()

    def end_if_stalled(self, now_s: float) -> None:
        """End the connection if its peer takes too long: called several times a second."""
        if self.transport is None:  # the TLS handshake has a time-out of its own
            return
        waits = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        if not waits or self.cycle is not self._watched:
            self._watched, self._waiting_since_s = self.cycle, now_s
        elif now_s - self._waiting_since_s >= self._limits.header_timeout_s:
            self.transport.abort()
        unsent = self._connection.unsent()
        if not unsent:
            self._connection.taken()
            if self.timeout_keep_alive_task is not None and self._connection.idle_since_s is None:
                self._connection.idle_since_s = now_s
            if self.transport.is_closing():  # TLS waits for the peer's goodbye, which need not come
                self._closing_since_s = min(self._closing_since_s, now_s)
                if now_s - self._closing_since_s >= _FAREWELL_S:
                    self.transport.abort()
        enough = self._unsent - unsent >= self._limits.min_bytes_per_s * self._limits.stall_s
        if not unsent or not self._unsent or enough or unsent > self._unsent:
            self._unsent, self._unsent_since_s = unsent, now_s
        elif now_s - self._unsent_since_s >= self._limits.stall_s:
            self.transport.abort()


def _nothing() -> int:
    return 0


class Listener:
    """Accepts connections while a gate lets them in; stands where uvicorn has a server of asyncio.

    asyncio's own accepts whatever comes, and logs a traceback each second for each time that no file is left. Here a
    connection costs little until its peer has said something: only then it gets a protocol.

    Parameters
    ----------
    sockets : list of socket
        They listen.
    gate : Gate
    make_protocol : callable
    tls : SSLContext, optional
    silence_s : float
        How long a peer may say nothing, and how long the TLS handshake may take.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        gate: Gate,
        make_protocol: Callable[[Connection], EdgeProtocol],
        tls: ssl.SSLContext | None,
        silence_s: float,
    ) -> None:
        self.sockets = sockets
        self._gate, self._make_protocol = gate, make_protocol
        self._loop = asyncio.get_running_loop()
        self._tls: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": silence_s}
        self._silence_s = silence_s
        self._silent: dict[Connection, tuple[socket.socket, float]] = {}  # since when; the oldest first
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for each in sockets:
            each.setblocking(False)
            self._loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Accept no more."""
        for each in self.sockets:
            self._loop.remove_reader(each)
            if each in self._pauses:
                self._pauses.pop(each).cancel()
            each.close()
        for connection in list(self._silent):
            self._drop(connection)
        for task in self._tasks:
            task.cancel()
        self.sockets = []

    def end_silent(self, now_s: float) -> None:
        """End the connections whose peers have said nothing for too long: called several times a second."""
        while self._silent:
            connection, (_, since_s) = next(iter(self._silent.items()))
            if now_s - since_s < self._silence_s:
                return
            self._drop(connection)

    async def wait_closed(self) -> None:
        """Return at once: connections are waited for elsewhere."""

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_FILES:
                    raise
                self._gate.make_room()
                logger.warning("no connection can be accepted for a moment: %s", error)
                self._loop.remove_reader(listening)
                self._pauses[listening] = self._loop.call_later(_PAUSE_S, self._resume, listening)
                return
            connection = self._gate.admit(address[0] if isinstance(address, tuple) else "")
            if connection is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            # asyncio does it only for sockets that say they are of TCP, which accepted ones do not. Head and body are
            # two writes, and the second would wait 40 ms for the acknowledgement of the first
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._silent[connection] = accepted, self._loop.time()
            connection.end = partial(self._drop, connection)
            self._loop.add_reader(accepted, self._begin, connection)

    def _drop(self, connection: Connection) -> None:
        """End a connection whose peer has said nothing yet."""
        accepted, _ = self._silent.pop(connection)
        self._loop.remove_reader(accepted)
        accepted.close()
        self._gate.leave(connection)

    def _begin(self, connection: Connection) -> None:
        """Make a protocol for a connection on which something has come."""
        accepted, _ = self._silent[connection]
        try:
            gone = not accepted.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            gone = True
        if gone:
            self._drop(connection)
            return
        del self._silent[connection]
        self._loop.remove_reader(accepted)
        task = self._loop.create_task(self._open(accepted, connection))
        connection.end = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resume(self, listening: socket.socket) -> None:
        del self._pauses[listening]
        self._loop.add_reader(listening, self._accept, listening)

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        opened = False
        try:
            protocol = self._make_protocol(connection)
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, **self._tls)
            opened = True
        except (OSError, asyncio.CancelledError):  # the handshake failed, or its place was wanted
            pass
        finally:
            if not opened:
                accepted.close()
                self._gate.leave(connection)


class EdgeServer(Server):
    """uvicorn's server with a `Listener`, and with an end that comes."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        limits: Limits,
        proxies: Sequence[str],
        grace: Grace,
        ready: Callable[[int], None] | None,
    ) -> None:
        super().__init__(config)
        self._limits, self._grace, self._ready = limits, grace, ready
        self._gate = Gate(
            max_connections=_within_files(limits.max_connections),
            max_per_address=limits.max_connections_per_address,
            proxies=proxies,
        )
        self._sweeping: asyncio.TimerHandle | None = None

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and begin to watch connections."""
        await self.lifespan.startup()
        config = self.config
        try:
            listening = await _listen(config.host, config.port, config.backlog)
        except OSError as error:
            _uvicorn.error(error)
            await self.lifespan.shutdown()
            sys.exit(1)
        self._listener = Listener(listening, self._gate, self._protocol, config.ssl, self._limits.header_timeout_s)
        self.servers = [self._listener]  # type: ignore[list-item]  # has all that uvicorn asks of one
        port = listening[0].getsockname()[1]
        _uvicorn.info("listening on %s port %d", config.host, port)
        self.started = True
        self._sweep()
        if self._ready is not None:
            self._ready(port)

    async def shutdown(self, sockets: Any = None) -> None:
        """Let requests end as long as there is time, then end every connection."""
        await super().shutdown(sockets=sockets)
        if self._sweeping is not None:
            self._sweeping.cancel()
        for protocol in list(self.server_state.connections):
            protocol.transport.abort()
        await asyncio.sleep(0)  # transports end in the next turn

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: the first begins the end, the second wants it at once."""
        self._grace.begin()
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)

    def _protocol(self, connection: Connection) -> EdgeProtocol:
        return EdgeProtocol(
            self.config, self.server_state, self.lifespan.state, connection=connection, limits=self._limits
        )

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._listener.end_silent(now_s)
        for protocol in list(self.server_state.connections):
            if isinstance(protocol, EdgeProtocol):
                protocol.end_if_stalled(now_s)
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep)


async def _listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen at each address of a host; at those that work, where a machine lacks one of two protocols."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening: list[socket.socket] = []
    failed: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(addresses):
        try:
            listening.append(socket.create_server(address, family=family, backlog=backlog))
        except OSError as error:
            failed = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    if not listening or (failed is not None and failed.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)):
        for each in listening:
            each.close()
        raise failed or OSError(f"{host} has no address")
    return listening


def _within_files(wanted: int) -> int:
    """Return how many connections fit into the process's limit of open files, with some left for everything else."""
    try:
        import resource
    except ImportError:  # not a Unix: its limit is another one, and high
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    open_already = 0
    with contextlib.suppress(OSError):
        open_already = len(os.listdir("/dev/fd"))
    room = max(1, files - open_already - max(32, files // 8))
    if wanted > room:
        logger.warning(
            "at most %d connections instead of %d: this process may open %d files (ulimit -n)", room, wanted, files
        )
    return min(wanted, room)
