"""Measures the demonstration's pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from splitiot._child import Parent
from splitiot.cli.demo._pipeline import build
from splitiot.profiling import profile

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Profile, tell, end."""
    parent = Parent()
    pipeline, (width, height) = build(*arguments)
    own = profile(pipeline, bytes(2 * width * height), budget_s=1.5)
    parent.send(msgspec.json.encode(own.to_dict()))
