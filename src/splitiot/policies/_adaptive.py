"""What a planner does unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from splitiot.cost import Constraint, Objective
from splitiot.policies._base import Policy
from splitiot.policies.best import Best
from splitiot.policies.retest_on_drift import RetestOnDrift
from splitiot.policies.stale_probe import StaleProbe

__all__ = ["adaptive"]


def adaptive(objective: Objective = "latency_s", *, subject_to: Iterable[Constraint] | Constraint = ()) -> Policy:
    """Return the policy that a planner has by default: the best one that we measured (`benchmarks/control.py`).

    Parameters
    ----------
    objective, subject_to
        See `Best`.

    Examples
    --------
    >>> adaptive() == RetestOnDrift(StaleProbe(Best("latency_s")))
    True
    """
    return RetestOnDrift(StaleProbe(Best(objective, subject_to=subject_to)))
