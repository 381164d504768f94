"""Frames that tasks drop, and resets of what they remember, in both halves of the protocol."""

from __future__ import annotations

from typing import Any

import pytest

from splitiot import wire
from splitiot.errors import DeadlineExceeded, Dropped
from splitiot.functions import TaskPipeline, task, tasks
from splitiot.limits import Limits
from splitiot.observation import EdgeTimes
from splitiot.pipeline import DROP
from splitiot.session import NewObservation, RequestDone, RunLocal, RunPart, Send
from tests.session.support import (
    BOOT,
    EDGE_BOOT,
    add_one,
    boot_of,
    double,
    edge_session,
    every,
    greeted,
    messages,
    minus_three,
    numbers,
    only,
    plan_of,
    read,
    reply,
    request_of,
)

PIPELINE = numbers()


def failure(sequence: int, code: str, words: str = "filtered") -> bytes:
    return wire.encode(
        wire.Failure(boot=BOOT, sequence=sequence, edge_boot=EDGE_BOOT, code=code, message=words, times=EdgeTimes())
    )


def submitted(session: Any, pipeline: TaskPipeline = PIPELINE, cut: int = 1, **more: Any) -> tuple[int, Any]:
    told = {"now_s": 1.0, "deadline_s": 9.0, "finish_s": 0.1} | more
    sequence, effects = session.submit(plan_of(pipeline, cut), 5, **told)
    return sequence, messages(effects)[0]


# dropped by the edge


def test_a_drop_is_an_answer() -> None:
    session = greeted(PIPELINE)
    sequence, _ = submitted(session)
    effects = session.receive(failure(sequence, "dropped"), 1.2)
    done = only(RequestDone, effects)
    assert done.sequence == sequence
    outcome = done.outcome
    assert isinstance(outcome.error, Dropped)
    assert str(outcome.error) == "filtered"
    assert (outcome.source, outcome.dropped, outcome.ok) == ("none", True, False)
    assert outcome.latency_s == pytest.approx(0.2)
    seen = only(NewObservation, effects).observation
    assert seen.round_trip_s is None
    assert not seen.censored
    assert session.pending == 0
    assert (session.counters.dropped, session.counters.fallbacks, session.counters.late_replies) == (1, 0, 0)
    assert session.edge_up(1.2)


def test_a_drop_that_comes_twice_or_late_changes_nothing() -> None:
    session = greeted(PIPELINE)
    sequence, request = submitted(session)
    session.receive(failure(sequence, "dropped"), 1.2)
    for answer in (failure(sequence, "dropped"), reply(request, 7)):
        assert every(RequestDone, session.receive(answer, 1.3)) == []
    assert (session.counters.dropped, session.counters.late_replies) == (1, 2)
    late, _ = submitted(session, finish_s=None, deadline_s=2.0)
    only(RequestDone, session.tick(2.5))
    assert every(RequestDone, session.receive(failure(late, "dropped"), 2.6)) == []
    assert session.counters.dropped == 1


def test_a_drop_while_the_device_finishes_itself() -> None:
    session = greeted(PIPELINE)
    sequence, _ = submitted(session, deadline_s=2.0)
    run = only(RunLocal, session.tick(1.95))
    assert session.waits_for(sequence)
    done = only(RequestDone, session.receive(failure(sequence, "dropped"), 1.96))
    assert done.outcome.dropped
    assert not session.waits_for(sequence)
    assert session.local_done(run.sequence, 7, 0.01, 1.97) == []
    assert session.counters.dropped == 1


@pytest.mark.parametrize("result", [DROP, Dropped("by itself")])
def test_a_local_finish_that_drops(result: Any) -> None:
    session = greeted(PIPELINE)
    sequence, request = submitted(session, deadline_s=2.0)
    only(RunLocal, session.tick(1.95))
    outcome = only(RequestDone, session.local_done(sequence, result, 0.01, 1.97)).outcome
    assert outcome.dropped
    assert (outcome.source, outcome.exact) == ("hedge", False)
    assert outcome.observation is not None
    assert outcome.observation.local_s is None, "it did not run to its end"
    assert every(RequestDone, session.receive(reply(request, 7), 1.98)) == []
    assert session.counters.dropped == 1


def test_failures_of_drops_do_not_make_the_edge_fail() -> None:
    session = greeted(PIPELINE)
    for _ in range(20):
        sequence, _ = submitted(session)
        session.receive(failure(sequence, "dropped"), 1.2)
    assert session.edge_up(1.2)
    assert session.counters.dropped == 20


def test_a_drop_tells_that_the_edge_lives() -> None:
    """Two silences in a row mean that it does not; with a drop between them they are none in a row."""
    session = greeted(PIPELINE, lossy=False)
    for ends_s in (2.0, 12.0):
        submitted(session, now_s=ends_s - 1, deadline_s=ends_s, finish_s=None)
        session.tick(ends_s + 0.5)
        assert session.edge_up(ends_s + 0.6)
        sequence, _ = submitted(session, now_s=ends_s + 1, deadline_s=ends_s + 2)
        session.receive(failure(sequence, "dropped"), ends_s + 1.1)
    assert session.counters.dropped == 2


# dropped on the edge


def job_of(session: Any, pipeline: TaskPipeline = PIPELINE, sequence: int = 1, **more: Any) -> Any:
    return only(RunPart, session.receive(request_of(pipeline, 1, 5, sequence=sequence, **more), "me", 0.0)).job


@pytest.mark.parametrize("result", [DROP, Dropped("a task on the edge dropped the frame")])
def test_the_edge_says_so_and_says_it_again(result: Any) -> None:
    session = edge_session(PIPELINE)
    sent = only(Send, session.complete(job_of(session), result, 0.1, EdgeTimes(compute_s=0.05)))
    answer = read(sent.frame)
    assert (answer.code, answer.message) == ("dropped", "a task on the edge dropped the frame")
    assert answer.times.compute_s == 0.05
    (again,) = session.receive(request_of(PIPELINE, 1, 5), "me", 0.2)
    assert again.frame == sent.frame
    assert (session.counters.dropped, session.counters.failures, session.counters.duplicates) == (1, 0, 1)


STATEFUL = tasks([add_one, task(double, state="own"), minus_three])


def test_the_order_goes_on_behind_a_drop() -> None:
    session = edge_session(STATEFUL)
    session.complete(job_of(session, STATEFUL, 1, order=0), DROP, 0.1)
    session.complete(job_of(session, STATEFUL, 2, order=1), 7, 0.2)
    job = job_of(session, STATEFUL, 3, order=2)
    session.complete(job, ValueError("no"), 0.3, state_kept=True)
    job = job_of(session, STATEFUL, 4, order=3)
    session.complete(job, ValueError("no"), 0.4)
    lost = messages(session.receive(request_of(STATEFUL, 1, 5, sequence=5, order=4), "me", 0.5))
    assert [message.code for message in lost] == ["state-lost"]
    assert job_of(session, STATEFUL, 6, order=0, epoch=1).reset


# who holds what a pinned task remembers


PINNED = tasks([add_one, double, task(minus_three, tier="edge", state="own")])


def claim(request: Any) -> tuple[int, bytes]:
    return request.epoch, request.holder


def test_who_has_run_something_holds_the_state_until_a_reset() -> None:
    session = greeted(PINNED)
    _, lost = submitted(session, PINNED, deadline_s=2.0)
    assert claim(lost) == (0, b"")
    session.tick(2.5)  # no answer in time
    sequence, _ = submitted(session, PINNED)
    session.receive(failure(sequence, "late"), 1.2)  # was not run
    for epoch, code in enumerate(("dropped", "failed")):
        sequence, request = submitted(session, PINNED)
        assert claim(request) == (epoch, b""), "nothing was run yet"
        session.receive(failure(sequence, code), 1.2)
        assert claim(submitted(session, PINNED)[1]) == (epoch, EDGE_BOOT)
        session.reset()
    _, request = submitted(session, PINNED)
    assert claim(request) == (2, b"")
    session.receive(reply(request, 7), 1.2)
    assert claim(submitted(session, PINNED)[1]) == (2, EDGE_BOOT)


def test_an_answer_from_before_a_reset_names_no_holder_behind_it() -> None:
    session = greeted(PINNED)
    _, first = submitted(session, PINNED)
    session.reset()
    session.receive(reply(first, 7), 1.2)
    assert claim(submitted(session, PINNED)[1]) == (1, b"")


def test_an_answer_that_nobody_waits_for_names_no_holder() -> None:
    """Its request has ended without a value: another edge may hold what came behind it."""
    session = greeted(PINNED)
    _, late = submitted(session, PINNED, deadline_s=2.0)
    session.tick(2.5)
    _, second = submitted(session, PINNED)
    session.receive(reply(late, 7), 2.6)
    assert claim(submitted(session, PINNED)[1]) == (0, b"")
    session.receive(reply(second, 7, edge_boot=boot_of(23)), 2.7)
    assert claim(submitted(session, PINNED)[1]) == (0, boot_of(23))


def test_who_has_nothing_to_reset_tells_nothing() -> None:
    here = tasks([task(add_one, tier="device", state="own"), double, minus_three])
    for pipeline in (PIPELINE, here):
        session = greeted(pipeline)
        session.reset()
        _, request = submitted(session, pipeline)
        session.receive(reply(request, 7), 1.2)
        assert claim(submitted(session, pipeline)[1]) == (0, b"")


def claimed(session: Any, sequence: int, **more: Any) -> Any:
    """What becomes of a request: the job's `reset`, or the code of a failure."""
    effects = session.receive(request_of(PINNED, 1, 5, sequence=sequence, **more), "me", 0.1 * sequence)
    for run in every(RunPart, effects):
        session.complete(run.job, 7, 0.1 * sequence)
        return run.job.reset
    (message,) = messages(effects)
    return message.code


def test_the_edge_goes_on_only_with_a_state_that_it_holds() -> None:
    session = edge_session(PINNED)
    assert claimed(session, 1) is True
    assert claimed(session, 2) is False, "the answer may have been lost: it was run"
    assert claimed(session, 3, holder=EDGE_BOOT) is False
    assert claimed(session, 4, holder=boot_of(23)) == "state-lost", "another process, or before a restart"
    assert claimed(session, 5, epoch=1) is True
    assert claimed(session, 6, epoch=1, holder=EDGE_BOOT) is False
    assert claimed(session, 7, holder=EDGE_BOOT) == "bad-order", "from before the reset"
    assert claimed(session, 8, epoch=2, holder=EDGE_BOOT) == "state-lost", "it does not hold that"
    assert claimed(session, 9, epoch=2) is True


def test_an_edge_that_has_forgotten_a_device_does_not_begin_anew() -> None:
    session = edge_session(PINNED, limits=Limits(ttl_s=1.0))
    assert claimed(session, 1) is True
    assert claimed(session, 20, holder=EDGE_BOOT) == "state-lost"
    assert claimed(session, 21, epoch=1) is True


def test_a_beginning_that_did_not_run_begins_still() -> None:
    """Else what an earlier epoch left behind would be gone on with."""
    session = edge_session(PINNED)
    assert claimed(session, 1) is True
    job = job_of(session, PINNED, sequence=2, epoch=1)
    session.complete(job, DeadlineExceeded("waited too long"), 0.3)
    assert claimed(session, 3, epoch=1) is True


def test_a_full_session_says_so() -> None:
    session = greeted(PIPELINE, max_pending=2)
    assert not session.full
    submitted(session)
    sequence, request = submitted(session)
    assert session.full
    session.receive(reply(request, 7), 1.2)
    assert not session.full
    assert not session.waits_for(sequence)
