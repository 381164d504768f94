"""Be the device: run requests, each with the cut that is best for it.

The head runs here, the tail on the edge. While the edge does not answer, everything runs here. Without --edge one is
started beside, in a second process that ends with this one.

Beside a pipeline may stand, in its module: `inputs`, what to run (an iterable, or a function that makes one), and
`score`, a function of the list of all results that returns numbers by name.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from splitiot.cli._arguments import (
    TARGET,
    add_model_arguments,
    add_runtime_arguments,
    at_least,
    not_negative,
    positive,
    runtime_of,
)
from splitiot.cli._console import Console
from splitiot.cli._edge import add_edge_arguments, open_transport
from splitiot.cli._errors import CommandFailed, UsageError
from splitiot.cli._executor import Executor, RunAll, execute_here, execute_with_edge, paced
from splitiot.cli._inputs import Inputs, blaming_random_input, inputs_of
from splitiot.cli._local_edge import local_edge
from splitiot.cli._policy import POLICY, load_policy
from splitiot.cli._profiles import load_profile
from splitiot.cli._record import CsvFile
from splitiot.cli._request_table import request_table
from splitiot.cli._results import Results
from splitiot.cli._target import Target, legal_cut, load_target
from splitiot.errors import MissingDependencyError
from splitiot.models._random_input import blame_random_input
from splitiot.transports import Transport

if TYPE_CHECKING:
    from splitiot.device import Device
    from splitiot.policies import Policy
    from splitiot.sim import TraceWriter
    from splitiot.telemetry import DeviceLoad

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot run``."""
    parser.add_argument("target", metavar="TARGET", help=TARGET)
    edge = parser.add_argument_group("the edge")
    edge.add_argument(
        "--edge",
        metavar="URL",
        help='its address, or "none": all runs here (default: one is started beside, in a second process)',
    )
    add_edge_arguments(edge)
    cut = parser.add_argument_group("the cut")
    cut.add_argument("--policy", metavar="NAME", help=f"{POLICY}, or local (default: adaptive)")
    cut.add_argument("--cut", type=int, metavar="K", help="always this many steps here")
    cut.add_argument(
        "--fps", type=positive, metavar="N", help="as many steps here as a stream of N requests a second allows"
    )
    cut.add_argument("--follow", action="store_true", help="take what the edge plans (serve --policy)")
    cut.add_argument("--profile", metavar="FILE", help="what it costs here, made with plan --save-profile")
    work = parser.add_argument_group("the requests")
    work.add_argument("--input", metavar="FILE", nargs="+", default=[], help=".npy, .npz or pictures, in turn")
    work.add_argument(
        "--count",
        type=at_least(0),
        metavar="N",
        help="0 is forever (default: 20, or all that `inputs` beside the pipeline gives)",
    )
    work.add_argument("--period", type=not_negative, default=0.0, metavar="S", help="seconds from start to start")
    work.add_argument(
        "--window",
        type=at_least(1),
        metavar="N",
        help="a stream: so many at a time, device, link and edge at work at once (default: 1, with --fps 3)",
    )
    work.add_argument("--newest", action="store_true", help="of a stream's inputs that wait keep only the newest")
    work.add_argument("--deadline", type=positive, metavar="MS", help="for each (default: none is late)")
    work.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of a random input (default: 0)")
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("--save", metavar="FILE.npz", help="the results")
    kept.add_argument("--csv", metavar="FILE", help="a line for each request")
    kept.add_argument("--trace", metavar="FILE", help="a log of all choices and measurements, for replay")
    kept.add_argument("--no-telemetry", action="store_true", help="don't read this machine's load (psutil)")
    add_model_arguments(parser)
    add_runtime_arguments(parser)
    parser.add_argument("--json", action="store_true", help='write one JSON line a request, then {"totals": ...}')


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot run``."""
    _check(arguments)
    runtime = runtime_of(arguments)
    target = load_target(arguments.target, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
    policy = _policy(arguments, target)
    profile = None if arguments.profile is None else load_profile(arguments.profile, target)
    results = Results(console, target.score(), save=arguments.save)
    inputs = inputs_of(arguments.input, target, arguments.seed)
    count = inputs.count if arguments.count is None else arguments.count or None
    console.need_rich()
    load = None if arguments.no_telemetry else _load()
    with contextlib.ExitStack() as stack:
        stack.callback(_close, inputs, target, console)
        if arguments.csv is not None:
            results.csv = CsvFile(stack.enter_context(_open_csv(arguments.csv)))
        recorder = None if arguments.trace is None else stack.enter_context(_trace_writer(arguments.trace))
        opened: contextlib.AbstractContextManager[Executor]
        if arguments.edge == "none":
            opened = execute_here(target, runtime)
        else:
            from splitiot.device import Device

            url, transport = stack.enter_context(_edge(arguments, console))
            device = Device(
                target.pipeline,
                transport,
                policy=policy,
                profile=profile,
                sample=inputs.sample,
                runtime=runtime,
                deadline_s=None if arguments.deadline is None else arguments.deadline / 1e3,
                follow=arguments.follow,
                recorder=recorder,
                telemetry=load,
            )
            opened = execute_with_edge(device, target, url, _run_all(arguments, device), console)
        with blaming_random_input(inputs.random):
            executor = stack.enter_context(opened)
        with results.concluded(), request_table(console, results.totals) as show:
            values = itertools.islice(paced(inputs.values, arguments.period), count)
            for number, outcome in enumerate(executor.run_all(values), 1):
                show(results.add(number, outcome, None if load is None else load()))
    if reason := executor.why_unused():
        raise CommandFailed(reason)
    if results.totals.failed:
        reason = f"{results.totals.failed} of {results.totals.requests} requests ended without a value"
        raise CommandFailed(blame_random_input(reason) if inputs.random else reason)
    return 0


def _close(inputs: Inputs, target: Target, console: Console) -> None:
    if not inputs.close():
        console.warn(f"inputs of {target.text} still waits for its next value: what it holds was not closed")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.cut is not None and (arguments.policy is not None or arguments.follow or arguments.fps is not None):
        raise UsageError("--cut says where to cut: leave --policy, --follow and --fps out")
    if arguments.fps is not None and (arguments.policy is not None or arguments.follow):
        raise UsageError("--fps is a policy of its own: leave --policy and --follow out")
    if arguments.edge == "none" and _window(arguments) is not None:
        raise UsageError("--fps, --window and --newest need an edge: leave --edge out to have one started beside")
    if arguments.save is not None and arguments.count == 0:
        raise UsageError("--save keeps all results in memory: give a --count")
    if arguments.trace is not None and arguments.edge == "none":
        raise UsageError("--trace is a log of choices, and without an edge there are none: leave it out")
    if arguments.edge is None:
        for name in ("token_file", "ca", "follow"):
            if getattr(arguments, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} is for an edge that runs already: give its address, --edge URL"
                )


def _load() -> DeviceLoad | None:
    from splitiot.telemetry import DeviceLoad

    try:
        return DeviceLoad()
    except MissingDependencyError:
        return None


def _policy(arguments: argparse.Namespace, target: Target) -> Policy:
    from splitiot.policies import Fixed, RetestOnDrift, StaleProbe, ThroughputTarget

    if arguments.cut is not None:
        return Fixed(legal_cut(target, arguments.cut))
    if arguments.fps is not None:
        return RetestOnDrift(StaleProbe(ThroughputTarget(arguments.fps, window=_window(arguments) or 1)))
    name = arguments.policy or "adaptive"
    if name == "local":
        legal_cut(target, target.pipeline.n)
    return load_policy(name, n=target.pipeline.n)


@contextlib.contextmanager
def _edge(arguments: argparse.Namespace, console: Console) -> Iterator[tuple[str, Transport]]:
    """Give the address of the edge, and a transport to it."""
    if arguments.edge is not None:
        yield arguments.edge, open_transport(arguments, arguments.edge)
        return
    with local_edge(arguments, console) as (url, token):
        yield url, open_transport(arguments, url, token=token)


def _run_all(arguments: argparse.Namespace, device: Device) -> RunAll:
    """One after another, or several at a time."""
    window = _window(arguments)
    if window is None:
        return lambda values: map(device.run, values)
    return lambda values: device.map(values, window=window, keep="newest" if arguments.newest else "all")


def _window(arguments: argparse.Namespace) -> int | None:
    window: int | None = arguments.window
    return 3 if window is None and (arguments.fps is not None or arguments.newest) else window


def _open_csv(path: str) -> IO[str]:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return open(path, "w", encoding="utf-8", newline="")


def _trace_writer(path: str) -> TraceWriter:
    from splitiot.sim import TraceWriter

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return TraceWriter(path)
