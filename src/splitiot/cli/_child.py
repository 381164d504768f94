"""Other processes of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

__all__ = ["start"]


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
