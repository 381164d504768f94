"""Measures the demonstration's pipeline: ``python -m splitiot.cli.demo._profile [MODEL]`` writes JSON to stdout."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from splitiot.cli.demo._pipeline import build
from splitiot.profiling import profile

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Profile, write, end."""
    pipeline, (width, height) = build(Path(arguments[0]) if arguments else None)
    own = profile(pipeline, bytes(2 * width * height), budget_s=1.5)
    sys.stdout.buffer.write(msgspec.json.encode(own.to_dict()))


if __name__ == "__main__":
    main(sys.argv[1:])
