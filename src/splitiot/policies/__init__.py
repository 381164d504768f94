"""How a placement is chosen."""

from __future__ import annotations

from splitiot.policies._base import Context, Decision, Policy
from splitiot.policies.best import Best, LeastLatency
from splitiot.policies.fixed import Fixed
from splitiot.policies.local_mode import LocalMode

__all__ = ["Best", "Context", "Decision", "Fixed", "LeastLatency", "LocalMode", "Policy"]
