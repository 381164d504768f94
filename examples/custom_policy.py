"""A policy of one's own, and a made-up day for it: the link gets slower, the battery runs empty.

$ python examples/custom_policy.py
$ splitiot run app.py:pipeline --edge http://127.0.0.1:8765 --policy examples/custom_policy.py:KeepBattery
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

import splitiot as si
from splitiot.cost import Power


def computing(costs: si.Costs) -> NDArray[np.float64]:
    """As an objective: seconds of computing on the device."""
    return costs.device_s


@frozen
class KeepBattery(si.Policy):
    """The least latency; with a low battery the least computing on the device."""

    floor: float = 0.2

    def rank(self, context: si.Context) -> si.Ranking:
        if context.telemetry.get("battery", 1.0) < self.floor:
            return context.ranked(computing, why="battery low")
        return context.ranked()


def clean(picture: bytes) -> bytes:
    return picture


def describe(picture: bytes) -> bytes:
    return picture[:2000]


def classify(features: bytes) -> str:
    return "cat"


def main() -> None:
    pipeline = si.tasks([clean, describe, classify])
    sizes = {"sent_bytes": [60_000, 30_000, 2_000, 0], "returned_bytes": [100, 100, 100, 0]}
    device = si.TierProfile.from_steps(pipeline.digest, [0.02, 0.08, 0.10], **sizes)
    edge = device.scaled(0.05)
    believed = si.Topology([device, edge], [si.Link.from_mbit_per_s(20, rtt_s=0.01)])
    planner = si.Planner(pipeline, believed, KeepBattery())

    battery, joules = 1.0, 1.0
    print("request  Mbit/s  battery  cut  why")
    for number in range(1, 15):
        mbit_per_s = 20.0 if number <= 4 else 4.0
        now_s = float(number)
        plan = planner.decide(now_s, telemetry={"battery": battery})
        print(f"{number:7}  {mbit_per_s:6.1f}  {battery:7.0%}  {plan.cut:3}  {plan.why}")

        # what this request would really take
        link = si.Link.from_mbit_per_s(mbit_per_s, rtt_s=0.01)
        real = si.costs(pipeline, si.Topology([device, edge], [link]), power=Power(busy_w=2.0, send_w=0.8, idle_w=0.1))
        row = plan.row
        battery = max(0.0, battery - float(real.energy_j[row]) / joules)
        head_s, tail_s = float(real.device_s[row]), float(real.edge_s[row])
        seen = si.Observation(plan_id=plan.id, cut=plan.cut, head_s=head_s)
        if plan.cut < pipeline.n:
            seen = si.Observation(
                plan_id=plan.id,
                cut=plan.cut,
                head_s=head_s,
                edge=si.EdgeTimes(compute_s=tail_s, residence_s=tail_s),
                round_trip_s=float(real.latency_s[row]) - head_s,
                sent_bytes=int(real.sent_bytes[row]),
                received_bytes=int(real.returned_bytes[row]),
            )
        planner.observe(seen, now_s=now_s + float(real.latency_s[row]))


if __name__ == "__main__":
    main()
