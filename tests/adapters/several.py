"""What several processes serve at one address: `uvicorn tests.adapters.several:app --workers 2`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from splitiot.adapters.http import asgi
from splitiot.edge import EdgeService
from splitiot.functions import TaskPipeline, task, tasks

__all__ = ["REMEMBERING", "STATELESS"]


@contextmanager
def total() -> Iterator[list[int]]:
    yield [0]


def add(total: list[int], x: int) -> int:
    total[0] += x
    return total[0]


def same(x: int) -> int:
    return x


def also(x: int) -> int:
    return x


def square(x: int) -> int:
    return x * x


STATELESS = tasks([same, square, also], version="stateless")
REMEMBERING: dict[str, tuple[TaskPipeline, int]] = {
    "own": (tasks([same, task(add, state="own", resource=total), also], version="own"), 1),
    "shared": (tasks([same, also, task(add, state="shared", resource=total)], version="shared"), 0),
    "pinned": (tasks([same, task(add, tier="edge", state="own", resource=total), also], version="pinned"), 1),
}
"""Pipelines that remember a sum, and where to cut them."""


def _served() -> Any:
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    served = asgi(EdgeService([STATELESS, *(pipeline for pipeline, _ in REMEMBERING.values())]))
    served.routes.append(Route("/pid", lambda request: PlainTextResponse(str(os.getpid()))))
    return served


def __getattr__(name: str) -> Any:
    """The application is made where it is asked for: tests need not have a server to import this."""
    if name != "app":
        raise AttributeError(name)
    made = globals()["app"] = _served()
    return made
