"""Ask other policies what they would have done in a logged run, and say how good that would have been.

A log is written by ``splitiot run --trace FILE``, or by a TraceWriter in Python. Costs are those of hindsight. The
policies learn from what the log measured, not from what they would have chosen: read "covered" first.
"""

from __future__ import annotations

import argparse
import functools
import math
from typing import TYPE_CHECKING

from splitiot.cli._arguments import at_least
from splitiot.cli._console import Console
from splitiot.cli._errors import UsageError
from splitiot.cli._format import milliseconds
from splitiot.cli._policy import POLICY, load_policy

if TYPE_CHECKING:
    from splitiot.cost import Objective
    from splitiot.sim import Score

__all__ = ["add_arguments", "run"]

_OBJECTIVES: dict[str, Objective] = {"latency": "latency_s", "period": "period_s", "energy": "energy_j"}
_COLUMNS = {
    "policy": "left start",
    "covered": "right",
    "cost": "right",
    "regret": "right",
    "measured": "right",
    "weighted": "right",
    "(of)": "right",
    "switches": "right",
    "probes": "right",
    "extra": "right",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot replay``."""
    parser.add_argument("trace", metavar="FILE", help="a log, made with run --trace")
    policy_help = f"{POLICY}, or local; may be given several times (default: adaptive)"
    parser.add_argument("--policy", metavar="NAME", action="append", default=[], help=policy_help)
    parser.add_argument("--objective", choices=_OBJECTIVES, help="what to make small (default: what the log did)")
    parser.add_argument("--window", type=at_least(0), default=3, metavar="N", help="plans until hindsight (default: 3)")
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="of the policies' chance (default: the log's)")
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot replay``."""
    from splitiot.sim import load_trace, replay

    console.need_rich()
    try:
        trace = load_trace(arguments.trace)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {arguments.trace}") from error
    n = trace.header.n
    scores: dict[str, Score] = {}
    for name in arguments.policy or ["adaptive"]:
        scores[name] = replay(
            trace,
            functools.partial(load_policy, name, n=n),
            seed=arguments.seed,
            objective=_OBJECTIVES.get(arguments.objective or ""),
            window=arguments.window,
        )
    log = next(iter(scores.values())).log
    assert log is not None
    if trace.dropped:
        console.warn(f"{trace.dropped} torn lines were dropped")
    if console.json:
        document = {name: score.to_dict() | {"log": None} for name, score in scores.items()}
        console.data(
            {
                "trace": arguments.trace,
                "digest": trace.header.digest,
                "policy": trace.header.policy,
                "dropped": trace.dropped,
                "log": log.to_dict(),
                "scores": document,
            }
        )
        return 0
    unit = "times in ms" if log.objective.endswith("_s") else f"{log.objective} and ms"
    console.print(f"{log.decisions} decisions, {log.judged} of them measured; {log.objective} in hindsight, {unit}", "")
    rows = [_cells("the log", log), *(_cells(name, score) for name, score in scores.items())]
    console.print(console.table(_COLUMNS, rows), "", f"the log's policy: {trace.header.policy}")
    return 0


def _cells(name: str, score: Score) -> list[str]:
    def amount(value: float) -> str:
        return milliseconds(value) if score.objective.endswith("_s") else f"{value:.4g}"

    return [
        name,
        f"{score.coverage:.0%}",
        amount(score.mean_cost),
        "-" if math.isnan(score.regret) else f"{score.regret:.1%}",
        milliseconds(score.measured_s),
        milliseconds(score.weighted_s),
        f"{score.weighted_samples:.0f}",
        str(score.switches),
        str(score.probes),
        amount(score.probes_cost),
    ]
