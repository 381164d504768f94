"""Devices and an edge on a virtual clock while everything goes wrong: see `simulate`."""

from __future__ import annotations

from splitiot.testing.simulation._faults import FAULTS, Fault
from splitiot.testing.simulation._report import Report, Violation
from splitiot.testing.simulation._world import simulate

__all__ = ["FAULTS", "Fault", "Report", "Violation", "simulate"]
