"""Forks: in a child everything works anew or says what to do, and the parent notices nothing.

Over real sockets: tests/adapters/test_forks.py.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

import splitiot as si
from splitiot import _fork, wire
from splitiot._cached import cached_property
from splitiot.errors import LocalProtocolError, StateLost, TaskKilled
from splitiot.isolation import IsolatedFunction
from splitiot.sim import ShapedLink, TraceWriter, load_trace
from splitiot.topology import TierProfile
from tests import isolated
from tests.forks import FORKS, WAIT_S, ChildRaised, fork, forked, script
from tests.waiting import eventually

pytestmark = FORKS


def double(x: int) -> int:
    return 2 * x


def increment(x: int) -> int:
    return x + 1


PIPELINE = si.tasks([double, increment])


class Heard(si.InMemory):
    """An edge in the same process; remembers which boots asked."""

    def __init__(self, service: si.EdgeService) -> None:
        super().__init__(self.answer)
        self.service = service
        self.boots: list[Any] = []

    def answer(self, frame: bytes) -> bytes:
        self.boots.append(wire.decode(frame)[0].boot)
        return self.service.handle(frame, peer="me")


def profile_of(pipeline: si.Pipeline) -> TierProfile:
    n = pipeline.n
    return TierProfile.from_steps(pipeline.digest, [1e-3] * n, sent_bytes=[8] * (n + 1), returned_bytes=[8] * (n + 1))


def device_of(pipeline: si.Pipeline = PIPELINE, cut: int = 1, **options: Any) -> si.Device:
    transport = options.pop("transport", None) or Heard(si.EdgeService([pipeline]))
    if "planner" not in options:
        options = {"policy": si.Fixed(cut), "profile": profile_of(pipeline), **options}
    return si.Device(pipeline, transport, **options)


def value(device: si.Device, x: Any) -> Any:
    outcome = device.run(x)
    assert outcome.source == "edge", outcome
    return outcome.value


@contextlib.contextmanager
def in_thread(function: Callable[..., object], *arguments: Any) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    yield thread
    thread.join(WAIT_S)
    assert not thread.is_alive()


# the mechanism


class Thing:
    """Counts its renewals."""

    def __init__(self, renewed: list[str], name: str) -> None:
        self.renewed, self.name = renewed, name
        _fork.in_child(self.renew)

    def renew(self) -> None:
        self.renewed.append(self.name)


def test_what_there_is_is_renewed_in_each_child_once() -> None:
    renewed: list[str] = []
    kept, dropped = Thing(renewed, "kept"), Thing(renewed, "dropped")
    del dropped
    gc.collect()

    def child() -> list[list[str]]:
        _fork.check()
        mine = list(renewed)
        return [mine, forked(lambda: list(renewed))]

    assert forked(child) == [["kept"], ["kept", "kept"]]
    _fork.check()
    assert renewed == []
    assert kept.name == "kept"


NATIVE = """
import ctypes
from splitiot import _fork
from tests.forks import Child
from tests.test_fork import Thing

renewed = []
kept = Thing(renewed, "kept")

def child():
    before = list(renewed)
    _fork.check()
    _fork.check()
    return [*before, "checked", *renewed]

print(Child(child, by=ctypes.PyDLL(None).fork).result(), renewed)
"""


def test_a_fork_that_python_was_not_told_of_is_noticed() -> None:
    assert script(NATIVE) == "['checked', 'kept'] []\n"


def test_nothing_stays_of_what_was_dropped() -> None:
    before = len(_fork._renewals)
    for _ in range(50):
        device_of().close()
    gc.collect()
    assert len(_fork._renewals) <= before


class Slow:
    @cached_property
    def number(self) -> int:
        self.begun.set()
        self.go.wait(WAIT_S)
        return 7

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()


def test_a_cached_property_that_is_computed_meanwhile() -> None:
    assert Slow.number.__doc__ is None
    slow = Slow()
    with in_thread(lambda: slow.number):
        assert slow.begun.wait(WAIT_S)
        other = Slow()
        other.go.set()
        assert forked(lambda: other.number) == 7
        slow.go.set()
    assert slow.number == 7


@pytest.mark.parametrize("chained", [False, True])
def test_a_pipeline_whose_code_is_read_meanwhile(chained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device's first frame tells of it, and a server may fork while one of its threads sends that."""
    begun, go = threading.Event(), threading.Event()

    def slow_hash(function: Any) -> bytes:
        begun.set()
        go.wait(WAIT_S)
        return bytes(8)

    def made() -> si.Pipeline:
        return si.tasks([double]) + si.tasks([increment]) if chained else si.tasks([double, increment])

    pipeline, other = made(), made()
    with monkeypatch.context() as patch:
        patch.setattr("splitiot.functions.code_hash", slow_hash)
        with in_thread(lambda: pipeline.implementation):
            assert begun.wait(WAIT_S)

            def child() -> int:
                patch.undo()
                return len(other.implementation)

            assert forked(child) == 16
            go.set()


# devices


def test_a_child_is_a_device_of_its_own() -> None:
    transport = Heard(si.EdgeService([PIPELINE]))
    device = device_of(transport=transport)
    assert [value(device, x) for x in range(3)] == [1, 3, 5]

    def child() -> Any:
        seen = [device.edge_up, device.counters.requests]
        transport.boots.clear()
        values = [value(device, x) for x in range(10, 13)]
        return [seen, values, device.counters.requests, [str(boot) for boot in set(transport.boots)]]

    first, second = forked(child), forked(child)
    assert first[:3] == second[:3] == [[False, 0], [21, 23, 25], 3]
    (theirs,), (others), (ours,) = first[3], second[3], {str(boot) for boot in transport.boots}
    assert len({theirs, *others, ours}) == 3
    assert device.counters.requests == 3
    assert value(device, 7) == 15


def test_a_request_that_is_under_way_holds_no_child_up() -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(x: int) -> int:
        if x == 0:
            begun.set()
            go.wait(WAIT_S)
        return x

    device = device_of(si.tasks([wait, double, increment]))
    outcomes: list[si.Outcome] = []
    with in_thread(lambda: outcomes.append(device.run(0))):
        assert begun.wait(WAIT_S)
        assert forked(lambda: value(device, 5)) == 11
        go.set()
    assert [(o.value, o.source) for o in outcomes] == [(1, "edge")]


@pytest.mark.parametrize("where", ["device", "edge", "fallback"])
def test_a_task_that_forks_ends_in_the_parent_only(where: str) -> None:
    """And returns in both processes: what the child goes on with is the parent's request."""
    found: list[int] = []

    def forks(x: int) -> int:
        if not found:
            read, write = os.pipe()
            pid = fork()
            found.extend((pid, read, write))
        return x

    pipeline = si.tasks([forks, double] if where == "device" else [double, forks])
    service = si.EdgeService([pipeline])

    def answer(frame: bytes) -> bytes | None:
        is_request = isinstance(wire.decode(frame)[0], wire.Request)
        return None if where == "fallback" and is_request else service.handle(frame, peer="me")

    device = device_of(pipeline, transport=si.InMemory(answer), patience_s=0.01)
    words = ""
    try:
        outcome = device.run(3)
        assert (outcome.unwrap(), outcome.source) == (6, "hedge" if where == "fallback" else "edge")
    except BaseException as error:
        words = f"{type(error).__name__}: {error}"
    pid, read, write = found
    if pid == 0:
        os.write(write, words.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    assert words == ""
    assert said.startswith("LocalProtocolError: this process was forked while it ran a request")


def test_a_stream_goes_on_in_the_parent_only() -> None:
    device = device_of()
    stream = device.map(range(40))
    assert [next(stream).value for _ in range(5)] == [1, 3, 5, 7, 9]

    def child() -> Any:
        with pytest.raises(LocalProtocolError, match=r"begun before the process was forked.*call map here"):
            next(stream)
        found = []
        own = device.map(range(100, 110))
        found.append(next(own).value)
        stream.close()  # ends nothing of the new one
        with pytest.raises(LocalProtocolError, match="at work on a stream"):
            device.run(1)
        return found + [outcome.value for outcome in own]

    assert forked(child) == [2 * x + 1 for x in range(100, 110)]
    assert [outcome.value for outcome in stream] == [2 * x + 1 for x in range(5, 40)]


def test_a_stream_that_was_asked_for_before() -> None:
    device = device_of()
    stream = device.map(range(4))
    with pytest.raises(ChildRaised, match="LocalProtocolError: this stream was begun before the process was forked"):
        forked(lambda: next(stream).value)
    assert [outcome.value for outcome in stream] == [1, 3, 5, 7]


@pytest.mark.parametrize("closes", ["closed", "dropped", "left"])
def test_how_a_child_ends_a_stream_is_nothing_to_the_parent(closes: str) -> None:
    device = device_of()
    held = [device.map(range(40))]
    assert next(held[0]).value == 1

    def child() -> int:
        if closes == "closed":
            device.close()
        elif closes == "dropped":
            held.clear()
            gc.collect()
        return 0

    forked(child)
    assert [outcome.value for outcome in held[0]] == [2 * x + 1 for x in range(1, 40)]


class Own(si.Transport):
    """A user's, which knows nothing of forks."""

    lossy = False

    def __init__(self, service: si.EdgeService) -> None:
        self.service, self.frames, self.closed = service, [], False

    def send(self, frame: bytes, *, timeout_s: float) -> None:
        self.frames.append(self.service.handle(frame, peer="me"))

    def receive(self, *, timeout_s: float) -> bytes | None:
        return self.frames.pop(0) if self.frames else None

    def close(self) -> None:
        self.closed = True


class Knowing(Own):
    def after_fork(self) -> None:
        self.frames = []


class Exchanging(si.RoundTrip):
    """A user's, with a connection of its own."""

    def __init__(self, service: si.EdgeService) -> None:
        super().__init__()
        self.service = service

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        return self.service.handle(request, peer="me")


class Reconnecting(Exchanging):
    def after_fork(self) -> None:
        pass


@pytest.mark.parametrize("kind", [Own, Exchanging])
def test_a_transport_that_knows_nothing_of_forks_is_refused(kind: type[Any]) -> None:
    transport = kind(si.EdgeService([PIPELINE]))
    device = device_of(transport=transport)
    assert value(device, 1) == 3

    def child() -> bool:
        name = kind.__name__
        words = f"this {name} was made before the process was forked.*in each process.*{name}.after_fork"
        for _ in range(2):
            with pytest.raises(LocalProtocolError, match=words):
                device.run(1)
        with pytest.raises(LocalProtocolError, match=words):
            next(device.map([1]))
        with pytest.raises(LocalProtocolError, match=words):
            device.connect()
        device.close()  # without the parent's goodbye
        return getattr(transport, "closed", False)

    assert forked(child) is False
    assert value(device, 2) == 5
    device.close()


@pytest.mark.parametrize("kind", [Knowing, Reconnecting])
def test_a_transport_that_says_how_to_go_on(kind: type[Any]) -> None:
    device = device_of(transport=kind(si.EdgeService([PIPELINE])))
    assert value(device, 1) == 3
    assert forked(lambda: [value(device, x) for x in range(5)]) == [1, 3, 5, 7, 9]
    assert value(device, 2) == 5
    device.close()


class Total:
    def __init__(self) -> None:
        self.total = 0

    def __enter__(self) -> Total:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def add(total: Total, x: int) -> int:
    total.total += x
    return total.total


@pytest.mark.parametrize("tier", [None, "device", "edge"])
@pytest.mark.parametrize("cut", [0, 1])
def test_what_a_pipeline_remembers_stays_in_the_parent(tier: str | None, cut: int) -> None:
    summing = si.task(add, resource=Total, state="own", tier=tier)
    pipeline = si.tasks([summing, double] if tier != "edge" else [double, summing])
    times = 2
    cut = 1 if tier is not None else cut
    device = device_of(pipeline, cut)
    unused = device_of(pipeline, cut)
    assert [value(device, x) for x in (1, 2, 3)] == [times * x for x in (1, 3, 6)]

    def child() -> Any:
        first = [value(unused, x) for x in (1, 2)]
        for _ in range(2):
            with pytest.raises(StateLost, match=r"process that this one was forked from: start again with reset\(\)"):
                device.run(4)
            with pytest.raises(StateLost):
                next(device.map([4]))
        nested = forked(lambda: _lost(device))
        device.reset()
        return [first, nested, [value(device, x) for x in (10, 20)]]

    assert forked(child) == [[times, 3 * times], True, [10 * times, 30 * times]]
    assert value(device, 4) == 10 * times


def _lost(device: si.Device) -> bool:
    with pytest.raises(StateLost):
        device.run(1)
    return True


@frozen
class Drawn(si.Policy):
    """Any row, by chance."""

    def decide(self, context: si.Context) -> si.Decision:
        return si.Decision(int(context.random.choice(context.mask.nonzero()[0])), "drawn")


def test_children_do_not_draw_what_the_parent_draws() -> None:
    """Else all workers of a server try the same cut at the same time, for ever."""

    def draws(device: si.Device) -> list[int]:
        plans = [device.run(x).plan for x in range(64)]
        return [plan.cut for plan in plans if plan is not None]

    for planner in (False, True):
        options: dict[str, Any] = {"policy": Drawn()}
        if planner:
            profile = profile_of(PIPELINE)
            topology = si.Topology(tiers=[profile, profile], links=[si.Link.from_mbit_per_s(10, rtt_s=0.01)])
            options = {"planner": si.Planner(PIPELINE, topology, Drawn())}
        device = device_of(**options)
        device.connect()
        children = [forked(draws, device) for _ in range(2)]
        found = [draws(device), *children]
        assert all({1, 2} <= set(drawn) for drawn in found)
        assert len({tuple(drawn) for drawn in found}) == 3
        again = device_of(**options) if not planner else None
        assert again is None or draws(again) == found[0], "the parent itself draws what it always drew"


def test_a_spool_is_the_parents(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "spool"
    device = device_of(spool=path, cut=2)
    assert device.run(1).source == "local"
    before = path.read_bytes()

    def child() -> list[str]:
        caplog.clear()
        for x in range(3):
            device.run(x)
        device.close()
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    (words,) = forked(child)
    assert str(path) in words and "a file of its own" in words
    assert path.read_bytes() == before
    device.close()
    assert path.read_bytes() != before


def test_a_trace_is_of_one_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trace.jsonl"
    with TraceWriter(path) as recorder, device_of(recorder=recorder) as device:
        for x in range(3):
            device.run(x)

        def child() -> Any:
            caplog.clear()
            values = [value(device, x) for x in range(5)]
            return [values, [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]]

        values, (words,) = forked(child)
        device.run(3)
    assert values == [1, 3, 5, 7, 9]
    assert "recording has ended" in words and "make a TraceWriter in each process" in words
    assert os.listdir(tmp_path) == ["trace.jsonl"]
    assert len(load_trace(path).plans) == 4


# runners, and what is open in them


def test_a_runner_whose_lock_is_held() -> None:
    runner = si.Runner(PIPELINE)
    assert runner.run(0, 2, 1) == (3, pytest.approx(0, abs=1))
    with runner._pool._lock, runner._owners._lock:
        assert forked(lambda: [runner.run(0, 1, 5)[0], runner.run(0, 2, 5)[0], runner.opened]) == [10, 11, 2]


def test_an_owners_run_that_is_under_way_holds_no_child_up() -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(total: Total, x: int) -> int:
        if x == 0:
            begun.set()
            go.wait(WAIT_S)
        return add(total, x)

    runner = si.Runner(si.tasks([si.task(wait, resource=Total, state="own")]))
    runner.run(0, 1, 5, "a")
    with in_thread(runner.run, 0, 1, 0, "a"):
        assert begun.wait(WAIT_S)

        def child() -> Any:
            with pytest.raises(StateLost, match="the state of 'a' is in the process that this one was forked from"):
                runner.run(0, 1, 1, "a")
            runner.reset("a")
            return [runner.run(0, 1, x, owner)[0] for x, owner in ((7, "a"), (8, "b"))]

        assert forked(child) == [7, 8]
        go.set()
    assert runner.run(0, 1, 1, "a")[0] == 6


TEAR_DOWN = """
import contextlib, os, sys
import splitiot as si
from tests.forks import fork

@contextlib.contextmanager
def camera():
    who = os.getpid()
    try:
        yield who
    finally:
        print("closed", who == os.getpid(), os.getpid() == parent, flush=True)

def shot(who, x):
    return who == os.getpid()

parent = os.getpid()
runner = si.Runner(si.tasks([si.task(shot, resource=camera)]))
print(runner.run(0, 1, 0)[0], flush=True)
child = fork()
if child == 0:
    print(runner.run(0, 1, 0)[0], flush=True)
    if sys.argv[1] == "closes":
        runner.close()
    del runner
    sys.exit()
os.waitpid(child, 0)
runner.close()
"""


@pytest.mark.parametrize("how", ["closes", "ends"])
def test_a_child_closes_only_what_it_has_opened(how: str) -> None:
    done = script(TEAR_DOWN, how)
    # at the end of a process generators are closed, or not: those of the child's own
    assert done in ("True\nTrue\nclosed True False\nclosed True True\n", "True\nTrue\nclosed True True\n"), done
    if how == "closes":
        assert done.count("closed") == 2


POOLED = """
import os, sys
import numpy as np
import splitiot as si
from tests import networks
from tests.forks import fork

model = si.load_model(networks.WIDE())
runner = si.Runner(model, runtime=si.Runtime(threads=4))
payload = {t.name: np.ones(t.shape, t.dtype) for t in model.inputs}
def run():
    return {name: array.tobytes() for name, array in runner.run(0, model.n, payload)[0].items()}
wanted = run()
child = fork()
if child == 0:
    assert run() == wanted
    if sys.argv[1] == "closes":
        runner.close()
    sys.exit(7)
status = os.waitpid(child, 0)[1]
assert run() == wanted
print(status)
"""


@pytest.mark.models
@pytest.mark.extra("litert")
@pytest.mark.parametrize("how", ["closes", "ends"])
def test_the_threads_of_an_interpreter_are_not_waited_for(models_dir: Path, how: str) -> None:
    """To free an interpreter with four threads in a child ended that with a segmentation fault."""
    text = POOLED.replace("networks.WIDE()", repr(str(models_dir / "vww_96_float.tflite")))
    assert script(text, how) == f"{7 << 8}\n"


# coroutines, isolated tasks, edges, and the rest


async def later(x: int) -> int:
    return x + 1


COROUTINES = """
import os, sys
import splitiot as si
from tests.forks import fork
from tests.test_fork import later

pipeline = si.tasks([later])
print(pipeline.run(1), flush=True)
child = fork()
if child == 0:
    print(pipeline.run(2), flush=True)
    sys.exit()
print(os.waitpid(child, 0)[1] == 0, pipeline.run(3))
"""


def test_a_childs_event_loop_is_its_own() -> None:
    assert script(COROUTINES) == "2\n3\nTrue 4\n"


def test_an_event_loop_that_is_being_started_holds_no_child_up() -> None:
    from splitiot.functions import _loop

    pipeline = si.tasks([later])
    assert pipeline.run(1) == 2
    with _loop._lock:
        assert forked(pipeline.run, 2) == 3
    assert pipeline.run(1) == 2


def test_a_call_that_is_under_way_holds_no_child_up() -> None:
    job = IsolatedFunction(isolated.nap, name="job", timeout_s=WAIT_S)
    quick = IsolatedFunction(isolated.process, name="quick")
    mine = quick(None)

    def call() -> None:
        with pytest.raises(TaskKilled):
            job(600)

    with in_thread(call):
        eventually(lambda: job.pid is not None)

        def child() -> Any:
            quick.close()
            return [job(0), job.pid]

        _, theirs = forked(child)
        assert theirs not in (None, job.pid)
        assert quick(None) == mine, "a child that closes does not end its parent's"
        os.kill(job.pid, 9)
    quick.close()
    job.close()


def test_an_edge_in_a_child_is_another_edge() -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(x: int) -> int:
        if x == 0:
            begun.set()
            go.wait(WAIT_S)
        return 10 * x

    pipeline = si.tasks([wait])
    service = si.EdgeService([pipeline], profiles=[profile_of(pipeline)])

    def boot() -> str:
        answer = service.handle(wire.encode(wire.Probe(boot=_boot(5), sequence=1)), peer="me")
        return str(wire.decode(answer)[0].edge_boot)

    def ask(sequence: int, x: int) -> Any:
        device = device_of(pipeline, 0, transport=si.InMemory(lambda frame: service.handle(frame, peer="me")))
        return value(device, x)

    ours = boot()
    assert ask(1, 1) == 10
    with in_thread(ask, 2, 0):
        assert begun.wait(WAIT_S)

        def child() -> Any:
            return [boot(), service.counters.requests, ask(2, 3), len(service._session.profiles)]

        first, second = forked(child), forked(child)
        go.set()
    assert first[1:] == second[1:] == [0, 30, 1]
    assert len({ours, first[0], second[0]}) == 3
    assert boot() == ours


def _boot(number: int) -> Any:
    """A boot as the wire has it."""
    kind = wire.Probe.__annotations__["boot"]
    return number if kind == "int" else number.to_bytes(16, "little")


def test_an_edges_threads_are_its_own() -> None:
    import asyncio

    service = si.EdgeService([PIPELINE], inline_s=0.0, workers=1)

    def ask(x: int) -> Any:
        def answer(frame: bytes) -> bytes:
            return asyncio.run(service.handle_async(frame, peer="me"))

        return value(device_of(cut=0, transport=si.InMemory(answer)), x)

    assert ask(1) == 3
    assert forked(lambda: [ask(2), ask(3)]) == [5, 7]
    assert ask(4) == 9
    service.close()


@pytest.mark.extra("telemetry")
def test_a_load_that_is_being_read_holds_no_child_up() -> None:
    load = si.DeviceLoad(interval_s=0.0)
    load()
    with load._reading:
        assert forked(lambda: load() is not load())


def test_a_shaped_link_is_changed_by_its_process_only() -> None:
    def child(shaped: ShapedLink) -> int:
        for call in (shaped.cut, shaped.heal, shaped.start):
            with pytest.raises(LocalProtocolError, match="use it there"):
                call()
        shaped.close()
        return 0

    with ShapedLink(9, si.Link.from_mbit_per_s(10, rtt_s=0.01)) as shaped:
        assert forked(child, shaped) == 0
        assert shaped._thread.is_alive()
