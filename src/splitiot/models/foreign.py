"""Files that are networks, and no .tflite: what they are, and what to do instead.

They are known by their first bytes; nothing of them is loaded.
"""

from __future__ import annotations

import io
from pathlib import Path

from splitiot.errors import UnsupportedModel

__all__ = ["refuse_file", "refuse_folder"]

_CONVERT = "convert it with tf.lite.TFLiteConverter"
_SAVED_MODEL = f"a TensorFlow SavedModel: {_CONVERT}.from_saved_model(folder) and load the .tflite file"
_KERAS = "a Keras model: load it with splitiot.models.from_keras, or convert it to .tflite"
_TORCH = (
    "a PyTorch file: convert the network with litert-torch (once called ai-edge-torch), "
    "litert_torch.convert(model.eval(), sample).export('model.tflite')"
)
_ONNX = "an ONNX model: convert it to .tflite, for example with onnx2tf -i model.onnx"


def refuse_folder(path: Path) -> None:
    """Raise for a folder that is a network of another format.

    Raises
    ------
    UnsupportedModel
        It is a SavedModel.
    """
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        raise UnsupportedModel(f"{path.name} is {_SAVED_MODEL}")


def refuse_file(data: bytes, name: str) -> None:
    """Raise where a file is known to be of another format; `name` is only for the message and its suffix.

    Raises
    ------
    UnsupportedModel
        What it is, and what to do.

    Examples
    --------
    >>> refuse_file(bytes(16), "net.onnx")
    Traceback (most recent call last):
    splitiot.errors.UnsupportedModel: net.onnx is an ONNX model: convert it to .tflite, for example with ...
    """
    what = _what(data, Path(name).suffix.lower())
    if what:
        raise UnsupportedModel(f"{name} is {what}")


def _what(data: bytes, suffix: str) -> str | None:
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return _KERAS
    if data[:4] == b"PK\x03\x04":
        return _zip(data)
    if data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or suffix in (".pt", ".pth"):
        return _TORCH
    if data[4:8] == b"ET12" or suffix == ".pte":
        return "an ExecuTorch program: convert the network to .tflite instead, with litert-torch"
    if suffix in (".pb", ".pbtxt"):
        return _SAVED_MODEL
    if suffix == ".onnx" or _onnx(data):
        return _ONNX
    return None


def _zip(data: bytes) -> str | None:
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()[:10_000]
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return "a broken zip archive, and no .tflite file: get it again"
    if "config.json" in names and any(name.endswith("weights.h5") for name in names):
        return _KERAS
    if any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        return _TORCH
    if any(name.endswith("saved_model.pb") for name in names):
        return _SAVED_MODEL
    inner = next((name for name in names if name.endswith((".tflite", ".lite"))), None)
    return f"a zip archive: unpack it, and load {inner}" if inner else "a zip archive, and no .tflite file"


def _onnx(data: bytes) -> bool:
    """A protobuf that begins with ModelProto's ir_version (3 to 99), then a field that ModelProto has.

    A SavedModel begins alike, with a schema version of 1.
    """
    return len(data) > 8 and data[0] == 0x08 and 3 <= data[1] < 100 and data[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42)
