"""A link that stalls and heals: who avoids it must notice that it is well again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from splitiot.observation import EdgeTimes, Observation
from splitiot.planner import Planner
from splitiot.policies import LeastLatency, Policy
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline
from tests.share import FULL

PATIENCE_S = 5.0
BOUND = 300  # requests, from when the link is well until one is offloaded as a matter of course


def resumes_after(seed: int, policy: Policy | None = None) -> float:
    """Let a link stall and heal; return after how many requests offloading goes on, inf for never.

    While it stalls, requests that need the edge are not answered within the device's patience (then the device finishes
    them), or, in half of the seeds, the link has lost 99.9 % of its bandwidth.
    """
    chance = np.random.default_rng(seed)
    n = int(chance.integers(1, 20))
    sizes = np.exp(chance.uniform(math.log(1e3), math.log(1e6), n + 1)).astype(int)
    pipeline = SizedPipeline([*sizes[:n].tolist(), int(chance.integers(10, 1000))])
    device = TierProfile.from_steps(pipeline.digest, np.exp(chance.normal(-3, 1, n)).tolist())
    edge = device.scaled(1 / chance.uniform(5, 50))
    # a link on which offloading everything takes a third to two thirds of what the device takes
    share = chance.uniform(1 / 3, 2 / 3) * device.whole_s - edge.whole_s
    rtt_s = share * chance.uniform(0.05, 0.5)
    rate = (pipeline.nbytes[0] + pipeline.nbytes[n]) / (share - rtt_s)
    healthy = Link(rtt_s, rate, rate)
    planner = Planner(pipeline, Topology([device, edge], [healthy]), policy, seed=seed)
    silent = bool(chance.random() < 0.5)
    stalls = (int(chance.integers(20, 60)), int(chance.integers(100, 400)))
    idle_s = float(chance.choice([0.0, 0.1, 1.0]))
    now_s = 0.0
    for number in range(stalls[1] + 2 * BOUND):
        plan = planner.decide(now_s)
        cut = plan.cut
        stalled = stalls[0] <= number < stalls[1]
        if number >= stalls[1] and cut < n and not plan.probe:
            return number - stalls[1]
        noise = np.exp(0.05 * chance.standard_normal(3))
        head_s, tail_s = float(device.heads_s[cut] * noise[0]), float(edge.tails_s[cut] * noise[1])
        now_s += head_s + idle_s
        seen = {"plan_id": plan.id, "cut": cut, "head_s": head_s if cut else None}
        if cut < n:
            sent, back = pipeline.nbytes[cut], pipeline.nbytes[n]
            link = Link(rtt_s, rate / 1000, rate / 1000) if stalled else healthy
            round_trip_s = link.transfer_s(sent, back) * noise[2] + tail_s
            seen["sent_bytes"] = sent
            if (stalled and silent) or round_trip_s > PATIENCE_S:
                now_s += PATIENCE_S
                planner.observe(Observation(**seen, round_trip_s=PATIENCE_S, censored=True), now_s=now_s)
                local_s = float(device.tails_s[cut])
                now_s += local_s
                planner.observe(Observation(**seen, local_s=local_s), now_s=now_s)
                continue
            now_s += round_trip_s
            seen |= {"round_trip_s": round_trip_s, "received_bytes": back}
            seen["edge"] = EdgeTimes(compute_s=tail_s, residence_s=tail_s)
        planner.observe(Observation(**seen), now_s=now_s)
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
