"""What runs measure: ordinary observations of the made-up topology, and impossible ones."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.random import Generator

from splitiot.observation import EdgeTimes, Observation
from splitiot.testing._deployments import STEPS, Deployment

__all__ = ["IMPOSSIBLE", "Truth", "impossible", "odd", "ordinary"]

IMPOSSIBLE: Final = (math.nan, math.inf, -math.inf, -1.0)
"""What no duration can be."""

_ODD: Final = (*IMPOSSIBLE, 0.0, 5e-324, 1e-300, 1e300, 1.7e308)
_CUTS: Final = (-1, STEPS + 1, 99, 2**62)
_SIZES: Final = (-1, 0, 2**63 - 1)


@frozen
class Truth:
    """How tiers and link really are for a while: factors over the topology."""

    device: float
    edge: float
    rate: float
    rtt: float

    @classmethod
    def drawn(cls, rng: Generator) -> Truth:
        """Draw one."""
        device, edge, rate, rtt = np.exp(rng.normal(size=4) * (0.4, 0.7, 1.2, 0.7)).tolist()
        return cls(device, edge, rate, rtt)

    @property
    def factors(self) -> tuple[float, float]:
        """Of device and edge."""
        return self.device, self.edge


def ordinary(deployment: Deployment, truth: Truth, cut: int, plan_id: int, rng: Generator) -> Observation:
    """Return what a run measured."""
    n, table, (link,) = STEPS, deployment.table, deployment.topology.links
    noise = np.exp(rng.normal(size=4 + n) * 0.1).tolist()
    row = table.at_cut(cut)
    _, _, sent, returned, exchanges, _ = table.terms[row].tolist()
    paced = zip(deployment.steps_s, truth.factors, strict=True)
    device, edge = ([s * factor for s in steps] for steps, factor in paced)
    stepwise = bool(rng.integers(2))
    head_steps, head_s = _run(device[:cut], noise[:cut] if stepwise else noise[n : n + 1])
    known: dict[str, Any] = {"plan_id": plan_id, "cut": cut, "head_s": head_s if cut else None}
    if stepwise:
        known["head_steps_s"] = head_steps
    if not exchanges:
        return Observation(**known)
    edge_steps, compute_s = _run(edge[cut:], noise[cut:n] if stepwise else noise[n + 1 : n + 2])
    residence_s = compute_s + 0.004 * noise[n + 2]
    network_s = (link.rtt_s * truth.rtt + link.transfer_s(sent, returned) / truth.rate) * noise[n + 3]
    times = EdgeTimes(compute_s=compute_s, residence_s=residence_s, steps_s=edge_steps if stepwise else ())
    known |= {"edge": times, "tail_s": compute_s, "round_trip_s": residence_s + network_s}
    return Observation(**known, sent_bytes=int(sent) + 60, received_bytes=int(returned) + 40)


def _run(steps_s: list[float], noise: list[float]) -> tuple[tuple[float, ...], float]:
    """Return what each step took, and all."""
    if len(noise) != len(steps_s):
        noise = noise[:1] * len(steps_s)
    taken = tuple(s * x for s, x in zip(steps_s, noise, strict=True))
    return taken, sum(taken)


def impossible(value: float, plan_id: int) -> Observation:
    """Return an observation in which every duration is an impossible number."""
    return Observation(
        plan_id=plan_id,
        cut=2,
        head_s=value,
        tail_s=value,
        local_s=value,
        edge=EdgeTimes(value, value, value, value, value, (value,) * (STEPS - 2)),
        round_trip_s=value,
        sent_bytes=1000,
        received_bytes=1000,
        head_steps_s=(value,) * 2,
        local_steps_s=(value,) * (STEPS - 2),
    )


def odd(plan_id: int, cut: int, rng: Generator) -> Observation:
    """Return an observation in which some things are absurd: numbers, cuts, sizes, plans, numbers of steps."""

    def seconds() -> float | None:
        chance = rng.random()
        if chance < 0.3:
            return None
        return float(rng.choice(_ODD)) if chance < 0.8 else float(rng.exponential(0.1))

    def surely() -> float:
        return float(rng.choice(_ODD)) if rng.random() < 0.6 else float(rng.exponential(0.1))

    def steps() -> tuple[float, ...]:
        return tuple(surely() for _ in range(int(rng.integers(STEPS + 2))))

    def one_of(usual: int, others: tuple[int, ...]) -> int:
        return usual if rng.random() < 0.6 else others[int(rng.integers(len(others)))]

    times = EdgeTimes(surely(), surely(), surely(), surely(), surely(), steps())
    return Observation(
        plan_id=one_of(plan_id, (0, -1, plan_id + 10**6, 2**62 - 1, -(2**62))),
        cut=one_of(cut, _CUTS),
        head_s=seconds(),
        tail_s=seconds(),
        local_s=seconds(),
        edge=times if rng.random() < 0.7 else None,
        round_trip_s=seconds(),
        sent_bytes=one_of(1000, _SIZES),
        received_bytes=one_of(100, _SIZES),
        censored=bool(rng.random() < 0.2),
        retransmitted=bool(rng.random() < 0.1),
        probe=bool(rng.random() < 0.1),
        head_steps_s=steps(),
        local_steps_s=steps(),
    )
