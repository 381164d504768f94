"""How much of the long tests runs here: all in the main environment, a part where the same code runs once more."""

from __future__ import annotations

import os

__all__ = ["FULL", "SEARCH", "examples"]

FULL = "litert" in os.environ.get("SPLITIOT_TEST_EXTRAS", "litert").split(",")

SEARCH = os.environ.get("SPLITIOT_TEST_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "local")
"""How Hypothesis searches: "ci" takes the same examples each time, "local" others, "nightly" ten times as many."""


def examples(number: int) -> int:
    """How many examples a test tries that does not try the usual 100."""
    return number * (10 if SEARCH == "nightly" else 1)
