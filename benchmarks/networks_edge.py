"""An edge process that serves one network over HTTP, one request at a time: ``fomo`` or ``mobilenet``."""

from __future__ import annotations

import sys

from mobilenet import mobilenet_v2

import splitiot as si
from splitiot.adapters.http import serve
from splitiot.samples import fomo


def model_of(kind: str) -> si.Model:
    """Load a network of floats."""
    return si.load_model(fomo("float32") if kind == "fomo" else mobilenet_v2())


def main() -> None:
    model = model_of(sys.argv[1])
    with si.EdgeService([model], workers=1) as service:
        serve(service, port=0, ready=lambda port: print(port, flush=True))


if __name__ == "__main__":
    main()
