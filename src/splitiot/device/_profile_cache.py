"""Where a device keeps what it has measured of itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from splitiot.errors import ProfileError
from splitiot.pipeline import Pipeline, RuntimeInfo
from splitiot.topology import TierProfile

__all__ = ["ProfileCache"]


class ProfileCache:
    """A folder of profiles, told apart by pipeline, parts and runtime.

    Parameters
    ----------
    where : bool or path
        True is the user's cache folder, if there is one (as the XDG Base Directory Specification has it); False keeps
        nothing.
    """

    def __init__(self, where: bool | str | os.PathLike[str]) -> None:
        self._where = where

    def load(self, pipeline: Pipeline, info: RuntimeInfo) -> TierProfile | None:
        """Return the profile of this pipeline on this runtime, None where there is no sound one."""
        path = self._file(pipeline, info)
        if path is None or not path.is_file():
            return None
        try:
            found = TierProfile.load(path)
        except (ProfileError, OSError):
            return None
        return found if found.digest == pipeline.digest and found.n == pipeline.n else None

    def save(self, profile: TierProfile, pipeline: Pipeline, info: RuntimeInfo) -> None:
        """Keep a profile."""
        path = self._file(pipeline, info)
        if path is not None:
            with contextlib.suppress(OSError):  # a read-only home: measured again next time
                path.parent.mkdir(parents=True, exist_ok=True)
                profile.save(path)

    def _file(self, pipeline: Pipeline, info: RuntimeInfo) -> Path | None:
        if self._where is False:
            return None
        if self._where is True:
            home = os.path.expanduser("~")
            base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
            if not os.path.isabs(base):  # there is no home (a bare container), or the variable is to be ignored
                return None
            folder = Path(base) / "splitiot"
        else:
            folder = Path(os.fspath(self._where))
        sink = "" if pipeline.sink == "device" else "-edge"
        if pipeline.parts is not None:  # what was measured is told by what is here
            sink += f"-parts-{hashlib.sha256(repr(pipeline.parts).encode()).hexdigest()[:8]}"
        name = f"{pipeline.digest[:32]}{sink}-{info.name}-{info.version}-{info.kernels}-{info.machine}.json"
        return folder / name
