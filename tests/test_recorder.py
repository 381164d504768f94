"""Recorders hear all that happens to a planner, and can't hurt it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.observation import Observation
from splitiot.policies import Fixed
from splitiot.recorder import Recorder
from splitiot.transports import InMemory
from tests.session.support import numbers, profile_of
from tests.test_planner import make


class Everything(Recorder):
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def began(self, planner: Any) -> None:
        self.heard.append(("began", planner.pipeline.digest, planner.objective, planner.snapshot()["next_id"]))

    def planned(self, plan: Any, now_s: float, **asked: Any) -> None:
        self.heard.append(("planned", plan.id, plan.cut, now_s, asked))

    def observed(self, observation: Observation, now_s: float) -> None:
        self.heard.append(("observed", observation.plan_id, now_s))

    def profiled(self, tier_index: int, profile: Any) -> None:
        self.heard.append(("profiled", tier_index, profile.whole_s))


def test_all_is_told_in_its_order() -> None:
    recorder = Everything()
    planner = make(mbit_per_s=20, recorder=recorder)
    planner.decide(1.0, deadline_s=0.2, telemetry={"battery": 0.5})
    planner.decide(2.0, edge_up=False)
    seen = Observation(plan_id=1, cut=2, head_s=2.0)
    planner.observe(seen, seen, now_s=3.0)  # repeated ones too
    planner.adopt(4.0, 2, plan_id=9)
    planner.adopt(5.0, 77, plan_id=20)  # not legal: a decision of its own, told once
    planner.set_profile(1, planner.topology.tiers[0].scaled(0.5))
    planner.restore(planner.snapshot())
    digest = planner.pipeline.digest
    nothing = {"deadline_s": None, "telemetry": None, "edge_up": True}
    assert recorder.heard == [
        ("began", digest, "latency_s", 1),
        ("planned", 1, 0, 1.0, {"deadline_s": 0.2, "telemetry": {"battery": 0.5}, "edge_up": True}),
        ("planned", 2, 3, 2.0, nothing | {"edge_up": False}),
        ("observed", 1, 3.0),
        ("observed", 1, 3.0),
        ("planned", 9, 2, 4.0, nothing),
        ("planned", 10, 0, 5.0, nothing),
        ("profiled", 1, 1.5),
        ("began", digest, "latency_s", 11),
    ]


def test_one_that_does_nothing_is_fine() -> None:
    planner = make(recorder=Recorder())
    planner.observe(Observation(plan_id=planner.decide(0.0).id, cut=0), now_s=0.0)


@pytest.mark.parametrize("method", ["began", "planned", "observed", "profiled"])
def test_an_error_ends_the_recording_and_nothing_else(method: str, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Everything):
        pass

    def fail(self: Failing, *_: Any, **__: Any) -> None:
        raise RuntimeError("the disk is full")

    setattr(Failing, method, fail)
    recorder = Failing()
    with caplog.at_level(logging.WARNING, "splitiot"):
        planner = make(mbit_per_s=20, recorder=recorder)
        for now_s in range(3):
            plan = planner.decide(float(now_s))
            planner.observe(Observation(plan_id=plan.id, cut=0, head_s=0.1), now_s=float(now_s))
            planner.set_profile(1, planner.topology.tiers[1])
    assert plan.id == 3
    (record,) = caplog.records
    assert f"Failing.{method} raised RuntimeError('the disk is full')" in record.getMessage()
    assert len(recorder.heard) == ["began", "planned", "observed", "profiled"].index(method)


def test_ctrl_c_is_no_error_of_the_recorder() -> None:
    class Interrupted(Recorder):
        def planned(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recorder=Interrupted()).decide(0.0)


def test_a_device_gives_it_to_the_planner_that_it_makes() -> None:
    pipeline = numbers()
    service = EdgeService([pipeline], profiles=[profile_of(pipeline)])
    recorder = Everything()
    transport = InMemory(lambda frame: service.handle(frame, peer="me"))
    options: dict[str, Any] = {"profile": profile_of(pipeline), "cache": False}
    with Device(pipeline, transport, policy=Fixed(1), recorder=recorder, **options) as device:
        assert device.run(5).source == "edge"
    kinds = [what[0] for what in recorder.heard]
    assert kinds[0] == "began"
    assert kinds.count("planned") == 1
    assert ("profiled", 1, profile_of(pipeline).whole_s) in recorder.heard
    assert ("observed", 1) in [what[:2] for what in recorder.heard]


def test_a_planner_of_one_s_own_has_its_own() -> None:
    pipeline = numbers()
    with pytest.raises(ValueError, match=r"Planner\(\.\.\., recorder"):
        Device(pipeline, InMemory(lambda frame: frame), planner=make(), recorder=Recorder())
