"""A stream on a virtual clock: device, uplink, edge and downlink work on different frames, and all of them change.

What `Device.map` does with a window, told in seconds: a frame is begun when the device is free and fewer than `window`
results are owed; each resource takes one frame after the other. A planner is told what a session would tell it, at the
moment when a session would, and its link is probed when a session would probe it.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray
from regimes import RESULT_BYTES, figures

import splitiot as si
from splitiot.session._queueing import QueueingEstimator

HEADER_BYTES: Final = 250
PROBE_BYTES: Final = 60
PAD_BYTES: Final = 4096
PROBE_EVERY_S: Final = 1.0
RTT_S: Final = 0.006
CONNECT_S: Final = 0.1

Floats = NDArray[np.float64]


@frozen(eq=False)
class Chain:
    """What is cut: seconds of each step on device and edge, bytes at each cut, and the results a second wanted.

    Parameters
    ----------
    name : str
    device_s, edge_s : array of float, shape (n,)
    sent : array of float, shape (n + 1,)
        Bytes that cross at a cut; those that come back are `RESULT_BYTES`.
    pinned : bool
        The first step stays on the device and the last one on the edge, as in CS4365's scheduler.
    singly : bool
        Steps are timed one by one, as those of tasks are; a network's are not.
    fps : float
    mbit_per_s : float
    """

    name: str
    device_s: Floats
    edge_s: Floats
    sent: Floats
    pinned: bool
    singly: bool
    fps: float
    mbit_per_s: float

    @property
    def n(self) -> int:
        return len(self.device_s)

    @functools.cached_property
    def pipeline(self) -> si.Pipeline:
        tiers = {0: "device", self.n - 1: "edge"} if self.pinned else {}
        steps = [si.task(abs, name=f"step {i}", tier=tiers.get(i)) for i in range(self.n)]
        return si.tasks(steps, version=self.name)

    @functools.cached_property
    def topology(self) -> si.Topology:
        """Profiles and link at factor 1."""
        sizes = {"sent_bytes": self.sent, "returned_bytes": self.returned}
        tiers = [si.TierProfile.from_steps(self.pipeline.digest, s, **sizes) for s in (self.device_s, self.edge_s)]
        return si.Topology(tiers=tiers, links=[si.Link.from_mbit_per_s(self.mbit_per_s, rtt_s=RTT_S)])

    @property
    def returned(self) -> Floats:
        returned = np.full(self.n + 1, float(RESULT_BYTES))
        returned[-1] = 0.0
        return returned


def tracker() -> Chain:
    """Seven steps as of a program that follows a ball in 640 x 360 pictures; the times are made up."""
    device_ms = [2.0, 5.0, 9.0, 8.0, 7.0, 4.0, 3.0]  # take, shrink, blur, mask, contours, track, draw
    sent = [691_200, 691_200, 76_800, 76_800, 25_600, 6_000, 2_000, 0]
    device_s = np.array(device_ms) / 1e3
    return Chain("tracker", device_s, device_s / 6, np.array(sent, np.float64), True, True, 24.0, 40.0)


def network(name: str) -> Chain:
    """One of Scission's, on a Raspberry Pi 4 and an Intel i5; wanted is 0.8 of what the device can do alone."""
    found = figures()["networks"][name]
    device_s = np.array(found["device_s"])
    sent = np.array([figures()["input_bytes"], *found["out_bytes"]], np.float64)
    sent[-1] = 0.0
    return Chain(name, device_s, np.array(found["edge_s"]), sent, False, False, 0.8 / float(device_s.sum()), 40.0)


@frozen
class Phase:
    """From when on, and how many times slower than at first device, edge and link are."""

    begin_s: float
    device: float = 1.0
    edge: float = 1.0
    link: float = 1.0


PHASES: Final[tuple[tuple[float, float, float], ...]] = (
    (1.0, 1.0, 1.0),
    (3.0, 1.0, 1.0),
    (1.5, 1.0, 1.0),
    (6.0, 1.0, 1.0),
    (1.0, 1.0, 1.0),
    (12.0, 1.0, 1.0),
    (1.5, 1.0, 1.0),
    (3.0, 1.0, 4.0),
    (3.0, 1.0, 1.0),
    (3.0, 4.0, 1.0),
    (1.0, 1.0, 1.0),
    (2.0, 1.0, 2.0),
    (4.0, 2.0, 1.0),
    (1.2, 1.0, 1.0),
)


@frozen(eq=False)
class World:
    """A chain in a time of changes.

    Parameters
    ----------
    chain : Chain
    seed : int
    window : int
    noise : float
        Relative, of each frame's seconds on each resource.
    spikes : float
        Share of frames in which one of them takes 2 to 6 times as long.
    spread : float
        Sigma of the logarithm of a step's own slow-down, which no profile knows.
    phases : sequence of (float, float, float)
        How many times slower device, edge and link are.
    lasts_s : (float, float)
        How long each phase lasts.
    frames : int
        Of whose noise is drawn; then it begins again.
    """

    chain: Chain
    seed: int = 0
    window: int = 3
    noise: float = 0.05
    spikes: float = 0.02
    spread: float = 0.1
    phases: Sequence[tuple[float, float, float]] = PHASES
    lasts_s: tuple[float, float] = (60.0, 120.0)
    frames: int = 20_000
    factors: Floats = field(init=False)  # (frames, 4): device, uplink, edge, downlink
    heads_s: Floats = field(init=False)
    tails_s: Floats = field(init=False)
    steps_s: tuple[Floats, Floats] = field(init=False)
    when: tuple[Phase, ...] = field(init=False)
    end_s: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        random, chain = np.random.default_rng([self.seed, 4365]), self.chain
        own = [np.exp(self.spread * random.standard_normal(chain.n)) for _ in range(2)]
        steps = (chain.device_s * own[0], chain.edge_s * own[1])
        noise = np.exp(self.noise * random.standard_normal((self.frames, 4)))
        hit = np.flatnonzero(random.random(self.frames) < self.spikes)
        noise[hit, random.integers(0, 3, len(hit))] *= random.uniform(2.0, 6.0, len(hit))
        lasts_s = random.uniform(*self.lasts_s, len(self.phases))
        begins_s = [0.0, *np.cumsum(lasts_s).tolist()]
        more = np.exp(0.1 * random.standard_normal((len(self.phases), 3)))
        fill = functools.partial(object.__setattr__, self)
        fill("steps_s", steps)
        fill("heads_s", np.concatenate([[0.0], np.cumsum(steps[0])]))
        fill("tails_s", np.concatenate([np.cumsum(steps[1][::-1])[::-1], [0.0]]))
        fill("factors", noise)
        fill("end_s", begins_s[-1])
        whens = [
            Phase(begin_s, *(float(f) * float(m) if f != 1.0 else 1.0 for f, m in zip(factors, row, strict=True)))
            for begin_s, factors, row in zip(begins_s, self.phases, more, strict=False)
        ]
        fill("when", tuple(whens))

    @property
    def target_s(self) -> float:
        return 1 / self.chain.fps

    def busy_s(self, phase: Phase) -> Floats:
        """Seconds of device, uplink, edge and downlink for each cut, without noise; shape (n + 1, 4)."""
        chain, rate = self.chain, self.chain.mbit_per_s * 125e3 / phase.link
        crosses = np.arange(chain.n + 1) < chain.n
        return np.column_stack(
            [
                self.heads_s * phase.device,
                (chain.sent + HEADER_BYTES) / rate * crosses,
                self.tails_s * phase.edge,
                (chain.returned + HEADER_BYTES) / rate * crosses,
            ]
        )

    def periods_s(self, phase: Phase) -> Floats:
        """Seconds between results at each cut, without noise; inf where a cut is not legal. Shape (n + 1,)."""
        busy = self.busy_s(phase)
        latency_s = busy.sum(axis=1) + np.where(np.arange(self.chain.n + 1) < self.chain.n, RTT_S, 0.0)
        periods = np.maximum(busy.max(axis=1), latency_s / self.window)
        legal = np.isin(np.arange(self.chain.n + 1), self.chain.pipeline.cuts)
        return np.where(legal, periods, math.inf)

    def phase_at(self, now_s: float) -> Phase:
        return max((p for p in self.when if p.begin_s <= now_s), key=lambda p: p.begin_s)


class Agent(Protocol):
    """Chooses a cut for each frame."""

    def choose(self, now_s: float) -> tuple[int, int, bool]:
        """Return a number of its own, the cut, and whether it is a probe."""
        ...

    def learn(self, seen: si.Observation, now_s: float) -> None: ...

    def result(self, now_s: float) -> None:
        """A result was handed out."""
        ...


@frozen(eq=False)
class RequestResult:
    """What became of the frames: when each was begun, when its result was there, in order; its cut, and if a probe."""

    begun_s: Floats
    ended_s: Floats
    cuts: NDArray[np.int64]
    probes: NDArray[np.bool_]


class _Resource:
    """Takes one after the other."""

    def __init__(self) -> None:
        self.free_s = 0.0

    def take(self, at_s: float, seconds: float) -> float:
        self.free_s = max(at_s, self.free_s) + seconds
        return self.free_s


class Stream:
    """A stream's life in a world."""

    def __init__(self, world: World, agent: Agent) -> None:
        self._world, self._agent = world, agent
        self._queueing = QueueingEstimator()
        self._up, self._edge, self._down = _Resource(), _Resource(), _Resource()
        self._news: list[tuple[float, int, dict[str, Any]]] = []  # what will be known when
        self._order = itertools.count()
        self._pending = 0
        self._crossed_s = -math.inf
        self._probe_s = 0.0  # what the last padded probe took
        self._probing, self._padded = False, True
        self._busy: dict[Phase, Floats] = {}

    def run(self) -> RequestResult:
        world, agent, chain = self._world, self._agent, self._world.chain
        window, n = world.window, chain.n
        begun, ended, cuts, probes = [], [], [], []
        told, phases = 0, list(world.when)
        phase = phases.pop(0)
        self._probe(0.0, phase)  # while it connects
        self._catch_up(CONNECT_S, phase)
        free_s = CONNECT_S
        while True:
            number = len(begun)
            now_s = max(free_s, ended[number - window] if number >= window else 0.0)
            if now_s >= world.end_s:
                break
            while phases and phases[0].begin_s <= now_s:
                phase = phases.pop(0)
            self._catch_up(now_s, phase)
            while told < number and ended[told] <= now_s:
                agent.result(ended[told])
                told += 1
            plan_id, cut, probe = agent.choose(now_s)
            busy = self._busy_s(phase)[cut] * world.factors[number % world.frames]
            head_s, up_s, tail_s, down_s = busy.tolist()
            if cut:
                self._rest(now_s, head_s if cut < n else math.inf, phase)
            free_s = done_s = now_s + head_s
            seen: dict[str, Any] = {"plan_id": plan_id, "cut": cut, "head_s": head_s if cut else None}
            noise = world.factors[number % world.frames]
            if chain.singly:
                seen["head_steps_s"] = tuple((world.steps_s[0][:cut] * (phase.device * noise[0])).tolist())
            self._catch_up(free_s, phase)
            if cut < n:
                tails = (world.steps_s[1][cut:] * (phase.edge * noise[2])).tolist() if chain.singly else ()
                sizes = int(chain.sent[cut]) + HEADER_BYTES, int(chain.returned[cut]) + HEADER_BYTES
                done_s = self._send(free_s, up_s, tail_s, down_s, sizes, seen, tuple(tails))
            else:
                self._tell(done_s, seen)
            begun.append(now_s)
            ended.append(max(done_s, ended[-1]) if ended else done_s)
            cuts.append(cut)
            probes.append(probe)
        return RequestResult(np.array(begun), np.array(ended), np.array(cuts), np.array(probes))

    def _busy_s(self, phase: Phase) -> Floats:
        if phase not in self._busy:
            self._busy[phase] = self._world.busy_s(phase)
        return self._busy[phase]

    def _send(
        self,
        sent_s: float,
        up_s: float,
        tail_s: float,
        down_s: float,
        sizes: tuple[int, int],
        seen: dict[str, Any],
        steps_s: tuple[float, ...],
    ) -> float:
        """A frame, or a probe, goes over link and edge; return when its answer is there."""
        arrived_s = self._up.take(sent_s, up_s) + RTT_S / 2
        computed_s = self._edge.take(arrived_s, tail_s) if tail_s else arrived_s
        back_s = self._down.take(computed_s, down_s) + RTT_S / 2
        residence_s = computed_s - arrived_s
        seen |= {
            "edge": si.EdgeTimes(
                queue_s=residence_s - tail_s, compute_s=tail_s, residence_s=residence_s, steps_s=steps_s
            ),
            "tail_s": tail_s,
            "round_trip_s": back_s - sent_s,
            "sent_bytes": sizes[0],
            "received_bytes": sizes[1],
            "behind": self._pending > 0,
        }
        if not seen.get("probe"):
            self._pending += 1
        self._tell(back_s, seen)
        return back_s

    def _tell(self, at_s: float, seen: dict[str, Any]) -> None:
        heapq.heappush(self._news, (at_s, next(self._order), seen))

    def _catch_up(self, now_s: float, phase: Phase) -> None:
        """Learn what is known by now."""
        while self._news and self._news[0][0] <= now_s:
            at_s, _, seen = heapq.heappop(self._news)
            if "edge" in seen:
                behind, probe = seen.pop("behind"), seen.get("probe", False)
                if probe:
                    self._echoed(at_s, seen, phase)
                    behind = self._pending > 0
                else:
                    self._pending -= 1
                    self._crossed_s = at_s if seen["sent_bytes"] >= 2048 else self._crossed_s
                seen = self._cleared(seen, at_s, behind)
            self._agent.learn(si.Observation(**seen), at_s)

    def _cleared(self, seen: dict[str, Any], at_s: float, behind: bool) -> dict[str, Any]:
        """Tell apart what it waited for others, as a session does."""
        nbytes, edge = seen["sent_bytes"] + seen["received_bytes"], seen["edge"]
        sent_s = at_s - seen["round_trip_s"]
        queued_s, held_s = self._queueing.update(
            sent_s, at_s, edge.residence_s, nbytes=nbytes, behind=behind, queue_s=edge.queue_s
        )
        return seen if seen.get("probe") else seen | {"queued_s": queued_s, "held_s": held_s}

    # the link is measured while nothing crosses it

    def _rest(self, now_s: float, idle_s: float, phase: Phase) -> None:
        stale = now_s - self._crossed_s >= PROBE_EVERY_S and idle_s >= self._probe_s
        if stale and not self._pending and not self._probing:
            self._probe(now_s, phase)

    def _probe(self, now_s: float, phase: Phase) -> None:
        self._padded, self._probing = not self._padded, True
        rate = self._world.chain.mbit_per_s * 125e3 / phase.link
        nbytes = PROBE_BYTES + PAD_BYTES * self._padded
        noise = self._world.factors[next(self._order) % self._world.frames, 1]
        seen: dict[str, Any] = {"plan_id": 0, "cut": 0, "probe": True}
        self._send(now_s, nbytes / rate * noise, 0.0, PROBE_BYTES / rate, (nbytes, PROBE_BYTES), seen, ())
        seen["tail_s"] = None

    def _echoed(self, at_s: float, seen: dict[str, Any], phase: Phase) -> None:
        self._probing = False
        if self._padded:
            self._probe_s, self._crossed_s = seen["round_trip_s"], at_s
        elif not self._pending:
            self._probe(at_s, phase)
