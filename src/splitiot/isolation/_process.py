"""A child process as its parent sees it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from io import FileIO
from typing import Any, Final

from splitiot import _fork
from splitiot._log import logger
from splitiot.errors import StepError, TaskKilled
from splitiot.isolation._messages import Received, frame, receive, send

__all__ = ["CODE", "END_S", "Child"]

CODE: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from splitiot.isolation._child import main; main()"
)
END_S: Final = 5.0
"""How long a child may take for its tear-down."""


class Child:
    """A process, and the thread that carries messages to it and back."""

    def __init__(self, name: str, order: str) -> None:
        self.name, self._ours = name, True
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        try:
            # isolated: only the module path of this process counts, no environment. Ctrl-C is for this process only
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", CODE, paths, order],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise StepError(f"no child process can be started with {sys.executable!r}: {error}") from error
        self.pid = self._process.pid
        _fork.in_child(self._disown)
        self._requests: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Received | Exception] = queue.SimpleQueue()
        try:
            threading.Thread(
                target=_carry,
                args=(self._process.stdin, self._process.stdout, self._requests, self._answers),
                name=f"splitiot-isolated-{name}",
                daemon=True,
            ).start()
        except BaseException:
            self.kill()
            raise

    def _disown(self) -> None:
        """Let go of it in a process that was forked: it must see its pipe end when the parent does."""
        self._ours = False
        self._process.returncode = 0  # who is no parent can't ask
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def alive(self) -> bool:
        """Whether it runs still, as far as is known."""
        return self._process.poll() is None

    def ask(self, request: list[Any] | None, timeout_s: float) -> Received:
        """Send a request (None: it is starting) and wait for its answer.

        Raises
        ------
        TaskKilled
            There is none. The child is not ended by this.
        """
        doing = " while it was starting" if request is None else ""
        if request is not None:
            self._requests.put(request)
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise TaskKilled(
                f"{self.name} hung for more than {timeout_s:g} s{doing}, and was stopped", reason="hung"
            ) from None
        if isinstance(answer, EOFError | OSError):
            raise TaskKilled(f"{self.name} died{doing}: {self._ending()}", reason="died")
        if isinstance(answer, Exception):
            raise TaskKilled(f"{self.name} gave no answer{doing}: {answer!r}", reason="died") from answer
        return answer

    def _ending(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def end(self) -> None:
        """Let it leave its resource, then end it."""
        if not self._ours:
            return
        try:
            message, _ = self.ask(frame("end"), END_S)
            if message.text:
                logger.warning("%s: leaving its resource raised %s", self.name, message.text)
            self._process.wait(END_S)
        except (TaskKilled, subprocess.TimeoutExpired) as error:
            logger.warning("%s did not end when asked to: %s", self.name, error)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once, with the processes that it has started."""
        if not self._ours:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._requests.put(None)


def _carry(
    stdin: FileIO,
    stdout: FileIO,
    requests: queue.SimpleQueue[list[Any] | None],
    answers: queue.SimpleQueue[Received | Exception],
) -> None:
    """Write requests and read answers, in a thread: a pipe blocks when it is full, whatever the deadline."""
    try:
        answers.put(receive(stdout))
        while (request := requests.get()) is not None:
            with contextlib.suppress(OSError):  # it may have said why it reads no more
                send(stdin, request)
            del request
            answers.put(receive(stdout))
    except Exception as error:
        answers.put(error)
    finally:
        with contextlib.suppress(OSError):
            stdin.close()
        stdout.close()
