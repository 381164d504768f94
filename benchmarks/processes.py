"""Rows about whole processes: what an import takes, and how much memory a device holds."""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from children import Child, clean_environment
from measure import Pair, Row, compared

from splitiot.cli.demo._messages import Order, Ready, Setting
from splitiot.samples import fomo, pictures
from splitiot.vision import load_picture, rgb888_to_rgb565

NOTHING = "pass"
CORE = "import numpy, attrs, msgspec"
LIGHT = "import splitiot"
USED = "import splitiot; splitiot.Device, splitiot.load_model, splitiot.Planner, splitiot.EdgeService"


@functools.cache
def _starts() -> tuple[dict[str, float], ...]:
    """Return seconds of whole processes that import something and end, in rounds; by their code."""
    with tempfile.TemporaryDirectory() as folder:
        environment = clean_environment(Path(folder))

        def seconds(code: str) -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
            return time.perf_counter() - began

        codes = (NOTHING, LIGHT, CORE, USED)
        for code in codes:  # compiles, and brings the files into memory
            seconds(code)
        return tuple({code: seconds(code) for code in codes} for _ in range(13))


def imports(used: bool) -> Row:
    """Import splitiot against what it needs, in new processes, less what an idle Python takes."""
    rounds = _starts()
    idle = statistics.median(row[NOTHING] for row in rounds)
    code = USED if used else LIGHT
    return compared(
        "import-used" if used else "import",
        f"{'import splitiot and touch its main classes' if used else LIGHT} / {CORE}",
        Pair(tuple(row[code] - idle for row in rounds), tuple(row[CORE] - idle for row in rounds)),
        at_most=1.25,
    )


def memory() -> Row:
    """Peak memory of the demonstration's device process against the network alone."""
    frames = [
        rgb888_to_rgb565(load_picture(picture.path, width=96, height=96), byte_order="big") for picture in pictures()
    ]
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        environment = clean_environment(Path(folder))
        with Child("splitiot.cli.demo._edge", "0", module=True, environment=environment) as edge:
            url = f"http://127.0.0.1:{int(edge.line())}"
            _device(url, frames, environment)  # compiles
            for _ in range(3):
                ours.append(_device(url, frames, environment))
                with Child("whole_network.py", str(fomo("int8")), environment=environment) as child:
                    child.line()
                    theirs.append(_peak(child))
    return compared(
        "memory",
        "peak of the demo's device process / LiteRT + numpy + whole network",
        Pair(tuple(ours), tuple(theirs)),
        at_most=1.3,
        unit="bytes",
    )


def _device(url: str, frames: list[bytes], environment: dict[str, str]) -> float:
    with Child("splitiot.cli.demo._profile", module=True, environment=environment) as child:
        profile = msgspec.json.decode(child.line())
    setting = Setting(url=url, whole_s=0.05, frames=frames, profile=profile)
    with Child("splitiot.cli.demo._device", module=True, environment=environment) as child:
        child.tell(msgspec.json.encode(setting).decode())
        ready = msgspec.json.decode(child.line(), type=Ready)
        if not ready.welcome:
            raise AssertionError("the demonstration's device found no edge")
        for policy, requests in {"splitiot": 8, "all local": 4, "all edge": 4, "fixed middle": 4}.items():
            child.tell(msgspec.json.encode(Order("bench", policy, requests)).decode())
            for _ in range(requests):
                child.line()
        return _peak(child)


def _peak(child: Child) -> float:
    peak = child.peak_bytes()
    if peak is None:
        raise NotImplementedError("peak memory is read from /proc, which is not there")
    return float(peak)
