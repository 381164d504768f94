"""What the demonstration does: starts the processes, gives orders, and breaks things."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
from attrs import field, frozen

from splitiot.cli._child import start
from splitiot.cli._errors import Unusable
from splitiot.cli.demo._messages import Gone, Order, Ran, Ready, Setting
from splitiot.cli.demo._pipeline import build
from splitiot.errors import EdgeUnavailable, MissingDependencyError, SplitiotError
from splitiot.samples import pictures
from splitiot.sim import ShapedLink
from splitiot.topology import Link
from splitiot.vision import load_picture, rgb888_to_rgb565

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

__all__ = ["PHASES", "Phase", "run"]

BASELINES = ("all local", "all edge", "fixed middle")
_START_S = 60.0


@frozen
class Phase:
    """What the network is like for a while."""

    name: str
    link: Link
    words: str = field(default="")


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
        raise Unusable("the demonstration needs --requests of at least 4 and a positive --device-ms")
    from splitiot.cli.demo import _report
    from splitiot.cli.demo._screen import Screen

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    _, (width, height) = build(arguments.model)
    paths = arguments.image or [picture.path for picture in pictures()]
    shown = [load_picture(path, width=width, height=height) for path in paths]
    frames = [rgb888_to_rgb565(picture, byte_order="big") for picture in shown]
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(Screen(console, PHASES, arguments.requests))
        screen.say("starting the edge")
        edge = _Edge(arguments.model, out)
        stack.callback(edge.kill)
        link = stack.enter_context(ShapedLink(edge.start(0), PHASES[0].link, jitter_s=0.001, seed=arguments.seed))
        screen.say("profiling the pipeline")
        profile = _profile(arguments.model, out)
        screen.say("starting the device")
        setting = Setting(
            profile=profile,
            url=f"http://127.0.0.1:{link.port}",
            whole_s=arguments.device_ms / 1e3,
            frames=frames,
            model=None if arguments.model is None else str(arguments.model),
            seed=arguments.seed,
        )
        device = stack.enter_context(_Device(setting, out))
        screen.ready(device.ready)
        rows = list(_play(arguments.requests, device, edge, link, screen))
        gone = device.stop()
    _report.csv(rows, out / "requests.csv")
    _report.plot(rows, device.ready, PHASES, out / "requests.png")
    _report.found(shown, rows, out / "found.png")
    _report.summary(console, rows, device.ready, gone, PHASES, out, time.monotonic() - began_s)
    return 0 if all(row.right for row in rows) else 1


def _play(requests: int, device: _Device, edge: _Edge, link: ShapedLink, screen: Any) -> Iterator[Ran]:
    for phase in PHASES:
        link.link = phase.link
        if phase.name == "recovered":
            screen.say("restarting the edge")
            edge.start(edge.port)
        screen.enter(phase)
        for number, row in enumerate(device.order(Order(phase.name, "splitiot", requests)), start=1):
            screen.row(row)
            yield row
            if phase.name == "edge dies" and number == requests // 4:
                time.sleep(0.6 * row.total_s)  # by now the next request has left the device
                edge.kill()
                screen.say("edge killed (SIGKILL)")
        for policy in BASELINES:
            screen.say(f"the same with {policy}, to compare")
            yield from device.order(Order(phase.name, policy, max(4, requests // 3)))


def _profile(model: Path | None, out: Path) -> dict[str, Any]:
    """Measure the pipeline in a process that then ends: a device has its profile from an earlier start."""
    log = out / "profile.log"
    with _python("splitiot.cli.demo._profile", [] if model is None else [str(model)], log) as process:
        told, _ = process.communicate()
    if process.returncode:
        raise SplitiotError(f"the pipeline could not be profiled: {_tail(log)}")
    if not log.stat().st_size:
        log.unlink()
    profile: dict[str, Any] = msgspec.json.decode(told)
    return profile


class _Edge:
    """The edge process, which can be killed and started again."""

    def __init__(self, model: Path | None, out: Path) -> None:
        self._model, self._log = model, out / "edge.log"
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self, port: int) -> int:
        model = [] if self._model is None else [str(self._model)]
        self._process = _python("splitiot.cli.demo._edge", [str(port), *model], self._log)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip().isdigit():
            raise EdgeUnavailable(f"the edge did not start; it said: {_tail(self._log)}")
        self.port = int(line)
        return self.port

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None
        if self._log.exists() and not self._log.stat().st_size:
            self._log.unlink()


class _Device:
    """The device process: takes orders, tells what happened."""

    def __init__(self, setting: Setting, out: Path) -> None:
        self._log = out / "device.log"
        self._process = _python("splitiot.cli.demo._device", [], self._log)
        self._write(setting)
        try:
            self.ready = msgspec.json.decode(self._line(), type=Ready)
        except BaseException:
            self._end()
            raise

    def order(self, order: Order) -> Iterator[Ran]:
        self._write(order)
        for _ in range(order.requests):
            yield msgspec.json.decode(self._line(), type=Ran)

    def stop(self) -> Gone:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return msgspec.json.decode(self._line(), type=Gone)

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._log.exists() and not self._log.stat().st_size:
            self._log.unlink()

    def _write(self, message: msgspec.Struct) -> None:
        pipe: IO[str] | None = self._process.stdin
        assert pipe is not None
        pipe.write(msgspec.json.encode(message).decode() + "\n")
        pipe.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SplitiotError(f"the device process ended; it said: {_tail(self._log)}")
        return line


def _python(module: str, arguments: list[str], log: Path) -> subprocess.Popen[str]:
    with log.open("w") as errors:
        return start(module, arguments, errors=errors)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "nothing"
