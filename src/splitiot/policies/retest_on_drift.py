"""Measure again what has just changed."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from attrs import field, frozen

from splitiot.policies._base import GROUPS, Context, Decision, Ranking
from splitiot.policies._memory import PolicyMemory
from splitiot.policies.wrapper import Wrapper

__all__ = ["RetestOnDrift"]

_COLUMNS: Final = tuple(GROUPS)


class Retests(PolicyMemory, frozen=True):
    """Of device, edge and link: the drifts that were seen, how many tests are left, and after how many requests."""

    drifts: tuple[int, int, int]
    left: tuple[int, int, int] = (0, 0, 0)
    wait: tuple[int, int, int] = (0, 0, 0)


@frozen
class RetestOnDrift(Wrapper):
    """After a drift, measure what drifted a few times more, though another policy turned away from it.

    When a detector sees that the edge, say, got slower, the policy may move everything home; what is believed of the
    edge then rests on two samples, perhaps of a hiccup. So the cheapest row that measures it is tried as a probe, 1, 2,
    4, ... requests later. What the policy's own choices measure needs no probe.

    Parameters
    ----------
    policy : Policy
    tests : int
        How often.
    limit : float
        A probe may cost this many times what the policy's own choice costs; dearer ones are left out.
    """

    tests: int = 1
    limit: float = field(default=2.0, converter=float)

    def __attrs_post_init__(self) -> None:
        if self.tests < 1:
            raise ValueError(f"tests must be >= 1, got {self.tests}")
        if not self.limit >= 1:
            raise ValueError(f"limit must be >= 1, got {self.limit}")

    def revise(self, context: Context, inner: Decision, ranking: Ranking) -> Decision:
        staleness = context.staleness
        if staleness is None:
            return inner
        drifts = (staleness.device.drifts, staleness.edge.drifts, staleness.link.drifts)
        retests = Retests.of(context.memory)
        if retests is None:
            Retests(drifts).keep(context.memory)
            return inner
        left, wait = list(retests.left), list(retests.wait)
        for group, (before, now) in enumerate(zip(retests.drifts, drifts, strict=True)):
            if before != now:
                left[group], wait[group] = self.tests, 1
        if not any(left):
            return inner
        measured = context.costs.terms[inner.row, _COLUMNS] > 0
        due = []
        for group in range(3):
            if left[group] and measured[group]:
                left[group] -= 1
            elif left[group]:
                wait[group] -= 1
                due += [group] if wait[group] <= 0 else []
        decision = inner
        if due and not inner.probe:
            for group in due:
                left[group] -= 1
                wait[group] = 2 ** (self.tests - left[group])
            decision = self._test(context, inner, ranking, due)
        Retests(drifts, _three(left), _three(wait)).keep(context.memory)
        return decision

    def _test(self, context: Context, inner: Decision, ranking: Ranking, due: list[int]) -> Decision:
        values = ranking.values
        measures = ranking.mask & (context.costs.terms[:, [_COLUMNS[group] for group in due]] > 0).all(axis=1)
        row = int(np.where(measures, values, math.inf).argmin())
        if not (measures[row] and values[row] <= self.limit * abs(values[inner.row])):
            return inner
        names = " and ".join(GROUPS[_COLUMNS[group]] for group in due)
        return Decision(row, f"a probe: {names} drifted", True, inner.propensity, ranking)


def _three(values: list[int]) -> tuple[int, int, int]:
    device, edge, link = values
    return device, edge, link
