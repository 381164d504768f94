"""What carries frames."""

from __future__ import annotations

import abc
import queue
import threading
import time
import warnings
import weakref

from splitiot import _fork
from splitiot.errors import LocalProtocolError, TransportBug, TransportError, TransportTimeout
from splitiot.transports._failure import failure_of

__all__ = ["RoundTrip", "Transport"]


class Transport(abc.ABC):
    """Carries frames to an edge and back. `send` is called by one thread at a time, and so is `receive`.

    In a stream (`Device.map`) one thread waits in `receive` while others call `send`; elsewhere there is only one.
    Frames are whole messages: a transport neither reads nor changes them. Nothing need be reliable: the session
    matches answers to requests, and ends requests whose answers never come.

    Attributes
    ----------
    lossy : bool
        Whether a frame, or the answer to it, may be lost without a word. Then requests whose answers are late are sent
        again. False: `receive` raises for each one that is lost.
    punctual : bool
        Whether `send` and `receive` keep their time-outs whatever happens, in the middle of a frame too. False: a
        device calls them in threads of their own, so that its deadlines hold anyway; that costs about 0.1 ms a request.
    waited_s : float, optional
        How long the frame that `receive` returned last had been here by then, on any clock of your own: set it in
        `receive` where something else (a thread, a callback, a driver) takes the frames in. None, as long as nobody
        sets it: that is unknown, and what is read long after it may have come measures no link.
    queued_s : float
        How long the request that this frame answers had waited here before it was on its way: in a queue, or for a
        connection. That is no time of the network.
    """

    lossy: bool = True
    punctual: bool = False
    waited_s: float | None = None
    queued_s: float = 0.0

    @abc.abstractmethod
    def send(self, frame: bytes, *, timeout_s: float) -> None:
        """Hand a frame on.

        Raises
        ------
        TransportError
            It can't be carried. Errors known only later come from `receive`, with the frame in their `frame`.
        """

    @abc.abstractmethod
    def receive(self, *, timeout_s: float) -> bytes | None:
        """Wait for the next frame, at most `timeout_s`; None when there was none. 0 s: only look.

        Raises
        ------
        TransportError
            A frame that was sent is known to be lost; it stands in the error's `frame`.
        """

    def close(self) -> None:  # noqa: B027  (not every transport holds something)
        """Free what it holds. Both directions end."""

    def after_fork(self) -> None:
        """Begin anew in a process that was forked: a device calls it there before it uses the transport.

        A connection that parent and child both use gives one the other's answers. So close your copies of the parent's
        descriptors (without saying goodbye on them), make connections, locks and threads anew, and call
        nothing of the class you inherit from. Where nothing is held there is nothing to do.

        Raises
        ------
        LocalProtocolError
            Unless it is overridden.
        """
        name = type(self).__name__
        raise LocalProtocolError(
            f"this {name} was made before the process was forked, and what it holds is the parent's: make device and "
            f"transport in each process, or write {name}.after_fork, which lets go of that"
        )


class RoundTrip(Transport):
    """A transport over a protocol of requests and replies: write `exchange`, queue and threads are here.

    Parameters
    ----------
    workers : int
        How many exchanges may be under way at once; the threads are started when they are needed.
    timeout_s : float
        The longest an exchange may take. A request whose deadline passes earlier ends then; its late answer still
        teaches. A frame that no worker took in the time that `send` was given is not carried any more.
    max_waiting, max_waiting_bytes : int
        How many frames, and bytes of them, may be here: those that wait for a worker or for their answer, and answers
        that nobody has read. `send` refuses what would be more, at once. A frame that is alone is never too large.

    Notes
    -----
    An answer's time is when `exchange` returned it, whenever somebody comes to read it. The time that a request waited
    for a worker does not count as the network's, nor what `exchange` does before it calls `sending`.

    Examples
    --------
    >>> class Shout(RoundTrip):
    ...     def exchange(self, request, *, timeout_s):
    ...         return request.upper()
    >>> transport = Shout()
    >>> transport.send(b"hello", timeout_s=1.0)
    >>> transport.receive(timeout_s=1.0)
    b'HELLO'
    >>> transport.close()
    """

    lossy = False
    punctual = True

    def __init__(
        self,
        *,
        workers: int = 8,
        timeout_s: float = 10.0,
        max_waiting: int = 256,
        max_waiting_bytes: int = 128 * 2**20,
    ) -> None:
        for name, number in (("workers", workers), ("max_waiting", max_waiting)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        self._workers, self._timeout_s = workers, timeout_s
        self._max_waiting, self._max_waiting_bytes = max_waiting, max_waiting_bytes
        self._own = threading.local()  # per worker: when its request was sent
        self._closed = False
        self._new_queues()
        _fork.in_child(self._new_queues)

    def _new_queues(self) -> None:
        """Make queues and lock for threads that do not exist yet, or not in this process."""
        self._requests: queue.SimpleQueue[tuple[bytes, float, float] | None] = queue.SimpleQueue()
        # each reply, when it came, and how long its request had waited for a worker
        self._replies: queue.SimpleQueue[tuple[bytes | TransportError, float, float]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._under_way = self._held_bytes = 0

    @abc.abstractmethod
    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        """Send a request, wait for its reply. Called by several threads at once.

        Raises
        ------
        TransportError
            There is no reply. Other exceptions count as that too.
        """

    def sending(self) -> None:
        """Say, in `exchange`, that the request goes on its way now: the connection is there.

        Optional: without it, all the time that `exchange` takes is the network's and the edge's.
        """
        self._own.sent_s = time.monotonic()

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        _fork.check()
        with self._lock:
            if self._closed:
                raise TransportError("the transport is closed", frame=frame)
            waiting = self._under_way + self._replies.qsize()
            if waiting and (
                waiting >= self._max_waiting or self._held_bytes + len(frame) > self._max_waiting_bytes
            ):
                reason = f"{waiting} frames with {self._held_bytes} bytes wait already, and no more may"
                raise TransportError(reason, frame=frame)
            self._under_way += 1
            self._held_bytes += len(frame)
            if self._under_way > len(self._threads) and len(self._threads) < self._workers:
                thread = threading.Thread(
                    target=_work, args=(weakref.ref(self), self._requests), name=f"{type(self).__name__}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
        now_s = time.monotonic()
        self._requests.put((frame, now_s, now_s + timeout_s))

    def receive(self, *, timeout_s: float) -> bytes | None:
        try:
            arrival = self._replies.get(timeout=timeout_s) if timeout_s > 0 else self._replies.get_nowait()
        except queue.Empty:
            return None
        reply, came_s, self.queued_s = arrival
        self.waited_s = time.monotonic() - came_s
        if isinstance(reply, TransportError):
            raise reply
        with self._lock:
            self._held_bytes -= len(reply)
        return reply

    def close(self) -> None:
        """Start no exchange any more, and wait a second for those under way; their answers are lost."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
        for _ in threads:
            self._requests.put(None)
        until_s = time.monotonic() + 1.0
        for thread in threads:
            thread.join(timeout=max(0.0, until_s - time.monotonic()))

    def __del__(self) -> None:
        threads: list[threading.Thread] = getattr(self, "_threads", [])  # `__init__` may have raised
        if threads:
            warnings.warn(
                f"{type(self).__name__} was not closed: close the device that uses it, or write `with Device(...)`",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
        for _ in threads:
            self._requests.put(None)

    def _carry(self, frame: bytes, given_s: float, until_s: float) -> None:
        self.sending()
        reply = self._exchanged(frame, until_s)
        came_s = time.monotonic()
        with self._lock:
            self._under_way -= 1
            self._held_bytes -= len(frame)
            if not isinstance(reply, TransportError):
                self._held_bytes += len(reply)
            self._replies.put((reply, came_s, self._own.sent_s - given_s))

    def _exchanged(self, frame: bytes, until_s: float) -> bytes | TransportError:
        if time.monotonic() > until_s:
            return TransportTimeout(f"all {self._workers} workers were busy for too long", frame=frame)
        try:
            reply = self.exchange(frame, timeout_s=self._timeout_s)
        except TransportError as error:
            error.frame = frame
            return error
        except BaseException as error:  # not even sys.exit() may end a worker: its request would never end
            return failure_of(type(self).__name__, "exchange", error, frame)
        if not isinstance(reply, bytes | bytearray | memoryview):
            return TransportBug(f"{type(self).__name__}.exchange returned {type(reply).__name__}", frame=frame)
        return reply


def _work(
    whose: weakref.ref[RoundTrip], requests: queue.SimpleQueue[tuple[bytes, float, float] | None]
) -> None:
    """Carry requests until there are no more, or nobody has the transport any more: a thread does not keep it alive."""
    while (request := requests.get()) is not None:
        transport = whose()
        if transport is None or transport._closed:
            return
        transport._carry(*request)
        del request, transport
