"""What the demonstration and its device process say to each other: JSON."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Order", "ProcessUsage", "Ready", "RequestResult", "Setting"]


class Setting(msgspec.Struct):
    """What the device process is started with."""

    url: str
    whole_s: float
    frames: list[bytes]
    profile: dict[str, Any]
    seed: int = 0


class Order(msgspec.Struct):
    """Run so many requests with this policy; none: end."""

    phase: str
    policy: str
    requests: int


class RequestResult(msgspec.Struct):
    """How one request went."""

    phase: str
    policy: str
    number: int
    picture: int
    cut: int
    sent_bytes: int
    device_s: float
    network_s: float | None
    edge_s: float | None
    total_s: float
    source: str
    right: bool
    why: str
    believed_mbit: float
    value: Any = None
    error: str = ""


class Ready(msgspec.Struct, tag="ready"):
    """The device is up."""

    steps: list[str]
    whole_s: float
    factor: float
    middle: int
    welcome: bool


class ProcessUsage(msgspec.Struct, tag="gone"):
    """What its process has used; it ends then."""

    peak_bytes: int
