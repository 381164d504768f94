"""Keras models: converted whole and then cut between operators, or cut between layers."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from splitiot._files import open_regular
from splitiot.errors import MalformedModel, MissingDependencyError, UnsupportedModel
from splitiot.models._convert import Quantize, Samples, convert, first_line, fixed_inputs, is_legacy
from splitiot.pipeline import Runtime, Sink

if TYPE_CHECKING:
    from splitiot.models.layers import LayerPipeline
    from splitiot.models.model import Model

__all__ = ["from_keras"]


@overload
def from_keras(
    source: Any,
    *,
    quantize: Quantize | None = None,
    representative: Samples | None = None,
    granularity: Literal["operator"] = "operator",
    sink: Sink = "device",
    runtime: Runtime | None = None,
) -> Model: ...


@overload
def from_keras(
    source: Any,
    *,
    quantize: None = None,
    representative: None = None,
    granularity: Literal["layer"],
    sink: Sink = "device",
    runtime: Runtime | None = None,
) -> LayerPipeline: ...


def from_keras(
    source: Any,
    *,
    quantize: Quantize | None = None,
    representative: Samples | None = None,
    granularity: Literal["operator", "layer"] = "operator",
    sink: Sink = "device",
    runtime: Runtime | None = None,
) -> Model | LayerPipeline:
    """Make a pipeline of a Keras model.

    Needs the extra ``tensorflow``. Inputs get a batch of 1 where the model leaves it open.

    Parameters
    ----------
    source : keras.Model, or path
        A ``.keras`` file, or an ``.h5`` file of Keras 3 or Keras 2 (some of Keras 2 need the package ``tf-keras``); or
        a model of Keras or of tf-keras. Files are loaded without running code from them: load a model with Lambda
        layers by yourself, and give the model.
    quantize : {"int8", "float16"}, optional
        ``"int8"``: weights, values, inputs and results; it needs `representative`. ``"float16"``: the weights only.
    representative : iterable, or function that gives one
        Typical inputs, some hundred: each an array, or a dict of arrays by input name, with or without the batch.
    granularity : {"operator", "layer"}
        ``"operator"``: the model is converted to TFLite as a whole and cut between its operators; any interpreter
        runs the parts. ``"layer"``: one step a layer call, run by TensorFlow on both sides, in floats.
    sink : {"device", "edge"}
        Where the results are wanted.
    runtime : Runtime, optional
        What parts are run with when nothing else is said.

    Raises
    ------
    MissingDependencyError
        TensorFlow is not installed.
    MalformedModel
        The file is broken.
    UnsupportedModel
        It is no Keras file that can be loaded, an input's size is open, or something in it can't be converted.
    ValueError
        The arguments do not fit each other.

    Examples
    --------
    >>> import keras  # doctest: +SKIP
    >>> network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.ReLU()])  # doctest: +SKIP
    >>> from_keras(network, granularity="layer").n  # doctest: +SKIP
    2
    """
    if quantize not in (None, "int8", "float16"):
        raise ValueError(f"quantize must be None, 'int8' or 'float16', got {quantize!r}")
    if granularity not in ("operator", "layer"):
        raise ValueError(f"granularity must be 'operator' or 'layer', got {granularity!r}")
    if sink not in ("device", "edge"):
        raise ValueError(f"sink must be 'device' or 'edge', got {sink!r}")
    if granularity == "layer" and quantize is not None:
        raise ValueError("layers are run as Keras has them, in floats: quantize= needs granularity='operator'")
    if (quantize == "int8") != (representative is not None):
        raise ValueError("representative= inputs are what quantize='int8' needs, and nothing else does")
    _need_tensorflow()
    model = _load(Path(source)) if isinstance(source, str | os.PathLike) else source
    fixed_inputs(model)
    if granularity == "layer":
        from splitiot.models.layers import LayerPipeline, check_runtime

        if is_legacy(model):
            raise UnsupportedModel(
                f"{model.name!r} is a model of tf-keras, whose layers can't be run one by one: leave granularity out"
            )
        check_runtime(runtime)
        return LayerPipeline(model, sink=sink)
    from splitiot.models.model import load_model

    pipeline = load_model(convert(model, quantize, representative), sink=sink, runtime=runtime)
    pipeline.name = str(model.name)
    return pipeline


def _need_tensorflow() -> None:
    try:
        import keras
        import tensorflow
    except ImportError as error:
        raise MissingDependencyError("tensorflow", "tensorflow") from error
    del tensorflow
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedModel(
            f"Keras runs on {keras.backend.backend()!r} here: set KERAS_BACKEND=tensorflow before Keras is imported"
        )


# files --------------------------------------------------------------------------------------------------------


_MOST_BYTES = 1 << 34  # Keras reads it in pieces


def _load(path: Path) -> Any:
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
