"""Policies around policies: they compose in any order, pass probes through, and don't latch onto them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from attrs import evolve, frozen
from msgspec.structs import astuple

from splitiot.cost import Costs
from splitiot.estimators import Baseline, Freshness, Staleness
from splitiot.observation import EdgeTimes, Observation
from splitiot.planner import Planner
from splitiot.policies import (
    Best,
    Context,
    Decision,
    Hysteresis,
    LeastLatency,
    LocalMode,
    Policy,
    RetestOnDrift,
    StaleProbe,
    adaptive,
)
from splitiot.policies.retest_on_drift import Retests
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline

SIZES = [100_000, 200_000, 20_000, 2_000]
WRAPPERS: dict[str, Callable[[Policy], Policy]] = {
    "local": lambda policy: LocalMode(policy, 0.1),
    "stale": StaleProbe,
    "hysteresis": lambda policy: Hysteresis(policy, 0.05),
    "retest": RetestOnDrift,
}


class Place:
    """A device, an edge and a link that can be changed, and a planner that is told what they take."""

    def __init__(
        self,
        policy: Policy | None,
        *,
        mbit_per_s: float = 20.0,
        seed: int = 0,
        sizes: Sequence[int] = SIZES,
        steps_s: Sequence[float] = (0.3, 0.3, 0.3),
    ) -> None:
        self.pipeline = SizedPipeline(sizes)
        self.device = TierProfile.from_steps(self.pipeline.digest, steps_s)
        self.edge = self.device.scaled(0.1)
        self.link = Link.from_mbit_per_s(mbit_per_s, rtt_s=0.02)
        self.slow = [1.0, 1.0]
        self.planner = Planner(self.pipeline, Topology([self.device, self.edge], [self.link]), policy, seed=seed)
        self.now_s = 0.0
        self.cuts: list[int] = []
        self.probes: list[bool] = []
        self.random = np.random.default_rng(seed)

    def run(self, count: int) -> Place:
        for _ in range(count):
            plan = self.planner.decide(self.now_s)
            cut, noise = plan.cut, np.exp(0.03 * self.random.standard_normal(3))
            head_s = float(self.device.heads_s[cut]) * self.slow[0] * noise[0]
            tail_s = float(self.edge.tails_s[cut]) * self.slow[1] * noise[1]
            seen = Observation(plan_id=plan.id, cut=cut, head_s=head_s if cut else None)
            self.now_s += head_s
            if cut < self.pipeline.n:
                sent, back = self.pipeline.nbytes[cut], self.pipeline.nbytes[-1]
                network_s = self.link.transfer_s(sent, back) * noise[2]
                self.now_s += network_s + tail_s
                seen = Observation(
                    plan_id=plan.id,
                    cut=cut,
                    head_s=head_s if cut else None,
                    edge=EdgeTimes(compute_s=tail_s, residence_s=tail_s),
                    round_trip_s=network_s + tail_s,
                    sent_bytes=sent,
                    received_bytes=back,
                )
            self.planner.observe(seen, now_s=self.now_s)
            self.cuts.append(cut)
            self.probes.append(plan.probe)
        return self

    def settled(self, last: int) -> set[int]:
        """Cuts of the last requests that were no probes."""
        return {cut for cut, probe in list(zip(self.cuts, self.probes, strict=True))[-last:] if not probe}

    def drifts(self) -> int:
        return self.planner.beliefs(self.now_s).edge.drifts


@frozen
class Probing(Policy):
    """Now and then a probe of the local row, else the best."""

    every: int = 4

    def decide(self, context: Context) -> Decision:
        count = context.memory["count"] = context.memory.get("count", 0) + 1
        if count % self.every == 0 and context.local_row is not None:
            return Decision(context.local_row, "look", probe=True, propensity=0.5)
        return context.best()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        memory["learnt"] = memory.get("learnt", 0) + 1


def compositions() -> list[tuple[str, ...]]:
    return [order for length in (1, 2, 3, 4) for order in itertools.permutations(WRAPPERS, length)]


def wrapped(order: tuple[str, ...], policy: Policy) -> Policy:
    for name in reversed(order):
        policy = WRAPPERS[name](policy)
    return policy


@pytest.mark.parametrize("order", compositions(), ids=" ".join)
def test_they_compose_in_any_order(order: tuple[str, ...]) -> None:
    """A policy that probes the local row one time in four is not kept local by any of them."""
    place = Place(wrapped(order, Probing())).run(120)
    assert place.planner.snapshot()["memory"]["learnt"] == 120
    assert place.settled(100) == {0}
    looks = [cut for cut, probe in zip(place.cuts, place.probes, strict=True) if probe]
    assert looks.count(3) >= 120 // 4  # the wrapped policy's probes passed through, every one
    json.dumps(place.planner.snapshot())


@pytest.mark.parametrize("order", compositions(), ids=" ".join)
def test_they_go_where_it_is_better_now(order: tuple[str, ...]) -> None:
    place = Place(wrapped(order, LeastLatency())).run(30)
    assert place.settled(20) == {0}
    place.link = Link.from_mbit_per_s(0.2, rtt_s=0.02)
    place.run(40)
    assert place.settled(20) == {3}


# hysteresis


def context_of(place: Place, **more: Any) -> Context:
    generator = np.random.default_rng(0)
    return Context(place.planner.costs, random=lambda: generator, beliefs=place.planner.beliefs, **more)


def test_hysteresis_stays_for_little_and_moves_for_much() -> None:
    place = Place(None)
    row = place.planner.costs.at_cut
    best = LeastLatency().decide(context_of(place)).row
    values = place.planner.costs.latency_s
    other = int(np.argsort(values)[1])
    worse = 1 - values[best] / values[other]
    stays = Hysteresis(LeastLatency(), margin=worse * 1.1)
    moves = Hysteresis(LeastLatency(), margin=worse * 0.5)
    decision = stays.decide(context_of(place, incumbent=other))
    assert decision.row == other
    assert "stay" in decision.why
    assert moves.decide(context_of(place, incumbent=other)).row == best
    assert stays.decide(context_of(place)).row == best  # there was nothing before
    masked = place.planner.costs.masked(np.arange(4) != other)
    assert stays.decide(Context(masked, random=np.random.default_rng, incumbent=other)).row == best
    assert row(0) == best


def test_hysteresis_stays_with_what_was_no_probe() -> None:
    """With the last executed row as memory, one probe in four kept a prototype local for ever."""
    place = Place(Hysteresis(Probing(), margin=50.0)).run(40)
    assert place.settled(30) == {0}


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_margins(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        Hysteresis(LeastLatency(), margin)


# what a drift does


def test_a_drift_is_tested_again_with_the_cheapest_row_and_planned_anew() -> None:
    """The edge seems slow for two requests: the policy goes home, and looks again at once instead of staying there."""
    places = [Place(policy).run(40) for policy in (LeastLatency(), RetestOnDrift(LeastLatency(), tests=3))]
    for place in places:
        assert place.settled(30) == {0}
        before = place.drifts()
        place.slow[1] = 20.0
        place.run(2)
        assert place.drifts() == before + 1
        assert place.planner.beliefs(place.now_s).edge.samples == 2  # what was before does not count any more
        place.slow[1] = 1.0
        place.run(8)
    plain, tested = places
    assert plain.settled(8) == {3}
    first = plain.probes[42:].index(True) if True in plain.probes[42:] else None
    assert first is None
    number = tested.probes[42:].index(True)
    assert number <= 2
    # the cheapest of all rows that measure the edge
    assert tested.cuts[42 + number] == 2
    assert tested.settled(3) == {0}


def test_what_the_own_choice_measures_needs_no_test() -> None:
    place = Place(RetestOnDrift(LeastLatency(), tests=3)).run(40)
    before = place.drifts()
    place.slow[1] = 2.0  # slower, and still the best
    place.run(20)
    assert place.drifts() == before + 1
    assert not any(place.probes)


def test_tests_come_after_longer_and_longer_pauses() -> None:
    place = Place(RetestOnDrift(LeastLatency(), tests=4, limit=10.0)).run(40)
    place.slow[1] = 20.0
    place.run(60)
    probes = [number for number, probe in enumerate(place.probes) if probe]
    assert len(probes) == 4
    gaps = np.diff(probes).tolist()
    assert gaps == [2, 4, 8]


def test_a_dear_test_is_left_out() -> None:
    place = Place(RetestOnDrift(LeastLatency(), tests=4, limit=1.0)).run(40)
    place.link = Link.from_mbit_per_s(0.05, rtt_s=0.02)
    place.run(60)
    assert place.settled(50) == {3}
    assert not any(place.probes)


def test_a_test_that_is_due_waits_for_a_probe_of_the_own_policy() -> None:
    place = Place(None)
    memory: dict[str, Any] = {}
    Retests(drifts=(0, 0, 0), left=(0, 2, 0), wait=(0, 1, 0)).keep(memory)
    decision = RetestOnDrift(Probing(every=1), tests=2).decide(context_of(place, memory=memory))
    assert (decision.why, decision.probe) == ("look", True)
    memory["count"] = 1
    again = RetestOnDrift(Probing(every=2), tests=2).decide(context_of(place, memory=memory))
    assert again.why == "look"


@pytest.mark.parametrize("options", [{"tests": 0}, {"limit": 0.5}, {"limit": float("nan")}])
def test_options_of_retests(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RetestOnDrift(LeastLatency(), **options)


# stale probes


def test_what_is_avoided_is_measured_now_and_then_and_found_again() -> None:
    place = Place(StaleProbe(LeastLatency())).run(30)
    place.link = Link.from_mbit_per_s(0.5, rtt_s=0.02)
    place.run(400)
    assert place.settled(300) == {3}
    assert 2 <= sum(place.probes) <= 60
    place.link = Link.from_mbit_per_s(20, rtt_s=0.02)
    place.run(150)
    assert place.settled(20) == {0}


def test_cheap_probes_are_frequent_dear_ones_rare_and_hopeless_ones_do_not_occur() -> None:
    """The edge could only ever be as good as the device where that is fast: then nothing is worth a look."""

    def probes(last_bytes: int, factor: float = 1.0) -> int:
        sizes = [100_000, 200_000, last_bytes, 2_000]
        place = Place(StaleProbe(LeastLatency()), mbit_per_s=0.5, sizes=sizes, steps_s=(0.5, 0.5, 0.01))
        place.slow[0] = factor
        return sum(place.run(600).probes)

    cheap, dear, hopeless = probes(4_000), probes(100_000), probes(100_000, 0.02)
    assert cheap > 1.5 * dear > 0
    assert hopeless <= 1


def test_a_surprise_is_confirmed_at_once() -> None:
    place = Place(StaleProbe(LeastLatency())).run(40)
    place.slow[1] = 50.0
    place.run(60)
    assert place.settled(50) == {3}
    place.slow[1] = 1.0
    place.run(400)
    first = place.probes[100:].index(True)
    assert place.probes[100 + first : 103 + first] == [True, True, False]
    assert place.settled(300) == {0}


def test_all_is_measured_after_so_many_requests_at_the_latest() -> None:
    place = Place(StaleProbe(LeastLatency(), every=20, lasts_s=1e9), mbit_per_s=0.5).run(100)
    assert 2 <= sum(place.probes) <= 8
    assert sum(Place(StaleProbe(LeastLatency(), lasts_s=1e9), mbit_per_s=0.5).run(100).probes) == 0


def test_another_clock_is_no_age() -> None:
    """A state that was stored on one machine and restored on another, whose clock is behind."""
    place = Place(adaptive()).run(30)
    state = json.loads(json.dumps(place.planner.snapshot()))
    other = Place(adaptive())
    other.planner.restore(state)
    other.now_s = -1e6
    other.run(10)
    assert sum(other.probes) <= 1


def requests_until_a_probe(costs: Costs, ages_s: tuple[float, float, float]) -> float:
    """How many requests a second apart run all locally before `StaleProbe` looks at the edge; inf for 1000."""
    policy, memory = StaleProbe(LeastLatency(), every=10_000), {}
    device, edge, link = [Freshness(age_s, 0) for age_s in ages_s]
    staleness = Staleness(device, edge, link, Baseline(*costs.beliefs[:5].tolist()), False)
    for number in range(1000):
        context = Context(
            costs,
            random=np.random.default_rng,
            now_s=1e6 * (number > 0) + number,  # what it believes was measured long after it began
            memory=memory,
            staleness=lambda _: staleness,
        )
        if policy.decide(context).probe:
            return number
    return math.inf


def test_the_oldest_of_what_is_stale_says_how_likely_a_change_is() -> None:
    """Probes of a session keep the link young while nothing is sent: that says nothing of the edge."""
    costs = Place(None, mbit_per_s=0.5).planner.costs
    assert costs.cuts[costs.best()] == 3
    old = requests_until_a_probe(costs, (0.0, 300.0, 300.0))
    young = requests_until_a_probe(costs, (0.0, 3.0, 3.0))
    assert 0 < 10 * old < young
    assert requests_until_a_probe(costs, (0.0, 300.0, 3.0)) == old
    assert requests_until_a_probe(costs, (0.0, 3.0, 300.0)) == old


def test_the_queue_of_an_edge_that_was_not_measured_for_long_may_be_gone() -> None:
    """Without its queue the edge would be best at once; with that, whatever else changed, it could not be."""
    costs = Place(None).planner.costs.at(wait_s=5.0)
    assert costs.cuts[costs.best()] == 3
    assert requests_until_a_probe(costs, (0.0, 300.0, 300.0)) < math.inf


@pytest.mark.parametrize("name", ["lasts_s", "width", "device_width", "every"])
@pytest.mark.parametrize("value", [0, -1])
def test_options_of_stale_probes(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        StaleProbe(LeastLatency(), **{name: value})


def test_without_beliefs_there_is_nothing_to_wrap() -> None:
    place = Place(None)
    shown = Context(place.planner.costs, random=np.random.default_rng)
    for wrap in (StaleProbe, RetestOnDrift):
        assert wrap(LeastLatency()).decide(shown) == LeastLatency().decide(shown)


def test_other_objectives_are_probed_for_too() -> None:
    place = Place(StaleProbe(Best("period_s")), mbit_per_s=5.3, sizes=[1_000_000] * 3 + [2_000]).run(400)
    assert place.settled(100) == {3}
    assert any(place.probes)
    plan = place.planner.decide(place.now_s)
    assert plan.objective == "period_s"


def test_the_default_is_the_adaptive_one() -> None:
    assert Place(None).planner.policy == adaptive("latency_s")
    assert evolve(adaptive(), tests=2) != adaptive()


@pytest.mark.parametrize("seed", range(5))
def test_staleness_is_what_the_beliefs_say(seed: int) -> None:
    """Made quickly from the estimators, or from beliefs where a context has nothing else: the same."""
    place = Place(StaleProbe(LeastLatency()), mbit_per_s=0.5, seed=seed)
    for factor in (1.0, 4.0, 1.0):
        place.slow[1] = factor
        place.run(7)
        quick = place.planner._estimators.staleness(place.now_s)
        slow = context_of(place, now_s=place.now_s).staleness
        assert slow is not None
        for group in ("device", "edge", "link"):
            one, other = getattr(quick, group), getattr(slow, group)
            assert (one.age_s, one.drifts) == (other.age_s, other.drifts)
        assert quick.awaiting_confirmation == slow.awaiting_confirmation
        assert astuple(quick.baseline) == pytest.approx(astuple(slow.baseline))
