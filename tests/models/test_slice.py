"""What a part holds: every cut of random networks against a brute-force look at the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from splitiot.models import load_model
from splitiot.models.tflite.graph import Graph, decode
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.schema import OPERATORS
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.validate import validate
from splitiot.models.tflite.writer import write_model
from splitiot.pipeline import Sink
from tests import networks
from tests.share import examples

SINKS: tuple[Sink, ...] = ("device", "edge")


def graph_of(data: bytes) -> Graph:
    network = decode(read_model(data))
    validate(network)
    return network.graphs[0]


class Oracle:
    """Liveness by the definition, from the tables alone, slowly. Knows no subgraphs and no unnamed tensors."""

    def __init__(self, data: bytes) -> None:
        model = read_model(data)
        graph, buffers = model["subgraphs"][0], model["buffers"]
        tensors = graph["tensors"]
        self.names = [t["name"] for t in tensors]
        prepared = {i for i, t in enumerate(tensors) if buffers[t["buffer"]]["data"] is not None}
        codes = [OPERATORS[c["builtin_code"]] for c in model["operator_codes"]]
        self.steps: list[tuple[str, set[int], set[int]]] = []
        for operator in graph["operators"]:
            reads, makes = set(operator["inputs"].tolist()) - {-1}, set(operator["outputs"].tolist())
            if reads <= prepared:
                prepared |= makes
            else:
                self.steps.append((codes[operator["opcode_index"]], reads - prepared, makes))
        self.inputs = graph["inputs"].tolist()
        self.outputs = graph["outputs"].tolist()
        self.prepared = prepared

    def have(self, cut: int) -> set[int]:
        return set(self.inputs).union(*(makes for _, _, makes in self.steps[:cut]))

    def boundary(self, cut: int, sink: Sink) -> set[str]:
        if cut == 0:
            return {self.names[i] for i in self.inputs}
        if cut == len(self.steps) and sink == "device":
            return set()
        wanted = set().union(*(reads for _, reads, _ in self.steps[cut:]))
        if sink == "edge":
            wanted |= set(self.outputs) & (self.have(cut) | self.prepared)
            return {self.names[i] for i in wanted & (self.have(cut) | self.prepared)}
        return {self.names[i] for i in wanted & self.have(cut)}


def compare(data: bytes) -> None:
    oracle = Oracle(data)
    for sink in SINKS:
        model = load_model(data, sink=sink)
        assert [s.kind for s in model.steps] == [kind for kind, _, _ in oracle.steps]
        assert model.cuts == tuple(range(model.n + 1))
        for cut in model.cuts:
            assert set(model.boundary(cut).names) == oracle.boundary(cut, sink)
            results = {oracle.names[i] for i in oracle.outputs}
            early = {oracle.names[i] for i in oracle.outputs if cut and i in oracle.have(cut) | oracle.prepared}
            back = set(model.returned(cut).names)
            assert back == (set() if sink == "edge" else results - early)
            head, tail = model.split(cut)
            assert head.outputs.names[: len(model.boundary(cut).names)] == model.boundary(cut).names
            assert tail.inputs == model.boundary(cut)
            if 0 < cut < model.n:
                fits(oracle, data, model, cut, head.to_bytes(), tail.to_bytes())


def fits(oracle: Oracle, data: bytes, model: Any, cut: int, head: bytes, tail: bytes) -> None:
    """Both files are sound, minimal, named and typed like the boundary, and have every step between them."""
    whole = graph_of(data)
    types = {t.name: (t.type, t.shape) for t in whole.tensors}
    kinds: list[str] = []
    for part, bytes_ in zip(model.split(cut), (head, tail), strict=True):
        graph = graph_of(bytes_)
        steps = [o for o in graph.operators if not all(i < 0 or graph.tensors[i].constant for i in o.inputs)]
        kinds += [o.code for o in steps]
        assert tuple(graph.tensors[i].name for i in graph.inputs) == part.inputs.names
        assert tuple(graph.tensors[i].name for i in graph.outputs) == part.outputs.names
        used = {i for o in graph.operators for i in (*o.inputs, *o.outputs, *o.intermediates)} - {-1}
        assert used | {*graph.inputs, *graph.outputs} == set(range(len(graph.tensors)))
        assert all((t.type, t.shape) == types[t.name] for t in graph.tensors)
        model_table = read_model(bytes_)
        buffers = {t["buffer"] for t in model_table["subgraphs"][0]["tensors"]}
        buffers |= {m["buffer"] for m in model_table["metadata"]}
        assert buffers | {0} == set(range(len(model_table["buffers"])))
        assert {o["opcode_index"] for o in model_table["subgraphs"][0]["operators"]} == set(
            range(len(model_table["operator_codes"]))
        )
        (signature,) = model_table["signature_defs"]
        assert [m["name"] for m in signature["inputs"]] == list(part.inputs.names)
        assert [m["tensor_index"] for m in signature["outputs"]] == list(graph.outputs)
        for buffer in model_table["buffers"]:
            if (raw := buffer["data"]) is not None:
                start = raw.__array_interface__["data"][0] - np.frombuffer(bytes_, np.uint8).ctypes.data
                assert start % 16 == 0
        assert bytes_ == part.to_bytes()
    assert kinds == [kind for kind, _, _ in oracle.steps]


PLAIN = [f for f in networks.SOUND if f not in (networks.branches, networks.loop, networks.unnamed, networks.namesakes)]


@pytest.mark.parametrize("make", PLAIN, ids=lambda f: f.__name__)
def test_every_cut(make: Callable[[], bytes]) -> None:
    compare(make())


@given(networks.graphs())
def test_every_cut_of_random_networks(data: bytes) -> None:
    compare(data)


@given(networks.graphs(max_steps=6))
@settings(max_examples=examples(25))
def test_random_networks_are_exact(data: bytes) -> None:
    """head -> tail equals the whole, bit for bit, in the same interpreter."""
    pytest.importorskip("ai_edge_litert", reason="needs an interpreter")
    from splitiot.models.interpreters import open_interpreter

    random = np.random.default_rng(0)
    model = load_model(data)
    value = {s.name: random.standard_normal(s.shape, np.float32) for s in model.inputs}
    interpreter = open_interpreter(data)
    for position, spec in enumerate(model.inputs):
        interpreter.set(position, value[spec.name])
    interpreter.invoke()
    expected = {spec.name: interpreter.get(i) for i, spec in enumerate(model.outputs)}
    for sink in SINKS:
        cut_model = model.with_sink(sink)
        for cut in cut_model.cuts:
            head, tail = cut_model.split(cut)
            sent, kept = cut_model.divide(cut, head.run(cut_model.bind(value)))
            assert cut_model.boundary(cut).mismatch(sent) is None
            found = cut_model.join(kept, tail.run(sent))
            found = found if isinstance(found, dict) else {model.outputs[0].name: found}
            assert found.keys() == expected.keys()
            for name, array in expected.items():
                assert found[name].tobytes() == array.tobytes(), (sink, cut, name)


def test_constant_operators_are_copied() -> None:
    model = load_model(networks.constant_operator())
    assert [s.kind for s in model.steps] == ["CONV_2D", "RELU", "CONV_2D", "CONV_2D"]
    codes = [[o.code for o in graph_of(p.to_bytes()).operators] for p in model.split(2)]
    assert codes == [["DEQUANTIZE", "CONV_2D", "RELU"], ["DEQUANTIZE", "DEQUANTIZE", "CONV_2D", "CONV_2D"]]
    assert all(len(model.boundary(cut).names) == 1 for cut in range(4))


def test_random_operators_are_no_constant_operators() -> None:
    model = load_model(networks.random())
    assert [s.kind for s in model.steps] == ["TANH", "RANDOM_UNIFORM", "ADD"]
    assert "RANDOM_UNIFORM" in model.warnings[0]
    assert len(model.boundary(2).names) == 2


def test_subgraphs_go_along() -> None:
    model = load_model(networks.branches())
    head, tail = model.split(3)
    assert len(read_model(head.to_bytes())["subgraphs"]) == 1
    table = read_model(tail.to_bytes())
    assert [g["name"] for g in table["subgraphs"]] == ["main", "then", "else"]
    options = table["subgraphs"][0]["operators"][0]["builtin_options"]
    assert (options["then_subgraph_index"], options["else_subgraph_index"]) == (1, 2)


def test_sparse_constants_keep_their_sparsity() -> None:
    model = load_model(networks.sparse())
    assert [s.kind for s in model.steps] == ["FULLY_CONNECTED", "TANH"]
    graph = graph_of(model.part(0, 1).to_bytes())
    assert [o.code for o in graph.operators] == ["DENSIFY", "FULLY_CONNECTED"]
    assert any(t.table["sparsity"] is not None for t in graph.tensors)


def test_custom_options_go_along() -> None:
    model = load_model(networks.custom())
    assert "Wobble" in model.warnings[0]
    (_, operator) = graph_of(model.part(0, 2).to_bytes()).operators
    assert operator.custom == "Wobble"
    assert operator.table["custom_options"].tolist() == [0, 1, 2, 3, 4]


def test_names() -> None:
    model = load_model(networks.unnamed())
    assert model.boundary(1).names == ("tensor_3",)
    (output,) = graph_of(model.part(0, 1).to_bytes()).outputs
    assert graph_of(model.part(0, 1).to_bytes()).tensors[output].name == "tensor_3"
    assert load_model(networks.namesakes()).boundary(2).names == ("same", "same#2")


def test_min_runtime_version_is_kept() -> None:
    table = read_model(networks.chain())
    for name in ("min_runtime_version", "CONVERSION_METADATA"):
        table["buffers"].append(Table("Buffer", data=np.frombuffer(name.encode(), np.uint8)))
        entry = Table("Metadata", name=name, buffer=len(table["buffers"]) - 1)
        table.fields["metadata"] = [*(table["metadata"] or []), entry]
    part = read_model(load_model(write_model(table)).part(0, 2).to_bytes())
    assert [m["name"] for m in part["metadata"]] == ["min_runtime_version", "splitiot"]
    assert part["buffers"][part["metadata"][0]["buffer"]]["data"].tobytes() == b"min_runtime_version"


@pytest.mark.parametrize("make", [networks.chain, networks.loop], ids=lambda make: make.__name__)
def test_no_part_points_into_metadata_that_it_has_not(make: Callable[[], bytes]) -> None:
    """What describes operators and subgraphs for debuggers is left behind: an index would mean something else."""
    table = read_model(make())
    for graph in table["subgraphs"]:
        graph.fields["debug_metadata_index"] = 1
        for operator in graph["operators"]:
            operator.fields["debug_metadata_index"] = 2
    model = load_model(write_model(table))
    assert read_model(model.to_bytes())["subgraphs"][0]["operators"][0]["debug_metadata_index"] == 2
    inner = model.cuts[1:-1]
    for start, stop in ((0, model.n), *((0, cut) for cut in inner), *((cut, model.n) for cut in inner)):
        for graph in read_model(model.part(start, stop).to_bytes())["subgraphs"]:
            assert graph["debug_metadata_index"] == -1
            assert {operator["debug_metadata_index"] for operator in graph["operators"]} == {-1}
