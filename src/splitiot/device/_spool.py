"""A file in which observations wait for an edge that can't be reached, over restarts of the device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

from splitiot._files import read_bounded, sync_folder, write_new
from splitiot._log import logger

__all__ = ["Disk", "Files", "Spool"]

_MOST_BYTES: Final = 1 << 22  # over a hundred times what some hundred observations take


class Files(Protocol):
    """What a spool needs of a file system; each may raise OSError."""

    def read(self, name: str) -> bytes:
        """Return what a file holds."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file anew, and return when it is on the disk."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another's name, in one step, and return when that is on the disk."""


class Disk:
    """The real files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        return read_bounded(self._folder / name, most_bytes=_MOST_BYTES, what="a spool", error=OSError)

    def write(self, name: str, data: bytes) -> None:
        """Write and sync; makes the folder if need be."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_new(self._folder / name, data)

    def rename(self, old: str, new: str) -> None:
        """Rename, and sync the folder where that is possible."""
        os.replace(self._folder / old, self._folder / new)
        sync_folder(self._folder)


class Spool:
    """Keeps the newest bytes: written beside, synced, renamed, so that a crash leaves the old ones or the new ones.

    A disk that is full or broken is no reason to fail: it is counted, logged once, and tried again.

    Parameters
    ----------
    files : Files
    name : str
    interval_s : float
        The least time between two saves: memory cards wear out.
    """

    def __init__(self, files: Files, name: str, *, interval_s: float = 2.0) -> None:
        self._files, self._name, self._interval_s = files, name, interval_s
        self._saved_s = float("-inf")
        self.failures = 0

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Spool:
        """Return the spool in a real file."""
        where = Path(path)
        return cls(Disk(where.parent), where.name)

    def load(self) -> bytes:
        """Return what was saved last, nothing if there is nothing that can be read."""
        try:
            return self._files.read(self._name)
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._failed(error)
            return b""

    def due(self, now_s: float) -> bool:
        """Whether the last save was long enough ago."""
        return now_s - self._saved_s >= self._interval_s

    def save(self, data: bytes, now_s: float) -> bool:
        """Save these bytes instead of those before; whether that went well."""
        self._saved_s = now_s
        beside = f"{self._name}.new"
        try:
            self._files.write(beside, data)
            self._files.rename(beside, self._name)
        except OSError as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        if self.failures == 1:
            logger.warning("observations can't be kept in %s: %s", self._name, error)
