"""What makes a pipeline of a Keras model, its operators or its layers."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Literal, overload

from splitiot.errors import MissingDependencyError, UnsupportedModel
from splitiot.models.keras._convert import Quantize, Samples, convert, fixed_inputs, is_legacy
from splitiot.models.keras._executable import check_runtime
from splitiot.models.keras._files import load_file
from splitiot.models.keras._pipeline import LayerPipeline
from splitiot.models.model import Model, load_model
from splitiot.pipeline import Runtime, Sink

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
    model = load_file(Path(source)) if isinstance(source, str | os.PathLike) else source
    fixed_inputs(model)
    if granularity == "layer":
        if is_legacy(model):
            raise UnsupportedModel(
                f"{model.name!r} is a model of tf-keras, whose layers can't be run one by one: leave granularity out"
            )
        check_runtime(runtime)
        return LayerPipeline(model, sink=sink)
    pipeline = load_model(convert(model, quantize, representative), sink=sink, runtime=runtime)
    pipeline.name = str(model.name)
    return pipeline


def _need_tensorflow() -> None:
    try:
        # before Keras, whose modules would stay in this process half imported where what they run on is missing
        importlib.import_module("tensorflow")
        import keras
    except ImportError as error:
        raise MissingDependencyError("tensorflow", "tensorflow") from error
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedModel(
            f"Keras runs on {keras.backend.backend()!r} here: set KERAS_BACKEND=tensorflow before Keras is imported"
        )
