"""Constraints, and the policies that use them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import splitiot as si
from splitiot.cost import AtMost, Costs, StepsOnDevice, most_local
from splitiot.errors import Infeasible
from splitiot.planner import Planner
from splitiot.policies import (
    Best,
    Context,
    Deadline,
    Fixed,
    Hysteresis,
    LeastEnergy,
    LeastLatency,
    LinearBandit,
    LocalMode,
    Policy,
    RetestOnDrift,
    StaleProbe,
    adaptive,
)
from splitiot.solver import solve
from splitiot.topology import Link, Topology
from tests.policies.test_policies import table
from tests.policies.test_wrappers import Place


def shown(of: Costs, **more: Any) -> Context:
    return Context(of, random=np.random.default_rng, **more)


def test_at_most_and_steps_on_device() -> None:
    of = table()
    assert AtMost("sent_bytes", 100_000)(of).tolist() == (of.sent_bytes <= 100_000).tolist()
    assert StepsOnDevice(1)(of).tolist() == [False, True, True]
    assert str(AtMost("latency_s", 0.25)) == "latency_s <= 0.25"
    with pytest.raises(ValueError, match="no column"):
        AtMost("latency", 1.0)
    with pytest.raises(ValueError, match="no column"):
        AtMost("masked", 1.0)
    with pytest.raises(ValueError, match="NaN"):
        AtMost("latency_s", math.nan)


@given(
    limits=st.lists(st.tuples(st.sampled_from(["latency_s", "energy_j", "sent_bytes"]), st.floats(0, 5)), max_size=3),
    least=st.integers(0, 4),
    mask=st.lists(st.booleans(), min_size=3, max_size=3).filter(any),
    objective=st.sampled_from(["latency_s", "energy_j", "period_s"]),
)
def test_the_best_of_what_is_permitted(
    limits: list[tuple[str, float]], least: int, mask: list[bool], objective: Any
) -> None:
    of = table().masked(np.array(mask))
    constraints = [AtMost(column, limit) for column, limit in limits]
    decision = Best(objective, subject_to=[*constraints, StepsOnDevice(least)]).decide(shown(of))
    rows = [
        row
        for row in range(3)
        if mask[row] and of.cuts[row] >= least and all(getattr(of, c)[row] <= limit for c, limit in limits)
    ]
    values = of.values(objective)
    if rows:
        assert values[decision.row] == min(values[row] for row in rows)
        assert decision.row in rows
    else:
        assert decision.row == of.best(objective)
        assert decision.why.startswith("nothing has ")
    assert decision.ranking is not None
    assert decision.ranking.objective == objective
    assert np.flatnonzero(decision.ranking.mask).tolist() == (rows or np.flatnonzero(mask).tolist())


def test_without_any_row_it_is_infeasible() -> None:
    of = table().masked(np.zeros(3, bool))
    for policy in (Best(subject_to=AtMost("latency_s", 9)), Deadline(deadline_s=1.0), LeastEnergy()):
        with pytest.raises(Infeasible):
            policy.decide(shown(of))


def test_callables_are_constraints() -> None:
    of = table()
    policy = LeastLatency(subject_to=lambda costs: costs.cuts == 1)
    assert of.cuts[policy.decide(shown(of)).row] == 1


def test_solve_takes_constraints() -> None:
    of = table(mbit_per_s=20)
    profile = of.pipeline
    from splitiot.topology import TierProfile

    device = TierProfile.from_steps(profile.digest, [0.5, 1.5, 1.0])
    topology = Topology([device, device.scaled(0.1)], [Link.from_mbit_per_s(20, rtt_s=0.02)])
    assert solve(profile, topology).cut == 0
    plan = solve(profile, topology, subject_to=StepsOnDevice(1))
    assert plan.cut == 1
    with pytest.raises(Infeasible, match=r"none has sent_bytes <= 10 and 1 steps or more on the device"):
        solve(profile, topology, parts=[(0, 1)], subject_to=[AtMost("sent_bytes", 10), StepsOnDevice(1)])


def test_the_most_local_within_the_deadline() -> None:
    of = table()
    latency = of.latency_s.tolist()  # cuts 0, 1, 3
    assert latency[0] < latency[1] < latency[2]
    between = (latency[0] + latency[1]) / 2
    for deadline_s, cut in ((latency[2] * 1.2, 3), (latency[1] * 1.2, 1), (between * 1.12, 0), (latency[0] * 0.5, 0)):
        decision = Deadline().decide(shown(of, deadline_s=deadline_s))
        assert of.cuts[decision.row] == cut
        assert Deadline(deadline_s=deadline_s).decide(shown(of)).row == decision.row
    assert Deadline(margin=0.0).decide(shown(of, deadline_s=latency[1])).row == 1
    assert Deadline(margin=0.5).decide(shown(of, deadline_s=latency[1])).row == 0
    assert Deadline().decide(shown(of)).row == 0  # none: the quickest
    own = Deadline(deadline_s=latency[0])
    assert own.decide(shown(of, deadline_s=latency[2] * 2)).row == 2  # the request's comes first
    private = Deadline(deadline_s=latency[1] * 1.2, subject_to=AtMost("sent_bytes", 1000))
    assert of.cuts[private.decide(shown(of)).row] == 3
    ranking = Deadline(deadline_s=latency[1] * 1.2).decide(shown(of)).ranking
    assert ranking is not None
    assert (ranking.mask.tolist(), ranking.values.tolist()) == ([True, True, False], [0.0, -1.0, math.inf])
    late = own.rank(shown(of))  # nothing is in time: the least latency of all
    assert (late.objective, late.mask.all()) == ("latency_s", True)


@pytest.mark.parametrize("options", [{"margin": 1.0}, {"margin": -0.1}, {"deadline_s": 0.0}, {"deadline_s": math.inf}])
def test_options_of_deadlines(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Deadline(**options)


def test_most_local() -> None:
    assert most_local(table()).tolist() == [0.0, -1.0, -3.0]


def test_words() -> None:
    assert repr(LeastLatency()) == "LeastLatency()"
    assert repr(Best("period_s")) == "Best('period_s')"
    assert repr(LeastEnergy(subject_to=StepsOnDevice(2))) == "LeastEnergy(subject_to=[StepsOnDevice(least=2)])"


# what planners use of Costs


def test_under_is_each_vector_by_itself() -> None:
    of = table().masked(np.array([True, False, True]))
    chance = np.random.default_rng(0)
    vectors = of.beliefs * np.exp(chance.standard_normal((4, 6)))
    for objective in ("latency_s", "period_s", "energy_j", lambda costs: costs.sent_bytes):
        values = of.under(vectors, objective)
        assert values.shape == (4, 3)
        for vector, got in zip(vectors, values, strict=True):
            wanted = of.with_beliefs(vector).values(objective)
            assert got[[0, 2]] == pytest.approx(wanted[[0, 2]])
            assert got[1] == math.inf


def test_other_curves_change_the_seconds_and_nothing_else() -> None:
    of = table()
    heads, tails = np.array([0.0, 1.0, 2.0, 5.0]), np.array([0.9, 0.5, 0.2, 0.0])
    other = of.with_curves(heads, tails)
    assert other.device_s.tolist() == [0.0, 1.0, 5.0]
    assert other.edge_s.tolist() == [0.9, 0.5, 0.0]
    assert other.sent_bytes.tolist() == of.sent_bytes.tolist()
    assert other.masked(np.array([True, True, False])).device_s.tolist() == [0.0, 1.0, 5.0]
    assert of.device_s.tolist() != other.device_s.tolist()
    assert (other.terms @ other.beliefs).tolist() == other.latency_s.tolist()
    with pytest.raises(ValueError, match="read-only"):
        other.terms[0, 0] = 1.0


# what must never happen, probes included


@pytest.mark.parametrize(
    "policy", [adaptive(), LocalMode(LeastLatency(), 0.2), LinearBandit(every=5), Fixed(0)], ids=str
)
def test_a_planners_constraints_hold_for_every_policy(policy: Policy) -> None:
    """The raw input never leaves the device, whatever the policy would like to learn."""
    for mbit_per_s in (0.5, 50.0):
        place = Place(policy, mbit_per_s=mbit_per_s)
        place.planner = Planner(
            place.pipeline, place.planner.topology, policy, subject_to=[StepsOnDevice(1), AtMost("sent_bytes", 50_000)]
        )
        place.run(200)
        place.link = Link.from_mbit_per_s(20.0, rtt_s=0.02)
        place.run(200)
        assert set(place.cuts) <= {2, 3}
        adopted = place.planner.adopt(place.now_s, 0, plan_id=10_000)
        assert adopted.cut in (2, 3)


@pytest.mark.parametrize("wish", [StepsOnDevice(2), AtMost("sent_bytes", 50_000)])
def test_no_probe_of_a_wrapper_is_against_the_wish(wish: Any) -> None:
    inner = LeastLatency(subject_to=wish)
    wrappers = RetestOnDrift(StaleProbe(Hysteresis(LocalMode(inner, 0.1), 0.1), every=10), tests=3, limit=100.0)
    place = Place(wrappers, mbit_per_s=1.0).run(150)
    place.slow[1] = 30.0
    place.run(100)
    place.slow[1] = 1.0
    place.run(100)
    assert any(place.probes)
    assert set(place.cuts) <= {2, 3}


def test_a_wish_that_nothing_meets_gives_way_and_a_constraint_does_not() -> None:
    place = Place(LeastLatency(subject_to=AtMost("latency_s", 1e-6)))
    assert place.planner.decide(0.0).why.startswith("nothing has latency_s <= 1e-06")
    strict = Planner(place.pipeline, place.planner.topology, subject_to=AtMost("latency_s", 1e-6))
    with pytest.raises(Infeasible, match="of 4 placements"):
        strict.decide(0.0)


def test_a_devices_constraints() -> None:
    pipeline = si.tasks([str.strip, str.upper, len])
    sizes = {"sent_bytes": [9.0, 9.0, 9.0, 0.0], "returned_bytes": [1.0, 1.0, 1.0, 0.0]}
    profile = si.TierProfile.from_steps(pipeline.digest, [1.0, 1.0, 1.0], **sizes)
    service = si.EdgeService([pipeline], profiles=[profile.scaled(0.001)])
    transport = si.InMemory(lambda frame: service.handle(frame, peer="me"))
    with si.Device(pipeline, transport, profile=profile, subject_to=StepsOnDevice(2)) as device:
        outcome = device.run(" ab ")
    assert outcome.plan is not None
    assert (outcome.value, outcome.plan.cut) == (2, 2)
    with pytest.raises(ValueError, match="subject_to"):
        si.Device(pipeline, transport, planner=device.planner, subject_to=StepsOnDevice(2))
