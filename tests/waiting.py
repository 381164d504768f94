"""Wait for what other threads and processes do: until it is so, and not for a time in which it should be so."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["WAIT_S", "eventually"]

WAIT_S = 60.0
"""How long a test waits for what must come: long enough for a machine that does ten other things."""


def eventually(condition: Callable[[], object], within_s: float = WAIT_S) -> None:
    """Return as soon as the condition holds; fail if it never comes to that.

    It asks again and again: where the tested code sets an event or joins a thread, wait for that instead.
    """
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, f"it did not come to that within {within_s} s"
        time.sleep(0.002)  # noqa: TID251 (the one place that asks again)
