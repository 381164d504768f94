"""Replays: the same policy decides the same; others get the score that can be worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import frozen

from splitiot.cost import Costs, Power
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import CutError, TraceError
from splitiot.functions import tasks
from splitiot.observation import EdgeTimes, Observation
from splitiot.planner import Planner
from splitiot.policies import Best, Context, Decision, Fixed, LeastLatency, LocalMode, Policy
from splitiot.sim import Score, Trace, TraceWriter, load_trace, replay
from splitiot.topology import Link, TierProfile, Topology
from splitiot.transports import InMemory
from tests.session.support import numbers, profile_of
from tests.sim.logs import logged, wander
from tests.test_planner import make, run


@frozen
class Curious(Policy):
    """Looks elsewhere now and then, by its notes, telemetry, deadline, beliefs and chance."""

    def decide(self, context: Context) -> Decision:
        count = context.memory["count"] = context.memory.get("count", 0) + 1
        allowed = np.flatnonzero(context.mask)
        beliefs = context.beliefs
        assert beliefs is not None
        if count % 3 == 0 and len(allowed) > 1:
            return Decision(int(context.random.choice(allowed)), "look", probe=True, propensity=1 / len(allowed))
        if context.telemetry["battery"] < 0.2 and context.local_row is not None:
            return Decision(context.local_row, "battery low")
        if context.deadline_s is not None and context.deadline_s < 0.1 and beliefs.rtt_s.age_s < 2:
            return Decision(int(allowed[0]), "hurry")
        return context.best()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        memory["count"] = memory.get("count", 0) + (observation.head_s is not None)


POLICIES: dict[str, Callable[[], Policy]] = {
    "best": Best,
    "least latency": LeastLatency,
    "fixed": lambda: Fixed(2),
    "local mode": lambda: LocalMode(LeastLatency(), 0.3),
    "curious": Curious,
}


def agrees(score: Score) -> bool:
    """Whether all decisions are the log's own."""
    assert score.log is not None
    assert score.log.coverage == 1.0  # all was measured
    return (score.coverage, score.switches, score.probes) == (1.0, score.log.switches, score.log.probes)


# the same policy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_policy_of_the_log_decides_as_it_did(tmp_path: Path, name: str, seed: int) -> None:
    trace = logged(tmp_path, POLICIES[name](), requests=120, seed=seed)
    score = replay(trace, POLICIES[name])
    assert agrees(score)
    assert replay(trace, POLICIES[name], seed=seed).to_dict() == score.to_dict()
    if name in ("local mode", "curious"):
        assert not agrees(replay(trace, POLICIES[name], seed=seed + 1))
    assert agrees(replay(trace, POLICIES[name], seed=1)) == (name not in ("local mode", "curious"))


@pytest.mark.parametrize("name", POLICIES)
def test_from_a_stored_state_on(tmp_path: Path, name: str) -> None:
    before = make(POLICIES[name](), mbit_per_s=20, seed=3)
    wander(before, 50)
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(POLICIES[name](), mbit_per_s=20, recorder=writer)
        planner.restore(json.loads(json.dumps(before.snapshot())))
        wander(planner, 60, seed=9, start_s=30.0)
    trace = load_trace(tmp_path / "t")
    assert agrees(replay(trace, POLICIES[name]))
    # another seed is another chance, whatever the generator that was stored
    assert agrees(replay(trace, POLICIES[name], seed=1)) == (name not in ("local mode", "curious"))


@pytest.mark.parametrize("name", POLICIES)
def test_from_the_middle_on_when_older_files_are_gone(tmp_path: Path, name: str) -> None:
    with TraceWriter(tmp_path / "t", max_bytes=20_000, keep=1) as writer:
        wander(make(POLICIES[name](), mbit_per_s=20, recorder=writer), 200)
    trace = load_trace(tmp_path / "t")
    assert 10 < len(trace.plans) < 100
    seen = {o.observation.plan_id for o in trace.observations}
    score = replay(trace, POLICIES[name])
    assert score.judged == sum(p.id in seen for p in trace.plans)
    assert score.decisions - score.judged <= 1


def test_profiles_restrictions_and_parts_of_the_log_hold(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(Curious(), mbit_per_s=20, recorder=writer, parts=[(0, 1), (0, 3)])
        wander(planner, 40)
        planner.set_profile(1, planner.topology.tiers[1].scaled(8.0))
        wander(planner, 30, seed=1, start_s=20.0)
        planner.restrict([0, 3])
        wander(planner, 30, seed=2, start_s=40.0)
        planner.restrict(None)
        planner.set_profile(0, planner.topology.tiers[0].scaled(0.5))
        wander(planner, 30, seed=3, start_s=60.0)
    trace = load_trace(tmp_path / "t")
    assert len(trace.events) > len(trace.plans) + len(trace.observations)
    assert agrees(replay(trace, Curious))
    assert {p.cut for p in trace.plans} == {0, 1, 3}


def test_a_link_without_end_is_believed_until_there_are_samples(tmp_path: Path) -> None:
    pipeline = make().pipeline
    profile = TierProfile.from_steps(pipeline.digest, [0.5, 1.5, 1.0])
    topology = Topology(tiers=[profile, profile.scaled(0.1)], links=[Link(0.01, math.inf, math.inf)])
    with TraceWriter(tmp_path / "t") as writer:
        wander(Planner(pipeline, topology, recorder=writer), 30)
    trace = load_trace(tmp_path / "t")
    assert trace.plans[0].beliefs[2] == 0
    assert agrees(replay(trace, Best))


def test_a_stateful_pipeline_s_cut_is_the_log_s(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(Fixed(2), mbit_per_s=20, stateful=True, recorder=writer)
        for i in range(6):
            if i == 3:
                planner.reset()
            plan = planner.decide(float(i))
            planner.observe(run(planner, plan.id, plan.cut, mbit_per_s=20), now_s=i + 0.5)
    trace = load_trace(tmp_path / "t")
    assert trace.header.stateful
    assert agrees(replay(trace, lambda: Fixed(2)))
    assert replay(trace, Best).judged == 4  # all but the first after each reset, of which it would have cut at 0
    other = make(stateful=True, mbit_per_s=20)
    other.restore(planner.snapshot())
    with TraceWriter(tmp_path / "u") as writer:
        bound = make(Fixed(3), stateful=True, mbit_per_s=20, recorder=writer)
        bound.restore(planner.snapshot())
        plan = bound.decide(10.0, edge_up=True)
        bound.observe(run(bound, plan.id, plan.cut, mbit_per_s=20), now_s=11.0)
    assert agrees(replay(load_trace(tmp_path / "u"), lambda: Fixed(3)))


def test_a_device_s_own_log(tmp_path: Path) -> None:
    pipeline = numbers()
    service = EdgeService([pipeline], profiles=[profile_of(pipeline, 0.001)])
    transport = InMemory(lambda frame: service.handle(frame, peer="me"))
    options: dict[str, Any] = {"profile": profile_of(pipeline), "cache": False, "policy": LocalMode(Best(), 0.5)}
    with TraceWriter(tmp_path / "t") as writer, Device(pipeline, transport, recorder=writer, **options) as device:
        outcomes = [device.run(i) for i in range(20)]
    rows = load_trace(tmp_path / "t").to_rows()
    assert [row["plan_id"] for row in rows] == [o.plan.id for o in outcomes if o.plan]
    for row, outcome in zip(rows, outcomes, strict=True):
        seen = outcome.observation
        assert seen is not None
        assert (row["cut"], row["head_s"], row["network_s"]) == (seen.cut, seen.head_s, seen.network_s)
        assert 0 <= row["total_s"] <= outcome.latency_s
    assert agrees(replay(load_trace(tmp_path / "t"), lambda: LocalMode(Best(), 0.5)))


def test_an_edge_s_plans_are_asked_of_the_policy(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(Best(), mbit_per_s=20, recorder=writer)
        for i in range(10):
            plan = planner.adopt(float(i), 3, plan_id=100 + 7 * i)
            planner.observe(run(planner, plan.id, plan.cut, mbit_per_s=20), now_s=i + 0.5)
    trace = load_trace(tmp_path / "t")
    assert replay(trace, Best).coverage == 0.0
    assert agrees(replay(trace, lambda: Fixed(3)))


# worked out by hand ---------------------------------------------------------------------------------------------


@frozen
class Scripted(Policy):
    rows: tuple[int, ...]
    probes: tuple[bool, ...]
    propensities: tuple[float, ...]

    def decide(self, context: Context) -> Decision:
        i = context.memory["i"] = context.memory.get("i", -1) + 1
        return Decision(self.rows[i], "as told", self.probes[i], self.propensities[i])


def three_plans(path: Path, script: Scripted | None = None) -> Trace:
    """One step of 0.5 s on the device, 0.05 s on the edge; 1000 bytes at 1 Mbit/s and a round trip of 10 ms.

    So the edge costs 0.05 + 0.008 + 0.01 = 0.068 s. The first run is that long. The second is on the device, a probe,
    and shows that the device is 1.2 times slower than its profile: from then on it costs 0.6 s. The third is lost.
    """
    pipeline = tasks([abs])
    device = TierProfile.from_steps(pipeline.digest, [0.5], sent_bytes=[1000, 0], returned_bytes=[0, 0])
    topology = Topology(tiers=[device, device.scaled(0.1)], links=[Link.from_mbit_per_s(1, rtt_s=0.01)])
    script = script or Scripted((0, 1, 0), (False, True, False), (0.8, 0.2, 0.8))
    with TraceWriter(path) as writer:
        planner = Planner(pipeline, topology, script, recorder=writer)
        planner.decide(0.0)
        edge = EdgeTimes(compute_s=0.05, residence_s=0.05)
        seen = Observation(plan_id=1, cut=0, tail_s=0.05, edge=edge, round_trip_s=0.068, sent_bytes=1000)
        planner.observe(seen, now_s=0.1)
        planner.decide(1.0)
        planner.observe(Observation(plan_id=2, cut=1, head_s=0.6), now_s=1.6)
        planner.decide(2.0)
    return load_trace(path)


def close(found: Score, **wanted: float) -> None:
    assert {name: getattr(found, name) for name in wanted} == pytest.approx(wanted, nan_ok=True)


def test_three_plans_by_hand(tmp_path: Path) -> None:
    trace = three_plans(tmp_path / "t")
    local = replay(trace, lambda: Fixed(1), window=0)
    # hindsight of the first plan comes before the second one has been measured
    close(local, decisions=3, mean_cost=(0.5 + 0.6 + 0.6) / 3, oracle_cost=0.068, switches=0, probes=0, probes_cost=0)
    # only the second decision is the log's, with weight 1 / 0.2
    close(local, judged=1, coverage=1 / 3, measured_s=0.6, weighted_s=0.6, weighted_samples=1)
    close(local, regret=(0.5 + 0.6 + 0.6) / 3 / 0.068 - 1)
    log = local.log
    assert log is not None
    close(log, decisions=3, judged=2, coverage=2 / 3, mean_cost=(0.068 + 0.6 + 0.068) / 3, oracle_cost=0.068)
    close(log, measured_s=0.334, weighted_s=0.334, weighted_samples=2, switches=0, probes=1, probes_cost=0.532)

    best = replay(trace, Best, window=0)
    close(best, judged=1, mean_cost=0.068, regret=0, measured_s=0.068, switches=0, probes=0)

    later = replay(trace, lambda: Fixed(1), window=1)  # now the first plan's has seen the second one's run
    close(later, mean_cost=0.6, regret=0.6 / 0.068 - 1)
    assert replay(trace, lambda: Fixed(1)).to_dict() == replay(trace, lambda: Fixed(1), window=50).to_dict()


def test_weights_by_hand(tmp_path: Path) -> None:
    script = Scripted((0, 1, 0), (False, True, False), (0.8, 0.2, 0.8))
    trace = three_plans(tmp_path / "t")
    score = replay(trace, lambda: script, window=0)
    weights = np.array([1 / 0.8, 1 / 0.2])
    close(score, judged=2, probes=1, probes_cost=0.532, measured_s=0.334)
    close(score, weighted_s=weights @ [0.068, 0.6] / weights.sum(), weighted_samples=(6.25**2) / (weights @ weights))
    for wrong in (0.0, -1.0, 1.5, math.nan):  # no probabilities: these say nothing
        odd = three_plans(tmp_path / "u", Scripted((0, 1, 0), (False, True, False), (0.8, wrong, 0.8)))
        close(replay(odd, lambda: script), judged=2, weighted_s=0.068, weighted_samples=1)


def test_switches_and_probes_by_hand(tmp_path: Path) -> None:
    trace = three_plans(tmp_path / "t")
    for rows, probes, switches in (
        ((0, 1, 0), (False, False, False), 2),
        ((0, 1, 1), (False, False, False), 1),
        ((0, 1, 1), (False, True, False), 1),
        ((1, 0, 1), (False, True, False), 0),
        ((1, 0, 1), (True, True, True), 0),
    ):
        script = Scripted(rows, probes, (1.0, 1.0, 1.0))
        score = replay(trace, lambda script=script: script)  # type: ignore[misc]
        assert (score.switches, score.probes) == (switches, sum(probes))


def test_what_was_forbidden_is_no_oracle(tmp_path: Path) -> None:
    planner = make(mbit_per_s=20)
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(mbit_per_s=20, recorder=writer)
        planner.decide(0.0, edge_up=False)
    score = replay(load_trace(tmp_path / "t"), Best)
    close(score, mean_cost=3.0, oracle_cost=3.0, regret=0.0, judged=0, measured_s=math.nan, weighted_s=math.nan)
    assert score.weighted_samples == 0


def test_another_objective(tmp_path: Path) -> None:
    power = Power(busy_w=2.0, send_w=1.0)
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(objective="energy_j", power=power, mbit_per_s=20, recorder=writer)
        planner.decide(0.0)
    trace = load_trace(tmp_path / "t")
    score = replay(trace, lambda: Fixed(3))
    close(score, mean_cost=6.0, oracle_cost=100_000 / 2.5e6)  # 3 s at 2 W; 100 kB at 20 Mbit/s and 1 W
    assert score.objective == "energy_j"
    close(replay(trace, lambda: Fixed(3), objective="latency_s"), mean_cost=3.0)
    assert "6 on average" in str(score)


def test_functions_as_objectives_can_t_be_logged(tmp_path: Path) -> None:
    def bytes_and_time(costs: Costs) -> Any:
        return costs.latency_s + costs.sent_bytes * 1e-6

    trace = logged(tmp_path, Best(bytes_and_time), objective=bytes_and_time, requests=20)
    assert trace.header.objective == "bytes_and_time"
    with pytest.raises(TraceError, match=r"'bytes_and_time'.*objective="):
        replay(trace, Best)
    score = replay(trace, lambda: Best(bytes_and_time), objective=bytes_and_time)
    assert agrees(score)
    assert score.objective == "bytes_and_time"


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    def never(costs: Costs) -> Any:
        values = costs.latency_s.copy()
        values[:3] = (math.nan, math.inf, 1.0)
        return values

    def nothing(costs: Costs) -> Any:
        return np.full(len(costs), math.nan)

    trace = logged(tmp_path, Fixed(2), requests=10)
    close(replay(trace, lambda: Fixed(2), objective=never), regret=0.0)
    score = replay(trace, lambda: Fixed(2), objective=nothing)
    close(score, mean_cost=math.nan, regret=math.nan, judged=10)


# chance ---------------------------------------------------------------------------------------------------------


def remote(costs: Costs) -> Any:
    return costs.cuts


def coins(folder: Path, probability: float, plans: int = 4000) -> Trace:
    """Cut 0 takes 1 s, all local 3 s, always."""
    with TraceWriter(folder / "t") as writer:
        planner = make(LocalMode(Best(remote), probability), mbit_per_s=20, recorder=writer)
        for i in range(plans):
            plan = planner.decide(float(i))
            if plan.cut == 3:
                seen = Observation(plan_id=plan.id, cut=3, head_s=3.0)
            else:
                seen = Observation(plan_id=plan.id, cut=0, round_trip_s=1.0)
            planner.observe(seen, now_s=float(i))
    return load_trace(folder / "t")


@pytest.mark.parametrize(
    ("policy", "wanted_s", "off_s"),
    [
        (Fixed(0), 1.0, 1e-9),
        (Fixed(3), 3.0, 1e-9),
        (LocalMode(Best(remote), 0.3), 0.7 * 1 + 0.3 * 3, 0.1),  # the log's own policy, with the log's own seed
        (LocalMode(Best(remote), 0.1), 0.9 * 1 + 0.1 * 3, 0.1),
        (LocalMode(Best(remote), 0.7), 0.3 * 1 + 0.7 * 3, 0.1),
    ],
)
def test_weights_estimate_what_a_policy_would_have_taken(
    tmp_path: Path, policy: Policy, wanted_s: float, off_s: float
) -> None:
    trace = coins(tmp_path, 0.3)
    score = replay(trace, lambda: policy)
    assert score.weighted_s == pytest.approx(wanted_s, abs=off_s)
    assert 500 < score.weighted_samples < len(trace.plans)
    assert score.log is not None
    assert score.log.weighted_s == score.log.measured_s == pytest.approx(1.6, abs=0.1)


def test_looking_around_costs_and_finds_nothing_here(tmp_path: Path) -> None:
    trace = logged(tmp_path, LeastLatency(), requests=200)
    steady, curious = replay(trace, LeastLatency), replay(trace, lambda: LocalMode(LeastLatency(), 0.4))
    assert agrees(steady)
    assert (steady.probes, steady.probes_cost) == (0, 0.0)
    assert curious.probes > 40
    assert curious.probes_cost > 0
    assert curious.regret > steady.regret
    assert curious.coverage < steady.coverage
    assert curious.mean_cost - steady.mean_cost == pytest.approx(curious.probes_cost / 200, rel=0.3)


def test_the_oracle_is_never_beaten_and_chance_is_the_seed_s(tmp_path: Path) -> None:
    trace = logged(tmp_path, Curious(), requests=80)
    for name, policy in POLICIES.items():
        for window in (0, 3):
            score = replay(trace, policy, seed=4, window=window)
            assert score.regret >= 0, name
            assert score.to_dict() == replay(trace, policy, seed=4, window=window).to_dict()
    different = {replay(trace, POLICIES["local mode"], seed=seed).probes for seed in range(5)}
    assert len(different) > 1


# refusals and words ---------------------------------------------------------------------------------------------


def test_nothing_to_replay(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        make(recorder=writer)
    with pytest.raises(TraceError, match="no plans"):
        replay(load_trace(tmp_path / "t"), Best)


def test_mistakes_of_the_policy_are_told(tmp_path: Path) -> None:
    trace = logged(tmp_path, requests=3, refused={1: "no"})
    with pytest.raises(CutError, match="it was not legal in the log"):
        replay(trace, lambda: Fixed(1))
    with pytest.raises(ValueError, match="window"):
        replay(trace, Best, window=-1)


def edit_state(path: Path, **changes: Any) -> Trace:
    header, *rest = path.read_text().splitlines()
    line = json.loads(header)
    line["header"]["state"] |= changes
    path.write_text("\n".join([json.dumps(line), *rest]) + "\n")
    return load_trace(path)


@pytest.mark.parametrize(
    "changes", [{"version": 99}, {"estimators": {}}, {"seed": "x"}, {"seed": -1, "next_id": "1"}, {"memory": 3}]
)
def test_a_state_that_can_t_be_restored(tmp_path: Path, changes: dict[str, Any]) -> None:
    logged(tmp_path, requests=3)
    with pytest.raises(TraceError, match="can't be restored"):
        replay(edit_state(tmp_path / "trace.jsonl", **changes), Best)


def test_a_trace_has_no_code(tmp_path: Path) -> None:
    ran: list[str] = []

    @frozen
    class Running(Policy):
        def decide(self, context: Context) -> Decision:
            pipeline = context.costs.pipeline
            calls: Sequence[Callable[[], object]] = (
                lambda: pipeline.part(0, 1),
                lambda: pipeline.bind(1),
                lambda: pipeline.divide(0, 1),
                lambda: pipeline.join(0, 1),
                lambda: pipeline.with_sink("edge"),
                pipeline.runtime_info,
            )
            for call in calls:
                with pytest.raises(TraceError, match="no code"):
                    call()
                ran.append("refused")
            return context.best()

    replay(three_plans(tmp_path / "t"), Running)
    assert len(ran) == 2 * 3 * 6


def test_a_score_in_words(tmp_path: Path) -> None:
    text = str(replay(three_plans(tmp_path / "t"), lambda: Fixed(1), window=0))
    assert text.splitlines() == [
        "3 decisions, 1 of them judged by what was measured (33%)",
        "  cost      566.7 ms on average, 733.3% over the best in hindsight (the log: 245.3 ms, 260.8%)",
        "  measured  600 ms where judged; weighted 600 ms (1.0 effective samples) (the log: 334 ms)",
        "  switches  0 (the log: 0)",
        "  probes    0, which cost 0 ms more than the best (the log: 1, 532 ms)",
    ]
    plain = replay(three_plans(tmp_path / "t"), Best).to_dict()
    assert {"coverage", "regret"} < plain.keys()
    assert plain["log"]["log"] is None
