"""At which bandwidth does splitting pay? The shipped network, a slow device, a fast edge, links from 50 kbit/s up."""

from __future__ import annotations

import numpy as np

import splitiot as si


def main() -> None:
    model = si.load_model(si.samples.fomo("int8"))
    server = si.profile(model, np.zeros((1, 96, 96, 3), np.int8))
    device = server.scaled(200)
    print(f"{'Mbit/s':>8}  {'best cut':>8}  {'bytes':>7}  {'ms':>7}  all local  all edge")
    for mbit in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100):
        link = si.Link.from_mbit_per_s(mbit, rtt_s=0.01)
        table = si.costs(model, si.Topology(tiers=[device, server], links=[link]))
        best = table.best("latency_s")
        ms = table.latency_s * 1e3
        print(
            f"{mbit:>8}  {table.cuts[best]:>8}  {table.sent_bytes[best]:>7.0f}  {ms[best]:>7.1f}"
            f"  {ms[-1]:>9.1f}  {ms[0]:>8.1f}"
        )


if __name__ == "__main__":
    main()
