"""The protocol's two halves, without input or output: frames and times go in, effects come out."""

from __future__ import annotations

from splitiot.session._arrival import Arrival
from splitiot.session._counters import DeviceCounters, EdgeCounters
from splitiot.session._device import DeviceSession
from splitiot.session._device_planners import MakePlanner
from splitiot.session._edge import EdgeSession
from splitiot.session._effects import (
    DeviceEffect,
    EdgeEffect,
    EdgeProfile,
    ForgetState,
    Job,
    NewObservation,
    RequestDone,
    RunLocal,
    RunPart,
    Send,
)
from splitiot.session._received import Received
from splitiot.session._states import TRANSITIONS, Event, State
from splitiot.session._trouble import Trouble

__all__ = [
    "TRANSITIONS",
    "Arrival",
    "DeviceCounters",
    "DeviceEffect",
    "DeviceSession",
    "EdgeCounters",
    "EdgeEffect",
    "EdgeProfile",
    "EdgeSession",
    "Event",
    "ForgetState",
    "Job",
    "MakePlanner",
    "NewObservation",
    "Received",
    "RequestDone",
    "RunLocal",
    "RunPart",
    "Send",
    "State",
    "Trouble",
]
