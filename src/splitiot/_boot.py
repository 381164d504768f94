"""Who a process is to its peers, until it ends."""

from __future__ import annotations

import os

from splitiot.wire import BOOT_BYTES

__all__ = ["new_boot"]


def new_boot() -> bytes:
    """Return an identity that nobody can guess or has had: who knows it can ask in its owner's place."""
    return os.urandom(BOOT_BYTES)
