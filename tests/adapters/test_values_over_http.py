"""Functions that write, keep and use again, on an edge in a process of its own: not one wrong value."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from splitiot.device import Device
from splitiot.errors import LocalProtocolError
from splitiot.pipeline import Pipeline
from splitiot.policies import Fixed
from tests import values_edge
from tests.session.support import profile_of
from tests.share import FULL

pytestmark = pytest.mark.extra("http")

WAIT_S = 20.0
REQUESTS = 1000 if FULL else 100
SIZE = 4096


class Edge:
    """An edge in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, values_edge.__file__], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        word, port = self.process.stdout.readline().split()
        assert word == "port"
        self.url = f"http://127.0.0.1:{port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=WAIT_S)


@pytest.fixture
def edge() -> Iterator[Edge]:
    made = Edge()
    yield made
    made.kill()


def device(edge: Edge, pipeline: Pipeline, cut: int | None, **more: Any) -> Device:
    from splitiot.adapters.http import HttpTransport

    known = {"profile": profile_of(pipeline), "policy": Fixed(cut)} if cut is not None else {}
    return Device(pipeline, HttpTransport(edge.url), cache=False, **known, **more)


def content(k: int) -> Any:
    return np.arange(SIZE) + float(k)


def wanted(name: str, k: int) -> Any:
    if name == "buffered":
        return ((content(k) - 1) * 2)[::-1]
    result = (content(k) - 1) * 3
    result[0] = 5
    return result


@pytest.mark.parametrize("name", ["in place", "buffered"])
def test_one_buffer_through_steps_that_write(edge: Edge, name: str) -> None:
    pipeline = values_edge.MADE[name]()
    buffer = np.zeros(SIZE)
    each = REQUESTS // (len(pipeline.cuts) + 1)

    def again(k: int) -> Any:
        buffer[...] = content(k)
        return buffer

    sources = set()
    for cut in pipeline.cuts:
        with device(edge, pipeline, cut) as one:
            outcomes = list(one.map((again(k) for k in range(each)), window=3))
        for k, outcome in enumerate(outcomes):
            assert np.array_equal(outcome.unwrap(), wanted(name, k)), (cut, k)
            sources.add(outcome.source)
    # no sample, no profile: measured on the first value; and the edge dies in the middle
    with device(edge, pipeline, None) as one:
        for k in range(each + REQUESTS % each):
            if k == each // 2:
                edge.kill()
            given = again(k)
            outcome = one.run(given)
            assert np.array_equal(outcome.unwrap(), wanted(name, k)), k
            assert np.array_equal(given, content(k)), "what the caller gave stays as it was"
    assert {"edge", "local"} <= sources


@pytest.mark.parametrize("cut", range(3))
def test_a_buffer_of_a_task_when_the_edge_dies(edge: Edge, cut: int) -> None:
    pipeline = values_edge.buffered()
    buffer = np.zeros(SIZE)

    def source() -> Iterator[Any]:
        for k in range(REQUESTS // 3):
            if k == 50:
                edge.kill()
            buffer[...] = content(k)
            yield buffer

    with device(edge, pipeline, cut) as one:
        outcomes = list(one.map(source(), window=3))
        assert one.counters.fallbacks > 0
    for k, outcome in enumerate(outcomes):
        assert np.array_equal(outcome.unwrap(), wanted("buffered", k)), k


def test_matrices_are_refused_at_every_cut(edge: Edge) -> None:
    pipeline = values_edge.matrix_of()
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    for cut in pipeline.cuts:
        with device(edge, pipeline, cut) as one:
            for _ in range(REQUESTS // len(pipeline.cuts)):
                with pytest.raises(LocalProtocolError, match="the result of task 'as_matrix': a matrix can't cross"):
                    one.run(rows).unwrap()
