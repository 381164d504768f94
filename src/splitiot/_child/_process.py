"""A child process, as its parent sees it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

from splitiot import _fork
from splitiot._child._messages import MAX_BYTES, Message, frame, read, write
from splitiot._log import logger

__all__ = ["ChildDied", "ChildHung", "ChildProcess"]

_SLICE_S: Final = 0.5
_LINE_CHARS: Final = 2**16
_LAST_CHARS: Final = 2_000

_Command: TypeAlias = list[Any] | Literal["receive", "stop"]


class ChildHung(Exception):
    """The child did not do in time what it should."""


class ChildDied(Exception):
    """The child has ended, or has closed its pipe.

    Parameters
    ----------
    reason : str
        In words: "exit code 7", "killed by SIGSEGV".
    exit_code : int, optional
        None unless it ended by itself.
    """

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class ChildProcess:
    """A process that runs `code`, and the thread that carries messages to it and back.

    Parameters
    ----------
    name : str
        For the names of threads.
    code : str
        Python. It should make a `Parent` at once, which answers.
    arguments : sequence of str
        Its ``sys.argv[2:]``.
    max_bytes : int
        Of one message.
    on_stderr : callable, optional
        Called with each line that the child writes to its standard error, in a thread. Unless given, that is this
        process's standard error.

    Attributes
    ----------
    pid : int
    ours : bool
        False once it was killed, and in a process that was forked: its parent's children are not its own.

    Raises
    ------
    OSError
        It can't be started.
    """

    def __init__(
        self,
        name: str,
        code: str,
        arguments: Sequence[str] = (),
        *,
        max_bytes: int = MAX_BYTES,
        on_stderr: Callable[[str], object] | None = None,
    ) -> None:
        self._max_bytes, self.ours = max_bytes, True
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        command = [sys.executable, "-I", *(["-Xutf8"] if sys.flags.utf8_mode else [])]
        command += ["-c", f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); {code}", paths, *arguments]
        try:
            # isolated: only the module path of this process counts, no environment. Ctrl-C is for this process only
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if on_stderr is None else subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise OSError(f"no child process can be started with {sys.executable!r}: {error}") from error
        self.pid = self._process.pid
        _fork.in_child(self._disown)
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Message | Exception] = queue.SimpleQueue()
        self._last_line, self._listener = "", None
        try:
            if on_stderr is not None:
                self._listener = threading.Thread(
                    target=self._listen, args=(on_stderr,), name=f"splitiot-{name}-stderr", daemon=True
                )
                self._listener.start()
            threading.Thread(target=self._carry, name=f"splitiot-{name}", daemon=True).start()
        except BaseException:
            self.kill()
            raise

    def _disown(self) -> None:
        """Let go of it in a process that was forked: it must see its pipe end when the parent does."""
        self.ours = False
        self._process.returncode = 0  # who is no parent can't ask
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def alive(self) -> bool:
        """Whether it runs still, as far as is known."""
        return self._process.poll() is None

    def send(self, *pieces: Any) -> None:
        """Send a message: byte strings and arrays. This waits for nothing: `receive` does.

        Raises
        ------
        LocalProtocolError
            It is too large.
        """
        self._commands.put(frame(pieces, self._max_bytes))

    def receive(self, timeout_s: float) -> Message:
        """Wait for its next message, after what was sent to it has been written.

        Whatever is raised, Ctrl-C too, nothing is known of the child any more: it can only be killed.

        Raises
        ------
        ChildHung
        ChildDied
        Garbled
        """
        self._commands.put("receive")
        until_s = time.monotonic() + timeout_s
        while True:
            rest_s = max(0.0, until_s - time.monotonic())
            try:  # in slices, so that Ctrl-C is heard on every platform
                answer = self._answers.get(timeout=min(rest_s, _SLICE_S))
                break
            except queue.Empty:
                if rest_s <= _SLICE_S:
                    raise ChildHung(f"hung for more than {timeout_s:g} s") from None
        if isinstance(answer, EOFError | OSError):
            raise self._death() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _death(self) -> ChildDied:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return ChildDied("it closed its pipe")
        if code >= 0:
            return ChildDied(f"exit code {code}", code)
        try:
            return ChildDied(f"killed by {signal.Signals(-code).name}")
        except ValueError:
            return ChildDied(f"killed by signal {-code}")

    def last_line(self) -> str:
        """Return what it said last to its standard error, where `on_stderr` is given. It should have ended."""
        if self._listener is not None:
            self._listener.join(1.0)  # a process that it has started may hold the pipe open
        return self._last_line

    def wait(self, timeout_s: float) -> None:
        """Wait until it ends.

        Raises
        ------
        ChildHung
            It does not.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildHung(f"did not end within {timeout_s:g} s") from None

    def hang_up(self) -> None:
        """Close the pipe to it: for the child its parent has ended."""
        assert self._process.stdin is not None
        if self.ours:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def kill(self) -> None:
        """End it at once, with the processes that it has started."""
        if not self.ours:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.ours = False  # its number may be another one's now
        self._commands.put("stop")

    def _carry(self) -> None:
        """Write and read, in a thread: a pipe blocks when it is full, whatever the deadline."""
        stdin: Any = self._process.stdin
        assert isinstance(self._process.stdout, io.FileIO)
        stdout = io.BufferedReader(self._process.stdout)
        while (command := self._commands.get()) != "stop":
            if command != "receive":
                with contextlib.suppress(OSError, ValueError):  # it may have said why it reads no more
                    write(stdin, command)
                continue
            try:
                self._answers.put(read(stdout, self._max_bytes))
            except Exception as error:
                self._answers.put(error)
        with contextlib.suppress(OSError):
            stdin.close()
        stdout.close()

    def _listen(self, on_stderr: Callable[[str], object]) -> None:
        assert isinstance(self._process.stderr, io.FileIO)
        with io.TextIOWrapper(io.BufferedReader(self._process.stderr), errors="replace") as stream:
            while line := stream.readline(_LINE_CHARS):
                line = line.rstrip()
                self._last_line = line[-_LAST_CHARS:] or self._last_line
                try:
                    on_stderr(line)
                except Exception:  # read on: a full pipe would stop the child
                    logger.debug("what a child wrote could not be passed on", exc_info=True)
