"""An edge beside a device, in a second process on this machine: how `run` starts it, and how `serve` is it.

Its stdin says for how long: the first line is the token of the only device that may connect, and when it ends, whatever
ended the device, the edge ends too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import secrets
import subprocess
import threading
from collections.abc import Iterator

from splitiot.cli._child import GRACE_S, end_with_parent, start
from splitiot.cli._console import Console
from splitiot.cli._errors import Failed, Unusable

__all__ = ["edge_beside", "token_of_parent"]

_READY = '{"url":'  # how `serve --json` begins the line that says so


@contextlib.contextmanager
def edge_beside(arguments: argparse.Namespace, console: Console) -> Iterator[tuple[str, str]]:
    """Start an edge for the target of `arguments`, give its address and the token for it, and end it.

    What it says meanwhile goes to stderr.

    Raises
    ------
    Unusable, Failed
        It did not start, for these reasons: its last words.
    """
    edge = _Edge(arguments, console)
    try:
        with console.status("starting an edge beside"):
            url = edge.url()
        console.note(f"an edge was started beside, at {url} (--edge URL takes another, --edge none does without)")
        yield url, edge.token
    finally:
        edge.end()


class _Edge:
    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self.token = secrets.token_urlsafe(32)
        self._console = console
        self._url = ""
        self._told, self._ending = threading.Event(), False
        self._last = ""  # kept back until it is ready: it may be why it is not
        words = [f"--{name}={getattr(arguments, name)}" for name in ("runtime", "kernels", "threads")]
        words += [f"--{name}={value}" for name in ("signature", "sink") if (value := getattr(arguments, name))]
        words += ["--debug"] * arguments.debug
        self._process = start(
            "splitiot", ["serve", arguments.target, "--port=0", "--beside", "--json", *words], errors=subprocess.STDOUT
        )
        self._listener = threading.Thread(target=self._listen, name="splitiot-beside", daemon=True)
        self._listener.start()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # if it has ended already, its words say more
            self._process.stdin.write(f"{self.token}\n")
            self._process.stdin.flush()

    def url(self) -> str:
        """Wait until it is ready."""
        while not self._told.wait(0.5):  # in slices, so that Ctrl-C is heard on every platform
            pass
        if self._url:
            return self._url
        kind = Unusable if self._process.wait() == 2 else Failed
        last = self._last.removeprefix("splitiot: ") or "nothing"
        raise kind(f"the edge beside did not start; it said: {last}")

    def end(self) -> None:
        """Tell it to end, and see that it does."""
        self._ending = True
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S + 1)
        finally:
            process.kill()
            process.wait()
            self._listener.join(1.0)
            if not self._listener.is_alive():  # else a process of the target's own holds the pipe open
                process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                text = line.rstrip()
                if self._url:
                    self._pass_on(text)
                    continue
                text, mark, rest = text.partition(_READY)  # what the target printed may stand before it
                if text:
                    self._pass_on(self._last)
                    self._last = text
                if mark:
                    self._pass_on(self._last)
                    self._url = json.loads(mark + rest)["url"]
                    self._told.set()
        finally:
            self._told.set()

    def _pass_on(self, text: str) -> None:
        if text and not self._ending:
            self._console.note(f"edge: {text}")


def token_of_parent() -> str:
    """Return the token that `edge_beside` handed over; from now on this process ends when its parent does.

    Raises
    ------
    Unusable
        There is none.
    """
    # unbuffered and by number: a thread that waits in sys.stdin can't be left alone at the end
    pipe = io.FileIO(0, closefd=False)
    token = pipe.readline().decode().strip()
    if not token:
        raise Unusable("--beside is for `splitiot run`: it hands over a token")
    end_with_parent(pipe)
    return token
