"""``splitiot demo``: a real network on two processes, over a link that gets bad, and an edge that dies.

An edge process, a device process and a shaped link between them, all on this machine. The device is played: it waits
after each part as a slower machine would. Everything else is real: the network, the cuts, HTTP, SIGKILL.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from splitiot.cli._console import Console

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", type=Path, help="a .tflite of your own that takes one RGB picture")
    parser.add_argument("--image", type=Path, action="append", help="a picture of your own (may be repeated)")
    parser.add_argument("--out", type=Path, default=Path("splitiot-demo"), help="where results go (%(default)s)")
    parser.add_argument("--requests", type=int, default=24, help="requests in each phase (%(default)s)")
    parser.add_argument(
        "--device-ms", type=float, default=300.0, help="what the whole network takes on the played device (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the link's jitter (%(default)s)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the demonstration; 0 if no request was lost and every value was right."""
    from splitiot.cli.demo._run import run as play  # the device process, too, imports this package

    return play(arguments, console.with_markup())
