"""Where a device keeps what it has measured of itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any, Final

import msgspec

from splitiot._files import read_json, write_atomically
from splitiot.errors import ProfileError
from splitiot.pipeline import Pipeline, RuntimeInfo
from splitiot.topology import MOST_BYTES, TierProfile

__all__ = ["ProfileCache"]

_CHECKSUM: Final = "crc32"  # one wrong digit, from a failing memory card, would still be a profile


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
        if path is None:
            return None
        try:
            data = read_json(path, kind=dict[str, Any], most_bytes=MOST_BYTES, what="a profile", error=ProfileError)
            if data.pop(_CHECKSUM, None) != _checksum(data):
                return None
            profile = TierProfile.from_dict(data)
        except (ProfileError, OSError, UnicodeEncodeError):
            return None
        return profile if profile.digest == pipeline.digest and profile.n == pipeline.n else None

    def save(self, profile: TierProfile, pipeline: Pipeline, info: RuntimeInfo) -> None:
        """Keep a profile."""
        path = self._file(pipeline, info)
        if path is not None:
            with contextlib.suppress(OSError):  # a read-only home: the next start measures again
                path.parent.mkdir(parents=True, exist_ok=True)
                data = profile.to_dict()
                write_atomically(path, msgspec.json.encode({**data, _CHECKSUM: _checksum(data)}))

    def _file(self, pipeline: Pipeline, info: RuntimeInfo) -> Path | None:
        if self._where is False:
            return None
        if self._where is True:
            home = os.path.expanduser("~")
            base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
            if not os.path.isabs(base):  # no home (a bare container), or a variable to be ignored
                return None
            folder = Path(base) / "splitiot"
        else:
            folder = Path(os.fspath(self._where))
        sink = "" if pipeline.sink == "device" else "-edge"
        if pipeline.parts is not None:  # only the parts that are here were measured
            sink += f"-parts-{hashlib.sha256(repr(pipeline.parts).encode()).hexdigest()[:8]}"
        name = f"{pipeline.digest[:32]}{sink}-{info.name}-{info.version}-{info.kernels}-{info.machine}.json"
        return folder / name


def _checksum(data: dict[str, Any]) -> int:
    return zlib.crc32(msgspec.json.encode(data))
