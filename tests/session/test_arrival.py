"""When a frame came, and when it was read: what each of them decides."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot import wire
from splitiot.errors import DeadlineExceeded
from splitiot.estimators.link import LinkEstimator
from splitiot.observation import EdgeTimes, Observation
from splitiot.session import Arrival, DeviceSession, NewObservation, RequestDone, RunLocal
from splitiot.session._breaker import LEASE_S
from splitiot.topology import Link
from tests.session.support import BOOT, EDGE_BOOT, RUNTIME, every, greeted, messages, numbers, only, plan_of, reply

PIPELINE = numbers()
PLAN = plan_of(PIPELINE)  # cut 1
LONG_S = 3600.0


def echo(probe: wire.Probe) -> bytes:
    return wire.encode(wire.Echo(boot=BOOT, sequence=probe.sequence, edge_boot=EDGE_BOOT))


def test_a_probe_is_measured_by_its_arrival() -> None:
    session = greeted(PIPELINE)
    (probe,) = messages(session.rest(10.0))
    effects = session.receive(echo(probe), 10.5, Arrival(10.002))
    seen = only(NewObservation, effects).observation
    assert seen.round_trip_s == pytest.approx(0.002)
    assert not seen.upper_bound


def test_one_of_which_nobody_knows_when_it_came_is_a_bound() -> None:
    session = greeted(PIPELINE)
    (probe,) = messages(session.rest(10.0))
    seen = only(NewObservation, session.receive(echo(probe), 10.5, Arrival(10.5, unsure_s=0.5))).observation
    assert seen.round_trip_s == pytest.approx(0.5)
    assert seen.upper_bound


def test_what_it_waited_to_be_sent_is_not_measured() -> None:
    session = greeted(PIPELINE)
    (probe,) = messages(session.rest(10.0))
    seen = only(NewObservation, session.receive(echo(probe), 10.5, Arrival(10.5, queued_s=0.4))).observation
    assert seen.round_trip_s == pytest.approx(0.1)


@given(st.floats(-2, 2), st.floats(0, 10), st.floats(0, 10))
def test_no_arrival_makes_a_negative_time(came_s: float, unsure_s: float, queued_s: float) -> None:
    """Clocks of transports may be wrong."""
    sent_s, took_s, _ = Arrival(came_s, unsure_s, queued_s).since(0.0)
    assert 0.0 <= sent_s <= max(0.0, came_s)
    assert 0.0 <= took_s <= max(0.0, came_s)


def test_leases_end_only_when_what_came_has_been_read() -> None:
    session = DeviceSession(PIPELINE, boot=BOOT, runtime=RUNTIME)
    assert len(messages(session.tick(0.0))) == 1
    assert session.tick(LONG_S, heard_s=LEASE_S / 2) == []
    assert session.outages == 0
    session.tick(LONG_S + 1, heard_s=LEASE_S)
    assert session.outages == 1

    session = greeted(PIPELINE)
    session.rest(10.0)
    session.tick(LONG_S, heard_s=10.0 + LEASE_S / 2)
    assert not session.settled
    session.tick(LONG_S)
    assert session.settled


def test_a_late_look_does_not_blame_the_edge() -> None:
    """The machine slept: a local finish is due, the edge was silent for as long as somebody listened, that is 20 ms."""
    session = greeted(PIPELINE)
    for k in range(5):
        now_s = 10.0 + LONG_S * k
        sequence, _ = session.submit(PLAN, 21, now_s=now_s, deadline_s=math.inf, finish_s=0.03, patience_s=1.0)
        effects = session.tick(now_s, heard_s=now_s)
        effects = session.tick(now_s + LONG_S / 2, heard_s=now_s + 0.02)
        assert only(RunLocal, effects).sequence == sequence
        (seen,) = (effect.observation for effect in every(NewObservation, effects))
        assert seen.censored and seen.round_trip_s == pytest.approx(0.02)
        session.local_done(sequence, 39, 0.03, now_s + LONG_S / 2)
        session.abandon()
    assert session.edge_up(10.0 + 5 * LONG_S)
    assert session.outages == 0


def test_nothing_is_said_of_the_link_where_nobody_looked() -> None:
    session = greeted(PIPELINE)
    session.submit(PLAN, 21, now_s=10.0, deadline_s=math.inf, finish_s=0.03, patience_s=1.0)
    assert every(NewObservation, session.tick(20.0, heard_s=9.0)) == []


def test_a_request_is_not_sent_again_before_somebody_listened() -> None:
    session = greeted(PIPELINE)
    session.submit(PLAN, 21, now_s=10.0, deadline_s=math.inf)
    assert messages(session.tick(LONG_S, heard_s=10.01)) == []
    assert [type(message) for message in messages(session.tick(LONG_S))] == [wire.Request]


def test_an_answer_that_is_read_too_late_ends_nothing_but_is_measured_as_it_came() -> None:
    """It came in time, but the thread that would read it was at work: no value is given after the deadline."""
    session = greeted(PIPELINE)
    _, effects = session.submit(PLAN, 21, now_s=10.0, deadline_s=10.3)
    (request,) = messages(effects)
    times = EdgeTimes(compute_s=0.01, residence_s=0.02)
    effects = session.receive(reply(request, 39, times=times), 10.5, Arrival(10.1))
    outcome = only(RequestDone, effects).outcome
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.latency_s == pytest.approx(0.5)
    assert outcome.observation is not None
    assert outcome.observation.network_s == pytest.approx(0.08)


def test_a_proposal_is_valid_from_when_it_came() -> None:
    session = greeted(PIPELINE)
    _, effects = session.submit(PLAN, 21, now_s=10.0, deadline_s=math.inf)
    (request,) = messages(effects)
    proposal = wire.NextPlacement(plan_id=5, cuts=(0,), valid_s=2.0)
    session.receive(reply(request, 39, next=proposal), 13.0, Arrival(10.5))
    taken = session.take_next()
    assert taken is not None
    assert taken[1] == pytest.approx(12.5)


@given(
    st.lists(st.tuples(st.floats(1e-4, 1.0), st.integers(40, 100_000)), max_size=8),
    st.floats(1e-5, 10.0),
    st.integers(40, 100_000),
)
def test_an_upper_bound_never_worsens_a_link(samples: list[tuple[float, int]], bound_s: float, size: int) -> None:
    def seen(seconds: float, nbytes: int, **more: bool) -> Observation:
        return Observation(plan_id=0, cut=0, probe=True, round_trip_s=seconds, sent_bytes=nbytes, **more)

    estimator = LinkEstimator(Link(0.02, 1e6, 1e6))
    for k, (seconds, nbytes) in enumerate(samples):
        estimator.update(seen(seconds, nbytes), float(k))
    before = estimator.snapshot()
    link = estimator.get()
    believed_s = link.rtt_s + size / link.up_bytes_per_s
    estimator.update(seen(bound_s, size, upper_bound=True), 10.0)
    if bound_s >= believed_s:
        assert estimator.snapshot() == before
    else:
        after = estimator.get()
        assert after.rtt_s + size / after.up_bytes_per_s <= believed_s * (1 + 1e-6)
