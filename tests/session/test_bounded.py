"""What an edge answers is bounded by what was sent, every kind of frame counts, and no bytes make it raise."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitiot import wire
from splitiot.errors import DeadlineExceeded
from splitiot.limits import Limits
from splitiot.observation import Observation
from splitiot.session import EdgeSession, RunPart, Send
from splitiot.session._quota import Quota
from splitiot.topology import TierProfile
from tests.session.support import (
    BOOT,
    EDGE_BOOT,
    Remembering,
    boot_of,
    edge_session,
    every,
    greeted,
    messages,
    numbers,
    only,
    planner_of,
    profile_of,
    read,
    request_of,
)
from tests.share import examples

PIPELINE, STATEFUL = numbers(), Remembering()
DIGEST = bytes.fromhex(PIPELINE.digest)


def served(**limits: Any) -> EdgeSession:
    return edge_session(
        PIPELINE, STATEFUL, profiles={PIPELINE.digest: profile_of(PIPELINE)}, limits=Limits(**limits)
    )


def answer_to(session: EdgeSession, message: wire.Message, *buffers: bytes) -> bytes:
    return only(Send, session.receive(wire.encode(message, buffers), "a", 0.0)).frame


def known(**more: Any) -> wire.PipelineHello:
    return wire.PipelineHello(**{"digest": DIGEST, "n": 3} | more)


# amplification


@pytest.mark.parametrize("padding", [0, 1, 16, 1000, 65536, 200_000])
@pytest.mark.parametrize("asked", [-1, 0, 1, 999, 65536, 2**40])
def test_an_echo_is_no_larger_than_its_probe(padding: int, asked: int) -> None:
    probe = wire.Probe(boot=BOOT, sequence=1, echo_bytes=asked)
    buffers = (bytes(padding),) if padding else ()
    echo = answer_to(served(), probe, *buffers)
    assert len(echo) <= len(wire.encode(probe, buffers)) + 64
    assert len(echo) >= min(padding, asked, 65536)


def test_a_hello_is_told_of_each_pipeline_once() -> None:
    many = 64  # as many as a hello may name
    once = answer_to(served(), wire.Hello(boot=BOOT, sequence=1, pipelines=(known(),), want_profiles=(DIGEST,)))
    hello = wire.Hello(boot=BOOT, sequence=1, pipelines=(known(),) * many, want_profiles=(DIGEST,) * many)
    assert len(answer_to(served(), hello)) <= len(once) + 16
    assert [p.digest for p in read(once).pipelines] == [DIGEST]
    assert len(read(once).profiles) == 1


def test_nothing_is_told_that_was_not_asked_for() -> None:
    welcome = read(answer_to(served(), wire.Hello(boot=BOOT, sequence=1)))
    assert (welcome.pipelines, welcome.profiles, welcome.want_profiles) == ((), (), ())


def test_a_hello_whose_answer_would_be_too_large_is_told_so() -> None:
    profile = TierProfile.from_steps(PIPELINE.digest, [0.1] * 200_000)
    session = edge_session(PIPELINE, profiles={PIPELINE.digest: profile})
    failure = read(answer_to(session, wire.Hello(boot=BOOT, sequence=7, want_profiles=(DIGEST,))))
    assert (failure.boot, failure.sequence, failure.code) == (BOOT, 7, "failed")
    assert "do not fit" in failure.message


# quotas


def frame_of(kind: str, sequence: int) -> bytes:
    frames = {
        "hello": lambda: wire.encode(wire.Hello(boot=BOOT, sequence=sequence, pipelines=(known(),))),
        "probe": lambda: wire.encode(wire.Probe(boot=BOOT, sequence=sequence), (bytes(100),)),
        "request": lambda: request_of(PIPELINE, 1, 21, sequence=sequence, codec="zip9"),
        "duplicate": lambda: request_of(PIPELINE, 1, 21, sequence=0),
        "edge's": lambda: wire.encode(wire.Busy(boot=BOOT, sequence=sequence, edge_boot=EDGE_BOOT)),
        "garbage": lambda: b"GET / HTTP/1.1",
    }
    return frames[kind]()


@pytest.mark.parametrize("kind", ["hello", "probe", "request", "duplicate", "edge's", "garbage"])
def test_every_kind_of_frame_counts(kind: str) -> None:
    session = served(requests_per_s=10, hellos_per_s=10, probes_per_s=10, burst_s=0.5)
    if kind == "duplicate":
        session.complete(only(RunPart, session.receive(frame_of(kind, 0), "flood", -9.0)).job, 1, -9.0)
    answers = [read(only(Send, session.receive(frame_of(kind, k), "flood", 0.0)).frame) for k in range(9)]
    assert [isinstance(answer, wire.Busy) for answer in answers] == [False] * 5 + [True] * 4
    assert answers[-1].retry_after_s == pytest.approx(0.1)
    if kind != "garbage":
        assert (answers[-1].boot, answers[-1].sequence) == (BOOT, 0 if kind == "duplicate" else 8)
    assert session.counters.busy == 4
    assert session.counters.full == 0
    other = messages(session.receive(frame_of(kind, 9), "other", 0.0))
    assert not any(isinstance(answer, wire.Busy) for answer in other)
    later = read(only(Send, session.receive(frame_of(kind, 9 if kind != "duplicate" else 0), "flood", 0.1)).frame)
    assert not isinstance(later, wire.Busy)


def test_a_profile_counts_as_a_hello() -> None:
    session = served(hellos_per_s=10, burst_s=0.5)
    hello = wire.Hello(boot=BOOT, sequence=1, want_profiles=(DIGEST,))
    answers = [read(answer_to(session, hello)) for _ in range(4)]
    assert [type(answer) for answer in answers] == [wire.Welcome] * 2 + [wire.Busy] * 2
    assert answers[-1].retry_after_s == pytest.approx(0.1)
    # where a burst is less than what one takes, it takes all of it
    assert isinstance(read(answer_to(served(hellos_per_s=1, burst_s=0.1), hello)), wire.Welcome)


def test_names_with_a_full_quota_are_forgotten() -> None:
    quota = Quota(10, 1.0, most=1000)
    for k in range(500):
        assert quota.wait_s(f"device {k}", k * 0.01) == 0.0
    assert len(quota) == 100  # whoever was silent for a second has a full one anyhow
    few = Quota(10, 1.0, most=3)
    for k in range(50):
        few.wait_s(f"device {k}", 0.0)
    assert len(few) == 3


def test_a_probe_that_is_told_busy_says_nothing_against_the_edge() -> None:
    session = greeted(PIPELINE, probe_interval_s=1.0)
    for k in range(1, 30):
        (probe,) = messages(session.rest(10.0 * k, 9.0)) or [None]
        assert isinstance(probe, wire.Probe), f"none is under way after {k - 1}"
        busy = wire.Busy(boot=BOOT, sequence=probe.sequence, edge_boot=EDGE_BOOT, retry_after_s=0.1)
        session.receive(wire.encode(busy), 10.0 * k + 0.1)
        assert session.edge_up(10.0 * k + 0.1)


# bytes in flight


def test_the_bytes_in_flight_are_bounded() -> None:
    session = served(max_bytes_in_flight=100_000, max_bytes_in_flight_per_name=60_000)
    assert session.max_frame_bytes == 60_000
    jobs: dict[str, list[Any]] = {"a": [], "b": [], "c": []}
    for name in jobs:
        for k in range(9):
            frame = request_of(PIPELINE, 1, bytes(10_900), sequence=k)
            jobs[name] += [run.job for run in every(RunPart, session.receive(frame, name, 0.0))]
    assert {name: len(taken) for name, taken in jobs.items()} == {"a": 5, "b": 4, "c": 0}
    assert session._load.nbytes <= 100_000
    assert session.counters.busy == 27 - 9
    for job in [*jobs["a"], *jobs["b"]]:
        session.complete(job, 1, 0.1)
    assert (session._load.nbytes, session._load.requests, session._load._names) == (0, 0, {})
    assert every(RunPart, session.receive(request_of(PIPELINE, 1, bytes(10_900)), "c", 1.0))


# nothing raises


def test_an_error_in_any_words_is_told() -> None:
    session = served()
    job = only(RunPart, session.receive(request_of(PIPELINE, 1, 21), "a", 0.0)).job
    failure = read(only(Send, session.complete(job, ValueError("half a letter: \ud800"), 0.1)).frame)
    assert (failure.code, "half a letter" in failure.message) == ("failed", True)


WHOLE = st.integers(-(2**63), 2**64 - 1) | st.integers(-3, 5)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
BOOTS = st.integers(0, 3).map(boot_of)
DIGESTS = st.sampled_from([DIGEST, bytes.fromhex(STATEFUL.digest), bytes(32), b""])
SCALARS = st.none() | st.booleans() | WHOLE | NUMBERS | st.text(max_size=5)
PROFILES = st.dictionaries(
    st.sampled_from(["digest", "heads_s", "tails_s", "sent_bytes", "n"]) | st.text(max_size=5),
    SCALARS | st.lists(NUMBERS, max_size=4) | st.just(PIPELINE.digest),
    max_size=5,
) | st.just(profile_of(PIPELINE).to_dict())
HELLOS = st.builds(
    wire.Hello,
    boot=BOOTS,
    sequence=WHOLE,
    pipelines=st.lists(
        st.builds(
            wire.PipelineHello,
            digest=DIGESTS,
            n=WHOLE,
            sink=st.sampled_from(["device", "edge", "moon"]),
            parts=st.none() | st.lists(st.tuples(WHOLE, WHOLE), max_size=3).map(tuple),
            implementation=st.binary(max_size=24),
        ),
        max_size=6,
    ).map(tuple),
    profiles=st.lists(PROFILES, max_size=3).map(tuple),
    want_profiles=st.lists(DIGESTS, max_size=6).map(tuple),
)
PROBES = st.builds(wire.Probe, boot=BOOTS, sequence=WHOLE, echo_bytes=WHOLE)
SEEN = st.builds(Observation, plan_id=WHOLE, cut=WHOLE, round_trip_s=NUMBERS, sent_bytes=WHOLE, received_bytes=WHOLE)
REQUESTS = st.builds(
    wire.Request,
    boot=BOOTS,
    sequence=WHOLE,
    digest=DIGESTS,
    start=WHOLE,
    stop=WHOLE | st.just(3),
    fingerprint=st.sampled_from([bytes.fromhex(PIPELINE.boundary(1).fingerprint), b"", bytes(8)]),
    codec=st.sampled_from(["raw", "zip9"]),
    sink=st.sampled_from(["device", "edge", "moon"]),
    deadline_s=st.none() | NUMBERS,
    plan_id=WHOLE,
    observations=st.lists(SEEN, max_size=3).map(tuple),
    telemetry=st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3),
    order=st.none() | WHOLE,
    epoch=WHOLE,
    holder=st.sampled_from([b"", EDGE_BOOT, bytes(3)]),
    runtime=st.binary(max_size=8),
    implementation=st.binary(max_size=24),
)
SENT = st.one_of(HELLOS, PROBES, REQUESTS)


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.tuples(SENT, st.binary(max_size=40), st.sampled_from("ab")), max_size=8), st.booleans())
def test_whatever_is_sent_gets_an_answer(sent: list[tuple[Any, bytes, str]], plans: bool) -> None:
    """Answers to all but requests, whose results nobody can bound, are bounded by what was sent."""
    session = edge_session(
        PIPELINE,
        STATEFUL,
        profiles={PIPELINE.digest: profile_of(PIPELINE)},
        make_planner=(lambda pipeline, device, edge: planner_of(pipeline)) if plans else None,
    )
    once = len(answer_to(served(), wire.Hello(boot=BOOT, sequence=1, pipelines=(known(),), want_profiles=(DIGEST,))))
    for message, more, name in sent:
        try:
            frame = wire.encode(message, (more,) if isinstance(message, wire.Probe) and more else ())
        except msgspec.MsgspecError:
            continue
        effects = session.receive(frame, name, 0.0, "to")
        for run in every(RunPart, effects):
            effects += session.complete(run.job, DeadlineExceeded("no"), 0.0)
        answers = every(Send, effects)
        assert len(answers) == 1
        wire.decode(answers[0].frame)
        if isinstance(message, wire.Probe):
            assert len(answers[0].frame) <= len(frame) + 64
        else:
            assert len(answers[0].frame) <= len(frame) + 2 * once + 4200
