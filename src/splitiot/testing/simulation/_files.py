"""A device's disk, which can be full, and can lose power while it writes."""

from __future__ import annotations

import errno
from collections.abc import Callable

__all__ = ["PowerCut", "SimulatedFiles"]


class PowerCut(BaseException):
    """The device's power went while it wrote: nothing in it can catch this."""


class SimulatedFiles:
    """Files that outlive a device's crashes.

    Attributes
    ----------
    full : bool
        Whether the disk is full.
    tears : callable
        Whether the power goes in the middle of this write; and if so, how many of these bytes are on the disk then.
    """

    def __init__(self) -> None:
        self.full = False
        self.tears: Callable[[int], int | None] = lambda size: None
        self._files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", name)
        return self._files[name]

    def write(self, name: str, data: bytes) -> None:
        """Write a file anew."""
        if self.full:
            self._files[name] = data[: len(data) // 2]
            raise OSError(errno.ENOSPC, "no space left on the device", name)
        torn = self.tears(len(data))
        if torn is not None:
            self._files[name] = data[:torn]
            raise PowerCut
        self._files[name] = data

    def rename(self, old: str, new: str) -> None:
        """Give a file another's name."""
        self._files[new] = self._files.pop(old)

    def spoil(self, chance_of: Callable[[int], int]) -> None:
        """Let the disk lose the end of each file, as one that only says that it had written does at a power cut."""
        for name, data in self._files.items():
            if data:
                self._files[name] = data[: chance_of(len(data))]
