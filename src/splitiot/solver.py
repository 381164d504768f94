"""The best placement, without any history."""

from __future__ import annotations

from collections.abc import Iterable

from splitiot.cost import Constraint, Objective, Power
from splitiot.pipeline import Pipeline
from splitiot.plan import Plan
from splitiot.planner import Planner
from splitiot.policies import Best
from splitiot.topology import Topology

__all__ = ["solve"]


def solve(
    pipeline: Pipeline,
    topology: Topology,
    *,
    objective: Objective = "latency_s",
    parts: Iterable[tuple[int, int]] | None = None,
    power: Power | None = None,
    subject_to: Iterable[Constraint] | Constraint = (),
) -> Plan:
    """Find the best placement: one planner's decision, believing the topology as it is given.

    Parameters
    ----------
    pipeline : Pipeline
    topology : Topology
        Two tiers: device and edge.
    objective : {"latency_s", "period_s", "energy_j"} or callable
    parts : iterable of (start, stop), optional
        The parts that the device has; all unless given.
    power : Power, optional
        For ``energy_j``.
    subject_to : constraint, or iterable of them
        `AtMost`, `StepsOnDevice`, or a callable; see `Planner`.

    Raises
    ------
    Infeasible
        No placement is allowed, or none meets the constraints.
    ProfileError, ValueError
        See `costs`.

    Examples
    --------
    >>> from splitiot import tasks
    >>> from splitiot.topology import Link, TierProfile
    >>> def double(x): return 2 * x
    >>> pipeline = tasks([double])
    >>> profile = TierProfile.from_steps(pipeline.digest, [0.5], sent_bytes=[1000, 0], returned_bytes=[10, 0])
    >>> link = Link.from_mbit_per_s(1, rtt_s=0.01)
    >>> print(solve(pipeline, Topology(tiers=[profile, profile.scaled(0.1)], links=[link])).explain())
    plan 1: all on the edge (0 of 1 steps on the device)
      why         least latency_s
      device            0.000 ms
      up                8.000 ms  1,000 bytes at 1 Mbit/s
      edge               50.0 ms
      down              0.080 ms  10 bytes at 1 Mbit/s
      round trip         10.0 ms
      latency            68.1 ms
      runner-up   all local, 431.9 ms (634%) worse
      below       0.01819 Mbit/s up: all local is best
      do not split: all on the edge is best
    """
    planner = Planner(
        pipeline, topology, Best(objective), objective=objective, parts=parts, power=power, subject_to=subject_to
    )
    return planner.decide(0.0)
