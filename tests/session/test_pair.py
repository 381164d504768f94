"""Both halves together, on a virtual clock, over a link that loses, repeats and reorders as it is told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.errors import DeadlineExceeded, EdgeUnavailable, Overloaded, RemoteError
from splitiot.limits import Limits
from splitiot.plan import Outcome
from splitiot.session import DeviceSession
from splitiot.session._pending import NO_CONTENT
from tests.session.support import (
    BOOT,
    OTHER,
    RUNTIME,
    Fate,
    Remembering,
    World,
    boot_of,
    edge_session,
    numbers,
    plan_of,
    profile_of,
    sums,
)

PIPELINE = numbers()
PLANS = {cut: plan_of(PIPELINE, cut) for cut in (0, 1, 2)}
LOCAL_S = 0.03
MARGIN_S = 0.005

# lost, once, twice, reordered past later frames, or known to be lost after a while
FATES = st.lists(st.lists(st.floats(0.001, 0.4), max_size=3) | st.floats(-0.3, -0.001).map(lambda s: [s]), max_size=40)


def heads(value: int, cut: int) -> int:
    """What the head [0, cut) gives."""
    return int(PIPELINE.part(0, cut).run(value))


def world(fates: list[Fate], **more: Any) -> World:
    device = DeviceSession(PIPELINE, boot=BOOT, runtime=RUNTIME, max_pending=16)
    return World(device, edge_session(PIPELINE), PIPELINE, fates, local_s=LOCAL_S, **more)


def the_end(found: list[tuple[float, Outcome]]) -> tuple[float, Outcome]:
    (one,) = found  # exactly one RequestDone
    return one


@given(
    FATES,
    st.lists(
        st.tuples(st.floats(0, 0.5), st.sampled_from([0, 1, 2]), st.floats(0.01, 1.5), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.floats(0.0, 0.3),
    st.lists(st.floats(0.0, 5.0), max_size=3),
)
def test_every_request_ends_once_rightly_and_in_time(
    fates: list[Fate], asked: list[tuple[float, int, float, bool]], edge_s: float, restarts: list[float]
) -> None:
    w = world(fates, edge_s=edge_s)
    w.run(0.1)
    for number, restart_s in enumerate(restarts):
        boot = boot_of(23 + number)
        w.at(0.1 + restart_s, lambda b=boot: w.restart(edge_session(PIPELINE, boot=b)))
    submitted: dict[int, tuple[int, float, float, bool]] = {}
    for number, (gap_s, cut, deadline_s, has_part) in enumerate(asked):
        w.run(w.now_s + gap_s)
        sequence = w.submit(
            PLANS[cut], heads(number, cut), deadline_s=deadline_s, finish_s=LOCAL_S if has_part else None
        )
        submitted[sequence] = (number, w.now_s, deadline_s, has_part)
    w.run(w.now_s + 30)

    for sequence, (number, began_s, deadline_s, has_part) in submitted.items():
        ended_s, outcome = the_end(w.done[sequence])
        fits = has_part and deadline_s > LOCAL_S + 2 * MARGIN_S
        if outcome.ok:
            assert outcome.value == PIPELINE.run(number)
            assert outcome.source in ("edge", "hedge", "fallback")
            assert ended_s <= began_s + deadline_s + 1e-9
        else:
            assert not fits, outcome.error
            assert isinstance(outcome.error, DeadlineExceeded | EdgeUnavailable | RemoteError | Overloaded)
            # at the deadline, or when a finish that was worth a try turned out too long
            assert ended_s <= began_s + deadline_s + (LOCAL_S if has_part else 0.0) + 1e-9
        assert w.local_runs[sequence] <= 1
    # no edge executed anything twice, however often it arrived
    assert max(w.executed.values(), default=0) <= 1
    # nothing is left behind
    assert w.device.pending == 0
    assert w.device.wake_s() is None
    assert w.edge.in_flight == 0
    assert len(w.device._requests.ended) <= 32
    assert len(w.device.outbox) <= 128
    assert all(p.content is NO_CONTENT for p in w.device._requests.ended.values())
    # and the link is well again: the edge is found
    assert w.device.edge_up(w.now_s)


@given(FATES, st.lists(st.floats(0.0, 0.3), min_size=1, max_size=8))
def test_exactness_is_never_claimed_of_an_edge_that_runs_something_else(fates: list[Fate], gaps: list[float]) -> None:
    """An edge of the same runtime dies; the one that comes back has another, and gives other results."""
    w = world(fates, edge_s=0.02)
    other = edge_session(PIPELINE, boot=boot_of(23))
    other._served.runtimes = {PIPELINE.digest: OTHER}
    usual = w.compute
    w.compute = lambda job: usual(job) + (1000 if w.edge is other else 0)
    w.run(0.1)
    w.at(0.4, lambda: w.restart(other))
    for gap_s in gaps:
        w.run(w.now_s + gap_s)
        w.submit(PLANS[1], 5, deadline_s=1.0, finish_s=LOCAL_S)
    w.run(w.now_s + 10)
    for ends in w.done.values():
        _, outcome = the_end(ends)
        if outcome.exact:
            assert outcome.value == 7
        if outcome.value == 1007:
            assert outcome.source == "edge"


@given(FATES, st.integers(1, 12), st.booleans())
def test_a_stateful_pipeline_never_gives_a_wrong_value(fates: list[Fate], count: int, resets: bool) -> None:
    """Lost, repeated and reordered frames: each value is that of the inputs since the last reset, or an error."""
    pipeline = Remembering()
    device = DeviceSession(pipeline, boot=BOOT, runtime=RUNTIME)
    w = World(device, edge_session(pipeline), pipeline, fates, edge_s=0.02)
    head = pipeline.part(0, 1).open()
    tails: dict[str, Any] = {}

    def compute(job: Any) -> Any:
        if job.reset or job.owner not in tails:
            tails[job.owner] = pipeline.part(1, 3).open()
        return tails[job.owner](job.payload)

    w.compute = compute
    plan = plan_of(pipeline, 1)
    w.run(0.1)
    inputs: list[int] = []
    expected: dict[int, int] = {}
    failed = False
    for number in range(1, count + 1):
        if failed and resets:
            device.reset()
            head.reset()
            inputs, failed = [], False
        inputs.append(number)
        sequence = w.submit(plan, head(number), deadline_s=0.5, finish_s=LOCAL_S)
        expected[sequence] = sums(inputs)[-1]
        w.run(w.now_s + 0.6)
        failed = failed or not w.done[sequence][0][1].ok
    w.run(w.now_s + 5)
    for sequence, value in expected.items():
        _, outcome = the_end(w.done[sequence])
        assert outcome.source in ("edge", "none")
        if outcome.ok:
            assert outcome.value == value
    assert w.local_runs == {}
    assert max(w.executed.values(), default=0) <= 1


def test_a_good_link_needs_no_help() -> None:
    w = world([])
    w.run(0.2)
    for number in range(20):
        w.submit(PLANS[1], heads(number, 1), deadline_s=0.5, finish_s=LOCAL_S)
        w.run(w.now_s + 0.1)
    assert [the_end(w.done[s])[1].value for s in sorted(w.done)] == [PIPELINE.run(k) for k in range(20)]
    assert all(the_end(ends)[1].source == "edge" for ends in w.done.values())
    assert sum(w.local_runs.values()) == 0
    assert len(w.executed) == 20
    assert w.device.counters.fallbacks == w.device.counters.hedges == 0


def test_two_lost_answers_leave_the_edge_and_a_hello_brings_it_back() -> None:
    w = world([])
    w.run(0.2)
    w.fates = itertools.repeat([])  # from now on all is lost
    for _ in range(2):
        w.submit(PLANS[1], 1, deadline_s=0.2, finish_s=LOCAL_S)
        w.run(w.now_s + 0.3)
    assert not w.device.edge_up(w.now_s)
    assert all(the_end(ends)[1].source == "hedge" for ends in w.done.values())
    began_s = w.now_s
    w.run(w.now_s + 20)
    w.fates = itertools.repeat([0.01])
    while not w.device.edge_up(w.now_s):
        w.run(w.now_s + 0.1)
        assert w.now_s < began_s + 26
    w.submit(PLANS[1], 1, deadline_s=0.2, finish_s=LOCAL_S)
    w.run(w.now_s + 0.3)
    assert the_end(w.done[max(w.done)])[1].source == "edge"


def test_a_restarted_edge_is_used_again_at_once() -> None:
    w = world([])
    w.run(0.2)
    w.restart(edge_session(PIPELINE, boot=boot_of(23)))
    for _ in range(2):
        sequence = w.submit(PLANS[1], heads(5, 1), deadline_s=0.5, finish_s=LOCAL_S)
        w.run(w.now_s + 0.3)
        _, outcome = the_end(w.done[sequence])
        assert (outcome.value, outcome.source, outcome.exact) == (PIPELINE.run(5), "edge", True)


def test_the_profile_of_the_edge_arrives_even_if_the_first_hello_is_lost() -> None:
    device = DeviceSession(PIPELINE, boot=BOOT, runtime=RUNTIME)
    edge = edge_session(PIPELINE, profiles={PIPELINE.digest: profile_of(PIPELINE)})
    w = World(device, edge, PIPELINE, [[], [0.01], []])
    w.run(10)
    assert [p.digest for p in w.profiles] == [PIPELINE.digest]


@pytest.mark.parametrize("edge_s", [0.0, 0.04])
def test_measurements_subtract_what_the_edge_took(edge_s: float) -> None:
    w = world([], edge_s=edge_s)
    w.run(0.2)
    w.submit(PLANS[1], 1, deadline_s=0.5, finish_s=LOCAL_S)
    w.run(1.0)
    (seen,) = [o for o in w.observed if o.edge is not None and not o.probe]
    assert seen.network_s == pytest.approx(0.02)
    assert seen.round_trip_s == pytest.approx(0.02 + edge_s)


def test_small_tables_stay_small() -> None:
    device = DeviceSession(PIPELINE, boot=BOOT, runtime=RUNTIME, max_pending=2)
    edge = edge_session(PIPELINE, limits=Limits(max_answers=3, max_peers=2))
    w = World(device, edge, PIPELINE, usual=(0.01, 0.012, 0.2))
    w.run(0.5)
    for number in range(100):
        w.submit(PLANS[1], number, deadline_s=0.5, finish_s=LOCAL_S)
        w.run(w.now_s + 0.05)
    w.run(w.now_s + 5)
    assert all(len(ends) == 1 for ends in w.done.values())
    assert len(edge._answers) <= 3
    assert len(device._requests.ended) <= 4
    assert edge.in_flight == device.pending == 0


def test_a_request_from_before_a_reset_is_not_taken_for_one_behind_it() -> None:
    """The first of two resets arrives late, the second never: what follows must not use the first one's state."""
    pipeline = Remembering()
    device = DeviceSession(pipeline, boot=BOOT, runtime=RUNTIME, lossy=False)
    edge = edge_session(pipeline)
    plan = plan_of(pipeline, 0)
    w = World(device, edge, pipeline, usual=(0.01,))
    tail = pipeline.part(0, 3).open()

    def compute(job: Any) -> Any:
        if job.reset:
            tail.reset()
        return tail(job.payload)

    w.compute = compute
    w.run(0.1)
    w.fates = iter([[0.5], []])  # the one with value 5 is late, that with 7 is lost
    for value in (5, 7):
        device.reset()
        w.submit(plan, value, deadline_s=0.2, finish_s=None)
        w.run(w.now_s + 0.21)
    w.fates = itertools.repeat([0.01])
    w.run(w.now_s + 0.5)
    sequence = w.submit(plan, 9, deadline_s=1.0, finish_s=None)
    w.run(w.now_s + 1.5)
    _, outcome = the_end(w.done[sequence])
    assert isinstance(outcome.error, RemoteError)
    device.reset()
    sequence = w.submit(plan, 9, deadline_s=1.0, finish_s=None)
    w.run(w.now_s + 1.5)
    assert the_end(w.done[sequence])[1].value == sums([9])[-1]
