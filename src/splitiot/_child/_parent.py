"""The parent process, as the child sees it."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from splitiot._child._messages import MAX_BYTES, Message, frame, read, write

__all__ = ["Parent", "limit_memory"]

_LATE_S: Final = 10.0


class Parent:
    """Takes standard input and output for messages; from now on this process ends when its parent does.

    What is printed goes to standard error, and nothing can be read from standard input. Processes that are forked from
    this one do not keep the pipes open.

    Parameters
    ----------
    max_bytes : int
        Of one message.
    grace_s : float, optional
        When the parent has ended, SIGTERM comes, and what is still under way so long after that is given up. Unless
        given, this process is killed at once, whatever it is doing.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, grace_s: float | None = None) -> None:
        self._max_bytes, self._grace_s = max_bytes, grace_s
        self._null = os.open(os.devnull, os.O_RDWR)
        try:
            os.fstat(2)
        except OSError:  # there is no standard error
            os.dup2(self._null, 2)
        self._incoming, self._outgoing = (io.FileIO(os.dup(number), mode) for number, mode in ((0, "r"), (1, "w")))
        os.dup2(self._null, 0)
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._incoming.close)
            os.register_at_fork(after_in_child=self._outgoing.close)
        self._messages: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="splitiot-parent", daemon=True).start()

    def receive(self) -> Message:
        """Wait for its next message.

        Raises
        ------
        MemoryError
            There is no memory for it.
        Garbled
        """
        received = self._messages.get()
        if isinstance(received, BaseException):
            raise received
        return received

    def send(self, *pieces: Any) -> None:
        """Send a message: byte strings and arrays."""
        with contextlib.suppress(BrokenPipeError):  # it is gone: the listening thread ends this process
            write(self._outgoing, frame(pieces, self._max_bytes))

    def watch(self, timeout_s: float) -> None:
        """End this process a while after the parent should have done it, unless `unwatch` is called before.

        The listening thread does that at once, unless native code never gives it its turn.
        """
        with contextlib.suppress(RuntimeError):  # no memory for its thread
            faulthandler.dump_traceback_later(timeout_s + _LATE_S, exit=True, file=self._null)

    def unwatch(self) -> None:
        """Take back `watch`."""
        faulthandler.cancel_dump_traceback_later()

    def _listen(self) -> None:
        incoming = io.BufferedReader(self._incoming)
        try:
            while True:
                self._messages.put(read(incoming, self._max_bytes))
        except (EOFError, OSError):
            self._end()
        except BaseException as error:
            self._messages.put(error)

    def _end(self) -> None:
        if self._grace_s is not None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(self._grace_s)
        if sys.platform != "win32" and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def limit_memory(max_bytes: int) -> Callable[[], object]:
    """Limit what this process can write and is nobody else's: not address space, of which allocators hold some back.

    Parameters
    ----------
    max_bytes : int
        How much more than it has now. Linux only: elsewhere there is no limit.

    Returns
    -------
    callable
        Takes the limit away.
    """
    if sys.platform == "linux":
        import resource

        with open("/proc/self/status", "rb") as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith(b"VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = 1024 * kib + max_bytes
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
        return partial(resource.setrlimit, resource.RLIMIT_DATA, (hard, hard))
    return lambda: None
