"""A world to make logs in: a link that changes, an edge that goes and comes, noise."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from splitiot.observation import Observation
from splitiot.planner import Planner
from splitiot.policies import Policy
from splitiot.sim import Trace, TraceWriter, load_trace
from tests.test_planner import make, run


def wander(planner: Planner, requests: int, *, seed: int = 0, start_s: float = 0.0) -> list[int]:
    """Let a planner choose and learn; returns its cuts. All is random, and the same for the same seed."""
    chance = np.random.default_rng(seed)
    cuts = []
    for i in range(requests):
        now_s = start_s + i * 0.5
        mbit_per_s = 20.0 if (i // 10) % 2 == 0 else 0.3
        if chance.random() < 0.3:
            size = int(chance.integers(10, 5000))
            seconds = 0.02 + size / (mbit_per_s * 125e3)
            probe = Observation(plan_id=0, cut=0, probe=True, round_trip_s=seconds, sent_bytes=size)
            planner.observe(probe, now_s=now_s)
        battery = {"battery": float(chance.random())}
        up = chance.random() > 0.1
        plan = planner.decide(now_s, edge_up=bool(up), deadline_s=float(chance.random()), telemetry=battery)
        cuts.append(plan.cut)
        seen = run(planner, plan.id, plan.cut, mbit_per_s=mbit_per_s, slow=1 + 0.2 * chance.random())
        planner.observe(seen, now_s=now_s + 0.2)
        if chance.random() < 0.2:
            planner.observe(seen, now_s=now_s + 0.3)
    return cuts


def logged(folder: Path, policy: Policy | None = None, requests: int = 60, **options: Any) -> Trace:
    """What such a planner's log says."""
    path = folder / "trace.jsonl"
    with TraceWriter(path) as recorder:
        wander(make(policy, mbit_per_s=20, recorder=recorder, **options), requests)
    return load_trace(path)


def texts(path: Path) -> list[bytes]:
    """The lines of all files, the oldest first."""
    files = [path, *itertools.takewhile(Path.exists, (Path(f"{path}.{k}") for k in itertools.count(1)))]
    return [line for file in reversed(files) for line in file.read_bytes().splitlines()]
