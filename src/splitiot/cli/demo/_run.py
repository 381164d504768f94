"""What the demonstration does: starts the processes, gives orders, and breaks things."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from attrs import field, frozen

from splitiot._child import ChildDied, ChildHung, ChildProcess
from splitiot.cli._errors import UsageError
from splitiot.cli.demo._messages import Order, ProcessUsage, Ready, RequestResult, Setting
from splitiot.cli.demo._pipeline import build
from splitiot.errors import MissingDependencyError, SplitiotError
from splitiot.samples import pictures
from splitiot.sim import ShapedLink
from splitiot.topology import Link
from splitiot.vision import load_picture, rgb888_to_rgb565

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

__all__ = ["PHASES", "Phase", "run"]

BASELINES = ("all local", "all edge", "fixed middle")
_ANSWER_S: Final = 600.0  # the longest that a process may be silent, on a slow machine

_M = TypeVar("_M")


@frozen
class Phase:
    """What the network is like for a while."""

    name: str
    link: Link
    conditions: str = field(default="")


PHASES = (
    Phase("fast", Link.from_mbit_per_s(20, rtt_s=0.005), "20 Mbit/s, 5 ms"),
    Phase("slow", Link.from_mbit_per_s(0.5, rtt_s=0.02), "0.5 Mbit/s, 20 ms"),
    Phase("edge dies", Link.from_mbit_per_s(5, rtt_s=0.01), "5 Mbit/s, 10 ms; SIGKILL in a request"),
    Phase("recovered", Link.from_mbit_per_s(20, rtt_s=0.005), "20 Mbit/s, 5 ms; edge restarted"),
)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the demonstration; 0 if no request was lost and every value was right."""
    try:
        import matplotlib  # noqa: F401  (only whether it is there)
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "plot") from error
    if arguments.requests < 4 or not arguments.device_ms > 0:
        raise UsageError("the demonstration needs --requests of at least 4 and a positive --device-ms")
    from splitiot.cli.demo import _report
    from splitiot.cli.demo._screen import Screen

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    _, (width, height) = build(arguments.model)
    paths = arguments.image or [picture.path for picture in pictures()]
    shown = [load_picture(path, width=width, height=height) for path in paths]
    frames = [rgb888_to_rgb565(picture, byte_order="big") for picture in shown]
    began_s = time.monotonic()
    model = [] if arguments.model is None else [str(arguments.model)]
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(Screen(console, PHASES, arguments.requests))
        edges: list[_Process] = []

        def start_edge(port: int) -> int:
            edges.append(stack.enter_context(_Process("edge", out, [str(port), *model])))
            return edges[-1].receive(int)

        screen.say("starting the edge")
        port = start_edge(0)
        link = stack.enter_context(ShapedLink(port, PHASES[0].link, jitter_s=0.001, seed=arguments.seed))
        screen.say("profiling the pipeline")
        with _Process("profile", out, model) as profiler:  # a device has its profile from an earlier start
            profile = profiler.receive(dict[str, Any])
        screen.say("starting the device")
        device = stack.enter_context(_Process("device", out, model))
        device.send(
            Setting(
                profile=profile,
                url=f"http://127.0.0.1:{link.port}",
                whole_s=arguments.device_ms / 1e3,
                frames=frames,
                seed=arguments.seed,
            )
        )
        ready = device.receive(Ready)
        screen.ready(ready)
        rows: list[RequestResult] = []
        for phase in PHASES:
            link.link = phase.link
            if phase.name == "recovered":
                screen.say("restarting the edge")
                start_edge(port)
            screen.enter(phase)
            rows += _play(phase, arguments.requests, device, edges[-1], screen)
        device.send(Order("", "", 0))
        usage = device.receive(ProcessUsage)
    _report.csv(rows, out / "requests.csv")
    _report.plot(rows, ready, PHASES, out / "requests.png")
    _report.draw_detections(shown, rows, out / "found.png")
    _report.summary(console, rows, ready, usage, PHASES, out, time.monotonic() - began_s)
    return 0 if all(row.right for row in rows) else 1


def _play(phase: Phase, requests: int, device: _Process, edge: _Process, screen: Any) -> Iterator[RequestResult]:
    for number, row in enumerate(_requests(device, Order(phase.name, "splitiot", requests)), start=1):
        screen.row(row)
        yield row
        if phase.name == "edge dies" and number == requests // 4:
            time.sleep(0.6 * row.total_s)  # by now the next request has left the device
            edge.kill()
            screen.say("edge killed (SIGKILL)")
    for policy in BASELINES:
        screen.say(f"the same with {policy}, to compare")
        yield from _requests(device, Order(phase.name, policy, max(4, requests // 3)))


def _requests(device: _Process, order: Order) -> Iterator[RequestResult]:
    device.send(order)
    for _ in range(order.requests):
        yield device.receive(RequestResult)


class _Process:
    """One of the demonstration's processes, which runs the module of its name; a log in `out` gets what it says."""

    def __init__(self, name: str, out: Path, arguments: Sequence[str]) -> None:
        self._name, self._log = name, out / f"{name}.log"
        self._log.unlink(missing_ok=True)
        code = f"from splitiot.cli.demo._{name} import main; main(sys.argv[2:])"
        self._child = ChildProcess(name, code, arguments, on_stderr=self._write_log)
        self.kill: Callable[[], None] = self._child.kill

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def send(self, message: msgspec.Struct) -> None:
        """Send it JSON."""
        self._child.send(msgspec.json.encode(message))

    def receive(self, kind: type[_M]) -> _M:
        """Wait for its next message, JSON too."""
        try:
            return msgspec.json.decode(self._child.receive(_ANSWER_S)[0], type=kind)
        except (ChildDied, ChildHung) as error:
            said = self._child.last_line() or "nothing"
            raise SplitiotError(f"the process {self._name!r} ended ({error}); it said: {said}") from error

    def _write_log(self, line: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{line}\n")
