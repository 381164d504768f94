"""Files that are networks of another kind: each is refused with what it is and what to do instead."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from splitiot.errors import MalformedModel, UnsupportedModel
from splitiot.models import load_model
from splitiot.models.tflite.table import Table
from tests import networks
from tests.networks import Net


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return made.getvalue()


# ir_version 8, then producer_name "pytorch": what torch.onnx writes
ONNX = bytes([0x08, 0x08, 0x12, 0x07]) + b"pytorch" + bytes([0x3A, 0x02, 0x0A, 0x00])
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(40)
FILES = {
    "net.onnx": (ONNX, "an ONNX model: convert it .* onnx2tf"),
    "net.bin": (ONNX, "an ONNX model"),
    "broken.onnx": (b"garbage and more", "an ONNX model"),
    "net.pt": (archive("net/data.pkl", "net/version"), "a PyTorch file: .* litert_torch.convert"),
    "net.pth": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file"),
    "old.h5": (HDF5, "a Keras model: load it with splitiot.models.from_keras"),
    "new.keras": (archive("metadata.json", "config.json", "model.weights.h5"), "a Keras model: .*from_keras"),
    "saved_model.pb": (b"\x08\x01\x12\x80abcdefgh", r"a TensorFlow SavedModel: .*from_saved_model\(folder\)"),
    "graph.pb": (b"\x0a\x80\x01abcdefgh", "a TensorFlow SavedModel"),
    "net.pte": (b"\x1c\0\0\0ET12" + bytes(8), "an ExecuTorch program"),
    "export.zip": (archive("readme.txt", "trained.tflite"), "a zip archive: unpack it, and load trained.tflite"),
    "else.zip": (archive("readme.txt"), "a zip archive, and no .tflite file"),
    "cut.zip": (b"PK\x03\x04" + bytes(30), "a broken zip archive"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    data, words = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UnsupportedModel, match=f"{name} is .*{words}"):
        load_model(path)


def test_bytes_too() -> None:
    with pytest.raises(UnsupportedModel, match="this file is a Keras model"):
        load_model(HDF5)


def test_saved_model_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(UnsupportedModel, match=r"SavedModel: .*TFLiteConverter\.from_saved_model"):
        load_model(tmp_path)


def test_any_other_folder(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"is a folder, and no regular file: give a \.tflite file"):
        load_model(tmp_path)


@pytest.mark.parametrize("data", [b"", b"abc", b"\0" * 100, b"text and no network", b"\x08\x08\x99" + bytes(20)])
def test_what_is_nothing_known_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedModel, match="not a TFLite file"):
        load_model(data)


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        ("edgetpu-custom-op", "compiled for the Edge TPU: .* that edgetpu_compiler was given"),
        ("ethos-u", "compiled by Vela for an Ethos-U: .* that vela was given"),
    ],
)
def test_compiled_files(custom: str, words: str) -> None:
    net = Net()
    x, y = net.input((1, 4), "INT8", scale=0.1), net.tensor((1, 4), "INT8", scale=0.1)
    net.raw_op("CUSTOM", [x], [y], custom=custom)
    with pytest.raises(UnsupportedModel, match=words):
        load_model(net.write(y))


def test_other_custom_operators_are_taken() -> None:
    assert "is a custom operator" in load_model(networks.custom()).warnings[0]


# signatures


def two_signatures() -> bytes:
    net = Net()
    other = net.subgraph("other")
    y = net.unary("RELU", net.input((1, 4)))
    other.outputs = [other.unary("TANH", other.input((1, 4), name="z"))]
    table = net.table(y)
    table.fields["signature_defs"] = [
        Table("SignatureDef", signature_key=key, subgraph_index=index) for index, key in enumerate(("first", "second"))
    ]
    from splitiot.models.tflite.writer import write_model

    return write_model(table)


def test_several_signatures_without_a_choice_are_warned_of() -> None:
    model = load_model(two_signatures())
    assert model.signature == "first"
    (warning,) = model.warnings
    assert warning == "several signatures and none was chosen: it is 'first'; signature= takes 'second' as well"
    for key, index in (("first", 0), ("second", 1)):
        chosen = load_model(two_signatures(), signature=key)
        assert (chosen.warnings, chosen.subgraph, chosen.signature) == ((), index, key)
    with pytest.raises(UnsupportedModel, match="no signature 'third'; it has 'first', 'second'"):
        load_model(two_signatures(), signature="third")
