"""Networks that are well-formed flatbuffers and mean nothing: each is refused with what and where."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.errors import MalformedModel, ModelError, UnsupportedModel
from splitiot.models import load_model
from splitiot.models.tflite.graph import decode
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.validate import validate
from splitiot.models.tflite.writer import write_model
from tests import networks
from tests.networks import Net


def check(data: bytes) -> None:
    validate(decode(read_model(data)))


@pytest.mark.parametrize("make", networks.SOUND, ids=lambda f: f.__name__)
def test_sound_networks_pass(make: Callable[[], bytes]) -> None:
    check(make())


def test_sound_files_pass(models_dir: Path) -> None:
    files = sorted(models_dir.rglob("*.tflite"))
    assert files
    for file in files:
        check(file.read_bytes())


def change(edit: Callable[[Net], object]) -> bytes:
    """Make a small network, change something and write it."""
    net = Net()
    x = net.input((1, 6, 6, 2))
    y = net.unary("RELU", net.conv(x, 4))
    net.outputs = [net.op("SOFTMAX", [y], net.shape(y), options=Table("SoftmaxOptions", beta=1.0))]
    edit(net)
    return net.write()


def _set(tables: str, index: int, **fields: object) -> Callable[[Net], object]:
    def edit(net: Net) -> None:
        getattr(net, tables)[index].fields.update(fields)

    return edit


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def _quantise(**fields: object) -> Callable[[Net], object]:
    table = {"scale": np.ones(1, np.float32), "zero_point": np.zeros(1, np.int64)} | fields
    return lambda net: (
        net.tensors[2].fields.update(
            type=9, shape=_ints(4), quantization=Table("QuantizationParameters", **table), buffer=0
        )
        or net.operators[0].fields.update(inputs=_ints(0, 1))
    )


def _options(index: int, **fields: object) -> Callable[[Net], object]:
    return lambda net: net.operators[index]["builtin_options"].fields.update(fields)


# the tensors: 0 input, 1 weights (4, 3, 3, 2), 2 bias (4), 3 convolution, 4 RELU, 5 SOFTMAX
BROKEN = {
    "code": (_set("operators", 0, opcode_index=9), r"operator 0: operator code 9 is not there"),
    "input": (lambda net: net.inputs.append(99), r"input 99 is not there"),
    "negative input": (lambda net: net.inputs.append(-1), r"input -1 is not there"),
    "twice an input": (lambda net: net.inputs.append(0), r"listed twice"),
    "constant input": (lambda net: net.inputs.append(1), r"is an input, but the file gives its contents"),
    "output": (lambda net: net.outputs.append(99), r"output 99 is not there"),
    "output from nowhere": (lambda net: net.outputs.append(net.tensor((3,))), r"output tensor 6 't6': nothing makes"),
    "the first tensor from nowhere": (lambda net: net.inputs.clear(), r"it reads tensor 0 'in0', but nothing makes it"),
    "operator input": (_set("operators", 1, inputs=_ints(77)), r"operator 1 \(RELU\): tensor 77 is not there"),
    "operator output": (_set("operators", 1, outputs=_ints(-2)), r"tensor -2 is not there"),
    "intermediate": (_set("operators", 1, intermediates=_ints(50)), r"tensor 50 is not there"),
    "buffer": (_set("tensors", 1, buffer=1000), r"tensor 1 't1': buffer 1000 is not there"),
    "buffer length": (_set("tensors", 1, shape=_ints(4, 3, 3, 3)), r"has 288 bytes, FLOAT32\[4, 3, 3, 3\] needs 432"),
    "negative size": (_set("tensors", 3, shape=_ints(1, -6, 6, 4)), r"negative sizes"),
    "rank": (_set("tensors", 3, shape=_ints(*[1] * 9)), r"9 dimensions, more than 8"),
    "huge": (_set("tensors", 3, shape=_ints(1, 2**31 - 1, 2**31 - 1, 4)), r"takes more than 2 GB"),
    "signature": (_set("tensors", 3, shape_signature=_ints(-1, 6)), r"differ in length"),
    "signature sizes": (_set("tensors", 3, shape_signature=_ints(1, 5, 6, 4)), r"does not fit its signature"),
    "type": (_set("tensors", 3, type=100), r"tensor type 100 is newer"),
    "variable with contents": (_set("tensors", 1, is_variable=True), r"is a variable, but the file holds contents"),
    "writes a constant": (_set("operators", 1, outputs=_ints(1)), r"writes tensor 1 't1', which is an input"),
    "writes an input": (_set("operators", 1, outputs=_ints(0)), r"writes tensor 0 'in0', which is an input"),
    "arity": (_set("operators", 1, inputs=_ints(3, 3)), r"operator 1 \(RELU\): 2 inputs, expected 1"),
    "outputs": (_set("operators", 1, outputs=_ints(4, -1)), r"operator 1 \(RELU\): 2 outputs, expected 1"),
    "absent input": (_set("operators", 0, inputs=_ints(0, -1, 2)), r"an input that it needs is absent"),
    "wrong options": (_set("operators", 0, builtin_options=Table("AddOptions")), r"AddOptions, expected Conv2DOptions"),
    "no options": (lambda net: net.operators[0].fields.pop("builtin_options"), r"\(Conv2DOptions\) are missing"),
    "stride": (_options(0, stride_w=0), r"stride_w must be at least 1, it is 0"),
    "negative stride": (_options(0, stride_h=-1), r"stride_h must be at least 1"),
    "dilation": (_options(0, dilation_wfactor=0), r"dilation_wfactor must be at least 1"),
    "padding": (_options(0, padding=5), r"padding must be in 0..1"),
    "activation": (_options(0, fused_activation_function=99), r"fused_activation_function must be in 0..5"),
    "convolution rank": (_set("tensors", 0, shape=_ints(1, 72)), r"needs an image and weights of 4 dimensions"),
    "infinite scale": (_quantise(scale=np.array([np.inf], np.float32)), r"a scale is not finite"),
    "NaN scale": (_quantise(scale=np.array([np.nan], np.float32)), r"a scale is not finite"),
    "zero scale": (_quantise(scale=np.zeros(1, np.float32)), r"a scale is not finite and greater than 0"),
    "scales": (_quantise(scale=np.ones(3, np.float32), zero_point=np.zeros(3, np.int64)), r"3 scales along dimension"),
    "zero points": (_quantise(zero_point=np.zeros(2, np.int64)), r"1 scales, but 2 zero points"),
    "zero point": (_quantise(zero_point=np.array([300])), r"a zero point lies outside INT8's"),
    "axis": (_quantise(quantized_dimension=4), r"quantised along dimension 4 of 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_networks_are_refused(case: str) -> None:
    edit, message = BROKEN[case]
    check(change(lambda net: None))
    with pytest.raises((MalformedModel, UnsupportedModel), match=message):
        check(change(edit))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (networks.disordered, r"operator 0 \(RELU\): it reads tensor 1 't1', but operator 1 \(TANH\) makes it"),
        (networks.written_twice, r"operator 1 \(RELU\): tensor 1 't1' is written twice, operator 0 \(TANH\) writes it"),
        (networks.external_buffer, r"tensor 0 't0' keeps its weights in an external buffer"),
        (networks.unknown_field, r"Operator has a field in slot 14"),
    ],
)  # fmt: skip
def test_refused_whole(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(make())


def _subgraphs(edit: Callable[[Net, Net], object]) -> bytes:
    """A WHILE whose body adds 1; `edit` breaks it."""
    net = Net()
    x = net.input((), "INT32")
    condition, body = net.subgraph("condition"), net.subgraph("body")
    i = condition.input((), "INT32", "ci")
    less = Table("LessOptions")
    condition.outputs = [condition.op("LESS", [i, condition.constant(5, "INT32")], (), "BOOL", options=less)]
    i = body.input((), "INT32", "bi")
    add = Table("AddOptions")
    body.outputs = [body.op("ADD", [i, body.constant(1, "INT32")], (), "INT32", options=add)]
    options = Table("WhileOptions", cond_subgraph_index=1, body_subgraph_index=2)
    y = net.op("WHILE", [x], (), "INT32", options=options)
    edit(net, body)
    return net.write(y)


def _body_calls(target: int) -> Callable[[Net, Net], object]:
    def edit(net: Net, body: Net) -> None:
        options = Table("WhileOptions", cond_subgraph_index=1, body_subgraph_index=target)
        body.outputs = [body.op("WHILE", [body.outputs[0]], (), "INT32", options=options)]

    return edit


def _while(**fields: int) -> Callable[[Net, Net], object]:
    return lambda net, body: net.operators[0]["builtin_options"].fields.update(fields)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_while(body_subgraph_index=7), "subgraph 7 is not"),
        (_while(cond_subgraph_index=-1), "subgraph -1 is not"),
        (_while(cond_subgraph_index=2), "must give one BOOL"),
        (lambda net, body: body.outputs.clear(), r"subgraph 2 gives \[\], the operator has \['INT32'\]"),
        (lambda net, body: body.inputs.__setitem__(0, 40), "input 40 is not there"),
        (_body_calls(2), "subgraph 2: it calls subgraph 2, which calls it"),
        (_body_calls(0), "which calls it"),
    ],
)  # fmt: skip
def test_broken_subgraphs(edit: Callable[[Net, Net], object], message: str) -> None:
    check(_subgraphs(lambda net, body: None))
    with pytest.raises(MalformedModel, match=message):
        check(_subgraphs(edit))


def test_deep_calls_are_refused() -> None:
    net = Net()
    x = net.input((1,))
    graphs = [net, *(net.subgraph(f"g{i}") for i in range(200))]
    for graph, following in itertools.pairwise(graphs):
        inside = x if graph is net else graph.input((1,), name=f"in_{graph.name}")
        options = Table("CallOptions", subgraph=following.index)
        graph.outputs = [graph.op("CALL", [inside], (1,), options=options)]
    last = graphs[-1]
    last.outputs = [last.unary("RELU", last.input((1,), name="last"))]
    with pytest.raises(MalformedModel, match="nested more than 64 deep"):
        check(net.write())


def _sparse(**changes: object) -> bytes:
    model = read_model(networks.sparse())
    sparsity = model["subgraphs"][0]["tensors"][1]["sparsity"]
    sparsity["dim_metadata"][1].fields.update(
        {k: Table("Int32Vector", values=v) for k, v in changes.items() if k.startswith("array")}
    )
    sparsity.fields.update({k: v for k, v in changes.items() if not k.startswith("array")})
    return write_model(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"array_indices": _ints(0, 2, 900)}, "an index leaves the tensor"),
        ({"array_indices": _ints(0, 2)}, "segments do not fit"),
        ({"array_segments": _ints(0, 3, 1)}, "segments do not fit"),
        ({"traversal_order": _ints(0, 0)}, "do not fit its shape"),
        ({"block_map": _ints(1)}, "do not fit its shape"),
    ],
)
def test_broken_sparsity(changes: dict[str, object], message: str) -> None:
    check(_sparse())
    with pytest.raises(MalformedModel, match=message):
        check(_sparse(**changes))


def test_strings_are_checked() -> None:
    def strings(count: int, *offsets: int) -> bytes:
        net = Net()
        raw = struct.pack(f"<i{len(offsets)}i", count, *offsets) + b"abcd"
        x = net.tensor((2,), "STRING", data=raw)
        net.input((1,), "INT32")
        return net.write(net.op("GATHER", [x, 1], (1,), "STRING", options=Table("GatherOptions")))

    check(strings(2, 16, 18, 20))
    for broken in (strings(3, 16, 18, 20), strings(2, 16, 18, 90), strings(2, 16, 14, 20), strings(-1, 16, 18, 20)):
        with pytest.raises(MalformedModel, match="string"):
            check(broken)


def test_scales_that_are_computed_with() -> None:
    for index in (0, 1, 3):  # the input, the weights, what the first convolution gives
        table = read_model(networks.quantised())
        del table["subgraphs"][0]["tensors"][index].fields["quantization"]
        with pytest.raises(MalformedModel, match=f"operator 0 .CONV_2D.: tensor {index} .* is INT8 without a scale"):
            check(write_model(table))


def test_resources_are_resources() -> None:
    table = read_model(networks.counter())
    table["subgraphs"][0]["tensors"][1].fields["type"] = 0
    with pytest.raises(
        MalformedModel, match=r"operator 1 \(VAR_HANDLE\): tensor 1 't1' is FLOAT32, it must be a RESOURCE"
    ):
        check(write_model(table))


def test_nothing_to_run() -> None:
    with pytest.raises(MalformedModel, match="no subgraph"):
        load_model(write_model(Table("Model", version=3)))
    with pytest.raises(MalformedModel, match="no operator or no output"):
        load_model(write_model(Table("Model", version=3, subgraphs=[Table("SubGraph")])))


@given(st.integers(0, 2**32 - 1))
def test_mutants_of_values(seed: int) -> None:
    """Numbers changed in sound tables: a ModelError, or a model whose parts can be written."""
    random = np.random.default_rng(seed)
    model = read_model(networks.SOUND[random.integers(len(networks.SOUND))]())
    tables: list[Table] = []

    def collect(table: Table) -> None:
        tables.append(table)
        for value in table.fields.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Table):
                    collect(item)

    collect(model)
    for _ in range(random.integers(1, 4)):
        table = tables[random.integers(len(tables))]
        keys = [k for k, v in table.fields.items() if isinstance(v, int | np.ndarray) and k != "data"]
        if not keys:
            continue
        key = keys[random.integers(len(keys))]
        value, new = table.fields[key], int(random.choice([-2, -1, 0, 1, 2, 3, 7, 100]))
        if isinstance(value, np.ndarray):
            changed = value.copy()
            if len(changed) and changed.dtype.kind in "if":
                changed[random.integers(len(changed))] = new
            table.fields[key] = changed
        elif not isinstance(value, bool):
            table.fields[key] = abs(new)
    before = time.perf_counter()
    try:
        loaded = load_model(write_model(model))
        if not any(t["shape_signature"] is not None for g in model["subgraphs"] for t in g["tensors"]):
            for cut in loaded.cuts[1:-1]:
                for part in loaded.split(cut):
                    check(part.to_bytes())
    except ModelError:
        pass
    assert time.perf_counter() - before < 5
