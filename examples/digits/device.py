"""The device: ``python examples/digits/device.py [URL]``."""

from __future__ import annotations

import sys

from app import pipeline, sample

import splitiot as si


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8765"
    frame = sample()
    with si.Device(pipeline, si.HttpTransport(url), sample=frame) as device:
        print("edge:", "up" if device.edge_up else "not there, so everything runs here")
        for _ in range(10):
            outcome = device.run(frame, deadline_s=0.5)
            places = ", ".join(f"({x:.0f}, {y:.0f})" for x, y, _ in outcome.unwrap())
            cut = "-" if outcome.plan is None else outcome.plan.cut
            print(f"cut {cut:>2}  {outcome.latency_s * 1e3:6.1f} ms  {outcome.source:<8}  digits at {places}")
        print(device.planner.decide(0.0, edge_up=device.edge_up).explain())


if __name__ == "__main__":
    main()
