"""Forking in tests: something runs in a child, and what it returned or raised comes back."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import environment

WAIT_S = 60.0
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")


class ChildRaised(Exception):
    """What a child raised: the type's name and the words."""


def fork() -> int:
    """Like `os.fork`, whatever threads there are: Python 3.12 and later warn of them, which is what is tested."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return os.fork()


class Child:
    """A forked process that calls a function, and ends. It hangs no longer than a test waits."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, by: Callable[[], int] = fork) -> None:
        read, write = os.pipe()
        sys.stdout.flush()
        self.pid = by()
        if self.pid == 0:
            # no timer of faulthandler's: pytest has one, whose thread does not exist here, and would be waited for
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(int(WAIT_S) - 10)
            try:
                told = {"value": function(*arguments)}
            except BaseException as error:
                told = {"error": f"{type(error).__name__}: {error}"}
            os.write(write, json.dumps(told).encode())
            os._exit(0)
        os.close(write)
        self._read = read

    def result(self) -> Any:
        """Return what the function returned."""
        data, until_s = b"", time.monotonic() + WAIT_S
        try:
            while select.select([self._read], [], [], max(0.0, until_s - time.monotonic()))[0]:
                some = os.read(self._read, 65536)
                if not some:
                    break
                data += some
            else:
                os.kill(self.pid, signal.SIGKILL)
        finally:
            os.close(self._read)
            _, status = os.waitpid(self.pid, 0)
        assert status == 0 and data, f"the child hung or died: status {status}"
        told = json.loads(data)
        if "error" in told:
            raise ChildRaised(told["error"])
        return told["value"]


def forked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a child, and return what it returned; `ChildRaised` for what it raised."""
    return Child(function, *arguments).result()


def script(text: str, *words: str) -> str:
    """Run text in a process that has one thread, with warnings as errors; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text, *words],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        env=environment(),
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout
