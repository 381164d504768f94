"""Functions of one name that are not the same: told apart as far as their sources tell, and never mixed up."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import linecache
import math
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from splitiot import wire
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import RemoteError
from splitiot.functions import task, tasks
from splitiot.functions._code import UNKNOWN, code_hash
from splitiot.pipeline import Pipeline
from splitiot.policies import Fixed
from splitiot.transports import InMemory
from tests.pipelines import SizedPipeline
from tests.session.support import add_one, double, edge_session, messages, profile_of, request_of


def module(path: Path, text: str) -> types.ModuleType:
    """A module made of a file, as another process would import it."""
    path.write_text(textwrap.dedent(text))
    linecache.checkcache(str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


KITCHEN = """
    LIMIT = 3

    def above(x):
        return x > LIMIT

    def step(x):
        return 2 * above(x)
"""


def test_the_same_code_wherever_it_stands(tmp_path: Path) -> None:
    one = module(tmp_path / "one.py", KITCHEN)
    other = module(
        tmp_path / "other.py",
        '''
        """Another file, with the same code for what is used."""
        import os
        from typing import Any

        HOST = os.uname().nodename

        def unused(x):
            return HOST


        def above( x: Any ) -> bool:  # a comment
            """And words."""
            return (x > LIMIT)

        def step(x):
            return 2 * above(x)

        LIMIT = 3
        ''',
    )
    assert code_hash(one.step) == code_hash(other.step) != UNKNOWN
    assert code_hash(one.step) == code_hash(task(one.step).function)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LIMIT = 3", "LIMIT = 4"), ("x > LIMIT", "x >= LIMIT"), ("2 * above", "3 * above"),
        ("def step(x)", "def step(x, y=1)"),
    ],
)  # fmt: skip
def test_other_code_of_the_same_names(tmp_path: Path, before: str, after: str) -> None:
    one = module(tmp_path / "one.py", KITCHEN)
    other = module(tmp_path / "other.py", KITCHEN.replace(before, after))
    assert code_hash(one.step) != code_hash(other.step)
    assert UNKNOWN not in (code_hash(one.step), code_hash(other.step))


def make(factor: Any) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        return x * factor

    return step


def counting() -> Callable[[Any], Any]:
    count = 0

    def step(x: Any) -> Any:
        nonlocal count
        count += 1
        return x

    return step


def scaled(x: Any, factor: Any = 2, *, more: Any = 0) -> Any:
    return x * factor + more


class Filter:
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, x: Any) -> Any:
        return x > self.limit

    def run(self, x: Any) -> Any:
        return x < self.limit


def test_what_functions_are_made_with() -> None:
    assert code_hash(make(2)) == code_hash(make(2))
    distinct = [
        make(2), make(3), make(2.0), make("2"), make((1, 2)), make(None), make(add_one), make(double),
        make(np.float32(2)), make(make(1)), make(make(2)),
        functools.partial(scaled, factor=3), functools.partial(scaled, factor=4), functools.partial(scaled, 1),
        scaled, Filter(1), Filter(1).run,
    ]  # fmt: skip
    hashes = [code_hash(function) for function in distinct]
    assert len(set(hashes)) == len(hashes)
    assert UNKNOWN not in hashes


def test_what_may_differ_between_processes_does_not_count() -> None:
    assert code_hash(make([1])) == code_hash(make([2])), "may be a state"
    assert code_hash(make(np.zeros(3))) == code_hash(make(np.ones(3)))
    assert code_hash(make("/home/pi/model")) == code_hash(make("/srv/model"))
    assert code_hash(Filter(1)) == code_hash(Filter(2)), "what objects hold: said in the docs"
    used = counting()
    before = code_hash(used)
    used(1)
    assert code_hash(used) == before


def test_what_nobody_can_tell() -> None:
    no_source = types.FunctionType(compile("0", "<nowhere>", "eval"), {}, "step")
    for function in (len, math.sqrt, np.sqrt, np.sort, ast.dump, no_source, functools.partial(max, 1)):
        assert code_hash(function) == UNKNOWN, function
    assert tasks([len]).implementation == b""
    assert tasks([len], version="2").differing(b"x" * 8) == ()


def test_endless_references() -> None:
    def one(x: Any) -> Any:
        return other(x) if x else x

    def other(x: Any) -> Any:
        return one(x)

    assert code_hash(one) != UNKNOWN


def test_pipelines() -> None:
    pipeline = tasks([add_one, len, double])
    assert len(pipeline.implementation) == 24
    assert pipeline.implementation[8:16] == UNKNOWN
    assert pipeline.with_sink("edge").implementation == pipeline.implementation
    chain = SizedPipeline([4, 6]) + pipeline
    assert chain.implementation == bytes(8) + pipeline.implementation
    assert SizedPipeline([4, 6]).implementation == b""
    assert (SizedPipeline([4, 6]) + SizedPipeline([6, 2])).implementation == b""
    assert tasks([add_one], check_code=False).implementation == b""
    assert tasks([add_one], check_code=False).digest == tasks([add_one]).digest


# two of one name


def twins(version: str = "1", **more: Any) -> tuple[Pipeline, Pipeline]:
    """Pipelines that only their code tells apart."""
    return tasks([make(2), add_one], version=version, **more), tasks([make(3), add_one], version=version, **more)


def test_one_service_does_not_take_twins() -> None:
    kitchen, hall = twins()
    assert kitchen.digest == hall.digest
    with pytest.raises(ValueError, match=r"can't be told apart.*steps step, add_one\).*version="):
        EdgeService([kitchen, hall])
    with pytest.raises(ValueError, match="can't be told apart"):
        edge_session(kitchen, kitchen.with_sink("edge"))
    both = EdgeService([kitchen, tasks([make(3), add_one], version="hall")])
    assert len(both.pipelines) == 2
    assert len(EdgeService([kitchen, kitchen]).pipelines) == 1


@contextlib.contextmanager
def apart(device_side: Pipeline, edge_side: Pipeline, cut: int, *, greet: bool = True, **more: Any) -> Iterator[Device]:
    with EdgeService([edge_side]) as service:

        def answer(frame: bytes) -> bytes:
            reply = service.handle(frame, peer="me")
            message, buffers = wire.decode(reply)
            if greet or not isinstance(message, wire.Welcome):
                return reply
            # an edge that was changed behind its welcome
            hello = message.pipelines[0]
            same = msgspec.structs.replace(hello, implementation=device_side.implementation)
            return wire.encode(msgspec.structs.replace(message, pipelines=(same,)), buffers)

        known = {"policy": Fixed(cut), "profile": profile_of(device_side), "cache": False} | more
        with Device(device_side, InMemory(answer), **known) as device:
            yield device


@pytest.mark.parametrize("cut", range(3))
def test_a_device_does_not_use_an_edge_with_other_code(cut: int) -> None:
    kitchen, hall = twins()
    with apart(kitchen, hall, cut) as device:
        assert not device.edge_up
        for x in range(5):
            outcome = device.run(x)
            assert (outcome.unwrap(), outcome.source in ("local", "fallback")) == (2 * x + 1, True)
        assert "other code under the same names (step)" in str(device.trouble)
    with apart(*twins(check_code=False), cut) as device:
        assert device.edge_up


@pytest.mark.parametrize("cut", range(2))
def test_an_edge_does_not_run_a_request_for_other_code(cut: int) -> None:
    kitchen, hall = twins()
    with apart(kitchen, hall, cut, greet=False) as device:
        assert device.edge_up
        outcome = device.run(5)
        assert (outcome.unwrap(), outcome.source) == (11, "fallback")
    with apart(kitchen, hall, cut, greet=False, parts=[(0, cut)]) as device:
        error = device.run(5).error
    assert isinstance(error, RemoteError)
    assert error.code == wire.ErrorCode.OTHER_CODE
    assert "here is other code under the same names: step" in str(error)


def test_requests_of_other_versions_and_hostile_ones_are_taken_or_refused() -> None:
    pipeline = tasks([add_one, double])
    for implementation, wanted in (
        (b"", 1), (pipeline.implementation, 1), (bytes(16), 1), (b"x", 1), (b"x" * 17, 1), (b"x" * 1000, 1),
        (pipeline.implementation[:8] + bytes(8), 1), (b"x" * 16, 0), (pipeline.implementation[:8] + b"x" * 8, 0),
    ):  # fmt: skip
        frame = request_of(pipeline, 0, 1, implementation=implementation)
        effects = edge_session(pipeline).receive(frame, "me", 0.0)
        assert len(messages(effects)) == 1 - wanted, implementation


TWIN = """
import os, sys
import splitiot as si
from splitiot.adapters.http import serve

def make(factor):
    def step(x):
        return x * factor
    return step

def add_one(x):
    return x + 1

def pipeline(room):
    return si.tasks([make({"kitchen": 2, "hall": 3}[room]), add_one])

if __name__ == "__main__":
    service = si.EdgeService([pipeline(sys.argv[1])])
    serve(service, port=0, ready=lambda port: os.write(1, b"%d\\n" % port))
"""


@pytest.mark.extra("http")
def test_twins_in_processes_of_their_own(tmp_path: Path) -> None:
    from splitiot.adapters.http import HttpTransport
    from tests.share import FULL

    here = module(tmp_path / "rooms.py", TWIN)
    requests = 1000 if FULL else 100
    for room in ("kitchen", "hall"):
        command = [sys.executable, str(tmp_path / "rooms.py"), room]
        edge = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert edge.stdout is not None
        try:
            url = f"http://127.0.0.1:{edge.stdout.readline().strip()}"
            for mine, factor in (("kitchen", 2), ("hall", 3)):
                pipeline = here.pipeline(mine)
                known = {"policy": Fixed(0), "profile": profile_of(pipeline), "cache": False, "connect_s": 20.0}
                with Device(pipeline, HttpTransport(url), **known) as device:
                    assert device.edge_up == (mine == room), device.trouble
                    outcomes = [device.run(x) for x in range(requests // 4)]
                assert [outcome.unwrap() for outcome in outcomes] == [x * factor + 1 for x in range(requests // 4)]
                assert {outcome.source for outcome in outcomes} <= ({"edge"} if mine == room else {"local", "fallback"})
        finally:
            edge.kill()
            edge.communicate(timeout=20)
