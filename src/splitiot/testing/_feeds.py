"""What estimators are fed with: numbers, or observations and times."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from splitiot.observation import EdgeTimes, Observation
from splitiot.testing._deployments import STEPS, deployments
from splitiot.testing._observations import IMPOSSIBLE, Truth, impossible, odd, ordinary

__all__ = ["NUMBERS", "OBSERVATIONS", "Feed"]

_HOLDS: Final = 40  # samples after which the level changes
_ODD: Final = (*IMPOSSIBLE, 0.0, -0.0, -5e-324, 5e-324, 1e-300, 1e300, 1.7e308)
_EVERY_S: Final = 0.3


class Feed(abc.ABC):
    """Gives the arguments of `update`; the same for the same seed and number."""

    @abc.abstractmethod
    def ordinary(self, seed: int, i: int) -> tuple[Any, ...]:
        """Return what may well be measured."""

    @abc.abstractmethod
    def odd(self, seed: int, i: int) -> tuple[Any, ...]:
        """Return what is repeated, partial, a lower bound, or absurd."""

    @abc.abstractmethod
    def impossible(self, i: int) -> Iterator[tuple[Any, ...]]:
        """Yield what must be refused in whole."""

    @abc.abstractmethod
    def many(self, count: int) -> Iterator[tuple[Any, ...]]:
        """Yield so many of them, quickly."""

    def now_s(self, i: int) -> float | None:
        """Return the time of number `i`, None where there is no clock."""
        return None


class _Numbers(Feed):
    def ordinary(self, seed: int, i: int) -> tuple[Any, ...]:
        level = np.random.default_rng([seed, i // _HOLDS, 1]).normal()
        return (math.exp(level + 0.1 * np.random.default_rng([seed, i, 2]).normal()),)

    def odd(self, seed: int, i: int) -> tuple[Any, ...]:
        rng = np.random.default_rng([seed, i, 3])
        return self.ordinary(seed, i // 3) if rng.random() < 0.3 else (float(rng.choice(_ODD)),)

    def impossible(self, i: int) -> Iterator[tuple[Any, ...]]:
        yield from ((x,) for x in IMPOSSIBLE)

    def many(self, count: int) -> Iterator[tuple[Any, ...]]:
        rng = np.random.default_rng(0)
        levels = np.repeat(rng.normal(size=count // 500 + 1), 500)[:count]
        yield from ((x,) for x in np.exp(levels + 0.1 * rng.normal(size=count)).tolist())


class _Observations(Feed):
    def now_s(self, i: int) -> float | None:
        return _EVERY_S * i

    def ordinary(self, seed: int, i: int) -> tuple[Any, ...]:
        truth = Truth.drawn(np.random.default_rng([seed, i // _HOLDS, 1]))
        rng = np.random.default_rng([seed, i, 2])
        observation = ordinary(deployments()[0], truth, int(rng.integers(STEPS + 1)), i + 1, rng)
        if rng.random() < 0.1:
            observation = Observation(plan_id=0, cut=0, probe=True, round_trip_s=0.02 * truth.rtt, sent_bytes=80)
        return observation, self.now_s(i)

    def odd(self, seed: int, i: int) -> tuple[Any, ...]:
        rng = np.random.default_rng([seed, i, 3])
        kind = rng.random()
        if kind < 0.5:
            return odd(i + 1, int(rng.integers(STEPS + 1)), rng), self.now_s(i)
        observation, now_s = self.ordinary(seed, int(rng.integers(i + 1)))  # again, and out of order
        if kind < 0.6 and observation.round_trip_s is not None:
            observation = msgspec.structs.replace(observation, edge=None, tail_s=None, censored=True)
        elif kind < 0.7:
            observation = msgspec.structs.replace(observation, head_s=None, head_steps_s=())
        elif kind < 0.8:
            observation = msgspec.structs.replace(observation, retransmitted=True)
        return observation, now_s

    def impossible(self, i: int) -> Iterator[tuple[Any, ...]]:
        for k, value in enumerate(IMPOSSIBLE):
            yield impossible(value, 10**9 + i + k), self.now_s(i)

    def many(self, count: int) -> Iterator[tuple[Any, ...]]:
        rng = np.random.default_rng(0)
        device, edge = deployments()[0].topology.tiers
        heads, tails = device.heads_s.tolist(), edge.tails_s.tolist()
        cuts = rng.integers(STEPS + 1, size=count).tolist()
        noise = rng.lognormal(0.0, 0.1, (count, 3)).tolist()
        for i, (cut, (a, b, c)) in enumerate(zip(cuts, noise, strict=True)):
            times = EdgeTimes(compute_s=tails[cut] * b, residence_s=tails[cut] * b + 0.004 * a)
            observation = Observation(
                plan_id=i + 1,
                cut=cut,
                head_s=heads[cut] * a,
                edge=times,
                round_trip_s=times.residence_s + 0.02 + 0.05 * c,
                sent_bytes=100 + i,
                received_bytes=100,
            )
            yield observation, _EVERY_S * i


NUMBERS: Final[Feed] = _Numbers()
OBSERVATIONS: Final[Feed] = _Observations()
