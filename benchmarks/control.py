"""How well a policy chooses while everything changes: ``python benchmarks/control.py`` (or ``make bench-control``).

18 networks, 2 servers: 36 cells. In each, 6000 requests, of which every 400 bandwidth, server load and device
throttling change; see `regimes.py`. A cell's figure is what all its requests took, over all seeds, divided by what an
oracle pays. Settings are chosen with half of the networks, by families; the other half has other seeds, however many
are asked for, and stands in a table of its own. What planners believe of the link at first is wrong.

Another table is of devices that meet an edge for the first time, in worlds that do not change: `first_contact.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import first_contact
import numpy as np
from agents import AGENTS
from attrs import frozen
from regimes import SERVERS, TUNING, Scenario, Server, World, networks, seeds_of

MEDIAN, CELL, FEW, WORST = 1.03, 1.05, 32 / 36, 1.12
Cell = tuple[str, Server]


@frozen
class Run:
    """What one agent paid in one world.

    Parameters
    ----------
    agent, network, server, seed
    seconds, oracle_s : float
        All requests together.
    probes_s : float
        Of the difference between both, what requests took that were probes.
    probes, switches : int
        How many probes; how often the cut of a request that was no probe differed from that of the one before.
    """

    agent: str
    network: str
    server: Server
    seed: int
    seconds: float
    oracle_s: float
    probes_s: float
    probes: int
    switches: int


def run(task: tuple[str, str, Server, int, Scenario]) -> Run:
    """Run an agent through a world."""
    name, network, server, seed, scenario = task
    world = World(network, server, seed, scenario)
    agent = AGENTS[name](world, seed)
    now_s = total_s = probes_s = 0.0
    probes = switches = 0
    last = -1
    oracle_s = world.oracle[1].tolist()
    for number in range(scenario.requests):
        cut = agent.choose(now_s)
        seconds = world.seconds(number, cut)
        took_s = sum(seconds)
        now_s += took_s
        total_s += took_s
        if agent.probes:
            probes += 1
            probes_s += took_s - oracle_s[number]
        else:
            switches += last not in (cut, -1)
            last = cut
        agent.learn(number, cut, seconds, now_s)
    return Run(name, network, server, seed, total_s, sum(oracle_s), probes_s, probes, switches)


def results(tasks: Sequence[tuple[str, str, Server, int, Scenario]], jobs: int) -> Iterable[Run]:
    """Run all, as many at once as there are jobs; with a line of progress on a terminal."""
    began_s = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for done, one in enumerate(pool.imap_unordered(run, tasks, chunksize=4), 1):
            if sys.stderr.isatty():
                rest_s = (time.monotonic() - began_s) * (len(tasks) / done - 1)
                print(f"\r{done} of {len(tasks)} runs, {rest_s:4.0f} s left ", end="", file=sys.stderr, flush=True)
            yield one
    if sys.stderr.isatty():
        print("\r" + " " * 50 + "\r", end="", file=sys.stderr)


def contacts(seeds: int, jobs: int) -> list[str]:
    """Run splitiot's default through its first requests to an edge; return the table."""
    tasks = [(scene, seed) for scene in first_contact.scenes() for seed in range(seeds)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        return first_contact.table(pool.imap(first_contact.task, tasks, chunksize=20))


def cells(runs: Iterable[Run]) -> dict[Cell, float]:
    """Return cost over the oracle's by cell, all seeds together."""
    sums: dict[Cell, list[float]] = {}
    for one in runs:
        both = sums.setdefault((one.network, one.server), [0.0, 0.0])
        both[0] += one.seconds
        both[1] += one.oracle_s
    return {cell: paid / oracle for cell, (paid, oracle) in sums.items()}


def table(runs: Sequence[Run], agents: Sequence[str], title: str) -> list[str]:
    """Return a table, a row an agent."""
    lines = [
        title,
        f"{'':30} {'median':>7} {'edge server':>15} {'GPU cloud':>15} {'worst':>6} {'<= 1.05':>9} "
        f"{'probes':>7} {'cost':>6} {'switches':>8}",
    ]
    for name in agents:
        own = [one for one in runs if one.agent == name]
        if not own:
            continue
        ratios = cells(own)
        values = np.array(list(ratios.values()))
        ranges = []
        for server in SERVERS:
            of = [value for (_, where), value in ratios.items() if where == server]
            ranges.append(f"{min(of):.3f} - {max(of):.3f}" if of else "-")
        requests = len(own)
        oracle_s = sum(one.oracle_s for one in own)
        lines.append(
            f"{name:30} {np.median(values):7.3f} {ranges[0]:>15} {ranges[1]:>15} {values.max():6.3f} "
            f"{(values <= CELL).sum():4} of {len(values):2} "
            f"{sum(one.probes for one in own) / requests:7.0f} "
            f"{sum(one.probes_s for one in own) / oracle_s:6.2%} {sum(one.switches for one in own) / requests:8.0f}"
        )
    return lines


def targets(runs: Sequence[Run]) -> list[str]:
    """Say which targets splitiot's default meets."""
    values = np.array(list(cells(one for one in runs if one.agent == "splitiot's default").values()))
    if not len(values):
        return []
    checks = [
        (f"median {np.median(values):.3f} (<= {MEDIAN})", np.median(values) <= MEDIAN),
        (f"{(values <= CELL).sum()} of {len(values)} cells <= {CELL} (32 of 36)", (values <= CELL).mean() >= FEW),
        (f"worst {values.max():.3f} (<= {WORST})", values.max() <= WORST),
    ]
    return [f"{'met' if met else 'MISSED'}: {target}" for target, met in checks]


def plot(runs: Sequence[Run], agents: Sequence[str], path: Path) -> None:
    """Draw each agent's cells: a dot a cell."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [name for name in agents if any(one.agent == name for one in runs)]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.42 * len(shown)), layout="constrained")
    colours = {"edge": "#1f6f8b", "cloud": "#d97706"}
    labels = {"edge": "edge server (Intel i5)", "cloud": "cloud with a GPU"}
    for place, name in enumerate(reversed(shown)):
        ratios = cells(one for one in runs if one.agent == name)
        for server, shift in (("edge", 0.14), ("cloud", -0.14)):
            values = np.array(sorted(value for (_, where), value in ratios.items() if where == server))
            heights = place + shift + np.linspace(-0.09, 0.09, len(values))
            label = labels[server] if place == 0 else None
            axes.scatter(values, heights, s=14, color=colours[server], alpha=0.8, linewidths=0, label=label)
        middle = float(np.median(list(ratios.values())))
        axes.plot([middle, middle], [place - 0.32, place + 0.32], color="black", lw=1.5)
        axes.annotate(f"{middle:.3f}", (middle, place + 0.33), ha="center", va="bottom", fontsize=8, color="black")
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.set_xscale("log")
    ticks = [1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(1.0, color="grey", lw=0.8)
    axes.axvline(CELL, color="grey", lw=0.6, ls=":")
    axes.annotate(f"{CELL}", (CELL, -0.55), xytext=(3, 0), textcoords="offset points", fontsize=8, color="grey")
    axes.set_xlabel("time of all requests over an oracle's (less is better); a dot is a network, a line the median")
    axes.set_ylim(-0.6, len(shown) - 0.2)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12, metavar="N", help="of each network (default: 12)")
    parser.add_argument("--agents", metavar="WORDS", help="only agents whose names have one of these, by commas")
    parser.add_argument("--networks", metavar="NAMES", help="only these networks, by commas")
    parser.add_argument("--requests", type=int, default=6000, metavar="N")
    parser.add_argument("--contacts", type=int, default=20, metavar="N", help="seeds of first contacts (default: 20)")
    parser.add_argument("--apart", action="store_true", help="link, server and device change at different moments")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw all cells")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each run's figures")
    arguments = parser.parse_args()
    agents = [
        name
        for name in AGENTS
        if arguments.agents is None or any(word.strip().lower() in name.lower() for word in arguments.agents.split(","))
    ]
    names = networks() if arguments.networks is None else tuple(arguments.networks.split(","))
    if unknown := set(names) - set(networks()):
        parser.error(f"no network {', '.join(sorted(unknown))}: there are {', '.join(networks())}")
    if not agents:
        parser.error(f"no agent has such a name: there are {', '.join(AGENTS)}")
    scenario = Scenario(requests=arguments.requests, apart=arguments.apart)
    tasks = [
        (agent, network, server, seed, scenario)
        for network in names
        for seed in seeds_of(network, arguments.seeds)
        for server in SERVERS
        for agent in agents
    ]
    began_s = time.monotonic()
    runs = sorted(
        results(tasks, max(1, arguments.jobs)), key=lambda r: (agents.index(r.agent), r.network, r.server, r.seed)
    )
    changes = "each of them at moments of its own" if scenario.apart else "all at once"
    lines = [
        f"time of all requests over an oracle's: {len(names)} networks, 2 servers, {arguments.seeds} seeds, "
        f"{scenario.requests} requests; a change every {scenario.every}, {changes}",
        "",
        *table(runs, agents, "all cells"),
    ]
    if held_out := [one for one in runs if one.network not in TUNING]:
        lines += ["", *table(held_out, agents, "networks and seeds that are held out: no setting is chosen with them")]
    lines += ["", *targets(runs)]
    if arguments.contacts > 0:
        lines += ["", *contacts(arguments.contacts, max(1, arguments.jobs))]
    lines.append(f"({time.monotonic() - began_s:.0f} s)")
    print("\n".join(lines))
    if arguments.json is not None:
        import attrs

        rows: list[dict[str, Any]] = [attrs.asdict(one) for one in runs]
        arguments.json.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    if arguments.plot is not None:
        plot(runs, agents, arguments.plot)
        print(f"picture: {arguments.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
