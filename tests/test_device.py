"""Device: one call, one outcome, whatever the edge and the link do."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitiot import wire
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import (
    AuthenticationError,
    CutError,
    DeadlineExceeded,
    EdgeUnavailable,
    LocalProtocolError,
    ProfileError,
    RemoteError,
    StepError,
    TransportError,
)
from splitiot.functions import task, tasks
from splitiot.limits import Limits
from splitiot.observation import Observation
from splitiot.pipeline import Pipeline, RuntimeInfo
from splitiot.policies import Best, Context, Decision, Fixed, Policy
from splitiot.runner import Runner
from splitiot.transports import InMemory, RoundTrip
from tests.pipelines import SizedPipeline
from tests.session.support import (
    Clock,
    Remembering,
    Scripted,
    add_one,
    double,
    minus_three,
    numbers,
    planner_of,
    profile_of,
    read,
    sums,
)

PIPELINE = numbers()
WAIT_S = 20.0

Answer = Callable[[bytes], Iterable[tuple[float, bytes | Exception]]]


def in_memory(service: EdgeService, peer: str = "me") -> InMemory:
    return InMemory(lambda frame: service.handle(frame, peer=peer))


def made(service: EdgeService, pipeline: Pipeline = PIPELINE, policy: Policy | int = 1, **more: Any) -> Device:
    chosen = Fixed(policy) if isinstance(policy, int) else policy
    return Device(pipeline, in_memory(service), policy=chosen, profile=profile_of(pipeline), cache=False, **more)


class Bench:
    """A device on a virtual clock, an edge whose answers come 10 ms later; `fate` may change what becomes of them."""

    def __init__(self, pipeline: Pipeline = PIPELINE, policy: Policy | int = 1, *, step_s: float = 0.01, **more: Any):
        self.clock = Clock()
        self.service = EdgeService([pipeline], clock=self.clock)
        self.fate: Answer = self.answer
        self.transport = Scripted(self.clock, lambda frame: self.fate(frame))
        # runs take no virtual time unless a step moves the clock
        planner = planner_of(pipeline, policy, step_s)
        self.device = Device(pipeline, self.transport, planner=planner, cache=False, clock=self.clock, **more)

    def answer(self, frame: bytes) -> Iterator[tuple[float, bytes | Exception]]:
        yield 0.01, self.service.handle(frame, peer="me")

    def losing(self, *kinds: type) -> None:
        """From now on messages of these kinds get no answer."""
        self.fate = lambda frame: () if isinstance(read(frame), kinds or wire.KINDS) else self.answer(frame)

    def failing(self, error: Exception | None = None, after_s: float = 0.0) -> None:
        """From now on the transport says that nothing is carried."""
        self.fate = lambda frame: [(after_s, error or TransportError("cut off", frame=frame))]


# the good life


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_every_cut_gives_the_same_value(cut: int) -> None:
    service = EdgeService([PIPELINE])
    with made(service, policy=cut) as device:
        assert device.edge_up
        outcome = device.run(20)
    assert outcome.unwrap() == PIPELINE.run(20) == 39
    assert type(outcome.value) is int
    assert outcome.source == ("local" if cut == 3 else "edge")
    assert outcome.exact
    assert outcome.plan is not None
    assert outcome.plan.cut == cut
    assert outcome.observation is not None
    assert outcome.observation.plan_id == outcome.plan.id


def nested(x: Any) -> Any:
    return {"a": (np.float32(x), [np.arange(3, dtype=">i2"), b"bytes"]), "flag": True}


def passed(x: Any) -> Any:
    return x


def test_types_are_the_same_at_every_cut() -> None:
    pipeline = tasks([nested, passed])
    service = EdgeService([pipeline])
    whole = pipeline.run(1.5)
    for cut in pipeline.cuts:
        with made(service, pipeline, cut) as device:
            got = device.run(1.5).unwrap()
        assert type(got["a"]) is tuple
        assert type(got["a"][0]) is np.float32
        assert got["a"][0] == whole["a"][0]
        assert got["a"][1][0].tolist() == [0, 1, 2]
        assert got["a"][1][1] == b"bytes"
        assert got["flag"] is True
        got["a"][1][0][0] = 7  # the caller's own


def to_payload(x: int) -> np.ndarray[Any, Any]:
    return np.full(8, x, np.uint8)


def total(results: Any) -> int:
    return int(sum(int(a.sum()) for a in results.values()))


def test_functions_around_a_network() -> None:
    pipeline = tasks([add_one, to_payload]) + SizedPipeline([8, 12, 4]) + tasks([total, minus_three])
    assert pipeline.n == 6
    service = EdgeService([pipeline])
    whole = pipeline.run(3)
    for cut in pipeline.cuts:
        with made(service, pipeline, cut) as device:
            outcome = device.run(3)
        assert outcome.unwrap() == whole
        assert type(outcome.value) is int
        assert outcome.source == ("local" if cut == 6 else "edge")
        assert outcome.exact


def test_results_for_the_edge() -> None:
    got: list[Any] = []
    pipeline = numbers(sink="edge")
    service = EdgeService([PIPELINE], on_result=lambda peer, value: got.append((peer, value)))
    for cut in (0, 1, 3):
        with made(service, pipeline, cut) as device:
            outcome = device.run(20)
        assert (outcome.ok, outcome.value, outcome.source) == (True, None, "edge")
    assert got == [("me", 39)] * 3


def test_it_learns() -> None:
    b = Bench()
    with b.device as device:
        device.run(20)
        link = device.planner.link
    assert link.rtt_s == pytest.approx(0.01, rel=0.2)


def test_the_profile_of_the_edge_is_used_even_if_it_came_before_the_own() -> None:
    service = EdgeService([PIPELINE], profiles=[profile_of(PIPELINE, 0.123)])
    with Device(PIPELINE, in_memory(service), policy=Fixed(1), cache=False) as device:
        with pytest.raises(ProfileError, match="not profiled yet"):
            assert device.planner
        assert device.run(20).value == 39
        assert device.planner.topology.tiers[1].whole_s == pytest.approx(0.369)
        assert device.planner.beliefs(0.0).rtt_s.samples > 0  # nor is the link's measurement lost


def test_the_default_policy_prefers_what_is_faster() -> None:
    for step_s, expected in ((1.0, 0), (1e-7, 3)):
        b = Bench(policy=Best(), step_s=step_s)
        with b.device as device:
            assert device.run(20).plan.cut == expected  # type: ignore[union-attr]


# the edge fails


def test_an_edge_that_is_not_there() -> None:
    b = Bench(connect_s=1.0)
    b.failing()
    assert not b.device.connect()
    outcome = b.device.run(20)
    assert (outcome.value, outcome.source) == (39, "local")
    b.fate = b.answer
    b.clock.now_s += 10
    b.device.run(20)  # says hello
    b.clock.now_s += 1
    outcome = b.device.run(20)
    assert (outcome.value, outcome.source) == (39, "edge")


def test_connecting_waits_no_longer_than_told() -> None:
    b = Bench(connect_s=0.7)
    b.losing()
    began_s = b.clock()
    assert not b.device.connect()
    assert b.clock() - began_s == pytest.approx(0.7)


def test_the_edge_dies_in_the_middle_of_a_request() -> None:
    """The head is not run again: the payload was kept."""
    calls = []

    def head(x: int) -> int:
        calls.append(x)
        return x + 1

    pipeline = tasks([head, double, minus_three])
    b = Bench(pipeline)
    with b.device as device:
        b.failing(after_s=0.02)
        outcome = device.run(20)
        assert (outcome.value, outcome.source, outcome.exact) == (39, "fallback", True)
        assert calls == [20]
        assert not device.edge_up
        assert device.counters.fallbacks == 1
        assert device.run(20).source == "local"


def test_a_silent_edge_is_hedged_in_time() -> None:
    b = Bench()
    with b.device as device:
        b.losing(wire.Request)
        began_s = b.clock()
        outcome = device.run(20, deadline_s=0.5)
        assert (outcome.value, outcome.source) == (39, "hedge")
        assert b.clock() - began_s < 0.5
        finish_s = device.planner.finish_s(1)
        assert b.clock() - began_s == pytest.approx(0.5 - finish_s - 0.005)
        device.run(20, deadline_s=0.5)
        assert not device.edge_up
        assert device.run(20, deadline_s=0.5).source == "local"


def test_a_late_reply_only_teaches() -> None:
    b = Bench()
    with b.device as device:
        b.fate = lambda frame: [(2.0, b.service.handle(frame, peer="me"))]
        outcome = device.run(20, deadline_s=0.5)
        assert outcome.source == "hedge"
        before_s = device.planner.link.transfer_s(5000)
        b.clock.now_s += 3
        b.fate = b.answer
        assert device.run(20).value == 39
        assert device.counters.late_replies == 1 + device.counters.retries  # it had been sent again meanwhile
        assert device.planner.link.transfer_s(5000) != before_s


def test_without_the_remaining_part_there_is_a_typed_failure() -> None:
    b = Bench(parts=[(0, 1)])
    with b.device as device:
        assert device.run(20).value == 39
        b.losing(wire.Request)
        began_s = b.clock()
        outcome = device.run(20, deadline_s=0.5)
        assert isinstance(outcome.error, DeadlineExceeded)
        assert (outcome.source, outcome.value, outcome.ok) == ("none", None, False)
        assert b.clock() - began_s == pytest.approx(0.5)
        with pytest.raises(DeadlineExceeded):
            outcome.unwrap()
        b.failing()
        outcome = device.run(20, deadline_s=0.5)
        assert isinstance(outcome.error, EdgeUnavailable)
        outcome = device.run(20)  # nothing is allowed any more
        assert isinstance(outcome.error, EdgeUnavailable)
        assert outcome.plan is None


def test_parts_bind_the_planner() -> None:
    for options in ({"profile": profile_of(PIPELINE, 1e-6)}, {"planner": planner_of(PIPELINE, Best(), 1e-6)}):
        service = EdgeService([PIPELINE])
        device = Device(PIPELINE, in_memory(service), cache=False, parts=[(0, 2)], **options)  # type: ignore[arg-type]
        with device:
            assert device.run(20).plan.cut in (0, 2)  # type: ignore[union-attr]


def test_an_edge_without_the_pipeline() -> None:
    with made(EdgeService([tasks([abs])])) as device:
        assert not device.edge_up
        assert device.run(20).source == "local"
    with made(EdgeService([tasks([abs])]), parts=[(0, 1)]) as device:
        outcome = device.run(20)
    assert "does not serve this pipeline" in str(outcome.error)


def test_an_edge_that_was_replaced_between_requests() -> None:
    b = Bench()
    with b.device as device:
        assert device.run(20).exact
        b.service = EdgeService([PIPELINE], clock=b.clock)  # restarted: it knows nobody
        outcome = device.run(20)
        assert (outcome.value, outcome.source, outcome.exact) == (39, "edge", True)
        assert device.run(20).exact
        b.service = EdgeService([tasks([abs])], clock=b.clock)  # and now without the pipeline
        assert device.run(20).source == "fallback"
        b.clock.now_s += 0.1
        assert device.run(20).source == "local"


def test_a_tail_that_raises_on_the_edge_is_tried_here() -> None:
    edge_side = tasks([add_one, task(lambda x: 1 / 0, name="double"), minus_three], check_code=False)
    assert edge_side.digest == PIPELINE.digest
    with made(EdgeService([edge_side])) as device:
        outcome = device.run(20)
        assert (outcome.value, outcome.source) == (39, "fallback")
    with made(EdgeService([edge_side]), parts=[(0, 1)]) as device:
        outcome = device.run(20)
    assert isinstance(outcome.error, RemoteError)
    assert "ZeroDivisionError" in str(outcome.error)


def test_a_head_that_raises_is_an_outcome() -> None:
    pipeline = tasks([task(lambda x: 1 // x, name="invert"), double])
    for cut in (1, 2):
        with made(EdgeService([pipeline]), pipeline, cut) as device:
            outcome = device.run(0)
            assert isinstance(outcome.error, StepError)
            assert isinstance(outcome.error.__cause__, ZeroDivisionError)
            assert outcome.source == "none"
            assert device.run(1).value == 2


def test_a_step_that_raises_while_it_is_measured_is_an_outcome_too() -> None:
    pipeline = tasks([task(lambda x: 1 // x, name="invert"), double])
    with Device(pipeline, in_memory(EdgeService([pipeline])), cache=False) as device:
        assert isinstance(device.run(0).error, StepError)
        assert device.run(1).value == 2


@pytest.mark.parametrize("cut", range(3))
def test_a_payload_that_can_not_cross_is_an_outcome_wherever_the_cut_is(cut: int) -> None:
    pipeline = tasks([task(lambda x: {x}, name="a_set"), task(len, name="count")])
    with made(EdgeService([pipeline]), pipeline, cut) as device:
        outcome = device.run(5)
        assert isinstance(outcome.error, LocalProtocolError)
        assert "a set can't cross" in str(outcome.error)


def test_a_payload_that_is_too_large_for_the_edge_is_finished_here() -> None:
    pipeline = tasks([task(lambda x: bytes(10_000), name="grow"), task(len, name="count")])
    service = EdgeService([pipeline], limits=Limits(max_frame_bytes=6000))
    with made(service, pipeline, 1) as device:
        outcome = device.run(5)
    assert (outcome.value, outcome.source) == (10_000, "fallback")


@pytest.mark.parametrize("deadline_s", [0, -1.0, math.nan, math.inf])
def test_senseless_deadlines_are_refused(deadline_s: float) -> None:
    with made(EdgeService([PIPELINE])) as device:
        with pytest.raises(ValueError, match="deadline_s"):
            device.run(20, deadline_s=deadline_s)
        assert device.run(20).value == 39
    with pytest.raises(ValueError, match="deadline_s"):
        made(EdgeService([PIPELINE]), deadline_s=deadline_s)


def test_a_head_that_took_all_the_time() -> None:
    clock_of: list[Clock] = []

    def slow(x: int) -> int:
        clock_of[0].now_s += 1.0
        return x + 1

    pipeline = tasks([slow, double, minus_three])
    b = Bench(pipeline)
    clock_of.append(b.clock)
    with b.device as device:
        for _ in range(4):
            before = len(b.transport.requests())
            outcome = device.run(20, deadline_s=0.5)
            assert isinstance(outcome.error, DeadlineExceeded)
            assert len(b.transport.requests()) == before  # nobody would want the answer
        assert device.edge_up  # it is not to blame
        device.planner.policy = Fixed(3)
        assert isinstance(device.run(20, deadline_s=0.5).error, DeadlineExceeded)
        assert device.run(20, deadline_s=1.5).value == 39


def test_a_transport_that_breaks_its_promises() -> None:
    """Errors without a frame, and errors that are no TransportError: an outcome all the same."""
    b = Bench()
    with b.device as device:
        for error in (TransportError("the connection is gone"), ConnectionResetError("reset"), BrokenPipeError()):
            b.failing(error, after_s=0.01)
            outcome = device.run(20)
            assert (outcome.value, outcome.source) == (39, "fallback")
            b.fate = b.answer
            while not device.edge_up:
                b.clock.now_s += 1
                device.run(20)

        def broken(frame: bytes) -> Any:
            raise BrokenPipeError("while sending")

        b.fate = broken
        assert device.run(20).source == "fallback"


def test_noise_from_the_edge_is_survived() -> None:
    b = Bench()
    with b.device as device:
        b.fate = lambda frame: [(0.001 * k, bytes([k]) * k) for k in range(100)] + list(b.answer(frame))
        for _ in range(3):
            assert device.run(20).value == 39
        assert device.counters.bad_frames > 50


def test_a_wrong_token_is_named() -> None:
    b = Bench(parts=[(0, 1)])
    b.fate = lambda frame: [(0.01, AuthenticationError("edge answered 401: a token is needed", frame=frame))]
    assert not b.device.connect()
    assert "401" in str(b.device.run(20).error)


def test_an_interrupt_leaves_the_device_usable() -> None:
    calls = []

    def head(x: int) -> int:
        calls.append(x)
        return x + 1

    b = Bench(tasks([head, double, minus_three]))
    with b.device as device:
        for kind in (KeyboardInterrupt, SystemExit):
            b.fate = lambda frame, kind=kind: _raise(kind())
            with pytest.raises(kind):
                device.run(20)
            b.losing(wire.Request)
            receive, b.transport.receive = b.transport.receive, lambda timeout_s: _raise(KeyboardInterrupt())  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                device.run(20)
            b.transport.receive = receive  # type: ignore[method-assign]
        b.fate = b.answer
        ran = len(calls)
        b.clock.now_s += 60  # the abandoned requests' deadlines pass
        outcome = device.run(20)
        assert (outcome.value, outcome.source) == (39, "edge")
        assert len(calls) == ran + 1
        assert device.counters.hedges == 0  # nobody waited for those
        assert device._session.pending == 0
        assert device._core.done == {}


def _raise(error: BaseException) -> Any:
    raise error


# exactness


def test_another_runtime_is_computed_told_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    b = Bench()
    b.service._session._served.runtimes[PIPELINE.digest] = RuntimeInfo("python", "2.7", "default", "vax")
    with caplog.at_level(logging.WARNING, "splitiot"), b.device as device:
        for _ in range(3):
            outcome = device.run(20)
            assert (outcome.value, outcome.source, outcome.exact) == (39, "edge", False)
    assert len(caplog.records) == 1
    assert "vax" in caplog.text


def test_a_process_that_runs_something_else_than_the_one_that_was_greeted_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    b = Bench()
    with caplog.at_level(logging.WARNING, "splitiot"), b.device as device:
        greeted, other = b.service, EdgeService([PIPELINE], clock=b.clock)
        other._session._served.runtimes[PIPELINE.digest] = RuntimeInfo("python", "2.7", "default", "vax")
        found = []
        for service in (greeted, other, greeted, other):
            b.service = service
            found.append(device.run(20).exact)
    assert found == [True, False, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_exact_uses_no_other_runtime() -> None:
    service = EdgeService([PIPELINE])
    service._session._served.runtimes[PIPELINE.digest] = RuntimeInfo("python", "2.7", "default", "vax")
    with made(service, exact=True) as device:
        outcome = device.run(20)
        assert (outcome.value, outcome.source, outcome.exact) == (39, "local", True)
    with made(service, exact=True, parts=[(0, 1)]) as device:
        assert "exact results were asked for" in str(device.run(20).error)
    with made(EdgeService([PIPELINE]), exact=True) as device:
        outcome = device.run(20)
    assert (outcome.source, outcome.exact) == ("edge", True)


def test_exact_holds_when_the_edge_is_replaced_between_requests() -> None:
    b = Bench(exact=True)
    with b.device as device:
        assert device.run(20).source == "edge"
        b.service = EdgeService([PIPELINE], clock=b.clock)
        b.service._session._served.runtimes[PIPELINE.digest] = RuntimeInfo("python", "2.7", "default", "vax")
        outcome = device.run(20)
        assert (outcome.value, outcome.source, outcome.exact) == (39, "fallback", True)
        b.clock.now_s += 0.1  # the hello's answer arrives
        assert device.run(20).source == "local"


# profiles


def test_profiles_are_cached_by_pipeline(tmp_path: Path) -> None:
    service = EdgeService([PIPELINE])
    with Device(PIPELINE, in_memory(service), sample=20, cache=tmp_path) as device:
        first = device.planner.topology.tiers[0]
    (file,) = tmp_path.iterdir()
    with Device(PIPELINE, in_memory(service), sample=20, cache=tmp_path) as device:
        again = device.planner.topology.tiers[0]
    assert again.heads_s.tolist() == first.heads_s.tolist()
    for broken in (b"", b"{}", b"\xff\xfe", b'{"format": 1}'):
        file.write_bytes(broken)
        with Device(PIPELINE, in_memory(service), sample=20, cache=tmp_path) as device:
            assert device.run(20).ok
    for wrong in ("0" * 64, PIPELINE.digest):  # of another pipeline; of another number of steps
        file.unlink()
        profile_of(tasks([abs])).save(file)
        file.write_text(file.read_text().replace(tasks([abs]).digest, wrong))
        with Device(PIPELINE, in_memory(service), sample=20, cache=tmp_path) as device:
            assert device.planner.topology.tiers[0].n == 3
    sink_edge = numbers(sink="edge")
    with Device(sink_edge, in_memory(service), sample=20, cache=tmp_path):
        assert len(list(tmp_path.iterdir())) == 2  # other bytes cross


def test_a_cache_that_can_not_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with Device(PIPELINE, in_memory(EdgeService([PIPELINE])), sample=20, cache=tmp_path / "file" / "sub") as device:
        assert device.run(20).ok


def test_the_users_cache_is_used_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cache, expected in ((False, 0), (True, 1)):
        with Device(PIPELINE, in_memory(EdgeService([PIPELINE])), sample=20, cache=cache):
            assert len(list(tmp_path.glob("splitiot/*.json"))) == expected


def test_a_profile_of_another_pipeline_is_refused() -> None:
    service = EdgeService([PIPELINE])
    with pytest.raises(ProfileError, match="another pipeline"):
        Device(PIPELINE, in_memory(service), profile=profile_of(tasks([abs])))


# the planner on the edge


def following_bench(policy: Policy, step_s: float) -> Bench:
    b = Bench(policy=Fixed(2), step_s=step_s, follow=True)
    b.service = EdgeService([PIPELINE], clock=b.clock, profiles=[profile_of(PIPELINE, 0.001)], policy=policy)
    return b


def test_the_edges_plan_is_followed_while_it_is_valid() -> None:
    b = following_bench(Best(), 0.5)
    with b.device as device:
        assert device.run(20).plan.cut == 2  # type: ignore[union-attr]
        for _ in range(3):
            outcome = device.run(20)
            assert outcome.plan is not None
            assert outcome.plan.cut == 0
            assert outcome.value == 39
        b.clock.now_s += 5
        assert device.run(20).plan.cut == 2  # type: ignore[union-attr]  # it is too old
        assert device.run(20).plan.cut == 0  # type: ignore[union-attr]
        b.failing()
        device.run(20)
        assert device.run(20).source == "local"  # not while the edge is away


def test_an_edge_that_plans_hears_of_local_runs() -> None:
    b = following_bench(Best(), 0.5)
    heard: list[Observation] = []
    with b.device as device:
        device.run(20)
        device._session.take_next()
        device.planner.policy = Fixed(3)
        device._core.planning._proposed = (None, 0.0)
        device.run(20)
        device.planner.policy = Fixed(1)
        device.run(20)
        heard = [o for request in b.transport.requests() for o in request.observations]
    assert any(o.cut == 3 and o.head_s is not None for o in heard)


@pytest.mark.parametrize("cuts", [(), (99,), (1, 2), (-1,)])
def test_a_senseless_plan_of_the_edge_is_not_followed(cuts: tuple[int, ...]) -> None:
    b = Bench(policy=2, follow=True)

    def answer(frame: bytes) -> Iterator[tuple[float, bytes]]:
        for delay_s, made in b.answer(frame):
            assert isinstance(made, bytes)
            message, buffers = wire.decode(made)
            if isinstance(message, wire.Reply):
                fields = {name: getattr(message, name) for name in message.__struct_fields__}
                fields["next"] = wire.NextPlacement(plan_id=5, cuts=cuts, valid_s=math.inf)
                made = wire.encode(wire.Reply(**fields), [bytes(view) for view in buffers])
            yield delay_s, made

    b.fate = answer
    with b.device as device:
        for _ in range(3):
            outcome = device.run(20)
            assert (outcome.value, outcome.plan.cut) == (39, 2)  # type: ignore[union-attr]


def test_what_the_caller_tells_reaches_the_own_policy_where_the_edge_s_plan_is_no_good() -> None:
    asked: list[Any] = []

    class Ask(Policy):
        def decide(self, context: Context) -> Decision:
            asked.append((context.deadline_s, dict(context.telemetry)))
            return context.best()

    b = Bench(policy=Ask(), follow=True)
    with b.device as device:
        device._core.planning._proposed = (wire.NextPlacement(plan_id=9, cuts=(99,)), b.clock() + 5)
        device.run(20, deadline_s=0.5, telemetry={"battery": 0.4})
    assert asked == [(0.5, {"battery": 0.4})]


def test_a_probe_that_the_edge_proposed_is_made_once() -> None:
    b = Bench(policy=2, follow=True)
    with b.device as device:
        device.run(20)
        device._core.planning._proposed = (wire.NextPlacement(plan_id=9, cuts=(3,), probe=True), b.clock() + 5)
        outcome = device.run(20)
        assert (outcome.plan.cut, outcome.plan.probe) == (3, True)  # type: ignore[union-attr]
        assert device.run(20).plan.cut == 2  # type: ignore[union-attr]


def test_the_edge_s_plan_moves_with_a_stateful_pipeline() -> None:
    pipeline = Remembering()
    b = Bench(pipeline, 2, follow=True)
    b.service = EdgeService([pipeline], clock=b.clock, profiles=[profile_of(pipeline, 1e-6)], policy=Best())
    with b.device as device:
        for cut in (2, 1, 0):
            device.planner.policy = Fixed(cut)
            outcomes = [device.run(x) for x in (3, 1, 4)]
            assert [o.unwrap() for o in outcomes] == sums([3, 1, 4])
            assert [(o.plan.cut, o.plan.why) for o in outcomes if o.plan] == [
                (cut, f"fixed at cut {cut}"),  # nobody but the device can begin
                (cut, "least latency_s"),
                (cut, "least latency_s"),
            ]
            device.reset()


# stateful pipelines


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_stateful_pipelines_give_what_the_uncut_one_gives(cut: int) -> None:
    pipeline = Remembering()
    inputs = [3, 1, 4, 1, 5]
    with made(EdgeService([pipeline]), pipeline, cut) as device:
        assert [device.run(x).unwrap() for x in inputs] == sums(inputs)
        device.reset()
        device.planner.policy = Fixed(3 - cut)
        assert [device.run(x).unwrap() for x in inputs] == sums(inputs)


def test_a_lost_state_is_a_typed_failure_until_reset() -> None:
    pipeline = Remembering()
    b = Bench(pipeline)
    with b.device as device:
        assert device.run(1).unwrap() == 1
        b.service = EdgeService([pipeline], clock=b.clock)  # the edge restarted
        for _ in range(3):
            outcome = device.run(2)
            assert isinstance(outcome.error, RemoteError)
            assert outcome.error.code == "state-lost"
            assert outcome.source == "none"
        device.reset()
        assert [device.run(x).unwrap() for x in (1, 2)] == sums([1, 2])


@pytest.mark.parametrize("what", ["lost", "failed", "interrupted", "busy"])
def test_after_a_failure_a_stateful_pipeline_is_right_or_fails(what: str) -> None:
    pipeline = Remembering()
    b = Bench(pipeline)
    with b.device as device:
        inputs = [1]
        assert device.run(1).unwrap() == 1
        if what == "lost":
            b.losing(wire.Request)
        elif what == "failed":
            b.failing()
        elif what == "interrupted":
            b.fate = lambda frame: _raise(KeyboardInterrupt())
        else:
            b.service._session._load.add("others", 2**40)
        try:
            outcome = device.run(2, deadline_s=0.3)
            assert not outcome.ok
        except KeyboardInterrupt:
            assert what == "interrupted"
        inputs.append(2)
        if what not in ("lost", "failed", "interrupted"):
            b.service._session._load.remove("others", 2**40)
        b.fate = b.answer
        for x in (3, 4, 5):
            b.clock.now_s += 10
            outcome = device.run(x)
            inputs.append(x)
            if outcome.ok:
                assert outcome.value == sums(inputs)[-1]
        device.reset()
        assert [device.run(x).unwrap() for x in (1, 2)] == sums([1, 2])


# the calling side


def test_mistakes_of_the_caller_are_raised() -> None:
    service = EdgeService([PIPELINE])
    with made(service, policy=9) as device, pytest.raises(CutError, match="9"):
        device.run(20)
    device = made(service)
    device.close()
    device.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        device.run(20)


def test_closing_closes_the_own_runner_and_the_transport_once() -> None:
    transport = Scripted(Clock(), lambda frame: ())
    runner = Runner(PIPELINE)
    device = Device(PIPELINE, transport, profile=profile_of(PIPELINE), runner=runner, cache=False)
    device.close()
    device.close()
    assert transport.closed == 1
    assert runner.run(0, 3, 20)[0] == 39  # not the device's
    own = Device(PIPELINE, transport, profile=profile_of(PIPELINE), cache=False)
    own.close()
    with pytest.raises(LocalProtocolError):
        own._runner.run(0, 3, 20)


def test_several_threads_may_call() -> None:
    service = EdgeService([PIPELINE])
    start = threading.Barrier(4)
    with made(service) as device:
        got: list[bool] = []

        def work(first: int) -> None:
            start.wait(WAIT_S)
            got.extend(device.run(x).value == PIPELINE.run(x) for x in range(first, first + 25))

        threads = [threading.Thread(target=work, args=(k * 100,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert got == [True] * 100


# over a protocol of requests and replies


class Direct(RoundTrip):
    """The shortest transport that there can be."""

    def __init__(self, service: EdgeService) -> None:
        super().__init__(workers=2)
        self.service = service
        self.dead = False
        self.hang: threading.Event | None = None

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        answer = self.service.handle(request, peer="me")
        if self.hang is not None:
            assert self.hang.wait(WAIT_S)
        if self.dead:
            raise ConnectionResetError("killed")
        return answer


def test_over_requests_and_replies() -> None:
    transport = Direct(EdgeService([PIPELINE]))
    device = Device(PIPELINE, transport, policy=Fixed(1), profile=profile_of(PIPELINE), cache=False)
    with device:
        assert [device.run(x).value for x in range(50)] == [PIPELINE.run(x) for x in range(50)]
        assert device.counters.fallbacks == device.counters.hedges == 0
        transport.dead = True
        outcome = device.run(20)
        assert (outcome.value, outcome.source) == (39, "fallback")
        assert not device.edge_up


def test_a_hanging_exchange_is_hedged_and_does_not_keep_the_device_open() -> None:
    transport = Direct(EdgeService([PIPELINE]))
    device = Device(PIPELINE, transport, policy=Fixed(1), profile=profile_of(PIPELINE), cache=False)
    device.connect()
    transport.hang = threading.Event()
    try:
        outcome = device.run(20, deadline_s=0.2)
        assert (outcome.value, outcome.source) == (39, "hedge")
        device.close()
    finally:
        transport.hang.set()


def test_without_a_deadline_no_local_result_is_late() -> None:
    clock = Clock()

    def slow(x: int) -> int:
        clock.now_s += 60.0
        return x + 1

    pipeline = tasks([slow])
    with Device(
        pipeline, Scripted(clock, lambda frame: ()), planner=planner_of(pipeline, 1, 60.0), cache=False, clock=clock
    ) as device:
        assert device.run(1).unwrap() == 2
        late = device.run(1, deadline_s=50.0)
        assert isinstance(late.error, DeadlineExceeded)


def test_patience_ends_the_wait_for_a_silent_edge() -> None:
    bench = Bench(patience_s=2.0)
    bench.device.connect()
    bench.losing(wire.Request)
    began_s = bench.clock.now_s
    outcome = bench.device.run(5)
    assert outcome.source == "hedge" and outcome.unwrap() == PIPELINE.run(5)
    assert bench.clock.now_s - began_s == pytest.approx(2.0, abs=0.01)


def test_patience_ends_in_a_typed_failure_where_nothing_can_finish() -> None:
    bench = Bench(patience_s=2.0, parts=[(0, 1)])
    bench.device.connect()
    bench.losing(wire.Request)
    began_s = bench.clock.now_s
    outcome = bench.device.run(5)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert bench.clock.now_s - began_s == pytest.approx(2.0, abs=0.01)
