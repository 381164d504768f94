"""All kinds of what goes wrong in a simulation: frozen values, one class a kind."""

from __future__ import annotations

from typing import Final

from splitiot.testing.simulation._fault import Fault, Span
from splitiot.testing.simulation._link_faults import (
    BitFlips,
    Duplication,
    Jitter,
    Loss,
    Misrouting,
    Reordering,
    SignalledPartition,
    SilentPartition,
    VersionSkew,
)
from splitiot.testing.simulation._machine_faults import (
    Bursts,
    ClockSteps,
    DeviceReboot,
    EdgeCrash,
    FailingSteps,
    FullDisk,
    HostileDevice,
    OtherRuntime,
    ScarceEdge,
    SharedNames,
    SlowDevice,
    SlowEdge,
    SlowSampling,
    StatefulParts,
    TornWrite,
)

__all__ = [
    "CALM",
    "FAULTS",
    "WORLDS",
    "BitFlips",
    "Bursts",
    "ClockSteps",
    "DeviceReboot",
    "Duplication",
    "EdgeCrash",
    "FailingSteps",
    "Fault",
    "FullDisk",
    "HostileDevice",
    "Jitter",
    "Loss",
    "Misrouting",
    "OtherRuntime",
    "Reordering",
    "ScarceEdge",
    "SharedNames",
    "SignalledPartition",
    "SilentPartition",
    "SlowDevice",
    "SlowEdge",
    "SlowSampling",
    "Span",
    "StatefulParts",
    "TornWrite",
    "VersionSkew",
]

WORLDS: Final[tuple[type[Fault], ...]] = (SlowSampling, SharedNames)
"""What a world may be like beside all that goes wrong in it: drawn apart, so that other seeds' draws stay."""

CALM: Final[tuple[type[Fault], ...]] = (
    ClockSteps,
    StatefulParts,
    FailingSteps,
    FullDisk,
    SlowSampling,
    SharedNames,
)
"""What harms neither the link nor the edge."""

FAULTS: Final[tuple[type[Fault], ...]] = (
    Loss,
    Duplication,
    BitFlips,
    Jitter,
    Reordering,
    SilentPartition,
    SignalledPartition,
    EdgeCrash,
    DeviceReboot,
    SlowEdge,
    SlowDevice,
    Bursts,
    Misrouting,
    ClockSteps,
    VersionSkew,
    OtherRuntime,
    StatefulParts,
    ScarceEdge,
    FailingSteps,
    HostileDevice,
    TornWrite,
    FullDisk,
    *WORLDS,
)
"""All kinds. A seed's draws depend on their order: new ones come behind the last."""
