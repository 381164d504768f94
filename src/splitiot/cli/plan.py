"""Find the best cut for a device, an edge and the link between them.

The link is given with --rtt and --up, or measured to a running edge with --edge-url, which also tells its profile.

Unless profiles are given, TARGET is measured on this machine, and device and edge are taken to be like it:
--device-slowdown and --edge-speedup say how they differ.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splitiot.cli._arguments import (
    TARGET,
    add_model_arguments,
    add_runtime_arguments,
    not_negative,
    positive,
    runtime_of,
)
from splitiot.cli._console import Console
from splitiot.cli._edge import add_edge_arguments, reaching
from splitiot.cli._errors import UsageError
from splitiot.cli._format import fitting_digits, milliseconds, rate, size, step_label
from splitiot.cli._profiles import load_profile, profile_target
from splitiot.cli._target import Target, load_target

if TYPE_CHECKING:
    from splitiot.cost import Power
    from splitiot.plan import Plan
    from splitiot.topology import Link, TierProfile

__all__ = ["add_arguments", "run"]

_OBJECTIVES = {"latency": "latency_s", "period": "period_s", "energy": "energy_j"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot plan``."""
    parser.add_argument("target", metavar="TARGET", help=TARGET)
    link = parser.add_argument_group("the link")
    link.add_argument("--rtt", type=not_negative, metavar="MS", help="round trip in milliseconds")
    link.add_argument("--up", type=positive, metavar="MBIT", help="megabits a second to the edge")
    link.add_argument("--down", type=positive, metavar="MBIT", help="and back (default: as --up)")
    link.add_argument("--edge-url", metavar="URL", help="measure the link to this edge, and take its own profile")
    add_edge_arguments(link)
    tiers = parser.add_argument_group("the tiers")
    tiers.add_argument("--device", metavar="FILE", help="the device's profile, made there with --save-profile")
    tiers.add_argument("--edge", metavar="FILE", help="the edge's profile")
    tiers.add_argument("--device-slowdown", type=positive, default=1.0, metavar="X", help="it is X times slower")
    tiers.add_argument("--edge-speedup", type=positive, default=1.0, metavar="X", help="it is X times faster")
    tiers.add_argument("--save-profile", metavar="FILE", help="keep what was measured here")
    tiers.add_argument("--budget", type=positive, default=2.0, metavar="S", help="seconds of measuring (default: 2)")
    parser.add_argument(
        "--objective", choices=tuple(_OBJECTIVES), default="latency", help="what to make small (default: latency)"
    )
    parser.add_argument(
        "--watts",
        metavar="BUSY[,SEND[,RECEIVE[,IDLE]]]",
        type=_watts,
        help="what the device draws, for --objective energy",
    )
    add_model_arguments(parser)
    add_runtime_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def _watts(text: str) -> tuple[float, ...]:
    watts = tuple(not_negative(word) for word in text.split(","))
    if len(watts) > 4:
        raise argparse.ArgumentTypeError(f"at most four numbers, got {text}")
    return watts


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot plan``."""
    from splitiot.cost import Power
    from splitiot.solver import solve
    from splitiot.topology import Link, Topology

    if arguments.objective == "energy" and arguments.watts is None:
        raise UsageError("--objective energy needs what the device draws: --watts BUSY,SEND,RECEIVE,IDLE")
    if arguments.edge_url is None and (arguments.rtt is None or arguments.up is None):
        raise UsageError("what is the link like? Give --rtt MS and --up MBIT, or --edge-url URL to measure it")
    if arguments.edge_url is not None and any(
        given is not None for given in (arguments.rtt, arguments.up, arguments.down, arguments.edge)
    ):
        raise UsageError("--edge-url measures the link and asks the edge: don't give --rtt, --up, --down or --edge too")
    if arguments.save_profile and arguments.device and (arguments.edge or arguments.edge_url):
        raise UsageError("--save-profile keeps what is measured here, but with both profiles at hand nothing is")
    runtime = runtime_of(arguments)
    target = load_target(arguments.target, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
    console.need_rich()
    device = None if arguments.device is None else load_profile(arguments.device, target)
    edge = None if arguments.edge is None else load_profile(arguments.edge, target)
    if arguments.edge_url is None:
        link = Link.from_mbit_per_s(arguments.up, arguments.down, rtt_s=arguments.rtt / 1e3)
    else:
        link, edge = _ask(arguments, target, console)
    if device is None or edge is None:
        missing = [name for name, profile in (("device", device), ("edge", edge)) if profile is None]
        tier = missing[0] if len(missing) == 1 else None
        here = profile_target(target, runtime, console, budget_s=arguments.budget, tier=tier)
        if arguments.save_profile:
            here.save(arguments.save_profile)
            console.note(f"profile kept in {arguments.save_profile}")
        device, edge = device or here, edge or here
    power: Power | None = None if arguments.watts is None else Power(*arguments.watts)
    topology = Topology(
        tiers=[device.scaled(arguments.device_slowdown), edge.scaled(1 / arguments.edge_speedup)],
        links=[link],
    )
    objective: Any = _OBJECTIVES[arguments.objective]
    plan = solve(target.pipeline, topology, objective=objective, power=power)
    if console.json:
        console.data(_document(target, plan, topology.tiers[0], topology.tiers[1]))
    else:
        _show(target, plan, console, arguments)
    return 0


def _ask(arguments: argparse.Namespace, target: Target, console: Console) -> tuple[Link, TierProfile]:
    """Measure the link to an edge, and fetch its profile."""
    from splitiot.link_probe import fetch_profile, probe_link

    with reaching(arguments, arguments.edge_url) as transport, console.progress("measuring the link") as report:
        edge = fetch_profile(transport, target.pipeline)
        link = probe_link(transport, progress=report).link
    console.note(
        f"measured: {rate(link.up_bytes_per_s)} up, {rate(link.down_bytes_per_s)} down, "
        f"{milliseconds(link.rtt_s)} ms round trip"
    )
    return link, edge


def _document(target: Target, plan: Plan, device: TierProfile, edge: TierProfile) -> dict[str, Any]:
    costs, best = plan.costs, plan.costs.placements[plan.best_row].cut
    columns = ("latency_s", "period_s", "energy_j", "device_s", "up_s", "edge_s", "down_s", "rtt_s")
    numbers = {name: getattr(costs, name) for name in (*columns, "sent_bytes", "returned_bytes")}
    return {
        "target": target.text,
        "digest": target.pipeline.digest,
        "n": target.pipeline.n,
        "cut": plan.cut,
        "split": 0 < best < target.pipeline.n,
        "plan": plan.to_dict(),
        "placements": [
            {"cuts": list(placement.cuts), "codecs": list(placement.codecs)}
            | {name: float(column[row]) for name, column in numbers.items()}
            for row, placement in enumerate(costs.placements)
        ],
        "machines": {"device": device.machine, "edge": edge.machine},
    }


def _show(target: Target, plan: Plan, console: Console, arguments: argparse.Namespace) -> None:
    costs, pipeline = plan.costs, target.pipeline
    needs, by = costs.exchanges, arguments.objective
    everywhere = np.ones(len(costs), dtype=np.bool_)
    shown = {
        "device": _column(costs.device_s, costs.cuts > 0),
        "up": _column(costs.up_s, needs),
        "edge": _column(costs.edge_s, needs),
        "down": _column(costs.down_s, needs),
        "trip": _column(costs.rtt_s + costs.wait_s, needs),
        "latency": _column(costs.latency_s, everywhere),
    }
    if by == "period":
        shown["period"] = _column(costs.period_s, everywhere)
    elif by == "energy":
        shown["mJ"] = _column(costs.energy_j, everywhere)
    columns = {"cut": "right", "step in front": "left end", "sent bytes": "right"}
    columns |= dict.fromkeys(shown, "right") | {"": "left"}
    marks = {plan.row: "<- chosen" if plan.row != plan.best_row else "<- best"}
    if plan.runner_up is not None:
        marks[plan.runner_up] = "<- runner-up"
    rows = []
    for row, placement in enumerate(costs.placements):
        cut = placement.cut
        step = pipeline.steps[cut - 1] if cut else None
        front = "all edge" if step is None else step_label(step.name, step.kind)
        sent = size(costs.sent_bytes[row]) if needs[row] else "-"
        cells = [str(cut), front if cut < pipeline.n else "all local", sent]
        rows.append([*cells, *(column[row] for column in shown.values()), marks.get(row, "")])
    colours = {plan.row: "bold green", plan.runner_up: "yellow"}
    styles = [colours.get(row) for row in range(len(rows))]
    console.print(f"{target.name}  every placement, times in ms", style="bold")
    console.print("", console.table(columns, rows, styles), "")
    for line in plan.explain().splitlines():
        loud = line.startswith("plan ") or "do not split" in line
        console.print(line, style="bold" if loud else None)
    if arguments.edge is None and arguments.edge_url is None and arguments.edge_speedup == 1:
        console.note("the edge is taken to be as fast as this machine: --edge FILE or --edge-speedup X says otherwise")


def _column(values: NDArray[np.float64], known: NDArray[np.bool_]) -> list[str]:
    """Return a column of milliseconds with its points aligned."""
    digits = fitting_digits(values[known].tolist())
    return [
        milliseconds(value, digits) if is_known else "-"
        for value, is_known in zip(values.tolist(), known.tolist(), strict=True)
    ]
