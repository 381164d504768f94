"""Runs parts of a pipeline with executables that are opened once and kept."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import TracebackType

from splitiot import _fork
from splitiot.errors import CutError, LocalProtocolError, Overloaded, StateLost
from splitiot.pipeline import DROP, Executable, Payload, Pipeline, Runtime, expect_pipeline

__all__ = ["Runner"]

_LOST_MAX = 65_536


class _State:
    """What one owner's requests have left behind, in the executables of the parts that it runs."""

    __slots__ = ("executables", "forgotten", "lock", "lost")

    def __init__(self) -> None:
        self.lock = threading.Lock()  # one request of an owner at a time: they are ordered
        self.executables: dict[tuple[int, int], Executable] = {}
        self.lost: str | None = None
        self.forgotten = False


def _survives(executable: Executable) -> bool:
    return getattr(executable, "survives", False)


class Runner:
    """Runs parts of one pipeline, from any number of threads.

    Opened parts are kept and used again. A part that runs in several threads at once is opened as often as
    that; an executable is never shared. The least recently used ones are closed when all together hold more
    than `max_bytes`; those at work and the one that was used last stay, so the limit may be exceeded by them.

    The steps of a stateful pipeline remember something between runs. Then each `owner` (one device, say) has
    executables of its own, its requests run one after another, and its cut can't move until `reset`. Steps that hold
    something are opened as parts of their own (see `Pipeline.solo`); what those remember is each owner's own, too.

    In a process that is forked nothing is open: parts are opened anew, and owners have lost their states.

    Parameters
    ----------
    pipeline : Pipeline
    runtime : Runtime, optional
        What the parts are opened with.
    max_bytes : int
        Memory that the kept executables may hold, by their own estimate.
    max_owners : int
        How many owners of a stateful pipeline may have a state at once. One more takes the place of the one that was
        used longest ago; that one's next run raises StateLost.
    clock : callable
        Gives seconds; only differences count.

    Examples
    --------
    >>> from splitiot import tasks
    >>> def double(x): return 2 * x
    >>> def increment(x): return x + 1
    >>> with Runner(tasks([double, increment])) as runner:
    ...     head, seconds = runner.run(0, 1, 20)
    ...     tail, seconds = runner.run(1, 2, head)
    >>> head, tail
    (40, 41)
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        runtime: Runtime | None = None,
        max_bytes: int = 256 * 2**20,
        max_owners: int = 1024,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        expect_pipeline(pipeline)
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be >= 0, got {max_bytes}")
        if max_owners < 1:
            raise ValueError(f"max_owners must be >= 1, got {max_owners}")
        self.pipeline = pipeline.with_runtime(runtime)
        self.runtime = runtime
        self.max_bytes, self.max_owners = max_bytes, max_owners
        self._clock = clock
        self._stateful, self._solo = pipeline.stateful, dict(pipeline.solo)
        self._pieces: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
        self._closed = False
        self._open_nothing()
        _fork.in_child(self._leave_all)

    def _open_nothing(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[int, int], list[Executable]] = {}  # by part
        self._used: dict[tuple[int, int], int] = {}  # when each part was used: numbers that grow
        self._turn = itertools.count().__next__
        self._states: OrderedDict[Hashable, _State] = OrderedDict()
        self._sizes: dict[int, int] = {}  # bytes by id of every open executable, idle or at work
        self._held = 0
        self._lost = 0

    def _leave_all(self) -> None:
        """Begin anew in a process that was forked: what is open is its parent's, and so are the states."""
        states = self._states
        _fork.leave(self._idle, states)
        self._open_nothing()
        for owner, state in states.items():
            if state.executables or state.lost is not None:
                mine = self._states[owner] = _State()
                mine.lost = state.lost or "is in the process that this one was forked from"
                self._lost += 1

    @property
    def nbytes(self) -> int:
        """Bytes that all open executables hold, by their own estimate."""
        return self._held

    @property
    def opened(self) -> int:
        """The number of open executables, idle or at work."""
        return len(self._sizes)

    def run(self, start: int, stop: int, payload: Payload, owner: Hashable = None) -> tuple[Payload, float]:
        """Run steps [start, stop).

        See `run_timed`, of which it gives the first two.
        """
        result, seconds, _ = self.run_timed(start, stop, payload, owner)
        return result, seconds

    def run_timed(
        self, start: int, stop: int, payload: Payload, owner: Hashable = None
    ) -> tuple[Payload, float, tuple[float, ...]]:
        """Run steps [start, stop), and time each one if they run one by one.

        It is what `Device` and `EdgeService` call: a runner of your own overrides this one, and `run` follows.

        Parameters
        ----------
        start, stop : int
            Legal cuts, 0 or n.
        payload : Payload
            What `Pipeline.bind` gave (start 0), or what crossed at `start`.
        owner : hashable
            Whose state it is; only looked at for a stateful pipeline.

        Returns
        -------
        result : Payload
        seconds : float
            The run alone: without opening the part, or waiting for the owner's run before.
        steps_s : tuple of float
            Those of each step, where they run one by one (tasks do, networks do not); else empty.

        Raises
        ------
        CutError, NotCuttable
            There is no such part; or the pipeline is stateful, and the owner has run another part that holds
            some of the same steps.
        StateLost
            The owner's state is gone: evicted, or in doubt after a run that failed. Start again with `reset`.
        Overloaded
            Too many owners have lost their states and did not reset.
        LocalProtocolError
            The runner was closed.
        """
        if self._stateful:
            return self._run_stateful((start, stop), payload, owner)
        if self._solo:
            return self._run_pieces(start, stop, payload, owner)
        return self._run_shared((start, stop), payload)

    def _run_pieces(
        self, start: int, stop: int, payload: Payload, owner: Hashable
    ) -> tuple[Payload, float, tuple[float, ...]]:
        pieces = self._pieces.get((start, stop))
        if pieces is None:
            pieces = self._pieces[start, stop] = self._cut_up(start, stop)
        total_s, timed = 0.0, True
        every_s: list[float] = []
        for piece in pieces:
            if piece[0] > start:
                payload = self.pipeline.divide(piece[0], payload)[0]
            if self._solo.get(piece):
                payload, seconds, steps_s = self._run_stateful(piece, payload, owner)
            else:
                payload, seconds, steps_s = self._run_shared(piece, payload)
            total_s += seconds
            every_s += steps_s
            timed = timed and bool(steps_s)
            if payload is DROP:
                break
        return payload, total_s, tuple(every_s) if timed else ()

    def _cut_up(self, start: int, stop: int) -> tuple[tuple[int, int], ...]:
        """Divide a part into those that hold something and the rest between."""
        ends = [(a, b) for a, b in self._solo if a < stop and start < b]
        for a, b in ends:
            if a < start or stop < b:
                raise CutError(f"[{start}, {stop}) divides [{a}, {b}), which holds something")
        stops = sorted({start, stop, *itertools.chain.from_iterable(ends)})
        return tuple(itertools.pairwise(stops)) or ((start, stop),)

    def _run_shared(self, key: tuple[int, int], payload: Payload) -> tuple[Payload, float, tuple[float, ...]]:
        idle = self._idle.get(key)
        if idle is None:
            idle = self._add(key)
        try:
            executable = idle.pop()  # pop, append and the note of use are atomic: this path takes no lock
        except IndexError:
            executable = self._open(*key)
        try:
            result, seconds, steps_s = self._timed(executable, payload)
        except BaseException as error:
            # a payload that did not fit has not run; of others nobody knows what a failed run left in it
            if isinstance(error, LocalProtocolError) or _survives(executable):
                idle.append(executable)
                self._tidy(executable)
            else:
                self._drop([executable])
            raise
        self._used[key] = self._turn()
        idle.append(executable)
        if self._held > self.max_bytes or self._closed:
            self._tidy(executable)
        return result, seconds, steps_s

    def _timed(self, executable: Executable, payload: Payload) -> tuple[Payload, float, tuple[float, ...]]:
        clock = self._clock
        stepwise = getattr(executable, "stepwise", None)
        if stepwise is None:
            began = clock()
            result = executable(payload)
            return result, clock() - began, ()
        times = [clock()]
        waits_s: list[float] = []  # for other threads: that is no work

        def lap(waited_s: float) -> None:
            times.append(clock())
            waits_s.append(waited_s)

        result = stepwise(payload, lap)
        total_s = max(0.0, clock() - times[0] - sum(waits_s))
        pairs = zip(itertools.pairwise(times), waits_s, strict=True)
        return result, total_s, tuple([max(0.0, after - before - wait_s) for (before, after), wait_s in pairs])

    def warm(self, start: int, stop: int) -> None:
        """Open a part now, so that its first run need not.

        For a stateful pipeline this only tries whether it opens: executables belong to an owner there.
        """
        if self._stateful:
            self._drop([self._open(start, stop)])
            return
        for piece in self._cut_up(start, stop):
            if self._solo.get(piece):
                continue  # an owner's
            idle = self._idle.get(piece)
            if idle is None:
                idle = self._add(piece)
            if not idle:
                executable = self._open(*piece)
                idle.append(executable)
                self._tidy(executable)

    def is_open(self, start: int, stop: int) -> bool:
        """Whether a run of a part that remembers nothing would find it open and idle at this moment."""
        return not self._stateful and not self._solo and bool(self._idle.get((start, stop)))

    def reset(self, owner: Hashable = None) -> None:
        """Let an owner start again: with no state, and at any cut. Waits for its run at work."""
        with self._lock:
            state = self._states.get(owner)
        if state is None:
            return
        with state.lock:
            self._forget(owner, state)

    def keeps(self, owner: Hashable, error: Exception) -> bool:
        """Whether an owner's state is sound after a run that raised `error`: its steps ran as far as that."""
        if isinstance(error, CutError | Overloaded | LocalProtocolError):  # it did not run
            return False
        with self._lock:
            state = self._states.get(owner)
            return state is not None and state.lost is None and bool(state.executables)

    def close(self) -> None:
        """Close everything. What is at work is closed when it has finished."""
        with self._lock:
            self._closed = True
            states = list(self._states.items())
        self._drop_idle()
        for owner, state in states:
            with state.lock:
                self._forget(owner, state)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, start: int, stop: int) -> Executable:
        if self._closed:
            raise LocalProtocolError("this Runner was closed: make another one")
        executable = self.pipeline.part(start, stop).open(self.runtime)
        size = executable.nbytes
        with self._lock:
            self._sizes[id(executable)] = size
            self._held += size
        self._evict()
        return executable

    def _drop(self, executables: list[Executable]) -> None:
        for executable in executables:
            with self._lock:
                self._held -= self._sizes.pop(id(executable), 0)
            executable.close()

    def _add(self, key: tuple[int, int]) -> list[Executable]:
        """Make room for a part's idle executables; there is one list a part, for good."""
        with self._lock:
            self._used[key] = self._turn()
            return self._idle.setdefault(key, [])

    def _tidy(self, executable: Executable) -> None:
        """Keep the limit; `executable` was given back just now."""
        if self._closed:  # the runner was closed meanwhile, perhaps before this one was given back
            self._drop_idle()
        else:
            self._evict(keep=executable)

    def _drop_idle(self) -> None:
        with self._lock:
            lists = list(self._idle.values())
        for idle in lists:
            while idle:
                try:
                    self._drop([idle.pop()])
                except IndexError:  # another thread was faster
                    break

    def _evict(self, keep: Executable | None = None) -> None:
        """Close idle executables, the oldest first, until the rest fits."""
        while self._held > self.max_bytes:
            victim = self._oldest(keep)
            if victim is not None:
                self._drop([victim])
            elif not self._evict_state():
                return

    def _oldest(self, keep: Executable | None) -> Executable | None:
        with self._lock:
            for key in sorted(self._idle, key=self._used.__getitem__):
                idle = self._idle[key]
                try:
                    if idle[0] is not keep and self._sizes.get(id(idle[0])):  # else it would free nothing
                        return idle.pop(0)
                except IndexError:  # all at work, or another thread was faster
                    continue
        return None

    def _run_stateful(
        self, key: tuple[int, int], payload: Payload, owner: Hashable
    ) -> tuple[Payload, float, tuple[float, ...]]:
        while True:
            with self._lock:
                state = self._states.get(owner)
                if state is None:
                    state = self._states[owner] = _State()
                self._states.move_to_end(owner)
            with state.lock:
                if state.forgotten:  # a reset came between: take the new one
                    continue
                return self._run_owned(key, payload, owner, state)

    def _run_owned(
        self, key: tuple[int, int], payload: Payload, owner: Hashable, state: _State
    ) -> tuple[Payload, float, tuple[float, ...]]:
        if state.lost is not None:
            raise StateLost(f"the state of {owner!r} {state.lost}: start again with reset()")
        executable = state.executables.get(key)
        if executable is None:
            executable = self._open_owned(key, owner, state)
        try:
            timed = self._timed(executable, payload)
        except BaseException:
            if not _survives(executable):
                self._lose(state, "is in doubt after a run that failed")
            raise
        if self._held > self.max_bytes:
            self._evict()
        return timed

    def _open_owned(self, key: tuple[int, int], owner: Hashable, state: _State) -> Executable:
        start, stop = key
        for a, b in state.executables:
            if start < b and a < stop:
                raise CutError(
                    f"{owner!r} has run [{a}, {b}) of this stateful pipeline and now asks for "
                    f"[{start}, {stop}): its cut can't move until reset()"
                )
        try:
            if self._lost >= _LOST_MAX:  # else a state could be lost without a trace
                raise Overloaded(f"the states of {self._lost} owners were lost: reset them first", retry_after_s=1.0)
            executable = self._open(start, stop)
        except BaseException:
            if not state.executables:
                self._forget(owner, state)
            raise
        if not state.executables:  # a new state: within the bound, the one used longest ago gives way
            while self._with_state() >= self.max_owners and self._evict_state(
                f"was evicted: {self.max_owners} owners may have one", freeing=False
            ):
                pass
        state.executables[key] = executable
        return executable

    def _with_state(self) -> int:
        with self._lock:
            return sum(bool(state.executables) for state in self._states.values())

    def _lose(self, state: _State, why: str) -> None:
        executables = list(state.executables.values())
        state.executables.clear()
        if state.lost is None:
            with self._lock:
                self._lost += 1
        state.lost = why
        self._drop(executables)

    def _forget(self, owner: Hashable, state: _State) -> None:
        """Take an owner out of the table; the caller holds the state's lock."""
        with self._lock:
            if state.forgotten:
                return
            state.forgotten = True
            self._states.pop(owner, None)
            self._lost -= state.lost is not None
        self._drop(list(state.executables.values()))
        state.executables.clear()

    def _evict_state(self, why: str = "was evicted for lack of memory", *, freeing: bool = True) -> bool:
        """Lose the state that was used longest ago and is not at work; say whether there was one.

        With `freeing` only one that holds memory: functions hold none that is known of.
        """
        with self._lock:
            candidates = [state for state in self._states.values() if state.executables]
        for state in candidates:
            if freeing and not any(self._sizes.get(id(e)) for e in list(state.executables.values())):
                continue
            if state.lock.acquire(blocking=False):
                try:
                    if state.executables and not state.forgotten:
                        self._lose(state, why)
                        return True
                finally:
                    state.lock.release()
        return False
