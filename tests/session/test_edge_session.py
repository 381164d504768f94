"""The edge's half, method by method: checks, duplicates, order, what one device can do to another, and bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from splitiot import wire
from splitiot.errors import DeadlineExceeded
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import Pipeline
from splitiot.planner import Planner
from splitiot.policies import Best, Policy
from splitiot.session import EdgeSession, Forget, Run, Send
from splitiot.topology import TierProfile, Topology
from tests.pipelines import SizedPipeline
from tests.session.support import (
    BOOT,
    EDGE_BOOT,
    LINK,
    Remembering,
    edge_session,
    every,
    messages,
    numbers,
    only,
    profile_of,
    read,
    request_of,
)

PIPELINE = numbers()
REQUEST = request_of(PIPELINE, 1, 21)


def hello_of(pipeline: Pipeline, *, boot: int = BOOT, sequence: int = 1, told: Any = None, **more: Any) -> bytes:
    own = {"digest": bytes.fromhex(pipeline.digest), "n": pipeline.n, "runtime": ("made-up", "1", "default", "none")}
    profiles = () if told is None else (told if isinstance(told, dict) else told.to_dict(),)
    hello = wire.Hello(
        boot=boot,
        sequence=sequence,
        pipelines=(wire.PipelineHello(**own | more),),
        profiles=profiles,  # type: ignore[arg-type]
    )
    return wire.encode(hello)


def answered(session: EdgeSession, frame: bytes, peer: str = "a", now_s: float = 0.0) -> Any:
    """Give a frame, run what it asks for, and return the one answer."""
    effects = session.receive(frame, peer, now_s, "to")
    for run in every(Run, effects):
        job = run.job
        effects += session.complete(job, job.pipeline.part(job.start, job.stop).run(job.payload), now_s + 0.01)
    send = only(Send, effects)
    assert (send.peer, send.reply_to) == (peer, "to")
    return read(send.frame)


def value_of(frame: bytes) -> Any:
    message, buffers = wire.decode(frame)
    assert isinstance(message, wire.Reply)
    return wire.unpack(message, buffers)


# requests


def test_a_request_is_run_and_answered_with_its_times() -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(request_of(PIPELINE, 1, 21, deadline_s=0.5), "a", 10.0, "to")).job
    assert (job.start, job.stop, job.payload, job.owner) == (1, 3, 21, None)
    assert (job.received_s, job.expires_s) == (10.0, 10.5)
    assert session.in_flight == 1
    send = only(Send, session.complete(job, 39, 10.2, EdgeTimes(0.01, 0.02, 0.1, 0.03)))
    assert (send.peer, send.reply_to) == ("a", "to")
    answer = read(send.frame)
    assert (answer.boot, answer.sequence, answer.edge_boot) == (BOOT, 1, EDGE_BOOT)
    assert answer.times == EdgeTimes(0.01, 0.02, 0.1, 0.03, pytest.approx(0.2))
    assert answer.hello  # never greeted
    assert value_of(send.frame) == 39
    assert session.in_flight == 0


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"digest": bytes(32)}, "unknown-pipeline"),
        ({"digest": b"short"}, "unknown-pipeline"),
        ({"stop": 2}, "bad-part"),
        ({"start": 4, "stop": 3}, "bad-part"),
        ({"start": -1}, "bad-part"),
        ({"sink": "cloud"}, "bad-part"),
        ({"fingerprint": bytes(8)}, "bad-boundary"),
        ({"fingerprint": b""}, "bad-boundary"),
        ({"codec": "zstd"}, "bad-codec"),
        ({"arrays": (("int8", (4,), 0),)}, "bad-payload"),
        ({"arrays": (("object", (), 0),)}, "bad-payload"),
        ({"arrays": (("int8", (0, 2**64 - 1), 0),)}, "bad-payload"),
        ({"names": ("a", "b")}, "bad-payload"),
    ],
)
def test_what_is_wrong_gets_a_typed_answer(wrong: dict[str, Any], code: str) -> None:
    session = edge_session(PIPELINE)
    answer = answered(session, request_of(PIPELINE, 1, 21, **wrong))
    assert isinstance(answer, wire.Failure)
    assert (answer.code, answer.boot, answer.sequence) == (code, BOOT, 1)
    assert answer.message
    assert session.counters.failures == 1
    assert session.in_flight == 0
    assert isinstance(answered(session, REQUEST), wire.Reply)  # nothing was remembered of it


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"t1": np.zeros(5, np.uint8)}, "shape"),
        ({"t1": np.zeros(6, np.int8)}, "dtype"),
        ({"t2": np.zeros(6, np.uint8)}, "named"),
        ({"t1": np.zeros(6, np.uint8), "x": np.zeros(1)}, "named"),
        ([1, 2], "list"),
        (None, "NoneType"),
    ],
)
def test_payloads_that_do_not_fit_the_boundary(payload: Any, words: str) -> None:
    pipeline = SizedPipeline([4, 6, 3])
    answer = answered(edge_session(pipeline), request_of(pipeline, 1, payload))
    assert answer.code == "bad-payload"
    assert words in answer.message


def test_a_refused_cut_is_told_with_its_reason() -> None:
    pipeline = SizedPipeline([4, 6, 3], refused={1: "its tensor is a resource"})
    frame = request_of(pipeline, 0, {"t0": np.zeros(4, np.uint8)}, start=1)
    assert "its tensor is a resource" in answered(edge_session(pipeline), frame).message


@pytest.mark.parametrize("frame", [b"", b"GET / HTTP/1.1", REQUEST[:-1], bytes(1000)])
def test_noise_is_answered(frame: bytes) -> None:
    session = edge_session(PIPELINE)
    answer = answered(session, frame)
    assert (answer.code, answer.boot, answer.sequence) == ("bad-frame", 0, 0)
    assert session.counters.bad_frames == 1


def test_what_only_an_edge_sends_is_refused() -> None:
    session = edge_session(PIPELINE)
    answer = answered(session, wire.encode(wire.Busy(boot=3, sequence=4, edge_boot=5)))
    assert (answer.code, answer.boot, answer.sequence) == ("bad-frame", 3, 4)


def test_frames_that_are_too_large_are_refused() -> None:
    session = edge_session(PIPELINE, max_frame_bytes=500)
    assert answered(session, hello_of(PIPELINE)).max_frame_bytes == 500
    answer = answered(session, request_of(PIPELINE, 1, bytes(500)))
    assert answer.code == "bad-frame"
    assert "at most 500" in answer.message


def test_probes_come_back() -> None:
    session = edge_session(PIPELINE)
    frame = wire.encode(wire.Probe(boot=1, sequence=2, echo_bytes=100), [bytes(4096)])
    effects = session.receive(frame, "a", 0.0)
    echo, buffers = wire.decode(only(Send, effects).frame)
    assert echo == wire.Echo(boot=1, sequence=2, edge_boot=EDGE_BOOT)
    assert [len(b) for b in buffers] == [112]
    for size in (-1, 2**40):
        small = session.receive(wire.encode(wire.Probe(boot=1, sequence=2, echo_bytes=size)), "a", 0.0)
        assert len(only(Send, small).frame) < 100


@pytest.mark.parametrize("runtime", [None, ("made-up", "2", "default", "none")])
def test_exact_is_refused_where_the_runtimes_differ(runtime: Any) -> None:
    session = edge_session(PIPELINE)
    answered(session, hello_of(PIPELINE, runtime=runtime))
    assert answered(session, request_of(PIPELINE, 1, 21, exact=True)).code == "inexact"
    answered(session, hello_of(PIPELINE))
    assert isinstance(answered(session, request_of(PIPELINE, 1, 21, exact=True, sequence=2)), wire.Reply)


def test_a_device_that_was_forgotten_is_asked_for_a_hello_before_it_is_told_inexact() -> None:
    """Else a device that wants exact results would not use this edge again: only a hello tells its runtime."""
    session = edge_session(PIPELINE)
    answer = answered(session, request_of(PIPELINE, 1, 21, exact=True))
    assert isinstance(answer, wire.SayHello)
    assert (answer.sequence, session.in_flight) == (1, 0)


def test_exact_is_refused_where_neither_runtime_is_known() -> None:
    session = EdgeSession([PIPELINE], boot=EDGE_BOOT, runtimes={})
    answered(session, hello_of(PIPELINE, runtime=None))
    assert answered(session, request_of(PIPELINE, 1, 21, exact=True)).code == "inexact"


def test_where_results_are_wanted_is_up_to_the_request() -> None:
    session = edge_session(PIPELINE)
    assert answered(session, request_of(PIPELINE, 1, 21, sink="nowhere")).code == "bad-part"
    for number, (sink, cut, given) in enumerate([("edge", 3, 39), ("device", 1, 21), ("edge", 1, 21)]):
        turned = PIPELINE.with_sink(sink)  # type: ignore[arg-type]
        frame = request_of(turned, cut, given, sequence=number)
        job = only(Run, session.receive(frame, "a", 0.0)).job
        assert job.pipeline.sink == sink  # not spoilt by what another device asked for
        effects = session.complete(job, 39, 0.1)
        assert value_of(only(Send, effects).frame) == (39 if sink == "device" else None)


# duplicates


def test_a_duplicate_in_flight_waits_and_all_are_answered() -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(REQUEST, "a", 0.0, "first")).job
    assert session.receive(REQUEST, "a", 0.1, "second") == []
    assert session.receive(REQUEST, "a", 0.2, "third") == []
    sends = session.complete(job, 39, 0.3)
    assert [s.reply_to for s in every(Send, sends)] == ["first", "second", "third"]
    assert len({s.frame for s in every(Send, sends)}) == 1
    assert session.complete(job, 40, 0.4) == []
    assert session.counters.duplicates == 2
    again = session.receive(REQUEST, "a", 0.5, "later")
    assert not every(Run, again)
    assert only(Send, again).frame == every(Send, sends)[0].frame
    assert only(Send, again).reply_to == "later"


def test_failures_of_a_run_are_remembered_too() -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(REQUEST, "a", 0.0)).job
    answer = read(only(Send, session.complete(job, ZeroDivisionError("no"), 0.1)).frame)
    assert (answer.code, answer.message) == ("failed", "ZeroDivisionError: no")
    assert not every(Run, session.receive(REQUEST, "a", 0.2))


def test_the_same_id_of_others_is_another_request() -> None:
    session = edge_session(PIPELINE)
    session.receive(REQUEST, "a", 0.0)
    assert every(Run, session.receive(REQUEST, "b", 0.0))
    assert every(Run, session.receive(request_of(PIPELINE, 1, 21, boot=BOOT + 1), "a", 0.0))
    assert every(Run, session.receive(request_of(PIPELINE, 1, 21, sequence=2), "a", 0.0))


def test_only_so_many_duplicates_wait() -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(REQUEST, "a", 0.0, 0)).job
    busy = 0
    for number in range(1, 100):
        busy += len(messages(session.receive(REQUEST, "a", 0.0, number)))
    waiting = len(session.complete(job, 39, 0.1))
    assert waiting <= 32
    assert waiting + busy == 100


def test_late_is_told_as_late() -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(request_of(PIPELINE, 1, 21, deadline_s=0.5), "a", 10.0)).job
    assert job.late(10.49) is None
    error = job.late(10.5)
    assert isinstance(error, DeadlineExceeded)
    assert read(only(Send, session.complete(job, error, 10.6)).frame).code == "late"


@pytest.mark.parametrize("deadline_s", [0.0, -5.0, math.nan])
def test_senseless_deadlines_are_late(deadline_s: float) -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(request_of(PIPELINE, 1, 21, deadline_s=deadline_s), "a", 10.0)).job
    assert job.late(10.0) is not None


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (object(), "object can't cross"),
        ("\ud800", "no Unicode"),
        ({"text": "x" * 2**21}, "too large"),
        (np.zeros((9, 2**20), np.int64), "too many"),
        ([0.5] * 200_000, "too large"),
    ],
)
def test_a_result_that_can_not_cross_is_told(result: Any, words: str) -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(REQUEST, "a", 0.0)).job
    answer = read(only(Send, session.complete(job, result, 0.1)).frame)
    assert answer.code == "failed"
    assert words in answer.message
    assert session.in_flight == 0


def test_long_words_of_an_error_are_cut() -> None:
    session = edge_session(PIPELINE)
    job = only(Run, session.receive(REQUEST, "a", 0.0)).job
    assert len(read(only(Send, session.complete(job, ValueError("x" * 10**6), 0.1)).frame).message) == 1000


# busy


def test_busy_says_when_to_come_back_and_runs_nothing() -> None:
    session = edge_session(PIPELINE, max_in_flight=2)
    jobs = [only(Run, session.receive(request_of(PIPELINE, 1, 21, sequence=k), "a", 0.0)).job for k in range(2)]
    answer = answered(session, request_of(PIPELINE, 1, 21, sequence=9), "b")
    assert isinstance(answer, wire.Busy)
    assert 0 < answer.retry_after_s < 10
    assert session.counters.busy == 1
    session.complete(jobs[0], 39, 0.1)
    assert isinstance(answered(session, request_of(PIPELINE, 1, 21, sequence=9), "b"), wire.Reply)


def test_probes_and_hellos_are_answered_while_busy() -> None:
    session = edge_session(PIPELINE, max_in_flight=1)
    session.receive(REQUEST, "a", 0.0)
    assert isinstance(answered(session, hello_of(PIPELINE), "b"), wire.Welcome)
    assert isinstance(answered(session, wire.encode(wire.Probe(boot=1, sequence=1)), "b"), wire.Echo)


# order

STATEFUL = Remembering()


def ordered(session: EdgeSession, sequence: int, order: int | None, *, peer: str = "a", **more: Any) -> Any:
    return answered(session, request_of(STATEFUL, 1, 1, sequence=sequence, order=order, **more), peer)


def test_stateful_requests_come_in_order() -> None:
    session = edge_session(STATEFUL)
    assert isinstance(ordered(session, 1, 0), wire.Reply)
    assert ordered(session, 2, 2).code == "bad-order"
    assert ordered(session, 3, None).code == "bad-order"
    assert ordered(session, 4, 0).code == "bad-order"
    assert isinstance(ordered(session, 5, 1), wire.Reply)
    assert isinstance(ordered(session, 5, 1), wire.Reply)  # a duplicate: the same answer
    assert isinstance(ordered(session, 6, 2), wire.Reply)
    assert isinstance(ordered(session, 7, 0, peer="b"), wire.Reply)


def test_a_reset_starts_again() -> None:
    session = edge_session(STATEFUL)
    ordered(session, 1, 0)
    effects = session.receive(request_of(STATEFUL, 2, 1, sequence=2, order=0, reset=True), "a", 0.0)
    job = only(Run, effects).job
    assert job.reset
    assert job.owner
    session.complete(job, 1, 0.1)
    assert isinstance(ordered(session, 3, 1), wire.Reply)


def test_a_restarted_edge_says_that_the_state_is_lost() -> None:
    session = edge_session(STATEFUL)
    answer = ordered(session, 5, 4)
    assert answer.code == "state-lost"
    assert "reset()" in answer.message
    assert isinstance(ordered(session, 6, 0, reset=True), wire.Reply)


@pytest.mark.parametrize("error", [ValueError("broke"), DeadlineExceeded("too late")])
def test_a_request_that_did_not_run_leaves_a_gap_that_is_not_hidden(error: Exception) -> None:
    session = edge_session(STATEFUL)
    ordered(session, 1, 0)
    job = only(Run, session.receive(request_of(STATEFUL, 1, 1, sequence=2, order=1), "a", 0.0)).job
    session.complete(job, error, 0.1)
    for sequence, order in ((3, 2), (4, 1), (5, 0), (6, -1)):
        assert ordered(session, sequence, order).code == "state-lost"
    assert isinstance(ordered(session, 7, 0, reset=True), wire.Reply)


def test_one_at_a_time_for_a_stateful_pipeline() -> None:
    session = edge_session(STATEFUL)
    job = only(Run, session.receive(request_of(STATEFUL, 1, 1, sequence=1, order=0), "a", 0.0)).job
    assert isinstance(ordered(session, 2, 1), wire.Busy)
    assert isinstance(ordered(session, 1, 0, peer="b"), wire.Reply)
    session.complete(job, 1, 0.1)
    assert isinstance(ordered(session, 3, 1), wire.Reply)


def test_a_device_that_starts_anew_has_no_old_state() -> None:
    session = edge_session(STATEFUL)
    owners = set()
    for boot in (1, 2):
        job = only(Run, session.receive(request_of(STATEFUL, 1, 1, boot=boot, order=0), "a", 0.0)).job
        owners.add(job.owner)
        session.complete(job, 1, 0.1)
    assert len(owners) == 2


# hello, profiles, planners


def planning(*pipelines: Pipeline, policy: Policy | None = None, **more: Any) -> EdgeSession:
    def make(pipeline: Pipeline, device: TierProfile, edge: TierProfile) -> Planner:
        return Planner(pipeline, Topology(tiers=[device, edge], links=[LINK]), policy or Best())

    profiles = {p.digest: profile_of(p, 0.001) for p in pipelines}
    return edge_session(*pipelines, make_planner=make, profiles=profiles, **more)


def planned(session: EdgeSession, peer: str, sequence: int, pipeline: Pipeline = PIPELINE, **more: Any) -> Any:
    return answered(session, request_of(pipeline, 1, 21, sequence=sequence, **more), peer).next


def test_a_hello_is_welcomed_with_what_is_asked_for() -> None:
    other = numbers()
    session = edge_session(PIPELINE, profiles={PIPELINE.digest: profile_of(PIPELINE)})
    hello = wire.Hello(
        boot=BOOT,
        sequence=5,
        pipelines=(
            wire.PipelineHello(digest=bytes.fromhex(other.digest), n=3, sink="edge"),
            wire.PipelineHello(digest=bytes(32), n=9),
        ),
        want_profiles=(bytes.fromhex(PIPELINE.digest), bytes(32), b"x"),
    )
    answer = answered(session, wire.encode(hello))
    assert isinstance(answer, wire.Welcome)
    assert (answer.boot, answer.sequence, answer.edge_boot) == (BOOT, 5, EDGE_BOOT)
    (ours,) = answer.pipelines
    assert ours.digest.hex() == PIPELINE.digest
    assert ours.runtime == ("made-up", "1", "default", "none")
    assert [TierProfile.from_dict(p).digest for p in answer.profiles] == [PIPELINE.digest]
    assert answer.want_profiles == ()  # nobody plans here
    assert not answered(session, REQUEST).hello


def test_an_edge_that_plans_asks_for_the_profile_and_then_plans() -> None:
    session = planning(PIPELINE)
    assert answered(session, hello_of(PIPELINE)).want_profiles == (bytes.fromhex(PIPELINE.digest),)
    assert planned(session, "a", 1) is None
    assert answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1))).want_profiles == ()
    first, second = planned(session, "a", 2), planned(session, "a", 3)
    assert first.cuts == (0,)
    assert second.plan_id > first.plan_id
    assert planned(session, "b", 4) is None


BROKEN = [
    {},
    {"digest": PIPELINE.digest},
    {"digest": PIPELINE.digest, "format": 1, "heads_s": [0, 1], "tails_s": [1, 0]},  # of one step
    {"digest": PIPELINE.digest, "format": 1, "heads_s": [0, 1, 2, math.nan], "tails_s": [3, 2, 1, 0]},
    {"digest": PIPELINE.digest, "format": 1, "heads_s": ["a", 1, 2, 3], "tails_s": [3, 2, 1, 0]},
    {"digest": PIPELINE.digest, "format": 1, "heads_s": {"x": 1}, "tails_s": None},
]


@pytest.mark.parametrize("told", BROKEN)
def test_broken_profiles_make_no_planner(told: dict[str, Any]) -> None:
    session = planning(PIPELINE)
    assert isinstance(answered(session, hello_of(PIPELINE, told=told)), wire.Welcome)
    assert planned(session, "a", 1) is None


@pytest.mark.parametrize("parts", [((0, 99),), ((0, -1),), ((0, 2**63),), ()])
def test_senseless_parts_of_a_device_do_not_stop_its_requests(parts: Any) -> None:
    session = planning(PIPELINE)
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1), parts=parts))
    assert isinstance(answered(session, REQUEST), wire.Reply)
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)), "b")
    assert planned(session, "b", 1).cuts == (0,)


def test_parts_bind_the_planner() -> None:
    session = planning(PIPELINE)
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 1e-6), parts=((0, 2),)))
    assert planned(session, "a", 1).cuts in ((0,), (2,))
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 1e-6)), "b")
    assert planned(session, "b", 1).cuts == (3,)


class _Raises(Policy):
    def decide(self, context: Any) -> Any:
        raise RuntimeError("a bug in a policy")


class _RaisesLearning(Best):
    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        raise RuntimeError("a bug in a policy")


@pytest.mark.parametrize("policy", [_Raises(), _RaisesLearning()])
def test_a_bug_in_a_policy_loses_no_request(policy: Policy) -> None:
    session = planning(PIPELINE, policy=policy)
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)))
    seen = Observation(plan_id=1, cut=1, head_s=0.1)
    assert isinstance(answered(session, request_of(PIPELINE, 1, 21, observations=(seen,))), wire.Reply)
    assert session.counters.planner_errors == 1


def test_observations_move_the_plan_of_their_device_only() -> None:
    session = planning(PIPELINE)
    for peer in "ab":
        answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)), peer)
        assert planned(session, peer, 1).cuts == (0,)
    slow = [Observation(plan_id=0, cut=0, probe=True, round_trip_s=60.0, sent_bytes=1000 + k) for k in range(3)]
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)), "c")
    assert planned(session, "a", 2, observations=tuple(slow)).cuts == (3,)
    assert planned(session, "b", 2).cuts == (0,)
    assert planned(session, "b", 3, observations=tuple(slow)).cuts == (3,)
    assert planned(session, "c", 2).cuts == (0,)


def garbage() -> list[Observation]:
    bad = [math.nan, math.inf, -1.0]
    seen = [Observation(plan_id=5, cut=1, head_s=x) for x in bad]
    seen += [Observation(plan_id=6, cut=1, tail_s=x, round_trip_s=x) for x in bad]
    seen += [Observation(plan_id=7, cut=1, round_trip_s=1.0, edge=EdgeTimes(x, x, x, x, x)) for x in bad]
    seen += [Observation(plan_id=8, cut=c, head_s=1e300, round_trip_s=1e300) for c in (-1, 99, 2**63)]
    seen += [Observation(plan_id=i, cut=1, head_s=0.1) for i in (-(2**63), 2**64 - 1)]
    seen += [Observation(plan_id=0, cut=0, probe=True, round_trip_s=x, sent_bytes=-5) for x in bad]
    return seen


def test_garbage_of_one_device_changes_no_plan_and_no_answer_of_another() -> None:
    session = planning(PIPELINE)
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)), "a")
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)), "b")
    alone = planning(PIPELINE)
    answered(alone, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)), "a")
    for k in range(20):
        bad = request_of(
            PIPELINE,
            1,
            21,
            sequence=k,
            observations=tuple(garbage()),
            telemetry={"battery": math.nan},
            deadline_s=math.nan,
        )
        assert isinstance(answered(session, bad, "b"), wire.Reply)
        answered(session, b"noise", "b")
        answered(session, hello_of(PIPELINE, told={}, boot=k, parts=((0, 77),), sink="nowhere"), "b")
        answered(session, request_of(PIPELINE, 1, 21, sequence=k, sink="nowhere"), "b")
        assert planned(session, "a", k) == planned(alone, "a", k)
    assert session.counters.dropped_observations >= 20


def test_a_flood_of_observations_is_cut() -> None:
    session = planning(PIPELINE)
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)))
    flood = tuple(Observation(plan_id=k, cut=1, head_s=0.1) for k in range(5000))
    assert isinstance(answered(session, request_of(PIPELINE, 1, 21, observations=flood)), wire.Reply)
    assert session.counters.dropped_observations >= 4900


def test_planners_know_where_results_are_wanted() -> None:
    """Wanted on the edge, all-local has to send its results: 3 MB over this link take longer than the pipeline."""
    pipeline = SizedPipeline([10, 10, 3_000_000])
    session = planning(pipeline)
    told = TierProfile.from_steps(pipeline.digest, [1e-6, 1e-6])
    answered(session, hello_of(pipeline, told=told), "a")
    answered(session, hello_of(pipeline, told=told, sink="edge"), "b")
    payload = {"t1": np.zeros(10, np.uint8)}
    assert answered(session, request_of(pipeline, 1, payload), "a").next.cuts == (2,)
    turned = pipeline.with_sink("edge")
    assert answered(session, request_of(turned, 1, payload), "b").next.cuts != (2,)


# bounds


def test_answers_are_bounded_by_number_and_bytes() -> None:
    session = edge_session(PIPELINE, max_answers=10, max_answers_bytes=5000)
    for k in range(50):
        answered(session, request_of(PIPELINE, 1, 21, sequence=k))
    assert len(session._answers) == 10
    assert session._answers_bytes == sum(map(len, session._answers.values()))
    for k in range(50, 60):
        job = only(Run, session.receive(request_of(PIPELINE, 1, 21, sequence=k), "a", 0.0)).job
        session.complete(job, bytes(1000), 0.1)
    assert session._answers_bytes == sum(map(len, session._answers.values())) <= 5000
    job = only(Run, session.receive(request_of(PIPELINE, 1, 21, sequence=99), "a", 0.0)).job
    session.complete(job, bytes(6000), 0.1)
    assert session._answers_bytes == 0


def test_peers_are_bounded_and_their_state_is_dropped_with_them() -> None:
    session = edge_session(STATEFUL, max_peers=3)
    forgotten: list[Forget] = []
    for k in range(10):
        effects = session.receive(request_of(STATEFUL, 1, 1, order=0), f"peer{k}", 0.0)
        forgotten += every(Forget, effects)
        session.complete(only(Run, effects).job, 1, 0.1)
    assert len(session._peers) == 3
    assert [f.owner.split("/")[0] for f in forgotten] == [f"peer{k}" for k in range(7)]
    assert {f.digest for f in forgotten} == {STATEFUL.digest}
    assert ordered(session, 2, 1, peer="peer0").code == "state-lost"


def test_one_name_can_not_push_others_out() -> None:
    session = edge_session(STATEFUL, max_peers=20)
    assert isinstance(ordered(session, 1, 0, peer="good"), wire.Reply)
    for boot in range(1000):
        answered(session, hello_of(STATEFUL, boot=boot), "many")
    assert isinstance(ordered(session, 2, 1, peer="good"), wire.Reply)
    assert len(session._peers) < 20


def test_devices_that_share_a_name_do_not_disturb_each_other() -> None:
    """Without credentials all processes behind one address have the same name."""
    session = edge_session(STATEFUL)
    for boot in (1, 2):
        answered(session, hello_of(STATEFUL, boot=boot), "anonymous")
    for k in range(3):
        for boot in (1, 2):
            answer = ordered(session, 10 + k, k, peer="anonymous", boot=boot)
            assert isinstance(answer, wire.Reply)
            assert not answer.hello


def test_the_state_of_a_run_at_work_is_dropped_when_it_ends() -> None:
    session = edge_session(STATEFUL, max_peers=1)
    job = only(Run, session.receive(request_of(STATEFUL, 1, 1, order=0), "a", 0.0)).job
    assert not every(Forget, session.receive(hello_of(STATEFUL), "b", 0.0))
    effects = session.complete(job, 1, 0.1)
    assert only(Forget, effects).owner == job.owner
    assert isinstance(read(only(Send, effects).frame), wire.Reply)


def test_runtimes_and_planners_are_kept_for_served_pipelines_only() -> None:
    session = planning(PIPELINE)
    unknown = tuple(wire.PipelineHello(digest=bytes([k]) * 32, n=1) for k in range(200))
    answered(session, wire.encode(wire.Hello(boot=BOOT, sequence=1, pipelines=unknown)))
    peer = session._peers.get("a", BOOT)
    assert peer is not None
    assert peer.runtimes == {}
    assert peer.planners == {}
