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
    SlowDevice,
    SlowEdge,
    StatefulParts,
    TornWrite,
)

__all__ = [
    "FAULTS",
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
    "SignalledPartition",
    "SilentPartition",
    "SlowDevice",
    "SlowEdge",
    "Span",
    "StatefulParts",
    "TornWrite",
    "VersionSkew",
]

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
)
"""All kinds. A seed's draws depend on their order: new ones come behind the last."""
