from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from splitiot.policies import LeastLatency, LinearBandit
from splitiot.topology import Link
from tests.policies.test_wrappers import Place


def test_it_learns_where_the_belief_is_wrong() -> None:
    """Its own regression knows the link from round trips alone."""
    place = Place(LinearBandit())
    place.link = Link.from_mbit_per_s(0.4, rtt_s=0.02)
    place.run(200)
    assert place.settled(100) <= {2, 3}
    place.link = Link.from_mbit_per_s(50, rtt_s=0.02)
    place.run(400)
    assert place.settled(100) == {0}


def test_the_edge_is_forced_where_it_was_not_used_for_long() -> None:
    place = Place(LinearBandit(every=10), mbit_per_s=0.02).run(100)
    assert place.settled(90) == {3}
    probes = [number for number, probe in enumerate(place.probes) if probe]
    assert len(probes) >= 8
    assert set(np.diff(probes).tolist()) == {10}
    assert all(place.cuts[number] < 3 for number in probes)


def test_its_notes_are_plain_and_bounded() -> None:
    place = Place(LinearBandit()).run(50)
    size = len(json.dumps(place.planner.snapshot()["memory"]))
    place.run(500)
    assert len(json.dumps(place.planner.snapshot()["memory"])) < 2 * size + 500
    again = Place(LinearBandit())
    again.planner.restore(json.loads(json.dumps(place.planner.snapshot())))
    assert again.planner.decide(place.now_s).row == place.planner.decide(place.now_s).row


def test_where_the_edge_is_down_it_is_local() -> None:
    place = Place(LinearBandit(every=1)).run(20)
    for _ in range(5):
        assert place.planner.decide(place.now_s, edge_up=False).cut == 3


def test_it_does_worse_than_what_uses_beliefs() -> None:
    """Of what the planner knows it uses only half: see the table in the documentation."""
    total = {}
    for policy in (LinearBandit(), LeastLatency()):
        place = Place(policy)
        for mbit in (20, 2, 50, 5):
            place.link = Link.from_mbit_per_s(mbit, rtt_s=0.02)
            place.run(60)
        total[type(policy)] = place.now_s
    assert total[LeastLatency] < total[LinearBandit] < 1.5 * total[LeastLatency]


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"discount": 0.0}, {"discount": 1.1}, {"every": 0}])
def test_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        LinearBandit(**options)
