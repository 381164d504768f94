"""Each layer call compiled for itself, once: the same code runs it in every part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from splitiot.errors import UnsupportedModel
from splitiot.models.keras._calls import CallGraph, LayerCall
from splitiot.models.keras._convert import fixed_inputs, remembers
from splitiot.pipeline import TensorSpec

__all__ = ["Compiled", "CompiledCalls", "compile_calls"]

Compiled: TypeAlias = Callable[..., Any]


class CompiledCalls:
    """Compiled steps, and what their values are."""

    def __init__(self) -> None:
        self.functions: list[Compiled] = []
        self.specs: dict[str, TensorSpec] = {}
        self.problems: dict[str, str] = {}


def compile_calls(model: Any, graph: CallGraph) -> CompiledCalls:
    """Compile each step for the shapes that it gets when the batch is 1."""
    import tensorflow as tf

    compiled = CompiledCalls()
    types: dict[str, Any] = {}
    for name, spec in zip(graph.inputs, fixed_inputs(model), strict=True):
        types[name] = tf.TensorSpec(spec.shape, spec.dtype)
        _describe(compiled, name, types[name], "an input")
        if name in compiled.problems:
            raise UnsupportedModel(f"input {name!r} of {model.name!r}: {compiled.problems[name]}")
    for call in graph.calls:
        function, results = _compile(call, [types[name] for name in call.inputs])
        compiled.functions.append(function)
        for name, tensor in zip(call.outputs, results, strict=True):
            types[name] = tf.TensorSpec(tensor.shape, tensor.dtype)
            _describe(compiled, name, types[name], f"what layer {call.name} ({call.kind}) makes")
    return compiled


def _describe(compiled: CompiledCalls, name: str, spec: Any, what: str) -> None:
    if not spec.shape.is_fully_defined():
        compiled.problems[name] = f"the shape of {what} is not fixed, it is {spec.shape}. Cut elsewhere"
        return
    kind = np.dtype(spec.dtype.as_numpy_dtype)
    if kind.kind not in "biufc":
        compiled.problems[name] = f"{what} is of type {spec.dtype.name}, which can't cross. Cut elsewhere"
        return
    compiled.specs[name] = TensorSpec(name, kind.name, tuple(spec.shape.as_list()))


def _compile(call: LayerCall, types: Sequence[Any]) -> tuple[Compiled, Sequence[Any]]:
    import keras
    import tensorflow as tf

    masked: list[Any] = []
    names = call.inputs

    def run(*tensors: Any) -> list[Any]:
        values = dict(zip(names, tensors, strict=True))
        args, kwargs = call.arguments.fill_in({key: values[name] for key, name in call.values.items()})
        results = keras.tree.flatten(call.operation(*args, **kwargs))
        masked.extend(t for t in results if getattr(t, "_keras_mask", None) is not None)
        return [tf.convert_to_tensor(t) for t in results]

    function = tf.function(run, autograph=False).get_concrete_function(*types)
    if masked:
        raise UnsupportedModel(
            f"layer {call.name} ({call.kind}) hands a mask on beside its values, which does not cross between layers: "
            "use granularity='operator'"
        )
    if remembers(function):
        raise UnsupportedModel(
            f"layer {call.name} ({call.kind}) changes a variable or draws random numbers when it runs, and would do so "
            "on one side only: take it out, or build the model without (stateful=False, training=False)"
        )
    return function, function.outputs
