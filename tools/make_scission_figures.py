#!/usr/bin/env python3
"""Take from Scission's published measurements what `benchmarks/control.py` needs.

    python tools/make_scission_figures.py scission_18models_5machines.json > benchmarks/data/scission.json

Source: Lockhart, Harvey, Imai, Willis and Varghese, "Scission: Performance-driven and Context-aware Cloud-Edge
Distribution of Deep Neural Networks", IEEE/ACM UCC 2020. Seconds and bytes are facts; they are rounded to five digits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MACHINES = {"device": "device-raspi4", "edge": "edge-2500", "cloud": "cloud-6700k(GPU)"}
INPUT_BYTES = 150_000


def figures(published: dict[str, dict[str, list[list[float]]]]) -> dict[str, Any]:
    """Return seconds of each block on three machines, and the bytes that leave it."""
    networks: dict[str, Any] = {}
    for name, blocks in published[MACHINES["device"]].items():
        rows = {machine: published[key][name] for machine, key in MACHINES.items()}
        networks[name] = {f"{machine}_s": [float(f"{row[2]:.5g}") for row in rows[machine]] for machine in MACHINES}
        networks[name]["out_bytes"] = [int(row[3]) for row in blocks]
    return {
        "source": "Scission, IEEE/ACM UCC 2020: Raspberry Pi 4, Intel i5-2500, Intel i7-6700K with a GPU",
        "input_bytes": INPUT_BYTES,
        "networks": networks,
    }


def main() -> int:
    """Write the figures to standard output, a network a line."""
    found = figures(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    lines = [f"  {json.dumps(name)}: {json.dumps(net)}" for name, net in found.pop("networks").items()]
    head = json.dumps(found)[:-1]
    print(head + ', "networks": {\n' + ",\n".join(lines) + "\n}}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
