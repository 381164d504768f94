"""Model and ModelPart: legal cuts, reasons, what goes in and out, saved parts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from splitiot.errors import (
    CutError,
    LocalProtocolError,
    MalformedModel,
    MissingDependencyError,
    NotCuttable,
    UnsupportedModel,
)
from splitiot.models import Model, ModelPart, load_model
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.writer import write_model
from splitiot.pipeline import NOTHING, UNTYPED, Boundary, Chain, TensorSpec
from tests import networks
from tests.networks import Net


@pytest.mark.parametrize(
    ("make", "legal", "cut", "words"),
    [
        (networks.counter, (0, 6, 7), 1, r"operator 0 \(CALL_ONCE\), through subgraph 1, .*variable 'count'.*both"),
        (networks.counter, (0, 6, 7), 3, r"operator 1 \(VAR_HANDLE\) makes tensor 1 't1': a RESOURCE lives inside one"),
        (networks.where, (0, 1, 2, 4), 3, r"operator 2 \(WHERE\) makes tensor 4 't4': its shape is not fixed"),
        (networks.int4_mid, (0, 2, 3), 1, r"operator 0 \(QUANTIZE\) makes tensor 1 't1': INT4 can't cross"),
        (networks.string_input, (2,), 0, r"tensor 0 'in0', an input of the model: STRING can't cross"),
        (networks.string_input, (2,), 1, r"operator 0 \(GATHER\) makes tensor 2 't2': STRING can't cross"),
        (networks.resource_mid, (0, 3, 4), 2, r"operator 1 \(VAR_HANDLE\) makes tensor 1 't1': a RESOURCE"),
    ],
)  # fmt: skip
def test_refused_cuts(make: Callable[[], bytes], legal: tuple[int, ...], cut: int, words: str) -> None:
    model = load_model(make())
    assert model.cuts == legal
    assert sorted((*model.cuts, *model.refused)) == list(range(model.n + 1))
    with pytest.raises(NotCuttable, match=words):
        model.split(cut)
    for ask in (model.boundary, model.returned):
        with pytest.raises(NotCuttable, match=words):
            ask(cut)
    if cut > 0:
        with pytest.raises(NotCuttable, match=words):
            model.part(cut, model.n)
    assert model.part(0, model.n).to_bytes()


def test_results_that_cant_cross_back() -> None:
    """STRING results are made by the last step: only n is legal on the device, nothing on the edge."""
    net = Net()
    x = net.unary("TANH", net.input((2,)))
    index = net.op("CAST", [x], (2,), "INT32", options=Table("CastOptions"))
    table = net.tensor((3,), "STRING", data=b"\x03\0\0\0\x14\0\0\0\x15\0\0\0\x16\0\0\0\x17\0\0\0abc")
    data = net.write(net.op("GATHER", [table, index], (2,), "STRING", options=Table("GatherOptions")))
    model = load_model(data)
    assert model.cuts == (3,)
    assert all("STRING can't cross" in why for why in model.refused.values())
    assert load_model(data, sink="edge").cuts == (0, 1, 2)


def test_shared_state_tensor_is_not_separated() -> None:
    net = Net()
    x = net.input((1, 4))
    state = net.tensor((1, 8), is_variable=True)
    for _ in range(2):
        options = Table("SVDFOptions", rank=1)
        inputs = [x, net.weights(4, 4), net.weights(4, 2), net.weights(4), state]
        x = net.op("SVDF", inputs, (1, 4), options=options)
    model = load_model(net.write(net.unary("RELU", x)))
    assert model.stateful
    assert model.cuts == (0, 2, 3)
    assert "operator 0 (SVDF) and operator 1 (SVDF) use subgraph 0's tensor 1 't1'" in model.refused[1]


@pytest.mark.parametrize(("make", "stateful"), [(networks.svdf, (1, 2)), (networks.counter, (0, 6))])
def test_state(make: Callable[[], bytes], stateful: tuple[int, int]) -> None:
    model = load_model(make())
    assert model.stateful
    assert model.part(0, model.n).stateful
    cut = stateful[1]
    assert model.part(0, cut).stateful
    assert not model.part(cut, model.n).stateful


def test_reading_a_variable_is_no_state() -> None:
    assert not load_model(networks.resource_mid()).stateful
    assert not load_model(networks.loop()).stateful


def test_early_outputs_stay_or_cross() -> None:
    model = load_model(networks.early_output())
    assert [t.name for t in model.outputs] == ["t4", "t9"]
    assert model.boundary(3).names == ("t5",)
    assert model.part(0, 3).outputs.names == ("t5", "t4")
    assert model.returned(3).names == ("t9",)
    assert model.returned(1).names == ("t4", "t9")
    assert model.part(3, 5).outputs == model.returned(3)
    # what the tail reads and is a result as well is in both
    payload = {"t4": np.zeros((1, 6, 6, 4), np.float32)}
    sent, kept = model.divide(2, payload)
    assert sent.keys() == kept.keys() == {"t4"}
    assert model.join(kept, {"t9": 1}).keys() == {"t4", "t9"}
    edge = model.with_sink("edge")
    assert edge.digest == model.digest
    assert edge.boundary(3).names == ("t5", "t4")
    assert edge.part(3, 5).passthrough == ("t4",)
    assert edge.part(3, 5).outputs.names == ("t4", "t9")
    assert edge.returned(3) == NOTHING
    assert edge.boundary(5).names == ("t4", "t9")
    assert model.boundary(5) == NOTHING


def test_inputs_pass_through() -> None:
    model = load_model(networks.two_inputs())
    assert model.boundary(0).names == ("left", "right")
    assert model.boundary(2).names == ("right", model.part(0, 2).outputs.names[1])
    assert model.part(0, 2).passthrough == ("right",)
    assert model.part(0, 4).passthrough == ()


def test_parts_without_steps() -> None:
    model = load_model(networks.skip())
    for cut in range(6):
        part = model.part(cut, cut)
        assert part.inputs == part.outputs == model.boundary(cut)
        with pytest.raises(CutError, match="no steps"):
            part.to_bytes()


def test_middle_parts() -> None:
    model = load_model(networks.skip())
    for start in range(6):
        for stop in range(start, 6):
            part = model.part(start, stop)
            assert part.inputs == model.boundary(start)
            assert part.outputs.names == (model.returned(0).names if stop == 5 > start else model.boundary(stop).names)


def test_no_such_cut() -> None:
    model = load_model(networks.chain())
    for ask in (model.boundary, model.returned, model.split):
        for cut in (-1, 5, True, 1.0):
            with pytest.raises(CutError, match=r"is not in 0\.\.4"):
                ask(cut)  # type: ignore[arg-type]
    with pytest.raises(CutError, match="lies before"):
        model.part(3, 1)


def test_digest() -> None:
    data = networks.chain()
    assert load_model(data).digest == load_model(data).digest
    assert load_model(data).digest != load_model(networks.skip()).digest
    assert load_model(data + b"\0").digest != load_model(data).digest
    assert len(load_model(data).digest) == 64


def test_bind() -> None:
    model = load_model(networks.chain())
    image = np.zeros((1, 6, 6, 2), np.float32)
    assert model.bind(image).keys() == {"in0"}
    assert model.bind({"in0": image})["in0"] is image
    assert model.bind(image.tolist())["in0"].dtype == np.float32
    assert model.bind(image[:, ::-1])["in0"].flags.c_contiguous
    assert model.bind(image.astype(">f4"))["in0"].dtype.isnative
    for wrong, words in [
        (image.astype(np.float64), r"'in0' of model is float64\[1, 6, 6, 2\], expected float32\[1, 6, 6, 2\]"),
        (image[0], r"is float32\[6, 6, 2\], expected"),
        ({"x": image}, r"takes inputs \['in0'\], got \['x'\]"),
        ([["a"]], "could not convert"),
        (None, "expected float32"),
    ]:
        with pytest.raises(LocalProtocolError, match=words):
            model.bind(wrong)
    with pytest.raises(LocalProtocolError, match="has 2 inputs: give a dict"):
        load_model(networks.two_inputs()).bind(image)


def test_scalar_inputs_stay_scalars() -> None:
    net = Net()
    data = net.write(net.unary("ABS", net.input(())))
    assert load_model(data).bind(2.0)["in0"].shape == ()


def test_quantisation_is_told() -> None:
    (spec,) = load_model(networks.quantised()).inputs
    assert spec == TensorSpec("in0", "int8", (1, 6, 6, 2), np.float32(0.05).item(), -3)


def test_chains() -> None:
    model = load_model(networks.early_output())
    chain = Chain([load_model(networks.chain()), model])
    assert chain.n == 9
    assert chain.boundary(6).names == model.boundary(2).names
    assert "4 steps" in repr(chain)


def test_signatures() -> None:
    table = read_model(networks.chain())
    table.fields["signature_defs"] = [
        Table("SignatureDef", signature_key="run", subgraph_index=0),
        Table("SignatureDef", signature_key="other", subgraph_index=1),
    ]
    other = read_model(networks.skip())
    # skip's operators, in a second subgraph of the same file
    shift = len(table["buffers"])
    for tensor in other["subgraphs"][0]["tensors"]:
        if "buffer" in tensor.fields:
            tensor.fields["buffer"] += shift
    codes = len(table["operator_codes"])
    for operator in other["subgraphs"][0]["operators"]:
        operator.fields["opcode_index"] = operator["opcode_index"] + codes
    table.fields["operator_codes"] = table["operator_codes"] + other["operator_codes"]
    table.fields["buffers"] = table["buffers"] + other["buffers"]
    table.fields["subgraphs"] = table["subgraphs"] + other["subgraphs"]
    data = write_model(table)
    first, second = load_model(data), load_model(data, signature="other")
    assert (first.n, first.signature, first.subgraph) == (4, "run", 0)
    assert (second.n, second.signature, second.subgraph) == (5, "other", 1)
    assert first.digest != second.digest
    alone = load_model(networks.skip()).part(0, 3)
    part = read_model(second.part(0, 3).to_bytes())
    assert part["subgraphs"] == read_model(alone.to_bytes())["subgraphs"]
    assert part["signature_defs"][0]["signature_key"] == "other"
    with pytest.raises(UnsupportedModel, match="no signature 'third'; it has 'run', 'other'"):
        load_model(data, signature="third")


def test_saved_parts(tmp_path: Path) -> None:
    model = load_model(networks.two_inputs())
    part = model.part(0, 2)
    path = part.save(tmp_path / "head.tflite")
    assert [p.name for p in tmp_path.iterdir()] == ["head.tflite"]
    again = ModelPart.load(path)
    assert again.to_bytes() == part.to_bytes() == path.read_bytes()
    for name in ("start", "stop", "n", "digest", "name", "inputs", "outputs", "passthrough", "sink", "stateful"):
        assert getattr(again, name) == getattr(part, name), name
    # a part is a model of its own
    assert load_model(path).cuts == (0, 1, 2)
    assert load_model(path).name == "head"
    with pytest.raises(MalformedModel, match="no part of a model"):
        ModelPart.load(networks.chain())
    table = read_model(part.to_bytes())
    table["subgraphs"][0]["tensors"][0].fields["name"] = "renamed"
    with pytest.raises(MalformedModel, match="not those of its description"):
        ModelPart.load(write_model(table))
    for raw in (b"", b"{}", b'{"format": 9}', b"[[["):
        table = read_model(part.to_bytes())
        table["buffers"][table["metadata"][-1]["buffer"]].fields["data"] = np.frombuffer(raw, np.uint8)
        with pytest.raises(MalformedModel, match="description"):
            ModelPart.load(write_model(table))


def test_save_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "head.tflite"
    target.mkdir()
    with pytest.raises(OSError, match="head"):
        load_model(networks.chain()).part(0, 2).save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["head.tflite"]


def test_from_file(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(networks.chain())
    model = load_model(path)
    assert model.name == "net"
    assert model.to_bytes() == networks.chain()
    assert repr(model) == f"<Model 'net': 4 steps, {path.stat().st_size} bytes>"
    assert load_model(str(path)).digest == model.digest
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.tflite")
    with pytest.raises(ValueError, match="sink must be"):
        load_model(path, sink="cloud")  # type: ignore[arg-type]


def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    from splitiot.models import probe

    def missing(*_: object, **__: object) -> None:
        raise MissingDependencyError("an interpreter (ai-edge-litert)", "litert")

    monkeypatch.setattr(probe, "child_shapes", missing)


def test_open_shapes_need_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    without_interpreter(monkeypatch)
    model = load_model(networks.open_input())
    assert "open sizes (1, -1, -1, 2)" in model.warnings[0]
    assert model.cuts == (0, 3)
    assert "operator 0 (MAX_POOL_2D) makes tensor 1 't1' needs an interpreter" in model.refused[1]
    assert 'pip install "splitiot[litert]"' in model.refused[1]
    assert model.returned(0) == UNTYPED
    assert load_model(networks.batch()).cuts == (0, 1, 2, 3, 4, 5)


def test_open_shapes_are_asked_and_baked() -> None:
    pytest.importorskip("ai_edge_litert", reason="needs an interpreter")
    model = load_model(networks.open_input())
    assert model.cuts == (0, 1, 2, 3)
    assert model.boundary(1) == Boundary((TensorSpec("t1", "float32", (1, 3, 3, 2)),))
    tail = read_model(model.part(1, 3).to_bytes())["subgraphs"][0]
    first = tail["tensors"][tail["inputs"][0]]
    assert first["shape"].tolist() == [1, 3, 3, 2]
    assert first["shape_signature"] is None
    image = np.random.default_rng(0).standard_normal((1, 6, 6, 2)).astype(np.float32)
    whole = model.run(image)
    for cut in model.cuts:
        head, tail_part = model.split(cut)
        sent, kept = model.divide(cut, head.run(model.bind(image)))
        assert np.array_equal(model.join(kept, tail_part.run(sent)), whole)


@pytest.mark.parametrize("make", [networks.branches, networks.quantised, networks.svdf], ids=lambda f: f.__name__)
def test_verify(make: Callable[[], bytes]) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs an interpreter")
    report = load_model(make()).verify()
    assert report.ok, str(report)


def test_a_batch_that_is_reshaped_away_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """[-1, 12, 8] -> [-1, 8] is stored as [1, 8], and is [12, 8]."""
    without_interpreter(monkeypatch)
    net = Net()
    x = net.input((1, 12, 8), shape_signature=np.array([-1, 12, 8], np.int32))
    free = {"shape_signature": np.array([-1, 8], np.int32)}
    y = net.op("RESHAPE", [x, net.constant([-1, 8], "INT32")], (1, 8), options=Table("ReshapeOptions"), **free)
    data = net.write(net.op("RELU", [y], (1, 8), **free))
    assert "needs an interpreter" in load_model(data).refused[1]


def test_loading_imports_no_interpreter() -> None:
    code = (
        "import sys; from splitiot.models import load_model\n"
        "m = load_model(sys.stdin.buffer.read()); m.cuts; [p.to_bytes() for p in m.split(2)]\n"
        "heavy = 'ai_edge_litert', 'tflite_runtime', 'tensorflow', 'flatbuffers', 'splitiot.models.execute'\n"
        "sys.exit(', '.join(h for h in heavy if h in sys.modules) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=networks.batch(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_model_is_a_pipeline() -> None:
    model = load_model(networks.chain())
    assert isinstance(model, Model)
    assert [s.kind for s in model.steps] == ["CONV_2D", "RELU", "CONV_2D", "LOGISTIC"]
    assert len({s.name for s in model.steps}) == 4
