"""Who chooses, for `control.py`: planners of splitiot with their policies, and the rules of others, written anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from attrs import evolve, frozen
from regimes import HEADER_BYTES, World

import splitiot as si
from splitiot.policies import LinearBandit, LocalMode, StaleProbe, adaptive


class Agent(Protocol):
    """Chooses a cut for each request, and is told what it took."""

    probes: bool
    """Whether the last choice was made to learn something."""

    def choose(self, now_s: float) -> int: ...

    def learn(self, number: int, cut: int, seconds: tuple[float, float, float], now_s: float) -> None: ...


class PlannerAgent:
    """A planner of splitiot.

    Parameters
    ----------
    world : World
    policy : Policy, optional
        splitiot's default unless given.
    singly : bool
        Steps are timed one by one, as those of tasks are; a network's are not.
    seed : int
    """

    def __init__(self, world: World, policy: si.Policy | None, *, singly: bool = False, seed: int = 0) -> None:
        self._world, self._singly = world, singly
        self.planner = si.Planner(world.pipeline, world.topology, policy, seed=seed)
        self._plan_id = 0
        self.probes = False

    def choose(self, now_s: float) -> int:
        plan = self.planner.decide(now_s)
        self._plan_id, self.probes = plan.id, plan.probe
        return plan.cut

    def learn(self, number: int, cut: int, seconds: tuple[float, float, float], now_s: float) -> None:
        world = self._world
        head_s, tail_s, network_s = seconds
        head, tail = world.steps(number, cut) if self._singly else ((), ())
        exchange: dict[str, Any] = {}
        if cut < world.n:
            exchange = {
                "edge": si.EdgeTimes(compute_s=tail_s, residence_s=tail_s, steps_s=tuple(tail)),
                "round_trip_s": network_s + tail_s,
                "sent_bytes": int(world.sent[cut]) + HEADER_BYTES,
                "received_bytes": int(world.returned[cut]) + HEADER_BYTES,
            }
        self.planner.observe(
            si.Observation(
                plan_id=self._plan_id,
                cut=cut,
                head_s=head_s if cut else None,
                head_steps_s=tuple(head),
                **exchange,
            ),
            now_s=now_s,
        )


class SciotRule:
    """SCIoT's rule from its description: what it keeps, and how it chooses.

    An exponential moving average of each layer's seconds on each side (0.2; the first value as it is), the bandwidth
    of the last transfer, and with a probability of 0.1 everything on the device. For each layer L but the last:
    ``sum(device[: L + 1]) + size[L] / speed + sum(edge[L + 1 :])``, and for the last the device alone. That all runs on
    the edge is not among its candidates, unless `all_edge` adds it: then it is a plain greedy average.
    """

    def __init__(self, world: World, *, local: float = 0.1, all_edge: bool = False, seed: int = 0) -> None:
        self._world, self._local, self._random = world, local, np.random.default_rng(seed)
        device, edge = world.topology.tiers
        self.device = np.diff(device.heads_s).tolist()
        self.edge = (-np.diff(edge.tails_s)).tolist()
        self.speed = world.topology.links[0].up_bytes_per_s
        self.sizes = world.sent.tolist()
        self._first = 0 if all_edge else 1
        self._seen: tuple[set[int], set[int]] = (set(), set())
        self.probes = False

    def choose(self, now_s: float) -> int:
        n, device, edge, speed, sizes = self._world.n, self.device, self.edge, self.speed, self.sizes
        self.probes = self._random.random() < self._local
        if self.probes:
            return n
        best, least = n, sum(device)
        for cut in range(self._first, n):
            seconds = sum(device[:cut]) + sizes[cut] / speed + sum(edge[cut:])
            if seconds < least:
                best, least = cut, seconds
        return best

    def learn(self, number: int, cut: int, seconds: tuple[float, float, float], now_s: float) -> None:
        head, tail = self._world.steps(number, cut)
        for kept, seen, first, values in ((self.device, self._seen[0], 0, head), (self.edge, self._seen[1], cut, tail)):
            for step, value in enumerate(values, first):
                kept[step] += (0.2 if step in seen else 1.0) * (value - kept[step])
                seen.add(step)
        if cut < self._world.n:
            self.speed = self.sizes[cut] / seconds[2]


@frozen
class EpsilonGreedy(si.Policy):
    """With a probability any allowed row, else the best."""

    epsilon: float = 0.1

    def decide(self, context: si.Context) -> si.Decision:
        if context.random.random() >= self.epsilon:
            return context.best()
        rows = np.flatnonzero(context.mask)
        row = int(context.random.choice(rows))
        return evolve(context.best(), row=row, why="by chance", probe=True, propensity=self.epsilon / len(rows))


AGENTS: Final[dict[str, Callable[[World, int], Agent]]] = {
    "splitiot's default": lambda world, seed: PlannerAgent(world, adaptive(), seed=seed),
    "default, steps timed": lambda world, seed: PlannerAgent(world, adaptive(), singly=True, seed=seed),
    "StaleProbe": lambda world, seed: PlannerAgent(world, StaleProbe(si.LeastLatency()), seed=seed),
    "LeastLatency": lambda world, seed: PlannerAgent(world, si.LeastLatency(), seed=seed),
    "LocalMode 10 %": lambda world, seed: PlannerAgent(world, LocalMode(si.LeastLatency(), 0.1), seed=seed),
    "LinearBandit": lambda world, seed: PlannerAgent(world, LinearBandit(), seed=seed),
    "greedy EMA": lambda world, seed: SciotRule(world, local=0.0, all_edge=True, seed=seed),
    "SCIoT's rule, all-edge added": lambda world, seed: SciotRule(world, all_edge=True, seed=seed),
    "SCIoT's rule": lambda world, seed: SciotRule(world, seed=seed),
    "epsilon-greedy 0.1": lambda world, seed: PlannerAgent(world, EpsilonGreedy(), seed=seed),
}
"""Makes an agent of a world and a seed."""
