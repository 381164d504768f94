"""Inputs and results by the names that the file's signature has, as its maker knows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitiot as si
from splitiot.errors import LocalProtocolError
from splitiot.models import load_bundle, load_model, save_bundle
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.writer import write_model
from tests.networks import Net

needs_litert = pytest.mark.extra("litert")
A, B = np.float32([[1, 2]]), np.float32([[10, 30]])
Names = Sequence[tuple[str, int]]


def two_in_two_out(inputs: Names, outputs: Names, key: str = "serving_default") -> bytes:
    """Gives the difference of its inputs, and its size. The tensors are called in0, in1, t2 and t3."""
    net = Net()
    a, b = net.input((1, 2)), net.input((1, 2))
    difference = net.op("SUB", [a, b], (1, 2), options=Table("SubOptions"))
    table = net.table(difference, net.unary("ABS", difference))
    named = {"inputs": entries(inputs), "outputs": entries(outputs)}
    signature = Table("SignatureDef", signature_key=key, subgraph_index=0, **named)
    return write_model(table.replace(signature_defs=[signature]))


def entries(names: Names) -> list[Table]:
    return [Table("TensorMap", name=name, tensor_index=index) for name, index in names]


NAMED = two_in_two_out([("left", 0), ("right", 1)], [("signed", 2), ("size", 3)])


def check(results: dict[str, Any], signed: str = "signed", size: str = "size") -> None:
    assert set(results) == {signed, size}
    assert results[signed].tolist() == [[-9, -28]]
    assert results[size].tolist() == [[9, 28]]


@needs_litert
def test_run_takes_either_names_and_gives_the_signature_s() -> None:
    model = load_model(NAMED)
    assert (dict(model.input_names), dict(model.result_names)) == (
        {"left": "in0", "right": "in1"},
        {"signed": "t2", "size": "t3"},
    )
    check(model.run({"right": B, "left": A}))
    check(model.run({"in0": A, "in1": B}))
    assert model.verify().ok


@needs_litert
def test_at_every_cut_and_over_a_service() -> None:
    model = load_model(NAMED)
    with si.EdgeService(model) as service:
        for cut in model.cuts:
            transport = si.InMemory(lambda frame: service.handle(frame, peer="me"))
            sample = {"left": A, "right": B}
            with si.Device(model, transport, sample=sample, policy=si.Fixed(cut), cache=False) as device:
                check(device.run(sample).unwrap())


@needs_litert
def test_in_a_chain_and_with_functions() -> None:
    def given(pair: Any) -> Any:
        return {"left": pair[0], "right": pair[1]}

    def taken(results: Any) -> float:
        return float(results["size"].sum() + results["signed"].sum())

    pipeline = si.tasks([given]) + load_model(NAMED) + si.tasks([taken])
    assert pipeline.run((A, B)) == 0.0


@needs_litert
def test_in_a_bundle(tmp_path: Path) -> None:
    model = load_model(NAMED)
    save_bundle(model, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    check(bundle.run({"left": A, "right": B}))
    check(bundle.run({"in0": A, "in1": B}))


@pytest.mark.parametrize("value", [{"left": A}, {"left": A, "in1": B}, {"left": A, "right": B, "more": B}, {}])
def test_other_names_are_refused(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"takes inputs \['left', 'right'\]"):
        load_model(NAMED).bind(value)


@needs_litert
@pytest.mark.parametrize(
    "inputs",
    [
        [("in1", 0), ("in0", 1)],  # another tensor's name
        [("left", 0)],
        [("left", 0), ("again", 0), ("right", 1)],
        [],
    ],
)
def test_names_that_could_mean_another_tensor_are_not_used(inputs: Names) -> None:
    model = load_model(two_in_two_out(inputs, [("t3", 2), ("t2", 3)]))
    assert (dict(model.input_names), dict(model.result_names)) == ({}, {})
    check(model.run({"in0": A, "in1": B}), "t2", "t3")


@needs_litert
def test_two_names_of_one_result() -> None:
    model = load_model(two_in_two_out([("left", 0), ("right", 1)], [("a", 2), ("b", 2), ("size", 3)]))
    results = model.run({"left": A, "right": B})
    assert set(results) == {"a", "b", "size"}
    assert results["a"].tolist() == results["b"].tolist() == [[-9, -28]]


@needs_litert
@pytest.mark.models
def test_a_file_with_two_signatures(models_dir: Path) -> None:
    path = models_dir / "odd" / "multi_signature.tflite"
    for key in ("enc", "dec"):
        model = load_model(path, signature=key)
        assert set(model.input_names.values()) == {spec.name for spec in model.inputs}
        by_name = {name: model.random_input()[tensor] for name, tensor in model.input_names.items()}
        one, other = model.run(by_name), model.run(model.random_input())
        assert np.array_equal(one, other)
