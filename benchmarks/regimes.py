"""A device, a server and a link between them that change every few hundred requests, and what an oracle would pay.

Figures of 18 networks on measured machines (`data/scission.json`). In each regime the bandwidth, the server's load and
the device's throttling are drawn anew, and so is a slow-down of every single step, which no profile knows. Every
request has noise, and now and then a spike. The oracle knows the regime (not the noise), and pays the same noise.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

import splitiot as si

FIGURES: Final = Path(__file__).parent / "data" / "scission.json"
Server = Literal["edge", "cloud"]
SERVERS: Final[tuple[Server, ...]] = ("edge", "cloud")
RTT_S: Final = {"edge": 0.020, "cloud": 0.045}  # Scission's wired network
RESULT_BYTES: Final = 4000  # a thousand scores
HEADER_BYTES: Final = 100

TUNING: Final = frozenset(
    {
        "resnet50",
        "resnet101",
        "resnet152",
        "resnet50v2",
        "resnet101v2",
        "resnet152v2",
        "xception",
        "inception_v3",
        "inceptionresnet_v2",
    }
)
"""Networks to choose settings with. The others are held out; no family is on both sides."""
HELD_OUT_SEED: Final = 1000
PRIOR_OFF: Final = 4.0  # what a planner believes of rate and round trip at first is wrong by up to so many times

Floats = NDArray[np.float64]


@frozen
class Scenario:
    """How much changes, and when.

    Parameters
    ----------
    requests, every : int
        How many, and how many of them a regime lasts.
    apart : bool
        Link, server and device change at moments of their own, every so many requests in the mean.
    mbit_per_s, load, throttling : (float, float)
        Each drawn from a log-uniform distribution between these.
    spread : float
        Sigma of the logarithm of a step's own slow-down.
    noise : float
        Relative, of each request's seconds on device, server and link.
    spikes : float
        Share of requests in which one of the three takes 2 to 6 times as long.
    """

    requests: int = 6000
    every: int = 400
    apart: bool = False
    mbit_per_s: tuple[float, float] = (0.5, 50.0)
    load: tuple[float, float] = (1.0, 8.0)
    throttling: tuple[float, float] = (1.0, 3.0)
    spread: float = 0.3
    noise: float = 0.05
    spikes: float = 0.02


@functools.cache
def figures() -> dict[str, Any]:
    """The published figures."""
    published: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return published


def networks() -> tuple[str, ...]:
    """Their names, in the order of the publication."""
    return tuple(figures()["networks"])


class World:
    """One network, one server, one seed: what each request takes at each cut."""

    def __init__(self, network: str, server: Server, seed: int, scenario: Scenario) -> None:
        f, s = figures()["networks"][network], scenario
        device_s, server_s = np.array(f["device_s"]), np.array(f[f"{server}_s"])
        self.scenario, self.n = scenario, len(device_s)
        self.sent = np.array([figures()["input_bytes"], *f["out_bytes"]], np.float64)
        self.returned = np.full(self.n + 1, float(RESULT_BYTES))
        self.sent[-1] = self.returned[-1] = 0.0
        self.rtt_s = RTT_S[server]
        self.pipeline = si.tasks([si.task(abs, name=f"block {i}") for i in range(self.n)], version=network)
        sizes = {"sent_bytes": self.sent, "returned_bytes": self.returned}
        self.topology = si.Topology(
            tiers=[si.TierProfile.from_steps(self.pipeline.digest, times, **sizes) for times in (device_s, server_s)],
            links=[self._prior([seed, networks().index(network), SERVERS.index(server), 1])],
        )
        random = np.random.default_rng([seed, networks().index(network), SERVERS.index(server)])
        regimes = -(-s.requests // s.every)
        self.regime = self._moments(random, regimes)
        regimes = int(self.regime.max()) + 1
        rates, loads, throttles = (
            np.exp(random.uniform(*np.log(bounds), regimes)) for bounds in (s.mbit_per_s, s.load, s.throttling)
        )
        own = [np.exp(s.spread * random.standard_normal((regimes, self.n))) for _ in range(2)]
        self.device_steps_s = device_s * throttles[:, None] * own[0]
        self.server_steps_s = server_s * loads[:, None] * own[1]
        nothing = np.zeros((regimes, 1))
        self.heads_s = np.hstack([nothing, np.cumsum(self.device_steps_s, axis=1)])
        self.tails_s = np.hstack([np.cumsum(self.server_steps_s[:, ::-1], axis=1)[:, ::-1], nothing])
        self.network_s = self.rtt_s + (self.sent + self.returned) / (rates[:, None] * 125e3)
        self.network_s[:, -1] = 0.0
        self.noise = np.exp(s.noise * random.standard_normal((s.requests, 3)))
        hit = np.flatnonzero(random.random(s.requests) < s.spikes)
        self.noise[hit, random.integers(0, 3, len(hit))] *= random.uniform(2.0, 6.0, len(hit))

    def _prior(self, seed: Sequence[int]) -> si.Link:
        """Return the link that is believed before the first sample: not this one, nor the middle of its regimes."""
        off = PRIOR_OFF ** np.random.default_rng(seed).uniform(-1, 1, 2)
        middle = math.sqrt(math.prod(self.scenario.mbit_per_s))
        return si.Link.from_mbit_per_s(middle * off[0], rtt_s=self.rtt_s * off[1])

    def _moments(self, random: np.random.Generator, regimes: int) -> NDArray[np.int64]:
        """Which regime device, server and link are in at each request; shape (requests, 3)."""
        s = self.scenario
        if not s.apart:
            return np.repeat(np.arange(s.requests)[:, None] // s.every, 3, axis=1)
        changes = random.random((s.requests, 3)) < 1 / s.every
        return np.cumsum(changes, axis=0)

    @functools.cached_property
    def oracle(self) -> tuple[NDArray[np.int64], Floats]:
        """The best cut of each request for one who knows the regime, and the seconds it takes with its noise."""
        states, which = np.unique(self.regime, axis=0, return_inverse=True)
        best = np.array([(self.heads_s[d] + self.tails_s[e] + self.network_s[k]).argmin() for d, e, k in states])
        cuts = best[which.reshape(-1)]
        return cuts, np.array([sum(self.seconds(number, cut)) for number, cut in enumerate(cuts.tolist())])

    def seconds(self, number: int, cut: int) -> tuple[float, float, float]:
        """What a request takes on the device, on the server and on the link at a cut."""
        (d, e, k), (a, b, c) = self.regime[number].tolist(), self.noise[number].tolist()
        return float(self.heads_s[d, cut]) * a, float(self.tails_s[e, cut]) * b, float(self.network_s[k, cut]) * c

    def steps(self, number: int, cut: int) -> tuple[list[float], list[float]]:
        """What each step of it takes, on the device and on the server."""
        (d, e, _), (a, b, _) = self.regime[number].tolist(), self.noise[number].tolist()
        return (self.device_steps_s[d, :cut] * a).tolist(), (self.server_steps_s[e, cut:] * b).tolist()


def seeds_of(network: str, count: int) -> range:
    """Which seeds a network runs with: those of a network that is held out are nobody's to choose settings with."""
    first = 0 if network in TUNING else HELD_OUT_SEED
    return range(first, first + count)
