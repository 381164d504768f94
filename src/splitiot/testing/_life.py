"""One device's requests through a real planner, in a deployment that changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from attrs import frozen
from numpy.random import Generator

from splitiot.observation import Observation
from splitiot.planner import Planner
from splitiot.policies import Decision, Policy
from splitiot.testing._create import name_of
from splitiot.testing._deployments import POWER, STEPS, Deployment
from splitiot.testing._observations import Truth, odd, ordinary
from splitiot.testing._plain import not_plain, through_json

__all__ = ["Choice", "Life", "difference"]

_HOLDS: Final = 25  # requests after which the deployment changes
_BATTERY: Final[tuple[dict[str, float], ...]] = ({}, {"battery": 0.9}, {"battery": 0.1, "temperature_c": 70.0})


@frozen
class Choice:
    """What is compared of a decision."""

    cut: int
    why: str
    probe: bool
    propensity: float

    def __str__(self) -> str:
        chance = "" if self.propensity == 1 else f" with propensity {self.propensity:.6g}"
        return f"cut {self.cut} ({self.why}){chance}"


class Life:
    """Requests, and observations that come late, twice, in pieces, as a lower bound, or never.

    All of it follows from the seed and the decisions.

    Parameters
    ----------
    deployment : Deployment
    policy : Policy
    seed : int
    absurd : bool
        Add observations of things that can't be.
    """

    def __init__(self, deployment: Deployment, policy: Policy, seed: int, *, absurd: bool = False) -> None:
        self.deployment, self.seed, self.absurd = deployment, seed, absurd
        self._requests, self._now_s = 0, 0.0
        self._due: list[tuple[float, Observation]] = []
        self._cuts: list[int] | None = None
        self._truth = Truth(1.0, 1.0, 1.0, 1.0)
        self._begin(policy)

    def _begin(self, policy: Policy) -> None:
        self.policy = policy
        objective = ("latency_s", "energy_j", "period_s")[self.seed % 3]
        deployment = self.deployment
        self.planner = Planner(
            deployment.pipeline,
            deployment.topology,
            policy,
            objective=objective,  # type: ignore[arg-type]  # one of the three names, for mypy a str
            seed=self.seed,
            power=POWER,
        )

    def restart(self, policy: Policy) -> None:
        """Store the planner's state as JSON, and go on with a new planner."""
        try:
            state = self.planner.snapshot()
        except Exception as error:
            raise AssertionError(f"{self._where()}: {error!r} from Planner.snapshot()") from error
        if problem := not_plain(state, "state"):
            raise AssertionError(f"{self._where()}: Planner.snapshot() can't be stored as JSON: {problem}")
        self._begin(policy)
        self.planner.restore(through_json(state))
        self.planner.restrict(self._cuts)

    def requests(self, count: int) -> list[Choice]:
        """Make so many requests; say what was decided."""
        return [self.request() for _ in range(count)]

    def request(self) -> Choice:
        """Make a request, and take the observations that are due."""
        rng = np.random.default_rng([self.seed, self._requests])
        if self._requests % _HOLDS == 0:
            self._change(rng)
        self._requests += 1
        self._now_s += float(rng.exponential(0.3))
        deadline_s = (None, 0.01, 0.1, 1.0)[int(rng.integers(4))]
        telemetry = _BATTERY[int(rng.integers(3))]
        edge_up = bool(rng.random() < 0.9) or not self._can_be_alone()
        try:
            plan = self.planner.decide(self._now_s, deadline_s=deadline_s, telemetry=telemetry, edge_up=edge_up)
        except Exception as error:
            raise AssertionError(f"{self._where()}: {error!r}. It must always choose an allowed row") from error
        self._due += self._measured(plan.cut, plan.id, rng)
        due = [observation for when, observation in self._due if when <= self._now_s]
        self._due = [(when, observation) for when, observation in self._due if when > self._now_s]
        rng.shuffle(due)
        try:
            self.planner.observe(*due, now_s=self._now_s)
        except Exception as error:
            raise AssertionError(f"{self._where()}: {error!r} while it learnt from {due}") from error
        d: Decision = plan.decision
        return Choice(plan.cut, d.why, d.probe, d.propensity)

    def _where(self) -> str:
        return f"{name_of(self.policy)}, {self.deployment.name}, seed {self.seed}, request {self._requests}"

    def _change(self, rng: Generator) -> None:
        self._truth = Truth.drawn(rng)
        some = sorted({int(c) for c in rng.choice(self.deployment.table.cuts, 3)})
        self._cuts = some if rng.random() < 0.2 else None
        self.planner.restrict(self._cuts)

    def _can_be_alone(self) -> bool:
        local = self.deployment.table.local_row
        if local is None or self.deployment.table.exchanges[local]:
            return False
        return self._cuts is None or STEPS in self._cuts

    def _measured(self, cut: int, plan_id: int, rng: Generator) -> Iterator[tuple[float, Observation]]:
        """Yield observations, each with the time at which it will be known."""
        change = msgspec.structs.replace
        observation, now_s, kind = ordinary(self.deployment, self._truth, cut, plan_id, rng), self._now_s, rng.random()
        if self.absurd:
            yield now_s, odd(plan_id, cut, rng)
        if kind < 0.1:  # lost
            return
        if kind < 0.2 and observation.round_trip_s is not None:  # a lower bound, and much later the answer
            bound_s = 0.5 * observation.round_trip_s
            bounds = {"round_trip_s": bound_s, "edge": None, "tail_s": None, "received_bytes": 0, "censored": True}
            yield now_s, change(observation, **bounds)
            yield now_s + 5, observation
        elif kind < 0.3:  # in pieces
            yield now_s, change(observation, round_trip_s=None, edge=None, tail_s=None)
            yield now_s + 0.5, change(observation, head_s=None, head_steps_s=())
        elif kind < 0.4:  # several times
            yield now_s, observation
            yield now_s, observation
            yield now_s + 3, observation
        elif kind < 0.5:  # late
            yield now_s + float(rng.exponential(20.0)), observation
        elif kind < 0.55:
            yield now_s, change(observation, retransmitted=True)
        else:
            yield now_s, observation
        if rng.random() < 0.05:
            rtt_s = self.deployment.topology.links[0].rtt_s * self._truth.rtt
            yield now_s, Observation(plan_id=0, cut=0, probe=True, round_trip_s=rtt_s, sent_bytes=40, received_bytes=40)


def difference(one: list[Choice], other: list[Choice]) -> str | None:
    """Say where two lives differ first, None where they don't."""
    for i, (a, b) in enumerate(zip(one, other, strict=True), 1):
        if a != b:
            return f"request {i} got {a}, then {b}"
    return None
