"""Many requests at once: device, link and edge work on different frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from attrs import evolve, frozen

from splitiot import _fork
from splitiot.device._carrier import SLICE_S
from splitiot.device._core import Core, PlannedRequest, RequestEnded, failed_outcome, step_error
from splitiot.errors import LocalProtocolError
from splitiot.pipeline import copied
from splitiot.plan import Outcome
from splitiot.session import RunLocal

__all__ = ["Keep", "Stream"]

Keep = Literal["all", "newest"]

# The longest single wait for a frame. What falls due meanwhile, such as a hedge, is late by up to this.
_HASTE_S: Final = 0.005
_LEISURE_S: Final = 0.02
_JOIN_S: Final = 1.0


@frozen
class _Frame:
    index: int
    value: Any
    begun_s: float


class Stream:
    """Frames on their way through a device, in order.

    Three threads beside the caller's: one takes the frames from their source, one is the device's compute lane (local
    finishes, then heads), one listens to the edge. All that they share is guarded by one lock; what takes long (a
    head, a wait) is done without it.
    """

    def __init__(
        self,
        core: Core,
        frames: Iterable[Any],
        *,
        window: int,
        keep: Keep,
        copy: bool,
        deadline_s: float | None,
        telemetry: Callable[[], Mapping[str, float] | None],
    ) -> None:
        self._core, self._frames = core, frames
        self._window, self._keep, self._deadline_s, self._telemetry = window, keep, deadline_s, telemetry
        self._copy, self._ours = copy, True
        self._new_locks()
        self._waiting: deque[_Frame] = deque()
        self._numbers: dict[int, _Frame] = {}  # frames in the session, by sequence number
        self._order: deque[int] = deque()  # indices of begun frames that the caller still waits for
        self._outcomes: dict[int, Outcome] = {}  # by frame index
        self._taken = 0  # frames taken from the source
        self._exhausted = self._stopped = self._closed = False
        self._error: BaseException | None = None
        self._source_error: BaseException | None = None
        self._headed = False  # a head runs, or has run, and is not submitted to the session yet
        self._idle = False  # the compute lane has finished
        _fork.in_child(self._disown)

    def _disown(self) -> None:
        """End it in a process that was forked, which has none of its threads: the frames are the parent's."""
        self._ours, self._stopped = False, True
        self._new_locks()

    def _new_locks(self) -> None:
        # use `with self._lock`, not the condition: a signal handler that raises could leave that one locked
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._nothing_new = threading.Lock()  # held while there is nothing new for the caller
        self._nothing_new.acquire()

    def _tell(self) -> None:
        """Something has changed; the caller holds the lock."""
        self._changed.notify_all()
        if self._nothing_new.locked():
            self._nothing_new.release()

    def outcomes(self) -> Iterator[Outcome]:
        """Give the outcomes in order; closing this ends all."""
        core = self._core
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"splitiot-{name}", daemon=True)
            for name, work in (("source", self._feed), ("lane", self._compute), ("listener", self._listen))
        ]
        try:
            for thread in threads:
                thread.start()
            while (outcome := self._next()) is not None:
                yield outcome
        finally:
            with self._lock:
                self._stopped = True
                self._tell()
            for thread in filter(threading.Thread.is_alive, threads[1:]):
                thread.join()  # wait for a running head: it still needs the runner
            if threads[0].is_alive():
                threads[0].join(_JOIN_S)  # a source that blocks can't be stopped
            with self._lock:
                if self._ours and (core.session.pending or self._headed):
                    core.abandon()

    def stop(self) -> bytes | None:
        """End all at once, from another thread: the device is closed. Return what `Core.save` shall save."""
        with self._lock:
            self._stopped = self._closed = True
            self._tell()
            return self._core.unsaved(due=False)

    def _next(self) -> Outcome | None:
        """Wait for the outcome of the next frame in order; None at the end."""
        while True:
            with self._lock:
                if not self._ours:
                    raise LocalProtocolError(
                        "this stream was begun before the process was forked, and goes on in the parent only: "
                        "call map here for frames of your own"
                    )
                if self._order and self._order[0] in self._outcomes:
                    outcome = self._outcomes.pop(self._order.popleft())
                    self._tell()
                    return outcome
                if self._error is not None:
                    raise self._error
                if self._exhausted and not self._order and not self._waiting:
                    if self._source_error is not None:
                        raise self._source_error
                    return None
                if self._closed:  # it was closed while frames still had no outcome
                    raise LocalProtocolError("this device was closed")
            self._nothing_new.acquire(timeout=SLICE_S)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised in the caller, after the outcomes that exist
            with self._lock:
                self._error = self._error or error
        finally:
            with self._lock:
                self._tell()

    # the source

    def _feed(self) -> None:
        try:
            for value in self._pulled():
                begun_s = self._core.clock()
                with self._lock:
                    if self._stopped:
                        return
                    if self._keep == "newest" and self._waiting:
                        self._waiting.popleft()
                        self._core.session.counters.skipped += 1
                    self._waiting.append(_Frame(self._taken, value, begun_s))
                    self._taken += 1
                    self._tell()
        except BaseException as error:  # frames that were already taken go on
            self._source_error = error
        finally:
            with self._lock:
                self._exhausted = True
                self._tell()

    def _pulled(self) -> Iterator[Any]:
        frames = iter(self._frames)
        while True:
            if self._keep == "all":  # take a frame only when there is room: a camera's picture would age here
                with self._lock:
                    while not self._stopped and len(self._waiting) + len(self._order) >= self._window:
                        self._changed.wait(SLICE_S)
            if self._stopped:
                return
            try:
                value = next(frames)
            except StopIteration:
                return
            yield copied(value) if self._copy else value

    # the device's compute lane

    def _compute(self) -> None:
        core = self._core
        while (work := self._work()) is not None:
            if isinstance(work, RunLocal):
                rest = core.finish(work)
                with self._lock:
                    core.pump(core.finished(work, rest))
                    self._collect()
                continue
            try:
                self._advance(work)
            except RequestEnded as ended:
                self._end(work, ended.outcome)
        self._idle = True

    def _advance(self, frame: _Frame) -> None:
        """Bring a frame as far as the session."""
        core, request = self._core, self._begin(frame)
        self._headed = True
        head = core.head(request)
        with self._lock:
            if core.pipeline.remembers_from(request.cut):  # the edge takes these one at a time, in order
                while self._numbers and not self._stopped:
                    self._changed.wait(SLICE_S)
            if self._stopped:
                return
            try:
                sequence = core.submit(request, head, self._queued_head_s(request))
            except RequestEnded:
                self._headed = False
                raise
            self._headed = False
            self._numbers[sequence] = frame
            self._collect()

    def _work(self) -> _Frame | RunLocal | None:
        with self._lock:
            while not self._stopped:
                if finish := self._core.next_finish():
                    return finish
                if self._waiting and len(self._order) < self._window and not self._core.session.full:
                    self._order.append(self._waiting[0].index)
                    return self._waiting.popleft()
                if self._exhausted and not self._waiting and not self._numbers:
                    return None
                self._changed.wait(SLICE_S)
        return None

    def _begin(self, frame: _Frame) -> PlannedRequest:
        core = self._core
        if core.planner is None:
            own = core.measured(frame.value, frame.begun_s)
            with self._lock:
                core.planning.begin(own)
        try:
            payload = core.pipeline.bind(frame.value)
        except Exception as error:
            outcome = failed_outcome(None, step_error(error), None, core.clock() - frame.begun_s)
            raise RequestEnded(outcome) from error
        with self._lock:
            return core.begin(payload, frame.begun_s, self._deadline_s, self._telemetry())

    def _queued_head_s(self, request: PlannedRequest) -> float:
        """How long a local finish may have to wait: for the head of the next frame."""
        planner = self._core.planner
        return 0.0 if planner is None or self._window == 1 else planner.finish_s(0) - planner.finish_s(request.cut)

    def _end(self, frame: _Frame, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes[frame.index] = evolve(outcome, index=frame.index)
            self._tell()

    def _collect(self) -> None:
        """Take over what has ended in the session."""
        core = self._core
        for sequence in [number for number in core.done if number in self._numbers]:
            self._end(self._numbers.pop(sequence), core.take(sequence))
        if core.finishes:
            self._tell()

    # the link

    def _listen(self) -> None:
        core = self._core
        wait_s = _LEISURE_S if self._deadline_s is None else _HASTE_S
        while not (self._stopped or self._idle):
            received = core.receive(wait_s)
            with self._lock:
                core.handle_all(received)
                if self._stopped:
                    return
                self._collect()
                if received is not None and isinstance(received.frame, Exception):  # it may raise again at once
                    self._changed.wait(wait_s)
                unsaved = core.unsaved()
            core.save(unsaved)
