"""How often drift detectors cry wolf, and how late they see a step: ``python benchmarks/detectors.py [--json FILE]``.

Streams of numbers around 1 with relative noise, all from fixed seeds. Two halves: who tunes a detector looks at
``--half tuning``, and reports the other one. This is no test: it exits with 0 when a target is missed, and
says so.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from splitiot.estimators import Detector, Ema, LogCusum, VarianceDetector

NOISES = (0.05, 0.1, 0.2)
STEPS = (1.2, 1.5, 2.0, 1 / 1.2, 1 / 1.5, 1 / 2.0)
WARM_UP = 30  # samples that are not counted
STABLE = 1000  # samples of a stable stream after these
WITHIN = 100  # samples in which a step must be detected
SPIKES = 0.02  # part of the samples that is 2 to 6 times too large
HALVES = {"tuning": 0, "report": 1_000_000}
FALSE_ALARMS, DELAY = 3.0, 6.0  # targets of the default, at noise of 10 %


@dataclass
class Result:
    """What one detector did at one noise."""

    detector: str
    noise: float
    false_alarms: float  # per 1000 stable samples
    with_spikes: float
    steps: dict[float, tuple[float, float, float]] = field(default_factory=dict)  # median, 90 %, part missed
    us: float = math.nan  # microseconds an update


def detectors() -> dict[str, Callable[[], Detector]]:
    """Return ours, and River's where it is installed."""
    ours: dict[str, Callable[[], Detector]] = {
        "LogCusum": LogCusum,
        "VarianceDetector": VarianceDetector,
        "Ema": Ema,
    }
    try:
        from river import drift
    except ModuleNotFoundError:
        print("River's detectors are left out: `make bench-drift` brings them (or pip install river)", file=sys.stderr)
        return ours
    return ours | {
        "ADWIN": drift.ADWIN,
        "ADWIN clock=1": lambda: drift.ADWIN(clock=1),
        "PageHinkley": drift.PageHinkley,
        # k and h of LogCusum for numbers around 1 with noise of 10 %, which it must be told and ours learns
        "PageHinkley for 10 %": lambda: drift.PageHinkley(delta=0.05, threshold=0.6),
    }


def streams(kind: str, noise: float, n: int, count: int, seed: int, *, spikes: bool = False) -> Iterator[np.ndarray]:
    for i in range(count):
        rng = np.random.default_rng((seed + i, int(1000 * noise), spikes))
        if kind == "lognormal":
            values = rng.lognormal(0.0, noise, n)
        else:
            values = np.maximum(1 + noise * rng.standard_normal(n), 0.05)
        if spikes:
            hit = rng.random(n) < SPIKES
            values[hit] *= rng.uniform(2, 6, int(hit.sum()))
        yield values


def false_alarms(make: Callable[[], Detector], stable: list[list[float]]) -> float:
    """Per 1000 samples, behind the warm-up."""
    alarms = 0
    for values in stable:
        detector = make()
        for i, x in enumerate(values):
            detector.update(x)
            alarms += i >= WARM_UP and detector.drift_detected
    return 1000 * alarms / (len(stable) * STABLE)


def delays(make: Callable[[], Detector], stepped: list[tuple[int, list[float]]]) -> tuple[float, float, float]:
    """Median and 90 % of the samples from the step to the first alarm (1: its first one), and the part missed."""
    seen = []
    for at, values in stepped:
        detector, delay = make(), math.inf
        for i, x in enumerate(values):
            detector.update(x)
            if i >= at and detector.drift_detected:
                delay = i - at + 1
                break
        seen.append(delay)
    seen.sort()
    return seen[len(seen) // 2], seen[int(0.9 * len(seen))], sum(map(math.isinf, seen)) / len(seen)


def with_step(values: np.ndarray, step: float, number: int) -> tuple[int, list[float]]:
    """A stream with a step 30 to 130 samples behind its begin."""
    at = WARM_UP + number * 37 % 101
    values = values[: at + WITHIN].copy()
    values[at:] *= step
    return at, values.tolist()


def microseconds(make: Callable[[], Detector]) -> float:
    """An update and a look, the best of five rounds."""
    values = np.random.default_rng(0).lognormal(0, 0.1, 5000).tolist()
    best = math.inf
    for _ in range(5):
        detector = make()
        update = detector.update
        began = time.perf_counter()
        for x in values:
            update(x)
            _ = detector.drift_detected
        best = min(best, time.perf_counter() - began)
    return best / len(values) * 1e6


def measure(kind: str, half: str, count: int) -> list[Result]:
    seed, makers = HALVES[half], detectors()
    results = []
    us = {name: microseconds(make) for name, make in makers.items()}
    for noise in NOISES:
        n = WARM_UP + STABLE
        stable = [values.tolist() for values in streams(kind, noise, n, count, seed)]
        spiky = [values.tolist() for values in streams(kind, noise, n, count, seed, spikes=True)]
        stepped = {
            step: [
                with_step(values, step, i)
                for i, values in enumerate(streams(kind, noise, WARM_UP + 100 + WITHIN, 2 * count, seed + count))
            ]
            for step in STEPS
        }
        for name, make in makers.items():
            print(f"noise of {noise:.0%}: {name}", file=sys.stderr, flush=True)
            result = Result(name, noise, false_alarms(make, stable), false_alarms(make, spiky), us=us[name])
            for step, cases in stepped.items():
                result.steps[step] = delays(make, cases)
            results.append(result)
    return results


def table(results: list[Result]) -> None:
    names = [f"{step:.1f}x" if step > 1 else f"1/{1 / step:.1f}x" for step in STEPS]
    head = ("noise", "detector", "us", "false/1000", "spikes", *names)
    lines = []
    for result in results:
        cells = [f"{number(a)} {number(b)} {missed:.0%}" for a, b, missed in result.steps.values()]
        rates = (f"{result.false_alarms:.1f}", f"{result.with_spikes:.1f}")
        lines.append((f"{result.noise:.0%}", result.detector, f"{result.us:.1f}", *rates, *cells))
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, ["-" * width for width in widths], *lines):
        cells = zip(line, widths, strict=True)
        print("  ".join(c.ljust(w) if i == 1 else c.rjust(w) for i, (c, w) in enumerate(cells)))
    print(f"\nSteps: median and 90 % of the samples until detected, part missed within {WITHIN}. us: of an update.")
    print("What cries wolf all the time is quick at steps, too.")


def number(delay: float) -> str:
    return "-" if math.isinf(delay) else f"{delay:.0f}"


def targets(results: list[Result]) -> None:
    default = next(r for r in results if r.detector == "LogCusum" and r.noise == 0.1)
    for what, value, limit in (
        ("false alarms per 1000", default.false_alarms, FALSE_ALARMS),
        ("median delay of 1.2x", default.steps[1.2][0], DELAY),
        ("median delay of 1/1.2x", default.steps[1 / 1.2][0], DELAY),
    ):
        print(f"LogCusum, noise of 10 %: {what} {value:.1f} <= {limit:.0f}: {'met' if value <= limit else 'NOT MET'}")


def plain(results: list[Result], arguments: argparse.Namespace) -> dict[str, object]:
    names = [name for name in ("numpy", "river") if name in sys.modules]
    rows = []
    for result in results:
        row = asdict(result)
        row["steps"] = [
            {"step": step, "median": finite(a), "p90": finite(b), "missed": missed}
            for step, (a, b, missed) in result.steps.items()
        ]
        rows.append(row)
    return {
        "noise": arguments.noise,
        "half": arguments.half,
        "count": arguments.count,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in names},
        "rows": rows,
    }


def finite(delay: float) -> float | None:
    return None if math.isinf(delay) else delay


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", choices=("lognormal", "normal"), default="lognormal", help="multiplied or added")
    parser.add_argument("--half", choices=HALVES, default="report", help="which half of the seeds")
    parser.add_argument("--count", type=int, default=300, help="stable streams; twice as many with a step")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    results = measure(arguments.noise, arguments.half, arguments.count)
    table(results)
    print()
    targets(results)
    if arguments.json is not None:
        text = json.dumps(plain(results, arguments), indent=2, allow_nan=False)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
