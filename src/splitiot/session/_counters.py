"""What the sessions counted."""

from __future__ import annotations

import msgspec

__all__ = ["DeviceCounters", "EdgeCounters"]


class DeviceCounters(msgspec.Struct, eq=False):
    """What a session counted: `dropped` by tasks that filter, `skipped` since newer frames came before they began."""

    requests: int = 0
    offloaded: int = 0
    hedges: int = 0
    fallbacks: int = 0
    retries: int = 0
    late_replies: int = 0
    bad_frames: int = 0
    dropped: int = 0
    skipped: int = 0


class EdgeCounters(msgspec.Struct, eq=False):
    """What a session counted: `full` of those that were told busy because there was no place for another device."""

    requests: int = 0
    duplicates: int = 0
    busy: int = 0
    full: int = 0
    bad_frames: int = 0
    failures: int = 0
    dropped: int = 0
    dropped_observations: int = 0
    planner_errors: int = 0
