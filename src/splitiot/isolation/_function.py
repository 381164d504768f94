"""Functions whose calls run in a child process."""

from __future__ import annotations

import json
import math
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final

from splitiot import _fork
from splitiot._child import ChildDied, ChildHung, ChildProcess, Garbled
from splitiot._log import logger
from splitiot.errors import CutError, LocalProtocolError, StepError, TaskKilled
from splitiot.isolation._messages import Header, decode, encode
from splitiot.isolation._names import LOADING, importable
from splitiot.pipeline import DROP
from splitiot.wire import pack

__all__ = ["CODE", "END_S", "START_S", "IsolatedFunction"]

CODE: Final = "from splitiot.isolation._child import main; main()"

START_S: Final = 60.0
"""How long a child may take to import the function and to do its set-up."""

END_S: Final = 5.0
"""How long a child may take for its tear-down."""


class IsolatedFunction:
    """A function that is called in a child process.

    The child is started by the first call, and kept. One that hangs, crashes or takes too much memory is ended together
    with the processes that it has started, and the next call starts another one. What the function prints goes to the
    standard error of this process. Calls from several threads come one after another. A process that is forked starts a
    child of its own.

    Parameters
    ----------
    function : callable
        Found by `importable`. It may be a coroutine function: the child keeps one event loop.
    name : str
        For messages.
    timeout_s : float
        How long one call may take, without the start of the child.
    max_bytes : int, optional
        How much more memory the child may take than it has when it is ready: what only it can write, in which each
        thread counts with its whole stack. Linux only.
    resource : callable, optional
        Gives a context manager. The child enters it when it starts and leaves it at `close`; its value is
        the function's first argument. A child that is stopped, or dies, does not leave it.

    Raises
    ------
    CutError
        Another process can't import the function or the resource, or this system can't limit memory.

    Examples
    --------
    >>> import math
    >>> root = IsolatedFunction(math.sqrt, name="root", timeout_s=5.0)
    >>> root(9.0)
    3.0
    >>> root.close()
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        timeout_s: float = 30.0,
        max_bytes: int | None = None,
        resource: Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        if not 0 < timeout_s < math.inf:
            raise ValueError(f"timeout_s must be a positive number of seconds, got {timeout_s}")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        if max_bytes is not None and sys.platform != "linux":
            raise CutError(f"{name}: max_bytes needs Linux, this system does not keep such a limit")
        self.name, self.timeout_s, self.max_bytes = name, timeout_s, max_bytes
        self._order = json.dumps(
            {
                "function": importable(function),
                "resource": None if resource is None else importable(resource),
                "timeout_s": timeout_s,
                "max_bytes": max_bytes,
            }
        )
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._closed = False
        self._childless()
        _fork.in_child(self._childless)

    def _childless(self) -> None:
        """Begin without a child, or in a process that was forked: the one that there is belongs to the parent."""
        self._lock = threading.Lock()
        if self._finalizer is not None:
            self._finalizer.detach()
        self._child: ChildProcess | None = None
        self._finalizer = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return None if self._child is None else self._child.pid

    def __call__(self, *arguments: Any) -> Any:
        """Call the function in the child.

        Raises
        ------
        StepError
            The function raised: its exception's type and message. Or the child could not be started.
        TaskKilled
            It hung, died, or took too much memory.
        LocalProtocolError
            An argument or the result is nothing that can cross; the message says where.
        """
        payloads = []
        for index, argument in enumerate(arguments):
            try:
                payloads.append(pack(argument))
            except LocalProtocolError as error:
                raise LocalProtocolError(f"argument {index} of {self.name}: {error}") from error
        request = encode("call", payloads)
        with self._lock:
            if self._closed:
                raise LocalProtocolError(f"{self.name} was closed: make another one")
            if LOADING:
                raise LocalProtocolError(
                    f"{self.name} was called while its process was importing the file: put what a script does "
                    "under `if __name__ == '__main__':`"
                )
            try:
                child = self._started()
                child.send(*request)
                del request, payloads
                header, values = _answer(child, self.name, self.timeout_s)
            except LocalProtocolError:  # the arguments are too large, and were not sent: the child is unharmed
                raise
            except BaseException:  # KeyboardInterrupt too: the child's state is unknown now
                self._drop()
                raise
            if header.kind == "memory":
                self._drop()
                limit = "there is" if self.max_bytes is None else f"its limit of {self.max_bytes} bytes allows"
                raise TaskKilled(f"{self.name} wanted more memory than {limit}, and was stopped", reason="memory")
        if header.kind == "result":
            (value,) = values
            return value
        if header.kind == "drop":
            return DROP
        if header.kind == "uncrossable":
            raise LocalProtocolError(f"the result of {self.name}: {header.text}")
        logger.debug("%s raised in its process:\n%s", self.name, header.trace)
        raise StepError(f"{self.name} raised {header.text}")

    def close(self) -> None:
        """End the child: it leaves its resource. Waits for a call that is at work."""
        with self._lock:
            self._closed = True
            if self._finalizer is not None:
                self._finalizer()
            self._child = self._finalizer = None

    def _started(self) -> ChildProcess:
        if self._child is not None and not self._child.alive:  # killed while it was idle: nothing is lost
            self._drop()
        if self._child is None:
            try:
                self._child = child = ChildProcess(f"isolated-{self.name}", CODE, [self._order])
            except OSError as error:
                raise StepError(str(error)) from error
            self._finalizer = weakref.finalize(self, _end, child, self.name)
            header, _ = _answer(child, self.name, START_S, " while it was starting")
            if header.kind != "ready":
                logger.debug("%s could not be started:\n%s", self.name, header.trace)
                raise StepError(f"{self.name} could not be started in a process of its own: {header.text}")
        return self._child

    def _drop(self) -> None:
        if self._child is not None:
            self._child.kill()
        if self._finalizer is not None:
            self._finalizer.detach()
        self._child = self._finalizer = None

    def __repr__(self) -> str:
        return f"IsolatedFunction({self.name!r}, timeout_s={self.timeout_s})"


def _answer(child: ChildProcess, name: str, timeout_s: float, doing: str = "") -> tuple[Header, list[Any]]:
    try:
        return decode(child.receive(timeout_s))
    except ChildHung as error:
        raise TaskKilled(f"{name} {error}{doing}, and was stopped", reason="hung") from None
    except ChildDied as error:
        raise TaskKilled(f"{name} died{doing}: {error}", reason="died") from None
    except Garbled as error:
        raise TaskKilled(f"{name} answered with garbled bytes{doing}: {error}", reason="died") from error


def _end(child: ChildProcess, name: str) -> None:
    """Let it leave its resource, then end it."""
    try:
        if child.ours:
            child.send(*encode("end"))
            header, _ = _answer(child, name, END_S)
            if header.text:
                logger.warning("%s: leaving its resource raised %s", name, header.text)
            child.wait(END_S)
    except (TaskKilled, ChildHung) as error:
        logger.warning("%s did not end when asked to: %s", name, error)
    finally:
        child.kill()
