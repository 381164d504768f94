"""What an observation tells is counted once a plan."""

from __future__ import annotations

import pytest

from splitiot.estimators.deduplicator import Kind, ObservationDeduplicator
from splitiot.observation import Observation

REMEMBERED = 1024


def head_of(plan_id: int) -> Observation:
    return Observation(plan_id=plan_id, cut=1, head_s=0.5)


@pytest.mark.parametrize("forgotten", [1, 2, 5])
def test_what_is_forgotten_is_taken_for_repeated(forgotten: int) -> None:
    deduplicator = ObservationDeduplicator()
    for plan_id in range(1, REMEMBERED + forgotten + 1):
        assert deduplicator.take(head_of(plan_id)) == Kind.HEAD
    for plan_id in range(1, forgotten + 1):  # the last one of these is the floor itself
        assert deduplicator.take(head_of(plan_id)) == Kind.NONE
    assert deduplicator.repeated == forgotten


def test_what_is_remembered_still_tells_its_other_half() -> None:
    deduplicator = ObservationDeduplicator()
    for plan_id in range(1, REMEMBERED + 2):
        deduplicator.take(head_of(plan_id))
    assert deduplicator.take(Observation(plan_id=2, cut=1, tail_s=0.5)) & Kind.TAIL, "it is the oldest that is known"
    assert deduplicator.take(Observation(plan_id=1, cut=1, tail_s=0.5)) == Kind.NONE
