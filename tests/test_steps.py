"""Seconds of single steps, all the way: measured on both sides, sent, and learnt from."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

import splitiot as si
from splitiot.observation import Observation


def double(x: int) -> int:
    return 2 * x


def increment(x: int) -> int:
    return x + 1


def square(x: int) -> int:
    return x * x


SIZES = {"sent_bytes": [8.0, 8.0, 8.0, 0.0], "returned_bytes": [8.0, 8.0, 8.0, 0.0]}


def answer(service: si.EdgeService) -> Callable[[bytes], bytes]:
    return lambda frame: service.handle(frame, peer="me")


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_both_sides_tell_what_each_step_took(cut: int) -> None:
    pipeline = si.tasks([double, increment, square])
    profile = si.TierProfile.from_steps(pipeline.digest, [0.01, 0.02, 0.03], **SIZES)
    readings = itertools.count(100_000_000)

    def clock() -> float:
        return 1e-5 * next(readings)  # the machine's own may stand still for milliseconds between two readings

    link = answer(service := si.EdgeService([pipeline], profiles=[profile], clock=clock))
    with (
        service,
        si.Device(pipeline, si.InMemory(link), policy=si.Fixed(cut), profile=profile, clock=clock) as device,
    ):
        outcomes = [device.run(5) for _ in range(4)]
        assert [outcome.unwrap() for outcome in outcomes] == [121] * 4
        seen = outcomes[-1].observation
        assert seen is not None
        assert len(seen.head_steps_s) == cut
        assert sum(seen.head_steps_s) == pytest.approx(seen.head_s or 0.0, rel=0.5, abs=1.1e-5)
        if cut < 3:
            assert seen.edge is not None
            assert len(seen.edge.steps_s) == 3 - cut
            assert sum(seen.edge.steps_s) <= seen.edge.compute_s
        # the planner uses the refined seconds: its beliefs times its curves are what was measured, not the profile
        costs = device.planner.costs
        row = costs.at_cut(cut)
        if cut:
            assert costs.device_s[row] < 0.001
        if cut < 3:
            assert costs.edge_s[row] < 0.001


def test_a_finish_on_the_device_tells_its_steps_too() -> None:
    pipeline = si.tasks([double, increment, square])
    profile = si.TierProfile.from_steps(pipeline.digest, [0.01, 0.02, 0.03], **SIZES)
    broken = False

    class Wire(si.InMemory):
        def send(self, frame: bytes, *, timeout_s: float) -> None:
            if broken:
                raise si.errors.TransportError("cut")
            super().send(frame, timeout_s=timeout_s)

    with (
        si.EdgeService([pipeline], profiles=[profile]) as service,
        si.Device(pipeline, Wire(answer(service)), policy=si.Fixed(1), profile=profile) as device,
    ):
        assert device.run(5).source == "edge"
        broken = True
        outcome = device.run(5)
        assert (outcome.value, outcome.source) == (121, "fallback")
        seen = outcome.observation
        assert isinstance(seen, Observation)
        assert (len(seen.head_steps_s), len(seen.local_steps_s)) == (1, 2)


def test_a_planner_knows_cuts_that_it_never_tried() -> None:
    """Steps that were timed on a whole run tell what each head takes: the profile was wrong about their shares."""
    pipeline = si.tasks([double, increment, square])
    profile = si.TierProfile.from_steps(pipeline.digest, [0.1, 0.1, 0.1], **SIZES)
    link = si.Link.from_mbit_per_s(10, rtt_s=0.01)
    planner = si.Planner(pipeline, si.Topology([profile, profile], [link]), si.LeastLatency())
    steps, tail = (0.05, 0.4, 0.15), (0.2, 0.02, 0.08)
    for number in range(10):
        plan = planner.decide(float(number))
        planner.observe(
            Observation(plan_id=plan.id, cut=3, head_s=sum(steps), head_steps_s=steps),
            Observation(
                plan_id=1000 + plan.id,
                cut=0,
                edge=si.EdgeTimes(compute_s=sum(tail), residence_s=sum(tail), steps_s=tail),
                round_trip_s=sum(tail) + 0.01,
                sent_bytes=8,
            ),
            now_s=number + 0.5,
        )
    costs = planner.decide(20.0).costs
    assert costs.device_s == pytest.approx([0.0, 0.05, 0.45, 0.6], rel=0.02)
    assert costs.edge_s == pytest.approx([0.3, 0.1, 0.08, 0.0], rel=0.02)
    assert planner.costs.device_s == pytest.approx(costs.device_s)
    assert planner.finish_s(1) == pytest.approx(0.55, rel=0.02)


def test_a_better_profile_of_one_side_forgets_nothing_of_the_other() -> None:
    """The edge's profile comes with its welcome, when the device may have timed its steps already."""
    pipeline = si.tasks([double, increment, square])
    profile = si.TierProfile.from_steps(pipeline.digest, [0.1, 0.1, 0.1], **SIZES)
    link = si.Link.from_mbit_per_s(10, rtt_s=0.01)
    planner = si.Planner(pipeline, si.Topology([profile, profile], [link]), si.LeastLatency())
    steps = (0.05, 0.4, 0.15)
    for number in range(5):
        seen = Observation(plan_id=number + 1, cut=3, head_s=sum(steps), head_steps_s=steps)
        planner.observe(seen, now_s=float(number))
    planner.set_profile(1, profile.scaled(0.5))
    costs = planner.decide(6.0).costs
    assert costs.device_s == pytest.approx([0.0, 0.05, 0.45, 0.6], rel=0.02)
    assert costs.edge_s == pytest.approx([0.15, 0.1, 0.05, 0.0])
    planner.set_profile(0, profile)
    assert planner.decide(7.0).costs.device_s == pytest.approx([0.0, 0.1, 0.2, 0.3])
