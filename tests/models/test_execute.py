"""Parts in an interpreter: what goes in, what comes out, and who owns it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from splitiot import tasks
from splitiot.errors import LocalProtocolError, MalformedModel, MissingDependencyError
from splitiot.models import load_model, verify_model
from splitiot.models.execute import open_part
from splitiot.models.interpreters import _TINY, open_interpreter, pick
from splitiot.models.tflite.table import Table
from splitiot.pipeline import Boundary, Runtime, TensorSpec
from splitiot.runner import Runner
from tests import networks

X, Y = TensorSpec("x", "float32", (1,)), TensorSpec("y", "float32", (1,))


class Fake:
    """A part as `open_part` sees it: one RELU."""

    def __init__(self, **changes: Any) -> None:
        self.start, self.stop, self.stateful = 0, 1, False
        self.inputs, self.outputs = Boundary((X,)), Boundary((Y,))
        self.passthrough: tuple[str, ...] = ()
        self.model = _TINY
        self.written = 0
        self.__dict__.update(changes)

    def to_bytes(self) -> bytes:
        self.written += 1
        return self.model


@pytest.fixture(autouse=True)
def _interpreter() -> None:
    try:
        pick()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_runs_and_owns_its_results() -> None:
    part = Fake()
    run = open_part(part, Runtime(kernels="reference"))
    first = run({"x": np.float32([3])})
    second = run({"x": np.float32([-3])})
    assert (first["y"].tolist(), second["y"].tolist()) == ([3.0], [0.0])
    assert first["y"].flags.owndata
    assert first["y"].flags.writeable
    assert part.written == 1
    assert run.nbytes > len(_TINY)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"x": np.float64([1])}, "'x' has dtype float64, expected float32"),
        ({"x": np.float32([1, 2])}, r"'x' has shape \(2,\), expected \(1,\)"),
        ({"x": np.array(1, np.float32)}, r"'x' has shape \(\), expected \(1,\)"),
        ({"x": np.array([1], ">f4")}, "'x' is not in this machine's byte order"),
        ({"x": [1.0]}, "'x' is a list, expected an array"),
        ({"z": np.float32([1])}, r"expected arrays named \['x'\], got \['z'\]"),
        ({}, r"expected arrays named \['x'\], got \[\]"),
        ({"x": np.float32([1]), "z": np.float32([1])}, r"expected arrays named \['x'\], got \['x', 'z'\]"),
        (np.float32([1]), "got ndarray"),
        (None, "got NoneType"),
    ],
)
def test_what_does_not_fit_is_named(payload: Any, message: str) -> None:
    run = open_part(Fake())
    with pytest.raises(LocalProtocolError, match=rf"part \[0, 1\): .*{message}"):
        run(payload)
    assert run({"x": np.float32([3])})["y"].tolist() == [3.0], "and the next payload is none the worse"


def test_any_memory_layout() -> None:
    strided = np.float32([3, 9])[::2]
    unaligned = np.frombuffer(b"\0" + strided.tobytes(), "<f4", offset=1)
    for array in (strided, unaligned):
        assert open_part(Fake())({"x": array})["y"].tolist() == [3.0]


def test_what_passes_through_is_copied() -> None:
    # the file's only output stands for the tensor that passes through: its value must come from the payload
    part = Fake(outputs=Boundary((X,)), passthrough=("x",))
    given = {"x": np.float32([-3])}
    result = open_part(part)(given)
    assert result == given
    assert not np.shares_memory(result["x"], given["x"])


def test_no_steps() -> None:
    both = Boundary((X,))
    run = open_part(Fake(stop=0, inputs=both, outputs=both))
    given = {"x": np.float32([-3])}
    result = run(given)
    assert result == given
    assert not np.shares_memory(result["x"], given["x"])
    with pytest.raises(LocalProtocolError, match=r"part \[0, 0\): 'x' has dtype"):
        run({"x": np.float64([1])})
    with pytest.raises(LocalProtocolError, match="byte order"):
        run({"x": np.array([1], ">f4")})
    run.reset()
    run.close()
    assert run.nbytes == 0


def test_a_file_that_is_not_what_the_part_says() -> None:
    with pytest.raises(MalformedModel, match=r"part \[0, 1\): the file takes .* Cut it again"):
        open_part(Fake(inputs=Boundary((TensorSpec("x", "float32", (2,)),))))
    with pytest.raises(MalformedModel, match="Cut it again"):
        open_part(Fake(outputs=Boundary((TensorSpec("y", "int8", (1,)),))))


def test_reset_opens_anew_only_where_there_is_state() -> None:
    for stateful in (False, True):
        run: Any = open_part(Fake(stateful=stateful))
        before = run._interpreter
        run.reset()
        assert (run._interpreter is not before) == stateful
        assert run({"x": np.float32([3])})["y"].tolist() == [3.0]


def test_closed() -> None:
    run = open_part(Fake())
    run.close()
    with pytest.raises(LocalProtocolError, match="was closed"):
        run({"x": np.float32([3])})


def whole(data: bytes, given: Any) -> Any:
    interpreter = open_interpreter(data)
    for set_, value in zip(interpreter.setters, given.values(), strict=True):
        set_(value)
    interpreter.invoke()
    return {spec.name: get() for spec, get in zip(interpreter.outputs, interpreter.getters, strict=True)}


def same(left: Any, right: Any) -> bool:
    return left.keys() == right.keys() and all(
        isinstance(left[k], np.ndarray) and left[k].shape == right[k].shape and left[k].tobytes() == right[k].tobytes()
        for k in right
    )


def test_functions_around_a_network() -> None:
    def half(x: Any) -> Any:
        return x / np.float32(2)

    def total(y: Any) -> float:
        return float(y.sum())

    model = load_model(networks.chain())
    chain = tasks([half]) + model + tasks([total])
    x = np.random.default_rng(0).standard_normal(model.inputs[0].shape, np.float32)
    assert chain.n == model.n + 2
    with Runner(chain) as runner:
        assert runner.run(0, chain.n, chain.bind(x))[0] == total(model.run(half(x)))


def test_state_of_real_parts_belongs_to_its_owner() -> None:
    model = load_model(networks.svdf())
    payloads = [model.bind(np.full((1, 4), v, np.float32)) for v in (1.0, -2.0, 3.0)]
    with Runner(model) as runner:
        alone = [runner.run(0, model.n, p, "alone")[0] for p in payloads]
        mixed = [runner.run(0, model.n, p, owner)[0] for p in payloads for owner in ("a", "b")]
        assert all(same(mixed[2 * i + j], alone[i]) for i in range(3) for j in range(2))
        runner.reset("alone")
        again = [runner.run(0, model.n, p, "alone")[0] for p in payloads]
        assert all(map(same, again, alone))
        assert not same(runner.run(0, model.n, payloads[0], "alone")[0], alone[0]), "it does remember"


def test_reset_forgets_variable_tensors_and_resources() -> None:
    for make in (networks.svdf, networks.counter):
        model = load_model(make())
        run = model.part(0, model.n).open()
        payload = model.bind(np.full((1, 4), 0.5, np.float32))
        first, second = run(payload), run(payload)
        assert not same(first, second)
        run.reset()
        assert same(run(payload), first)
        assert same(run(payload), second)


def test_a_result_of_no_elements() -> None:
    net = networks.Net()
    mask = net.op("GREATER", [net.input((4,)), net.constant(0.1)], (4,), "BOOL", options=Table("GreaterOptions"))
    free = np.array([-1, 1], np.int32)
    found = net.op("WHERE", [mask], (1, 1), "INT64", options=Table("WhereOptions"), shape_signature=free)
    model = load_model(net.write(found))
    run = model.part(0, model.n).open()
    (name,) = (t.name for t in model.outputs)
    for values, rows in (([1, 0, 1, 0], 2), ([0, 0, 0, 0], 0), ([1, 1, 1, 1], 4)):
        result = run(model.bind(np.float32(values)))[name]
        assert (result.dtype.name, result.shape) == ("int64", (rows, 1))
    assert verify_model(model).ok
