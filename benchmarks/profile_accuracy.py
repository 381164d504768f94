"""How well a profile of at most 8 heads tells what every head takes: ``python benchmarks/profile_accuracy.py``.

For each network every head is also measured separately: it alone is open, warmed up, and run up to 8 times on end.
Each operator is measured alone in the same way, and summed up: the naive figure.

Profiler and separate measurement take turns, round by round, so that both see the same machine: the profiler's
callback runs a round of the other, and its clock stands still meanwhile. What is compared are seconds, not shares: of
this thread's CPU time, for which it does not count that others take the processor away, unless `--wall` is given.
Exits with 0 when the target is missed, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from mobilenet import mobilenet_v2

from splitiot import Model, TierProfile, load_model, profile
from splitiot.samples import fomo

TARGET = 0.05
ZOO = "SPLITIOT_TEST_MODELS"
Part = tuple[int, int]


@frozen
class Errors:
    """Relative errors of one profile, a number for each head."""

    heads: tuple[float, ...]
    naive: tuple[float, ...]
    repeat: tuple[float, ...]
    """Of the separate measurement itself: even rounds against odd rounds."""
    noise: float


Seconds = Callable[[], float]


class Clock:
    """Seconds, less those that were spent outside; the budget ends when `over` is set."""

    def __init__(self, seconds: Seconds) -> None:
        self.seconds = seconds
        self.away_s = 0.0
        self.over = False

    def __call__(self) -> float:
        return self.seconds() - self.away_s + (1e9 if self.over else 0.0)


class Separate:
    """Measures parts, each opened anew, one round at a time."""

    def __init__(self, model: Model, payload: Any, clock: Seconds) -> None:
        self._model, self._payloads, self._clock = model, {0: payload}, clock
        self.parts = [(0, cut) for cut in model.cuts if cut > 0]
        steps = [0, *(cut for _, cut in self.parts)]
        self.parts += [part for part in pairwise(steps) if part not in self.parts]
        self.seconds: dict[Part, list[float]] = {part: [] for part in self.parts}

    def round(self) -> None:
        for start, stop in self.parts:
            executable = self._model.part(start, stop).open(None)
            try:
                payload = self._payloads[start]
                for _ in range(2):
                    after = executable(payload)
                if start == 0:
                    self._payloads[stop] = self._model.divide(stop, after)[0]
                took: list[float] = []
                while not took or (len(took) < 8 and len(took) * min(took) < 0.003):
                    began_s = self._clock()
                    executable(payload)
                    took.append(self._clock() - began_s)
            finally:
                executable.close()
            self.seconds[start, stop].append(statistics.median(took))


def one_profile(model: Model, sample: Any, rounds: int, seconds: Seconds) -> Errors:
    """Profile, with the separate measurement between its rounds."""
    clock, separate = Clock(seconds), Separate(model, model.bind(sample), seconds)
    separate.round()  # warm up; it makes what the operators take
    for times in separate.seconds.values():
        times.clear()
    done = 0

    def between(share: float) -> None:
        nonlocal done
        if share <= 0.3 or share >= 1.0:  # walking, and the end
            return
        began_s = seconds()
        separate.round()
        done += 1
        clock.over = done == rounds  # one attempt: the other measurement gets no second one either
        clock.away_s += seconds() - began_s

    made = profile(model, sample, repeats=rounds, budget_s=1e6, clock=clock, progress=between)
    return errors(made, separate.seconds, model)


def errors(made: TierProfile, seconds: Mapping[Part, list[float]], model: Model) -> Errors:
    middle = {part: statistics.median(values) for part, values in seconds.items()}
    heads = [cut for cut in model.cuts if cut > 0]
    sums = np.cumsum([middle[part] for part in pairwise([0, *heads])])
    return Errors(
        tuple(abs(made.heads_s[cut] / middle[0, cut] - 1) for cut in heads),
        tuple(abs(total / middle[0, cut] - 1) for cut, total in zip(heads, sums.tolist(), strict=True)),
        tuple(
            abs(statistics.median(seconds[0, cut][::2]) / statistics.median(seconds[0, cut][1::2]) - 1) for cut in heads
        ),
        made.noise,
    )


def networks() -> Iterator[tuple[str, Model, int, int]]:
    """Names, networks, profiles of each, rounds of each profile."""
    yield "FOMO float32", load_model(fomo("float32")), 3, 15
    yield "FOMO int8", load_model(fomo("int8")), 3, 15
    if zoo := os.environ.get(ZOO):
        for kind in ("float", "int8"):
            yield f"vww_96 {kind}", load_model(Path(zoo) / f"vww_96_{kind}.tflite"), 3, 15
    yield "MobileNetV2 96", load_model(mobilenet_v2(96)), 1, 9


def measured(name: str, model: Model, profiles: int, rounds: int, seconds: Seconds) -> dict[str, Any]:
    """Return one line of the table."""
    (spec,) = model.inputs
    random = np.random.default_rng(0)
    sample: Any = random.random(spec.shape, np.float32)
    if spec.dtype == "int8":
        sample = random.integers(-128, 128, spec.shape).astype(np.int8)
    found = [one_profile(model, sample, rounds, seconds) for _ in range(profiles)]

    def figures(kind: str) -> dict[str, float]:
        each = [getattr(one, kind) for one in found]
        return {
            "median": statistics.median(map(statistics.median, each)),
            "p90": float(np.quantile(np.concatenate(each), 0.9)),
            "worst": max(map(max, each)),
        }

    return {
        "network": name,
        "heads": len(found[0].heads),
        "profile": figures("heads"),
        "naive": figures("naive"),
        "repeat": figures("repeat"),
        "noise": statistics.median(one.noise for one in found),
    }


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="WORD", help="networks whose name has this word")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    parser.add_argument("--wall", action="store_true", help="compare seconds on the wall")
    arguments = parser.parse_args()
    seconds = time.perf_counter if arguments.wall else time.thread_time
    rows = []
    for name, model, profiles, rounds in networks():
        if arguments.only is None or arguments.only.lower() in name.lower():
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            rows.append(measured(name, model, profiles, rounds, seconds))
    kinds = {"profile": "8 heads measured", "naive": "sums of operators", "repeat": "measured twice"}
    print("relative error against heads measured separately, in %: median, 90th percentile, worst of all heads\n")
    print(f"{'network':16}  heads  " + "  ".join(f"{words:>22}" for words in kinds.values()) + "  noise")
    for row in rows:
        cells = ["{median:6.1%} {p90:6.1%} {worst:7.1%}".format(**row[kind]) for kind in kinds]
        print(
            "  ".join(
                [f"{row['network']:16}", f"{row['heads']:5}", *(f"{c:>22}" for c in cells), f"{row['noise']:.1%}"]
            )
        )
    print()
    for row in rows:
        middle = row["profile"]["median"]
        print(f"{'met' if middle <= TARGET else 'MISSED'}: {row['network']}: median {middle:.1%} (<= {TARGET:.0%})")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
