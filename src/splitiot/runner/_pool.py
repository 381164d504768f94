"""Opened parts: those that are idle, and the memory of all."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TypeAlias

from splitiot.errors import LocalProtocolError
from splitiot.pipeline import Executable

__all__ = ["Ends", "ExecutablePool"]

Ends: TypeAlias = tuple[int, int]
"""The first step of a part, and the one behind its last."""


class ExecutablePool:
    """Opens parts, keeps those that are idle, and counts what all of them hold.

    Parameters
    ----------
    open_part : callable
        Opens the part between two cuts.
    max_bytes : int
    """

    def __init__(self, open_part: Callable[[int, int], Executable], max_bytes: int) -> None:
        self._open_part, self._max_bytes = open_part, max_bytes
        self._lock = threading.Lock()
        self._idle: dict[Ends, list[Executable]] = {}  # each list in the order of last runs
        self._used: dict[Ends, int] = {}  # when each part was last used, as a growing number
        self._turn = itertools.count().__next__
        self._sizes: dict[int, int] = {}  # bytes by id of every open executable, idle or at work
        self.nbytes = 0
        self.closed = False

    @property
    def opened(self) -> int:
        """The number of open executables, idle or at work."""
        return len(self._sizes)

    @property
    def full(self) -> bool:
        """Whether all together hold more than they may."""
        return self.nbytes > self._max_bytes

    def is_idle(self, ends: Ends) -> bool:
        """Whether one of this part is open and idle."""
        return bool(self._idle.get(ends))

    def frees(self, executable: Executable) -> bool:
        """Whether closing this one would free memory that is known of."""
        return bool(self._sizes.get(id(executable)))

    def take_idle(self, ends: Ends) -> Executable | None:
        """Take the idle executable of a part that ran last, None where there is none. Takes no lock."""
        try:
            return self._idle[ends].pop()
        except (KeyError, IndexError):
            return None

    def give_back(self, ends: Ends, executable: Executable) -> None:
        """Let others take an executable. Takes no lock: append and the note of use are atomic."""
        self._used[ends] = self._turn()
        try:
            self._idle[ends].append(executable)
        except KeyError:
            with self._lock:
                idle = self._idle.setdefault(ends, [])  # a part keeps its list for good
            idle.append(executable)
        if self.closed:  # perhaps before this one was given back
            self.close()

    def open(self, ends: Ends) -> Executable:
        """Open a part; it belongs to the caller, but its memory is counted here."""
        if self.closed:
            raise LocalProtocolError("this Runner was closed: make another one")
        executable = self._open_part(*ends)
        size = executable.nbytes
        with self._lock:
            self._sizes[id(executable)] = size
            self.nbytes += size
        return executable

    def drop(self, *executables: Executable) -> None:
        """Close executables that were taken or opened."""
        for executable in executables:
            with self._lock:
                self.nbytes -= self._sizes.pop(id(executable), 0)
            executable.close()

    def drop_oldest(self, keep: Executable | None = None) -> bool:
        """Close the idle executable that was used longest ago and holds memory; say whether there was one."""
        executable = self._oldest(keep)
        if executable is not None:
            self.drop(executable)
        return executable is not None

    def close(self) -> None:
        """Close what is idle, now and when it is given back; open nothing any more."""
        with self._lock:
            self.closed = True
            lists = list(self._idle.values())
        for idle in lists:
            while idle:
                try:
                    self.drop(idle.pop())
                except IndexError:  # another thread was faster
                    break

    def _oldest(self, keep: Executable | None) -> Executable | None:
        with self._lock:
            for ends in sorted(self._idle, key=self._used.__getitem__):
                idle = self._idle[ends]
                try:
                    if idle[0] is not keep and self.frees(idle[0]):
                        return idle.pop(0)
                except IndexError:  # all at work, or another thread was faster
                    continue
        return None
