"""The demonstration's edge process: ``python -m splitiot.cli.demo._edge PORT [MODEL]``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from splitiot.adapters.http import serve
from splitiot.cli._child import end_with_parent
from splitiot.cli.demo._pipeline import build
from splitiot.edge import EdgeService

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Serve until killed, or until stdin ends; the port goes to stdout once connections are accepted."""
    end_with_parent(io.FileIO(0, closefd=False))
    port = int(arguments[0])
    pipeline, (width, height) = build(Path(arguments[1]) if len(arguments) > 1 else None)
    with EdgeService([pipeline]) as service:
        service.measure(bytes(2 * width * height), budget_s=1.0)
        serve(service, port=port, ready=_say)


def _say(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
