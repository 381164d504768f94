"""The edge: ``python examples/digits/edge.py [PORT]``, until Ctrl-C."""

from __future__ import annotations

import sys

from app import pipeline, sample

import splitiot as si
from splitiot.adapters.http import serve


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    with si.EdgeService([pipeline]) as service:
        service.measure(sample())  # so that devices know from the first request what the edge costs
        serve(service, port=port, ready=lambda taken: print(f"http://127.0.0.1:{taken}", flush=True))


if __name__ == "__main__":
    main()
