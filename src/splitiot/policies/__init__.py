"""How a placement is chosen."""

from __future__ import annotations

from splitiot.policies._adaptive import adaptive
from splitiot.policies._base import Context, Decision, Policy, Ranking
from splitiot.policies._memory import PolicyMemory
from splitiot.policies.best import Best, LeastEnergy, LeastLatency
from splitiot.policies.deadline import Deadline
from splitiot.policies.fixed import Fixed
from splitiot.policies.hysteresis import Hysteresis
from splitiot.policies.linear_bandit import LinearBandit
from splitiot.policies.local_mode import LocalMode
from splitiot.policies.retest_on_drift import RetestOnDrift
from splitiot.policies.stale_probe import StaleProbe
from splitiot.policies.throughput_target import ThroughputTarget
from splitiot.policies.wrapper import Wrapper

__all__ = [
    "Best",
    "Context",
    "Deadline",
    "Decision",
    "Fixed",
    "Hysteresis",
    "LeastEnergy",
    "LeastLatency",
    "LinearBandit",
    "LocalMode",
    "Policy",
    "PolicyMemory",
    "Ranking",
    "RetestOnDrift",
    "StaleProbe",
    "ThroughputTarget",
    "Wrapper",
    "adaptive",
]
