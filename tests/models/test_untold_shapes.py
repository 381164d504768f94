"""Files of 2019 and before: no shape where the converter knew none, and custom operators behind which all is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitiot.errors import MissingDependencyError
from splitiot.models import ModelPart, load_model, probe
from splitiot.models._check import CutChecker
from splitiot.models._whole import open_whole
from splitiot.models.tflite.operators import BUILT_IN
from splitiot.models.tflite.table import Table
from splitiot.pipeline import Kernels, Runtime
from tests.networks import Net
from tests.pairs import values

needs_litert = pytest.mark.extra("litert")
ALL = os.environ.get("SPLITIOT_TEST_FUSIONS") == "all"
KERNELS: tuple[Kernels, ...] = ("default", "no-delegate", "reference")


def old(net: Net) -> Net:
    """As TOCO wrote files: nothing says which shapes are known, and a scalar has none."""
    for tensor in net.tensors:
        del tensor.fields["has_rank"]
        if not len(tensor["shape"]):
            del tensor.fields["shape"]
    return net


def resized(*, told: bool) -> bytes:
    """8 steps: a convolution behind a RESIZE to twice the input's size, which is computed in the network."""
    net = Net()
    x = net.input((1, 6, 10, 32))
    shape = net.op("SHAPE", [x], (4,), "INT32", options=Table("ShapeOptions", out_type=2))

    def doubled(axis: int) -> int:
        at = [net.constant([value], "INT32") for value in (axis, axis + 1, 1)]
        options = Table("StridedSliceOptions", shrink_axis_mask=1)
        one = net.op("STRIDED_SLICE", [shape, *at], (), "INT32", options=options)
        return net.op("MUL", [one, net.constant(2, "INT32")], (), "INT32", options=Table("MulOptions"))

    size = net.op("PACK", [doubled(1), doubled(2)], (2,), "INT32", options=Table("PackOptions", values_count=2))
    options = Table("ResizeNearestNeighborOptions")
    large = net.op("RESIZE_NEAREST_NEIGHBOR", [x, size], (1, 12, 20, 32) if told else (), options=options)
    options = Table("Conv2DOptions", stride_w=1, stride_h=1)
    operands = [large, net.weights(8, 3, 3, 32), net.weights(8)]
    made = net.op("CONV_2D", operands, (1, 12, 20, 8) if told else (), options=options)
    return old(net).write(made)


def behind_custom(name: str = "Wobble", *, told: bool = True) -> bytes:
    """3 steps; the second is a custom operator, and the file is old."""
    net = Net()
    x = net.unary("TANH", net.input((1, 4)))
    y = net.tensor((1, 4) if told else ())
    net.raw_op("CUSTOM", [x], [y], custom=name)
    made = net.op("RELU", [y], (1, 4) if told else ())
    return old(net).write(made)


def scalar() -> bytes:
    """3 steps; the second makes a real scalar."""
    net = Net()
    x = net.unary("TANH", net.input((1, 4)))
    total = net.op("SUM", [x, net.constant([0, 1], "INT32")], (), options=Table("ReducerOptions"))
    made = net.op("MUL", [x, total], (1, 4), options=Table("MulOptions"))
    return old(net).write(made)


@needs_litert
@pytest.mark.parametrize("told", [False, True])
def test_a_shape_that_is_not_stored_is_asked_for(told: bool) -> None:
    model = load_model(resized(told=told))
    assert model.refused == {}
    assert [spec.shape for spec in model.boundary(7).tensors or ()] == [(1, 12, 20, 32)]
    assert [spec.shape for spec in model.outputs] == [(1, 12, 20, 8)]
    assert model.returned(7).nbytes == 4 * 12 * 20 * 8


@needs_litert
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("make", [lambda: resized(told=False), lambda: resized(told=True), scalar])
def test_every_cut_is_exact(make: Any, kernels: Kernels) -> None:
    """A part's file must not tell kernels more than the whole file does: they would be other ones."""
    model = load_model(make())
    report = model.verify(runtime=Runtime(kernels=kernels))
    assert report.ok, str(report)
    assert [line.cut for line in report.lines] == list(range(model.n + 1))


@needs_litert
def test_a_scalar_stays_one() -> None:
    model = load_model(scalar())
    assert {spec.shape for spec in model.boundary(2).tensors or ()} == {(1, 4), ()}


@needs_litert
def test_parts_are_saved_and_loaded(tmp_path: Path) -> None:
    model = load_model(resized(told=False))
    x = {spec.name: np.ones(spec.shape, np.float32) for spec in model.inputs}
    head, tail = (ModelPart.load(part.save(tmp_path / "part.tflite")) for part in model.split(7))
    assert tail.inputs == model.part(7, 8).inputs
    wanted = model.part(0, 8).run(x)
    for name, value in tail.run(head.run(x)).items():
        assert value.tobytes() == wanted[name].tobytes()
    assert model.part(7, 8).to_bytes() == model.part(7, 8).to_bytes()


def test_without_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **more: object) -> None:
        raise MissingDependencyError("an interpreter (ai-edge-litert)", "litert")

    monkeypatch.setattr(probe, "child_shapes", missing)
    model = load_model(resized(told=False))
    assert model.cuts == (0, 8)
    for why in model.refused.values():
        assert "needs an interpreter" in why
        assert "splitiot[litert]" in why
    # where a file has a scalar, it may be one that keeps shapes to itself
    assert load_model(resized(told=True)).cuts == (0, 8)


@needs_litert
def test_an_operator_that_nobody_can_ask() -> None:
    model = load_model(behind_custom(told=False))
    assert model.cuts == (0, 3)
    assert "needs an interpreter" in model.refused[1]
    assert "depends on the data" in model.refused[2]


def test_a_custom_operator_with_stored_shapes() -> None:
    model = load_model(behind_custom())
    assert model.cuts == (0, 1, 2, 3)
    assert model.warnings == (
        "operator 1 (Wobble) is a custom operator: it can be cut, but only runs where it is registered",
    )


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_custom_operators_need_no_warning(name: str) -> None:
    assert load_model(behind_custom(name)).warnings == ()


def test_custom_operators_of_the_default_kernels() -> None:
    data = behind_custom("MaxUnpooling2D")
    assert load_model(data).warnings == ()
    for kernels in KERNELS[1:]:
        (warning,) = load_model(data, runtime=Runtime(kernels=kernels)).warnings
        assert "MaxUnpooling2D" in warning
        assert "default kernels" in warning


@needs_litert
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("name", "n"), [("no_shape_conv", 9), ("no_shape_pad", 8), ("old_custom_operator", 259)])
def test_files_of_users(name: str, n: int, kernels: Kernels, field_dir: Path) -> None:
    model = load_model(field_dir / f"{name}.tflite", runtime=Runtime(kernels=kernels))
    assert model.cuts == tuple(range(n + 1))
    if name == "old_custom_operator":
        assert (model.warnings == ()) == (kernels == "default")
        if kernels != "default":
            return
        if not ALL:  # 40 s
            runtime = Runtime()
            checker = CutChecker(model, runtime, [values(model, 0)], lambda: open_whole(model, runtime))
            assert checker.whole() == ""
            assert not any(checker.cut(cut)[0] for cut in range(1, n, 20))
            return
    report = model.verify(1, runtime=Runtime(kernels=kernels))
    assert report.ok, str(report)
    assert len(report.lines) == n + 1
