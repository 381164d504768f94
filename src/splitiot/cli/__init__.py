"""The command ``splitiot``.

Only the module of the command that was asked for is imported, and nothing heavy before it is needed.

Exit codes: 0 done; 1 the answer is no (``verify`` found a difference, ``plan`` no placement, ``torture`` a broken
promise); 2 wrong usage or input that can't be used; 3 a failure while running, such as an edge that does not answer;
130 Ctrl-C; 143 SIGTERM, 129 SIGHUP.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import splitiot
from splitiot.cli._console import Console, write_what_can_be_written
from splitiot.cli._errors import report_errors, show_traceback
from splitiot.cli._signals import terminable

__all__ = ["main"]

# The help's words for each command; its module is splitiot.cli.<name>.
COMMANDS = {
    "inspect": "show where a model can be cut, and what would cross there",
    "split": "write a model's head and tail as files",
    "verify": "check every cut against the uncut model, bit for bit, on this machine",
    "plan": "find the best cut for a device, an edge and the link between them",
    "profile": "measure what a target costs on this machine, and keep it in a file",
    "link": "measure round trip and bandwidths to an edge",
    "serve": "be the edge: run tails for devices, over HTTP",
    "run": "be the device: run requests, with the best cut for each",
    "replay": "say how other policies would have done in a logged run",
    "torture": "simulate devices and an edge while everything goes wrong, and check what is promised",
    "demo": "watch a network move between two processes while the link degrades and the edge dies",
}

_EPILOG = """\
exit codes:
  0    done
  1    the answer is no: verify found a difference, plan no placement, torture a broken promise
  2    wrong usage, or input that can't be used
  3    a failure while running, such as an edge that does not answer
  130  Ctrl-C (serve ends with 0)
  143  SIGTERM (serve ends with 0); 129 SIGHUP
"""


def main(argv: Sequence[str] | None = None, given: argparse.Namespace | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        What stands behind the command's name; the process's own, unless given.
    given : Namespace, optional
        What the command gets besides, from another process of splitiot's.

    Examples
    --------
    >>> main(["--version"])
    splitiot 0.5.0
    0
    """
    if argv is None:  # the process is ours
        sys.excepthook = show_traceback
    tokens = list(sys.argv[1:] if argv is None else argv)
    write_what_can_be_written()
    chosen = next((token for token in tokens if not token.startswith("-")), "")
    module = importlib.import_module(f"splitiot.cli.{chosen}") if chosen in COMMANDS else None
    try:
        arguments = _parser(chosen, module).parse_args(tokens, given)
    except SystemExit as end:  # argparse has said why
        return end.code if isinstance(end.code, int) else 2
    if module is None:
        raise AssertionError("argparse let an unknown command through")
    console = Console(json=getattr(arguments, "json", False))

    def command() -> int:
        with terminable():
            return int(module.run(arguments, console))

    return report_errors(command, console, debug=arguments.debug)


def _parser(chosen: str, module: Any) -> argparse.ArgumentParser:
    wide = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="splitiot",
        description="Cut a network, or a chain of functions, between a device and an edge.",
        epilog=_EPILOG,
        formatter_class=wide,
    )
    parser.add_argument("--version", action="version", version=f"splitiot {splitiot.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        described = (module.__doc__ or summary) if name == chosen else summary
        command = commands.add_parser(name, help=summary, description=described, formatter_class=wide)
        if name == chosen:
            module.add_arguments(command)
            command.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return parser
