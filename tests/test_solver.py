from __future__ import annotations

import pytest
from hypothesis import given

from splitiot.cost import Power, costs
from splitiot.errors import Infeasible, ProfileError
from splitiot.pipeline import Tier
from splitiot.planner import Planner
from splitiot.solver import solve
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline
from tests.test_cost import chains, fomo, slow_latency


@given(chains())
def test_nothing_is_better_than_what_solve_finds(
    drawn: tuple[SizedPipeline, Topology, tuple[float, float]],
) -> None:
    pipeline, topology, _ = drawn
    if not pipeline.cuts:
        with pytest.raises(Infeasible):
            solve(pipeline, topology)
        return
    plan = solve(pipeline, topology)
    least = min(slow_latency(pipeline, topology, (1, 1), cut) for cut in pipeline.cuts)
    assert slow_latency(pipeline, topology, (1, 1), plan.cut) == pytest.approx(least, rel=1e-9, abs=1e-9)
    assert plan.latency_s == pytest.approx(least, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("mbit_per_s", "cut", "latency_ms"),
    [(0.01, 59, 5089.8), (0.05, 0, 2977.1), (0.1, 0, 1502.5), (1, 0, 175.4), (20, 0, 35.3)],
)
def test_fomo(mbit_per_s: float, cut: int, latency_ms: float) -> None:
    plan = solve(*fomo(mbit_per_s))
    assert (plan.cut, round(plan.latency_s * 1e3, 1)) == (cut, latency_ms)


def test_both_ends_compete_as_equals() -> None:
    pipeline = SizedPipeline([10, 10, 10])
    device = TierProfile.from_steps(pipeline.digest, [1.0, 1.0])
    even = Topology([device, device], [Link(0.0, 1e12, 1e12)])
    assert solve(pipeline, even).cut == 2
    faster = Topology([device, device.scaled(0.5)], [Link(0.0, 1e12, 1e12)])
    assert solve(pipeline, faster).cut == 0


def test_objectives_and_parts() -> None:
    pipeline, topology = fomo(1, pins={0: Tier.DEVICE})
    assert solve(pipeline, topology).cut == 1
    # what is slowest is least slow where device and uplink balance
    plan = solve(pipeline, topology, objective="period_s")
    table = costs(pipeline, topology)
    assert table.period_s[plan.row] == table.period_s.min()
    assert solve(pipeline, topology, objective="energy_j", power=Power(busy_w=1e-3, send_w=9)).cut == 59
    assert solve(pipeline, topology, parts=[(0, 7), (0, 16)]).cut == 7
    assert solve(pipeline, topology, objective=lambda c: -c.cuts.astype(float)).cut == 59


def test_it_is_one_planners_decision() -> None:
    pipeline, topology = fomo(0.1)
    assert solve(pipeline, topology).to_dict() == Planner(pipeline, topology).decide(0.0).to_dict()


def test_refusals() -> None:
    pipeline, topology = fomo(1)
    with pytest.raises(ProfileError):
        solve(SizedPipeline([1, 2]), topology)
    with pytest.raises(ValueError, match="no objective"):
        solve(pipeline, topology, objective="money")  # type: ignore[arg-type]
