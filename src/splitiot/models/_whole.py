"""An uncut .tflite file, ready to run: what its parts are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from splitiot.errors import ModelError
from splitiot.models.interpreters import open_interpreter, pick
from splitiot.pipeline import Runtime, TensorSpec

if TYPE_CHECKING:
    from splitiot.models._check import Run
    from splitiot.models._request import Arrays
    from splitiot.models.model import Model

__all__ = ["open_whole"]


def open_whole(model: Model, runtime: Runtime) -> Run:
    """Make the uncut file ready to run, as its maker wrote it.

    Raises
    ------
    MissingDependencyError
        No interpreter, or not the one that was asked for.
    UnsupportedModel
        The interpreter does not take this model.
    ModelError
        It is cut in a subgraph that can't be run alone.
    """
    return (_File if model.subgraph == 0 else _Signature)(model, runtime)


class _File:
    """The file's first subgraph, as interpreters run it."""

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self._interpreter = interpreter = open_interpreter(model.to_bytes(), runtime)
        # a file may name one tensor twice, a Model has it once
        self._sets = _by_name(model.inputs, interpreter.input_indices, interpreter.setters)
        self._gets = _by_name(model.outputs, interpreter.output_indices, interpreter.getters)

    def __call__(self, payload: Arrays) -> Arrays:
        for name, set_ in self._sets.items():
            set_(payload[name])
        self._interpreter.invoke()
        return {name: get() for name, get in self._gets.items()}

    def close(self) -> None:
        self._interpreter.close()


class _Signature:
    """Another subgraph than the first, by its signature."""

    def __init__(self, model: Model, runtime: Runtime) -> None:
        raw = pick(runtime.name).make(model.to_bytes(), runtime)
        self._run = raw.get_signature_runner(model.signature)
        self._inputs = {key: _name(details) for key, details in self._run.get_input_details().items()}
        self._outputs = {key: _name(details) for key, details in self._run.get_output_details().items()}
        names = {t.name for t in model.outputs}
        if {t.name for t in model.inputs} != {*self._inputs.values()} or names != {*self._outputs.values()}:
            raise ModelError("the signature's tensors have no names of their own: it can't be run by name")

    def __call__(self, payload: Arrays) -> Arrays:
        results = self._run(**{key: payload[name] for key, name in self._inputs.items()})
        return {name: results[key] for key, name in self._outputs.items()}

    def close(self) -> None:
        self._run = None


def _name(details: dict[str, Any]) -> str:
    return str(details["name"]) or f"tensor_{details['index']}"


def _by_name(
    specs: Sequence[TensorSpec], indices: Sequence[int], calls: Sequence[Callable[..., Any]]
) -> dict[str, Callable[..., Any]]:
    first = dict(zip(indices, calls, strict=True))
    return {spec.name: first[index] for spec, index in zip(specs, dict.fromkeys(indices), strict=True)}
