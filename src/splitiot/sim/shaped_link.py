"""A TCP forwarder that makes a fast connection slow, far, or dead: real sockets, on this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from types import TracebackType

from splitiot import _fork
from splitiot.errors import LocalProtocolError
from splitiot.topology import Link

__all__ = ["ShapedLink"]

_CHUNK_BYTES = 2048
_QUEUED_CHUNKS = 64


class ShapedLink:
    """Forwards connections to `port` with the rates and the delay of a `Link`, until told otherwise.

    Both directions are shaped, each shared by all connections; half of the round trip each. It listens on
    127.0.0.1 and runs in a thread of its own, in the process that started it: one that is forked can connect through
    it, and not change it.

    Parameters
    ----------
    port : int
        Where the edge listens, on 127.0.0.1.
    link : Link
    jitter_s : float
        Added to each delay, uniformly from 0 to this.
    seed : int
        Of the jitter.

    Examples
    --------
    Put it between a device and an edge::

        with ShapedLink(edge_port, Link.from_mbit_per_s(20, rtt_s=0.004)) as shaped:
            transport = HttpTransport(f"http://127.0.0.1:{shaped.port}")
            shaped.link = Link.from_mbit_per_s(0.5, rtt_s=0.05)   # from now on
            shaped.cut()                                          # and now nothing
    """

    def __init__(self, port: int, link: Link, *, jitter_s: float = 0.0, seed: int = 0) -> None:
        self.link = link
        """What is imitated; may be changed at any time."""
        self._to, self._jitter_s, self._random = port, jitter_s, random.Random(seed)
        self._alive = True
        self._port = 0
        self._free_s = {"up": 0.0, "down": 0.0}
        self._connections: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="splitiot-shaped-link", daemon=True)
        self._ours = True
        _fork.in_child(self._disown)

    def _disown(self) -> None:
        self._ours = False
        _fork.leave(self._loop)  # its selector is the parent's, too

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self._port

    def start(self) -> ShapedLink:
        """Begin to listen.

        Raises
        ------
        LocalProtocolError
            It was started before, no port can be had, or the process was forked since it was made.
        """
        self._check_ours()
        if self._thread.ident is not None or self._loop.is_closed():
            raise LocalProtocolError("a shaped link can be started once: make a new one")
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise LocalProtocolError(f"the shaped link could not start: {self._failure}") from self._failure
        return self

    def cut(self) -> None:
        """Break all connections and refuse new ones until `heal`."""
        self._check_ours()
        self._alive = False
        self._loop.call_soon_threadsafe(self._break)

    def heal(self) -> None:
        """Let connections through again."""
        self._check_ours()
        self._alive = True

    def close(self) -> None:
        """End it, and every connection."""
        if not self._ours:
            return
        if self._thread.is_alive() and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=5.0)
        elif self._thread.ident is None and not self._loop.is_closed():
            self._loop.close()

    def __enter__(self) -> ShapedLink:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_ours(self) -> None:
        if not self._ours:
            raise LocalProtocolError("this shaped link is of the process that this one was forked from: use it there")

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        tasks = list(self._connections)
        self._break()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)  # aborted connections end in the next rounds of the loop

    def _break(self) -> None:
        for task in self._connections:
            task.cancel()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._accept(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # also where it is cancelled before its first step
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._alive:
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # a broken connection is what this is for
        finally:
            await _close(writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        edge_reader, edge_writer = await asyncio.open_connection("127.0.0.1", self._to)
        both = [
            asyncio.ensure_future(self._carry(reader, edge_writer, "up")),
            asyncio.ensure_future(self._carry(edge_reader, writer, "down")),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            try:
                await asyncio.gather(*both, return_exceptions=True)
            finally:  # cancelled again, while cleaning up
                await _close(edge_writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)
        delivery = asyncio.ensure_future(self._deliver(queue, writer))
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                link, now_s = self.link, self._loop.time()
                rate = link.up_bytes_per_s if way == "up" else link.down_bytes_per_s
                self._free_s[way] = max(now_s, self._free_s[way]) + len(chunk) / rate
                delay_s = link.rtt_s / 2 + self._random.uniform(0, self._jitter_s)
                await queue.put((self._free_s[way] + delay_s, chunk))
            await queue.join()
        finally:
            delivery.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await delivery

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due_s, chunk = await queue.get()
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            writer.write(chunk)
            await writer.drain()
            queue.task_done()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Let what was written leave, but do not wait for a peer that takes nothing."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), 0.2)
    except (TimeoutError, OSError, asyncio.CancelledError):
        writer.transport.abort()
