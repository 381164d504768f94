"""A Keras model as a pipeline whose steps are its layers. Made by `splitiot.models.from_keras(granularity="layer")`."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splitiot.errors import CutError, LocalProtocolError, ModelError, UnsupportedModel
from splitiot.models._convert import fixed_inputs, remembers
from splitiot.models._layers import Calls, LayerCall, digest_of, flatten
from splitiot.models._named import CutPipeline
from splitiot.pipeline import (
    NOTHING,
    UNTYPED,
    Boundary,
    Executable,
    Part,
    Payload,
    Runtime,
    RuntimeInfo,
    Sink,
    Step,
    TensorSpec,
    check_sink,
)

if TYPE_CHECKING:
    from splitiot.models.verify import VerifyReport

__all__ = ["LayerPart", "LayerPipeline"]

_Compiled = Callable[..., Any]


class LayerPipeline(CutPipeline["LayerPart"]):
    """A Keras model, one step a layer call.

    A shared layer is a step each time it is called, a nested model's layers are steps of their own, `InputLayer` is
    none. TensorFlow runs it, on both sides. Each step is compiled for itself, once, and the same code runs it in every
    part: so head and tail give bit for bit what all steps together give, on one machine with one TensorFlow. Keras
    itself may fuse neighbouring layers when it runs the model whole, and then differs by float rounding.

    Attributes
    ----------
    name : str
    model : keras.Model
    inputs, outputs : tuple of TensorSpec
        Each once. Values are called by the layer that makes them: ``"trunk/conv1"``, ``"lstm:0"``, ``"dense@2"``.
    """

    stateful = False

    def __init__(self, model: Any, *, sink: Sink = "device") -> None:
        found = flatten(model)
        traced = _trace(model, found)
        self._set(model, found, traced, digest_of(model, found), sink)

    def _set(self, model: Any, found: Calls, traced: _Traced, digest: str, sink: Sink) -> None:
        self._name(str(model.name), [traced.specs[name] for name in found.inputs], tuple(dict.fromkeys(found.results)))
        self.model, self.digest, self.sink = model, digest, check_sink(sink)
        self._found, self._traced = found, traced
        self.steps = tuple(Step(call.name, call.kind) for call in found.calls)
        self._born = dict.fromkeys(found.inputs, 0)
        self._last: dict[str, int] = {}
        for index, call in enumerate(found.calls):
            self._born |= dict.fromkeys(call.outputs, index + 1)
            self._last |= dict.fromkeys(call.inputs, index)
        self.refused: Mapping[int, str] = self._refused()
        self.cuts = tuple(cut for cut in range(self.n + 1) if cut not in self.refused)

    @property
    def layers(self) -> tuple[str, ...]:
        """The name of each step's layer, as Keras has it."""
        return tuple(str(call.operation.name) for call in self._found.calls)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Each result once, as far as its shape is fixed."""
        return tuple(self._traced.specs[name] for name in self.results if name in self._traced.specs)

    def _refused(self) -> dict[int, str]:
        refused = {}
        for cut in range(self.n + 1):
            names = itertools.chain(self._crossing(cut), self._returning(cut))
            wrong = [self._traced.problems[name] for name in names if name in self._traced.problems]
            if wrong:
                refused[cut] = "; ".join(dict.fromkeys(wrong))
        return refused

    def _crossing(self, cut: int) -> tuple[str, ...]:
        if cut == 0:
            return self._found.inputs
        if cut == self.n and self.sink == "device":
            return ()
        alive = [name for name, born in self._born.items() if born <= cut <= self._last.get(name, -1)]
        if self.sink == "edge":
            alive += self._results_at(cut)
        return tuple(dict.fromkeys(alive))

    def _results_at(self, cut: int) -> tuple[str, ...]:
        return tuple(name for name in self.results if self._born[name] <= cut)

    def _returning(self, cut: int) -> tuple[str, ...]:
        if self.sink == "edge":
            return ()
        return self.results if cut == 0 else tuple(name for name in self.results if self._born[name] > cut)

    def _produced(self, start: int, stop: int) -> tuple[str, ...]:
        """What a part gives: what crosses at its end, and the results made inside."""
        if start == stop:
            return self._crossing(start)
        first = 0 if start == 0 else start + 1  # results that are inputs belong to the head
        results = [r for r in self._results_at(stop) if self.sink == "edge" or self._born[r] >= first]
        return tuple(dict.fromkeys((*self._crossing(stop), *results)))

    def _boundary(self, names: Sequence[str]) -> Boundary:
        if not names:
            return NOTHING
        if any(name not in self._traced.specs for name in names):
            return UNTYPED
        return Boundary(tuple(self._traced.specs[name] for name in names))

    def boundary(self, cut: int) -> Boundary:
        return self._boundary(self._crossing(self._legal(cut)))

    def returned(self, cut: int) -> Boundary:
        return self._boundary(self._returning(self._legal(cut)))

    def part(self, start: int, stop: int) -> LayerPart:
        start, stop = self._ends(start, stop)
        return LayerPart(self, start, stop, self._crossing(start), self._produced(start, stop))

    def division(self, cut: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of what crosses and of what stays."""
        kept = () if self.sink == "edge" or cut == 0 else self._results_at(cut)
        return self._crossing(cut), kept

    def with_sink(self, sink: Sink) -> LayerPipeline:
        if sink == self.sink:
            return self
        other = LayerPipeline.__new__(LayerPipeline)
        other._set(self.model, self._found, self._traced, self.digest, sink)
        return other

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        """TensorFlow's and Keras' versions, and this machine."""
        import keras
        import tensorflow as tf

        check_runtime(runtime)
        return RuntimeInfo(
            "keras", f"{keras.__version__} on TensorFlow {tf.__version__}", "default", platform.machine()
        )

    def verify(
        self, samples: int = 2, sample: Any = None, runtime: Runtime | None = None, **options: Any
    ) -> VerifyReport:
        """Compare head -> bytes -> tail with all steps together, bit for bit, at every legal cut, in this process.

        See `splitiot.models.verify.verify_layers`.
        """
        from splitiot.models.verify import verify_layers

        return verify_layers(self, samples=samples, sample=sample, runtime=runtime, **options)

    def __repr__(self) -> str:
        return f"<LayerPipeline {self.name!r}: {self.n} layers>"


class LayerPart(Part):
    """Steps [start, stop) of a `LayerPipeline`.

    What a result's boundary can't tell (its size depends on the data) stands there as unknown.
    """

    def __init__(
        self, pipeline: LayerPipeline, start: int, stop: int, taken: Sequence[str], given: Sequence[str]
    ) -> None:
        self.start, self.stop = start, stop
        self.inputs, self.outputs = pipeline._boundary(taken), pipeline._boundary(given)
        self._pipeline, self._taken, self._given = pipeline, tuple(taken), tuple(given)
        self._calls = tuple(zip(pipeline._found.calls, pipeline._traced.functions, strict=True))[start:stop]

    def open(self, runtime: Runtime | None = None) -> Executable:
        """Make it ready to run.

        Raises
        ------
        UnsupportedModel
            `runtime` names an interpreter or kernels: Keras layers are run by TensorFlow, as it is.
        """
        check_runtime(runtime)
        return _Executable(self, self._calls, self._taken, self._given)

    def to_keras(self) -> Any:
        """Return a Keras model of these layers alone, with weights of its own.

        It takes arrays in the order of `inputs` and gives them in the order in which the part does; one stands alone,
        several are a list. Layers of nested models are called ``"block.conv"`` in it. Keras runs it as a whole, so it
        may differ from the part by float rounding.

        Raises
        ------
        CutError
            The part has no steps.
        UnsupportedModel
            Keras can't save the whole model and load it again, for example for a Lambda layer, or a layer class that
            is not registered.
        """
        from splitiot.models._rebuild import rebuilt

        if self.start == self.stop:
            raise CutError(f"part [{self.start}, {self.stop}) has no steps: there is no Keras model for it")
        pipeline = self._pipeline
        taken = [pipeline._traced.specs[name] for name in self._taken]
        return rebuilt(pipeline.model, pipeline._found, self.start, self.stop, taken, self._given)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what `to_keras` makes to a .keras file, for ``keras.saving.load_model``: all of it, or nothing.

        Raises
        ------
        CutError
            The part has no steps.
        UnsupportedModel
            The name does not end in ``.keras``, or there is no such model; see `to_keras`.
        """
        import tempfile

        path = Path(path)
        if path.suffix != ".keras":
            raise UnsupportedModel(
                f"layers are saved as a .keras file, {path.name!r} has another suffix. For .tflite files cut between "
                "operators: from_keras(model) without granularity='layer'"
            )
        model = self.to_keras()
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            model.save(made := Path(folder) / path.name)
            os.replace(made, path)
        return path

    def __repr__(self) -> str:
        return f"<LayerPart [{self.start}, {self.stop})>"


class _Executable:
    nbytes = 0  # the compiled steps and the weights are the pipeline's, however many parts are open

    def __init__(
        self, part: Part, calls: Sequence[tuple[LayerCall, _Compiled]], taken: Sequence[str], given: Sequence[str]
    ) -> None:
        import tensorflow as tf

        self._part, self._given, self._tensor = part, given, tf.constant
        used = {name for call, _ in calls for name in call.inputs}
        self._used = tuple(name for name in taken if name in used)
        last = {name: index for index, (call, _) in enumerate(calls) for name in call.inputs}
        last |= dict.fromkeys(given, len(calls))
        self._plan = [
            (
                function,
                call.inputs,
                call.outputs,
                # values are let go when they are used last
                tuple(n for n in (*call.inputs, *call.outputs) if last.get(n, index) == index),
                call.name,
            )
            for index, (call, function) in enumerate(calls)
        ]

    def __call__(self, payload: Payload, /) -> Payload:
        wrong = self._part.inputs.mismatch(payload)
        if wrong is not None:
            raise LocalProtocolError(f"part [{self._part.start}, {self._part.stop}): {wrong}")
        values = {name: self._tensor(payload[name]) for name in self._used}
        for function, inputs, outputs, done, name in self._plan:
            try:
                made = function(*(values[i] for i in inputs))
            except Exception as error:  # TensorFlow's errors share no root but Exception
                raise ModelError(f"layer {name} failed: {error}") from error
            values.update(zip(outputs, made, strict=True))
            for i in done:
                values.pop(i, None)
        return {name: np.array(values[name] if name in values else payload[name], order="C") for name in self._given}

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def check_runtime(runtime: Runtime | None) -> None:
    """Refuse what is not TensorFlow as it is."""
    if runtime is not None and (runtime.name not in ("auto", "tensorflow") or runtime.kernels != "default"):
        raise UnsupportedModel(
            f"Keras layers are run by TensorFlow, with its own kernels, not by {runtime.name!r} with "
            f"{runtime.kernels!r} kernels: use granularity='operator' for that"
        )


class _Traced:
    """Compiled steps, and what their values are."""

    def __init__(self) -> None:
        self.functions: list[_Compiled] = []
        self.specs: dict[str, TensorSpec] = {}
        self.problems: dict[str, str] = {}


def _trace(model: Any, found: Calls) -> _Traced:
    """Compile each step for the shapes that it gets when the batch is 1."""
    import tensorflow as tf

    traced = _Traced()
    types: dict[str, Any] = {}
    for name, spec in zip(found.inputs, fixed_inputs(model), strict=True):
        types[name] = tf.TensorSpec(spec.shape, spec.dtype)
        _describe(traced, name, types[name], "an input")
        if name in traced.problems:
            raise UnsupportedModel(f"input {name!r} of {model.name!r}: {traced.problems[name]}")
    for call in found.calls:
        function, made = _compile(call, [types[name] for name in call.inputs])
        traced.functions.append(function)
        for name, tensor in zip(call.outputs, made, strict=True):
            types[name] = tf.TensorSpec(tensor.shape, tensor.dtype)
            _describe(traced, name, types[name], f"what layer {call.name} ({call.kind}) makes")
    return traced


def _describe(traced: _Traced, name: str, spec: Any, what: str) -> None:
    if not spec.shape.is_fully_defined():
        traced.problems[name] = f"the shape of {what} is not fixed, it is {spec.shape}. Cut elsewhere"
        return
    kind = np.dtype(spec.dtype.as_numpy_dtype)
    if kind.kind not in "biufc":
        traced.problems[name] = f"{what} is of type {spec.dtype.name}, which can't cross. Cut elsewhere"
        return
    traced.specs[name] = TensorSpec(name, kind.name, tuple(spec.shape.as_list()))


def _compile(call: LayerCall, types: Sequence[Any]) -> tuple[_Compiled, Sequence[Any]]:
    import keras
    import tensorflow as tf

    masked: list[Any] = []
    names = call.inputs

    def run(*tensors: Any) -> list[Any]:
        values = dict(zip(names, tensors, strict=True))
        args, kwargs = call.arguments.fill_in({key: values[name] for key, name in call.values.items()})
        made = keras.tree.flatten(call.operation(*args, **kwargs))
        masked.extend(t for t in made if getattr(t, "_keras_mask", None) is not None)
        return [tf.convert_to_tensor(t) for t in made]

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
