"""The device's half, method by method: what it asks for, what it makes of answers, and when it gives up."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from splitiot import wire
from splitiot.errors import (
    AuthenticationError,
    DeadlineExceeded,
    EdgeUnavailable,
    LocalProtocolError,
    Overloaded,
    RemoteError,
    StepError,
    TransportError,
)
from splitiot.observation import EdgeTimes, Observation
from splitiot.session import DeviceSession, EdgeProfile, NewObservation, RequestDone, RunLocal, Send
from splitiot.session._breaker import CAP_S
from splitiot.session._pending import NO_CONTENT
from tests.session.support import (
    BOOT,
    EDGE_BOOT,
    OTHER,
    RUNTIME,
    Remembering,
    boot_of,
    every,
    greeted,
    messages,
    numbers,
    only,
    plan_of,
    profile_of,
    read,
    reply,
    welcome,
)

PIPELINE = numbers()
PLAN = plan_of(PIPELINE, 1)


def submitted(session: DeviceSession, payload: object = 21, *, now_s: float = 1.0, **more: Any) -> tuple[int, Any]:
    """Submit at cut 1 and return the sequence and the request that was sent."""
    more = {"deadline_s": now_s + 1.0, "finish_s": 0.1} | more
    sequence, effects = session.submit(PLAN, payload, now_s=now_s, **more)
    (request,) = messages(effects)
    return sequence, request


# greeting


def test_it_greets_measures_and_is_up() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT, runtime=RUNTIME, parts=[(0, 3), (0, 1)])
    assert not session.settled
    assert not session.edge_up(0.0)
    (hello,) = messages(session.tick(0.0))
    assert isinstance(hello, wire.Hello)
    (own,) = hello.pipelines
    assert own.digest.hex() == PIPELINE.digest
    assert own.parts == ((0, 3), (0, 1))
    assert own.runtime == ("made-up", "1", "default", "none")
    assert hello.want_profiles == (own.digest,)
    assert hello.profiles == ()
    assert session.tick(0.1) == []  # one hello at a time
    (bare,) = messages(session.receive(welcome(hello, PIPELINE), 0.2))
    assert isinstance(bare, wire.Probe)
    assert session.edge_up(0.2)
    assert not session.settled
    echo = wire.encode(wire.Echo(boot=BOOT, sequence=bare.sequence, edge_boot=EDGE_BOOT, residence_s=0.01))
    effects = session.receive(echo, 0.25)
    seen = only(NewObservation, effects).observation
    assert seen.probe
    assert seen.network_s == pytest.approx(0.04)
    padded = only(Send, effects).frame
    assert len(padded) > 4000  # a bare and a padded one tell round trip and bandwidth apart
    echo = wire.encode(wire.Echo(boot=BOOT, sequence=read(padded).sequence, edge_boot=EDGE_BOOT))
    seen = only(NewObservation, session.receive(echo, 0.3)).observation
    assert seen.sent_bytes == len(padded)
    assert session.settled
    assert session.trouble is None


def test_a_lost_hello_is_said_again_with_growing_waits_and_never_for_good() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT)
    times, now_s = [], 0.0
    while now_s < 60:
        if messages(session.tick(now_s)):
            times.append(now_s)
        now_s += 0.05
    gaps = [b - a for a, b in itertools.pairwise(times)]
    # each has a lease of 2 s, and that counts as part of the wait behind it
    assert gaps == [pytest.approx(2.0, abs=0.06)] * len(gaps)
    assert session.outages == len(gaps)
    assert session.trouble
    (hello,) = [m for m in messages(session.tick(70.0)) if isinstance(m, wire.Hello)]
    session.receive(welcome(hello, PIPELINE), 70.1)
    assert session.edge_up(70.1)


def test_an_answer_to_an_older_hello_is_ignored() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT)
    (first,) = messages(session.tick(0.0))
    (second,) = messages(session.tick(2.5))
    assert session.receive(welcome(first, PIPELINE), 3.1) == []
    assert not session.edge_up(3.1)
    session.receive(welcome(second, PIPELINE), 3.2)
    assert session.edge_up(3.2)


def test_an_edge_without_the_pipeline_is_of_no_use_until_it_has_it() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT, runtime=RUNTIME)
    (hello,) = messages(session.tick(0.0))
    session.receive(welcome(hello, PIPELINE, served={"digest": bytes(32)}), 0.1)
    assert not session.edge_up(0.1)
    assert PIPELINE.digest[:12] in session.refusal == session.trouble.reason
    assert session.settled
    assert session.tick(1.0) == []
    (hello,) = messages(session.tick(11.0))  # it may have been updated
    session.receive(welcome(hello, PIPELINE), 11.1)
    assert session.edge_up(11.1)
    assert session.refusal == ""


@pytest.mark.parametrize(
    ("runtime", "up"),
    [(("made-up", "1", "default", "none"), True), (("made-up", "2", "default", "none"), False), (None, False)],
)
def test_exact_asks_for_the_same_runtime(runtime: tuple[str, str, str, str] | None, up: bool) -> None:
    session = DeviceSession(PIPELINE, boot=BOOT, runtime=RUNTIME, exact=True)
    (hello,) = messages(session.tick(0.0))
    session.receive(welcome(hello, PIPELINE, served={"runtime": runtime}), 0.1)
    assert session.edge_up(0.1) is up
    assert session.exact is up
    assert ("exact results were asked for" in session.refusal) is not up


def test_profiles_go_both_ways_when_they_are_asked_for() -> None:
    own, theirs = profile_of(PIPELINE), profile_of(PIPELINE).scaled(0.5)
    session = DeviceSession(PIPELINE, boot=BOOT, profile=own)
    (hello,) = messages(session.tick(0.0))
    assert hello.profiles == ()
    broken = {"format": 1, "digest": PIPELINE.digest, "heads_s": [math.nan], "tails_s": [0.0]}
    told, wanted = (broken | {"digest": "ab"}, theirs.to_dict(), broken), (bytes.fromhex(PIPELINE.digest),)
    effects = session.receive(welcome(hello, PIPELINE, profiles=told, want_profiles=wanted), 0.1)
    assert only(EdgeProfile, effects).profile.whole_s == theirs.whole_s
    (again,) = [m for m in messages(effects) if isinstance(m, wire.Hello)]
    assert again.profiles == (own.to_dict(),)
    assert again.want_profiles == ()
    # an edge that keeps asking gets no endless answers
    wanting = welcome(again, PIPELINE, want_profiles=(bytes.fromhex(PIPELINE.digest),))
    assert not [m for m in messages(session.receive(wanting, 0.2)) if isinstance(m, wire.Hello)]


def test_a_profile_that_is_measured_later_is_still_told() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT)
    (hello,) = messages(session.tick(0.0))
    wanting = welcome(hello, PIPELINE, want_profiles=(bytes.fromhex(PIPELINE.digest),))
    assert not [m for m in messages(session.receive(wanting, 0.1)) if isinstance(m, wire.Hello)]
    assert not messages(session.tick(0.2))
    session.profile = profile_of(PIPELINE)
    (again,) = messages(session.tick(0.3))
    assert again.profiles == (profile_of(PIPELINE).to_dict(),)
    session.receive(welcome(again, PIPELINE), 0.4)
    assert not messages(session.tick(0.5))


def test_the_link_is_measured_when_it_was_idle_for_long() -> None:
    session = greeted(PIPELINE)
    assert session.rest(0.5) == []
    (probe,) = messages(session.rest(1.5))
    assert isinstance(probe, wire.Probe)
    assert session.rest(1.6) == []  # one at a time
    submitted(session, now_s=5.0)
    assert session.rest(9.0) == []  # not while a request uses the link


def test_probes_that_get_lost_end_the_contact() -> None:
    session = greeted(PIPELINE)
    for start in (2.0, 5.0):
        assert session.edge_up(start)
        assert messages(session.rest(start))
        session.tick(start + 2.5)
    assert not session.edge_up(8.0)


@pytest.mark.parametrize("told_s", [math.nan, -1.0, -math.inf])
def test_a_senseless_busy_does_not_close_the_edge_for_ever(told_s: float) -> None:
    session = greeted(PIPELINE)
    _, request = submitted(session)
    busy = wire.Busy(boot=BOOT, sequence=request.sequence, edge_boot=EDGE_BOOT, retry_after_s=told_s)
    session.receive(wire.encode(busy), 1.1)
    assert session.edge_up(1.2)


@pytest.mark.parametrize("told_s", [0.5, math.inf, 1e9])
def test_busy_is_respected_for_as_long_as_the_breaker_at_most(told_s: float) -> None:
    session = greeted(PIPELINE)
    sequence, request = submitted(session)
    busy = wire.Busy(boot=BOOT, sequence=request.sequence, edge_boot=EDGE_BOOT, retry_after_s=told_s)
    run = only(RunLocal, session.receive(wire.encode(busy), 1.1))
    assert (run.sequence, run.start, run.stop, run.payload) == (sequence, 1, 3, 21)
    assert not session.edge_up(1.1 + min(told_s, CAP_S) - 0.01)
    assert session.edge_up(1.1 + min(told_s, CAP_S) + 0.01)
    assert not messages(session.tick(1.2))  # a busy edge is not greeted anew


def test_busy_without_the_part_is_overloaded() -> None:
    session = greeted(PIPELINE)
    _, request = submitted(session, finish_s=None)
    busy = wire.Busy(boot=BOOT, sequence=request.sequence, edge_boot=EDGE_BOOT, retry_after_s=0.5)
    assert session.receive(wire.encode(busy), 1.1) == []
    assert 1.6 <= (session.wake_s() or 0.0) <= 1.65  # it is sent again when the edge said, and a little later
    (again,) = messages(session.tick(1.65))
    assert (again.sequence, again.attempt) == (request.sequence, 1)
    assert again.deadline_s == pytest.approx(2.0 - 1.65)
    assert session.receive(wire.encode(busy), 1.7) == []
    outcome = only(RequestDone, session.tick(2.0)).outcome
    assert isinstance(outcome.error, Overloaded)
    assert outcome.error.retry_after_s == 0.5
    assert session.counters.retries == 1


# requests


def test_a_request_says_all_and_its_answer_ends_it() -> None:
    session = greeted(PIPELINE)
    sequence, effects = session.submit(
        PLAN,
        21,
        now_s=1.0,
        begun_s=0.9,
        deadline_s=1.5,
        head_s=0.05,
        finish_s=0.1,
        telemetry={"battery": 0.5, "bad": math.nan},
    )
    sent = only(Send, effects).frame
    request = read(sent)
    assert (request.boot, request.sequence, request.start, request.stop) == (BOOT, sequence, 1, 3)
    assert request.digest.hex() == PIPELINE.digest
    assert request.fingerprint.hex() == PIPELINE.boundary(1).fingerprint
    assert request.deadline_s == pytest.approx(0.5)
    assert request.telemetry == {"battery": 0.5}
    assert (request.plan_id, request.codec, request.sink) == (PLAN.id, "raw", "device")
    assert (request.order, request.epoch, request.holder, request.runtime, request.attempt) == (None, 0, b"", b"", 0)
    times = EdgeTimes(compute_s=0.02, residence_s=0.03)
    frame = reply(request, 39, times=times)
    effects = session.receive(frame, 1.2)
    done = only(RequestDone, effects)
    assert done.sequence == sequence
    outcome = done.outcome
    assert (outcome.value, outcome.source, outcome.exact, outcome.error) == (39, "edge", True, None)
    assert outcome.latency_s == pytest.approx(0.3)
    assert outcome.plan is PLAN
    expected = Observation(
        plan_id=PLAN.id,
        cut=1,
        head_s=0.05,
        tail_s=0.02,
        edge=times,
        round_trip_s=outcome.observation.round_trip_s,
        sent_bytes=len(sent),
        received_bytes=len(frame),
    )
    assert outcome.observation == expected == only(NewObservation, effects).observation
    assert expected.round_trip_s == pytest.approx(0.2)
    assert effects.index(done) > effects.index(only(NewObservation, effects))  # learnt before it is given
    assert session.pending == 0
    assert session.receive(frame, 1.3) == []  # a duplicate tells nothing
    assert session.counters.late_replies == 1


def test_other_runtimes_are_computed_but_not_exact() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT, runtime=OTHER)
    (hello,) = messages(session.tick(0.0))
    session.receive(welcome(hello, PIPELINE), 0.0)
    _, request = submitted(session)
    outcome = only(RequestDone, session.receive(reply(request, 39), 1.1)).outcome
    assert outcome.value == 39
    assert not outcome.exact


@pytest.mark.parametrize(
    ("runtime", "exact"), [(RUNTIME.fingerprint, True), (OTHER.fingerprint, False), ("", False), ("00" * 8, False)]
)
def test_each_answer_says_whether_it_is_exact_whoever_gave_it(runtime: str, exact: bool) -> None:
    """An edge that restarted, or another process of it, which this device has not greeted."""
    session = greeted(PIPELINE)
    _, request = submitted(session)
    effects = session.receive(reply(request, 39, edge_boot=boot_of(23), runtime=bytes.fromhex(runtime)), 1.1)
    outcome = only(RequestDone, effects).outcome
    assert (outcome.value, outcome.exact) == (39, exact)
    (hello,) = messages(effects)
    assert isinstance(hello, wire.Hello)
    other = ("made-up", "2", "default", "none")
    session.receive(welcome(hello, PIPELINE, edge_boot=boot_of(23), served={"runtime": other}), 1.2)
    assert not session.exact


def test_several_answers_that_ask_for_a_hello_cause_one() -> None:
    session = greeted(PIPELINE)
    requests = [submitted(session)[1] for _ in range(3)]
    hellos = []
    for request in requests:
        effects = session.receive(reply(request, 1, hello=True, edge_boot=boot_of(23)), 1.1)
        hellos += [m for m in messages(effects) if isinstance(m, wire.Hello)]
    assert len(hellos) == 1


def test_silence_is_hedged_in_time_and_the_first_answer_wins() -> None:
    session = greeted(PIPELINE, lossy=False)
    sequence, request = submitted(session, deadline_s=2.0, finish_s=0.3)
    assert session.wake_s() == pytest.approx(2.0 - 0.3 - 0.005)
    assert session.tick(1.69) == []
    effects = session.tick(1.7)
    assert only(RunLocal, effects).payload == 21
    bound = only(NewObservation, effects).observation
    assert bound.censored
    assert bound.round_trip_s == pytest.approx(0.7)
    assert session.tick(1.8) == []  # once
    assert session.wake_s() is None  # the finish ends it
    done = only(RequestDone, session.local_done(sequence, 39, 0.25, 1.95))
    assert (done.outcome.value, done.outcome.source, done.outcome.exact) == (39, "hedge", True)
    assert done.outcome.observation is not None
    assert done.outcome.observation.local_s == 0.25
    late = session.receive(reply(request, 39, times=EdgeTimes(0, 0, 0.1, 0, 0.1)), 2.5)
    seen = only(NewObservation, late).observation  # late: it only teaches
    assert seen.round_trip_s == pytest.approx(1.5)
    assert not every(RequestDone, late)
    assert session.counters.late_replies == 1


def test_an_answer_during_the_hedge_wins() -> None:
    session = greeted(PIPELINE)
    sequence, request = submitted(session, deadline_s=2.0, finish_s=0.3)
    session.tick(1.7)
    done = only(RequestDone, session.receive(reply(request, 39), 1.8))
    assert done.outcome.source == "edge"
    assert session.local_done(sequence, 38, 0.1, 1.85) == []


def test_no_hedge_that_could_not_finish_in_time() -> None:
    session = greeted(PIPELINE)
    sequence, _ = submitted(session, deadline_s=1.1, finish_s=0.3)
    assert session.wake_s() == 1.1
    assert session.tick(1.09) == []
    effects = session.tick(1.1)
    outcome = only(RequestDone, effects).outcome
    assert only(RequestDone, effects).sequence == sequence
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.source == "none"
    assert any(seen.observation.censored for seen in every(NewObservation, effects))


def test_a_hedge_that_comes_too_late_is_a_typed_failure() -> None:
    session = greeted(PIPELINE)
    sequence, _ = submitted(session, deadline_s=2.0, finish_s=0.3)
    session.tick(1.7)
    outcome = only(RequestDone, session.local_done(sequence, 39, 0.5, 2.2)).outcome
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.value is None
    assert not outcome.exact


def test_an_answer_after_the_deadline_only_teaches() -> None:
    session = greeted(PIPELINE)
    _, request = submitted(session, deadline_s=1.5)
    effects = session.receive(reply(request, 39), 1.6)
    outcome = only(RequestDone, effects).outcome
    assert isinstance(outcome.error, DeadlineExceeded)
    assert only(NewObservation, effects).observation.round_trip_s == pytest.approx(0.6)


@pytest.mark.parametrize("deadline_s", [1.0, 0.5, -math.inf])
def test_nothing_is_sent_after_the_deadline_and_the_edge_is_not_blamed(deadline_s: float) -> None:
    session = greeted(PIPELINE)
    for _ in range(5):
        _, effects = session.submit(PLAN, 21, now_s=1.0, deadline_s=deadline_s, finish_s=0.1)
        assert isinstance(only(RequestDone, effects).outcome.error, DeadlineExceeded)
        assert not messages(effects)
    assert session.edge_up(1.0)
    assert session.counters.offloaded == 0


def test_an_edge_that_had_no_time_is_not_blamed_but_a_silent_one_is() -> None:
    session = greeted(PIPELINE)
    assert PLAN.latency_s > 0.01
    for _ in range(3):
        submitted(session, now_s=1.0, deadline_s=1.001, finish_s=None)
        assert any(s.observation.censored for s in every(NewObservation, session.tick(1.002)))
    assert session.edge_up(1.01)
    for k in range(2):
        submitted(session, now_s=2.0 + k, deadline_s=2.5 + k, finish_s=None)
        session.tick(2.5 + k)
    assert not session.edge_up(3.6)


@pytest.mark.parametrize("code", ["bad-boundary", "unknown-pipeline", "failed", "late"])
def test_a_refusal_is_finished_locally_or_told(code: str) -> None:
    session = greeted(PIPELINE)
    sequence, request = submitted(session)
    failure = wire.Failure(boot=BOOT, sequence=request.sequence, edge_boot=EDGE_BOOT, code=code, message="no")
    only(RunLocal, session.receive(wire.encode(failure), 1.1))
    outcome = only(RequestDone, session.local_done(sequence, 39, 0.1, 1.2)).outcome
    assert (outcome.value, outcome.source) == (39, "fallback")
    _, request = submitted(session, finish_s=None)
    failure = wire.Failure(boot=BOOT, sequence=request.sequence, edge_boot=EDGE_BOOT, code=code, message="no")
    error = only(RequestDone, session.receive(wire.encode(failure), 1.1)).outcome.error
    assert isinstance(error, RemoteError)
    assert (error.code, str(error)) == (code, "no")


def test_a_finish_that_raises_is_a_typed_failure() -> None:
    session = greeted(PIPELINE)
    sequence, _ = submitted(session)
    session.tick(1.99)
    outcome = only(RequestDone, session.local_done(sequence, KeyError("x"), 0.0, 1.99)).outcome
    assert isinstance(outcome.error, StepError)
    assert isinstance(outcome.error.__cause__, KeyError)


def test_what_the_transport_could_not_carry() -> None:
    session = greeted(PIPELINE)
    sequence, effects = session.submit(PLAN, 21, now_s=1.0, deadline_s=2.0, finish_s=0.1)
    frame = only(Send, effects).frame
    assert only(RunLocal, session.failed(frame, TransportError("cut"), 1.1)).sequence == sequence
    assert session.failed(frame, TransportError("cut"), 1.2) == []
    assert not session.edge_up(1.2)  # told, so at once
    only(RequestDone, session.local_done(sequence, 39, 0.1, 1.3))
    _, effects = session.submit(PLAN, 21, now_s=1.4, deadline_s=2.0, finish_s=None)
    assert not effects  # it may come back in time
    assert isinstance(only(RequestDone, session.tick(2.0)).outcome.error, EdgeUnavailable)


def test_news_of_an_old_failure_does_not_end_a_new_contact() -> None:
    session = greeted(PIPELINE)
    sequence, effects = session.submit(PLAN, 21, now_s=1.0, deadline_s=1.5, finish_s=0.1)
    frame = only(Send, effects).frame
    session.tick(1.45)
    session.local_done(sequence, 39, 0.1, 1.5)
    assert session.edge_up(2.0)
    assert session.failed(frame, TransportError("timed out after ten seconds"), 11.0) == []
    assert session.edge_up(11.0)


def test_a_transport_that_lost_everything() -> None:
    session = greeted(PIPELINE)
    first, _ = submitted(session)
    second, _ = submitted(session, finish_s=None)
    effects = session.broken(ConnectionResetError("gone"), 1.1)
    assert only(RunLocal, effects).sequence == first
    assert not session.edge_up(1.1)
    (_hello,) = [m for m in messages(session.tick(1.4)) if isinstance(m, wire.Hello)]
    done = only(RequestDone, session.tick(2.0))
    assert done.sequence == second
    assert isinstance(done.outcome.error, EdgeUnavailable)
    assert isinstance(done.outcome.error.__cause__, ConnectionResetError)


def test_a_refused_credential_is_told() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT)
    hello = only(Send, session.tick(0.0)).frame
    session.failed(hello, AuthenticationError("401: a valid bearer token is needed"), 0.1)
    assert session.settled
    assert "bearer token" in session.trouble.reason
    assert not session.trouble.heals
    _, effects = session.submit(PLAN, 21, now_s=0.2, deadline_s=1.0, finish_s=None)
    assert not effects
    assert "bearer token" in str(only(RequestDone, session.tick(1.0)).outcome.error)
    session = greeted(PIPELINE)
    _, effects = session.submit(PLAN, 21, now_s=1.0, deadline_s=2.0, finish_s=None)
    effects = session.failed(only(Send, effects).frame, AuthenticationError("403: it was withdrawn"), 1.1)
    assert "withdrawn" in str(only(RequestDone, effects).outcome.error)  # sent again it would be refused again


@pytest.mark.parametrize(
    "answer",
    [
        {"codec": "zstd"},
        {"names": ("x",), "payload": None},
        {"arrays": (("int8", (4,), 9),)},
        {"payload": wire.pack((1,)).payload, "names": None, "arrays": (("int8", (2**63,), 0),)},
    ],
)
def test_a_result_that_does_not_fit_is_finished_locally(answer: dict[str, object]) -> None:
    session = greeted(PIPELINE)
    sequence, request = submitted(session)
    told = {"edge_boot": EDGE_BOOT} | answer
    frame = wire.encode(
        wire.Reply(boot=BOOT, sequence=request.sequence, **told), [bytes(9)] if "arrays" in answer else ()
    )
    effects = session.receive(frame, 1.1)
    if not effects:  # not even a frame
        assert session.counters.bad_frames == 1
        return
    assert only(RunLocal, effects).sequence == sequence
    assert session.counters.bad_frames == 1


def test_noise_and_frames_for_others_change_nothing() -> None:
    session = greeted(PIPELINE)
    _, request = submitted(session)
    boot, sequence = request.boot, request.sequence
    noise = [
        b"",
        b"garbage",
        wire.encode(wire.Reply(boot=boot_of(12), sequence=sequence, edge_boot=EDGE_BOOT)),
        wire.encode(wire.Reply(boot=wire.NOBODY, sequence=sequence, edge_boot=EDGE_BOOT)),
        wire.encode(wire.Hello(boot=boot, sequence=sequence)),
        wire.encode(wire.Probe(boot=boot, sequence=sequence)),
        wire.encode(request),
    ]
    for frame in noise:
        assert session.receive(frame, 1.1) == []
    assert session.counters.bad_frames == len(noise)
    unreadable = wire.Failure(boot=wire.NOBODY, sequence=0, edge_boot=EDGE_BOOT, code="bad-frame")
    assert session.receive(wire.encode(unreadable), 1.1) == []
    assert session.pending == 1


def test_what_can_not_cross_and_what_is_too_large() -> None:
    session = greeted(PIPELINE, answer=lambda hello, pipeline: welcome(hello, pipeline, max_frame_bytes=2000))
    with pytest.raises(LocalProtocolError, match="a set can't cross"):
        session.submit(PLAN, {1, 2}, now_s=1.0, deadline_s=2.0)
    with pytest.raises(LocalProtocolError, match="nothing crosses at cut 3"):
        session.submit(plan_of(PIPELINE, 3), 1, now_s=1.0, deadline_s=2.0)
    assert session.pending == 0
    _, effects = session.submit(PLAN, bytes(3000), now_s=1.0, deadline_s=2.0, finish_s=0.1)
    assert only(RunLocal, effects).payload == bytes(3000)
    _, effects = session.submit(PLAN, bytes(3000), now_s=1.0, deadline_s=2.0)
    assert "the edge accepts 2000" in str(only(RequestDone, effects).outcome.error)


def test_a_request_of_exactly_the_maximum_is_sent() -> None:
    def sends(most: int) -> list[Send]:
        session = greeted(PIPELINE, answer=lambda hello, pipeline: welcome(hello, pipeline, max_frame_bytes=most))
        return every(Send, session.submit(PLAN, bytes(3000), now_s=1.0, deadline_s=2.0)[1])

    (roomy,) = sends(4000)
    (exact,) = sends(len(roomy.frame))
    assert len(exact.frame) == len(roomy.frame)
    assert sends(len(exact.frame) - 1) == []


def test_results_wanted_on_the_edge() -> None:
    pipeline = numbers(sink="edge")
    session = greeted(pipeline, lossy=False)
    plan = plan_of(pipeline, 3)
    _, effects = session.submit(plan, 39, now_s=1.0, deadline_s=2.0, finish_s=0.1)
    (request,) = messages(effects)
    assert (request.start, request.stop, request.sink) == (3, 3, "edge")
    assert session.wake_s() == 2.0  # finishing locally would not bring it to the edge
    outcome = only(RequestDone, session.receive(reply(request, None), 1.1)).outcome
    assert (outcome.ok, outcome.value, outcome.source) == (True, None, "edge")
    assert session.pending == 0


# what an edge that plans is told


def test_observations_are_told_once_answered_and_again_if_not() -> None:
    session = greeted(PIPELINE)
    _, first = submitted(session)
    probes = first.observations
    assert all(seen.probe for seen in probes)
    session.receive(reply(first, 39), 1.1)
    _, second = submitted(session, now_s=1.2, deadline_s=1.4, finish_s=None)
    assert [seen.plan_id for seen in second.observations] == [PLAN.id]
    session.tick(1.4)
    _, third = submitted(session, now_s=1.5)
    told = third.observations
    assert told[0] == second.observations[0]
    assert any(seen.censored for seen in told)
    session.receive(reply(third, 39), 1.6)
    _, fourth = submitted(session, now_s=1.7)
    assert len(fourth.observations) == 1


def test_what_is_to_be_told_is_bounded() -> None:
    session = greeted(PIPELINE)
    for number in range(1000):
        session.ran_alone(Observation(plan_id=number, cut=3, head_s=0.1), 0.0)
    assert session.outbox.dropped >= 1000 - 128
    _, request = submitted(session)
    assert len(request.observations) == 32
    assert request.observations[0].plan_id == 1000 - 128


def test_the_newest_placement_is_taken_once_and_a_senseless_one_not() -> None:
    session = greeted(PIPELINE)
    assert session.take_next() is None
    for cuts in ((2,), (1,), (), (1, 2)):
        _, request = submitted(session)
        session.receive(
            reply(request, 39, next=wire.NextPlacement(plan_id=7, cuts=cuts, codecs=("raw",) * len(cuts))), 1.1
        )
    taken = session.take_next()
    assert taken is not None
    assert taken[0].cuts == (1,)
    assert taken[1] == pytest.approx(1.1 + 1.0)
    assert session.take_next() is None


# order


def test_requests_of_stateful_pipelines_are_numbered_and_never_finished_locally() -> None:
    pipeline = Remembering()
    session = greeted(pipeline)
    plan = plan_of(pipeline, 1)
    orders = []
    for _ in range(3):
        _, effects = session.submit(plan, 1, now_s=1.0, deadline_s=2.0, finish_s=0.1)
        (request,) = messages(effects)
        orders.append((request.epoch, request.order))
    assert orders == [(0, 0), (0, 1), (0, 2)]
    assert not every(RunLocal, session.tick(1.99))  # a local finish would not know the edge's state
    effects = session.broken(TransportError("cut"), 1.99)  # each was sent again before, so there is no token left
    assert len(every(RequestDone, effects)) == 3
    assert session.pending == 0
    (hello,) = [m for m in messages(session.tick(3.0)) if isinstance(m, wire.Hello)]
    session.receive(welcome(hello, pipeline), 2.0)
    session.reset()
    _, effects = session.submit(plan, 1, now_s=3.0, deadline_s=4.0)
    (request,) = messages(effects)
    assert (request.epoch, request.order) == (1, 0)  # what is from before the reset must not fit behind it
    _, effects = session.submit(plan, 1, now_s=3.0, deadline_s=4.0)
    (request,) = messages(effects)
    assert (request.epoch, request.order) == (1, 1)


def test_a_gap_in_a_stateful_pipeline_is_not_hidden() -> None:
    """The head ran: a request that then could not be sent must leave a gap that the edge notices."""
    pipeline = Remembering()
    session = greeted(pipeline)
    plan = plan_of(pipeline, 1)
    with pytest.raises(LocalProtocolError):
        session.submit(plan, {1}, now_s=1.0, deadline_s=2.0)
    session.submit(plan, 1, now_s=1.0, deadline_s=0.5)
    _, effects = session.submit(plan, 1, now_s=1.0, deadline_s=2.0)
    (request,) = messages(effects)
    assert request.order == 2
    session.abandon()
    _, effects = session.submit(plan, 1, now_s=1.0, deadline_s=2.0)
    (request,) = messages(effects)
    assert request.order > 3


# bounds


def test_too_many_at_once_are_refused_and_what_ended_is_forgotten() -> None:
    session = greeted(PIPELINE, max_pending=3)
    for _ in range(3):
        submitted(session)
    with pytest.raises(Overloaded):
        submitted(session)
    assert len(every(RunLocal, session.tick(1.95))) == 3
    for sequence in list(session._requests.pending):
        session.local_done(sequence, 39, 0.1, 1.9)
    for k in range(20):  # whether the edge can be used or not
        session.submit(PLAN, 21, now_s=10.0 + k, deadline_s=10.5 + k)
        session.tick(10.5 + k)
    assert session.pending == 0
    assert len(session._requests.ended) == 6
    assert all(p.content is NO_CONTENT for p in session._requests.ended.values())


def test_abandoned_requests_end_quietly_and_still_teach() -> None:
    session = greeted(PIPELINE)
    sequence, request = submitted(session)
    session.abandon()
    assert session.pending == 0
    assert session.wake_s() is None
    assert session.tick(5.0) == []
    assert session.local_done(sequence, 1, 0.1, 5.0) == []
    effects = session.receive(reply(request, 39), 5.1)
    assert not every(RequestDone, effects)
    assert only(NewObservation, effects).observation.round_trip_s == pytest.approx(4.1)


# how much probes carry


def answered(session: DeviceSession, effects: Any, took_s: Any, now_s: float) -> tuple[list[int], float]:
    """Answer probes until none follows; return how large they were, and the time."""
    sizes: list[int] = []
    while frames := [effect.frame for effect in effects if isinstance(effect, Send)]:
        (frame,) = frames
        probe = read(frame)
        assert isinstance(probe, wire.Probe)
        assert probe.echo_bytes == 0  # what comes back is small
        sizes.append(len(frame))
        now_s += took_s(len(frame))
        echo = wire.encode(wire.Echo(boot=BOOT, sequence=probe.sequence, edge_boot=EDGE_BOOT))
        effects = session.receive(echo, now_s)
    return sizes, now_s


def met(took_s: Any, **more: Any) -> tuple[DeviceSession, list[int], float]:
    """A session that has just said hello, the sizes of its probes, and the time."""
    session = DeviceSession(PIPELINE, boot=BOOT)
    (hello,) = messages(session.tick(0.0))
    sizes, now_s = answered(session, session.receive(welcome(hello, PIPELINE, **more), 0.1), took_s, 0.1)
    assert session.settled
    return session, sizes, now_s


def test_on_a_fast_link_probes_carry_more_at_once_since_small_ones_tell_no_bandwidth() -> None:
    _, sizes, now_s = met(lambda nbytes: 0.0004 + nbytes / 3e8)
    assert [size // 1000 for size in sizes] == [0, 4, 16, 65]
    assert now_s < 0.105


def test_on_other_links_one_padded_probe_is_enough_at_the_start_and_they_stay_small() -> None:
    def took_s(nbytes: int) -> float:
        return 0.02 + nbytes / 1e6

    session, sizes, now_s = met(took_s)
    assert [size // 1000 for size in sizes] == [0, 4]
    largest = 0
    for _ in range(20):
        now_s += 2.0
        sizes, now_s = answered(session, session.rest(now_s), took_s, now_s)
        largest = max(largest, *sizes)
    assert 16_000 < largest < 17_000


def test_a_bad_first_moment_does_not_end_probing_for_ever() -> None:
    """The first ones took 350 ms each; heads take 150, in which nothing of that kind would fit."""
    slow = [0.35, 0.35]

    def took_s(nbytes: int) -> float:
        return slow.pop() if slow else 0.0005 + nbytes / 3e8

    session, sizes, now_s = met(took_s)
    sent: list[int] = []
    for _ in range(60):
        now_s += 0.16
        sizes, now_s = answered(session, session.rest(now_s, 0.15), took_s, now_s)
        sent += sizes
    assert max(sent) > 65_000
    assert len(sent) > 6


def test_the_round_trip_is_measured_though_large_frames_cross() -> None:
    """Of what these take nobody knows how much is round trip."""
    session = greeted(PIPELINE)
    now_s, sizes = 1.0, []
    for _ in range(40):
        now_s += 0.5
        session._health.answered(now_s, 100_000)
        more, _ = answered(session, session.rest(now_s + 0.1, 0.3), lambda nbytes: 0.02, now_s + 0.1)
        sizes += more
    assert 3 <= len(sizes) <= 6  # one in four seconds,
    assert max(sizes) < 100  # and bare


def test_where_frames_must_be_small_probes_are() -> None:
    _, sizes, _ = met(lambda nbytes: 0.0004, max_frame_bytes=20_000)
    assert max(sizes) <= 20_000
