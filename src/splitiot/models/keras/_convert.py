"""A Keras model as a .tflite file, with the names that Keras has."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from splitiot.errors import ModelError, UnsupportedModel
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.writer import write_model
from splitiot.pipeline import TensorSpec

__all__ = ["Quantize", "Samples", "convert", "first_line", "fixed_inputs", "is_legacy", "remembers"]

Quantize: TypeAlias = Literal["int8", "float16"]
Samples: TypeAlias = Iterable[Any] | Callable[[], Iterable[Any]]


def fixed_inputs(model: Any) -> tuple[TensorSpec, ...]:
    """The model's inputs, in its own order, with a batch of 1 where it is open.

    Raises
    ------
    UnsupportedModel
        It is no Keras model with known inputs, or another size is open.
    """
    import keras

    if not isinstance(model, keras.Model) and not is_legacy(model):
        raise UnsupportedModel(
            f"expected a Keras {keras.__version__} model, one of tf-keras, or a path, got {type(model).__name__}"
        )
    tensors = None
    with contextlib.suppress(AttributeError, ValueError):  # never built
        tensors = model.inputs
    if not tensors:
        raise UnsupportedModel(
            f"the inputs of {type(model).__name__} {model.name!r} are not known: make it a functional model, "
            "keras.Model(x, model(x)) with x = keras.Input(shape)"
        )
    specs = []
    for tensor in tensors:
        sizes = tuple(tensor.shape)
        shape = (1, *sizes[1:]) if sizes and sizes[0] is None else sizes
        if None in shape:
            raise UnsupportedModel(
                f"input {tensor.name!r} of {model.name!r} has open sizes {sizes}: only the batch may be open. "
                "Fix the others with keras.Input(shape)"
            )
        dtype = getattr(tensor.dtype, "name", tensor.dtype)  # tf-keras has TensorFlow's types
        specs.append(TensorSpec(str(tensor.name), keras.backend.standardize_dtype(dtype), shape))
    return tuple(specs)


def is_legacy(model: Any) -> bool:
    """Whether it is a model of tf-keras, which is Keras 2. That is not imported here: who has a model has done it."""
    legacy = sys.modules.get("tf_keras")
    return legacy is not None and isinstance(model, legacy.Model)


def convert(model: Any, quantize: Quantize | None = None, representative: Samples | None = None) -> bytes:
    """Convert a Keras model with known inputs to a .tflite file. See `from_keras`."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = fixed_inputs(model)
    structure = getattr(model, "_nested_inputs" if is_legacy(model) else "_inputs_struct", None)

    def run(*tensors: Any) -> Any:
        given = tensors[0] if structure is None else keras.tree.pack_sequence_as(structure, list(tensors))
        return list(keras.tree.flatten(model(given, training=False)))  # in the order of its outputs

    types = [tf.TensorSpec(spec.shape, spec.dtype, name=_identifier(spec.name)) for spec in specs]
    with _quiet():
        function = tf.function(run, autograph=False).get_concrete_function(*types)
        if remembers(function):
            raise UnsupportedModel(
                f"{model.name!r} changes a variable or draws random numbers when it runs. Build it without "
                "(stateful=False, training=False), or convert it with tf.lite.TFLiteConverter.from_saved_model, and "
                "give the result to splitiot.load_model"
            )
        # weights become constants first: otherwise the file has resource variables, which can't be cut or calibrated
        frozen = convert_variables_to_constants_v2(function)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            assert representative is not None
            converter.representative_dataset = lambda: _batches(specs, representative)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        try:
            data = bytes(converter.convert())
        except ModelError:
            raise
        except Exception as error:  # the converter's own class has no public name
            raise UnsupportedModel(
                f"TensorFlow {tf.__version__} can't convert {model.name!r} to TFLite: {first_line(error)}"
            ) from error
    return _renamed(data, model, specs)


def remembers(function: Any) -> bool:
    """Whether a traced function changes variables or draws random numbers."""
    graph = function.graph.as_graph_def()
    kinds = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    return any(kind.startswith("Assign") or "Random" in kind for kind in kinds)


def first_line(error: BaseException) -> str:
    """What an error says, without the pages behind it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _renamed(data: bytes, model: Any, specs: Sequence[TensorSpec]) -> bytes:
    """Give tensors the names that Keras has: TensorFlow numbers each scope, and calls results ``Identity_1``."""
    table = read_model(data)
    graph = table["subgraphs"][0]
    layers = {str(layer.name) for layer in model._flatten_layers()}
    inputs = {_identifier(spec.name): spec.name for spec in specs}
    tensors = [tensor.replace(name=_layered(tensor["name"] or "", layers)) for tensor in graph["tensors"]]
    for index in graph["inputs"]:
        name = graph["tensors"][index]["name"]
        tensors[index] = graph["tensors"][index].replace(name=inputs.get(name, name))
    names = [str(name) for name in getattr(model, "output_names", ())]
    taken = {tensor["name"] for tensor in tensors}
    if len(names) == len(graph["outputs"]):
        for index, name in zip(graph["outputs"], names, strict=True):
            if index not in graph["inputs"] and name not in taken:
                tensors[index] = tensors[index].replace(name=name)
                taken.add(name)
    return write_model(table.replace(subgraphs=[graph.replace(tensors=tensors), *table["subgraphs"][1:]]))


def _layered(name: str, layers: set[str]) -> str:
    """Take the number from each scope that is a layer then: ``"net_1/conv_1/Relu"`` is ``"net/conv/Relu"``."""

    def plain(scope: str) -> str:
        short = re.sub(r"_\d+$", "", scope)
        return short if short in layers else scope

    return ";".join("/".join(map(plain, path.split("/"))) for path in name.split(";"))


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


def _batches(specs: tuple[TensorSpec, ...], representative: Samples) -> Iterator[list[Any]]:
    count = 0
    for sample in representative() if callable(representative) else representative:
        count += 1
        if isinstance(sample, Mapping):
            missing = [spec.name for spec in specs if spec.name not in sample]
            if missing:
                raise UnsupportedModel(f"a representative input has no {', '.join(missing)}: it has {sorted(sample)}")
            given = [sample[spec.name] for spec in specs]
        elif len(specs) == 1:
            given = [sample]
        else:
            names = [spec.name for spec in specs]
            raise UnsupportedModel(f"representative inputs must be dicts with {names}")
        yield [_shaped(spec, value) for spec, value in zip(specs, given, strict=True)]
    if not count:
        raise UnsupportedModel("there are no representative inputs")


def _shaped(spec: TensorSpec, value: Any) -> Any:
    array = np.asarray(value, spec.dtype)
    if array.shape not in (spec.shape, spec.shape[1:]):
        raise UnsupportedModel(
            f"a representative {spec.name!r} has shape {array.shape}, expected {spec.shape} or {spec.shape[1:]}"
        )
    return array.reshape(spec.shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's notices from the terminal; what goes wrong comes as an exception."""
    import tensorflow as tf

    from splitiot.models.interpreters import quiet_stderr

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with warnings.catch_warnings(), quiet_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
