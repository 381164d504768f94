"""A Keras model as a flat list of layer calls: nested models opened, shared layers once for each call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

from splitiot.errors import UnsupportedModel

__all__ = ["CallGraph", "LayerCall", "digest_of", "flatten"]


@frozen
class LayerCall:
    """One call of a layer (or of a keras.ops operation).

    Parameters
    ----------
    name : str
        The layer's name, behind those of the models around it: ``"trunk/conv1"``. A shared layer's second call is
        ``"dense@2"``.
    kind : str
        The layer's class.
    operation : keras.Operation
    arguments : keras.src.ops.symbolic_arguments.SymbolicArguments
        What it was called with, Keras' own symbolic tensors among it.
    values : dict of int to str
        The values that it takes, by the `id` of the symbolic tensor that stands for each.
    outputs : tuple of str
        The values that it gives.
    """

    name: str
    kind: str
    operation: Any
    arguments: Any
    values: Mapping[int, str]
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The values that it takes, each once."""
        return tuple(dict.fromkeys(self.values.values()))


@frozen
class CallGraph:
    """A model's layer calls in the order in which they run.

    Parameters
    ----------
    inputs : tuple of str
        The values that the model takes, in its own order.
    calls : tuple of LayerCall
    results : tuple of str
        The values that it gives; one may stand there twice.
    """

    inputs: tuple[str, ...]
    calls: tuple[LayerCall, ...]
    results: tuple[str, ...]


def function_of(operation: Any) -> Any:
    """The graph of layer calls behind a functional or sequential model; None for anything else.

    A model class with a `call` of its own is one layer: what it does with its graph can't be known.
    """
    import keras

    if isinstance(operation, keras.Sequential):
        if type(operation).call is not keras.Sequential.call:
            return None
        return getattr(operation, "_functional", None)
    if not isinstance(operation, keras.Model) or not hasattr(operation, "_nodes_by_depth"):
        return None
    # the class whose `call` walks the graph is private, but what keras.Model(inputs, outputs) makes is one
    owner = next(c for c in type(operation).__mro__ if "call" in vars(c))
    return operation if owner.__name__ == "Functional" and owner.__module__.startswith("keras.") else None


def flatten(model: Any) -> CallGraph:
    """List the layer calls of a functional or sequential model. `InputLayer` computes nothing and is none.

    Raises
    ------
    UnsupportedModel
        It is a subclassed model, has nothing to run, or a nested model reshapes what it is given.
    """
    function = function_of(model)
    if function is None:
        raise UnsupportedModel(
            f"{type(model).__name__} {model.name!r} is no functional or sequential model with known inputs: its layers "
            "can't be told apart. Use granularity='operator'"
        )
    walk = _Walk()
    inputs = tuple(walk.fresh(tensor.name) for tensor in function.inputs)
    known = {id(tensor): name for tensor, name in zip(function.inputs, inputs, strict=True)}
    results = walk.into(function, known, "")
    if not walk.calls:
        raise UnsupportedModel(f"Keras model {model.name!r} has no layer that computes anything")
    return CallGraph(inputs, tuple(walk.calls), results)


class _Walk:
    def __init__(self) -> None:
        self.calls: list[LayerCall] = []
        self._taken: set[str] = set()

    def fresh(self, name: str) -> str:
        """Return the name, or if it is taken ``"name@2"``, ..."""
        fresh, number = name, 1
        while fresh in self._taken:
            number += 1
            fresh = f"{name}@{number}"
        self._taken.add(fresh)
        return fresh

    def into(self, function: Any, known: dict[int, str], path: str) -> tuple[str, ...]:
        """Add a graph's calls; `known` has the names of its inputs. Returns the names of its outputs."""
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if not node.is_input:
                    self._node(node, known, path)
        return tuple(known[id(tensor)] for tensor in function.outputs)

    def _node(self, node: Any, known: dict[int, str], path: str) -> None:
        operation = node.operation
        inner = function_of(operation)
        tensors = node.arguments.keras_tensors
        if inner is None:
            name = self.fresh(path + operation.name)
            count = len(node.outputs)
            outputs = tuple(name if count == 1 else f"{name}:{index}" for index in range(count))
            values = {id(tensor): known[id(tensor)] for tensor in tensors}
            kind = type(operation).__name__
            self.calls.append(LayerCall(name, kind, operation, node.arguments, values, outputs))
        else:
            given = _ordered(inner, node.arguments)
            for tensor, taken in zip(given, inner.inputs, strict=True):
                if len(tensor.shape) != len(taken.shape) or tensor.dtype != taken.dtype:
                    raise UnsupportedModel(
                        f"nested model {path}{operation.name} takes {taken.dtype}{list(taken.shape)} and is given "
                        f"{tensor.dtype}{list(tensor.shape)}: make them the same, or use granularity='operator'"
                    )
            # a call of its own: the same inner tensors stand for other values at the next one
            inside = {id(taken): known[id(tensor)] for tensor, taken in zip(given, inner.inputs, strict=True)}
            outputs = self.into(inner, inside, f"{path}{operation.name}/")
        known.update({id(tensor): name for tensor, name in zip(node.outputs, outputs, strict=True)})


def _ordered(inner: Any, arguments: Any) -> list[Any]:
    """What a nested model is given, in the order of its inputs: dicts go by name."""
    args, kwargs = arguments.args, arguments.kwargs
    value = args[0] if args else kwargs["inputs"]
    if isinstance(value, Mapping):
        value = inner._flatten_to_reference_inputs(value)
    import keras

    return list(keras.tree.flatten(value))


# the digest -------------------------------------------------------------------------------------------------------


def digest_of(model: Any, graph: CallGraph) -> str:
    """SHA-256 over the layer calls (names, classes, configurations, wiring) and the weights.

    Two loads of one file give the same.
    """
    digest = hashlib.sha256()
    for call in graph.calls:
        try:
            config = call.operation.get_config()
        except Exception:  # a user's own layer may raise anything; its class and weights still count
            config = None
        args = (call.arguments.args, call.arguments.kwargs)
        line = [call.name, call.kind, _plain(config, {}), _plain(args, call.values), list(call.outputs)]
        digest.update(json.dumps(line, sort_keys=True).encode() + b"\n")
    digest.update(json.dumps([graph.inputs, graph.results]).encode())
    for variable in model.weights:
        digest.update(json.dumps(_plain(np.asarray(variable), {})).encode())
    return digest.hexdigest()


def _plain(value: Any, names: Mapping[int, str]) -> Any:
    """Plain data that says what a value is, the same in every process: never a `repr`, which may have addresses."""
    if id(value) in names:
        return {"value": names[id(value)]}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {"map": [[str(k), _plain(v, names)] for k, v in sorted(value.items(), key=lambda item: str(item[0]))]}
    if isinstance(value, list | tuple):
        return [_plain(item, names) for item in value]
    if isinstance(value, slice):
        return {"slice": [_plain(item, names) for item in (value.start, value.stop, value.step)]}
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return {"array": [array.dtype.name, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]}
    kind = value if isinstance(value, type) else type(value)
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "name": str(getattr(value, "name", ""))}
