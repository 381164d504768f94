"""Some of a Keras model's layer calls as a Keras model of their own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitiot.errors import UnsupportedModel
from splitiot.models.keras._calls import CallGraph, flatten, function_of
from splitiot.models.keras._convert import first_line
from splitiot.pipeline import TensorSpec

__all__ = ["rebuilt"]


def rebuilt(
    model: Any, graph: CallGraph, start: int, stop: int, taken: Sequence[TensorSpec], given: Sequence[str]
) -> Any:
    """Make a functional model of calls [start, stop). Its layers are copies: nothing of `model` is touched.

    Parameters
    ----------
    model : keras.Model
    graph : CallGraph
        The model's.
    taken : sequence of TensorSpec
        Its inputs, in this order.
    given : sequence of str
        Its results, in this order.

    Returns
    -------
    keras.Model

    Raises
    ------
    UnsupportedModel
        Keras can't read the model again from a file: a layer of one's own, or code.
    """
    import keras

    copy = _copy(model, graph)
    other = flatten(copy)
    if _listed(other) != _listed(graph):
        raise UnsupportedModel(f"{model.name!r} has other layers when Keras has saved and loaded it: {_INSTEAD}")
    # a file does not keep the names of all inputs, but their order
    mine = dict(zip(other.inputs, graph.inputs, strict=True))
    for theirs, ours in zip(other.calls, graph.calls, strict=True):
        mine.update(zip(theirs.outputs, ours.outputs, strict=True))

    names = _Names()
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=names.fresh(t.name)) for t in taken]
    values: dict[str, Any] = dict(zip([t.name for t in taken], inputs, strict=True))
    renamed: set[int] = set()
    for call in other.calls[start:stop]:
        if id(call.operation) not in renamed:
            renamed.add(id(call.operation))
            path = call.name[: call.name.rfind("/") + 1]
            _rename(call.operation, names.fresh(path + call.operation.name))
        args, kwargs = call.arguments.fill_in({key: values[mine[name]] for key, name in call.values.items()})
        results = keras.tree.flatten(call.operation(*args, **kwargs))
        values.update(zip((mine[name] for name in call.outputs), results, strict=True))
    results = [values[name] for name in given]
    return keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        results[0] if len(results) == 1 else results,
        name=names.fresh(f"{model.name}_{start}_{stop}"),
    )


_INSTEAD = (
    "cut it between operators, from_keras(model) without granularity='layer': those parts are .tflite files, and "
    "need no layer classes"
)


def _copy(model: Any, graph: CallGraph) -> Any:
    """Through a file: the one way in which Keras copies all that a layer has (nested layers, tables, statistics)."""
    import keras

    function = function_of(model)
    # without a class, losses and optimizer of one's own
    plain = keras.Model(list(function.inputs), list(function.outputs), name=model.name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            plain.save(path)
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises whatever it stumbles over
            raise UnsupportedModel(
                f"Keras can't save {model.name!r} and load it again: {_why(graph, error)}. Or {_INSTEAD}"
            ) from error


def _why(graph: CallGraph, error: Exception) -> str:
    """Keras names the outermost model, and not the layer that is the matter."""
    if any(call.kind == "Lambda" for call in graph.calls):
        return "a Lambda layer is code, which files should not hold: use a layer class or keras.ops"
    own = {call.kind for call in graph.calls if not type(call.operation).__module__.startswith("keras.")}
    if own:
        return f"register {', '.join(sorted(own))} with keras.saving.register_keras_serializable"
    return first_line(error)


def _listed(graph: CallGraph) -> list[tuple[str, str, int]]:
    return [(call.name, call.kind, len(call.outputs)) for call in graph.calls]


class _Names:
    """Names that Keras and TensorFlow take for layers, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def fresh(self, name: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9_.-]", ".", name)
        plain = plain if plain[:1].isalnum() else f"v{plain}"
        fresh, number = plain, 1
        while fresh in self._taken:
            number += 1
            fresh = f"{plain}_{number}"
        self._taken.add(fresh)
        return fresh


def _rename(operation: Any, name: str) -> None:
    operation.name = name
    # what keras.ops operations were made with, their name in it, is what a file gets
    config = getattr(getattr(operation, "_auto_config", None), "config", {})
    if "name" in config:
        config["name"] = name
