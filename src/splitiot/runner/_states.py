"""What pipelines remember, each owner's apart."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from splitiot.errors import CutError, Overloaded, StateLost
from splitiot.pipeline import Executable
from splitiot.runner._pool import Ends, ExecutablePool
from splitiot.runner._timed import TimedResult, survives

__all__ = ["OwnerStates"]

_MAX_LOST = 65_536


class _State:
    """What one owner's requests have left behind, in the executables of the parts that it runs."""

    __slots__ = ("executables", "forgotten", "lock", "lost")

    def __init__(self, lost: str | None = None) -> None:
        self.lock = threading.Lock()  # one request of an owner at a time: they are ordered
        self.executables: dict[Ends, Executable] = {}
        self.lost = lost
        self.forgotten = False


class OwnerStates:
    """A bounded table of owners, with the executables that hold their states.

    Parameters
    ----------
    pool : ExecutablePool
        Opens them, and counts their memory.
    max_owners : int
        How many may have a state. One more takes the place of the one that was used longest ago.
    """

    def __init__(self, pool: ExecutablePool, max_owners: int) -> None:
        self._pool, self._max_owners = pool, max_owners
        self._lock = threading.Lock()
        self._states: OrderedDict[Hashable, _State] = OrderedDict()  # the one used last stands last
        self._lost = 0

    def __len__(self) -> int:
        return len(self._states)

    def inherit(self, others: OwnerStates, why: str) -> None:
        """Note of each owner of another table that its state is lost here, if it had one."""
        for owner, state in others._states.items():
            if state.executables or state.lost is not None:
                self._states[owner] = _State(state.lost or why)
                self._lost += 1

    def run(self, ends: Ends, owner: Hashable, run: Callable[[Executable], TimedResult]) -> TimedResult:
        """Run a part on what an owner's runs have left, one of an owner at a time."""
        while True:
            with self._lock:
                state = self._states.get(owner)
                if state is None:
                    state = self._states[owner] = _State()
                self._states.move_to_end(owner)
            with state.lock:
                if not state.forgotten:  # else a reset came between: look the new state up
                    return self._run(ends, owner, state, run)

    def keeps(self, owner: Hashable) -> bool:
        """Whether an owner has a state that is sound."""
        with self._lock:
            state = self._states.get(owner)
            return state is not None and state.lost is None and bool(state.executables)

    def forget(self, owner: Hashable) -> None:
        """Let an owner start again. Waits for its run at work."""
        with self._lock:
            state = self._states.get(owner)
        if state is not None:
            with state.lock:
                self._forget(owner, state)

    def close(self) -> None:
        """Forget all; each when its run at work has ended."""
        with self._lock:
            owners = list(self._states)
        for owner in owners:
            self.forget(owner)

    def make_room(self, keep: Executable | None = None) -> None:
        """Close idle executables, the oldest first, then lose states, until the rest fits."""
        while self._pool.full and (self._pool.drop_oldest(keep) or self._evict("was evicted for lack of memory")):
            pass

    def _run(
        self, ends: Ends, owner: Hashable, state: _State, run: Callable[[Executable], TimedResult]
    ) -> TimedResult:
        if state.lost is not None:
            raise StateLost(f"the state of {owner!r} {state.lost}: start again with reset()")
        executable = state.executables.get(ends)
        if executable is None:
            executable = self._open(ends, owner, state)
        try:
            timed = run(executable)
        except BaseException:
            if not survives(executable):
                self._lose(state, "is in doubt after a run that failed")
            raise
        self.make_room()
        return timed

    def _open(self, ends: Ends, owner: Hashable, state: _State) -> Executable:
        start, stop = ends
        for a, b in state.executables:
            if start < b and a < stop:
                raise CutError(
                    f"{owner!r} has run [{a}, {b}) of this stateful pipeline and now asks for "
                    f"[{start}, {stop}): its cut can't move until reset()"
                )
        try:
            if self._lost >= _MAX_LOST:  # beyond this, a lost state could leave no trace
                raise Overloaded(f"the states of {self._lost} owners were lost: reset them first", retry_after_s=1.0)
            executable = self._pool.open(ends)
            self.make_room()
        except BaseException:
            if not state.executables:
                self._forget(owner, state)
            raise
        if not state.executables:  # a new state: the one used longest ago makes room for it
            why = f"was evicted: {self._max_owners} owners may have one"
            while self._count() >= self._max_owners and self._evict(why, freeing=False):
                pass
        state.executables[ends] = executable
        return executable

    def _count(self) -> int:
        """How many owners have a state."""
        with self._lock:
            return sum(bool(state.executables) for state in self._states.values())

    def _lose(self, state: _State, why: str) -> None:
        executables = list(state.executables.values())
        state.executables.clear()
        if state.lost is None:
            with self._lock:
                self._lost += 1
        state.lost = why
        self._pool.drop(*executables)

    def _forget(self, owner: Hashable, state: _State) -> None:
        """Take an owner out of the table; the caller holds the state's lock."""
        with self._lock:
            if state.forgotten:
                return
            state.forgotten = True
            self._states.pop(owner, None)
            self._lost -= state.lost is not None
        self._pool.drop(*state.executables.values())
        state.executables.clear()

    def _evict(self, why: str, *, freeing: bool = True) -> bool:
        """Lose the state that was used longest ago and is not at work; say whether there was one.

        With `freeing` only one that holds memory: functions hold none that is known of.
        """
        with self._lock:
            candidates = [state for state in self._states.values() if state.executables]
        for state in candidates:
            if freeing and not any(map(self._pool.frees, list(state.executables.values()))):
                continue
            if state.lock.acquire(blocking=False):
                try:
                    if state.executables and not state.forgotten:
                        self._lose(state, why)
                        return True
                finally:
                    state.lock.release()
        return False
