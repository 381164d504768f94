"""Simulate devices and an edge while everything goes wrong, and say which promises were broken.

Each seed is one run on a virtual clock: the same seed gives the same run, everywhere. A failing one is run again with
fewer faults until none can be left out. See also splitiot.testing.simulate, for transports of your own.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from splitiot._child import ChildDied, ChildProcess, Parent
from splitiot.cli._arguments import at_least
from splitiot.cli._console import Console
from splitiot.cli._errors import CommandFailed, UsageError
from splitiot.cli._policy import POLICY, load_policy

if TYPE_CHECKING:
    from splitiot.testing.simulation import Fault, Report

Tallies: TypeAlias = Generator[dict[str, Any], None, None]

__all__ = ["add_arguments", "run", "work"]

_TALLY_EVERY = 10  # seeds between two lines of a worker
_COLLECT_EVERY = 25
_FAILURES = 5  # that are told with their words
_COLUMNS = {"fault": "left start", "seeds": "right", "bites": "right"}
_TEETH = {"bug": "left start", "seed": "right", "promise": "left start", "what is wrong": "left end"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot torture``."""
    parser.add_argument("--seeds", type=at_least(1), default=100, metavar="N", help="how many (default: 100)")
    parser.add_argument("--first-seed", type=at_least(0), default=0, metavar="S", help="the first one (default: 0)")
    parser.add_argument("--jobs", type=at_least(1), default=1, metavar="J", help="processes at once (default: 1)")
    parser.add_argument("--policy", metavar="NAME", default="adaptive", help=f"{POLICY} (default: adaptive)")
    parser.add_argument("--faults", metavar="A,B", help="only these kinds, or none (default: as the seed says)")
    parser.add_argument("--requests", type=at_least(1), default=105, metavar="N", help="a seed (default: 105)")
    text = "the policy need not want the edge again when everything is well again"
    parser.add_argument("--stays-away", action="store_true", help=text)
    text = "plant bugs in the library, one after another, and say which seed notices"
    parser.add_argument("--teeth", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot torture``."""
    faults = _kinds(arguments.faults)
    load_policy(arguments.policy)  # before anything else is done
    console.need_rich()
    if arguments.teeth:
        return _teeth(arguments, console)
    total = _empty_tally()
    began_s = time.monotonic()
    interrupted = False
    with console.progress("torturing", arguments.seeds) as show:
        seeds = _in_process(arguments, faults) if arguments.jobs == 1 else _in_processes(arguments)
        try:
            for tally in seeds:
                _add(total, tally)
                show(total["seeds"] / arguments.seeds)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            seeds.close()
    took_s = time.monotonic() - began_s
    return _report(arguments, console, faults, total, took_s, interrupted)


def _kinds(text: str | None) -> tuple[type[Fault], ...] | None:
    from splitiot.testing.simulation import FAULTS

    if text is None:
        return None
    known = {kind.kind: kind for kind in FAULTS}
    names = [] if text == "none" else text.split(",")
    unknown = [word for word in names if word not in known]
    if unknown:
        raise UsageError(f"there is no kind of fault {unknown[0]!r}: give some of {', '.join(known)}, or none")
    return tuple(kind for name, kind in known.items() if name in names)


def _simulated(arguments: argparse.Namespace, faults: tuple[type[Fault], ...] | None, seed: int) -> Report:
    from splitiot.testing.simulation import simulate

    policy = load_policy(arguments.policy)
    return simulate(policy, seed, faults=faults, requests=arguments.requests, resumes=not arguments.stays_away)


def _empty_tally() -> dict[str, Any]:
    return {
        "seeds": 0,
        "requests": 0,
        "had": Counter(),
        "bites": Counter(),
        "counts": Counter(),
        "later": Counter(),
        "failures": [],
    }


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name in ("seeds", "requests"):
        total[name] += more[name]
    for name in ("had", "bites", "counts", "later"):
        total[name].update(more[name])
    total["failures"] = sorted(total["failures"] + more["failures"])


def _in_process(arguments: argparse.Namespace, faults: tuple[type[Fault], ...] | None) -> Tallies:
    """Run seeds here; yield now and then what was found since."""
    tally = _empty_tally()
    gc.disable()  # worlds are rings of objects: they are thrown away many at a time
    try:
        for number in range(arguments.seeds):
            if number % _COLLECT_EVERY == 0:
                gc.collect()
            report = _simulated(arguments, faults, arguments.first_seed + number)
            tally["seeds"] += 1
            tally["requests"] += report.requests
            tally["had"].update(report.kinds)
            tally["bites"].update(report.bites)
            tally["counts"].update(report.counts)
            tally["later"].update(report.later.values())
            if not report.ok:
                tally["failures"].append([report.seed, str(report.violations[0])])
            if tally["seeds"] >= _TALLY_EVERY or number == arguments.seeds - 1:
                yield tally
                tally = _empty_tally()
    finally:
        gc.enable()


def _in_processes(arguments: argparse.Namespace) -> Tallies:
    """Run seeds in several processes at once."""
    jobs = min(arguments.jobs, arguments.seeds)
    shared = {name: getattr(arguments, name) for name in ("policy", "faults", "requests", "stays_away")}
    left: dict[ChildProcess, int] = {}
    try:
        for job in range(jobs):
            first, behind = (arguments.seeds * edge // jobs for edge in (job, job + 1))
            order = json.dumps({**shared, "first_seed": arguments.first_seed + first, "seeds": behind - first})
            worker = ChildProcess("torture", "from splitiot.cli.torture import work; work()", [order])
            left[worker] = behind - first
        while left:
            for worker in [*left]:  # one after another: their pipes hold many tallies
                try:
                    tally = json.loads(bytes(worker.receive(math.inf)[0]))
                except ChildDied as death:
                    raise CommandFailed(f"a worker ended: {death}") from None
                yield tally
                left[worker] -= tally["seeds"]
                if not left[worker]:
                    left.pop(worker)
                    worker.kill()
    finally:
        for worker in left:
            worker.kill()


def work() -> None:
    """Run the seeds that another process of `torture` wants from this one."""
    parent = Parent()
    arguments = argparse.Namespace(**json.loads(sys.argv[2]))
    for tally in _in_process(arguments, _kinds(arguments.faults)):
        parent.send(json.dumps(tally).encode())


def _report(
    arguments: argparse.Namespace,
    console: Console,
    faults: tuple[type[Fault], ...] | None,
    total: dict[str, Any],
    took_s: float,
    interrupted: bool,
) -> int:
    failures = total["failures"]
    rate = total["seeds"] / took_s if took_s > 0 else 0.0
    smallest = _simulated(arguments, faults, failures[0][0]).smallest() if failures and not interrupted else None
    if console.json:
        console.data(
            {
                "seeds": total["seeds"],
                "first_seed": arguments.first_seed,
                "seconds": took_s,
                "requests": total["requests"],
                "faults": total["had"],
                "bites": total["bites"],
                "counts": total["counts"],
                "later": total["later"],
                "failed": len(failures),
                "failing_seeds": [seed for seed, _ in failures],
                "failures": [{"seed": seed, "words": message} for seed, message in failures[:_FAILURES]],
                "smallest": None if smallest is None else {"seed": smallest.seed, "faults": smallest.kinds},
                "explained": None if smallest is None else smallest.explain(),
            }
        )
    else:
        from splitiot.testing.simulation import FAULTS

        names = [kind.kind for kind in FAULTS if total["had"][kind.kind]]
        rows = [[name, f"{total['had'][name]:,}", f"{total['bites'][name]:,}"] for name in names]
        if rows:
            console.print(console.table(_COLUMNS, rows), "")
        ends = ", ".join(f"{name} {count:,}" for name, count in sorted(total["counts"].items()))
        console.print(f"requests ended: {ends}", "")
        if total["later"]:
            reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(total["later"].items()))
            console.print(f"devices that were at the edge again later, with a reason: {reasons}", "")
        done = f"{total['seeds']:,} seeds, {total['requests']:,} requests, {rate:.1f} seeds/s, {len(failures)} failed"
        console.print(done + (" (interrupted)" if interrupted else ""))
        for seed, why in failures[:_FAILURES]:
            console.print(f"seed {seed}: {why}")
        if more := [str(seed) for seed, _ in failures[_FAILURES:]]:
            console.print(f"and seeds {', '.join(more)}")
        if smallest is not None:
            console.print("", smallest.explain())
    return 130 if interrupted else int(bool(failures))


def _teeth(arguments: argparse.Namespace, console: Console) -> int:
    from splitiot.testing.simulation.bugs import BUGS

    bugs: list[dict[str, Any]] = []
    with console.progress("planting bugs", len(BUGS)) as show:
        for number, bug in enumerate(BUGS):
            caught: dict[str, Any] = {"bug": bug.name, "words": bug.description, "seed": None, "promise": None}
            with bug.planted():
                for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                    report = _simulated(arguments, _kinds(arguments.faults), seed)
                    if not report.ok:
                        caught |= {"seed": seed, "promise": report.violations[0].promise}
                        break
            bugs.append(caught)
            show((number + 1) / len(BUGS))
    missed = [each for each in bugs if each["seed"] is None]
    if console.json:
        console.data({"bugs": bugs, "caught": len(bugs) - len(missed)})
    else:
        rows = [[e["bug"], "-" if e["seed"] is None else str(e["seed"]), e["promise"] or "", e["words"]] for e in bugs]
        console.print(console.table(_TEETH, rows), "", f"{len(bugs) - len(missed)} of {len(bugs)} bugs were noticed")
    return int(bool(missed))
