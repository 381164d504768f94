"""A planner decides alike on the device and on the edge, and on the edge devices do not disturb each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pytest
from attrs import evolve, field, frozen, mutable
from hypothesis import given, settings
from hypothesis import strategies as st

from splitiot import wire
from splitiot.cost import AtMost, StepsOnDevice
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import TransportError
from splitiot.functions import TaskPipeline, task, tasks
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import Pipeline
from splitiot.plan import Plan
from splitiot.planner import Planner
from splitiot.policies import (
    Best,
    Deadline,
    Fixed,
    Hysteresis,
    LeastLatency,
    LinearBandit,
    LocalMode,
    Policy,
    RetestOnDrift,
    StaleProbe,
    adaptive,
)
from splitiot.recorder import Recorder
from splitiot.session import RunPart
from splitiot.topology import Link, TierProfile, Topology
from tests.session.support import BOOT, RUNTIME, Clock, Scripted, edge_session, messages, numbers, only, request_of
from tests.share import examples

PIPELINE = numbers()
SENT = (2000.0, 500.0, 100.0, 0.0)
BACK = (100.0, 100.0, 100.0, 0.0)
DEVICE = TierProfile.from_steps(PIPELINE.digest, [0.02, 0.04, 0.06], sent_bytes=SENT, returned_bytes=BACK)
EDGE = evolve(DEVICE.scaled(0.1), sent_bytes=SENT, returned_bytes=BACK)
LINK = Link(rtt_s=0.01, up_bytes_per_s=1e5, down_bytes_per_s=1e5)

POLICIES: Final[dict[str, Policy]] = {
    "adaptive": adaptive(),
    "adaptive, eager": RetestOnDrift(StaleProbe(LeastLatency(), lasts_s=4.0, every=5), tests=2, limit=5.0),
    "best": Best("period_s", subject_to=[AtMost("latency_s", 0.2), StepsOnDevice(1)]),
    "least latency": LeastLatency(),
    "fixed": Fixed(2),
    "deadline": Deadline(deadline_s=0.1),
    "hysteresis": Hysteresis(adaptive(), margin=0.2),
    "local mode": LocalMode(LeastLatency(), 0.3),
    "local mode twice": LocalMode(LocalMode(adaptive(), 0.5), 0.2),
    "linear bandit": LinearBandit(every=4),
}


def planner(policy: Policy, seed: int = 5, **options: Any) -> Planner:
    return Planner(PIPELINE, Topology([DEVICE, EDGE], [LINK]), policy, seed=seed, **options)


def chosen(plan: Plan) -> tuple[int, int, str, bool, float]:
    return plan.id, plan.cut, plan.why, plan.probe, plan.propensity


@frozen
class Moment:
    """What the world is like for one request."""

    device: float
    edge: float
    bandwidth: float
    telling: str  # what becomes of the observation: told, late (with the next one), lost, twice
    deadline_s: float | None

    def measure(self, plan: Plan) -> Observation:
        cut, n = plan.cut, PIPELINE.n
        head_s = float(DEVICE.heads_s[cut]) * self.device if cut else None
        if cut == n:
            return Observation(plan_id=plan.id, cut=cut, head_s=head_s)
        tail_s = float(EDGE.tails_s[cut]) * self.edge
        network_s = LINK.rtt_s + (SENT[cut] + BACK[cut]) / (LINK.up_bytes_per_s * self.bandwidth)
        return Observation(
            plan_id=plan.id,
            cut=cut,
            head_s=head_s,
            tail_s=tail_s,
            edge=EdgeTimes(compute_s=tail_s, residence_s=tail_s),
            round_trip_s=network_s + tail_s,
            sent_bytes=int(SENT[cut]),
            received_bytes=int(BACK[cut]),
        )


# levels that last, with noise upon them
LEVELS: Final = st.sampled_from([0.1, 0.5, 1.0, 1.2, 3.0])
MOMENTS: Final = st.lists(
    st.tuples(
        st.integers(1, 8),
        LEVELS,
        LEVELS,
        LEVELS,
        st.sampled_from(["told", "told", "late", "lost", "twice"]),
        st.sampled_from([None, 0.05, 0.3]),
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=6,
)


def moments(drawn: list[tuple[int, float, float, float, str, float | None, int]]) -> Iterator[Moment]:
    for count, device, edge, bandwidth, telling, deadline_s, seed in drawn:
        noise = np.random.default_rng(seed).lognormal(0, 0.05, (count, 3)).tolist()
        for a, b, c in noise:
            yield Moment(device * a, edge * b, bandwidth * c, telling, deadline_s)


def hello() -> bytes:
    runtime = (RUNTIME.name, RUNTIME.version, RUNTIME.kernels, RUNTIME.machine)
    has = wire.PipelineHello(digest=bytes.fromhex(PIPELINE.digest), n=PIPELINE.n, runtime=runtime)
    return wire.encode(wire.Hello(boot=BOOT, sequence=0, pipelines=(has,), profiles=(DEVICE.to_dict(),)))


# Times are multiples of 1/128, so that differences are the same on a clock that is 4096 s ahead.
@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=examples(25), deadline=None)
@given(drawn=MOMENTS, ahead_s=st.sampled_from([0.0, 4096.0]))
def test_the_same_calls_give_the_same_decisions_on_either_side(name: str, drawn: Any, ahead_s: float) -> None:
    here = planner(POLICIES[name])
    there = planner(POLICIES[name])
    session = edge_session(
        PIPELINE, profiles={PIPELINE.digest: EDGE}, make_planner=lambda pipeline, device, edge: there
    )
    session.receive(hello(), "me", ahead_s)
    told: list[Observation] = []
    kept: list[Observation] = []
    plan_id = 0
    for number, moment in enumerate(moments(drawn), 1):
        came_s, left_s = number / 8, number / 8 + 1 / 128
        # on the edge: what is new comes with the request, and the next placement goes with the reply
        telemetry = {"battery": 1 / number}
        frame = request_of(
            PIPELINE,
            0,
            20,
            sequence=number,
            plan_id=plan_id,
            observations=tuple(told),
            deadline_s=moment.deadline_s,
            telemetry=telemetry,
        )
        job = only(RunPart, session.receive(frame, "me", came_s + ahead_s)).job
        (reply,) = messages(session.complete(job, 39, left_s + ahead_s, EdgeTimes()))
        next_ = reply.next
        # on the device
        here.observe(*told, now_s=came_s)
        plan = here.decide(left_s, deadline_s=moment.deadline_s, telemetry=telemetry)
        assert (next_.plan_id, next_.cuts[0], next_.why, next_.probe, next_.propensity) == chosen(plan)
        seen, plan_id = moment.measure(plan), plan.id
        told, kept = kept, []
        if moment.telling == "late":
            kept = [seen]
        elif moment.telling != "lost":
            told += [seen] * (2 if moment.telling == "twice" else 1)
    assert session.counters.planner_errors == session.counters.dropped_observations == 0
    assert there.costs.latency_s.tolist() == here.costs.latency_s.tolist()
    assert there.repeated == here.repeated
    if not ahead_s:
        assert there.snapshot() == here.snapshot()


# whole devices and a whole edge on a virtual clock --------------------------------------------------------------------


@mutable
class Calls(Recorder):
    """Notes what a planner is asked and told."""

    calls: list[tuple[Any, ...]] = field(factory=list)

    def began(self, planner: Planner) -> None:
        pass

    def planned(self, plan: Plan, now_s: float, *, deadline_s: Any = None, telemetry: Any = None, **_: Any) -> None:
        self.calls.append(("decide", plan, now_s, deadline_s, telemetry))

    def observed(self, observation: Observation, now_s: float) -> None:
        self.calls.append(("observe", observation, now_s))

    def profiled(self, tier_index: int, profile: TierProfile) -> None:
        pass

    @property
    def plans(self) -> list[Plan]:
        return [call[1] for call in self.calls if call[0] == "decide"]


def timed(clock: Clock, profile: TierProfile, slow: Callable[[], float]) -> TaskPipeline:
    """The pipeline, its steps taking virtual time."""

    def made(step: int, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(function)
        def run(x: Any) -> Any:
            clock.now_s += float(np.diff(profile.heads_s)[step]) * slow()
            return function(x)

        return run

    return tasks([task(made(i, t.function), name=t.name) for i, t in enumerate(PIPELINE.tasks)])


class House:
    """Some devices at one edge that plans for them; each of them has a request every now and then."""

    def __init__(self, policy: Policy, links: dict[str, Callable[[float], float]]) -> None:
        self.clock = Clock(0.0)
        self.calls: dict[str, Calls] = {}
        self.service = EdgeService(
            [timed(self.clock, EDGE, lambda: 1.0)],
            clock=self.clock,
            profiles=[EDGE],
            make_planner=self._planner,
            inline_s=1.0,
        )
        self.links = links
        self.outcomes: dict[str, list[Any]] = {name: [] for name in links}
        self._policy, self._greeting = policy, ""
        self.devices = {name: self._device(name) for name in links}

    def _planner(self, pipeline: Pipeline, device: TierProfile, edge: TierProfile) -> Planner:
        # the edge makes a device's planner while it hears that device's hello
        calls = self.calls[self._greeting] = Calls()
        topology = Topology([device, edge], [LINK])
        return Planner(pipeline, topology, self._policy, seed=len(self._greeting), recorder=calls)

    def _device(self, name: str) -> Device:
        def answer(frame: bytes) -> Iterator[tuple[float, bytes | Exception]]:
            self._greeting = name
            bandwidth = self.links[name](self.clock.now_s)
            if not bandwidth:
                yield 0.001, TransportError("cut off", frame=frame)
                return
            reply = self.service.handle(frame, peer=name)
            yield LINK.rtt_s + (len(frame) + len(reply)) / bandwidth, reply

        pipeline = timed(self.clock, DEVICE, lambda: 1.0)
        transport = Scripted(self.clock, answer)
        return Device(
            pipeline, transport, profile=DEVICE, policy=Fixed(1), clock=self.clock, follow=True, cache=False, link=LINK
        )

    def run(self, count: int, every_s: float = 0.75) -> None:
        for number in range(count):
            for place, (name, device) in enumerate(self.devices.items()):
                at_s = (number + place / 2) * every_s
                assert self.clock.now_s <= at_s, f"{name} is kept waiting: these links are too slow for this test"
                self.clock.now_s = at_s
                outcome = device.run(20, deadline_s=0.4, telemetry={"number": float(number)})
                assert outcome.unwrap() == 39
                self.outcomes[name].append(outcome)
        for device in self.devices.values():
            device.close()
        self.service.close()


def changing(now_s: float) -> float:
    return 1e6 if int(now_s / 10) % 2 else 5e4


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "fixed"])
def test_a_device_that_follows_does_what_its_planner_on_the_edge_decided(name: str) -> None:
    house = House(POLICIES[name], {"camera": changing})
    house.run(80)
    outcomes, calls = house.outcomes["camera"], house.calls["camera"]
    decided = {plan.id: plan for plan in calls.plans}
    followed = [o.plan for o in outcomes if o.plan.id in decided]
    assert len(followed) >= 40
    for plan in followed:
        theirs = decided[plan.id]
        assert (plan.cut, plan.why, plan.probe) == (theirs.cut, theirs.why, theirs.probe)
        assert plan.propensity == theirs.propensity
    # the same calls, made of a planner anywhere else
    again = Planner(PIPELINE, Topology([DEVICE, EDGE], [LINK]), POLICIES[name], seed=len("camera"))
    for what, thing, now_s, *rest in calls.calls:
        if what == "observe":
            again.observe(thing, now_s=now_s)
        else:
            again.number_behind(thing.id - 1)
            deadline_s, telemetry = rest
            assert chosen(again.decide(now_s, deadline_s=deadline_s, telemetry=telemetry)) == chosen(thing)


def test_an_observation_reaches_the_edge_s_planner_one_request_later() -> None:
    house = House(LeastLatency(), {"camera": lambda now_s: 1e5})
    house.run(10)
    assert {o.source for o in house.outcomes["camera"]} == {"edge"}
    heard: list[int] = []
    before: list[list[int]] = []  # what had been heard at each decision
    for what, thing, *_ in house.calls["camera"].calls:
        if what == "decide":
            before.append(list(heard))
        elif not thing.probe:
            heard.append(thing.plan_id)
    run = [o.plan.id for o in house.outcomes["camera"]]
    assert before == [run[:k] for k in range(10)]


@pytest.mark.parametrize("policy", [LeastLatency(), Fixed(3), LocalMode(LeastLatency(), 0.5)], ids=str)
def test_every_run_teaches_both_planners(policy: Policy) -> None:
    """Device and edge number their plans apart, and all-local placements are followed several times."""
    house = House(policy, {"camera": lambda now_s: 0.0 if 4 < now_s < 6 else 1e5})
    house.run(60, every_s=0.25)
    ids = [o.plan.id for o in house.outcomes["camera"]]
    assert len(set(ids)) == len(ids)
    assert house.devices["camera"].planner.repeated == 0
    (peer,) = house.service._session._peers._peers.values()
    assert peer.planners[PIPELINE.digest].repeated == 0
    told = {c[1].plan_id for c in house.calls["camera"].calls if c[0] == "observe" and not c[1].probe}
    assert len(told) > 50


@pytest.mark.parametrize("name", ["adaptive", "adaptive, eager", "local mode", "linear bandit"])
def test_another_device_s_link_changes_nothing(name: str) -> None:
    def throttled(now_s: float) -> float:
        return 0.0 if 20 < now_s < 25 else 1e6 if now_s < 30 else 7e4

    alone = House(POLICIES[name], {"camera": changing})
    both = House(POLICIES[name], {"camera": changing, "window": throttled})
    alone.run(100)
    both.run(100)
    others = both.calls["window"].plans[-1], both.calls["camera"].plans[-1]
    assert others[0].costs.latency_s.tolist() != others[1].costs.latency_s.tolist()  # so there is something to mix up

    def bits(house: House) -> list[Any]:
        device = [(chosen(o.plan), o.plan.costs.latency_s.tolist(), o.observation) for o in house.outcomes["camera"]]
        edge = [(chosen(p), p.costs.latency_s.tolist()) for p in house.calls["camera"].plans]
        return [device, edge]

    assert bits(both) == bits(alone)
