"""A link that stalls and heals: who avoids it must notice that it is well again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from attrs import evolve, frozen

from splitiot.observation import EdgeTimes, Observation
from splitiot.plan import Plan
from splitiot.planner import Planner
from splitiot.policies import LeastLatency, Policy
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline
from tests.share import FULL

PATIENCE_S = 5.0
BOUND = 300  # requests, from when the link is well until one is offloaded as a matter of course


@frozen
class World:
    """A device, a server that is 5 to 50 times faster, and a link on which offloading all takes 1/3 to 2/3 as long."""

    pipeline: SizedPipeline
    device: TierProfile
    edge: TierProfile
    link: Link
    idle_s: float
    chance: np.random.Generator

    @classmethod
    def draw(cls, seed: int) -> World:
        chance = np.random.default_rng(seed)
        n = int(chance.integers(1, 20))
        sizes = np.exp(chance.uniform(math.log(1e3), math.log(1e6), n + 1)).astype(int)
        pipeline = SizedPipeline([*sizes[:n].tolist(), int(chance.integers(10, 1000))])
        device = TierProfile.from_steps(pipeline.digest, np.exp(chance.normal(-3, 1, n)).tolist())
        edge = device.scaled(1 / chance.uniform(5, 50))
        share = chance.uniform(1 / 3, 2 / 3) * device.whole_s - edge.whole_s
        rtt_s = share * chance.uniform(0.05, 0.5)
        rate = (pipeline.nbytes[0] + pipeline.nbytes[n]) / (share - rtt_s)
        return cls(pipeline, device, edge, Link(rtt_s, rate, rate), float(chance.choice([0.0, 0.1, 1.0])), chance)

    def planner(self, seed: int, policy: Policy | None) -> Planner:
        return Planner(self.pipeline, Topology([self.device, self.edge], [self.link]), policy, seed=seed)

    def request(
        self, planner: Planner, plan: Plan, now_s: float, link: Link | None, slower: float = 1.0, queue_s: float = 0.0
    ) -> float:
        """Let the planner see a request; without a `link` there is no answer. Return when it was over."""
        pipeline, cut = self.pipeline, plan.cut
        noise = np.exp(0.05 * self.chance.standard_normal(3))
        head_s = float(self.device.heads_s[cut] * noise[0])
        tail_s = float(self.edge.tails_s[cut] * noise[1]) * slower
        now_s += head_s + self.idle_s
        seen = {"plan_id": plan.id, "cut": cut, "head_s": head_s if cut else None}
        if cut < pipeline.n:
            sent, back = pipeline.nbytes[cut], pipeline.nbytes[pipeline.n]
            seen["sent_bytes"] = sent
            round_trip_s = math.inf
            if link is not None:
                round_trip_s = link.transfer_s(sent, back) * noise[2] + tail_s + queue_s
            if round_trip_s > PATIENCE_S:
                now_s += PATIENCE_S
                planner.observe(Observation(**seen, round_trip_s=PATIENCE_S, censored=True), now_s=now_s)
                local_s = float(self.device.tails_s[cut])
                now_s += local_s
                planner.observe(Observation(**seen, local_s=local_s), now_s=now_s)
                return now_s
            now_s += round_trip_s
            seen |= {"round_trip_s": round_trip_s, "received_bytes": back}
            seen["edge"] = EdgeTimes(queue_s=queue_s, compute_s=tail_s, residence_s=tail_s + queue_s)
        planner.observe(Observation(**seen), now_s=now_s)
        return now_s


def resumes_after(seed: int, policy: Policy | None = None) -> float:
    """Let a link stall and heal; return after how many requests offloading goes on, inf for never.

    While it stalls, requests that need the edge are not answered within the device's patience (then the device finishes
    them), or, in half of the seeds, the link has lost 99.9 % of its bandwidth.
    """
    world = World.draw(seed)
    planner, chance = world.planner(seed, policy), world.chance
    silent = bool(chance.random() < 0.5)
    stalls = (int(chance.integers(20, 60)), int(chance.integers(100, 400)))
    rate = world.link.up_bytes_per_s / 1000
    bad = None if silent else Link(world.link.rtt_s, rate, rate)
    now_s = 0.0
    for number in range(stalls[1] + 2 * BOUND):
        plan = planner.decide(now_s)
        if number >= stalls[1] and plan.cut < world.pipeline.n and not plan.probe:
            return number - stalls[1]
        now_s = world.request(planner, plan, now_s, bad if stalls[0] <= number < stalls[1] else world.link)
    return math.inf


def used_after(seed: int, slow: tuple[int, int], most: int, policy: Policy | None = None, **more: Any) -> float:
    """Let an edge be 10 to 1000 times slower from the first request on, for some requests; return as above."""
    world = evolve(World.draw(seed), **more)
    planner, chance = world.planner(seed, policy), world.chance
    until = int(chance.integers(*slow))
    slower = float(np.exp(chance.uniform(math.log(10), math.log(1000))))
    queue_s = float(chance.choice([0.0, 1.0])) * slower * world.edge.whole_s
    now_s = 0.0
    for number in range(until + most):
        plan = planner.decide(now_s)
        if number >= until and plan.cut < world.pipeline.n and not plan.probe:
            return number - until
        now_s = world.request(planner, plan, now_s, world.link, *((slower, queue_s) if number < until else ()))
    return math.inf


SEEDS = 1000 if FULL else 100


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // 4))
def test_offloading_goes_on_after_a_stall(first: int) -> None:
    """In each of 1000 seeds, within a bounded number of requests."""
    after = {seed: resumes_after(seed) for seed in range(first, first + SEEDS // 4)}
    late = {seed: requests for seed, requests in after.items() if requests > BOUND}
    assert not late
    assert len(set(after.values())) > 10  # not all at once: the test would not see what it is for


def test_without_probes_it_does_not() -> None:
    """That is the trap: nothing measures the link that is avoided."""
    assert sum(resumes_after(seed, LeastLatency()) == math.inf for seed in range(40)) > 20


def test_a_bad_first_impression_does_not_last() -> None:
    """What the edge's profile said is more than a few requests at a bad moment."""
    after = [used_after(seed, (3, 40), 2 * BOUND) for seed in range(SEEDS // 5)]
    assert max(after) <= BOUND
    assert sum(used_after(seed, (3, 40), 2 * BOUND, LeastLatency()) == math.inf for seed in range(20)) > 10


def test_no_belief_is_for_ever() -> None:
    """An edge that was never anything but slow, and for long, is tried again all the same."""
    after = [used_after(seed, (300, 3000), 86_400, idle_s=1.0) for seed in range(SEEDS // 25)]
    assert max(after) < math.inf  # within a day, at a request a second
