"""Processes beside this one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Child:
    """A script of this folder, or a module, in a process of its own; lines go in and come out."""

    def __init__(
        self, script: str, *arguments: str, module: bool = False, environment: dict[str, str] | None = None
    ) -> None:
        target = ["-m", script] if module else [str(HERE / script)]
        self.process = subprocess.Popen(
            [sys.executable, *target, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def line(self) -> str:
        """Wait for the next line of its output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        return line

    def tell(self, line: str) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def peak_bytes(self) -> int | None:
        """What it held at most so far; None where the system does not tell.

        Not ru_maxrss: a child's begins with what its parent held when it was started.
        """
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return None
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None

    def cpu_s(self) -> float | None:
        """What it computed so far, all threads together; None where the system does not tell."""
        status = Path(f"/proc/{self.process.pid}/stat")
        if not status.exists():
            return None
        ticks = status.read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def clean_environment(pycache: Path) -> dict[str, str]:
    """Return an environment whose processes keep compiled modules there: else each start would compile anew."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(pycache)
    return environment
