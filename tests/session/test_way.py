"""What requests wait for each other is told apart from link and edge: against a tandem queue that knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.session._way import Way

RTT_S = 0.02


class Road:
    """An uplink and an edge that take one request after the other, and a way back that holds nothing up."""

    def __init__(self, rtt_s: float = RTT_S) -> None:
        self.rtt_s, self.link_s, self.edge_s = rtt_s, 0.0, 0.0
        self.way, self.answered_s = Way(), 0.0

    def send(self, at_s: float, up_s: float, compute_s: float, nbytes: int = 10_000) -> tuple[float, ...]:
        """Return what it waited on link and edge, and what `Way` thinks."""
        began_s = max(at_s, self.link_s)
        self.link_s = began_s + up_s
        arrived_s = self.link_s + self.rtt_s / 2
        ran_s = max(arrived_s, self.edge_s)
        self.edge_s = ran_s + compute_s
        now_s = self.edge_s + self.rtt_s / 2
        behind, self.answered_s = at_s < self.answered_s, now_s
        found = self.way.passed(
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
    way = Way()
    assert way.passed(0.0, 1.0, 0.5, nbytes=9999, behind=False, queue_s=0.4) == (0.0, 0.0)
    assert way.passed(0.1, 1.2, 0.5, nbytes=9999, behind=False, queue_s=0.4) == (0.0, 0.0)  # another device's queue


def test_an_edge_that_runs_two_at_once_lets_nobody_wait() -> None:
    way = Way()
    way.passed(0.0, 1.0, 0.9, nbytes=9999, behind=False)
    assert way.passed(0.05, 1.05, 0.9, nbytes=9999, behind=True, queue_s=0.0)[1] == 0.0
    assert way.passed(0.1, 1.1, 0.9, nbytes=9999, behind=True, queue_s=0.3)[1] == pytest.approx(0.3)


@pytest.mark.parametrize("residence_s", [-0.1, 1.5, float("nan")])
def test_clocks_that_are_wrong(residence_s: float) -> None:
    way = Way()
    way.passed(0.0, 1.0, 0.5, nbytes=100, behind=False)
    assert way.passed(0.5, 1.5, residence_s, nbytes=100, behind=True, queue_s=9.0) == (0.0, 0.0)
