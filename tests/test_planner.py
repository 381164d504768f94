from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from splitiot.errors import CutError, Infeasible, ProfileError
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import Tier
from splitiot.planner import Planner
from splitiot.policies import Best, Context, Decision, Fixed, LeastLatency, LocalMode, Policy
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline
from tests.test_cost import fomo


def make(policy: Policy | None = None, *, mbit_per_s: float = 1.0, **options: Any) -> Planner:
    """A device of 3 s, an edge ten times as fast."""
    own = {key: options.pop(key) for key in ("sink", "stateful", "pins", "refused") if key in options}
    pipeline = SizedPipeline([100_000, 400_000, 5_000, 100], **own)
    device = TierProfile.from_steps(pipeline.digest, [0.5, 1.5, 1.0])
    link = Link.from_mbit_per_s(mbit_per_s, rtt_s=0.02)
    return Planner(pipeline, Topology([device, device.scaled(0.1)], [link]), policy, **options)


def run(planner: Planner, plan_id: int, cut: int, *, mbit_per_s: float, slow: float = 1.0) -> Observation:
    """What a run over a link of that bandwidth would measure."""
    p = planner.pipeline
    device, edge = planner.topology.tiers
    if cut == p.n:
        return Observation(plan_id=plan_id, cut=cut, head_s=float(device.heads_s[cut]) * slow)
    tail_s = float(edge.tails_s[cut])
    sent, back = p.boundary(cut).nbytes or 0, p.returned(cut).nbytes or 0
    return Observation(
        plan_id=plan_id,
        cut=cut,
        head_s=float(device.heads_s[cut]) * slow,
        tail_s=tail_s,
        edge=EdgeTimes(compute_s=tail_s, residence_s=tail_s + 1e-4),
        round_trip_s=0.02 + (sent + back) / (mbit_per_s * 125e3) + tail_s + 1e-4,
        sent_bytes=sent,
        received_bytes=back,
    )


def test_ids_ascend_and_plans_name_what_was_chosen() -> None:
    planner = make()
    plans = [planner.decide(float(i)) for i in range(5)]
    assert [p.id for p in plans] == [1, 2, 3, 4, 5]
    assert {p.cut for p in plans} == {0}
    assert plans[0].placement.cuts == (0,)
    assert plans[0].codec == "raw"


def test_the_cut_follows_the_link_within_a_few_exchanges() -> None:
    planner = make(mbit_per_s=20)
    now = 0.0
    truth = [20.0] * 5 + [0.3] * 8 + [20.0] * 8
    cuts = []
    for mbit_per_s in truth:
        now += 1
        plan = planner.decide(now)
        cuts.append(plan.cut)
        planner.observe(run(planner, plan.id, plan.cut, mbit_per_s=mbit_per_s), now_s=now)
        size = 4000  # the session's probe of the link
        seconds = 0.02 + size / (mbit_per_s * 125e3)
        probe = Observation(plan_id=0, cut=0, probe=True, round_trip_s=seconds, sent_bytes=size)
        planner.observe(probe, now_s=now)
    assert cuts[:6] == [0] * 6
    assert set(cuts[8:13]) == {2}  # 5 kB cross instead of 100
    assert set(cuts[-5:]) == {0}


def test_edge_down_masks_what_needs_it() -> None:
    planner = make(mbit_per_s=20)
    assert planner.decide(0.0).cut == 0
    plan = planner.decide(0.0, edge_up=False)
    assert plan.cut == 3
    assert plan.costs.mask.tolist() == [False, False, False, True]
    assert planner.decide(0.0).cut == 0
    with pytest.raises(Infeasible, match="the edge is down"):
        make(sink="edge").decide(0.0, edge_up=False)
    with pytest.raises(Infeasible, match="the edge is down"):
        make(pins={2: Tier.EDGE}).decide(0.0, edge_up=False)


def test_restrict_to_the_parts_that_a_device_has() -> None:
    planner = make(mbit_per_s=0.001)
    assert planner.decide(0.0).cut == 3
    planner.restrict([0, 2])
    assert planner.decide(0.0).cut == 2
    with pytest.raises(Infeasible, match=r"only cuts \[0, 2\]"):
        planner.decide(0.0, edge_up=False)
    planner.restrict(None)
    assert planner.decide(0.0).cut == 3
    with pytest.raises(CutError):
        planner.restrict([4])
    assert make(parts=[(0, 2)], mbit_per_s=0.001).decide(0.0).cut == 2


def test_a_stateful_pipeline_keeps_its_first_cut_until_reset() -> None:
    planner = make(stateful=True, mbit_per_s=20)
    assert planner.decide(0.0).cut == 0
    for i in range(4):
        planner.observe(run(planner, i + 1, 0, mbit_per_s=0.01), now_s=float(i))
    assert planner.decide(5.0).cut == 0
    with pytest.raises(Infeasible, match="bound to cut 0"):
        planner.decide(5.0, edge_up=False)
    other = make(stateful=True, mbit_per_s=20)
    other.restore(planner.snapshot())
    assert other.decide(6.0).cut == 0
    planner.reset()
    assert planner.decide(6.0).cut == 3


def test_incumbent_ignores_probes() -> None:
    seen: list[int | None] = []

    @frozen
    class EverySecond(Policy):
        def decide(self, context: Context) -> Decision:
            seen.append(context.incumbent)
            count = context.memory["count"] = context.memory.get("count", 0) + 1
            if count % 2 == 0:
                return Decision(context.at_cut(3), "look", probe=True, propensity=0.5)
            return context.best()

    planner = make(EverySecond(), mbit_per_s=20)
    plans = [planner.decide(0.0) for _ in range(5)]
    assert [p.cut for p in plans] == [0, 3, 0, 3, 0]
    assert seen == [None, 0, 0, 0, 0]
    assert (plans[1].probe, plans[1].propensity, plans[1].why) == (True, 0.5, "look")


def test_what_a_policy_is_shown() -> None:
    shown: list[Context] = []

    @frozen
    class Look(Policy):
        def decide(self, context: Context) -> Decision:
            shown.append(context)
            return context.best()

        def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
            memory["heads"] = [*memory.get("heads", []), observation.head_s]

    planner = make(Look(), mbit_per_s=20)
    planner.decide(7.0, deadline_s=0.2, telemetry={"battery": 0.5})
    (context,) = shown
    assert (context.now_s, context.deadline_s, context.telemetry["battery"]) == (7.0, 0.2, 0.5)
    with pytest.raises(TypeError):
        context.telemetry["battery"] = 1.0  # type: ignore[index]
    assert context.beliefs is not None
    assert context.beliefs.edge.samples == 0
    assert context.beliefs.edge.age_s == math.inf
    planner.observe(Observation(plan_id=1, cut=2, head_s=2.0), now_s=8.0)
    planner.observe(Observation(plan_id=1, cut=2, head_s=2.0), now_s=8.0)
    assert context.memory == {"heads": [2.0]}
    planner.decide(10.0)
    assert shown[1].beliefs is not None
    assert shown[1].beliefs.device.age_s == 2.0
    assert shown[1].deadline_s is None


@pytest.mark.parametrize("row", [-1, 4, 3])
def test_rows_that_are_not_allowed_are_refused(row: int) -> None:
    @frozen
    class Wrong(Policy):
        def decide(self, context: Context) -> Decision:
            return Decision(row, "a mistake")

    planner = make(Wrong(), pins={2: Tier.EDGE}) if row == 3 else make(Wrong())
    with pytest.raises(CutError, match="Wrong chose row"):
        planner.decide(0.0)


# observations ---------------------------------------------------------------------------------------------------


def test_one_run_refreshes_the_whole_tier() -> None:
    planner = make(mbit_per_s=20)
    planner.observe(Observation(plan_id=1, cut=1, head_s=0.6), now_s=0.0)
    assert planner.factors == (pytest.approx(1.2), 1.0)
    assert planner.costs.device_s.tolist() == pytest.approx([0, 0.6, 2.4, 3.6])
    assert planner.finish_s(2) >= 1.2


def test_each_kind_counts_once_whatever_the_order() -> None:
    planner = make()
    whole = run(planner, 1, 2, mbit_per_s=1)
    early = Observation(plan_id=1, cut=2, head_s=whole.head_s)
    for order in ([early, whole, whole, early], [whole, early, whole], [early, early, whole]):
        again = make()
        again.observe(*order, now_s=0.0)
        once = make()
        once.observe(whole, now_s=0.0)
        expected, got = once.snapshot(), again.snapshot()
        for state in (expected, got):
            state["estimators"]["deduplicator"].pop("repeated")
        assert got == expected
    planner.observe(whole, now_s=0.0)
    planner.observe(whole, whole, now_s=1.0)
    assert planner.repeated == 2


def test_of_a_partly_new_observation_only_the_news_count() -> None:
    head = Observation(plan_id=1, cut=1, head_s=0.6)
    both = msgspec.structs.replace(head, local_s=2.5)
    planner, apart = make(), make()
    planner.observe(head, both, now_s=0.0)
    apart.observe(head, Observation(plan_id=1, cut=1, local_s=2.5), now_s=0.0)
    assert planner.snapshot() == apart.snapshot()


def test_a_lower_bound_comes_before_the_answer_or_not_at_all() -> None:
    planner = make(mbit_per_s=20)
    late = Observation(plan_id=1, cut=0, censored=True, round_trip_s=5.0, sent_bytes=100_000)
    planner.observe(run(planner, 1, 0, mbit_per_s=20), now_s=0.0)
    before = planner.link
    planner.observe(late, now_s=1.0)
    assert planner.link == before
    planner.observe(msgspec.structs.replace(late, plan_id=2), now_s=1.0)
    assert planner.link.up_bytes_per_s < before.up_bytes_per_s / 10
    assert planner.decide(2.0).cut != 0


def test_unknown_old_and_absurd_plan_ids() -> None:
    planner = make()
    planner.observe(Observation(plan_id=10**6, cut=1, head_s=0.6), now_s=0.0)
    assert planner.factors[0] == pytest.approx(1.2)
    assert planner.decide(0.0).id == 10**6 + 1  # behind those of whoever planned that
    for plan_id in range(2000):
        planner.observe(Observation(plan_id=10**6 + plan_id, cut=1, head_s=0.5), now_s=0.0)
    before = planner.repeated
    planner.observe(Observation(plan_id=10**6 + 5, cut=1, head_s=0.1), now_s=0.0)
    assert planner.repeated == before + 1
    assert len(planner.snapshot()["estimators"]["deduplicator"]["seen"]) <= 1024
    planner.observe(Observation(plan_id=2**63, cut=1, head_s=0.5), now_s=0.0)
    assert planner.decide(0.0).id < 2**62


BAD = [math.nan, math.inf, -math.inf, -1.0]


@given(
    st.lists(
        st.builds(
            Observation,
            plan_id=st.integers(-5, 50),
            cut=st.integers(-3, 9),
            head_s=st.none() | st.floats(),
            tail_s=st.none() | st.floats(),
            local_s=st.none() | st.floats(),
            round_trip_s=st.none() | st.floats(),
            sent_bytes=st.integers(-10, 10**12),
            received_bytes=st.integers(-10, 10**12),
            edge=st.none() | st.builds(EdgeTimes, compute_s=st.floats(), residence_s=st.floats()),
            censored=st.booleans(),
            retransmitted=st.booleans(),
            probe=st.booleans(),
        ),
        max_size=12,
    ),
    st.floats(-1e9, 1e9),
)
def test_no_observation_breaks_a_planner(observations: list[Observation], now_s: float) -> None:
    planner = make()
    for i, observation in enumerate(observations):
        planner.observe(observation, now_s=now_s + i)
        plan = planner.decide(now_s + i)
        assert 0 < plan.latency_s < math.inf
        assert 0 <= planner.finish_s(1) < math.inf
        assert planner.link.up_bytes_per_s > 0
    json.dumps(planner.snapshot(), allow_nan=False)


@pytest.mark.parametrize("bad", BAD)
def test_garbage_is_refused_and_counted(bad: float) -> None:
    planner = make()
    before = planner.costs.latency_s.tolist()
    planner.observe(
        Observation(
            plan_id=1,
            cut=1,
            head_s=bad,
            tail_s=bad,
            local_s=bad,
            round_trip_s=bad,
            edge=EdgeTimes(residence_s=bad),
        ),
        now_s=0.0,
    )
    assert planner.refused == 5
    assert planner.costs.latency_s.tolist() == before


def test_retransmitted_teach_nothing_about_the_link() -> None:
    planner = make()
    seen = msgspec.structs.replace(run(planner, 1, 0, mbit_per_s=0.01), retransmitted=True)
    before = planner.link
    planner.observe(seen, now_s=0.0)
    assert planner.link == before
    assert planner.refused == 1


def test_a_slow_first_exchange_does_not_scare_the_planner_away() -> None:
    planner = make(mbit_per_s=20)
    cold = run(planner, 1, 0, mbit_per_s=20)
    times = EdgeTimes(compute_s=0.9, residence_s=2.0)  # the edge opened the model first
    planner.observe(msgspec.structs.replace(cold, tail_s=0.9, edge=times, round_trip_s=2.06), now_s=0.0)
    assert planner.decide(1.0).cut == 0


def test_a_queue_at_the_edge_moves_work_home_and_is_forgotten() -> None:
    planner = make(mbit_per_s=20)
    for i in range(3):
        seen = run(planner, i + 1, 0, mbit_per_s=20)
        assert seen.edge is not None
        times = msgspec.structs.replace(seen.edge, queue_s=9.0, residence_s=9.3)
        planner.observe(msgspec.structs.replace(seen, edge=times, round_trip_s=(seen.round_trip_s or 0) + 9), now_s=0.0)
    assert planner.decide(0.0).cut == 3
    assert planner.decide(100.0).cut == 0


def test_finish_s_is_a_p99() -> None:
    planner, rng = make(), np.random.default_rng(0)
    for i in range(400):
        planner.observe(Observation(plan_id=i + 1, cut=1, local_s=2.5 * float(rng.lognormal(0.3, 0.1))), now_s=float(i))
    late = np.quantile(2.5 * rng.lognormal(0.3, 0.1, 100_000), 0.99)
    assert planner.finish_s(1) == pytest.approx(late, rel=0.15)
    assert planner.finish_s(3) == 0.0


# profiles and state ---------------------------------------------------------------------------------------------


def test_set_profile() -> None:
    planner = make(mbit_per_s=20)
    planner.observe(run(planner, 1, 0, mbit_per_s=20, slow=1), now_s=0.0)
    slow = planner.topology.tiers[0].scaled(3)
    planner.set_profile(1, slow)
    assert planner.factors[1] == 1.0
    assert planner.decide(0.0).cut == 3
    with pytest.raises(ProfileError):
        planner.set_profile(1, TierProfile.from_steps("other", [1, 1, 1]))
    assert planner.decide(0.0).cut == 3


def test_adopt_takes_another_planners_decision() -> None:
    planner = make(mbit_per_s=20)
    plan = planner.adopt(0.0, 2, plan_id=41, why="told so", probe=True, propensity=0.25)
    assert (plan.id, plan.cut, plan.why, plan.probe, plan.propensity) == (41, 2, "told so", True, 0.25)
    assert planner.decide(0.0).id == 42
    planner.restrict([0, 3])
    assert planner.adopt(0.0, 2, plan_id=50).cut == 0
    refusing = make(refused={2: "because"}, mbit_per_s=20)
    assert refusing.adopt(0.0, 2, plan_id=50).cut == 0
    bound = make(stateful=True)
    bound.adopt(0.0, 2, plan_id=1)
    assert bound.decide(0.0).cut == 2


def drive(planner: Planner, seed: int, steps: int) -> list[tuple[int, int, bool, float, float]]:
    """A run with a link and a device that change; the same seed gives the same world."""
    rng = np.random.default_rng(seed)
    log = []
    for i in range(steps):
        now = 100.0 + i
        plan = planner.decide(now)
        log.append((plan.id, plan.cut, plan.probe, plan.propensity, plan.latency_s))
        mbit_per_s = float(rng.choice([0.1, 1.0, 20.0]))
        seen = run(planner, plan.id, plan.cut, mbit_per_s=mbit_per_s, slow=float(rng.lognormal(0, 0.3)))
        planner.observe(seen, now_s=now + 0.5)
    return log


POLICIES = [
    None,
    Best(),
    LeastLatency(),
    Fixed(2),
    LocalMode(LeastLatency(), 0.3),
    LocalMode(LocalMode(LeastLatency(), 0.5), 0.5),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_restored_planner_decides_alike(policy: Policy | None) -> None:
    first, second = make(policy, seed=3), make(policy, seed=99)
    drive(first, 1, 20)
    state = json.loads(json.dumps(first.snapshot(), allow_nan=False))
    second.restore(state)
    assert second.snapshot() == first.snapshot()
    assert drive(first, 2, 40) == drive(second, 2, 40)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_same_seed_gives_the_same_run(policy: Policy | None) -> None:
    assert drive(make(policy, seed=5), 1, 40) == drive(make(policy, seed=5), 1, 40)


def test_a_snapshot_shares_nothing_with_the_planner() -> None:
    @frozen
    class Remember(Policy):
        def decide(self, context: Context) -> Decision:
            context.memory.setdefault("list", []).append(1)
            return context.best()

    planner = make(Remember())
    planner.decide(0.0)
    state = planner.snapshot()
    other = make(Remember())
    other.restore(state)
    other.decide(0.0)
    planner.decide(0.0)
    planner.decide(0.0)
    assert state["memory"] == {"list": [1]}
    assert other.snapshot()["memory"] == {"list": [1, 1]}


def test_a_broken_state_changes_nothing() -> None:
    planner = make(LocalMode(LeastLatency(), 0.5))
    drive(planner, 1, 5)
    good = planner.snapshot()
    broken: list[dict[str, Any]] = [
        {},
        {**good, "version": 1},
        {**good, "digest": "ab"},
        {**good, "next_id": "3"},
        {**good, "incumbent": [77]},
        {**good, "incumbent": []},
        {**good, "random": {"kind": "MT19937", "state": "0x1"}},
        {**good, "estimators": {}},
        {**good, "estimators": {**good["estimators"], "device": {"log": "x"}}},
        {**good, "estimators": {**good["estimators"], "edge": {**good["estimators"]["edge"], "counts": [1] * 99}}},
        {**good, "estimators": {**good["estimators"], "link": {**good["estimators"]["link"], "rtts": [1]}}},
        {**good, "estimators": {**good["estimators"], "deduplicator": {"seen": [[1]], "floor": 0, "repeated": 0}}},
    ]
    for state in broken:
        with pytest.raises(ProfileError):
            planner.restore(state)
        assert planner.snapshot() == good


def test_fomo_is_decided_much_faster_than_by_the_loop() -> None:
    """Not a benchmark, only that nobody makes `decide` quadratic or lets it rebuild its tables: 3x is promised."""
    import timeit

    pipeline, topology = fomo(1)
    planner = Planner(pipeline, topology, LeastLatency())  # what the loop does; the default also weighs probes
    device = np.diff(topology.tiers[0].heads_s).tolist()
    edge = (-np.diff(topology.tiers[1].tails_s)).tolist()

    def loop() -> int:
        best, least = 0, math.inf
        for k in range(len(device)):
            total = sum(device[: k + 1]) + 0.01 + sum(edge[k + 1 :])
            if total < least:
                best, least = k, total
        return best

    ours, theirs = [], []
    for _ in range(7):
        ours.append(timeit.timeit(lambda: planner.decide(0.0), number=200))
        theirs.append(timeit.timeit(loop, number=200))
    assert min(theirs) > 2 * min(ours)
