"""Calling the command line in this process, and as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from splitiot.cli import main

TARGETS = Path(__file__).parent / "targets"
CHAIN = str(TARGETS / "chain.py")
HARDWARE = str(TARGETS / "hardware.py")


@frozen
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """`cli("inspect", path)` -> exit code, stdout, stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> Said:
        self._capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = self._capsys.readouterr()
        return Said(code, out, err)


def environment() -> dict[str, str]:
    """Give children the same splitiot that is tested here, and no terminal's peculiarities."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}


def _hear_signals() -> None:
    """What runs in the background ignores SIGINT, and under nohup SIGHUP, and so would what it starts."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def process(*words: object) -> subprocess.Popen[str]:
    """Start ``python -m splitiot`` with pipes."""
    command = [sys.executable, "-m", "splitiot", *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=_hear_signals,
    )


@contextmanager
def serving(*words: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``splitiot serve --json`` on a free port; gives its URL once it is ready."""
    server = process("serve", *words, "--port", 0, "--json")
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert line, server.communicate()[1]
        yield json.loads(line)["url"], server
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()
