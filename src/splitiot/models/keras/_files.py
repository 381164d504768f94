"""Files of Keras models, read without running code from them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from splitiot._files import open_regular
from splitiot.errors import MalformedModel, UnsupportedModel
from splitiot.models.keras._convert import first_line

__all__ = ["load_file"]

_MOST_BYTES = 1 << 34  # Keras reads it in pieces


def load_file(path: Path) -> Any:
    """Load a ``.keras`` or ``.h5`` file.

    Raises
    ------
    MalformedModel
        The file is broken.
    UnsupportedModel
        It is no Keras file that can be loaded. The message says what to do.
    """
    import keras

    if path.is_dir():
        raise UnsupportedModel(
            f"{path.name} is a folder: convert a SavedModel with tf.lite.TFLiteConverter.from_saved_model, and "
            "give the result to splitiot.load_model"
        )
    with open_regular(path, most_bytes=_MOST_BYTES, what="a Keras file", error=UnsupportedModel) as file:
        start = file.read(8)
    if start[4:8] == b"TFL3":
        raise UnsupportedModel(f"{path.name} is a TFLite file: use splitiot.load_model")
    if start == b"\x89HDF\r\n\x1a\n":
        _refuse_code(path)
    elif start[:2] != b"PK":
        raise UnsupportedModel(f"{path.name} is neither a .keras nor an .h5 file")
    elif path.suffix != ".keras":  # Keras goes by the name
        raise UnsupportedModel(f"{path.name} is a ZIP archive; if it is a Keras model, call it {path.stem}.keras")
    try:
        return keras.saving.load_model(path, custom_objects=_replacements(), compile=False, safe_mode=True)
    except UnsupportedModel:
        raise
    except Exception as error:  # Keras raises whatever the file made it stumble over
        if _is_keras_2(path):
            return _load_legacy(path, first_line(error))
        raise UnsupportedModel(
            f"Keras {keras.__version__} can't load {path.name}: {first_line(error)} (It has layers of your own? Load "
            "it by yourself with custom_objects=, and give the model)"
        ) from error


def _is_keras_2(path: Path) -> bool:
    """Whether a file that can be read says that Keras 2 (or older) wrote it."""
    import h5py

    if path.suffix == ".keras":
        return False
    with h5py.File(path, "r") as file:
        version = file.attrs.get("keras_version", b"")
    text = version.decode("utf-8", "replace") if isinstance(version, bytes) else str(version)
    return text.startswith(("1.", "2."))


def _load_legacy(path: Path, why: str) -> Any:
    """Load a file of Keras 2 with tf-keras, which is Keras 2."""
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own
            import tf_keras
    except ImportError as error:
        raise UnsupportedModel(
            f"{path.name} was written by Keras 2, and Keras {keras.__version__} can't load it: {why} "
            "tf-keras can: pip install tf-keras, and try again"
        ) from error
    try:
        return tf_keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise UnsupportedModel(
            f"neither Keras {keras.__version__} nor tf-keras {tf_keras.__version__} can load {path.name}: "
            f"{first_line(error)} (It has layers of your own? Load it by yourself with custom_objects=, and give the "
            "model)"
        ) from error


def _refuse_code(path: Path) -> None:
    """Refuse an .h5 file with Lambda layers: they are Python bytecode, which loading would run later."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            config = None if text is None else json.loads(text)
    except (OSError, ValueError, RuntimeError, RecursionError) as error:
        raise MalformedModel(f"{path.name} is broken: {first_line(error)}") from error
    if config is None:
        raise UnsupportedModel(f"{path.name} has weights only, no model: save it with model.save()")
    pending = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if item.get("class_name") == "Lambda":
                raise UnsupportedModel(
                    f"{path.name} has a Lambda layer, which is code: if you trust it, load the model by yourself and "
                    "give the model"
                )
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _replacements() -> dict[str, Any]:
    """Layers under whose names old files have arguments that Keras 3 does not take."""
    import keras

    class DepthwiseConv2D:
        """Makes Keras' own layer: a class of ours would be one that nobody else can load."""

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            groups = config.get("groups", 1)
            if groups != 1:
                raise UnsupportedModel(f"DepthwiseConv2D with groups={groups} means nothing in Keras 3")
            plain = {key: value for key, value in config.items() if key != "groups"}
            return keras.layers.DepthwiseConv2D.from_config(plain)

    return {"DepthwiseConv2D": DepthwiseConv2D}
