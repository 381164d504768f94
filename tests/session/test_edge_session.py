"""The edge's half, method by method: checks, duplicates, order, what one device can do to another, and bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from splitiot import wire
from splitiot.errors import DeadlineExceeded
from splitiot.limits import Limits
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import Pipeline
from splitiot.planner import Planner
from splitiot.policies import Best, Policy
from splitiot.session import EdgeSession, ForgetState, RunPart, Send
from splitiot.topology import TierProfile, Topology
from tests.pipelines import SizedPipeline
from tests.session.support import (
    BOOT,
    EDGE_BOOT,
    LINK,
    OTHER,
    RUNTIME,
    Remembering,
    boot_of,
    edge_session,
    every,
    greeted,
    messages,
    numbers,
    only,
    plan_of,
    profile_of,
    read,
    request_of,
)

PIPELINE = numbers()
STATEFUL = Remembering()
REQUEST = request_of(PIPELINE, 1, 21)


def hello_of(pipeline: Pipeline, *, boot: bytes = BOOT, sequence: int = 1, told: Any = None, **more: Any) -> bytes:
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
    for run in every(RunPart, effects):
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
    job = only(RunPart, session.receive(request_of(PIPELINE, 1, 21, deadline_s=0.5), "a", 10.0, "to")).job
    assert (job.start, job.stop, job.payload, job.owner) == (1, 3, 21, None)
    assert (job.received_s, job.expires_s) == (10.0, 10.5)
    assert session.in_flight == 1
    send = only(Send, session.complete(job, 39, 10.2, EdgeTimes(0.01, 0.02, 0.1, 0.03)))
    assert (send.peer, send.reply_to) == ("a", "to")
    answer = read(send.frame)
    assert (answer.boot, answer.sequence, answer.edge_boot) == (BOOT, 1, EDGE_BOOT)
    assert answer.times == EdgeTimes(0.01, 0.02, 0.1, 0.03, pytest.approx(0.2))
    assert not answer.hello  # never greeted, but nobody plans here
    assert answer.runtime.hex() == RUNTIME.fingerprint
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
    assert (answer.code, answer.boot, answer.sequence) == ("bad-frame", wire.NOBODY, 0)
    assert session.counters.bad_frames == 1


def test_what_only_an_edge_sends_is_refused() -> None:
    session = edge_session(PIPELINE)
    answer = answered(session, wire.encode(wire.Busy(boot=boot_of(3), sequence=4, edge_boot=EDGE_BOOT)))
    assert (answer.code, answer.boot, answer.sequence) == ("bad-frame", boot_of(3), 4)


def test_frames_that_are_too_large_are_refused() -> None:
    session = edge_session(PIPELINE, limits=Limits(max_frame_bytes=500))
    assert answered(session, hello_of(PIPELINE)).max_frame_bytes == 500
    answer = answered(session, request_of(PIPELINE, 1, bytes(500)))
    assert answer.code == "bad-frame"
    assert "at most 500" in answer.message


def test_a_frame_of_exactly_the_maximum_is_taken() -> None:
    frame = request_of(PIPELINE, 1, bytes(500))
    session = edge_session(PIPELINE, limits=Limits(max_frame_bytes=len(frame)))
    assert every(RunPart, session.receive(frame, "a", 0.0))
    session = edge_session(PIPELINE, limits=Limits(max_frame_bytes=len(frame) - 1))
    assert answered(session, frame).code == "bad-frame"


def test_probes_come_back() -> None:
    session = edge_session(PIPELINE)
    frame = wire.encode(wire.Probe(boot=boot_of(1), sequence=2, echo_bytes=100), [bytes(4096)])
    effects = session.receive(frame, "a", 0.0)
    echo, buffers = wire.decode(only(Send, effects).frame)
    assert echo == wire.Echo(boot=boot_of(1), sequence=2, edge_boot=EDGE_BOOT)
    assert [len(b) for b in buffers] == [112]
    for size in (-1, 2**40):
        small = session.receive(wire.encode(wire.Probe(boot=boot_of(1), sequence=2, echo_bytes=size)), "a", 0.0)
        assert len(only(Send, small).frame) < 100


@pytest.mark.parametrize("runtime", [OTHER.fingerprint, "00", "00" * 32])
def test_exact_is_refused_where_the_runtimes_differ(runtime: str) -> None:
    session = edge_session(PIPELINE)
    answer = answered(session, request_of(PIPELINE, 1, 21, runtime=bytes.fromhex(runtime)))
    assert answer.code == "inexact"
    assert "made-up" in answer.message


def test_exact_needs_no_hello() -> None:
    """The edge may have forgotten this device, or be another process than the one that it greeted."""
    session = edge_session(PIPELINE)
    ours = bytes.fromhex(RUNTIME.fingerprint)
    answer = answered(session, request_of(PIPELINE, 1, 21, runtime=ours))
    assert isinstance(answer, wire.Reply)
    assert answer.runtime == ours


def test_exact_is_refused_where_the_runtime_is_not_known() -> None:
    session = EdgeSession([PIPELINE], boot=EDGE_BOOT, runtimes={})
    assert answered(session, request_of(PIPELINE, 1, 21, runtime=bytes(8))).code == "inexact"
    assert answered(session, request_of(PIPELINE, 1, 21)).runtime == b""


def test_where_results_are_wanted_is_up_to_the_request() -> None:
    session = edge_session(PIPELINE)
    assert answered(session, request_of(PIPELINE, 1, 21, sink="nowhere")).code == "bad-part"
    for number, (sink, cut, given) in enumerate([("edge", 3, 39), ("device", 1, 21), ("edge", 1, 21)]):
        turned = PIPELINE.with_sink(sink)  # type: ignore[arg-type]
        frame = request_of(turned, cut, given, sequence=number)
        job = only(RunPart, session.receive(frame, "a", 0.0)).job
        assert job.pipeline.sink == sink  # not spoilt by what another device asked for
        effects = session.complete(job, 39, 0.1)
        assert value_of(only(Send, effects).frame) == (39 if sink == "device" else None)


# duplicates


def test_a_duplicate_in_flight_waits_and_all_are_answered() -> None:
    session = edge_session(PIPELINE)
    job = only(RunPart, session.receive(REQUEST, "a", 0.0, "first")).job
    assert session.receive(REQUEST, "a", 0.1, "second") == []
    assert session.receive(REQUEST, "a", 0.2, "third") == []
    sends = session.complete(job, 39, 0.3)
    assert [s.reply_to for s in every(Send, sends)] == ["first", "second", "third"]
    assert len({s.frame for s in every(Send, sends)}) == 1
    assert session.complete(job, 40, 0.4) == []
    assert session.counters.duplicates == 2
    again = session.receive(REQUEST, "a", 0.5, "later")
    assert not every(RunPart, again)
    assert only(Send, again).frame == every(Send, sends)[0].frame
    assert only(Send, again).reply_to == "later"


def test_failures_of_a_run_are_remembered_too() -> None:
    session = edge_session(PIPELINE)
    job = only(RunPart, session.receive(REQUEST, "a", 0.0)).job
    answer = read(only(Send, session.complete(job, ZeroDivisionError("no"), 0.1)).frame)
    assert (answer.code, answer.message) == ("failed", "ZeroDivisionError: no")
    assert not every(RunPart, session.receive(REQUEST, "a", 0.2))


def test_the_same_id_of_others_is_another_request() -> None:
    session = edge_session(PIPELINE)
    session.receive(REQUEST, "a", 0.0)
    assert every(RunPart, session.receive(REQUEST, "b", 0.0))
    assert every(RunPart, session.receive(request_of(PIPELINE, 1, 21, boot=boot_of(12)), "a", 0.0))
    assert every(RunPart, session.receive(request_of(PIPELINE, 1, 21, sequence=2), "a", 0.0))


OTHERS: list[dict[str, Any]] = [
    {},  # but for the payload
    {"names": ("x",)},
    {"start": 0},
    {"codec": "zip9"},
    {"deadline_s": 1.0, "plan_id": 9},
    {"telemetry": {"battery": 0.5}},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_request_with_the_same_id_gets_no_answer_of_the_first(other: dict[str, Any]) -> None:
    """Two processes that were one before a fork count alike: each would get the other's value."""
    session = edge_session(PIPELINE)
    job = only(RunPart, session.receive(REQUEST, "a", 0.0)).job
    foreign = request_of(PIPELINE, 1, 22 if other == {} else 21, **other)
    refusals = [answered(session, foreign)]  # while the first one runs
    session.complete(job, 39, 0.1)
    refusals += [answered(session, foreign)]  # and when it has an answer
    for refusal in refusals:
        assert (refusal.code, refusal.boot, refusal.sequence) == ("duplicate-id", BOOT, 1)
        assert "forked" in refusal.message
    assert value_of(only(Send, session.receive(REQUEST, "a", 0.2)).frame) == 39


@pytest.mark.parametrize("size", [6, 100_000])
def test_arrays_are_compared_byte_for_byte(size: int) -> None:
    pipeline = SizedPipeline([4, size, 3])
    session = edge_session(pipeline)
    payload = np.arange(size).astype(np.uint8)
    frame = request_of(pipeline, 1, {"t1": payload})
    job = only(RunPart, session.receive(frame, "a", 0.0)).job
    session.complete(job, {"t2": np.zeros(3, np.uint8)}, 0.1)
    assert isinstance(answered(session, frame), wire.Reply)
    for index in (0, 3, size // 2, size - 1):
        changed = payload.copy()
        changed[index] ^= 1
        assert answered(session, request_of(pipeline, 1, {"t1": changed})).code == "duplicate-id"


def test_what_a_device_sends_again_is_the_same_request() -> None:
    """It says which attempt it is, and how much less time is left."""
    device = greeted(PIPELINE)
    plan = plan_of(PIPELINE, 1)
    _, effects = device.submit(plan, 21, now_s=1.0, deadline_s=60.0, telemetry={"battery": 0.5})
    first = only(Send, effects).frame
    again = only(Send, device.tick(30.0)).frame
    assert again != first
    assert read(again).attempt == 1
    session = edge_session(PIPELINE)
    answers = []
    for frame in (first, again, first):
        effects = session.receive(frame, "a", 0.0)
        for run in every(RunPart, effects):
            effects += session.complete(run.job, 39, 0.1)
        answers.append(only(Send, effects).frame)
    assert answers[0] == answers[1] == answers[2]
    assert session.counters.duplicates == 2


def test_the_answers_of_one_are_not_pushed_out_by_many_of_another() -> None:
    session = edge_session(PIPELINE)
    answered(session, REQUEST, "b")
    for k in range(2000):
        answered(session, request_of(PIPELINE, 1, k, sequence=k), "a")
    assert len(session._answers) == 1024
    assert not every(RunPart, session.receive(REQUEST, "b", 0.0)), "it was run"


def test_what_may_have_run_is_not_run_again_where_that_matters() -> None:
    """The answer is not remembered any more: results for the edge would be given twice, and a state moved twice."""
    session = edge_session(PIPELINE, STATEFUL, limits=Limits(max_answers=4))
    turned = PIPELINE.with_sink("edge")
    frames = [request_of(turned, 1, 21), request_of(STATEFUL, 1, 1, sequence=2, order=0)]
    for frame in frames:
        assert isinstance(answered(session, frame), wire.Reply)
    assert isinstance(answered(session, request_of(PIPELINE, 1, 21, sequence=3)), wire.Reply)
    for k in range(10, 20):
        answered(session, request_of(PIPELINE, 1, k, sequence=k))
    assert [answered(session, frame).code for frame in frames] == ["forgotten"] * 2
    assert isinstance(answered(session, request_of(PIPELINE, 1, 21, sequence=3)), wire.Reply), "of this it is run again"
    assert isinstance(answered(session, request_of(turned, 1, 21, sequence=30)), wire.Reply)


def test_only_so_many_duplicates_wait() -> None:
    session = edge_session(PIPELINE)
    job = only(RunPart, session.receive(REQUEST, "a", 0.0, 0)).job
    busy = 0
    for number in range(1, 100):
        busy += len(messages(session.receive(REQUEST, "a", 0.0, number)))
    waiting = len(session.complete(job, 39, 0.1))
    assert waiting <= 32
    assert waiting + busy == 100


def test_late_is_told_as_late() -> None:
    session = edge_session(PIPELINE)
    job = only(RunPart, session.receive(request_of(PIPELINE, 1, 21, deadline_s=0.5), "a", 10.0)).job
    assert job.late(10.49) is None
    error = job.late(10.5)
    assert isinstance(error, DeadlineExceeded)
    assert read(only(Send, session.complete(job, error, 10.6)).frame).code == "late"


@pytest.mark.parametrize("deadline_s", [0.0, -5.0, math.nan])
def test_senseless_deadlines_are_late(deadline_s: float) -> None:
    session = edge_session(PIPELINE)
    job = only(RunPart, session.receive(request_of(PIPELINE, 1, 21, deadline_s=deadline_s), "a", 10.0)).job
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
    job = only(RunPart, session.receive(REQUEST, "a", 0.0)).job
    answer = read(only(Send, session.complete(job, result, 0.1)).frame)
    assert answer.code == "failed"
    assert words in answer.message
    assert session.in_flight == 0


def test_long_words_of_an_error_are_cut() -> None:
    session = edge_session(PIPELINE)
    job = only(RunPart, session.receive(REQUEST, "a", 0.0)).job
    assert len(read(only(Send, session.complete(job, ValueError("x" * 10**6), 0.1)).frame).message) == 1000


# busy


def test_busy_says_when_to_come_back_and_runs_nothing() -> None:
    session = edge_session(PIPELINE, limits=Limits(max_in_flight=2, max_in_flight_per_name=2))
    jobs = [only(RunPart, session.receive(request_of(PIPELINE, 1, 21, sequence=k), "a", 0.0)).job for k in range(2)]
    answer = answered(session, request_of(PIPELINE, 1, 21, sequence=9), "b")
    assert isinstance(answer, wire.Busy)
    assert 0 < answer.retry_after_s < 10
    assert session.counters.busy == 1
    session.complete(jobs[0], 39, 0.1)
    assert isinstance(answered(session, request_of(PIPELINE, 1, 21, sequence=9), "b"), wire.Reply)


def test_probes_and_hellos_are_answered_while_busy() -> None:
    session = edge_session(PIPELINE, limits=Limits(max_in_flight=1))
    session.receive(REQUEST, "a", 0.0)
    assert isinstance(answered(session, hello_of(PIPELINE), "b"), wire.Welcome)
    assert isinstance(answered(session, wire.encode(wire.Probe(boot=boot_of(1), sequence=1)), "b"), wire.Echo)


# order


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
    effects = session.receive(request_of(STATEFUL, 2, 1, sequence=2, order=0, epoch=1), "a", 0.0)
    job = only(RunPart, effects).job
    assert job.reset
    assert job.owner
    session.complete(job, 1, 0.1)
    assert isinstance(ordered(session, 3, 1, epoch=1), wire.Reply)
    assert ordered(session, 4, 1).code == "bad-order", "from before the reset"
    assert ordered(session, 5, 3, epoch=2).code == "state-lost", "its first ones are missing"


def test_a_restarted_edge_says_that_the_state_is_lost() -> None:
    session = edge_session(STATEFUL)
    answer = ordered(session, 5, 4)
    assert answer.code == "state-lost"
    assert "reset()" in answer.message
    assert isinstance(ordered(session, 6, 0, epoch=1), wire.Reply)


@pytest.mark.parametrize("error", [ValueError("broke"), DeadlineExceeded("too late")])
def test_a_request_that_did_not_run_leaves_a_gap_that_is_not_hidden(error: Exception) -> None:
    session = edge_session(STATEFUL)
    ordered(session, 1, 0)
    job = only(RunPart, session.receive(request_of(STATEFUL, 1, 1, sequence=2, order=1), "a", 0.0)).job
    session.complete(job, error, 0.1)
    for sequence, order in ((3, 2), (4, 1), (5, 0), (6, -1)):
        assert ordered(session, sequence, order).code == "state-lost"
    assert isinstance(ordered(session, 7, 0, epoch=1), wire.Reply)


def test_one_at_a_time_for_a_stateful_pipeline() -> None:
    session = edge_session(STATEFUL)
    job = only(RunPart, session.receive(request_of(STATEFUL, 1, 1, sequence=1, order=0), "a", 0.0)).job
    assert isinstance(ordered(session, 2, 1), wire.Busy)
    assert isinstance(ordered(session, 1, 0, peer="b"), wire.Reply)
    session.complete(job, 1, 0.1)
    assert isinstance(ordered(session, 3, 1), wire.Reply)


def test_a_device_that_starts_anew_has_no_old_state() -> None:
    session = edge_session(STATEFUL)
    owners = set()
    for boot in map(boot_of, (1, 2)):
        job = only(RunPart, session.receive(request_of(STATEFUL, 1, 1, boot=boot, order=0), "a", 0.0)).job
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
    {"digest": PIPELINE.digest, "format": 1, "heads_s": 1, "tails_s": None},
]


@pytest.mark.parametrize("told", BROKEN)
def test_broken_profiles_make_no_planner(told: dict[str, Any]) -> None:
    session = planning(PIPELINE)
    assert isinstance(answered(session, hello_of(PIPELINE, told=told)), wire.Welcome)
    assert planned(session, "a", 1) is None


def test_a_profile_of_other_types_is_no_frame() -> None:
    answer = answered(planning(PIPELINE), hello_of(PIPELINE, told={"heads_s": {"x": [1]}}))
    assert isinstance(answer, wire.Failure)
    assert (answer.code, answer.boot) == ("bad-frame", wire.NOBODY)


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
        answered(session, hello_of(PIPELINE, told={}, boot=boot_of(k), parts=((0, 77),), sink="nowhere"), "b")
        answered(session, request_of(PIPELINE, 1, 21, sequence=k, sink="nowhere"), "b")
        assert planned(session, "a", k) == planned(alone, "a", k)
    assert session.counters.dropped_observations >= 20


def test_a_flood_of_observations_is_refused() -> None:
    session = planning(PIPELINE)
    answered(session, hello_of(PIPELINE, told=profile_of(PIPELINE, 0.1)))
    flood = tuple(Observation(plan_id=k, cut=1, head_s=0.1) for k in range(wire.MAX_OBSERVATIONS + 1))
    assert answered(session, request_of(PIPELINE, 1, 21, observations=flood)).code == "bad-frame"
    assert isinstance(answered(session, request_of(PIPELINE, 2, 21, observations=flood[1:])), wire.Reply)


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
    session = edge_session(PIPELINE, limits=Limits(max_answers=10, max_answer_bytes=5000))
    for k in range(50):
        answered(session, request_of(PIPELINE, 1, 21, sequence=k))
    assert len(session._answers) == 10
    for k in range(50, 60):
        job = only(RunPart, session.receive(request_of(PIPELINE, 1, 21, sequence=k), "a", 0.0)).job
        session.complete(job, bytes(1000), 0.1)
    assert 3000 < session._answers.nbytes <= 5000
    job = only(RunPart, session.receive(request_of(PIPELINE, 1, 21, sequence=99), "a", 0.0)).job
    session.complete(job, bytes(6000), 0.1)  # larger than all of it: remembered neither
    assert 3000 < session._answers.nbytes <= 5000


def test_peers_are_bounded_and_one_more_is_told_busy() -> None:
    session = edge_session(STATEFUL, limits=Limits(max_peers=3, ttl_s=10.0))
    kinds = []
    for k in range(5):
        kinds += [type(ordered(session, 1, 0, peer=f"peer{k}"))]
    assert kinds == [wire.Reply] * 3 + [wire.Busy] * 2
    hello = answered(session, hello_of(STATEFUL), "peer4", 9.0)
    assert isinstance(hello, wire.Busy)
    assert 0 < hello.retry_after_s < 10
    assert (len(session._peers), session.counters.full) == (3, 3)
    assert isinstance(ordered(session, 2, 1, peer="peer0"), wire.Reply)  # none of them lost anything


def test_the_state_of_who_is_silent_for_long_is_dropped_and_told_as_lost() -> None:
    session = edge_session(STATEFUL, limits=Limits(ttl_s=10.0))
    for k in range(7):
        ordered(session, 1, 0, peer=f"peer{k}")
    forgotten = every(ForgetState, session.receive(hello_of(STATEFUL), "new", 10.1))
    assert [f.owner[:2] for f in forgotten] == [(f"peer{k}", BOOT) for k in range(7)]
    assert {f.digest for f in forgotten} == {STATEFUL.digest}
    assert BOOT.hex() not in repr(forgotten[0].owner), "who knows it can ask in the device's place"
    assert ordered(session, 2, 1, peer="peer0").code == "state-lost"


def test_a_probe_or_a_duplicate_is_heard_as_well() -> None:
    session = edge_session(STATEFUL, limits=Limits(ttl_s=10.0))
    ordered(session, 1, 0)
    ordered(session, 1, 0, peer="b")
    for k in range(1, 5):
        session.receive(wire.encode(wire.Probe(boot=BOOT, sequence=99)), "a", 8.0 * k)
        session.receive(request_of(STATEFUL, 1, 1, sequence=1, order=0), "b", 8.0 * k)
    assert not every(ForgetState, session.receive(hello_of(STATEFUL), "new", 33.0))


def test_one_name_can_not_push_others_out() -> None:
    session = edge_session(STATEFUL, limits=Limits(max_peers=20, max_peers_per_name=10))
    assert isinstance(ordered(session, 1, 0, peer="good"), wire.Reply)
    for boot in map(boot_of, range(1000)):
        answered(session, hello_of(STATEFUL, boot=boot), "many")
    assert isinstance(ordered(session, 2, 1, peer="good"), wire.Reply)
    assert len(session._peers) == 11
    assert isinstance(ordered(session, 1, 0, peer="another"), wire.Reply)


def test_devices_that_share_a_name_do_not_disturb_each_other() -> None:
    """Without credentials all processes behind one address have the same name."""
    session = edge_session(STATEFUL)
    for boot in map(boot_of, (1, 2)):
        answered(session, hello_of(STATEFUL, boot=boot), "anonymous")
    for k in range(3):
        for boot in map(boot_of, (1, 2)):
            answer = ordered(session, 10 + k, k, peer="anonymous", boot=boot)
            assert isinstance(answer, wire.Reply)
            assert not answer.hello


def test_the_state_of_a_run_at_work_is_dropped_when_it_ends() -> None:
    session = edge_session(STATEFUL, limits=Limits(ttl_s=1.0))
    job = only(RunPart, session.receive(request_of(STATEFUL, 1, 1, order=0), "a", 0.0)).job
    assert not every(ForgetState, session.receive(hello_of(STATEFUL), "b", 2.0))
    effects = session.complete(job, 1, 0.1)
    assert only(ForgetState, effects).owner == job.owner
    assert isinstance(read(only(Send, effects).frame), wire.Reply)


def test_runtimes_and_planners_are_kept_for_served_pipelines_only() -> None:
    session = planning(PIPELINE)
    unknown = tuple(wire.PipelineHello(digest=bytes([k]) * 32, n=1) for k in range(wire.MAX_PIPELINES))
    hello = wire.encode(wire.Hello(boot=BOOT, sequence=1, pipelines=unknown))
    assert isinstance(answered(session, hello), wire.Welcome)
    peer = session._peers.get("a", BOOT)
    assert peer is not None
    assert peer.held == {}
    assert peer.planners == {}
