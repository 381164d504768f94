"""Measure again what has just changed."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from attrs import field, frozen

from splitiot.policies._base import COLUMNS, GROUPS, Context, Decision, Ranking
from splitiot.policies.wrapper import Wrapper

__all__ = ["RetestOnDrift"]

_NOTES: Final = "retest"


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
        signs = context.staleness
        if signs is None:
            return inner
        drifts = list(signs.drifts)
        notes: dict[str, list[int]] | None = context.memory.get(_NOTES)
        if notes is None:
            context.memory[_NOTES] = {"drifts": drifts, "left": [0, 0, 0], "wait": [0, 0, 0]}
            return inner
        left, wait = notes["left"], notes["wait"]
        if drifts != notes["drifts"]:
            for group, (seen, now) in enumerate(zip(notes["drifts"], drifts, strict=True)):
                if seen != now:
                    left[group], wait[group] = self.tests, 1
            notes["drifts"] = drifts
        if not any(left):
            return inner
        terms = context.costs.terms
        told = terms[inner.row, COLUMNS] > 0
        due = []
        for group in range(3):
            if left[group] and told[group]:
                left[group] -= 1
            elif left[group]:
                wait[group] -= 1
                due += [group] if wait[group] <= 0 else []
        if inner.probe or not due:
            return inner
        return self._test(context, inner, ranking, due, left, wait)

    def _test(
        self, context: Context, inner: Decision, ranking: Ranking, due: list[int], left: list[int], wait: list[int]
    ) -> Decision:
        for group in due:
            left[group] -= 1
            wait[group] = 2 ** (self.tests - left[group])
        values = ranking.values
        tells = ranking.mask & (context.costs.terms[:, [COLUMNS[group] for group in due]] > 0).all(axis=1)
        row = int(np.where(tells, values, math.inf).argmin())
        if not (tells[row] and values[row] <= self.limit * abs(values[inner.row])):
            return inner
        words = " and ".join(GROUPS[group] for group in due)
        return Decision(row, f"a probe: {words} drifted", True, inner.propensity, ranking)
