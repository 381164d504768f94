"""What a policy wants is what happens, whatever is put around it."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attrs import evolve, field, frozen

from splitiot.cost import AtMost, Costs, StepsOnDevice, most_local
from splitiot.errors import CutError, Infeasible
from splitiot.observation import Observation
from splitiot.plan import Plan
from splitiot.planner import Planner
from splitiot.policies import (
    Best,
    Context,
    Deadline,
    Decision,
    Fixed,
    Hysteresis,
    LeastEnergy,
    LeastLatency,
    LinearBandit,
    LocalMode,
    Policy,
    Ranking,
    RetestOnDrift,
    StaleProbe,
    ThroughputTarget,
    Wrapper,
    adaptive,
)
from splitiot.policies._base import asked
from splitiot.solver import solve
from splitiot.topology import Link
from tests.policies.test_policies import context, table
from tests.policies.test_wrappers import Place, compositions, wrapped
from tests.share import FULL

# the examples


def test_a_stale_probe_around_a_deadline_keeps_what_it_wants() -> None:
    """All cuts are in time, so all runs on the device. It ran everything on the edge, as 500 "probes"."""
    place = Place(StaleProbe(Deadline(deadline_s=5.0))).run(500)
    assert set(place.cuts) == {3}
    assert not any(place.probes)


@pytest.mark.parametrize("cut", [0, 2, 3])
def test_a_stale_probe_around_a_fixed_cut_keeps_it(cut: int) -> None:
    place = Place(StaleProbe(Fixed(cut))).run(500)
    assert set(place.cuts) == {cut}
    assert not any(place.probes)


def test_a_hysteresis_around_a_deadline_goes_back() -> None:
    place = Place(Hysteresis(Deadline(deadline_s=2.0))).run(100)
    assert place.settled(100) == {3}
    place.slow[0] = 3.0
    place.run(100)
    assert place.settled(50) == {1}
    place.slow[0] = 1.0
    place.run(300)
    assert place.settled(250) == {3}


def test_a_plan_is_explained_by_what_its_policy_ranks_by() -> None:
    """It said "do not split: all on the edge is best" of a plan that runs everything on the device."""
    place = Place(Deadline(deadline_s=5.0))
    plan = place.planner.decide(0.0)
    assert plan.cut == 3
    text = plan.explain()
    assert "do not split: all local is best" in text
    assert "all on the edge is best" not in text
    assert "fastest     all on the edge, 749" in text
    assert (plan.best_row, plan.runner_up, plan.margin) == (3, 2, 1.0)
    assert math.isnan(plan.margin_s)
    assert plan.break_evens == ()
    assert "bandwidth" not in text


# all wrappers around all policies


@frozen
class Near(Policy):
    """Ranks by numbers that are no objective's."""

    def rank(self, context: Context) -> Ranking:
        return Ranking(np.abs(context.costs.cuts - 1), context.mask, "near cut 1")


@frozen(eq=False)
class Spy(Policy):
    """Keeps what another policy decided."""

    policy: Policy
    seen: list[Decision] = field(factory=list)

    def decide(self, context: Context) -> Decision:
        self.seen.append(self.policy.decide(context))
        return self.seen[-1]

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory)


AIMS: dict[str, Callable[[], Policy]] = {
    "deadline": lambda: Deadline(deadline_s=2.0),
    "deadline that all meet": lambda: Deadline(deadline_s=60.0),
    "short deadline": lambda: Deadline(deadline_s=0.3),
    "throughput": lambda: ThroughputTarget(0.9),
    "throughput, few bytes": lambda: ThroughputTarget(5, subject_to=AtMost("sent_bytes", 20_000)),
    "fixed": lambda: Fixed(2),
    "few bytes": lambda: Best(subject_to=AtMost("sent_bytes", 20_000)),
    "most local in time": lambda: Best(most_local, subject_to=AtMost("latency_s", 0.5)),
    "least latency": LeastLatency,
    "period": lambda: Best("period_s"),
    "own numbers": Near,
    "bandit": LinearBandit,
}


def troubled(place: Place, trouble: str) -> None:
    if trouble == "device":
        place.slow[0] = 3.0
    elif trouble == "edge":
        place.slow[1] = 20.0
    else:
        place.link = Link.from_mbit_per_s(0.2, rtt_s=0.1)


def lived(policy: Policy, trouble: str) -> Place:
    """500 requests: good, bad, good again."""
    place = Place(policy).run(150)
    usual = place.link
    troubled(place, trouble)
    place.run(100)
    place.slow, place.link = [1.0, 1.0], usual
    return place.run(250)


@functools.cache
def lived_bare(aim: str, trouble: str) -> Place:
    return lived(AIMS[aim](), trouble)


TROUBLES = ("device", "edge", "link")
CASES = [
    (order, aim, trouble)
    for i, order in enumerate(compositions())
    for j, aim in enumerate(AIMS)
    for k, trouble in enumerate(TROUBLES)
    if (FULL and (i + j + k) % 6 == 0) or (len(order) == 1 and (j + k) % 3 == 0)
]


@pytest.mark.parametrize(("order", "aim", "trouble"), CASES, ids=lambda x: x if isinstance(x, str) else " ".join(x))
def test_no_wrapper_loses_the_aim(order: tuple[str, ...], aim: str, trouble: str) -> None:
    """Each of 500 requests is one that the policy permits; the bare one says where they should be in the end."""
    spy = Spy(AIMS[aim]())
    place, bare = lived(wrapped(order, spy), trouble), lived_bare(aim, trouble)
    of = place.planner.costs
    assert len(spy.seen) == 500
    other = 0
    for cut, probe, wanted in zip(place.cuts, place.probes, spy.seen, strict=True):
        row, ranking = of.at_cut(cut), wanted.ranking
        assert ranking is not None
        assert ranking.allows(row)  # nothing that is forbidden, be it as a probe
        own, best = ranking.values[row], ranking.values[wanted.row]
        if not probe and row != wanted.row:
            other += 1
            assert "hysteresis" in order
            assert own <= best + 0.05 * abs(own)
    assert other <= 150
    looks = sum(place.probes) - sum(decision.probe for decision in spy.seen)
    assert looks <= (100 if "local" in order else 25)
    if len(bare.settled(100)) == 1 and aim != "bandit":
        ends, wants = place.settled(100), bare.settled(100)
        # one with probes may find what the bare one has given up: then it is at least as good
        really = bare.planner.costs.at(link=bare.link, factors=(1, 1))
        ranking = AIMS[aim]().rank(context(really))
        value = ranking.values[of.at_cut(next(iter(wants)))]
        assert all(ranking.values[of.at_cut(cut)] <= value + 0.05 * abs(value) for cut in ends), (ends, wants)


def test_probes_bring_back_what_the_bare_policy_has_given_up() -> None:
    """Within what it permits: cuts that send few bytes."""
    for policy, ends in ((AIMS["few bytes"](), 3), (StaleProbe(AIMS["few bytes"]()), 2)):
        place = Place(policy).run(100)
        assert place.settled(90) == {2}
        usual, place.link = place.link, Link.from_mbit_per_s(0.05, rtt_s=0.1)
        place.run(100)
        assert place.settled(20) == {3}
        place.link = usual
        place.run(400)
        assert place.settled(50) == {ends}
        assert {cut for cut, probe in zip(place.cuts, place.probes, strict=True) if probe} <= {2, 3}


# a policy that only decides


def mute(row: int = 1) -> type[Policy]:
    class Mute(Policy):
        def decide(self, context: Context) -> Decision:
            return Decision(row, "because")

    return Mute


@pytest.mark.parametrize("order", compositions(), ids=" ".join)
def test_what_only_decides_is_passed_on_and_said_once(order: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    kind = mute()
    with caplog.at_level(logging.WARNING, logger="splitiot"):
        places = [Place(wrapped(order, kind())).run(100) for _ in range(2)]
    for place in places:
        assert set(place.cuts) == {1}
        assert not any(place.probes)
    (record,) = caplog.records
    words = record.getMessage()
    assert "the decisions of Mute on as they are" in words
    assert "rank(self, context)" in words


def test_a_ranking_without_objective_is_not_probed_for_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Own(Policy):
        def rank(self, context: Context) -> Ranking:
            return Ranking(context.costs.latency_s, context.mask, "fast")

    with caplog.at_level(logging.WARNING, logger="splitiot"):
        place = Place(StaleProbe(Own()), mbit_per_s=0.5).run(300)
    assert not any(place.probes)
    assert ["names no objective" in record.getMessage() for record in caplog.records] == [True]
    with caplog.at_level(logging.WARNING, logger="splitiot"):
        caplog.clear()
        Place(StaleProbe(Fixed(1))).run(50)  # there is nothing to look at
        Place(adaptive()).run(50)
        Place(RetestOnDrift(StaleProbe(Deadline(deadline_s=1.0)))).run(50)
    assert not caplog.records


# rankings themselves


def test_a_ranking_is_a_value() -> None:
    values, mask = np.array([3.0, math.nan, 1.0, 1.0]), np.array([True, True, True, False])
    ranking = Ranking(values, mask, "so")
    values[0] = mask[0] = 0  # its own
    assert ranking.values[[0, 2, 3]].tolist() == [3.0, 1.0, math.inf]
    assert ranking.mask.tolist() == [True, True, True, False]
    for array in (ranking.values, ranking.mask):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert ranking.best() == 2
    assert ranking.decision() == Decision(2, "so")
    assert ranking.decision().ranking is ranking
    assert [ranking.allows(row) for row in (-1, 0, 3, 4)] == [False, True, False, False]
    assert Ranking([0, 0, 0], [True, True, True], "equals").best() == 2  # the most local one
    with pytest.raises(Infeasible, match="none of the 2 legal placements is allowed"):
        Ranking([1, 2], [False, False], "no").decision()
    with pytest.raises(Infeasible, match="the value is finite on none of 2 allowed"):
        Ranking([math.nan, math.inf], [True, True], "no").decision()
    for shape in (np.zeros(3), np.zeros((2, 2)), 1.0):
        with pytest.raises(ValueError, match="one value and one bool a row"):
            Ranking(shape, [True, True], "no")


def test_ranked() -> None:
    of = table().masked(np.array([True, True, False]))
    now = context(of)
    assert now.ranked().mask is now.mask
    assert now.ranked().objective == "latency_s"
    assert now.ranked("energy_j", why="battery low").decision().why == "battery low"
    few = now.ranked(mask=of.sent_bytes < 200_000, why="few bytes")
    assert few.mask.tolist() == [True, False, False]
    assert np.isinf(few.values).tolist() == [False, True, True]
    none = now.ranked(mask=of.sent_bytes < 1000, why="few bytes")  # only the forbidden row is like that
    assert none.mask.tolist() == [True, True, False]
    assert none.why == "nothing that the policy wishes is allowed now (few bytes): least latency_s of all"
    with pytest.raises(ValueError, match="one bool a row"):
        now.ranked(mask=np.array([True]))
    with pytest.raises(ValueError, match="no objective 'money'"):
        now.ranked("money")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [Best(), LeastEnergy(), Deadline(deadline_s=1.0), Fixed(1), Near()], ids=str)
def test_a_decision_follows_from_the_ranking(policy: Policy) -> None:
    for mbit_per_s in (0.01, 0.5, 20.0):
        now = context(table(mbit_per_s))
        ranking, decision = policy.rank(now), policy.decide(now)
        assert decision == ranking.decision()
        assert Hysteresis(LocalMode(policy)).rank(now).values.tolist() == ranking.values.tolist()


def test_fixed_permits_nothing_else() -> None:
    now = context(table())
    assert Fixed(1).rank(now).mask.tolist() == [False, True, False]
    down = context(table().masked(~table().exchanges))
    assert Fixed(1).rank(down).mask.tolist() == [False, False, True]
    generator = np.random.default_rng(0)
    told = [LocalMode(Fixed(1), 0.9).decide(context(table(), generator=generator)) for _ in range(50)]
    assert {(decision.row, decision.probe, decision.propensity) for decision in told} == {(1, False, 1.0)}


# what is refused, and how


@pytest.mark.parametrize("cut", [-1, -59])
def test_sciots_minus_one_is_no_cut(cut: int) -> None:
    with pytest.raises(ValueError, match=rf"0 or more, got {cut}; all local is Fixed\(pipeline.n\)"):
        Fixed(cut)


@pytest.mark.parametrize("cut", [2.0, "2", None, 1.5])
def test_a_cut_is_an_int(cut: Any) -> None:
    with pytest.raises(TypeError, match="integer"):
        Fixed(cut)
    assert Fixed(np.int64(2)) == Fixed(2)
    assert type(Fixed(np.int64(2)).cut) is int


class Odd(Policy):
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def decide(self, context: Context) -> Decision:
        return self.answer(context)  # type: ignore[no-any-return]


ODD: list[tuple[Any, type[Exception], str]] = [
    (lambda _: 3, TypeError, r"Odd.decide returned an int: return a Decision"),
    (lambda _: None, TypeError, "Odd.decide returned None"),
    (lambda now: now.ranked(), TypeError, "Odd.decide returned a Ranking"),
    (lambda now: now.costs.latency_s, TypeError, "Odd.decide returned a ndarray"),
    (lambda _: Decision(1.0, "x"), TypeError, r"Odd chose row 1\.0, a float: a row is an int"),  # type: ignore[arg-type]
    (lambda _: Decision(True, "x"), TypeError, "Odd chose row True, a bool"),
    (lambda _: Decision(None, "x"), TypeError, "Odd chose row None"),  # type: ignore[arg-type]
    (lambda _: Decision(-1, "x"), CutError, r"Odd chose row -1 \(x\), which is not allowed now"),
    (lambda _: Decision(4, "x"), CutError, "Odd chose row 4"),
    (lambda _: Decision(2, "x"), CutError, "Odd chose row 2"),
    (lambda now: evolve(now.best(), row=2), CutError, "row 2 .*, which is not allowed now"),
    (
        lambda now: evolve(now.ranked(mask=now.costs.cuts < 1).decision(), row=1),
        CutError,
        r"which its ranking \(least latency_s\) does not permit",
    ),
    (
        lambda now: Ranking(now.costs.latency_s, [True] * 4, "all").decision(),
        CutError,
        r"the ranking of Odd \(all\) permits row 2, which is not allowed now",
    ),
    (lambda _: Ranking([1, 2], [True] * 2, "two").decision(), CutError, "Odd ranked 2 rows, there are 4"),
]


@pytest.mark.parametrize("wrap", [lambda policy: policy, StaleProbe, lambda policy: RetestOnDrift(LocalMode(policy))])
@pytest.mark.parametrize(("answer", "error", "words"), ODD)
def test_answers_that_are_none(wrap: Any, answer: Any, error: type[Exception], words: str) -> None:
    place = Place(wrap(Odd(answer)))
    place.planner.restrict([0, 1, 3])
    with pytest.raises(error, match=words):
        place.planner.decide(0.0)
    assert place.planner.snapshot()["next_id"] == 1


def test_rank_returns_a_ranking() -> None:
    class Bare(Policy):
        def rank(self, context: Context) -> Ranking:
            return context.costs.latency_s  # type: ignore[return-value]

    for policy in (Bare(), Hysteresis(Bare())):
        with pytest.raises(TypeError, match=r"Bare.rank returned a ndarray: return context.ranked\("):
            Place(policy).planner.decide(0.0)


def test_a_policy_has_rank_or_decide() -> None:
    class Nothing(Policy):
        pass

    for kind in (Nothing, Policy):
        with pytest.raises(TypeError, match=f"{kind.__name__} has neither rank nor decide"):
            kind()
    with pytest.raises(NotImplementedError, match="Mute only decides"):
        mute()().rank(context(table()))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (LeastLatency, r"LeastLatency is a class: give an object of it, LeastLatency\("),
        (3, "an object of a subclass of splitiot.Policy, got an int"),
        ("local", "got a str"),
        (lambda context: context.best(), "got a function"),
    ],
)
def test_a_policy_is_an_object(policy: Any, words: str) -> None:
    place = Place(None)
    for make in (lambda: Planner(place.pipeline, place.planner.topology, policy), lambda: Hysteresis(policy)):
        with pytest.raises(TypeError, match=words):
            make()


def test_an_objective_is_no_policy() -> None:
    place = Place(None)
    for objective in (LeastLatency, LeastLatency()):
        with pytest.raises(TypeError, match="this objective is a policy"):
            solve(place.pipeline, place.planner.topology, objective=objective)  # type: ignore[arg-type]


# a wrapper of one's own


@frozen
class Homewards(Wrapper):
    rest: int = 2

    def revise(self, context: Context, inner: Decision, ranking: Ranking) -> Decision:
        local = context.local_row
        if local is None or not ranking.allows(local):
            return inner
        return evolve(inner, row=local, why="home")


def test_a_wrapper_can_not_lose_probes_or_leave_the_ranking() -> None:
    @frozen
    class Look(Policy):
        def decide(self, context: Context) -> Decision:
            return evolve(context.best(), row=1, why="look", probe=True, propensity=0.5)

    now = context(table())
    assert Homewards(Look()).decide(now) == Decision(1, "look", True, 0.5)
    assert Homewards(LeastLatency()).decide(now).row == 2
    assert Homewards(Fixed(0)).decide(now).row == 0
    assert repr(Homewards(Fixed(0))) == "Homewards(policy=Fixed(cut=0), rest=2)"

    @frozen
    class Away(Wrapper):
        def revise(self, context: Context, inner: Decision, ranking: Ranking) -> Decision:
            return evolve(inner, row=2, why="away")

    for outer in (Away(Fixed(0)), Hysteresis(Away(Fixed(0)))):
        with pytest.raises(CutError, match=r"Away chose row 2 \(away\), which its ranking \(fixed at cut 0\) does not"):
            asked(Hysteresis(outer), now)
    assert Wrapper(LeastLatency()).decide(now) == LeastLatency().decide(now)


# what plans say


def test_break_evens_are_told_only_where_they_are_known() -> None:
    def known(policy: Policy | None, **more: Any) -> bool:
        place = Place(None)
        planner = Planner(place.pipeline, place.planner.topology, policy, **more)
        plan = planner.decide(0.0)
        told = bool(plan.break_evens)
        assert ("up:" in plan.explain()) == told
        assert ("no other bandwidth" in plan.explain()) is False
        return told

    def bytes_of(costs: Costs) -> Any:
        return costs.sent_bytes < 1e6

    assert known(None)
    assert known(LeastLatency())
    assert known(LocalMode(Best("period_s"), 0.0))
    assert known(None, subject_to=StepsOnDevice(1))
    assert known(None, subject_to=AtMost("sent_bytes", 150_000))
    # what is permitted may be something else at another bandwidth
    assert not known(None, subject_to=AtMost("latency_s", 0.7))
    assert not known(None, subject_to=bytes_of)
    assert not known(Best(subject_to=AtMost("latency_s", 0.7)))
    assert not known(Deadline(deadline_s=5.0))
    # or nobody knows what is wanted
    assert not known(Fixed(1))
    assert not known(Near())
    assert not known(mute()())


def test_a_break_even_that_a_constraint_would_forbid_is_not_told() -> None:
    """At 7 Mbit/s cut 0 sends for longer than it may: something else is chosen, long before that were better."""

    def plan(mbit_per_s: float, policy: Policy) -> Plan:
        return Place(policy, mbit_per_s=mbit_per_s).planner.decide(0.0)

    (without,) = plan(20.0, LeastLatency()).break_evens
    assert without.up_bytes_per_s / 125e3 < 2
    for limit_s in (0.1, 1e-9):  # all rows are permitted now; only the local one, which is at each bandwidth
        for policy in (Best(subject_to=AtMost("up_s", limit_s)), Best(subject_to=lambda c, s=limit_s: c.up_s <= s)):
            assert plan(20.0, policy).break_evens == ()
    assert [plan(rate, Best(subject_to=AtMost("up_s", 0.1))).cut for rate in (20.0, 7.0)] == [0, 2]
    # nothing is in time now, and at more bandwidth something would be
    late = plan(0.5, Deadline(deadline_s=0.3))
    assert late.why == "nothing is within 0.3 s: least latency_s"
    assert late.break_evens == ()
    assert plan(0.5, Best(subject_to=AtMost("latency_s", 0.3))).break_evens == ()


def test_what_a_fixed_plan_says() -> None:
    plan = Place(Fixed(2)).planner.decide(0.0)
    assert (plan.best_row, plan.runner_up, plan.margin) == (2, None, math.inf)
    text = plan.explain()
    assert "runner-up   none: the policy permits nothing else" in text
    assert "fastest     all on the edge, 508" in text
    assert "which the policy does not permit" in text
    assert "is best" not in text


def test_what_a_plan_of_one_that_only_decides_says() -> None:
    """Nobody knows what it wants: what the planner's objective says is called that."""
    text = Place(mute(3)()).planner.decide(0.0).explain()
    assert "best by latency_s: all on the edge, which the policy did not choose" in text
    assert "do not split" not in text
    plan = Place(mute(0)()).planner.decide(0.0)
    assert plan.best_row == 0
    assert plan.ranking is None


def test_a_probe_is_explained_by_the_ranking_too() -> None:
    place = Place(StaleProbe(LeastLatency()), mbit_per_s=0.5).run(300)
    number = 0
    while True:
        number += 1
        plan = place.planner.decide(place.now_s + number)
        if plan.probe:
            break
    assert plan.best_row == 3
    assert "best        all local, which the policy did not choose" in plan.explain()
