"""What policies remember of a device: typed, stored as JSON, and not mixed up."""

from __future__ import annotations

import copy
import json
import logging
from typing import Any

import pytest

from splitiot.planner import Planner
from splitiot.policies import Context, Decision, LinearBandit, Policy, PolicyMemory, ThroughputTarget, adaptive
from splitiot.policies.stale_probe import Losses
from tests.policies.test_wrappers import Place


class Visits(PolicyMemory, frozen=True):
    count: int = 0
    cuts: tuple[int, ...] = ()


class Other:
    class Visits(PolicyMemory, frozen=True):
        count: int = 0


class Counting(Policy):
    def decide(self, context: Context) -> Decision:
        visits = Visits.of(context.memory) or Visits()
        decision = context.best(why=f"visit {visits.count}")
        Visits(visits.count + 1, (*visits.cuts[-2:], decision.row)).keep(context.memory)
        return decision


def test_it_is_kept_found_and_forgotten() -> None:
    memory: dict[str, Any] = {}
    assert Visits.of(memory) is None
    Visits(3).keep(memory)
    Other.Visits(5).keep(memory)
    assert Visits.of(memory) == Visits(3)
    assert Other.Visits.of(memory) == Other.Visits(5)
    twin = copy.deepcopy(memory)
    Visits.forget(memory)
    Visits.forget(memory)
    assert Visits.of(memory) is None
    assert Visits.of(twin) == Visits(3)


def test_it_goes_through_json_with_the_state_of_a_planner() -> None:
    place = Place(Counting()).run(5)
    state = json.loads(json.dumps(place.planner.snapshot()))
    assert state["memory"] == {f"{__name__}.Visits": {"count": 5, "cuts": [0, 0, 0]}}
    again = Place(Counting())
    again.planner.restore(state)
    assert again.planner.decide(9.0).why == "visit 5"
    assert again.planner.snapshot()["memory"][f"{__name__}.Visits"]["count"] == 6
    assert place.planner.decide(9.0).why == "visit 5"  # they share nothing


def test_another_kind_of_memory_is_said_and_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    """A state of another version of the policy: its counts had words."""
    planner: Planner = Place(Counting()).run(2).planner
    state = planner.snapshot()
    state["memory"][f"{__name__}.Visits"]["count"] = "two"
    planner.restore(state)
    with caplog.at_level(logging.WARNING):
        assert [planner.decide(9.0).why for _ in range(2)] == ["visit 0", "visit 1"]
    (record,) = caplog.records
    assert "Visits" in record.message
    assert "count" in record.message


@pytest.mark.parametrize("policy", [adaptive(), LinearBandit(), ThroughputTarget(3)], ids=str)
def test_ours_remember_nothing_but_such(policy: Policy) -> None:
    place = Place(policy, mbit_per_s=0.5).run(30)
    place.slow[0] = 30.0
    place.run(3)
    assert place.planner._memory
    assert all(isinstance(kept, PolicyMemory) for kept in place.planner._memory.values())


def test_nothing_to_confirm_is_no_row() -> None:
    place = Place(adaptive(), mbit_per_s=0.5).run(30)
    losses = Losses.of(place.planner._memory)
    assert losses is not None
    assert losses.to_confirm is None
    assert losses.missed > 0
