"""A linear contextual bandit, for comparison."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np
from attrs import field, frozen
from msgspec.structs import replace
from numpy.typing import NDArray

from splitiot.observation import Observation
from splitiot.policies._base import Context, Decision, Policy, Ranking
from splitiot.policies._memory import PolicyMemory

__all__ = ["LinearBandit"]

_FEATURES: Final = 4  # seconds on the edge, bytes up, bytes down, 1: each over its largest
_RIDGE: Final = 1e-3
_LONGEST_S: Final = 1e6  # beyond that it is no round trip, but a wrong clock


class Regression(PolicyMemory, frozen=True):
    """What was learnt of the edge's share: the sums of a linear regression.

    Parameters
    ----------
    gram : tuple of tuple of float
        Of the features, discounted.
    target : tuple of float
        Features times seconds, discounted.
    alone : int
        How many requests on end have not used the edge.
    features : dict of str to tuple of float
        Of each cut that was chosen, when it was chosen last.
    """

    gram: tuple[tuple[float, ...], ...]
    target: tuple[float, ...]
    alone: int = 0
    features: dict[str, tuple[float, ...]] = msgspec.field(default_factory=dict)


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
        learnt = Regression.of(context.memory) or _prior(costs.latency_s - costs.device_s, features)
        gram, target = np.array(learnt.gram), np.array(learnt.target)
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
        alone = 0 if exchanges[row] else learnt.alone + 1
        if alone >= self.every and exchanges.any():
            row, probe, alone = int(np.where(exchanges, bound, math.inf).argmin()), True, 0
        chosen = {**learnt.features, str(int(costs.cuts[row])): tuple(features[row].tolist())}
        replace(learnt, alone=alone, features=chosen).keep(context.memory)
        why = "a probe: the edge was not used for long" if probe else ranking.why
        return Decision(row, why, probe, ranking=ranking)

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        o, learnt = observation, Regression.of(memory)
        if learnt is None or o.round_trip_s is None or o.censored or o.retransmitted or o.upper_bound or o.probe:
            return
        features = learnt.features.get(str(o.cut))
        if features is None or not 0 <= o.round_trip_s < _LONGEST_S:
            return
        x = np.array(features)
        gram = self.discount * np.array(learnt.gram) + np.outer(x, x)
        # what discounting takes from the ridge is put back, or unseen directions would become certain nonsense
        gram += (1 - self.discount) * _RIDGE * np.eye(_FEATURES)
        target = self.discount * np.array(learnt.target) + o.round_trip_s * x
        replace(learnt, gram=_rows(gram), target=tuple(target.tolist())).keep(memory)


def _prior(seconds: NDArray[np.float64], features: NDArray[np.float64]) -> Regression:
    """Begin with what the planner believes, as one sample a row of little weight."""
    weight = 0.1 / len(seconds)
    gram = _RIDGE * np.eye(_FEATURES) + weight * features.T @ features
    return Regression(_rows(gram), tuple((weight * features.T @ seconds).tolist()))


def _rows(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))
