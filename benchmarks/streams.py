"""How fast pipelined runs are: ``python benchmarks/streams.py`` (or ``make bench-streams``).

`Device.map` at a fixed cut, against the rate of the slowest of device, link and edge. Steps that sleep, so that all
three are known: bound by the device, by the link, by the edge, and three that take the same. Once in one process, once
with an edge process behind HTTP and a link that is shaped to a rate. Then a network on both sides, whose device and
edge are measured. Rates are taken between the first and the last outcome. Beside them stands what the planner believed
at the end: ``costs.paced_s(window)``.

The last table needs no clock: in how many cases the cut with the most results a second is not the one with the least
latency.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from attrs import frozen
from children import Child
from networks_edge import model_of
from regimes import RESULT_BYTES, RTT_S, SERVERS, figures, networks
from sleepers import RTT_S as SHORT_S
from sleepers import Uplink, pipeline, profiles

import splitiot as si
from splitiot.functions import TaskPipeline
from splitiot.sim import ShapedLink

HEADER_BYTES: Final = 500
NBYTES: Final = 50_000
LITTLE: Final = 250_000  # bytes, at the cuts of a network
WINDOWS: Final = (1, 2, 3, 4, 5, 6)
MOST, REAL, FASTER = 0.90, 0.80, 2.5


@frozen
class Pattern:
    """Seconds on device, link and edge."""

    name: str
    device_s: float
    link_s: float
    edge_s: float

    @property
    def slowest_s(self) -> float:
        return max(self.device_s, self.link_s, self.edge_s)


PATTERNS: Final = (
    Pattern("device", 0.03, 0.01, 0.01),
    Pattern("link", 0.01, 0.03, 0.01),
    Pattern("edge", 0.01, 0.01, 0.03),
    Pattern("three equal", 0.02, 0.02, 0.02),
)


@frozen
class Measured:
    """Seconds between results, what the planner believes them to be, and what each request took; see `_seen`."""

    period_s: float
    believed_s: float
    seen: tuple[tuple[float, float, float, float], ...]


def streamed(device: si.Device, value: Any, window: int, count: int) -> Measured:
    """Time a stream between its first and its last outcome."""
    ended, seen = [], []
    for outcome in device.map((value for _ in range(count)), window=window):
        outcome.unwrap()
        if outcome.source != "edge":
            raise AssertionError(f"the edge did not answer: {outcome}")
        ended.append(time.perf_counter())
        seen.append(_seen(outcome))
    assert outcome.plan is not None
    believed = device.planner.costs.paced_s(window)[outcome.plan.row]
    return Measured((ended[-1] - ended[0]) / (count - 1), float(believed), tuple(seen))


def one_by_one(device: si.Device, value: Any, count: int) -> float:
    """Return the seconds of one request after the other."""
    began = time.perf_counter()
    for _ in range(count):
        device.run(value).unwrap()
    return (time.perf_counter() - began) / count


def made(pattern: Pattern) -> tuple[TaskPipeline, si.TierProfile, si.TierProfile, float]:
    of = pattern.device_s, pattern.edge_s, NBYTES
    built = pipeline(*of)
    return built, *profiles(built, *of), (NBYTES + HEADER_BYTES) / pattern.link_s


def device_of(built: TaskPipeline, own: si.TierProfile, transport: si.Transport, rate: float) -> si.Device:
    link = si.Link(SHORT_S, rate, 100 * rate)
    return si.Device(built, transport, policy=si.Fixed(1), profile=own, link=link, cache=False)


@contextmanager
def in_process(pattern: Pattern) -> Iterator[si.Device]:
    built, own, edge, rate = made(pattern)
    with (
        si.EdgeService([built], profiles=[edge]) as service,
        device_of(built, own, Uplink(service, rate), rate) as device,
    ):
        yield device


@contextmanager
def over_http(pattern: Pattern) -> Iterator[si.Device]:
    built, own, _, rate = made(pattern)
    with (
        Child("sleepers.py", str(pattern.device_s), str(pattern.edge_s), str(NBYTES)) as child,
        ShapedLink(int(child.line()), si.Link(SHORT_S, rate, 100 * rate)) as shaped,
        device_of(built, own, si.HttpTransport(f"http://127.0.0.1:{shaped.port}"), rate) as device,
    ):
        yield device


def patterns(where: Callable[[Pattern], Any], title: str, most: float, count: int) -> list[str]:
    """Measure all patterns with windows 1 to 6."""
    lines = [
        title,
        f"{'bound by':12} {'slowest':>8} " + " ".join(f"{f'window {w}':>15}" for w in WINDOWS) + "  sequential",
    ]
    missed = []
    for pattern in PATTERNS:
        cells = []
        with where(pattern) as device:
            alone_s = one_by_one(device, 1, 8)
            for window in WINDOWS:
                found = streamed(device, 1, window, count)
                share = pattern.slowest_s / found.period_s
                cells.append(f"{share:5.2f} {1e3 * found.period_s:4.1f}/{1e3 * found.believed_s:4.1f}")
                if window == 3:
                    times = alone_s / found.period_s
                    if pattern.name != "three equal":
                        missed += [f"{pattern.name}: {share:.2f} < {most}"] if share < most else []
                    elif times < FASTER:
                        missed.append(f"{times:.2f} times sequential < {FASTER}")
        lines.append(
            f"{pattern.name:12} {1e3 * pattern.slowest_s:5.0f} ms "
            + " ".join(f"{cell:>15}" for cell in cells)
            + f"  {1e3 * alone_s:5.1f} ms, {times:.2f}x"
        )
    met = f"met: >= {most} of the slowest one's rate, >= {FASTER} times sequential where all are equal; window 3"
    lines.append("MISSED: " + "; ".join(missed) if missed else met)
    return lines


# a network on both sides


def network(kind: str, *, window: int, count: int, rounds: int = 5) -> list[str]:
    """Measure a network whose device and edge are two processes, over HTTP, at cuts where little crosses.

    What the slowest takes is measured twice, in turns with the stream: one request after the other, when nothing else
    runs; and in the stream itself, where all three need the processor at once. Beside that stands the processor time of
    the two processes: what a request takes there besides the network (frames, HTTP, learning) is work as well.
    """
    model = model_of(kind)
    (spec,) = model.inputs
    value = np.random.default_rng(0).random(spec.shape, np.float32)
    lines = []
    with Child("networks_edge.py", kind) as child:
        url = f"http://127.0.0.1:{int(child.line())}"
        own = si.profile(model, value, budget_s=2.0)
        cuts = [c for c in model.cuts if 0 < c < model.n and (model.boundary(c).nbytes or 0) <= LITTLE]
        chosen = {min(cuts, key=lambda c: abs(own.heads_s[c] / own.heads_s[-1] - part)) for part in (0.35, 0.5, 0.65)}
        for cut in sorted(chosen):
            with si.Device(model, si.HttpTransport(url), policy=si.Fixed(cut), profile=own, cache=False) as device:
                one_by_one(device, value, 20)
                streamed(device, value, window, 20)
                figures = [_round(device, value, window, count, child) for _ in range(rounds)]
            head_s, link_s, edge_s, alone_s, period_s, believed_s, _, own_s, theirs_s = np.median(
                figures, axis=0
            ).tolist()
            shares = [(max(row[:3]) / row[4], row[6] / row[4]) for row in figures]
            alone, busy = np.median(shares, axis=0).tolist()
            lines.append(
                f"{kind:10} {cut:4} {1e3 * head_s:7.2f} {1e3 * link_s:7.2f} {1e3 * edge_s:7.2f} {1e3 * period_s:7.2f} "
                f"{1e3 * believed_s:9.2f} {alone:7.2f} {busy:10.2f} {1e3 * alone_s:11.2f} {alone_s / period_s:6.2f}x "
                f"{1e3 * own_s:9.2f} {1e3 * theirs_s:6.2f} {max(own_s, theirs_s) / period_s:6.2f}"
            )
    return lines


def _round(device: si.Device, value: Any, window: int, count: int, edge: Child) -> tuple[float, ...]:
    began = time.perf_counter()
    seen = [_seen(device.run(value)) for _ in range(count)]
    alone_s = (time.perf_counter() - began) / count
    head_s, link_s, edge_s = np.median([row[:3] for row in seen], axis=0).tolist()
    own_s, theirs_s = time.process_time(), edge.cpu_s()
    found = streamed(device, value, window, count)
    own_s = (time.process_time() - own_s) / count
    theirs_s = math.nan if theirs_s is None else ((edge.cpu_s() or 0.0) - theirs_s) / count
    busy_s = max(statistics.fmean(row[0] for row in found.seen), statistics.fmean(row[3] for row in found.seen))
    return head_s, link_s, edge_s, alone_s, found.period_s, found.believed_s, busy_s, own_s, theirs_s


def _seen(outcome: si.Outcome) -> tuple[float, float, float, float]:
    """Return the seconds of head, link, edge with and without what is not computing."""
    seen = outcome.observation
    assert seen is not None and seen.head_s is not None and seen.edge is not None and seen.network_s is not None
    busy_s = seen.edge.decode_s + seen.edge.compute_s + seen.edge.encode_s
    return seen.head_s, seen.network_s, seen.edge.residence_s, busy_s


# what needs no clock


def different() -> list[str]:
    """In how many cases is the cut with most results a second another one than that with the least latency."""
    grid = np.geomspace(0.5, 1000.0, 34)
    lines = [
        "the cut with most results a second is not the one with the least latency: 18 networks, 34 bandwidths from 0.5 "
        "to 1000 Mbit/s",
        f"{'server':8} {'cases':>6} {'another cut':>12} {'>= 5 % more':>12} {'>= 20 % more':>13} {'most':>6} "
        f"{'window 3: another':>18} {'>= 5 % more':>12}",
    ]
    for server in SERVERS:
        found_gains: dict[int, list[float]] = {1000: [], 3: []}
        for name in networks():
            found = figures()["networks"][name]
            n = len(found["device_s"])
            built = si.tasks([si.task(abs, name=f"block {i}") for i in range(n)], version=name)
            sent = [figures()["input_bytes"], *found["out_bytes"][:-1], 0.0]
            sizes = {"sent_bytes": sent, "returned_bytes": [float(RESULT_BYTES)] * n + [0.0]}
            tiers = [
                si.TierProfile.from_steps(built.digest, seconds, **sizes)
                for seconds in (found["device_s"], found[f"{server}_s"])
            ]
            for mbit_per_s in grid.tolist():
                link = si.Link.from_mbit_per_s(mbit_per_s, rtt_s=RTT_S[server])
                costs = si.costs(built, si.Topology(tiers=tiers, links=[link]))
                latency = costs.best("latency_s")
                for window, gains in found_gains.items():
                    paced = costs.paced_s(window)
                    gains.append(float(paced[latency] / paced.min()))
        all_of, three = (np.array(found_gains[window]) for window in (1000, 3))
        lines.append(
            f"{server:8} {len(three):6} {np.mean(all_of > 1 + 1e-9):12.0%} {np.mean(all_of >= 1.05):12.0%} "
            f"{np.mean(all_of >= 1.2):13.0%} {max(all_of):6.2f} "
            f"{np.mean(three > 1 + 1e-9):18.0%} {np.mean(three >= 1.05):12.0%}"
        )
    return lines


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, metavar="N", help="frames of each run with steps that sleep")
    parser.add_argument("--only", metavar="WORD", help="process, http, network or cuts")
    arguments = parser.parse_args()
    words = "share of the slowest one's rate, milliseconds between results measured/believed"
    parts: dict[str, Callable[[], list[str]]] = {
        "process": lambda: patterns(in_process, f"in one process: {words}", MOST, arguments.count),
        "http": lambda: patterns(over_http, f"an edge process, HTTP: {words}", REAL, arguments.count),
        "network": lambda: [
            "a network over HTTP, window 3: milliseconds of head, link and edge alone, and between results; "
            "share of the rate of the slowest one alone, and as it was in the stream",
            f"{'':10} {'cut':>4} {'head':>7} {'link':>7} {'edge':>7} {'period':>7} {'believed':>9} {'alone':>7} "
            f"{'in stream':>10} {'sequential':>11} {'':7} {'processor':>9} {'edge':>6} {'share':>6}",
            *network("fomo", window=3, count=150),
            *network("mobilenet", window=3, count=50),
        ],
        "cuts": different,
    }
    for name, measure in parts.items():
        if arguments.only in (None, name):
            print("\n".join(measure()), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
