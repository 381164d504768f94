"""A value is the same, and of the same type, wherever the cut is; and what a caller gave stays as it was."""

from __future__ import annotations

import collections
import contextlib
import enum
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitiot import wire
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import LocalProtocolError, StepError, TransportError
from splitiot.functions import task, tasks
from splitiot.models import load_model
from splitiot.pipeline import DTYPES, Pipeline, copied, own, shown
from splitiot.plan import Outcome
from splitiot.policies import Fixed
from splitiot.profiling import profile
from splitiot.runner import Runner
from splitiot.topology import TierProfile
from splitiot.transports import InMemory
from tests import networks
from tests.session.support import Clock, Scripted, planner_of, profile_of, read
from tests.share import FULL, examples


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    a: Any
    b: Any


class Text(str):
    pass


class Mine(np.ndarray):
    pass


def matrix(rows: Any) -> Any:
    """A numpy.matrix, without the warning that its constructor gives."""
    return np.array(rows).view(np.matrix)


def crossed(value: Any) -> Any:
    """What comes out where a value has crossed."""
    packed = wire.pack(value)
    message = wire.Reply(
        boot=wire.NOBODY,
        sequence=1,
        edge_boot=wire.NOBODY,
        names=packed.names,
        payload=packed.payload,
        arrays=packed.arrays,
    )
    decoded, buffers = wire.decode(wire.encode(message, packed.buffers))
    assert isinstance(decoded, wire.Reply)
    return wire.unpack(decoded, buffers, copy=True)


def owned(value: Any) -> Any:
    box = [value]
    own(box, "it")
    return box[0]


def attempt(function: Callable[[Any], Any], value: Any) -> Any:
    try:
        return function(value)
    except LocalProtocolError as error:
        return error


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        if a.dtype != b.dtype or a.dtype.num != b.dtype.num or a.shape != b.shape:
            return False
        return a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)  # NaN is itself, 0.0 is not -0.0


def arrays_in(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(arrays_in, value.values()))
    elif isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(map(arrays_in, value))


# values


def views(array: Any) -> Iterable[Any]:
    """The same numbers as they may lie in memory."""
    yield array
    yield array.T
    yield np.asfortranarray(array)
    yield array[..., ::2] if array.ndim else array
    yield array[::-1] if array.ndim else array
    yield np.broadcast_to(array, (2, *array.shape))
    locked = array.copy()
    locked.flags.writeable = False
    yield locked
    yield array.astype(np.longlong) if array.dtype == np.int64 else array
    yield np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)  # not aligned


ARRAYS = st.builds(
    lambda array, which: list(views(array))[which],
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    st.integers(0, 8),
)
SCALARS = st.builds(
    lambda name, x: DTYPES[name].type(x), st.sampled_from(sorted(DTYPES)), st.integers(0, 100)
) | st.sampled_from([np.longlong(3), np.uintc(3)])
NANS = st.sampled_from([np.uint64(0x7FF8000000000001).view(np.float64), np.uint32(0xFFC00002).view(np.float32)])
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.floats()
    | st.text(st.characters(), max_size=4)
    | st.binary(max_size=4)
    | ARRAYS
    | SCALARS
    | NANS
)
STRANGE = st.sampled_from(
    [
        Level.LOW, Pair(1, 2), Text("x"), collections.OrderedDict(a=1), {1}, frozenset(), bytearray(b"x"),
        memoryview(b"x"), 1j, 2**70, {1: 2}, np.datetime64("2026-11-27"), np.array(["x"]), np.array([None]),
        np.zeros(2, [("a", "i4")]), np.rec.array([(1,)], dtype=[("a", "i4")]), np.ma.array([1, 2], mask=[0, 1]),
        matrix([[1.0]]), np.zeros(2).view(Mine), object(), range(3), np.longdouble(1),
    ]
)  # fmt: skip
PAYLOADS = st.recursive(
    PLAIN | STRANGE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=examples(1000 if FULL else 100))
@given(PAYLOADS)
def test_own_makes_what_crossing_makes(value: Any) -> None:
    wanted, got = attempt(crossed, value), attempt(owned, value)
    if isinstance(wanted, LocalProtocolError):
        assert isinstance(got, LocalProtocolError)
        assert str(wanted).split(": ")[-1] == str(got).split(": ")[-1]
        return
    assert same(got, wanted)
    given_bytes = [(array.shape, array.tobytes()) for array in arrays_in(value)]
    for array, other in zip(arrays_in(got), arrays_in(wanted), strict=True):
        assert array.flags.carray
        assert other.flags.carray
        array.reshape(-1).view(np.uint8)[:] = 255
    assert [(array.shape, array.tobytes()) for array in arrays_in(value)] == given_bytes, "nobody else's"
    lent = [value]
    shown(lent, "it")
    assert same(lent[0], wanted)
    assert all(array.flags.c_contiguous and not array.flags.writeable for array in arrays_in(lent[0]))


needs_counts = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)() or not hasattr(sys, "getrefcount"),
    reason="this Python does not tell how often an object is held, so everything is copied",
)


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@needs_counts
def test_what_nobody_else_holds_is_not_copied() -> None:
    def fresh(wrap: Callable[[Any], Any]) -> bool:
        box = [wrap(np.arange(6.0))]
        before = [address(array) for array in arrays_in(box[0])]
        own(box, "it")
        return before == [address(array) for array in arrays_in(box[0])]

    assert fresh(lambda x: x)
    assert fresh(lambda x: x.reshape(2, 3)[:1])
    assert fresh(lambda x: {"x": x, "y": [x + 1, (x + 2,)]})
    assert not fresh(lambda x: x[::2])
    assert not fresh(lambda x: (x, x))
    assert not fresh(lambda x: (x, x[:2]))
    assert not fresh(lambda x: (x[:3], x[3:]))
    long = [np.arange(3, dtype=np.longlong)]
    own(long, "it")
    assert long[0].dtype.num == np.dtype(np.int64).num, "the only holder of another long is given the usual one"
    inner = [np.arange(6.0)]
    assert not fresh(lambda x: [inner])
    held = np.arange(6.0)
    assert not fresh(lambda x: held)
    assert not fresh(lambda x: held[2:])
    buffer = bytearray(48)
    assert not fresh(lambda x: np.frombuffer(buffer))


def test_copied() -> None:
    buffer, view = np.arange(4), memoryview(bytearray(range(8))).cast("B", (2, 4))
    thing = object()
    value = {
        "a": [buffer, (buffer[::2],)], 2: bytearray(b"xy"), "m": view, "s": {1}, "o": thing,
        "masked": np.ma.array([1, 2], mask=[0, 1]), "matrix": matrix(buffer[None]),
    }  # fmt: skip
    taken = copied(value)
    buffer += 1
    value[2][0] = 0
    view[0, 0] = 9
    value["s"].add(2)
    value["masked"][0] = 7
    assert taken["a"][0].tolist() == [0, 1, 2, 3]
    assert taken["a"][1][0].tolist() == [0, 2]
    assert (taken[2], taken["m"].tolist(), taken["m"].shape) == (b"xy", [[0, 1, 2, 3], [4, 5, 6, 7]], (2, 4))
    assert taken["s"] == {1}
    assert taken["o"] is thing
    assert taken["masked"].tolist() == [1, None]
    assert type(taken["matrix"]) is np.matrix
    assert taken["matrix"].tolist() == [[0, 1, 2, 3]]
    endless: list[Any] = []
    endless.append(endless)
    copied(endless)


# steps that write, keep and use again


@frozen
class Op:
    """Makes a function, with memory of its own; of what kind its input and its output are."""

    name: str
    takes: str
    gives: str
    make: Callable[[], Callable[[Any], Any]]


def of(function: Callable[[Any], Any]) -> Callable[[], Callable[[Any], Any]]:
    return lambda: function


def less(x: Any) -> Any:
    x -= np.asarray(1, x.dtype)
    return x


def scratch() -> Callable[[Any], Any]:
    """Gives the same buffer again and again."""
    buffer = np.zeros((8, 8), np.int32)

    def use(x: Any) -> Any:
        buffer[...] = 0
        flat = buffer.reshape(-1)[: x.size]
        flat[...] = x.astype(np.int32).reshape(-1)[: flat.size] * 2
        return flat

    return use


def spoiling() -> Callable[[Any], Any]:
    """Keeps what it got and what it gave, and writes into both when it runs next."""
    kept: list[Any] = []

    def use(x: Any) -> Any:
        for old in kept:
            old[...] = 77
        result = x.copy()
        kept[:] = [x, result]
        return result

    return use


def hoarding() -> Callable[[Any], Any]:
    kept: list[Any] = []

    def use(x: Any) -> Any:
        kept.append(x)
        return x

    return use


def growing(x: Any) -> Any:
    x["b"].append(1)
    x["a"] += np.asarray(1, x["a"].dtype)
    return x


def doubled(x: Any) -> Any:
    x["b"][1][...] = 3
    return x


OPS = [
    Op("less", "array", "array", of(less)),
    Op("scratch", "array", "array", scratch),
    Op("spoiling", "array", "array", spoiling),
    Op("hoarding", "array", "array", hoarding),
    Op("turned", "array", "array", of(lambda x: x.T)),
    Op("reversed", "array", "array", of(lambda x: x[::-1] if x.ndim else x)),
    Op("spread", "array", "array", of(lambda x: np.broadcast_to(x, (2, *x.shape[-1:])) if x.ndim < 2 else x)),
    Op("locked", "array", "array", of(lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape))),
    Op("foreign", "array", "array", of(lambda x: x.astype(x.dtype.newbyteorder("S")))),
    Op("fortran", "array", "array", of(np.asfortranarray)),
    Op("summed", "array", "array", of(lambda x: np.array(x.astype(np.float32).sum() / np.float32(3)))),
    Op("bytes", "array", "array", of(lambda x: np.frombuffer(x.tobytes("A"), np.uint8))),
    Op("squared", "array", "array", of(lambda x: np.atleast_2d(x) * np.atleast_2d(x))),
    Op("matrix", "array", "array", of(lambda x: matrix(x) if x.shape == (2, 2) else x)),
    Op("masked", "array", "array", of(lambda x: np.ma.array(x, mask=x > 2) if x.size == 3 else x)),
    Op("wrapped", "array", "tree", of(lambda x: {"a": x, "b": [None, x[:1] if x.ndim else x]})),
    Op("grown", "tree", "tree", of(growing)),
    Op("doubled", "tree", "tree", of(doubled)),
    Op("inner", "tree", "tree", of(lambda x: {**x, "c": (np.ma.array([1], mask=[1]),)} if len(x["b"]) > 3 else x)),
    Op("levels", "tree", "tree", of(lambda x: {**x, "d": Level.LOW} if len(x["b"]) > 3 else x)),
    Op("picked", "tree", "array", of(lambda x: x["b"][1])),
    Op("kept", "tree", "array", of(lambda x: x["a"])),
    Op("size", "tree", "array", of(lambda x: np.array([len(x["b"])]))),
]  # fmt: skip


def fresh(value: Any) -> Any:
    """A deep copy with arrays as C lays them out, or the error of what can't cross."""
    if isinstance(value, np.ndarray):
        if type(value) is not np.ndarray:
            raise LocalProtocolError("can't cross")
        made = np.empty(value.shape, value.dtype.str)  # C's long long is int64, as it is after a crossing
        made[...] = value
        return made
    if type(value) in (list, tuple):
        return type(value)(map(fresh, value))
    if type(value) is dict:
        return {key: fresh(item) for key, item in value.items()}
    if isinstance(value, Level):
        raise LocalProtocolError("can't cross")
    return value


def composed(ops: Sequence[Op], values: Sequence[Any]) -> list[Any]:
    """What plain Python gives where each function has its value for itself; the error where one can't cross."""
    functions = [op.make() for op in ops]
    results: list[Any] = []
    for value in values:
        try:
            value = fresh(value)
            for function in functions:
                value = fresh(function(value))
        except LocalProtocolError as error:
            value = error
        results.append(value)
    return results


def agrees(outcome: Outcome, wanted: Any) -> bool:
    if isinstance(wanted, LocalProtocolError):
        return isinstance(outcome.error, LocalProtocolError)
    return outcome.ok and same(outcome.value, wanted)


def pipeline_of(ops: Sequence[Op]) -> Pipeline:
    return tasks([task(op.make(), name=f"{at} {op.name}") for at, op in enumerate(ops)])


@st.composite
def chains(draw: st.DrawFn) -> list[Op]:
    ops: list[Op] = []
    kind = "array"
    for _ in range(draw(st.integers(1, 5))):
        ops.append(draw(st.sampled_from([op for op in OPS if op.takes == kind])))
        kind = ops[-1].gives
    return ops


VALUES = st.lists(
    st.builds(
        lambda array, which: list(views(array))[which],
        st.sampled_from(["int16", "int64", "float32", ">f4", "float64"]).flatmap(
            lambda name: hnp.arrays(
                DTYPES[name],
                st.sampled_from([(3,), (2, 2), (), (0, 2), (1, 3), (4, 2)]),
                elements=st.integers(-8, 8).map(float) if "f" in name else st.integers(-8, 8),
            )
        ),
        st.integers(0, 8),
    ),
    min_size=1,
    max_size=4,
)


def unchanged(values: Sequence[Any]) -> Callable[[], bool]:
    before = [(x.tobytes(), x.shape, x.strides, x.flags.writeable) for x in values]
    return lambda: before == [(x.tobytes(), x.shape, x.strides, x.flags.writeable) for x in values]


@contextlib.contextmanager
def both(pipeline: Pipeline, cut: int, *, dies_after: int | None = None, **more: Any) -> Iterator[Device]:
    """A device, and an edge in the same process that may carry no request any more behind some."""
    with EdgeService([pipeline], **more) as service:

        def answer(frame: bytes) -> bytes:
            return service.handle(frame, peer="me")

        transport = InMemory(answer if dies_after is None else dying(answer, dies_after))
        known = profile_of(pipeline)
        with Device(pipeline, transport, policy=Fixed(cut), profile=known, cache=False) as device:
            yield device


def dying(answer: Callable[[bytes], bytes], after: int) -> Callable[[bytes], bytes]:
    """An edge that carries no request any more behind some."""
    left = itertools.count(after, -1)

    def carry(frame: bytes) -> bytes:
        if isinstance(read(frame), wire.Request) and next(left) <= 0:
            raise TransportError("cut off", frame=frame)
        return answer(frame)

    return carry


@settings(max_examples=examples(150 if FULL else 20))
@given(chains(), VALUES, st.integers(0, 3))
def test_any_chain_gives_the_same_at_every_cut_and_leaves_its_argument(
    ops: list[Op], values: list[Any], after: int
) -> None:
    wanted, whole = composed(ops, values), unchanged(values)
    for cut in range(len(ops) + 1):
        for dies in (False, True):
            # all outcomes are alive until the end: none changes while others are made
            with both(pipeline_of(ops), cut, dies_after=after if dies else None) as device:
                outcomes = [device.run(value) for value in values]
            assert all(map(agrees, outcomes, wanted)), (cut, dies, outcomes, wanted)
        hedged = hedges(pipeline_of(ops), values, cut)
        assert all(map(agrees, hedged, wanted)), (cut, "hedge", hedged, wanted)
    assert whole()


def hedges(pipeline: Pipeline, values: Sequence[Any], cut: int) -> list[Outcome]:
    """The edge runs each request, but its answers come too late."""
    clock = Clock()
    service = EdgeService([pipeline], clock=clock)

    def late(frame: bytes) -> Iterator[tuple[float, bytes]]:
        yield 5.0 if isinstance(read(frame), wire.Request) else 0.001, service.handle(frame, peer="me")

    transport = Scripted(clock, late)
    with Device(pipeline, transport, planner=planner_of(pipeline, cut), cache=False, clock=clock) as device:
        outcomes = [device.run(value, deadline_s=1.0) for value in values]
        assert cut == pipeline.n or device.counters.hedges > 0 or any(o.error for o in outcomes)
    return outcomes


@settings(max_examples=examples(60 if FULL else 8), deadline=None)
@given(chains(), VALUES, st.integers(0, 4), st.integers(0, 9))
def test_any_chain_over_one_buffer_in_a_stream(ops: list[Op], values: list[Any], cut: int, after: int) -> None:
    cut = min(cut, len(ops))
    buffer = np.array(values[0], order="C")
    contents = [np.asarray(buffer + np.asarray(k, buffer.dtype), buffer.dtype) for k in range(8)]

    def source() -> Iterator[Any]:
        for content in contents:
            buffer[...] = content
            yield buffer

    with both(pipeline_of(ops), cut, dies_after=after) as device:
        outcomes = list(device.map(source(), window=3))
    assert all(map(agrees, outcomes, composed(ops, contents))), (cut, outcomes)


# networks


NETWORKS = [networks.passthrough, networks.two_inputs, networks.input_result, networks.early_output]


@pytest.mark.extra("litert")
@pytest.mark.parametrize("make", NETWORKS)
def test_networks_leave_their_inputs_and_give_new_results(make: Callable[[], bytes]) -> None:
    model = load_model(make())
    one = {spec.name: np.full(spec.shape, 2, spec.dtype) for spec in model.inputs}
    wanted, whole = copied(model.run(one)), unchanged(list(one.values()))
    for cut in model.cuts:
        with both(model, cut, dies_after=1) as device:
            outcomes = [device.run(one), device.run(one)]
        for outcome in outcomes:
            assert same(outcome.unwrap(), wanted)
            for array in arrays_in(outcome.value):
                assert array.flags.writeable
                array[...] = 99
        assert whole(), cut


@pytest.mark.extra("litert")
@pytest.mark.parametrize("wrap", [matrix, np.ma.array, lambda x: x.view(Mine)])
def test_networks_take_no_other_classes_of_arrays(wrap: Callable[[Any], Any]) -> None:
    net = networks.Net()
    x = net.input((2, 2))
    model = load_model(net.write(net.unary("RELU", net.mul(x, x))))
    value = np.array([[1, 2], [3, 4]], np.float32)
    for cut in model.cuts:
        with both(model, cut) as device:
            assert device.run(value).ok
            with pytest.raises(LocalProtocolError, match="can't cross"):
                device.run(wrap(value))
    after = tasks([task(lambda x: wrap(x), name="wrap")]) + model
    with pytest.raises(LocalProtocolError, match="the result of task 'wrap'"):
        after.run(value)


@pytest.mark.extra("litert")
def test_a_network_takes_a_file_in_memory(tmp_path: Path) -> None:
    model = load_model(networks.passthrough())
    (spec,) = model.inputs
    ring = np.memmap(tmp_path / "ring", spec.dtype, "w+", shape=spec.shape)

    def source() -> Iterator[Any]:
        for k in range(12):
            ring[...] = k / 4
            yield ring

    wanted = [model.run(np.full(spec.shape, k / 4, spec.dtype)) for k in range(12)]
    for cut in model.cuts:
        with both(model, cut, dies_after=6) as device:
            assert all(map(same, [o.unwrap() for o in device.map(source())], wanted))


# what issue 11 tells of


def in_place(x: Any) -> Any:
    x -= 1
    return x


def twice(x: Any) -> Any:
    return x * 2


@pytest.mark.parametrize("cut", range(3))
def test_a_step_that_writes_is_measured_on_the_first_value_without_changing_it(cut: int) -> None:
    pipeline = tasks([in_place, twice])
    with EdgeService([pipeline]) as service:
        transport = InMemory(lambda frame: service.handle(frame, peer="me"))
        with Device(pipeline, transport, policy=Fixed(cut), cache=False) as device:
            value = np.array([10.0, 20.0])
            assert device.run(value).unwrap().tolist() == [18.0, 38.0]
            assert value.tolist() == [10.0, 20.0]


@pytest.mark.parametrize("work", ["profile", "measure", "sample", "run"])
def test_nothing_writes_into_a_sample(work: str) -> None:
    pipeline = tasks([in_place, twice])
    sample = {"array": np.array([10.0]), "list": np.array([10.0])}["array"]
    with EdgeService([pipeline]) as service:
        if work == "profile":
            assert isinstance(profile(pipeline, sample, budget_s=0.01), TierProfile)
        elif work == "measure":
            service.measure(sample, budget_s=0.01)
        elif work == "run":
            with Runner(pipeline) as runner:
                assert runner.run(0, 2, sample)[0].tolist() == [18.0]
            assert pipeline.run(sample).tolist() == [18.0]
        else:
            transport = InMemory(lambda frame: service.handle(frame, peer="me"))
            with Device(pipeline, transport, sample=sample, cache=False) as device:
                assert device.run(sample).unwrap().tolist() == [18.0]
    assert sample.tolist() == [10.0]


@pytest.mark.parametrize("cut", range(3))
@pytest.mark.parametrize("window", [1, 3])
def test_one_buffer_again_and_again(cut: int, window: int, tmp_path: Path) -> None:
    file = np.memmap(tmp_path / "ring", np.int64, "w+", shape=(4, 2))
    pipeline = tasks([twice, in_place])

    def ring() -> Iterator[Any]:
        for k in range(40):
            file[k % 4] = k
            yield file[k % 4]

    with both(pipeline, cut) as device:
        outcomes = list(device.map(ring(), window=window))
    assert [outcome.unwrap().tolist() for outcome in outcomes] == [[2 * k - 1] * 2 for k in range(40)]
    assert {type(outcome.value) for outcome in outcomes} == {np.ndarray}


def test_a_source_that_gives_new_values_need_not_be_copied() -> None:
    seen: list[Any] = []
    pipeline = tasks([task(lambda x: seen.append(x) or x.sum(), name="sum", copy=False)])
    values = [np.arange(3) + k for k in range(5)]
    with both(pipeline, 1) as device:
        assert [o.unwrap() for o in device.map(values, copy=False)] == [3, 6, 9, 12, 15]
        assert all(np.shares_memory(a, b) for a, b in zip(seen, values, strict=True))
        assert [o.unwrap() for o in device.map(values)] == [3, 6, 9, 12, 15]
        assert not any(np.shares_memory(a, b) for a, b in zip(seen[5:], values, strict=True))


@pytest.mark.parametrize("cut", range(3))
def test_a_promise_not_to_write_that_is_broken_is_an_error_at_every_cut(cut: int) -> None:
    pipeline = tasks([task(twice, name="twice"), task(in_place, name="in_place", copy=False)])
    with both(pipeline, cut) as device:
        error = device.run(np.arange(3)).error
    assert isinstance(error, StepError)
    assert "read-only" in str(error)


def test_a_promise_saves_the_copies() -> None:
    buffer = np.zeros(3)
    reads = task(lambda x: (x.sum(), buffer)[1], name="reads", copy=False)
    given_ = np.ones(3)
    with Runner(tasks([reads])) as runner:
        result, _ = runner.run(0, 1, given_)
    assert np.shares_memory(result, buffer)
    keeps = tasks([task(lambda x: buffer, name="keeps"), task(lambda x: x, name="passes", copy=False)])
    assert not np.shares_memory(keeps.run(0), buffer), "the first one did not promise anything"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (matrix([[1, 2], [3, 4]]), "a matrix can't cross"),
        (np.ma.array([1, 2], mask=[0, 1]), "a masked array"),
        ({"x": [np.ma.array([1, 2], mask=[0, 1])]}, r"\['x'\]\[0\]: a masked array"),
        (np.rec.array([(1,)], dtype=[("a", "i4")]), "a recarray can't cross"),
        (np.zeros(3).view(Mine), "a Mine can't cross"),
        (Level.LOW, "a Level can't cross"),
        (Pair(1, 2), "a Pair can't cross"),
        (2**64, "64 bits"),
        ("\ud800", "no Unicode"),
        (bytearray(b"x"), "a bytearray can't cross"),
    ],
)
@pytest.mark.parametrize("cut", range(3))
def test_what_would_change_at_a_cut_is_refused_at_every_cut(value: Any, words: str, cut: int) -> None:
    given_in, made = tasks([twice_or_less, twice_or_less2]), tasks([task(lambda x: value, name="make"), twice_or_less])
    back = tasks([twice_or_less, task(lambda x: value, name="make")])
    for pipeline, first in ((given_in, value), (made, 1), (back, 1)):
        with both(pipeline, cut) as device, pytest.raises(LocalProtocolError, match=words):
            device.run(first).unwrap()
        with pytest.raises(LocalProtocolError, match=words):
            pipeline.run(first)


def twice_or_less(x: Any) -> Any:
    return x


def twice_or_less2(x: Any) -> Any:
    return x


def test_where_no_cut_may_lie_anything_may_be_handed_on() -> None:
    def squared(x: Any) -> np.matrix:  # type: ignore[type-arg]
        return matrix(x) ** 2

    def plain(x: np.matrix) -> Any:  # type: ignore[type-arg]
        return np.asarray(x)

    pipeline = tasks([squared, plain])
    assert pipeline.cuts == (0, 2)
    assert pipeline.refused[1] == "task 'squared' returns a matrix, which can't cross"
    for cut in pipeline.cuts:
        with both(pipeline, cut) as device:
            assert device.run(np.array([[1, 2], [3, 4]])).unwrap().tolist() == [[7, 10], [15, 22]]


def test_a_result_that_never_crosses_is_the_callers_own() -> None:
    buffer = np.zeros(2)

    def fill(x: int) -> Any:
        buffer[:] = x
        return {"found": {x}, "array": buffer}

    pipeline = tasks([task(fill, tier="device")])
    assert pipeline.cuts == (1,)
    with both(pipeline, 1) as device:
        first, second = device.run(1).unwrap(), device.run(2).unwrap()
    assert (first["found"], first["array"].tolist()) == ({1}, [1.0, 1.0])
    assert (second["found"], second["array"].tolist()) == ({2}, [2.0, 2.0])


def test_results_of_a_pipeline_whose_results_are_wanted_on_the_edge() -> None:
    buffer = np.zeros(2)

    def fill(x: Any) -> Any:
        buffer[:] = x
        return buffer

    pipeline = tasks([twice, fill], sink="edge")
    for cut in pipeline.cuts:
        results: list[Any] = []
        with both(pipeline, cut, on_result=lambda peer, value, to=results: to.append(value)) as device:
            for k in range(3):
                device.run(k).unwrap()
        assert [result.tolist() for result in results] == [[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]
