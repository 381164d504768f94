"""How much of the long tests runs here: all in the main environment, a part where the same code runs once more."""

from __future__ import annotations

import os

__all__ = ["FULL"]

FULL = "litert" in os.environ.get("SPLITIOT_TEST_EXTRAS", "litert").split(",")
