"""Which cuts change bits: operators that kernels run as one, found by trying, against the list of those known.

By default a part of the pairs is tried; ``make fusions`` tries all and prints what it found. Run it with each new
release of an interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitiot as si
from splitiot.errors import NotCuttable
from splitiot.models import ModelPart, load_bundle, load_model, save_bundle
from splitiot.models.model import Model
from splitiot.models.tflite.fusions import FUSED
from splitiot.models.tflite.table import Table
from splitiot.pipeline import Kernels, Runtime
from tests.networks import Net
from tests.pairs import PAIRS, Halves, values

ALL = os.environ.get("SPLITIOT_TEST_FUSIONS") == "all"
OTHER = Runtime(kernels="no-delegate")
needs_litert = pytest.mark.extra("litert")


# generated pairs


def chosen() -> list[int]:
    """All that are known to change bits, and some or all of the others."""
    known = [i for i, pair in enumerate(PAIRS) if (pair.first.code, pair.second.code) in FUSED]
    return sorted({*known, *range(0, len(PAIRS), 1 if ALL else 23)})


def tried(numbers: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Try pairs in child processes. If an interpreter dies the pair is tried once more by itself, then left out."""
    found: dict[int, list[dict[str, Any]]] = {}
    left, again = list(numbers), set[int]()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    while left:
        words = [sys.executable, "-W", "ignore", "-m", "tests.pairs", *map(str, left[: 1 if left[0] in again else 400])]
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env=environment, cwd=Path(__file__).parents[2]
        )
        at = None
        for line in done.stdout.splitlines():
            message = json.loads(line)
            at = message.get("at", at)
            if "found" in message:
                found[message["pair"]] = message["found"]
        left = [number for number in left if number not in found]
        if done.returncode:
            assert done.returncode < 0 and at is not None, f"{at}: {done.returncode} {done.stderr}"
            left = [number for number in left if number != at]
            if at in again:
                print(f"{PAIRS[at]} kills its interpreter (signal {-done.returncode}): nothing to compare")
                found[at] = []
            else:
                again.add(at)
                left.insert(0, at)
    return found


@needs_litert
@pytest.mark.slow
def test_what_changes_bits_is_what_is_known() -> None:
    found = tried(chosen())
    changed: Counter[tuple[str, str, str]] = Counter()
    runs: Counter[str] = Counter()
    wrong: list[str] = []
    seen: set[tuple[str, str]] = set()
    for number, shapes in found.items():
        pair = PAIRS[number]
        for one in shapes:
            runs.update(one["changed"].keys())
            for kernels, why in one["changed"].items():
                if why:
                    changed[kernels, pair.first.name, pair.second.name] += 1
                    if kernels != "default" or one["legal"]:
                        wrong.append(f"{pair}, {one['shape']}, {kernels} kernels: legal, but {why}")
        codes = pair.first.code, pair.second.code
        if any(one["changed"].get("default") for one in shapes):
            seen.add(codes)
        elif not all(one["legal"] for one in shapes):
            wrong.append(f"{pair}: refused, but nothing changes")
    print(f"\n{len(found)} of {len(PAIRS)} pairs; runs: {', '.join(f'{k} {n}' for k, n in runs.items())}")
    print(f"{'kernels':<12} {'first':<36} {'second':<32} shapes")
    for (kernels, first, second), count in sorted(changed.items()):
        print(f"{kernels:<12} {first:<36} {second:<32} {count}")
    assert not wrong, "\n".join(wrong)
    assert seen == FUSED
    assert len(found) >= 60 and min(runs.values()) >= 60 and len(runs) == 3


# longer patterns, each with the cuts that change bits


def op(code: str, options: str, **fields: Any) -> Callable[[Net, int, int], int]:
    return lambda net, x, y: net.op(code, [x, y], net.shape(x), options=Table(options, **fields))


_MUL, _ADD = op("MUL", "MulOptions"), op("ADD", "AddOptions")
_MAXIMUM = op("MAXIMUM", "MaximumMinimumOptions")
_SHAPE = (37, 129)


def total(net: Net, x: int, code: str = "SUM") -> int:
    shape = net.shape(x)
    return net.op(code, [x, net.constant([0], "INT32")], shape[1:], options=Table("ReducerOptions"))


def reshape(net: Net, x: int, *shape: int) -> int:
    return net.op("RESHAPE", [x, net.constant(shape, "INT32")], shape, options=Table("ReshapeOptions"))


def unlimited(net: Net, x: int) -> int:
    return _MAXIMUM(net, x, net.constant(-np.inf))


def energy(net: Net) -> int:
    x = net.input(_SHAPE)
    return total(net, _MUL(net, x, x))


def read_by_two(net: Net) -> int:
    x = net.input(_SHAPE)
    squares = net.unary("SQUARE", x)
    return _ADD(net, net.unary("TANH", squares), total(net, squares))


def a_result(net: Net) -> list[int]:
    squares = net.unary("SQUARE", net.input(_SHAPE))
    return [squares, total(net, squares, "MEAN")]


def limits_between(net: Net) -> int:
    return total(net, unlimited(net, net.unary("SQUARE", net.input(_SHAPE))))


def limits_before(net: Net) -> int:
    x = net.input(_SHAPE)
    return total(net, _MUL(net, unlimited(net, x), x))


def limited(first: str, limit: float, *then: str) -> Callable[[Net], int]:
    """Limits: the first one by a number, the others by 0, or as they are called."""

    def make(net: Net) -> int:
        x = net.op(first, [net.input(_SHAPE), net.constant(limit)], _SHAPE)
        for code in then:
            x = net.unary(code, x) if code.startswith("RELU") else net.op(code, [x, net.constant(0.0)], _SHAPE)
        return x

    return make


def same_shape_again(net: Net) -> int:
    x = reshape(net, net.input((37 * 129,)), *_SHAPE)
    return total(net, reshape(net, net.unary("SQUARE", net.unary("TANH", x)), *_SHAPE))


def same_shape_of_an_input(net: Net) -> int:
    return total(net, reshape(net, net.unary("SQUARE", net.input(_SHAPE)), *_SHAPE))


def diamond(net: Net) -> int:
    x = reshape(net, net.input((37 * 129,)), *_SHAPE)
    sums = _ADD(net, net.unary("TANH", x), net.unary("ABS", x))
    return total(net, reshape(net, net.unary("SQUARE", sums), *_SHAPE))


def other_shape(net: Net) -> int:
    return total(net, reshape(net, net.unary("SQUARE", net.input(_SHAPE)), 37, 3, 43))


def activation(net: Net) -> int:
    x = net.input(_SHAPE)
    return total(net, op("MUL", "MulOptions", fused_activation_function=1)(net, x, x))


def two_tensors(net: Net) -> int:
    return total(net, _MUL(net, net.input(_SHAPE), net.input(_SHAPE)))


def deviation(net: Net) -> int:
    x = net.input(_SHAPE)
    mean = net.op("MEAN", [x, net.constant([0], "INT32")], (1, 129), options=Table("ReducerOptions", keep_dims=True))
    rest = op("SUB", "SubOptions")(net, x, mean)
    return total(net, _MUL(net, rest, rest), "MEAN")


def integers(net: Net, zero_point: int = 0, scale: Any = 0.05) -> int:
    x = net.input((2, 33, 19), "INT8", scale=scale, zero_point=zero_point)
    return net.op("DEQUANTIZE", [x], net.shape(x), options=Table("DequantizeOptions"))


def product(net: Net, y: int, transposed: bool = False) -> int:
    x, columns = net.input((2, 7, 33)), net.shape(y)[1 if transposed else 2]
    return net.op("BATCH_MATMUL", [x, y], (2, 7, columns), options=Table("BatchMatMulOptions", adj_y=transposed))


def transposed(net: Net) -> int:
    y = net.op("TRANSPOSE", [integers(net), net.constant([0, 2, 1], "INT32")], (2, 19, 33))
    return product(net, y, True)


def weights_read_by_two(net: Net) -> list[int]:
    y = integers(net)
    return [product(net, y), net.unary("TANH", y)]


def weights_read_by_nobody_else(net: Net) -> int:
    """What reads them, too, leads to no result."""
    y = integers(net)
    net.unary("TANH", y)
    return product(net, y)


def pooled(net: Net) -> int:
    options = Table("Pool2DOptions", stride_w=2, stride_h=2, filter_width=2, filter_height=2, padding=1)
    return net.op("MAX_POOL_2D", [net.input((1, 6, 10, 13))], (1, 3, 5, 13), options=options)


def pooled_result(net: Net) -> list[int]:
    x = pooled(net)
    return [x, net.unary("RELU", x)]


PATTERNS: dict[Callable[[Net], Any], tuple[int, ...]] = {
    energy: (1,),
    read_by_two: (1, 2),
    a_result: (1,),
    limits_between: (1, 2),
    limits_before: (1, 2),
    same_shape_again: (1, 2, 3, 4),
    diamond: (1, 2, 3, 4, 5, 6),
    same_shape_of_an_input: (),
    other_shape: (),
    activation: (),
    two_tensors: (),
    deviation: (3,),
    lambda net: product(net, integers(net)): (1,),
    lambda net: product(net, unlimited(net, integers(net))): (1, 2),
    transposed: (1, 2),
    weights_read_by_two: (),
    lambda net: product(net, integers(net, zero_point=3)): (),
    lambda net: product(net, integers(net, scale=[0.05, 0.06])): (),
    lambda net: net.unary("RELU", pooled(net)): (1,),
    lambda net: _MAXIMUM(net, pooled(net), net.constant(0.0)): (1,),
    lambda net: _MAXIMUM(net, pooled(net), net.constant(1.0)): (),
    lambda net: net.unary("RELU", net.unary("RELU_N1_TO_1", pooled(net))): (1, 2),
    pooled_result: (),
    limited("MAXIMUM", 0.5, "MINIMUM"): (1,),
    limited("MAXIMUM", -0.5, "MINIMUM"): (),
    limited("MINIMUM", -0.5, "MAXIMUM"): (1,),
    limited("MINIMUM", -0.5, "RELU"): (1,),
    limited("MINIMUM", 0.5, "RELU6"): (),
    limited("MINIMUM", -0.5, "RELU_N1_TO_1", "RELU6"): (1, 2),
    limited("MAXIMUM", 0.5, "RELU6", "MINIMUM"): (1, 2),
}


def built(make: Callable[[Net], Any]) -> Model:
    net = Net()
    results = make(net)
    return load_model(net.write(*([results] if isinstance(results, int) else results)))


@pytest.mark.parametrize("make", PATTERNS)
def test_patterns_that_are_refused(make: Callable[[Net], Any]) -> None:
    model = built(make)
    assert tuple(model.refused) == PATTERNS[make]
    assert model.with_runtime(OTHER).cuts == tuple(range(model.n + 1))
    assert model.with_runtime(Runtime(kernels="reference")).refused == {}


@needs_litert
@pytest.mark.parametrize("kernels", ["default", "no-delegate", "reference"])
@pytest.mark.parametrize("make", PATTERNS)
def test_patterns_that_change_bits(make: Callable[[Net], Any], kernels: Kernels) -> None:
    model = built(make)
    payloads = [values(model, 0), values(model, 1), values(model, 2, odd=True)]
    changed = [cut for cut in range(1, model.n) if Halves(model, cut).changes(payloads, kernels)]
    assert tuple(changed) == (PATTERNS[make] if kernels == "default" else ())


def test_what_reads_without_a_result_does_not_count() -> None:
    assert 1 in built(weights_read_by_nobody_else).refused


# what follows for a user


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """3 steps; under the default kernels a cut at 1 changes bits."""
    net = Net()
    path = tmp_path / "energy.tflite"
    path.write_bytes(net.write(net.unary("SQRT", energy(net))))
    return path


def test_the_reason_names_both_operators(file: Path) -> None:
    model = load_model(file)
    assert model.cuts == (0, 2, 3)
    why = model.refused[1]
    assert "operator 0 (MUL)" in why and "operator 1 (SUM)" in why and "no-delegate" in why
    for ask in (model.split, model.boundary, model.returned, lambda cut: model.part(0, cut)):
        with pytest.raises(NotCuttable, match=r"operator 0 \(MUL\) and operator 1 \(SUM\)"):
            ask(1)


def test_other_kernels_have_other_cuts(file: Path) -> None:
    model = load_model(file)
    other = load_model(file, runtime=OTHER)
    assert other.cuts == model.with_runtime(OTHER).cuts == (0, 1, 2, 3)
    assert other.with_runtime(Runtime(threads=2)).cuts == (0, 2, 3)
    assert other.with_runtime(None) is other
    assert other.digest == model.digest
    assert [other.boundary(cut) for cut in model.cuts] == [model.boundary(cut) for cut in model.cuts]
    assert other.with_sink("edge").cuts == (0, 1, 2, 3)
    assert model.with_sink("edge").cuts == (0, 2, 3)


def double(x: Any) -> Any:
    return 2 * x


def test_chains(file: Path) -> None:
    chain = si.tasks([double], version="1") + load_model(file)
    assert chain.cuts == (0, 1, 3, 4)
    assert chain.with_runtime(OTHER).cuts == (0, 1, 2, 3, 4)
    assert chain.with_runtime(OTHER).digest == chain.digest
    functions = si.tasks([double], version="1") + si.tasks([double], version="1")
    assert functions.with_runtime(OTHER) is functions


@needs_litert
def test_parts_refuse_the_kernels(file: Path, tmp_path: Path) -> None:
    model = load_model(file, runtime=OTHER)
    x = values(model, 0)
    for part in model.split(1):
        saved = ModelPart.load(part.save(tmp_path / "part.tflite"))
        assert saved.fused == part.fused != ""
        for opened in (part, saved):
            with pytest.raises(NotCuttable, match="SUM"):
                opened.open(Runtime())
            opened.open(OTHER).close()
        with pytest.raises(NotCuttable, match="SUM"):
            saved.open()
    with si.Runner(model, runtime=Runtime()) as runner, pytest.raises(NotCuttable, match="SUM"):
        runner.run(0, 1, x)
    assert model.part(0, 2).fused == ""


@needs_litert
def test_bundles(file: Path, tmp_path: Path) -> None:
    folder = save_bundle(load_model(file, runtime=OTHER), tmp_path / "bundle")
    bundle, other = load_bundle(folder), load_bundle(folder, runtime=OTHER)
    assert other.cuts == (0, 1, 2, 3)
    assert (0, 1) in other.parts and (1, 3) in other.files
    assert bundle.cuts == other.with_runtime(Runtime()).cuts == (0, 2, 3)
    assert bundle.with_runtime(OTHER).cuts == other.cuts
    assert not {(0, 1), (1, 3)} & {*bundle.parts, *bundle.files}
    assert bundle.digest == other.digest
    assert "SUM" in bundle.refused[1]
    for ask in (lambda: bundle.part(0, 1), lambda: bundle.boundary(1)):
        with pytest.raises(NotCuttable, match="SUM"):
            ask()
    with pytest.raises(NotCuttable, match="SUM"):
        save_bundle(load_model(file), tmp_path / "none", cuts=[1])
    x = values(load_model(file), 0)
    halves = [other.part(0, 1).run(x), other.part(0, 3).run(x)]
    sent, _ = other.divide(1, halves[0])
    for name, value in other.part(1, 3).run(sent).items():
        assert value.tobytes() == halves[1][name].tobytes()


@needs_litert
@pytest.mark.parametrize("kernels", ["default", "no-delegate", "reference"])
def test_verify(file: Path, kernels: Kernels) -> None:
    report = load_model(file).verify(runtime=Runtime(kernels=kernels))
    assert report.ok, str(report)
    assert [line.cut for line in report.lines] == ([0, 2, 3] if kernels == "default" else [0, 1, 2, 3])
    assert list(report.refused) == ([1] if kernels == "default" else [])


@needs_litert
@pytest.mark.parametrize("kernels", ["default", "no-delegate"])
def test_device_and_edge(file: Path, kernels: Kernels) -> None:
    """Every cut that both may choose gives the bits of the whole; a planner that knows more is held back."""
    model, runtime = load_model(file, runtime=OTHER), Runtime(kernels=kernels)
    x = values(model, 1)
    wanted = model.part(0, model.n).run(x, runtime)
    legal = (0, 2, 3) if kernels == "default" else (0, 1, 2, 3)
    with si.EdgeService([model], runtime=runtime) as service:
        (served,) = service.pipelines
        assert served.cuts == legal
        transport = si.InMemory(lambda frame: service.handle(frame, peer="me"))
        for cut in legal:
            with si.Device(
                model, transport, runtime=runtime, sample=x, policy=si.Fixed(cut), exact=True, cache=False
            ) as device:
                assert device.pipeline.cuts == legal
                outcome = device.run(x)
                assert outcome.plan is not None and outcome.plan.cut == cut and outcome.exact
                assert outcome.source == ("local" if cut == 3 else "edge")
                assert outcome.unwrap().tobytes() == next(iter(wanted.values())).tobytes()
        with si.Device(model, transport, runner=si.Runner(model, runtime=runtime), sample=x, cache=False) as device:
            assert device.pipeline.cuts == legal
            assert device.run(x).exact


@needs_litert
def test_a_planner_that_knows_the_pipeline_with_other_kernels(file: Path) -> None:
    model = load_model(file, runtime=OTHER)
    profile = si.TierProfile(model.digest, [0.0, 1e-6, 1.0, 2.0], [1.0, 1e-6, 1e-6, 0.0])
    link = si.Link(rtt_s=0.001, up_bytes_per_s=1e9, down_bytes_per_s=1e9)
    planner = si.Planner(model, si.Topology(tiers=[profile, profile], links=[link]))
    assert planner.decide(0.0).cut == 1
    service = si.EdgeService([model], runtime=Runtime())
    transport = si.InMemory(lambda frame: service.handle(frame, peer="me"))
    with si.Device(model, transport, runtime=Runtime(), planner=planner) as device:
        outcome = device.run(values(model, 0))
        assert outcome.plan is not None and outcome.plan.cut != 1
        outcome.unwrap()


@needs_litert
def test_a_profile_is_of_the_cuts_that_are_legal(file: Path) -> None:
    model = load_model(file)
    x = values(model, 0)
    with si.Runner(model, runtime=OTHER) as runner:
        assert runner.pipeline.cuts == (0, 1, 2, 3)
        profile = si.profile(model, x, runner=runner, budget_s=0.01)
    assert profile.runtime is not None and profile.runtime.kernels == "no-delegate"


# files with which users failed


@needs_litert
@pytest.mark.parametrize("kernels", ["default", "no-delegate", "reference"])
@pytest.mark.parametrize(("name", "n"), [("square_mean_keras", 6), ("square_sum_jax", 7)])
def test_files_of_users(name: str, n: int, kernels: Kernels, field_dir: Path) -> None:
    report = load_model(field_dir / f"{name}.tflite").verify(3, runtime=Runtime(kernels=kernels))
    assert report.ok, str(report)
    legal = [cut for cut in range(n + 1) if cut != 1 or kernels != "default"]
    assert [line.cut for line in report.lines] == legal
