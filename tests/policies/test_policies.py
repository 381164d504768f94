from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator

from splitiot.cost import Costs, Power, costs
from splitiot.errors import CutError, Infeasible
from splitiot.observation import Observation
from splitiot.policies import Best, Context, Decision, Fixed, LeastLatency, LinearBandit, LocalMode, Policy
from splitiot.policies.linear_bandit import Regression
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline

ALL = [Best(), Best("period_s"), Best("energy_j"), LeastLatency(), Fixed(1), LocalMode(LeastLatency(), 0.3)]


def table(mbit_per_s: float = 20.0, sink: str = "device") -> Costs:
    pipeline = SizedPipeline([100_000, 400_000, 5_000, 100], refused={2: "step 2 keeps state"}, sink=sink)
    device = TierProfile.from_steps(pipeline.digest, [0.5, 1.5, 1.0])
    link = Link.from_mbit_per_s(mbit_per_s, rtt_s=0.02)
    return costs(pipeline, Topology([device, device.scaled(0.1)], [link]), power=Power(1.0, 1.0))


def context(of: Costs, *, generator: Generator | None = None, **more: Any) -> Context:
    generator = generator or np.random.default_rng(0)
    return Context(of, random=lambda: generator, **more)


@pytest.mark.parametrize("policy", ALL, ids=str)
@given(mask=st.lists(st.booleans(), min_size=3, max_size=3).filter(any), seed=st.integers(0, 2**32))
def test_only_allowed_rows_and_nothing_is_touched(policy: Policy, mask: list[bool], seed: int) -> None:
    of = table().masked(np.array(mask))
    before = (of.latency_s.tolist(), of.mask.tolist(), of.beliefs.tolist())
    memory: dict[str, Any] = {}
    shown = context(of, generator=np.random.default_rng(seed), memory=memory, incumbent=0)
    decision = policy.decide(shown)
    assert mask[decision.row]
    assert 0 < decision.propensity <= 1
    assert (of.latency_s.tolist(), of.mask.tolist(), of.beliefs.tolist()) == before
    assert shown.incumbent == 0
    # the same context, the same decision
    again = context(of, generator=np.random.default_rng(seed), memory=memory, incumbent=0)
    assert policy.decide(again) == decision


@pytest.mark.parametrize("policy", ALL, ids=str)
def test_policies_are_frozen_configuration(policy: Policy) -> None:
    with pytest.raises(FrozenInstanceError):
        policy.objective = "latency_s"  # type: ignore[attr-defined]
    assert hash(policy) == hash(policy)


@pytest.mark.parametrize("policy", ALL, ids=str)
def test_nothing_allowed(policy: Policy) -> None:
    with pytest.raises(Infeasible):
        policy.decide(context(table().masked(np.zeros(3, bool))))


def test_best() -> None:
    of = table()
    assert Best().decide(context(of)) == Decision(0, "least latency_s")
    assert LeastLatency().decide(context(of)).row == 0
    most = Best(lambda c: -c.cuts.astype(float)).decide(context(of))
    assert (of.cuts[most.row], most.why) == (3, "least <lambda>")
    assert context(of, objective="energy_j").ranked().objective == "energy_j"
    assert context(of, objective="energy_j").best().row == of.best("energy_j")
    assert context(of).best(why="so").why == "so"


def test_fixed() -> None:
    of = table()
    assert of.cuts[Fixed(1).decide(context(of)).row] == 1
    down = of.masked(~of.exchanges)
    decision = Fixed(1).decide(context(down))
    assert of.cuts[decision.row] == 3
    assert decision.why == "cut 1 is not allowed now: all local"
    no_local = of.masked(np.array([True, False, False]))
    assert of.cuts[Fixed(1).decide(context(no_local)).row] == 0
    with pytest.raises(CutError, match="step 2 keeps state"):
        Fixed(2).decide(context(of))
    with pytest.raises(CutError, match=r"not in 0\.\.3"):
        Fixed(9).decide(context(of))


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_local_mode_chooses_local_as_often_as_it_says(probability: float) -> None:
    of, generator = table(), np.random.default_rng(0)
    policy = LocalMode(LeastLatency(), probability)
    decisions = [policy.decide(context(of, generator=generator)) for _ in range(4000)]
    local = [d for d in decisions if of.cuts[d.row] == 3]
    others = [d for d in decisions if of.cuts[d.row] != 3]
    assert len(local) / 4000 == pytest.approx(probability, abs=0.03)
    assert all(d.probe and d.propensity == probability for d in local)
    assert all(not d.probe and d.propensity == pytest.approx(1 - probability) for d in others)
    # propensities make unbiased weights: each arm's 1/p sums up to the number of decisions
    if 0 < probability < 1:
        for arm in (local, others):
            assert sum(1 / d.propensity for d in arm) == pytest.approx(4000, rel=0.15)


def test_local_mode_where_local_is_best_anyway() -> None:
    of = table(mbit_per_s=0.001)
    for seed in range(20):
        shown = context(of, generator=np.random.default_rng(seed))
        decision = LocalMode(LeastLatency(), 0.5).decide(shown)
        assert (of.cuts[decision.row], decision.probe, decision.propensity) == (3, False, 1.0)


class Chancy(Policy):
    """It chooses a row, which had a probability of 0.4."""

    def __init__(self, row: int) -> None:
        self.row = row

    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), row=self.row, propensity=0.4)


def test_local_mode_multiplies_its_propensity_with_that_of_the_policy_inside() -> None:
    of, local = table(), 2
    inside = {LocalMode(Chancy(0), 0.3).decide(context(of, generator=np.random.default_rng(i))) for i in range(20)}
    assert {(d.row, d.probe, round(d.propensity, 12)) for d in inside} == {(local, True, 0.3), (0, False, 0.28)}
    same = {LocalMode(Chancy(local), 0.3).decide(context(of, generator=np.random.default_rng(i))) for i in range(20)}
    assert {(d.row, d.probe, round(d.propensity, 12)) for d in same} == {(local, False, 0.58)}


def test_local_mode_where_local_is_not_allowed() -> None:
    of = table().masked(np.array([True, True, False]))
    for seed in range(20):
        shown = context(of, generator=np.random.default_rng(seed))
        assert LocalMode(LeastLatency(), 0.9).decide(shown) == LeastLatency().decide(shown)


def test_wrappers_pass_probes_and_lessons_through() -> None:
    class Probing(Policy):
        def decide(self, context: Context) -> Decision:
            return Decision(1, "look", probe=True, propensity=0.5)

        def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
            memory["seen"] = observation.plan_id

    policy = LocalMode(LocalMode(Probing(), 0.0), 0.0)
    decision = policy.decide(context(table()))
    assert (decision.row, decision.probe, decision.why, decision.propensity) == (1, True, "look", 0.5)
    memory: dict[str, Any] = {}
    policy.learn(Observation(plan_id=7, cut=1), memory)
    assert memory == {"seen": 7}


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_probabilities(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        LocalMode(LeastLatency(), probability)


def test_context() -> None:
    of = table()
    shown = context(of)
    assert shown.mask is of.mask
    assert shown.local_row == 2
    assert context(of.masked(np.array([True, False, False]))).local_row is None
    assert shown.at_cut(1) == 1
    assert shown.beliefs is None
    assert shown.allows(0)
    with pytest.raises(TypeError):
        shown.telemetry["battery"] = 1.0  # type: ignore[index]


def test_the_bandit_says_so_where_nothing_is_allowed_and_takes_no_absurd_round_trips() -> None:
    of, memory, bandit = table(), dict[str, Any](), LinearBandit()
    with pytest.raises(Infeasible):
        bandit.decide(context(of.masked(np.zeros(3, bool))))
    for seconds in (0.1, 1e300, 1.7e308, 0.1):
        decision = bandit.decide(context(of, memory=memory))
        cut = int(of.cuts[decision.row])
        bandit.learn(Observation(plan_id=1, cut=cut, round_trip_s=seconds), memory)
    learnt = Regression.of(memory)
    assert learnt is not None
    assert max(map(abs, learnt.target)) < 10
