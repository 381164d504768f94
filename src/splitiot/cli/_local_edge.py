"""An edge in a second process on this machine: how `run` starts it, and what that process is."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import secrets
import sys
import threading
from collections.abc import Iterator
from typing import Final

from splitiot._child import ChildDied, ChildHung, ChildProcess, Parent
from splitiot.cli._console import Console
from splitiot.cli._errors import CommandFailed, UsageError

__all__ = ["GRACE_S", "local_edge", "main"]

GRACE_S: Final = 5.0
"""For what is under way when the device ends."""


@contextlib.contextmanager
def local_edge(arguments: argparse.Namespace, console: Console) -> Iterator[tuple[str, str]]:
    """Start an edge for the target of `arguments`, give its address and the token for it, and end it.

    What it says meanwhile goes to stderr.

    Raises
    ------
    UsageError, CommandFailed
        It did not start, for these reasons: its last words.
    """
    token, said = secrets.token_urlsafe(32), _Said(console)
    options = [f"--{name}={getattr(arguments, name)}" for name in ("runtime", "kernels", "threads")]
    options += [f"--{name}={value}" for name in ("signature", "sink") if (value := getattr(arguments, name))]
    options += ["--debug"] * arguments.debug
    command = ["serve", arguments.target, "--port=0", "--json", *options]
    child = ChildProcess("local-edge", "from splitiot.cli._local_edge import main; main()", on_stderr=said)
    try:
        child.send(json.dumps({"command": command, "token": token}).encode())
        with console.status("starting an edge beside"):
            url = _url(child)
        said.passes_all_on()
        console.note(f"an edge was started beside, at {url} (--edge URL takes another, --edge none does without)")
        yield url, token
    finally:
        said.ending = True
        try:
            child.hang_up()
            with contextlib.suppress(ChildHung):
                child.wait(GRACE_S + 1)
        finally:
            child.kill()


def _url(child: ChildProcess) -> str:
    """Wait until it is ready, however long it measures."""
    try:
        return bytes(child.receive(math.inf)[0]).decode()
    except ChildDied as death:
        kind = UsageError if death.exit_code == 2 else CommandFailed
        last = child.last_line().removeprefix("splitiot: ") or "nothing"
        raise kind(f"the edge beside did not start; it said: {last}") from None


class _Said:
    """Passes on what the edge says; its last line is kept back until it is ready, since it may say why it is not."""

    def __init__(self, console: Console) -> None:
        self.ending = False
        self._console, self._kept, self._ready = console, "", False
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        with self._lock:
            if line and not self._ready:
                line, self._kept = self._kept, line
            self._pass_on(line)

    def passes_all_on(self) -> None:
        """From now on nothing is kept back."""
        with self._lock:
            self._ready = True
            self._pass_on(self._kept)

    def _pass_on(self, line: str) -> None:
        if line and not self.ending:
            self._console.note(f"edge: {line}")


def main() -> None:
    """Be that edge, for one device: until it ends, whatever ends it."""
    from splitiot.cli import main as run_command

    parent = Parent(grace_s=GRACE_S)
    order = json.loads(bytes(parent.receive()[0]))
    sys.argv[1:] = order["command"]
    given = argparse.Namespace(tokens={order["token"]: "beside"}, announce=lambda url: parent.send(url.encode()))
    sys.exit(run_command(given=given))
