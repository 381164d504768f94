"""How well a stream's target is kept while all changes: ``python benchmarks/throughput.py``, ``make bench-throughput``.

Chains of tasks and networks, a device that is slowed by known factors which change every one to two minutes (and now
and then the edge and the link too), on a virtual clock; see `tandem.py`. Beside splitiot's `ThroughputTarget` stands
the scheduler of CS4365's task framework, written anew: every 3 s it compares the results of these seconds with the
target, and moves one task more to the edge where they are too few; it never takes one back.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
from attrs import frozen
from tandem import Agent, Chain, Phase, RequestResult, Stream, World, network, tracker

import splitiot as si
from splitiot.policies import RetestOnDrift, StaleProbe, ThroughputTarget

NETWORKS: Final = ("mobilenet", "mobilenetv2", "resnet50v2", "inception_v3", "densenet121")
CHAINS: Final[dict[str, Callable[[], Chain]]] = {
    "tracker": tracker,
    **{name: (lambda name=name: network(name)) for name in NETWORKS},  # type: ignore[misc]
}
WITHIN_S, WITHIN_FRAMES = 10.0, 50
LIKE: Final = 0.95  # a rate that counts as the target: a belief has no spikes, the results have
IN_A_ROW: Final = 10  # results that make a rate
FEW: Final = 0.5  # of the rates from then on may be below the target (a spike makes ten slow), else it was luck
MUCH: Final = 1.1  # a period that makes a change needed
EASILY: Final = 0.85  # a period so short of the target's should be used for giving work back
STEADY_S, STEADY_FRAMES = 15.0, 60  # behind a change


class PlannerAgent:
    """A planner of splitiot."""

    def __init__(self, world: World, policy: si.Policy) -> None:
        self.planner = si.Planner(world.chain.pipeline, world.chain.topology, policy, seed=world.seed)

    def choose(self, now_s: float) -> tuple[int, int, bool]:
        plan = self.planner.decide(now_s)
        return plan.id, plan.cut, plan.probe

    def learn(self, seen: si.Observation, now_s: float) -> None:
        self.planner.observe(seen, now_s=now_s)

    def result(self, now_s: float) -> None:
        pass


class Cs4365:
    """Its scheduler from its description: all but the last on the device, one less every 3 s while it is too slow."""

    def __init__(self, world: World) -> None:
        self._cut, self._fps, self._results, self._since_s = world.chain.n - 1, world.chain.fps, 0, 0.0

    def choose(self, now_s: float) -> tuple[int, int, bool]:
        if now_s - self._since_s >= 3.0:
            if self._results / (now_s - self._since_s) < self._fps:
                self._cut = max(1, self._cut - 1)
            self._results, self._since_s = 0, now_s
        return 0, self._cut, False

    def learn(self, seen: si.Observation, now_s: float) -> None:
        pass

    def result(self, now_s: float) -> None:
        self._results += 1


class Told:
    """One who is told the phase: the most local cut that meets the target, else the fastest; or always the same."""

    def __init__(self, world: World, cut: int | None = None) -> None:
        self._world, self._cut, self._cuts = world, cut, dict[Phase, int]()

    def choose(self, now_s: float) -> tuple[int, int, bool]:
        if self._cut is not None:
            return 0, self._cut, False
        phase = self._world.phase_at(now_s)
        if phase not in self._cuts:
            periods = self._world.periods_s(phase)
            meets = np.flatnonzero(periods <= LIKE * self._world.target_s)
            self._cuts[phase] = int(meets[-1]) if len(meets) else int(periods.argmin())
        return 0, self._cuts[phase], False

    def learn(self, seen: si.Observation, now_s: float) -> None:
        pass

    def result(self, now_s: float) -> None:
        pass


def _wrapped(world: World) -> si.Policy:
    return RetestOnDrift(StaleProbe(ThroughputTarget(world.chain.fps, window=world.window)))


AGENTS: Final[dict[str, Callable[[World], Agent]]] = {
    "oracle": Told,
    "ThroughputTarget, wrapped": lambda world: PlannerAgent(world, _wrapped(world)),
    "ThroughputTarget": lambda world: PlannerAgent(world, ThroughputTarget(world.chain.fps, window=world.window)),
    "CS4365's scheduler": Cs4365,
    "most local": lambda world: Told(world, max(world.chain.pipeline.cuts)),
    "in the middle": lambda world: Told(world, world.chain.n // 2),
    "most on the edge": lambda world: Told(world, min(world.chain.pipeline.cuts)),
}


@frozen
class Change:
    """What followed a change.

    Parameters
    ----------
    reachable : bool
        Some cut has 5 % to spare.
    needed : bool
        The cut in use before does not reach the target any more.
    frames, seconds : float
        Until the target was reached; inf where it was not.
    back_s : float
        Until the cut was at least as local as one that has 15 % to spare; inf where it never was.
    gives : bool
        That is more local than the cut in use before.
    kept : bool
        At the end it was as local.
    missed_s, lasted_s : float
        How long the rate was below the target; and all.
    best : float
        Results over those of an oracle that knows no noise, in the last half.
    switches : int
        While nothing changed.
    steady_s : float
        How long that was.
    """

    reachable: bool
    needed: bool
    frames: float
    seconds: float
    back_s: float
    gives: bool
    kept: bool
    missed_s: float
    lasted_s: float
    best: float
    switches: int
    steady_s: float


@frozen
class Run:
    """One agent in one world."""

    agent: str
    chain: str
    seed: int
    changes: tuple[Change, ...]
    probes: int
    frames: int


def judged(world: World, ran: RequestResult) -> tuple[Change, ...]:
    """Judge what followed each change, the start being the first one."""
    ends_s = [*(phase.begin_s for phase in world.when[1:]), world.end_s]
    return tuple(
        _judged(world, ran, phase, end_s, at) for at, (phase, end_s) in enumerate(zip(world.when, ends_s, strict=True))
    )


def _judged(world: World, ran: RequestResult, phase: Phase, end_s: float, at: int) -> Change:
    target_s, periods = world.target_s, world.periods_s(phase)
    own = ~ran.probes
    reachable = bool(periods.min() <= LIKE * target_s)
    first, last = (int(np.searchsorted(ran.begun_s, s)) for s in (phase.begin_s, end_s))  # frames begun in it
    before = np.flatnonzero(own[:first])
    cut = int(ran.cuts[before[-1]]) if len(before) else -1
    needed = cut < 0 or bool(periods[cut] > MUCH * target_s)
    times = np.concatenate([[phase.begin_s], ran.ended_s[first:last]])
    frames = seconds = math.inf
    slow = np.ones(0, np.bool_)
    if len(times) > IN_A_ROW:
        rates = IN_A_ROW / (times[IN_A_ROW:] - times[:-IN_A_ROW])
        slow = rates < LIKE / target_s
        later = np.cumsum(slow[::-1])[::-1] / np.arange(len(slow), 0, -1)  # which part of the rates from there on
        good = np.flatnonzero(~slow & (later <= FEW))
        if len(good):
            frames, seconds = float(good[0]), float(times[good[0]] - phase.begin_s)
    gaps = np.diff(times)
    missed_s = float(gaps[IN_A_ROW - 1 :][slow].sum()) if len(slow) else end_s - phase.begin_s
    wanted = np.flatnonzero(periods <= EASILY * target_s)
    own_here = np.flatnonzero(own[first:last]) + first
    back = [i for i in own_here if len(wanted) and ran.cuts[i] >= wanted[-1]]
    steady_from = max(phase.begin_s + STEADY_S, float(times[min(STEADY_FRAMES, len(times) - 1)]))
    steady = [int(ran.cuts[i]) for i in own_here if ran.begun_s[i] >= steady_from]
    half_s = (phase.begin_s + end_s) / 2
    best_s = target_s if reachable else float(periods.min())
    return Change(
        reachable=reachable,
        needed=needed,
        frames=frames,
        seconds=seconds,
        back_s=float(ran.begun_s[back[0]]) - phase.begin_s if back else math.inf,
        gives=bool(len(wanted)) and 0 <= cut < int(wanted[-1]),
        kept=bool(len(wanted)) and bool(len(own_here)) and bool(ran.cuts[own_here[-1]] >= wanted[-1]),
        missed_s=missed_s,
        lasted_s=end_s - phase.begin_s,
        best=float((times >= half_s).sum()) * best_s / (end_s - half_s),
        switches=int(np.count_nonzero(np.diff(steady))),
        steady_s=max(0.0, end_s - steady_from),
    )


def run(task: tuple[str, str, int, int]) -> Run:
    """Let an agent live in a world."""
    agent, chain, seed, window = task
    world = World(CHAINS[chain](), seed, window=window)
    ran = Stream(world, AGENTS[agent](world)).run()
    return Run(agent, chain, seed, judged(world, ran), int(ran.probes.sum()), len(ran.cuts))


def results(tasks: Sequence[tuple[str, str, int, int]], jobs: int) -> Iterable[Run]:
    """Run all, as many at once as there are jobs."""
    if jobs == 1:
        yield from map(run, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, tasks)


def per_minute(one: Run) -> float:
    """Return how often a run's cut moved while nothing changed."""
    return 60 * sum(c.switches for c in one.changes) / max(1.0, sum(c.steady_s for c in one.changes))


def table(runs: Sequence[Run], title: str) -> list[str]:
    """Return a table, a row an agent."""
    lines = [
        title,
        f"{'':26} {'reached':>10} {'in 10 s/50 fr.':>15} {'frames: median, worst':>22} {'seconds':>13} "
        f"{'given back':>12} {'after':>7} {'missed':>7} {'switches/min, worst':>20} {'probes':>7} {'rest':>5}",
    ]
    for name in AGENTS:
        own = [one for one in runs if one.agent == name]
        changes = [change for one in own for change in one.changes]
        if not changes:
            continue
        needed = [c for c in changes if c.reachable and c.needed]
        gives = [c for c in changes if c.reachable and c.gives]
        can = [c for c in changes if c.reachable]
        cannot = [c for c in changes if not c.reachable]
        got = [c for c in needed if c.frames < math.inf]
        soon = [c for c in needed if c.frames <= WITHIN_FRAMES or c.seconds <= WITHIN_S]
        kept = [c for c in gives if c.kept]
        frames, seconds = [c.frames for c in got] or [math.nan], [c.seconds for c in got] or [math.nan]
        steady_s = sum(c.steady_s for c in changes)
        lines.append(
            f"{name:26} {len(got):4} of {len(needed):3} {len(soon) / max(1, len(needed)):15.1%} "
            f"{np.median(frames):13.0f}, {max(frames):7.0f} {np.median(seconds):6.1f}, {max(seconds):5.1f} "
            f"{len(kept):4} of {len(gives):4} "
            f"{np.median([c.back_s for c in kept] or [math.nan]):5.1f} s "
            f"{sum(c.missed_s for c in can) / sum(c.lasted_s for c in can):7.1%} "
            f"{60 * sum(c.switches for c in changes) / steady_s:13.2f}, {max(map(per_minute, own)):5.2f} "
            f"{sum(one.probes for one in own) / sum(one.frames for one in own):7.2%} "
            f"{np.median([c.best for c in cannot] or [math.nan]):5.2f}"
        )
    return lines


def plot(world: World, path: Path) -> None:
    """Draw rate and cut over time: the wrapped policy, and CS4365's scheduler."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = {"splitiot": ("ThroughputTarget, wrapped", "#1f6f8b")}
    shown |= {"CS4365's scheduler": ("CS4365's scheduler", "#d97706")}
    figure, (rates, cuts) = pyplot.subplots(
        2, 1, figsize=(10, 5.4), sharex=True, layout="constrained", height_ratios=(3, 2)
    )
    ends_s = [*(phase.begin_s for phase in world.when[1:]), world.end_s]
    top, every_s = world.chain.fps * 2, 4.0
    for number, (phase, end_s) in enumerate(zip(world.when, ends_s, strict=True)):
        words = [
            f"{name} x{value:.1f}"
            for name, value in (("device", phase.device), ("edge", phase.edge), ("link", phase.link))
            if value > 1
        ] or ["x1"]
        words += [] if world.periods_s(phase).min() <= LIKE * world.target_s else ["out of reach"]
        for axes in (rates, cuts):
            slow = min(1.0, math.log(max(1.0, phase.device * phase.edge * phase.link)) / 3)
            axes.axvspan(phase.begin_s, end_s, color="#5b6470", alpha=0.05 + 0.25 * slow, lw=0)
        rates.annotate(
            "\n".join(words),
            ((phase.begin_s + end_s) / 2, top * (1.24 if number % 2 else 1.13)),
            ha="center",
            va="top",
            fontsize=6.5,
            color="#333",
        )
    for label, (name, colour) in shown.items():
        ran = Stream(world, AGENTS[name](world)).run()
        edges_s = np.arange(0.0, world.end_s, every_s)
        counted = np.histogram(ran.ended_s, edges_s)[0] / every_s
        rates.plot(edges_s[1:] - every_s / 2, np.minimum(counted, top), color=colour, lw=1.1, label=label)
        own = ~ran.probes
        cuts.step(ran.begun_s[own], ran.cuts[own], where="post", color=colour, lw=1.3, label=label)
    rates.axhline(world.chain.fps, color="black", lw=0.9, ls="--")
    rates.annotate(
        f"target {world.chain.fps:g}",
        (world.end_s, world.chain.fps),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        annotation_clip=False,
    )
    rates.set_ylim(0, top * 1.25)
    rates.set_xlim(0, world.end_s)
    rates.set_ylabel("results a second")
    rates.legend(loc="lower left", frameon=False, fontsize=8, ncols=2)
    cuts.set_ylim(0.5, world.chain.n - 0.5)
    cuts.set_yticks(list(world.chain.pipeline.cuts))
    cuts.set_ylabel("steps on the device")
    cuts.set_xlabel("seconds")
    for axes in (rates, cuts):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=95)
    pyplot.close(figure)


def main() -> int:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="from 0 on (default: 4)")
    parser.add_argument("--window", type=int, default=3, metavar="N")
    parser.add_argument("--chains", metavar="NAMES", help="only these, by commas")
    parser.add_argument("--agents", metavar="WORDS", help="only agents whose names have one of these, by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the tracker's first seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what followed each change")
    arguments = parser.parse_args()
    chains = list(CHAINS) if arguments.chains is None else arguments.chains.split(",")
    if unknown := set(chains) - set(CHAINS):
        parser.error(f"no chain {', '.join(sorted(unknown))}: there are {', '.join(CHAINS)}")
    words = None if arguments.agents is None else [word.strip().lower() for word in arguments.agents.split(",")]
    agents = [name for name in AGENTS if words is None or any(word in name.lower() for word in words)]
    tasks = [(a, c, s, arguments.window) for c in chains for s in range(arguments.seeds) for a in agents]
    began_s = time.monotonic()
    runs = sorted(results(tasks, max(1, arguments.jobs)), key=lambda one: (one.agent, one.chain, one.seed))
    if arguments.json is not None:
        rows: list[dict[str, Any]] = [attrs.asdict(one) for one in runs]
        arguments.json.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    title = f"{arguments.seeds} seeds, window {arguments.window}"
    for name in chains:
        fps = CHAINS[name]().fps
        print("\n".join(table([one for one in runs if one.chain == name], f"{name}, {fps:.3g} a second")), end="\n\n")
    print("\n".join(table(runs, f"all {len(chains)} chains, {title} ({time.monotonic() - began_s:.0f} s)")))
    if arguments.plot is not None:
        plot(World(tracker(), window=arguments.window), arguments.plot)
        print(f"picture: {arguments.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
