from __future__ import annotations

import msgspec
import pytest

from splitiot.observation import EdgeTimes, Observation


def test_network_time_is_the_round_trip_less_the_residence() -> None:
    edge = EdgeTimes(queue_s=0.01, compute_s=0.02, residence_s=0.04)
    assert Observation(plan_id=1, cut=3, round_trip_s=0.1, edge=edge).network_s == pytest.approx(0.06)
    assert Observation(plan_id=1, cut=3, round_trip_s=0.1).network_s is None
    assert Observation(plan_id=1, cut=3, edge=edge).network_s is None


@pytest.mark.parametrize("code", [msgspec.msgpack, msgspec.json])
def test_observations_travel_as_they_are(code: object) -> None:
    seen = Observation(
        plan_id=7,
        cut=2,
        head_s=0.1,
        edge=EdgeTimes(1, 2, 3, 4, 5),
        round_trip_s=6.0,
        sent_bytes=10,
        censored=True,
    )
    encoded = code.encode(seen)  # type: ignore[attr-defined]
    assert code.decode(encoded, type=Observation) == seen  # type: ignore[attr-defined]


def test_newer_fields_at_the_end_are_ignored_and_missing_ones_have_defaults() -> None:
    times = msgspec.msgpack.decode(msgspec.msgpack.encode([1.0, 2.0, 3.0, 4.0, 5.0, [], "new"]), type=EdgeTimes)
    assert times == EdgeTimes(1, 2, 3, 4, 5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([1.0]), type=EdgeTimes) == EdgeTimes(1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([4, 2]), type=Observation).head_s is None


def test_they_are_values() -> None:
    seen = Observation(plan_id=1, cut=1)
    with pytest.raises(AttributeError):
        seen.cut = 2  # type: ignore[misc]
    assert seen == Observation(plan_id=1, cut=1)
