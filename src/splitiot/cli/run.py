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
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

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
from splitiot.cli._errors import Failed, Unusable
from splitiot.cli._inputs import Given, drawn, flatten, given, write_outputs
from splitiot.cli._local_edge import local_edge
from splitiot.cli._policy import POLICY, load_policy
from splitiot.cli._profiles import load_profile
from splitiot.cli._record import COLUMNS, CsvFile, Record, Totals, cells, record
from splitiot.cli._target import Score, Target, legal_cut, load_target
from splitiot.errors import MissingDependencyError
from splitiot.models._random_input import was_random
from splitiot.transports import Transport

if TYPE_CHECKING:
    from rich.table import Table

    from splitiot.device import Device
    from splitiot.pipeline import Runtime
    from splitiot.plan import Outcome
    from splitiot.policies import Policy
    from splitiot.session import Trouble
    from splitiot.telemetry import DeviceLoad

__all__ = ["add_arguments", "run"]

_SHOWN = 14  # requests in the live table


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
    score = target.score()
    inputs = given(arguments.input, target, arguments.seed)
    count = inputs.count if arguments.count is None else arguments.count or None
    console.need_rich()
    load = None if arguments.no_telemetry else _load()
    kept: dict[str, Any] = {}
    results: list[Any] = []
    totals = Totals()
    with contextlib.ExitStack() as stack:
        stack.callback(_close, inputs, target, console)
        csv = None
        if arguments.csv is not None:
            Path(arguments.csv).parent.mkdir(parents=True, exist_ok=True)
            csv = CsvFile(stack.enter_context(open(arguments.csv, "w", encoding="utf-8", newline="")))
        recorder = None
        if arguments.trace is not None:
            from splitiot.sim import TraceWriter

            Path(arguments.trace).parent.mkdir(parents=True, exist_ok=True)
            recorder = stack.enter_context(TraceWriter(arguments.trace))
        opened: contextlib.AbstractContextManager[_Opened]
        if arguments.edge == "none":
            opened = _alone(target, runtime)
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
            opened = _connected(device, target, url, _streamed(arguments, device), console)
        with drawn(inputs.random):
            outcomes, missing = stack.enter_context(opened)
        ended = False
        try:
            with _shown(console, totals) as show:
                values = itertools.islice(_paced(inputs.values, arguments.period), count)
                for number, outcome in enumerate(outcomes(values), 1):
                    one = record(number, outcome, None if load is None else load())
                    totals.add(one)
                    if csv is not None:
                        csv.add(one)
                    if arguments.save is not None and outcome.ok:
                        kept |= flatten(outcome.value, number)
                    if score is not None:
                        results += [None] * (outcome.index - len(results))  # those that gave way to newer ones
                        results.append(outcome.value if outcome.ok else None)
                    show(one)
            ended = True
        except KeyboardInterrupt:
            ended = bool(results)  # what runs for ever ends so
            raise
        finally:
            if arguments.save is not None and kept:
                write_outputs(arguments.save, kept)
            _conclude(console, totals, score if ended else None, results)
    if why := missing():
        raise Failed(why)
    if totals.failed:
        why = f"{totals.failed} of {totals.requests} requests ended without a value"
        raise Failed(was_random(why) if inputs.random else why)
    return 0


def _close(inputs: Given, target: Target, console: Console) -> None:
    if not inputs.close():
        console.warn(f"inputs of {target.text} still waits for its next value: what it holds was not closed")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.cut is not None and (arguments.policy is not None or arguments.follow or arguments.fps is not None):
        raise Unusable("--cut says where to cut: leave --policy, --follow and --fps out")
    if arguments.fps is not None and (arguments.policy is not None or arguments.follow):
        raise Unusable("--fps is a policy of its own: leave --policy and --follow out")
    if arguments.edge == "none" and _window(arguments) is not None:
        raise Unusable("--fps, --window and --newest need an edge: leave --edge out to have one started beside")
    if arguments.save is not None and arguments.count == 0:
        raise Unusable("--save keeps all results in memory: give a --count")
    if arguments.trace is not None and arguments.edge == "none":
        raise Unusable("--trace is a log of choices, and without an edge there are none: leave it out")
    if arguments.edge is None:
        for name in ("token_file", "ca", "follow"):
            if getattr(arguments, name):
                raise Unusable(
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


def _paced(values: Iterator[Any], period_s: float) -> Iterator[Any]:
    """Take a value each period and hand it on; one that is late is not made up for."""
    due_s = time.monotonic()
    while True:
        rest_s = due_s - time.monotonic()
        if rest_s > 0:
            time.sleep(rest_s)
        due_s = max(due_s, time.monotonic()) + period_s if rest_s < 0 else due_s + period_s
        try:
            value = next(values)
        except StopIteration:
            return
        yield value


# the requests -----------------------------------------------------------------------------------------------

_Outcomes: TypeAlias = Callable[[Iterator[Any]], Iterator["Outcome"]]
"""Takes inputs, gives how each ended, in order."""

_Opened: TypeAlias = tuple[_Outcomes, Callable[[], str]]
"""And what tells why the edge was never there, "" if it was."""


@contextlib.contextmanager
def _edge(arguments: argparse.Namespace, console: Console) -> Iterator[tuple[str, Transport]]:
    """Give the address of the edge, and a transport to it."""
    if arguments.edge is not None:
        yield arguments.edge, open_transport(arguments, arguments.edge)
        return
    with local_edge(arguments, console) as (url, token):
        yield url, open_transport(arguments, url, token=token)


@contextlib.contextmanager
def _connected(
    device: Device, target: Target, url: str, run_all: _Outcomes, console: Console
) -> Iterator[_Opened]:
    up = False

    def outcomes(values: Iterator[Any]) -> Iterator[Outcome]:
        nonlocal up
        for outcome in run_all(values):
            up = up or outcome.source == "edge" or device.edge_up
            yield outcome

    with console.log("splitiot"), contextlib.closing(device):
        with console.status(f"looking for the edge, and measuring {target.name} here unless that is known"):
            up = device.connect()
        yield outcomes, lambda: "" if up else _unused(url, device.trouble)


def _streamed(arguments: argparse.Namespace, device: Device) -> _Outcomes:
    """One after another, or several at a time."""
    window = _window(arguments)
    if window is None:
        return lambda values: map(device.run, values)
    return lambda values: device.map(values, window=window, keep="newest" if arguments.newest else "all")


def _window(arguments: argparse.Namespace) -> int | None:
    window: int | None = arguments.window
    return 3 if window is None and (arguments.fps is not None or arguments.newest) else window


def _unused(url: str, trouble: Trouble | None) -> str:
    if trouble is None:
        return f"the edge at {url} could never be used (it refused, or did not answer): everything ran here"
    mend = f". To mend it: {trouble.remedy}" if trouble.remedy else ""
    return f"the edge at {url} could never be used ({trouble.reason}): everything ran here{mend}"


@contextlib.contextmanager
def _alone(target: Target, runtime: Runtime) -> Iterator[_Opened]:
    from splitiot.errors import Dropped, SplitiotError, StepError
    from splitiot.observation import Observation
    from splitiot.pipeline import DROP
    from splitiot.plan import Outcome
    from splitiot.runner import Runner

    pipeline = target.pipeline
    n = legal_cut(target, pipeline.n)
    with Runner(pipeline, runtime=runtime) as runner:

        def once(value: Any) -> Outcome:
            began_s = time.monotonic()
            try:
                result, seconds = runner.run(0, n, pipeline.bind(value))
                if result is DROP:
                    return Outcome(error=Dropped("a task dropped it"), latency_s=time.monotonic() - began_s)
                sent, own = pipeline.divide(n, result)
                value = pipeline.join(own, sent)
            except SplitiotError as error:
                return Outcome(error=error, latency_s=time.monotonic() - began_s)
            except Exception as error:  # whatever a step raises ends its request, not the run
                return Outcome(error=StepError(f"a step raised {error!r}"), latency_s=time.monotonic() - began_s)
            seen = Observation(plan_id=0, cut=n, head_s=seconds)
            latency_s = time.monotonic() - began_s
            return Outcome(value=value, source="local", exact=True, observation=seen, latency_s=latency_s)

        yield lambda values: map(once, values), str


# what is shown ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _shown(console: Console, totals: Totals) -> Iterator[Callable[[Record], None]]:
    """Give a function that shows a record: in a live table, as a line where there is no terminal, or as JSON."""
    if console.json:
        yield lambda one: console.data(one.to_dict(), line=True)
        return
    if not console.out.is_terminal:
        console.print(_line(list(COLUMNS)))
        try:
            yield lambda one: console.print(_line(cells(one)))
        finally:
            console.print("", str(totals))
        return
    last: deque[Record] = deque(maxlen=max(3, min(_SHOWN, console.out.height - 8)))

    def draw() -> list[str | Table]:
        styles = ["red" if one.error else "yellow" if one.source in ("fallback", "hedge") else None for one in last]
        return [console.table(COLUMNS, [cells(one) for one in last], styles), "", str(totals)]

    with console.live(draw) as refresh:

        def show(one: Record) -> None:
            last.append(one)
            refresh()

        yield show


def _conclude(console: Console, totals: Totals, score: Score | None, results: list[Any]) -> None:
    """Write what comes last: the target's score, and with JSON the totals, whatever becomes of the score."""
    last: dict[str, Any] = {"totals": totals.to_dict()}
    try:
        if score is not None:
            last["score"] = score(results)
    finally:
        if console.json:
            console.data(last, line=True)
    if not console.json:
        for name, value in last.get("score", {}).items():
            console.print(f"{name} {value:.6g}")


def _line(row: list[str]) -> str:
    """Return cells as one aligned line of a log."""
    widths = (7, 4, 12, 8, 8, 8, 9)
    right = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False))
    return f"{right}  {row[7]:<8}  {row[8]:<5}  {' '.join(row[9].split())}".rstrip()
