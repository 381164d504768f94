"""Be the device: run requests, each with the cut that is best for it.

The head runs here, the tail on the edge. While the edge does not answer, everything runs here.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitiot.cli._edge import add_edge_arguments, open_transport
from splitiot.cli._inputs import flatten, read_inputs, write_outputs
from splitiot.cli._out import Console, Failed, Unusable
from splitiot.cli._policy import POLICY, load_policy
from splitiot.cli._record import COLUMNS, CsvFile, Record, Totals, cells, record
from splitiot.cli._target import (
    TARGET,
    Target,
    add_model_arguments,
    add_runtime_arguments,
    at_least,
    legal_cut,
    load_target,
    not_negative,
    positive,
    runtime_of,
)
from splitiot.cli.plan import load_profile
from splitiot.errors import TransportError
from splitiot.transports import Transport

if TYPE_CHECKING:
    from splitiot.pipeline import Runtime
    from splitiot.plan import Outcome
    from splitiot.policies import Policy
    from splitiot.recorder import Recorder

__all__ = ["add_arguments", "run"]

_SHOWN = 14  # requests in the live table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot run``."""
    parser.add_argument("target", metavar="TARGET", help=TARGET)
    edge = parser.add_argument_group("the edge")
    edge.add_argument("--edge", metavar="URL", required=True, help='its address, or "none": all runs here')
    add_edge_arguments(edge)
    cut = parser.add_argument_group("the cut")
    cut.add_argument("--policy", metavar="NAME", help=f"{POLICY}, or local (default: adaptive)")
    cut.add_argument("--cut", type=int, metavar="K", help="always this many steps here")
    cut.add_argument("--follow", action="store_true", help="take what the edge plans (serve --policy)")
    cut.add_argument("--profile", metavar="FILE", help="what it costs here, made with plan --save-profile")
    work = parser.add_argument_group("the requests")
    work.add_argument("--input", metavar="FILE", nargs="+", default=[], help=".npy, .npz or pictures, in turn")
    work.add_argument("--count", type=at_least(0), default=20, metavar="N", help="0 is forever (default: 20)")
    work.add_argument("--period", type=not_negative, default=0.0, metavar="S", help="seconds from start to start")
    work.add_argument("--deadline", type=positive, metavar="MS", help="for each (default: none is late)")
    work.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of a random input (default: 0)")
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("--save", metavar="FILE.npz", help="the results")
    kept.add_argument("--csv", metavar="FILE", help="a line for each request")
    kept.add_argument("--trace", metavar="FILE", help="a log of all choices and measurements, for replay")
    add_model_arguments(parser)
    add_runtime_arguments(parser)
    parser.add_argument("--json", action="store_true", help='write one JSON line a request, then {"totals": ...}')


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot run``."""
    if arguments.cut is not None and (arguments.policy is not None or arguments.follow):
        raise Unusable("--cut says where to cut: leave --policy and --follow out")
    if arguments.save is not None and arguments.count == 0:
        raise Unusable("--save keeps all results in memory: give a --count")
    if arguments.trace is not None and arguments.edge == "none":
        raise Unusable("--trace is a log of choices, and without an edge there are none: leave it out")
    runtime = runtime_of(arguments)
    target = load_target(arguments.target, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
    policy = _policy(arguments, target)
    inputs = read_inputs(arguments.input, target) or [target.sample(arguments.seed)]
    console.need_rich()
    kept: dict[str, Any] = {}
    totals = Totals()
    with contextlib.ExitStack() as stack:
        csv = None
        if arguments.csv is not None:
            Path(arguments.csv).parent.mkdir(parents=True, exist_ok=True)
            csv = CsvFile(stack.enter_context(open(arguments.csv, "w", encoding="utf-8", newline="")))
        recorder = None
        if arguments.trace is not None:
            from splitiot.sim import TraceWriter

            Path(arguments.trace).parent.mkdir(parents=True, exist_ok=True)
            recorder = stack.enter_context(TraceWriter(arguments.trace))
        opened = _opened(arguments, target, policy, inputs[0], runtime, recorder, console)
        once, missing = stack.enter_context(opened)
        show = stack.enter_context(_shown(console, totals))
        try:
            for number in _paced(arguments.count, arguments.period):
                outcome = once(inputs[(number - 1) % len(inputs)])
                one = record(number, outcome)
                totals.add(one)
                if csv is not None:
                    csv.add(one)
                if arguments.save is not None and outcome.ok:
                    kept |= flatten(outcome.value, number)
                show(one)
        finally:
            if arguments.save is not None and kept:
                write_outputs(arguments.save, kept)
            if console.json:
                console.data({"totals": totals.to_dict()}, line=True)
    if why := missing():
        raise Failed(f"the edge at {arguments.edge} could never be used ({why}): everything ran here")
    if totals.failed:
        raise Failed(f"{totals.failed} of {totals.requests} requests ended without a value")
    return 0


def _policy(arguments: argparse.Namespace, target: Target) -> Policy:
    from splitiot.policies import Fixed

    if arguments.cut is not None:
        return Fixed(legal_cut(target, arguments.cut))
    name = arguments.policy or "adaptive"
    if name == "local":
        legal_cut(target, target.pipeline.n)
    return load_policy(name, n=target.pipeline.n)


def _paced(count: int, period_s: float) -> Iterator[int]:
    """Give 1, 2, ..., one each period; one that is late is not made up for."""
    due_s = time.monotonic()
    for number in range(1, count + 1) if count else itertools.count(1):
        rest_s = due_s - time.monotonic()
        if rest_s > 0:
            time.sleep(rest_s)
        due_s = max(due_s, time.monotonic()) + period_s if rest_s < 0 else due_s + period_s
        yield number


# one request ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(
    arguments: argparse.Namespace,
    target: Target,
    policy: Policy,
    sample: Any,
    runtime: Runtime,
    recorder: Recorder | None,
    console: Console,
) -> Iterator[tuple[Callable[[Any], Outcome], Callable[[], str]]]:
    """Give a function that runs one request, and one that tells why the edge was never there, "" if it was."""
    if arguments.edge == "none":
        with _alone(target, runtime) as run_here:
            yield run_here, str
        return
    from splitiot.device import Device

    profile = None if arguments.profile is None else load_profile(arguments.profile, target)
    transport = _Listening(open_transport(arguments, arguments.edge))
    device = Device(
        target.pipeline,
        transport,
        policy=policy,
        profile=profile,
        sample=sample,
        runtime=runtime,
        deadline_s=None if arguments.deadline is None else arguments.deadline / 1e3,
        follow=arguments.follow,
        recorder=recorder,
    )
    up = False

    def once(value: Any) -> Outcome:
        nonlocal up
        outcome = device.run(value)
        up = up or outcome.source == "edge" or device.edge_up
        return outcome

    with console.log("splitiot"), contextlib.closing(device):
        with console.status(f"looking for the edge, and measuring {target.name} here unless that is known"):
            up = device.connect()
        yield once, lambda: "" if up else transport.last_error or "it refused, or did not answer"


@contextlib.contextmanager
def _alone(target: Target, runtime: Runtime) -> Iterator[Callable[[Any], Outcome]]:
    from splitiot.errors import SplitiotError, StepError
    from splitiot.observation import Observation
    from splitiot.plan import Outcome
    from splitiot.runner import Runner

    pipeline = target.pipeline
    n = legal_cut(target, pipeline.n)
    with Runner(pipeline, runtime=runtime) as runner:

        def once(value: Any) -> Outcome:
            began_s = time.monotonic()
            try:
                result, seconds = runner.run(0, n, pipeline.bind(value))
                sent, own = pipeline.divide(n, result)
                value = pipeline.join(own, sent)
            except SplitiotError as error:
                return Outcome(error=error, latency_s=time.monotonic() - began_s)
            except Exception as error:  # whatever a step raises ends its request, not the run
                return Outcome(error=StepError(f"a step raised {error!r}"), latency_s=time.monotonic() - began_s)
            seen = Observation(plan_id=0, cut=n, head_s=seconds)
            latency_s = time.monotonic() - began_s
            return Outcome(value=value, source="local", exact=True, observation=seen, latency_s=latency_s)

        yield once


class _Listening(Transport):
    """Another transport, remembering what went wrong last: a device goes on without saying so."""

    def __init__(self, inner: Transport) -> None:
        self._inner, self.lossy = inner, inner.lossy
        self.last_error = ""

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        with self._listening():
            self._inner.send(frame, timeout_s=timeout_s)

    def receive(self, *, timeout_s: float) -> bytes | None:
        with self._listening():
            return self._inner.receive(timeout_s=timeout_s)

    def close(self) -> None:
        self._inner.close()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            self.last_error = str(error)
            raise


# what is shown ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _shown(console: Console, totals: Totals) -> Iterator[Callable[[Record], None]]:
    """Give a function that shows a record: in a live table, as a line where there is no terminal, or as JSON."""
    if console.json:
        yield lambda one: console.data(one.to_dict(), line=True)
        return
    from rich.text import Text

    if not console.out.is_terminal:
        console.print(_line(list(COLUMNS)))
        try:
            yield lambda one: console.print(_line(cells(one)))
        finally:
            console.print("", Text(str(totals)))
        return
    from rich.console import Group
    from rich.live import Live

    last: deque[Record] = deque(maxlen=max(3, min(_SHOWN, console.out.height - 8)))

    def drawn() -> Group:
        styles = ["red" if one.error else "yellow" if one.source in ("fallback", "hedge") else None for one in last]
        return Group(console.table(COLUMNS, [cells(one) for one in last], styles), Text(), Text(str(totals)))

    with Live(drawn(), console=console.out, auto_refresh=False) as live:
        shown_s = 0.0

        def show(one: Record) -> None:
            nonlocal shown_s
            last.append(one)
            if time.monotonic() - shown_s > 0.05:  # drawing takes longer than a small network
                shown_s = time.monotonic()
                live.update(drawn(), refresh=True)

        try:
            yield show
        finally:
            live.update(drawn(), refresh=True)


def _line(row: list[str]) -> str:
    """Return cells as one aligned line of a log."""
    widths = (7, 4, 12, 8, 8, 8, 9)
    right = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False))
    return f"{right}  {row[7]:<8}  {row[8]:<5}  {row[9]}".rstrip()
