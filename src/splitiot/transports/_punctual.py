"""Time-outs that hold, whatever a transport does."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from splitiot import _fork
from splitiot._log import logger
from splitiot.errors import TransportError, TransportTimeout
from splitiot.transports._base import Transport
from splitiot.transports._failure import failure_of

__all__ = ["Punctual"]

_Ended: TypeAlias = tuple[Any, BaseException | None, float]
"""What a call gave or raised, and when."""

_GRACE_S: Final = 0.02  # how long a call with a time-out of 0 may still take
_LATE_S: Final = 0.5  # a call that is this late was not just unlucky: it ignores its time-out
_EARLY_S: Final = 0.002  # None that comes this long before the time-out is too early
_PAUSE_S: Final = 0.001  # the first pause; each next one is twice as long
_PAUSE_CAP_S: Final = 0.01
_JOIN_S: Final = 0.5


class Punctual(Transport):
    """A transport whose `send` and `receive` keep their time-outs, around one that may not.

    Each is called in a thread of its own: a call that does not come back holds up nobody but its successor, and what
    it gives in the end is not lost. One that comes back too early is made again, with pauses that grow.

    Parameters
    ----------
    inner : Transport
        It is called as it would be without: `send` and `receive` at the same time only where they are asked for at
        the same time, or where one has not come back in time.
    """

    punctual = True

    def __init__(self, inner: Transport) -> None:
        self._inner, self._name = inner, type(inner).__name__
        self.lossy = inner.lossy
        self._failing = False
        self._warned: set[str] = set()
        self._new_lanes()
        _fork.in_child(self._new_lanes)

    def _new_lanes(self) -> None:
        self._sender, self._receiver = _Lane(f"{self._name}.send"), _Lane(f"{self._name}.receive")
        self._sending = threading.Lock()
        self._sent: bytes | None = None  # a frame on its way that `send` has stopped waiting for
        self._late_reported = False  # whether a warning has said that it takes too long
        self._lost: deque[TransportError] = deque()
        for lane in (self._sender, self._receiver):
            weakref.finalize(self, lane.stop)

    def send(self, frame: bytes, *, timeout_s: float, wait_s: float | None = None) -> None:
        """Hand a frame on, and wait `wait_s` (`timeout_s`, unless given) for that.

        What becomes of it after that, `receive` tells.
        """
        lane, wait_s = self._sender, timeout_s if wait_s is None else wait_s
        until_s = time.monotonic() + wait_s
        with self._sending:
            if lane.at_work and not lane.wait(min(wait_s, max(0.0, -lane.late_s))):
                problem = f"{self._name}.send has not come back for {lane.seconds:.1f} s"
                raise TransportTimeout(f"{problem}, and nothing else can be sent meanwhile", frame=frame)
            self._settle()
            lane.start(partial(self._inner.send, frame, timeout_s=timeout_s), timeout_s)
        if lane.wait(max(0.0, until_s - time.monotonic())):
            lane.result()
        else:
            with self._sending:
                self._sent, self._late_reported = frame, False

    def receive(self, *, timeout_s: float) -> bytes | None:
        until_s = time.monotonic() + timeout_s
        pause_s = _PAUSE_S
        lane = self._receiver
        while True:
            self._tell_lost()
            left_s = max(0.0, until_s - time.monotonic())
            late = lane.at_work
            if not late:
                lane.start(partial(self._inner.receive, timeout_s=left_s), left_s)
            if not lane.wait(left_s if lane.late_s > _GRACE_S else max(left_s, _GRACE_S)):
                if lane.late_s > _LATE_S:
                    self._warn("receive", "waits longer than it may: its thread waits for it now")
                self._tell_lost()
                return None
            self.waited_s, self.queued_s = self._inner.waited_s, self._inner.queued_s
            if late:  # an earlier `receive` began the call: the frame has waited since it ended
                self.waited_s = time.monotonic() - lane.ended_s + (self.waited_s or 0.0)
            try:
                frame: bytes | None = lane.result()
            except Exception:
                if self._failing:  # pause, so that a caller who retries at once does not spin
                    time.sleep(min(max(0.0, until_s - time.monotonic()), _PAUSE_CAP_S))
                self._failing = True
                raise
            self._failing = False
            rest_s = until_s - time.monotonic()
            if frame is not None or rest_s <= _EARLY_S:
                return frame
            if pause_s >= _PAUSE_CAP_S:
                self._warn("receive", f"gives None too early: it is asked every {_PAUSE_CAP_S * 1e3:.0f} ms")
            time.sleep(min(rest_s, pause_s))
            pause_s = min(2 * pause_s, _PAUSE_CAP_S)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            for lane in (self._sender, self._receiver):
                lane.stop(_JOIN_S)

    def after_fork(self) -> None:
        self._inner.after_fork()

    def _tell_lost(self) -> None:
        """Raise what is known of a frame for which `send` waits no longer."""
        with self._sending:
            lane, frame = self._sender, self._sent
            if frame is not None and lane.wait(0.0):
                self._settle()
            elif frame is not None and lane.late_s > _LATE_S and not self._late_reported:
                self._late_reported = True
                self._warn("send", "takes longer than it may: its thread waits for it now")
                self._lost.append(TransportTimeout(f"{self._name}.send has not come back in time", frame=frame))
        if self._lost:
            raise self._lost.popleft()

    def _settle(self) -> None:
        """Note what became of that frame."""
        frame, self._sent = self._sent, None
        if frame is None:
            return
        try:
            self._sender.result()
        except Exception as error:
            if not self._late_reported:
                failure = error if isinstance(error, TransportError) else failure_of(self._name, "send", error)
                failure.frame = frame
                self._lost.append(failure)

    def _warn(self, method: str, complaint: str) -> None:
        if complaint not in self._warned:
            self._warned.add(complaint)
            logger.warning("%s.%s %s", self._name, method, complaint)


class _Lane:
    """A thread that makes one call at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.timeout_s = self._began_s = 0.0
        self._thread: threading.Thread | None = None
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[_Ended] = queue.SimpleQueue()
        self._result: _Ended | None = None
        self.at_work = False
        """Whether a call was started whose result nobody has taken."""

    @property
    def seconds(self) -> float:
        """How long the call takes by now."""
        return time.monotonic() - self._began_s

    @property
    def ended_s(self) -> float:
        """When the call ended that has ended."""
        return math.inf if self._result is None else self._result[2]

    @property
    def late_s(self) -> float:
        """How much longer that is than it may."""
        return self.seconds - self.timeout_s

    def start(self, call: Callable[[], Any], timeout_s: float) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=_work, args=(self._calls, self._ended), name=self._name, daemon=True
            )
            self._thread.start()
        self.at_work, self.timeout_s, self._began_s = True, timeout_s, time.monotonic()
        self._calls.put(call)

    def wait(self, timeout_s: float) -> bool:
        """Whether the call has ended by then."""
        if self._result is None:
            try:
                self._result = self._ended.get(timeout=timeout_s) if timeout_s > 0 else self._ended.get_nowait()
            except queue.Empty:
                return False
        return True

    def result(self) -> Any:
        """Return, or raise, what the call that has ended gave."""
        assert self._result is not None
        (value, error, _), self._result = self._result, None
        self.at_work = False
        if error is not None:
            raise error
        return value

    def stop(self, join_s: float = 0.0) -> None:
        """End the thread; one that does not come back is left alone."""
        if self._thread is not None:
            self._calls.put(None)
            if join_s:
                self._thread.join(join_s)


def _work(
    calls: queue.SimpleQueue[Callable[[], Any] | None], ended: queue.SimpleQueue[_Ended]
) -> None:
    while (call := calls.get()) is not None:
        try:
            value, failed = call(), None
        except BaseException as error:  # the waiting caller gets it, KeyboardInterrupt too
            value, failed = None, error
        ended.put((value, failed, time.monotonic()))
        del call, value, failed
