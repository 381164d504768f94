"""Made-up pipelines, machines and links, and the contexts that may occur with them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.random import Generator
from numpy.typing import NDArray

from splitiot.cost import Costs, Objective, Power, costs, most_local
from splitiot.estimators import Belief, Beliefs
from splitiot.functions import task, tasks
from splitiot.pipeline import Pipeline, Sink, Tier
from splitiot.policies import Context
from splitiot.topology import Link, TierProfile, Topology

__all__ = [
    "POWER",
    "STEPS",
    "Deployment",
    "deployments",
    "described",
    "random_beliefs",
    "random_context",
    "random_vectors",
    "topology",
]

STEPS: Final = 5
POWER: Final = Power(busy_w=2.0, send_w=1.5, receive_w=1.0, idle_w=0.3)
_SECONDS: Final = (0.01, 0.03, 0.02, 0.06, 0.01)
_SENT: Final = (40e3, 60e3, 8e3, 2e3, 500.0, 100.0)
_RETURNED: Final = (100.0, 100.0, 100.0, 100.0, 100.0, 0.0)
_DEADLINES: Final = (None, None, 0.0, 1e-3, 0.05, 0.2, 10.0, 1e6)
_OBJECTIVES: Final[tuple[Objective, ...]] = ("latency_s", "latency_s", "period_s", "energy_j", most_local)
_TELEMETRY: Final[tuple[Mapping[str, float], ...]] = (
    {},
    {},
    {"battery": 1.0},
    {"battery": 0.05, "temperature_c": 80.0},
    {"battery": math.nan, "temperature_c": -math.inf},
    {"battery": -1.0, "something else": 1e300},
)


@frozen(eq=False)
class Deployment:
    """A pipeline of five steps and where it runs. Cuts 1 to 4 are legal in each deployment."""

    name: str
    pipeline: Pipeline
    topology: Topology

    table: Costs = field(init=False)
    steps_s: tuple[list[float], ...] = field(init=False)

    @table.default
    def _costs(self) -> Costs:
        return costs(self.pipeline, self.topology, power=POWER)

    @steps_s.default
    def _steps(self) -> tuple[list[float], ...]:
        return tuple(np.diff(tier.heads_s).tolist() for tier in self.topology.tiers)


def _same(x: Any) -> Any:
    return x


def _deployment(name: str, *, first: Tier | None = None, last: Tier | None = None, sink: Sink = "device") -> Deployment:
    pins = (first, *[None] * (STEPS - 2), last)
    pipeline = tasks([task(_same, name=f"step {i}", tier=pin) for i, pin in enumerate(pins)], sink=sink)
    device = TierProfile.from_steps(
        pipeline.digest, _SECONDS, sent_bytes=_SENT, returned_bytes=_RETURNED, spread=0.05, machine="made up"
    )
    link = Link.from_mbit_per_s(4, 8, rtt_s=0.02)
    return Deployment(name, pipeline, Topology(tiers=[device, device.scaled(0.1)], links=[link]))


@functools.cache
def deployments() -> tuple[Deployment, ...]:
    """Return the deployments of all checks."""
    return (
        _deployment("where every cut is legal"),
        _deployment("where the first step is pinned to the device", first=Tier.DEVICE),
        _deployment("where the last step is pinned to the edge", last=Tier.EDGE),
        _deployment("where the edge wants the results", sink="edge"),
    )


def topology() -> Topology:
    """Return the tiers and the link that the checks' observations fit: those of a pipeline of five steps.

    Examples
    --------
    >>> from splitiot.estimators import TierEstimator
    >>> from splitiot.pipeline import Tier
    >>> make = lambda: TierEstimator(topology().tiers[0], Tier.DEVICE)
    >>> make().profile.n
    5
    """
    return deployments()[0].topology


def random_vectors(rng: Generator, count: int) -> NDArray[np.float64]:
    """Return what may be believed: device and edge factor, 1/up, 1/down, rtt_s, wait_s; shape (count, 6)."""
    middle = np.log([1.0, 1.0, 1 / 500e3, 1 / 1e6, 0.02, 0.01])
    vectors: NDArray[np.float64] = np.exp(middle + rng.normal(size=(count, 6)) * (0.7, 1.0, 2.0, 2.0, 1.0, 1.0))
    vectors[:, 5] *= rng.random(count) < 0.5
    return vectors


def random_beliefs(rng: Generator, vector: Sequence[float]) -> Beliefs:
    """Return beliefs of any age around a vector."""
    device, edge, up, down, rtt_s, wait_s = vector
    values = (device, edge, rtt_s, 1 / up, 1 / down, wait_s)
    numbers = rng.integers(12, size=(6, 3)).tolist()
    return Beliefs(
        *map(_belief, values, numbers, rng.exponential(100.0, 6).tolist(), rng.lognormal(0, 0.5, 6).tolist())
    )


def _belief(value: float, numbers: Sequence[int], age_s: float, off: float) -> Belief:
    samples, spread = (0, 1, 2, 50)[numbers[0] % 4], (0.0, 0.1, 1.0, math.inf)[numbers[1] % 4]
    return Belief(value, spread, age_s if samples else math.inf, samples, numbers[2] % 4, value * off)


def random_context(deployment: Deployment, seed: int, memory: dict[str, Any] | None = None) -> Context:
    """Return a context that may occur; of the same seed two that are equal and share nothing.

    Every sixth one each allows all rows, the most local one, the least local one, a random one, those that do not
    need the edge (where there are some), and some.
    """
    rng = np.random.default_rng([seed, 17])
    table = deployment.table
    (vector,) = random_vectors(rng, 1)
    beliefs = random_beliefs(rng, vector.tolist())
    masked = table.masked(_mask(rng, seed % 6, table)).with_beliefs(vector)
    allowed, picks = np.flatnonzero(masked.mask).tolist(), rng.integers(2**20, size=7).tolist()
    incumbents = (None, allowed[picks[0] % len(allowed)], picks[0] % len(table))
    generator = np.random.default_rng([seed, 18])
    return Context(
        masked,
        random=lambda: generator,
        now_s=(0.0, float(seed), 1e-3 * picks[1])[picks[2] % 3],
        objective=_OBJECTIVES[picks[3] % len(_OBJECTIVES)],
        deadline_s=_DEADLINES[picks[4] % len(_DEADLINES)],
        telemetry=MappingProxyType(dict(_TELEMETRY[picks[5] % len(_TELEMETRY)])),
        incumbent=incumbents[picks[6] % 3],
        memory=memory,
        beliefs=None if picks[2] % 5 == 0 else lambda now_s: beliefs,
    )


def _mask(rng: Generator, kind: int, table: Costs) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_]
    if kind == 0:
        return table.mask
    if kind == 4 and not table.exchanges.all():
        return ~table.exchanges
    if kind <= 3:
        mask = np.zeros(len(table), np.bool_)
        mask[(-1, 0, int(rng.integers(len(table))))[kind - 1]] = True
        return mask
    mask = rng.random(len(table)) < 0.5
    mask[rng.integers(len(table))] = True
    return mask


def described(context: Context) -> str:
    """Say in words what a context is."""
    has = [
        f"with cuts {context.costs.cuts[context.mask].tolist()} of {context.costs.cuts.tolist()} allowed",
        f"the incumbent {context.incumbent}",
        f"the deadline {context.deadline_s}",
        f"the telemetry {dict(context.telemetry)}",
        f"the objective {context.objective if isinstance(context.objective, str) else 'a function'}",
        f"{'no ' if context.beliefs is None else ''}beliefs",
    ]
    return ", ".join(has)
