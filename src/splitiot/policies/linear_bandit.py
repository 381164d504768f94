"""A linear contextual bandit, for comparison."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.observation import Observation
from splitiot.policies._base import Context, Decision, Policy, Ranking

__all__ = ["LinearBandit"]

_NOTES: Final = "linear_bandit"
_FEATURES: Final = 4  # seconds on the edge, bytes up, bytes down, 1: each over its largest
_RIDGE: Final = 1e-3
_LONGEST_S: Final = 1e6  # beyond that it is no round trip, but a wrong clock


@frozen
class LinearBandit(Policy):
    """Learn what the edge's share of a request takes by discounted linear regression, and be optimistic about it.

    After Autodidactic Neurosurgeon: the device's seconds are taken as believed; link and edge together are a linear
    function of a row's seconds on the edge, bytes up, bytes down and a constant, which ridge regression learns from
    round trips alone. The row with the least lower confidence bound is chosen. A request that runs locally teaches
    nothing, so that every now and then the best row that uses the edge is forced, as a probe.

    It is here for research: with what a planner believes of edge and link, `StaleProbe` costs less (see
    `benchmarks/control.py`).

    Parameters
    ----------
    alpha : float
        Width of the confidence bound, relative to the least expected latency.
    discount : float
        What a sample's weight is multiplied with at each later one, in (0, 1]; 1 never forgets.
    every : int
        After so many requests in a row without the edge one is forced to use it.

    Notes
    -----
    Zhang, Chen and Xu, "Autodidactic Neurosurgeon: Collaborative Deep Inference for Mobile Edge Intelligence via
    Online Learning", WWW 2021 (its forced sampling has intervals that grow with the horizon; here they are fixed, since
    things change for ever). Discounting: Russac, Vernade and Cappé, "Weighted Linear Bandits for Non-Stationary
    Environments", NeurIPS 2019.
    """

    alpha: float = field(default=0.05, converter=float)
    discount: float = field(default=0.95, converter=float)
    every: int = 50

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be a finite number >= 0, got {self.alpha}")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount lies in (0, 1], got {self.discount}")
        if self.every < 1:
            raise ValueError(f"every must be >= 1, got {self.every}")

    def decide(self, context: Context) -> Decision:
        costs = context.costs
        best = context.best()  # raises where nothing is allowed
        features = costs.terms[:, 1:5]
        features = features / np.maximum(features.max(axis=0), 1e-12)
        notes: dict[str, Any] | None = context.memory.get(_NOTES)
        if notes is None:
            notes = context.memory[_NOTES] = _start(costs.latency_s - costs.device_s, features)
        gram, target = np.array(notes["gram"]), np.array(notes["target"])
        inverse = np.linalg.inv(gram)
        expected = costs.device_s + features @ (inverse @ target)
        doubt = np.sqrt(np.maximum(((features @ inverse) * features).sum(axis=1), 0.0))
        allowed = context.mask
        scale = max(float(np.where(allowed, expected, math.inf).min()), 0.0)
        ranking = Ranking(expected - self.alpha * scale * doubt, allowed, "least lower confidence bound")
        bound = np.where(allowed, ranking.values, math.inf)
        row = int(bound.argmin()) if np.isfinite(bound).any() else best.row
        probe = False
        exchanges = costs.exchanges & allowed
        notes["alone"] = 0 if exchanges[row] else notes["alone"] + 1
        if notes["alone"] >= self.every and exchanges.any():
            row, probe = int(np.where(exchanges, bound, math.inf).argmin()), True
            notes["alone"] = 0
        notes["seen"][str(int(costs.cuts[row]))] = features[row].tolist()
        why = "a probe: the edge was not used for long" if probe else ranking.why
        return Decision(row, why, probe, ranking=ranking)

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        o, notes = observation, memory.get(_NOTES)
        if notes is None or o.round_trip_s is None or o.censored or o.retransmitted or o.upper_bound or o.probe:
            return
        seen = notes["seen"].get(str(o.cut))
        if seen is None or not 0 <= o.round_trip_s < _LONGEST_S:
            return
        x = np.array(seen)
        gram = self.discount * np.array(notes["gram"]) + np.outer(x, x)
        # what discounting takes from the ridge is put back, or unseen directions would become certain nonsense
        gram += (1 - self.discount) * _RIDGE * np.eye(_FEATURES)
        notes["gram"] = gram.tolist()
        notes["target"] = (self.discount * np.array(notes["target"]) + o.round_trip_s * x).tolist()


def _start(seconds: NDArray[np.float64], features: NDArray[np.float64]) -> dict[str, Any]:
    """Begin with what the planner believes, as one sample a row of little weight."""
    weight = 0.1 / len(seconds)
    gram = _RIDGE * np.eye(_FEATURES) + weight * features.T @ features
    return {"gram": gram.tolist(), "target": (weight * features.T @ seconds).tolist(), "alone": 0, "seen": {}}
