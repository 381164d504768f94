"""The demonstration's edge process."""

from __future__ import annotations

from collections.abc import Sequence

from splitiot._child import Parent
from splitiot.adapters.http import serve
from splitiot.cli._local_edge import GRACE_S
from splitiot.cli.demo._pipeline import build
from splitiot.edge import EdgeService

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Serve the model at a port, until killed or until the parent ends; tell the port once connections are accepted."""
    parent = Parent(grace_s=GRACE_S)
    port, *model = arguments
    pipeline, (width, height) = build(*model)
    with EdgeService([pipeline]) as service:
        service.measure(bytes(2 * width * height), budget_s=1.0)
        serve(service, port=int(port), ready=lambda port: parent.send(str(port).encode()))
