"""What requests wait for each other on a link: what is told is the truth, or less."""

from __future__ import annotations

import math

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from splitiot.session._queueing import QueueingEstimator


def link_wait(
    queueing: QueueingEstimator, sent_s: float, now_s: float, residence_s: float, *, behind: bool, nbytes: int = 100
) -> float:
    """What it waited on the link."""
    return queueing.update(sent_s, now_s, residence_s, nbytes=nbytes, behind=behind)[0]


def test_alone_nothing_waits() -> None:
    queueing = QueueingEstimator()
    for sent_s in (0.0, 1.0, 2.0):
        assert link_wait(queueing, sent_s, sent_s + 0.3, 0.1, behind=False) == 0


def test_the_first_is_not_behind_what_was_answered_before_it_was_sent() -> None:
    queueing = QueueingEstimator()
    link_wait(queueing, 0.0, 0.3, 0.1, behind=False)
    assert link_wait(queueing, 0.4, 0.7, 0.1, behind=True) == 0


def test_two_at_once() -> None:
    """A round trip of 0.1 s; each takes 1 s on the link; the edge 0.5 s."""
    queueing = QueueingEstimator()
    link_wait(queueing, -9.0, -9.0 + 0.1, 0.0, behind=False)  # a probe of no size: the round trip alone
    assert link_wait(queueing, 0.0, 1.6, 0.5, behind=False) == 0
    assert link_wait(queueing, 0.2, 2.6, 0.5, behind=True) == pytest.approx(0.8)
    assert link_wait(queueing, 0.3, 3.6, 0.5, behind=True) == pytest.approx(1.7)
    assert link_wait(queueing, 0.3, 3.6, 0.5, behind=False) == 0, "nothing was on its way when it was sent"


def test_an_answer_that_overtakes_blames_nobody() -> None:
    """The second is answered first, since the edge is quick with it: the first did not wait for that one."""
    queueing = QueueingEstimator()
    link_wait(queueing, -9.0, -9.0 + 0.1, 0.0, behind=False)
    link_wait(queueing, -1.0, 0.5, 0.4, behind=False)
    assert link_wait(queueing, 0.2, 2.2, 0.1, behind=True) == 0, "nothing is known of the one ahead of it yet"
    assert link_wait(queueing, 0.1, 6.0, 4.8, behind=True) == 0, "sent first, over first"


def test_an_answer_that_is_overtaken_still_waited_for_those_before() -> None:
    queueing = QueueingEstimator()
    link_wait(queueing, -9.0, -9.0 + 0.1, 0.0, behind=False)
    link_wait(queueing, 0.0, 1.6, 0.5, behind=False)
    assert link_wait(queueing, 0.3, 3.2, 0.1, behind=True) == pytest.approx(0.7), "of its 1.7 s what is known so far"
    assert link_wait(queueing, 0.2, 6.0, 3.9, behind=True) == pytest.approx(0.8)


@pytest.mark.parametrize("residence_s", [math.nan, math.inf, -math.inf, -1.0, 1e9, 2.0])
def test_clocks_that_are_wrong_teach_nothing(residence_s: float) -> None:
    queueing, clean = QueueingEstimator(), QueueingEstimator()
    for one in (queueing, clean):
        link_wait(one, -9.0, -8.9, 0.0, behind=False)
        link_wait(one, 0.0, 1.1, 0.0, behind=False)
    assert link_wait(queueing, 0.1, 1.2, residence_s, behind=True) == 0
    waited_s = link_wait(queueing, 0.2, 2.1, 0.0, behind=True)
    assert waited_s == link_wait(clean, 0.2, 2.1, 0.0, behind=True) == pytest.approx(0.8)


def test_an_old_round_trip_is_forgotten() -> None:
    """The way has become longer, by another route: what is longer now is not taken for a queue for ever."""
    queueing = QueueingEstimator()
    link_wait(queueing, 0.0, 0.1, 0.0, behind=False)
    assert link_wait(queueing, 40.0, 42.0, 0.0, behind=False) == 0  # a round trip of 2 s now
    assert link_wait(queueing, 41.0, 43.5, 0.0, behind=True) == 0, "over 1.5 s behind the other: alone it took 2"
    assert link_wait(queueing, 41.2, 44.5, 0.0, behind=True) == pytest.approx(43.5 - 2.0 - 41.2)


@frozen
class Sent:
    after_s: float
    nbytes: int
    residence_s: float
    probe: bool


sendings = st.lists(
    st.builds(
        Sent,
        st.floats(0, 0.3),
        st.integers(100, 60_000),
        st.floats(0, 0.2) | st.floats(0, 2),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@given(sendings, st.floats(0.001, 0.5), st.floats(2e4, 1e6), st.booleans())
def test_a_link_where_bytes_wait_for_bytes(sends: list[Sent], rtt_s: float, bytes_per_s: float, in_order: bool) -> None:
    """First in, first out; an edge that takes as long as it likes. With answers in order it is near the truth."""
    now_s = free_s = done_s = 0.0
    answers = []
    for one in [Sent(0.0, 1, 0.0, True), *sends]:
        now_s += one.after_s
        nbytes = 1 if one.probe else one.nbytes
        queued_s = max(0.0, free_s - now_s)
        free_s = max(free_s, now_s) + nbytes / bytes_per_s
        # with one worker the edge takes them one after another
        arrived_s = free_s + rtt_s / 2
        done_s = max(arrived_s, done_s if in_order else 0.0) + one.residence_s
        answers.append((now_s, done_s + rtt_s / 2, done_s - arrived_s, queued_s))
    queueing = QueueingEstimator()
    if in_order:
        assert answers == sorted(answers, key=lambda answer: answer[1])
    for index in sorted(range(len(answers)), key=lambda index: answers[index][1]):
        sent_s, came_s, residence_s, queued_s = answers[index]
        behind = any(answers[other][1] > sent_s for other in range(index))
        told_s = link_wait(queueing, sent_s, came_s, residence_s, behind=behind)
        assert 0 <= told_s <= queued_s + 1e-9, "never more than the truth"
        if in_order:
            # the least round trip that was seen holds the byte of the first probe
            assert told_s >= queued_s - 1 / bytes_per_s - 1e-9 or not behind
            assert behind or queued_s <= 1 / bytes_per_s + 1e-9


@given(
    st.lists(
        st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(allow_nan=True) | st.floats(0, 5), st.booleans()),
        max_size=60,
    )
)
def test_whatever_comes_it_is_never_more_than_the_round_trip(calls: list[tuple[float, float, float, bool]]) -> None:
    queueing = QueueingEstimator()
    for sent_s, took_s, residence_s, behind in calls:
        told_s = link_wait(queueing, sent_s, sent_s + took_s, residence_s, behind=behind)
        assert 0 <= told_s <= took_s + 1e-9
        if 0 <= residence_s <= took_s:
            assert told_s <= took_s - residence_s + 1e-9


# the edge's queue, and frames that are large

RTT_S = 0.02


class Road:
    """An uplink and an edge that take one request after the other, and a way back that holds nothing up."""

    def __init__(self, rtt_s: float = RTT_S) -> None:
        self.rtt_s, self.link_s, self.edge_s = rtt_s, 0.0, 0.0
        self.queueing, self.answered_s = QueueingEstimator(), 0.0

    def send(self, at_s: float, up_s: float, compute_s: float, nbytes: int = 10_000) -> tuple[float, ...]:
        """Return what it waited on link and edge, and what the estimator thinks."""
        began_s = max(at_s, self.link_s)
        self.link_s = began_s + up_s
        arrived_s = self.link_s + self.rtt_s / 2
        ran_s = max(arrived_s, self.edge_s)
        self.edge_s = ran_s + compute_s
        now_s = self.edge_s + self.rtt_s / 2
        behind, self.answered_s = at_s < self.answered_s, now_s
        found = self.queueing.update(
            at_s, now_s, self.edge_s - arrived_s, nbytes=nbytes, behind=behind, queue_s=ran_s - arrived_s
        )
        return began_s - at_s, ran_s - arrived_s, *found


REQUESTS = st.lists(st.tuples(st.floats(0, 0.2), st.floats(0.001, 0.2), st.floats(0.001, 0.2)), min_size=1, max_size=40)


@given(REQUESTS)
def test_it_knows_what_each_waited(requests: list[tuple[float, float, float]]) -> None:
    road, now_s = Road(), 0.0
    road.send(0.0, 0.0, 0.0, nbytes=200)  # a bare probe at the start
    now_s = 1.0
    for after_s, up_s, compute_s in requests:
        now_s += after_s
        on_link, on_edge, queued_s, held_s = road.send(now_s, up_s, compute_s)
        assert queued_s == pytest.approx(on_link, abs=1e-9)
        assert held_s == pytest.approx(on_edge, abs=1e-9)


def test_large_frames_do_not_lengthen_the_round_trip_however_long_they_are_alone() -> None:
    """With the least of the last 30 s as the round trip, a saturated link was believed slower and slower."""
    road = Road()
    road.send(0.0, 0.0, 0.0, nbytes=200)
    at_s, waits = 1.0, []
    for _ in range(600):  # each 0.1 s on the link, sent every 0.1 s with three under way
        _, _, queued_s, _ = road.send(at_s, 0.1, 0.01)
        waits.append(queued_s)
        at_s = road.link_s - 0.15
    assert waits[-1] == pytest.approx(0.15)
    assert max(waits) < 0.16


def test_a_longer_round_trip_is_learnt_from_small_frames() -> None:
    road = Road()
    road.send(0.0, 0.0, 0.0, nbytes=200)
    road.rtt_s = 0.05
    road.send(40.0, 0.0, 0.0, nbytes=200)
    road.send(41.0, 0.1, 0.01)
    _, _, queued_s, _ = road.send(41.02, 0.1, 0.01)
    assert queued_s == pytest.approx(0.08)


def test_who_is_alone_waited_for_nobody() -> None:
    queueing = QueueingEstimator()
    assert queueing.update(0.0, 1.0, 0.5, nbytes=9999, behind=False, queue_s=0.4) == (0.0, 0.0)
    assert queueing.update(0.1, 1.2, 0.5, nbytes=9999, behind=False, queue_s=0.4) == (0.0, 0.0)  # others queue


def test_an_edge_that_runs_two_at_once_lets_nobody_wait() -> None:
    queueing = QueueingEstimator()
    queueing.update(0.0, 1.0, 0.9, nbytes=9999, behind=False)
    assert queueing.update(0.05, 1.05, 0.9, nbytes=9999, behind=True, queue_s=0.0)[1] == 0.0
    assert queueing.update(0.1, 1.1, 0.9, nbytes=9999, behind=True, queue_s=0.3)[1] == pytest.approx(0.3)


def test_nobody_waited_longer_on_the_edge_than_was_there() -> None:
    """An edge that says that a request waited longer than it was there is believed no more than that."""
    queueing = QueueingEstimator()
    queueing.update(0.0, 5.0, 1.0, nbytes=9999, behind=False)
    assert queueing.update(4.1, 4.8, 0.5, nbytes=9999, behind=True, queue_s=0.9)[1] == 0.5
