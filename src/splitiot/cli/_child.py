"""Other processes of ours."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

__all__ = ["GRACE_S", "end_with_parent", "start"]

GRACE_S = 5.0
"""For what is under way when the parent ends."""


def start(module: str, arguments: Sequence[str], *, errors: int | IO[str]) -> subprocess.Popen[str]:
    """Start ``python -m MODULE ARGUMENTS`` with pipes to its stdin and from its stdout.

    Parameters
    ----------
    module : str
    arguments : sequence of str
    errors : file, or one of subprocess's numbers
        Where its stderr goes.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C is for the parent, which then ends them
    )


def end_with_parent(pipe: io.FileIO) -> None:
    """End this process when its parent does, however that ends: `pipe` comes from it, and is read until it closes.

    SIGTERM comes first; what is still under way after `GRACE_S` is given up.
    """

    def watch() -> None:
        while pipe.read(4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="splitiot-parent", daemon=True).start()
