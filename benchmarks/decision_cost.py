"""What one decision and what it learns from cost, part by part: ``python benchmarks/decision_cost.py``.

59 steps, an exchange observed for each decision, everything in one process. Each figure is the median of blocks of
calls; the blocks of all rows take turns, so that all see the same machine. SCIoT's own bookkeeping (moving averages of
58 layers on each side, its loop over all of them, no logging), written anew, stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from agents import SciotRule
from regimes import Scenario, World

from splitiot import EdgeTimes, LeastLatency, Link, Observation, Planner, TierProfile, Topology, task, tasks
from splitiot.estimators import JointEstimator, LogCusum, VarianceDetector
from splitiot.policies import LocalMode, Policy, StaleProbe, adaptive
from splitiot.sim import TraceWriter

STEPS = 59
CALLS, BLOCKS = 200, 40
TARGET_US = 60.0


class Side:
    """A planner, and what it is told: runs that are near what it believes, with some noise."""

    def __init__(self, policy: Policy, *, singly: bool = False, recorder: TraceWriter | None = None) -> None:
        random = np.random.default_rng(0)
        pipeline = tasks([task(abs, name=f"step {i}") for i in range(STEPS)])
        device_s = random.lognormal(-3, 1, STEPS)
        sizes = np.append(random.lognormal(9, 1, STEPS), 0.0)
        device = TierProfile.from_steps(pipeline.digest, device_s.tolist(), sent_bytes=sizes, returned_bytes=sizes * 0)
        topology = Topology([device, device.scaled(0.01)], [Link.from_mbit_per_s(1, rtt_s=0.02)])
        self.planner = Planner(pipeline, topology, policy, recorder=recorder)
        self.noise = np.exp(0.05 * random.standard_normal((997, 3))).tolist()
        self.heads, self.tails = device.heads_s.tolist(), (device.tails_s * 0.01).tolist()
        self.steps, self.singly, self.sizes = device_s.tolist(), singly, sizes.tolist()
        self.now_s, self.count = 0.0, 0

    def decide(self) -> None:
        self.planner.decide(self.now_s)

    def seen(self, plan_id: int, cut: int) -> Observation:
        """What a run measured; making it belongs to the session."""
        a, b, c = self.noise[self.count % 997]
        self.count += 1
        head_s, tail_s, sent = self.heads[cut] * a, self.tails[cut] * b, self.sizes[cut]
        head = tuple([s * a for s in self.steps[:cut]]) if self.singly else ()
        tail = tuple([s * b * 0.01 for s in self.steps[cut:]]) if self.singly else ()
        if cut == STEPS:
            return Observation(plan_id=plan_id, cut=cut, head_s=head_s, head_steps_s=head)
        return Observation(
            plan_id=plan_id,
            cut=cut,
            head_s=head_s if cut else None,
            head_steps_s=head,
            edge=EdgeTimes(compute_s=tail_s, residence_s=tail_s, steps_s=tail),
            round_trip_s=tail_s + (0.02 + sent / 125e3) * c,
            sent_bytes=int(sent) + 100,
            received_bytes=100,
        )

    def both(self) -> float:
        """Decide and observe; return the seconds of these two alone."""
        began_s = time.perf_counter()
        plan = self.planner.decide(self.now_s)
        middle_s = time.perf_counter()
        seen = self.seen(plan.id, plan.cut)
        again_s = time.perf_counter()
        self.now_s += 0.5
        self.planner.observe(seen, now_s=self.now_s)
        return middle_s - began_s + time.perf_counter() - again_s


def rows(folder: Path) -> dict[str, Callable[[], float]]:
    """Return what is measured: each gives the seconds of one call."""

    def timed(call: Callable[[], object]) -> Callable[[], float]:
        def once() -> float:
            began_s = time.perf_counter()
            call()
            return time.perf_counter() - began_s

        return once

    side = Side(adaptive())
    for _ in range(50):
        side.both()
    estimators: JointEstimator = side.planner._estimators
    seen = side.seen(1, 20)
    detector, variance = LogCusum(), VarianceDetector()
    world = World("resnet152", "edge", 0, Scenario(requests=400))
    sciot = SciotRule(world, local=0.0)
    taken = world.seconds(0, 30)

    def bookkeeping() -> None:
        sciot.choose(0.0)
        sciot.learn(0, 30, taken, 0.0)

    def recorded() -> float:
        return logged.both()

    logged = Side(adaptive(), recorder=TraceWriter(folder / "trace.jsonl"))
    return {
        "decide + observe, the default policy": side.both,
        "the same, every step timed singly": Side(adaptive(), singly=True).both,
        "the same, written to a trace": recorded,
        "decide + observe, StaleProbe": Side(StaleProbe(LeastLatency())).both,
        "decide + observe, LocalMode": Side(LocalMode(LeastLatency(), 0.1)).both,
        "decide + observe, LeastLatency": Side(LeastLatency()).both,
        "  decide, the default policy": timed(side.decide),
        "  decide, LeastLatency": timed(Side(LeastLatency()).decide),
        "    reading all beliefs": timed(lambda: estimators.beliefs(side.now_s)),
        "  device estimator": timed(lambda: estimators.device.update(seen, side.now_s)),
        "  edge estimator": timed(lambda: estimators.edge.update(seen, side.now_s)),
        "  wait estimator": timed(lambda: estimators.wait.update(seen, side.now_s)),
        "  link estimator": timed(lambda: estimators.link.update(seen, side.now_s)),
        "    one drift detector, LogCusum": timed(lambda: detector.update(1.01)),
        "    one drift detector, VarianceDetector": timed(lambda: variance.update(1.01)),
        "SCIoT's bookkeeping and loop (58 layers)": timed(bookkeeping),
    }


def main() -> int:
    """Measure, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = rows(Path(folder))
        blocks: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(BLOCKS):
            for name, once in measured.items():
                blocks[name].append(statistics.median([once() for _ in range(CALLS)]) * 1e6)
    found = {name: statistics.median(values) for name, values in blocks.items()}
    print(f"microseconds, {STEPS} steps: median of {BLOCKS} blocks of {CALLS} calls (quartiles of the blocks)\n")
    for name, value in found.items():
        low, _, high = statistics.quantiles(blocks[name], n=4)
        print(f"{name:42} {value:8.1f}   ({low:.1f} - {high:.1f})")
    all_on = found["decide + observe, the default policy"]
    words = "met" if all_on < TARGET_US else "MISSED"
    print(f"\n{words}: decide + observe with everything on: {all_on:.0f} us (< {TARGET_US:.0f})")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
