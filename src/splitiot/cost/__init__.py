"""What every legal placement would cost: one row a placement, all rows at once.

Latency is linear in what is believed about tiers and link, so the table is built once, and new beliefs are
one matrix product away::

    latency_s = device_s * device factor + edge_s * edge factor
              + sent_bytes / up + returned_bytes / down + exchanges * (rtt_s + wait_s)

A placement's row is the same whatever is believed or forbidden: a mask never renumbers. Frames' own headers
count as part of the round trip of a tiny message.
"""

from __future__ import annotations

from splitiot.cost._build import costs
from splitiot.cost._constraints import AtMost, Constraint, StepsOnDevice, as_constraints, met, most_local
from splitiot.cost._costs import (
    DEVICE,
    DOWN,
    EDGE,
    RTT,
    UP,
    WAIT,
    Costs,
    Objective,
    Power,
    check_objective,
    name_of,
)

__all__ = [
    "DEVICE",
    "DOWN",
    "EDGE",
    "RTT",
    "UP",
    "WAIT",
    "AtMost",
    "Constraint",
    "Costs",
    "Objective",
    "Power",
    "StepsOnDevice",
    "as_constraints",
    "check_objective",
    "costs",
    "met",
    "most_local",
    "name_of",
]
