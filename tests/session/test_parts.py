"""The sessions' small parts: table of states, retry budget, breaker, outbox of observations, quotas."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot import wire
from splitiot.errors import EdgeUnavailable, Overloaded, TransportError
from splitiot.limits import Limits
from splitiot.observation import EdgeTimes, Observation
from splitiot.session import TRANSITIONS, DeviceSession, Event, NewObservation, RequestDone, RunLocal, Send, State
from splitiot.session._breaker import CAP_S, LEASE_S, Breaker
from splitiot.session._budget import RetryBudget
from splitiot.session._outbox import ObservationOutbox
from splitiot.session._quota import Bucket
from tests.session.support import (
    BOOT,
    EDGE_BOOT,
    boot_of,
    edge_session,
    every,
    greeted,
    messages,
    numbers,
    only,
    plan_of,
    read,
    reply,
    request_of,
    welcome,
)

ROOT = Path(__file__).parents[2]
PIPELINE = numbers()
PLAN = plan_of(PIPELINE, 1)

# states


def test_the_table_leads_to_the_end_from_everywhere() -> None:
    live = [state for state in State if state is not State.ENDED]
    for state in live:
        assert any(State.ENDED in TRANSITIONS.get((state, event), ()) for event in Event)
    assert not any((State.ENDED, event) in TRANSITIONS for event in Event)  # an outcome is final
    for (before, event), after in TRANSITIONS.items():
        assert len(set(after)) == len(after)
        assert after[-1] is State.ENDED or (before, event) in {
            (State.WAITING, Event.SILENT),
            (State.WAITING, Event.HEDGE),
        }
        if State.PAUSED in after:  # finishing at once comes before waiting for better times
            assert after.index(State.LOCAL) < after.index(State.PAUSED)


def test_the_picture_in_the_documentation_is_the_table() -> None:
    tool, picture = ROOT / "tools" / "draw_states.py", ROOT / "docs" / "images" / "states.svg"
    assert runpy.run_path(str(tool))["drawn"]() == picture.read_text(), "run tools/draw_states.py"


# retries


@given(st.lists(st.booleans(), max_size=200))
def test_retries_stay_within_the_budget(asked: list[bool]) -> None:
    budget, requests, retries = RetryBudget(), 0, 0
    for begins in asked:
        if begins:
            budget.earn()
            requests += 1
        else:
            retries += budget.take()
        assert retries <= 3 + 0.2 * requests + 1e-9


def test_a_calm_does_not_allow_a_storm() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.take() for _ in range(100)) == 10


def lost_again(session: DeviceSession, sequence: int, now_s: float, deadline_s: float) -> list[float]:
    """Lose every frame of a request, tell the session so, and return when it was sent again."""
    times = []
    frame: bytes | None = None
    while now_s < deadline_s:
        effects = session.tick(now_s)
        for effect in every(Send, effects):
            message = read(effect.frame)
            if isinstance(message, wire.Hello):  # the edge itself is well
                session.receive(welcome(message, PIPELINE), now_s)
            elif isinstance(message, wire.Request) and message.sequence == sequence:
                times.append(now_s)
                frame = effect.frame
        if frame is not None:
            session.failed(frame, TransportError("cut"), now_s)
            frame = None
        now_s += 0.01
    return times


def test_what_can_not_finish_here_is_sent_again_with_growing_pauses_and_the_same_id() -> None:
    drawn = iter([0.5, 1.0] + [0.99] * 100)
    session = greeted(PIPELINE, chance=lambda: next(drawn), lossy=False)
    sequence, effects = session.submit(PLAN, 21, now_s=1.0, deadline_s=20.0)
    session.failed(only(Send, effects).frame, TransportError("cut"), 1.0)
    times = lost_again(session, sequence, 1.0, 20.0)
    assert len(times) == session.counters.retries == 3  # the budget of one request
    assert session.pending == 0


def test_the_pause_is_drawn_from_the_whole_range() -> None:
    pauses = []
    for chance in (0.0, 0.5, 0.999):
        session = greeted(PIPELINE, chance=lambda c=chance: c, lossy=False)  # type: ignore[misc]
        busy = wire.Busy(boot=BOOT, sequence=0, edge_boot=EDGE_BOOT, retry_after_s=0.0)
        sequence, _ = session.submit(PLAN, 21, now_s=1.0, deadline_s=9.0)
        busy = wire.Busy(boot=BOOT, sequence=sequence, edge_boot=EDGE_BOOT, retry_after_s=0.0)
        session.receive(wire.encode(busy), 1.0)
        pauses.append((session.wake_s() or 0.0) - 1.0)
    assert pauses == pytest.approx([0.0, 0.025, 0.05], abs=1e-3)


def test_silence_on_a_lossy_transport_is_answered_by_sending_again_once_in_a_while() -> None:
    session = greeted(PIPELINE)
    _, effects = session.submit(PLAN, 21, now_s=1.0, deadline_s=9.0, finish_s=0.1)
    (request,) = messages(effects)
    sent = []
    now_s = 1.0
    while now_s < 8.8:
        sent += [(now_s, m.attempt, m.sequence) for m in messages(session.tick(now_s)) if isinstance(m, wire.Request)]
        now_s += 0.01
    assert [attempt for _, attempt, _ in sent] == [1, 2, 3]
    assert {number for *_, number in sent} == {request.sequence}
    gaps = [b - a for (a, *_), (b, *_) in itertools.pairwise(sent)]
    assert gaps[1] > 1.8 * gaps[0]
    effects = session.receive(reply(request, 39), 8.8)
    assert only(RequestDone, effects).outcome.value == 39
    seen = only(NewObservation, effects).observation
    assert seen.retransmitted  # Karn: nobody knows which one was answered
    assert session.receive(reply(request, 39), 8.9) == []
    assert session.counters.late_replies == 1


def test_a_transport_that_tells_of_losses_needs_no_sending_again() -> None:
    session = greeted(PIPELINE, lossy=False)
    session.submit(PLAN, 21, now_s=1.0, deadline_s=50.0)
    assert session.wake_s() == 50.0
    assert not every(Send, [e for k in range(400) for e in session.tick(1.0 + k / 10)])


def test_busy_goes_local_at_once_where_that_is_possible() -> None:
    session = greeted(PIPELINE)
    sequence, _ = session.submit(PLAN, 21, now_s=1.0, deadline_s=9.0, finish_s=0.1)
    busy = wire.Busy(boot=BOOT, sequence=sequence, edge_boot=EDGE_BOOT, retry_after_s=0.01)
    assert only(RunLocal, session.receive(wire.encode(busy), 1.1)).sequence == sequence
    assert session.counters.retries == 0


def test_what_waits_for_better_times_ends_with_the_reason() -> None:
    session = greeted(PIPELINE)
    _, effects = session.submit(PLAN, 21, now_s=1.0, deadline_s=2.0)
    session.failed(only(Send, effects).frame, TransportError("the mast fell"), 1.1)
    outcome = only(RequestDone, [e for k in range(101) for e in session.tick(1.1 + k / 100)]).outcome
    assert isinstance(outcome.error, EdgeUnavailable)
    assert "the mast fell" in str(outcome.error)
    assert isinstance(outcome.error.__cause__, TransportError)


# breaker


def test_the_breaker_opens_longer_each_time_and_a_lease_counts() -> None:
    breaker, now_s, waits = Breaker(), 0.0, []
    for _ in range(8):
        breaker.open(now_s)
        waits.append(breaker.retry_s - now_s)
        now_s = breaker.retry_s
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    breaker.open(since_s=100.0)  # a hello of then, lost only at the end of its lease
    assert breaker.retry_s <= 100.0 + max(CAP_S, LEASE_S)
    breaker.close()
    breaker.open(200.0)
    assert breaker.retry_s == 200.25


def test_one_silent_failure_is_none_and_one_that_was_told_is() -> None:
    breaker = Breaker()
    assert not breaker.failed(reported=False)
    assert breaker.failed(reported=False)
    breaker.succeeded()
    assert not breaker.failed(reported=False)
    assert breaker.failed(reported=True)


@given(st.floats(0, 6), st.floats(0.0, 1.0))
def test_after_a_partition_the_edge_is_found_within_the_cap(heals_s: float, step: float) -> None:
    session = greeted(PIPELINE)
    session.broken(TransportError("cut"), 1.0)
    now_s, heals_s = 1.0, 1.0 + heals_s
    while not session.edge_up(now_s):
        for effect in every(Send, session.tick(now_s)):
            message = read(effect.frame)
            if now_s >= heals_s and isinstance(message, wire.Hello):
                session.receive(welcome(message, PIPELINE), now_s)
        if not session.edge_up(now_s):
            wake_s = session.wake_s()
            assert wake_s is not None
            assert wake_s > now_s
            now_s = wake_s
    assert now_s <= heals_s + CAP_S + 1e-9


# observations that wait


def seen(plan_id: int, **more: object) -> Observation:
    return Observation(plan_id=plan_id, cut=1, head_s=0.5, **more)  # type: ignore[arg-type]


def test_the_outbox_drops_the_oldest_and_counts_them() -> None:
    outbox = ObservationOutbox(most=5)
    for k in range(8):
        outbox.add(seen(k), 0.0)
    assert (len(outbox), outbox.dropped) == (5, 3)
    told = outbox.take(0.0)
    assert [o.plan_id for o in told] == [3, 4, 5, 6, 7]
    outbox.add(seen(8), 0.0)
    outbox.put_back([*told, seen(0, probe=True)], 0.0)  # probes of the link are old news
    assert [o.plan_id for o in outbox.take(0.0)] == [4, 5, 6, 7, 8]


def test_what_is_told_late_says_nothing_of_the_link() -> None:
    """The edge was away for an hour, or the device was: the link and the edge's queue were other ones then."""
    exchange = {"edge": EdgeTimes(queue_s=9.0, residence_s=9.0), "round_trip_s": 10.0, "tail_s": 0.1}
    old, probe = seen(1, **exchange), seen(0, round_trip_s=10.0, probe=True)
    bound = seen(2, round_trip_s=50.0, censored=True)
    outbox = ObservationOutbox()
    for one in (old, probe, bound):
        outbox.add(one, 0.0)
    assert outbox.take(29.0) == (old, probe, bound)
    outbox.put_back((old, bound), 29.0)
    assert outbox.take(30.0) == (old, bound)
    for one in (old, probe, bound):
        outbox.add(one, 0.0)
    told = outbox.take(3600.0)
    assert [one.plan_id for one in told] == [1, 2]
    for one in told:
        assert one.round_trip_s is None and one.edge is None and not one.censored
        assert one.head_s == 0.5
    assert told[0].tail_s == 0.1
    outbox.add(old, 3600.0)
    restarted = ObservationOutbox()  # on another clock
    restarted.load(outbox.dump())
    assert [one.round_trip_s for one in restarted.take(3600.0)] == [None]


@given(st.lists(st.integers(1, 10**6), max_size=40), st.integers(0, 400), st.binary(max_size=3))
def test_a_torn_dump_is_nothing_and_a_whole_one_everything(ids: list[int], cut: int, noise: bytes) -> None:
    outbox = ObservationOutbox(b"d" * 32)
    for k in ids:
        outbox.add(seen(k), 0.0)
    whole = outbox.dump([seen(7)])
    again = ObservationOutbox(b"d" * 32)
    again.add(seen(999), 0.0)
    assert again.load(whole) == max([7, *ids])
    assert len(again) == len(ids) + 2
    torn = whole[: min(cut, len(whole) - 1)] + noise
    if torn != whole:
        other = ObservationOutbox(b"d" * 32)
        assert (other.load(torn), len(other)) == (0, 0)
    other = ObservationOutbox(b"e" * 32)
    assert (other.load(whole), len(other)) == (0, 0)  # of another pipeline


def test_what_was_told_and_not_answered_is_dumped_too() -> None:
    session = greeted(PIPELINE)
    session.outbox.add(seen(41), 0.0)
    session.submit(PLAN, 21, now_s=1.0, deadline_s=9.0)
    assert len(session.outbox) == 0
    outbox = ObservationOutbox(bytes.fromhex(PIPELINE.digest))
    assert outbox.load(session.dump()) == 41


# quotas


def test_a_bucket_bounds_rate_and_burst() -> None:
    bucket = Bucket(rate_per_s=10, burst=5, now_s=0.0)
    taken = sum(bucket.take(k / 1000) == 0.0 for k in range(10_000))
    assert 100 <= taken <= 105 + 1
    assert sum(bucket.take(1000.0) == 0.0 for _ in range(100)) == 5
    assert bucket.take(999.0) > 0  # a clock that goes back gives nothing


def test_one_device_can_not_fill_the_edge() -> None:
    session = edge_session(PIPELINE, limits=Limits(max_in_flight=8, max_in_flight_per_name=4))
    greedy = [session.receive(request_of(PIPELINE, 1, 21, sequence=k), "greedy", 0.0) for k in range(8)]
    assert [isinstance(read(e.frame), wire.Busy) for effects in greedy for e in every(Send, effects)] == [True] * 4
    assert not every(Send, session.receive(request_of(PIPELINE, 1, 21), "modest", 0.0))
    assert session.in_flight == 5


def test_a_flood_is_answered_with_busy_and_does_not_touch_others() -> None:
    session = edge_session(PIPELINE, limits=Limits(requests_per_s=10, burst_s=0.3))
    answers = []
    for k in range(10):
        effects = session.receive(request_of(PIPELINE, 1, 21, codec="zip9", sequence=k), "flood", 0.0)
        answers += [type(message) for message in messages(effects)]
    assert answers == [wire.Failure] * 3 + [wire.Busy] * 7  # nobody knows that codec; the rest was not even looked at
    busy = messages(session.receive(request_of(PIPELINE, 1, 21, codec="zip9", sequence=99), "flood", 0.0))
    assert busy[0].retry_after_s == pytest.approx(0.1)
    assert messages(session.receive(request_of(PIPELINE, 1, 21, codec="zip9"), "other", 0.0))[0].code == "bad-codec"


def test_a_reboot_does_not_renew_the_quota() -> None:
    session = edge_session(PIPELINE, limits=Limits(requests_per_s=1, burst_s=2))
    kinds = []
    for boot in map(boot_of, range(5)):
        kinds += [
            type(m) for m in messages(session.receive(request_of(PIPELINE, 1, 21, codec="zip9", boot=boot), "a", 0.0))
        ]
    assert kinds == [wire.Failure] * 2 + [wire.Busy] * 3


def test_who_is_silent_for_long_is_forgotten() -> None:
    session = edge_session(PIPELINE, limits=Limits(ttl_s=100.0))
    for k in range(50):
        session.receive(request_of(PIPELINE, 1, 21, codec="zip9"), f"device {k}", float(k))
    assert len(session._peers) == 50
    session.receive(request_of(PIPELINE, 1, 21, codec="zip9"), "new", 130.0)
    assert len(session._peers) == 50 - 30 + 1


def test_overloaded_is_typed() -> None:
    session = greeted(PIPELINE, max_pending=1)
    session.submit(PLAN, 21, now_s=1.0, deadline_s=9.0)
    with pytest.raises(Overloaded, match="wait for some to end"):
        session.submit(PLAN, 21, now_s=1.0, deadline_s=9.0)
