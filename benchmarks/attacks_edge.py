"""An edge process to be attacked: ``attacks_edge.py PORT LOG`` serves two steps over HTTP, to devices with tokens."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np

import splitiot as si
from splitiot.adapters.http import serve
from splitiot.functions import TaskPipeline

TOKENS = {"secret-0": "honest", "secret-1": "hostile 1", "secret-2": "hostile 2"}
FILES = 1024
"""How many files a process may open, usually."""


def head(x: Any) -> Any:
    return x


def tail(x: Any) -> Any:
    """Of an array one value; for a number so many bytes."""
    return np.zeros(x, np.uint8) if isinstance(x, int) else x[:1]


def pipeline() -> TaskPipeline:
    """Two steps that take no time: what is measured is what surrounds them."""
    return si.tasks([head, tail])


def main(port: str, log: str) -> None:
    logging.basicConfig(filename=log)
    try:
        import resource
    except ImportError:  # not a Unix: its limit is another one, and high
        pass
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with si.EdgeService([pipeline()]) as service:
        serve(service, port=int(port), tokens=TOKENS, ready=lambda port: print(port, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
