"""The library's logger: silent until somebody listens."""

from __future__ import annotations

import logging

__all__ = ["logger"]

logger = logging.getLogger("splitiot")
logger.addHandler(logging.NullHandler())
