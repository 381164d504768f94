"""Pipelines whose functions write, keep and use again; run as a script, an edge that serves them over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from splitiot.functions import TaskPipeline, tasks
from splitiot.pipeline import DROP

__all__ = ["DROP", "MADE", "buffered", "in_place", "matrix_of"]

_BUFFER = np.zeros(4096)


def less(x: Any) -> Any:
    x -= 1
    return x


def more(x: Any) -> Any:
    x *= 3
    x.reshape(-1)[0] = 5
    return x


def filled(x: Any) -> Any:
    np.multiply(x, 2, out=_BUFFER)
    return _BUFFER


def reversed_(x: Any) -> Any:
    return x[::-1]


def as_matrix(x: Any) -> Any:
    return x.view(np.matrix)


def squared(x: Any) -> Any:
    return x * x


def in_place() -> TaskPipeline:
    return tasks([less, more])


def buffered() -> TaskPipeline:
    return tasks([less, filled, reversed_])


def matrix_of() -> TaskPipeline:
    return tasks([as_matrix, squared])


MADE: dict[str, Callable[[], TaskPipeline]] = {"in place": in_place, "buffered": buffered, "matrix": matrix_of}

if __name__ == "__main__":
    from splitiot.adapters.http import serve
    from splitiot.edge import EdgeService

    service = EdgeService([make() for make in MADE.values()])
    serve(service, port=0, ready=lambda port: os.write(1, f"port {port}\n".encode()))  # type: ignore[arg-type, return-value]
    sys.exit()
