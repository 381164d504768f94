from __future__ import annotations

import json
import math

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from splitiot.cost import Objective, Power, costs
from splitiot.errors import EdgeUnavailable
from splitiot.pipeline import Tier
from splitiot.plan import Outcome, Plan
from splitiot.planner import Planner
from splitiot.policies import Best, Fixed, Hysteresis
from splitiot.solver import solve
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline
from tests.share import examples
from tests.test_cost import chains, fomo

POWER = Power(busy_w=1.0, send_w=0.7, receive_w=0.4, idle_w=0.1)


def best_at(plan: Plan, up_bytes_per_s: float) -> tuple[int, float]:
    """The best row, and its value, if only the uplink were another."""
    vector = plan.costs.beliefs.copy()
    vector[2] = 1 / up_bytes_per_s
    other = plan.costs.with_beliefs(vector)
    row = other.best(plan.objective)
    return row, float(other.values(plan.objective)[row])


@settings(max_examples=examples(300))
@given(chains(), st.sampled_from(["latency_s", "period_s", "energy_j"]))
def test_break_evens_are_where_the_answer_changes(
    drawn: tuple[SizedPipeline, Topology, tuple[float, float]], objective: Objective
) -> None:
    pipeline, topology, _ = drawn
    if not pipeline.cuts:
        return
    plan = solve(pipeline, topology, objective=objective, power=POWER)
    now = topology.links[0].up_bytes_per_s
    found = {b.faster: b for b in plan.break_evens}

    def value(row: int, up: float) -> float:
        vector = plan.costs.beliefs.copy()
        vector[2] = 1 / up
        return float(plan.costs.with_beliefs(vector).values(objective)[row])

    for faster in (False, True):
        limit = found[faster].up_bytes_per_s if faster in found else (1e30 if faster else 1e-30)
        if faster and math.isinf(now):
            assert faster not in found
            continue
        assert limit >= now * (1 - 1e-9) if faster else limit <= now * (1 + 1e-9)
        limit = min(limit, 1e30)
        start = min(now, 1e30)
        # up to the limit nothing is better than what was chosen (but for rounding)
        for up in np.geomspace(start, limit * (1 - 1e-7 if faster else 1 + 1e-7), 7):
            if (up < start) if faster else (up > start):
                continue
            _, least = best_at(plan, float(up))
            assert value(plan.row, float(up)) == pytest.approx(least, rel=1e-6, abs=1e-9)
        if faster in found:  # beyond it, what it names is
            up = limit * (1.001 if faster else 0.999)
            mine, other = value(plan.row, up), value(found[faster].row, up)
            assert other <= mine * (1 + 1e-12)
            just = limit * (1 + 1e-6 if faster else 1 - 1e-6)
            assert value(found[faster].row, just) == pytest.approx(best_at(plan, just)[1], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("mbit_per_s", [0.01, 0.05, 0.1, 0.3, 1.0, 20.0])
def test_solving_again_beyond_a_break_even(mbit_per_s: float, pinned: bool) -> None:
    options = {"pins": {0: Tier.DEVICE}} if pinned else {}
    plan = solve(*fomo(mbit_per_s, **options))
    assert plan.break_evens
    for b in plan.break_evens:
        pipeline, topology = fomo(mbit_per_s, **options)
        link = topology.links[0]
        for factor in (1 - 1e-6, 1 + 1e-6):
            up = b.up_bytes_per_s * factor
            moved = Topology(topology.tiers, [Link(link.rtt_s, up, link.down_bytes_per_s)])
            beyond = (factor > 1) == b.faster
            assert solve(pipeline, moved).cut == (b.placement.cut if beyond else plan.cut)


def test_fomo_changes_its_answer_at_a_known_bandwidth() -> None:
    plan = solve(*fomo(1))
    device, edge = sum(plan.costs.device_s[-1:]), plan.costs.edge_s[0]
    # 18,432 bytes up, a round trip and the edge's seconds, against the device's seconds
    expected = 18432 / (device - edge - 0.01)
    (b,) = plan.break_evens
    assert (b.faster, b.placement.cut) == (False, 59)
    assert b.up_bytes_per_s == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("up", "cut", "beyond"), [(500, 2, 0), (2000, 0, 2)])
def test_where_three_answers_meet_the_one_beyond_is_named(up: float, cut: int, beyond: int) -> None:
    pipeline = SizedPipeline([500, 250, 0])
    device = TierProfile.from_steps(pipeline.digest, [0.75, 0.25])
    edge = TierProfile.from_steps(pipeline.digest, [0.5, 0.0])
    plan = solve(pipeline, Topology([device, edge], [Link(0.0, up, 1.0)]))
    (b,) = plan.break_evens
    assert (plan.cut, b.placement.cut, b.up_bytes_per_s) == (cut, beyond, pytest.approx(1000))


def test_explain_split() -> None:
    text = solve(*fomo(1, pins={0: Tier.DEVICE})).explain()
    assert "cut 1 (1 of 59 steps on the device)" in text
    assert "147,456 bytes at 1 Mbit/s" in text
    assert "1,854.1 ms" in text
    assert "runner-up   cut 7, 43." in text
    assert "up: cut 7 is best" in text
    assert "do not split" not in text


@pytest.mark.parametrize(("mbit_per_s", "end"), [(0.01, "all local"), (1, "all on the edge")])
def test_explain_do_not_split(mbit_per_s: float, end: str) -> None:
    plan = solve(*fomo(mbit_per_s))
    assert plan.explain().splitlines()[-1] == f"  do not split: {end} is best"
    assert plan.break_evens
    for b in plan.break_evens:
        assert f"{b.up_bytes_per_s / 125e3:.4g} Mbit/s up:" in plan.explain()


def test_explain_when_the_policy_wanted_something_else() -> None:
    pipeline, topology = fomo(1)
    plan = Planner(pipeline, topology, Fixed(16)).decide(0.0)
    assert plan.best_row == plan.row == 16
    assert plan.runner_up is None
    text = plan.explain()
    assert "none: the policy permits nothing else" in text
    assert "fastest     all on the edge, " in text
    assert "do not split" not in text
    plan = Planner(pipeline, topology, Hysteresis(Best(), 50.0)).decide(0.0)
    stay = evolve(plan, decision=evolve(plan.decision, row=16, why="stay"))
    assert stay.best_row == 0
    assert stay.margin < 0
    assert stay.margin_s == stay.margin
    text = stay.explain()
    assert "better" in text
    assert "best        all on the edge, which the policy did not choose" in text


def test_explain_every_objective() -> None:
    pipeline, topology = fomo(0.3)
    for objective in ("latency_s", "period_s", "energy_j", lambda c: c.latency_s + c.sent_bytes):
        plan = solve(pipeline, topology, objective=objective, power=POWER)
        text = plan.explain()
        assert all(len(line) < 100 for line in text.splitlines())
        assert math.isnan(plan.margin_s) == (objective not in ("latency_s", "period_s"))
        assert plan.margin >= 0
        json.dumps(plan.to_dict(), allow_nan=False)
        if callable(objective):
            assert plan.break_evens == ()


def test_runner_up_and_margin() -> None:
    plan = solve(*fomo(1))
    order = np.argsort(plan.costs.latency_s)
    assert plan.runner_up == order[1]
    assert plan.margin_s == pytest.approx(float(np.sort(plan.costs.latency_s)[1] - plan.latency_s))
    assert plan.to_dict()["margin"] == plan.margin_s


def test_only_one_placement() -> None:
    pipeline = SizedPipeline([100, 100], refused={0: "pinned"})
    profile = TierProfile.from_steps(pipeline.digest, [0.5])
    plan = solve(pipeline, Topology([profile, profile], [Link(0.01, 1e3, 1e3)]))
    assert plan.runner_up is None
    assert plan.margin == math.inf
    assert plan.break_evens == ()
    assert "nothing else is allowed" in plan.explain()
    json.dumps(plan.to_dict(), allow_nan=False)


def test_a_plan_says_what_was_believed_when_it_was_made() -> None:
    from splitiot.observation import Observation
    from splitiot.policies import LeastLatency

    pipeline, topology = fomo(1)
    planner = Planner(pipeline, topology, LeastLatency())  # the default would look once more
    plan = planner.decide(0.0)
    text, then = plan.explain(), plan.latency_s
    for seconds in (9.0, 9.1):
        probe = Observation(plan_id=0, cut=0, probe=True, round_trip_s=seconds, sent_bytes=18432)
        planner.observe(probe, now_s=1.0)
    assert planner.decide(2.0).cut == 59
    assert (plan.explain(), plan.latency_s) == (text, then)
    assert planner.predicted_s(plan) > 9


def test_infinite_bandwidth() -> None:
    pipeline = SizedPipeline([100, 100])
    profile = TierProfile.from_steps(pipeline.digest, [0.5])
    plan = solve(pipeline, Topology([profile, profile.scaled(0.1)], [Link(0.0, math.inf, math.inf)]))
    assert "no limit" in plan.explain()
    (b,) = plan.break_evens
    assert b.up_bytes_per_s == pytest.approx(100 / 0.45)


def test_outcome() -> None:
    assert Outcome(value=3, source="local").ok
    failed = Outcome(error=EdgeUnavailable("gone"))
    assert not failed.ok
    with pytest.raises(EdgeUnavailable, match="gone"):
        failed.unwrap()


def test_plans_are_small() -> None:
    pipeline, topology = fomo(1)
    planner = Planner(pipeline, topology)
    plans = [planner.decide(0.0) for _ in range(3)]
    assert plans[0].costs.placements is plans[2].costs.placements is planner.costs.placements
    assert [p.id for p in plans] == [1, 2, 3]
    assert costs(pipeline, topology).latency_s.tolist() == plans[0].costs.latency_s.tolist()
