"""Runs parts of a pipeline with executables that are opened once and kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable
from types import TracebackType

from splitiot import _fork
from splitiot.errors import CutError, LocalProtocolError, Overloaded
from splitiot.pipeline import DROP, Payload, Pipeline, Runtime, expect_pipeline
from splitiot.runner._pool import Ends, ExecutablePool
from splitiot.runner._states import OwnerStates
from splitiot.runner._timed import TimedResult, run_timed, survives

__all__ = ["Runner", "TimedResult"]

class Runner:
    """Runs parts of one pipeline, from any number of threads.

    Opened parts are kept and used again. A part that runs in several threads at once is opened as often as
    that; an executable is never shared. The least recently used ones are closed when all together hold more
    than `max_bytes`; those at work and the one that was used last stay, so the limit may be exceeded by them.

    The steps of a stateful pipeline remember something between runs. Then each `owner` (one device, say) has
    executables of its own, its requests run one after another, and its cut can't move until `reset`. Steps that hold
    something are opened as parts of their own (see `Pipeline.exclusive_parts`); what those remember is each owner's
    own, too.

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
        self._stateful, self._exclusive = pipeline.stateful, dict(pipeline.exclusive_parts)
        self._pieces: dict[Ends, tuple[Ends, ...]] = {}
        self._open_nothing()
        _fork.in_child(self._leave_all)

    def _open_nothing(self) -> None:
        pipeline, runtime = self.pipeline, self.runtime
        self._pool = ExecutablePool(lambda start, stop: pipeline.part(start, stop).open(runtime), self.max_bytes)
        self._owners = OwnerStates(self._pool, self.max_owners)

    def _leave_all(self) -> None:
        """Begin anew in a process that was forked: what is open is its parent's, and so are the states."""
        pool, owners = self._pool, self._owners
        _fork.leave(pool, owners)
        self._open_nothing()
        self._pool.closed = pool.closed
        self._owners.inherit(owners, "is in the process that this one was forked from")

    @property
    def nbytes(self) -> int:
        """Bytes that all open executables hold, by their own estimate."""
        return self._pool.nbytes

    @property
    def opened(self) -> int:
        """The number of open executables, idle or at work."""
        return self._pool.opened

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
        if self._exclusive:
            return self._run_pieces(start, stop, payload, owner)
        return self._run_shared((start, stop), payload)

    def _run_pieces(self, start: int, stop: int, payload: Payload, owner: Hashable) -> TimedResult:
        pieces = self._pieces.get((start, stop))
        if pieces is None:
            pieces = self._pieces[start, stop] = self._cut_up(start, stop)
        total_s, timed = 0.0, True
        every_s: list[float] = []
        for piece in pieces:
            if piece[0] > start:
                payload = self.pipeline.divide(piece[0], payload)[0]
            if self._exclusive.get(piece):
                payload, seconds, steps_s = self._run_stateful(piece, payload, owner)
            else:
                payload, seconds, steps_s = self._run_shared(piece, payload)
            total_s += seconds
            every_s += steps_s
            timed = timed and bool(steps_s)
            if payload is DROP:
                break
        return TimedResult(payload, total_s, tuple(every_s) if timed else ())

    def _cut_up(self, start: int, stop: int) -> tuple[Ends, ...]:
        """Divide a part into those that hold something and the rest between."""
        ends = [(a, b) for a, b in self._exclusive if a < stop and start < b]
        for a, b in ends:
            if a < start or stop < b:
                raise CutError(f"[{start}, {stop}) divides [{a}, {b}), which holds something")
        stops = sorted({start, stop, *itertools.chain.from_iterable(ends)})
        return tuple(itertools.pairwise(stops)) or ((start, stop),)

    def _run_stateful(self, ends: Ends, payload: Payload, owner: Hashable) -> TimedResult:
        return self._owners.run(ends, owner, lambda executable: run_timed(executable, payload, self._clock))

    def _run_shared(self, ends: Ends, payload: Payload) -> TimedResult:
        pool = self._pool
        executable = pool.take_idle(ends)
        if executable is None:
            executable = pool.open(ends)
            self._owners.make_room()
        try:
            timed = run_timed(executable, payload, self._clock)
        except BaseException as error:
            # a payload that did not fit has not run; after other errors the executable's state is unknown
            if isinstance(error, LocalProtocolError) or survives(executable):
                pool.give_back(ends, executable)
                self._owners.make_room(keep=executable)
            else:
                pool.drop(executable)
            raise
        pool.give_back(ends, executable)
        if pool.full:
            self._owners.make_room(keep=executable)
        return timed

    def warm(self, start: int, stop: int) -> None:
        """Open a part now, so that its first run need not.

        For a stateful pipeline this only tries whether it opens: executables belong to an owner there.
        """
        if self._stateful:
            self._pool.drop(self._pool.open((start, stop)))
            return
        for piece in self._cut_up(start, stop):
            if not self._exclusive.get(piece) and not self._pool.is_idle(piece):  # an exclusive one belongs to an owner
                executable = self._pool.open(piece)
                self._pool.give_back(piece, executable)
                self._owners.make_room(keep=executable)

    def is_open(self, start: int, stop: int) -> bool:
        """Whether a run of a part that remembers nothing would find it open and idle at this moment."""
        return not self._stateful and not self._exclusive and self._pool.is_idle((start, stop))

    def reset(self, owner: Hashable = None) -> None:
        """Let an owner start again: with no state, and at any cut. Waits for its run at work."""
        self._owners.forget(owner)

    def keeps(self, owner: Hashable, error: Exception) -> bool:
        """Whether an owner's state is sound after a run that raised `error`: its steps ran as far as that."""
        # these errors mean that nothing ran
        return not isinstance(error, CutError | Overloaded | LocalProtocolError) and self._owners.keeps(owner)

    def close(self) -> None:
        """Close everything. What is at work is closed when it has finished."""
        self._pool.close()
        self._owners.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
