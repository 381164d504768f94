"""Profiles that the other side sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from splitiot.errors import ProfileError
from splitiot.pipeline import Pipeline
from splitiot.topology import TierProfile
from splitiot.wire import ProfileData

__all__ = ["find_profile"]

_OTHER: Final = 16  # of a profile's lists those that are not of steps are shorter


def find_profile(profiles: Iterable[ProfileData], pipeline: Pipeline) -> TierProfile | None:
    """Return the first of these profiles that is of this pipeline, None where there is none.

    Looks at no other one, and at this one only if its lists are no longer than the pipeline can make them.

    Raises
    ------
    ProfileError
        It is none.
    """
    data = next((data for data in profiles if data.get("digest") == pipeline.digest), None)
    if data is None:
        return None
    longest = max((len(column) for column in data.values() if isinstance(column, list)), default=0)
    if longest > pipeline.n + _OTHER:
        raise ProfileError(f"a profile with a list of {longest} numbers is not of a pipeline with {pipeline.n} steps")
    return TierProfile.from_dict(data)
