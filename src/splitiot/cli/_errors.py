"""How a command ends that could not do its work: its errors, the one line on stderr that says each, the exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from splitiot._escape import escaped
from splitiot.cli._signals import Terminated
from splitiot.errors import (
    CutError,
    Infeasible,
    LocalProtocolError,
    MissingDependencyError,
    ModelError,
    ProfileError,
    SplitiotError,
    TraceError,
)

if TYPE_CHECKING:
    from splitiot.cli._console import Console

__all__ = ["CommandFailed", "UsageError", "exit_code", "report_errors", "show_traceback"]


class UsageError(Exception):
    """What was given on the command line can't be used: exit code 2."""


class CommandFailed(Exception):
    """It went wrong while running: exit code 3."""


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error: 1 the answer is no, 2 the input's fault, 3 the run's.

    Examples
    --------
    >>> exit_code(Infeasible("none")), exit_code(UsageError("no such cut")), exit_code(OSError("unreachable"))
    (1, 2, 3)
    """
    if isinstance(error, Infeasible):
        return 1
    wanting = LocalProtocolError | MissingDependencyError
    if isinstance(error, UsageError | ModelError | CutError | ProfileError | TraceError | wanting):
        return 2
    return 3


def report_errors(command: Callable[[], int], console: Console, *, debug: bool) -> int:
    """Run a command and return its exit code; an error that ends it is said on stderr, or raised with `debug`."""
    try:
        return command()
    except KeyboardInterrupt as interrupt:
        if debug:
            raise
        if isinstance(interrupt, Terminated):
            console.error(f"ended by {interrupt}")
            return 128 + interrupt.number
        console.error("interrupted")
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (SplitiotError, OSError, UsageError, CommandFailed) as error:
        if debug:
            raise
        console.error(str(error) or type(error).__name__)
        return exit_code(error)


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an exception as Python does, but for what its words would do to the terminal."""
    import traceback

    sys.stderr.write(escaped("".join(traceback.format_exception(kind, error, trace))))
