"""A Keras model as a pipeline whose steps are its layers. Made by `splitiot.models.from_keras(granularity="layer")`."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitiot.errors import CutError, UnsupportedModel
from splitiot.models._array_pipeline import CuttablePipeline
from splitiot.models.keras._calls import CallGraph, digest_of, flatten
from splitiot.models.keras._compile import CompiledCalls, compile_calls
from splitiot.models.keras._executable import LayersExecutable, check_runtime
from splitiot.pipeline import (
    NOTHING,
    UNTYPED,
    Boundary,
    Executable,
    Part,
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


class LayerPipeline(CuttablePipeline["LayerPart"]):
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
        graph = flatten(model)
        compiled = compile_calls(model, graph)
        self._set(model, graph, compiled, digest_of(model, graph), sink)

    def _set(self, model: Any, graph: CallGraph, compiled: CompiledCalls, digest: str, sink: Sink) -> None:
        inputs = [compiled.specs[name] for name in graph.inputs]
        self._describe(str(model.name), inputs, tuple(dict.fromkeys(graph.results)))
        self.model, self.digest, self.sink = model, digest, check_sink(sink)
        self._graph, self._compiled = graph, compiled
        self.steps = tuple(Step(call.name, call.kind) for call in graph.calls)
        self._born = dict.fromkeys(graph.inputs, 0)
        self._last: dict[str, int] = {}
        for index, call in enumerate(graph.calls):
            self._born |= dict.fromkeys(call.outputs, index + 1)
            self._last |= dict.fromkeys(call.inputs, index)
        self.refused: Mapping[int, str] = self._refused()
        self.cuts = tuple(cut for cut in range(self.n + 1) if cut not in self.refused)

    @property
    def layers(self) -> tuple[str, ...]:
        """The name of each step's layer, as Keras has it."""
        return tuple(str(call.operation.name) for call in self._graph.calls)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Each result once, as far as its shape is fixed."""
        return tuple(self._compiled.specs[name] for name in self.results if name in self._compiled.specs)

    def _refused(self) -> dict[int, str]:
        refused = {}
        for cut in range(self.n + 1):
            names = itertools.chain(self._crossing(cut), self._returning(cut))
            wrong = [self._compiled.problems[name] for name in names if name in self._compiled.problems]
            if wrong:
                refused[cut] = "; ".join(dict.fromkeys(wrong))
        return refused

    def _crossing(self, cut: int) -> tuple[str, ...]:
        if cut == 0:
            return self._graph.inputs
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
        if any(name not in self._compiled.specs for name in names):
            return UNTYPED
        return Boundary(tuple(self._compiled.specs[name] for name in names))

    def boundary(self, cut: int) -> Boundary:
        return self._boundary(self._crossing(self._checked_cut(cut)))

    def returned(self, cut: int) -> Boundary:
        return self._boundary(self._returning(self._checked_cut(cut)))

    def part(self, start: int, stop: int) -> LayerPart:
        start, stop = self._checked_ends(start, stop)
        return LayerPart(self, start, stop, self._crossing(start), self._produced(start, stop))

    def division(self, cut: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of what crosses and of what stays."""
        kept = () if self.sink == "edge" or cut == 0 else self._results_at(cut)
        return self._crossing(cut), kept

    def with_sink(self, sink: Sink) -> LayerPipeline:
        if sink == self.sink:
            return self
        other = LayerPipeline.__new__(LayerPipeline)
        other._set(self.model, self._graph, self._compiled, self.digest, sink)
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
        self._calls = tuple(zip(pipeline._graph.calls, pipeline._compiled.functions, strict=True))[start:stop]

    def open(self, runtime: Runtime | None = None) -> Executable:
        """Make it ready to run.

        Raises
        ------
        UnsupportedModel
            `runtime` names an interpreter or kernels: Keras layers are run by TensorFlow, as it is.
        """
        check_runtime(runtime)
        return LayersExecutable(self, self._calls, self._taken, self._given)

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
        from splitiot.models.keras._rebuild import rebuilt

        if self.start == self.stop:
            raise CutError(f"part [{self.start}, {self.stop}) has no steps: there is no Keras model for it")
        pipeline = self._pipeline
        taken = [pipeline._compiled.specs[name] for name in self._taken]
        return rebuilt(pipeline.model, pipeline._graph, self.start, self.stop, taken, self._given)

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
            model.save(written := Path(folder) / path.name)
            os.replace(written, path)
        return path

    def __repr__(self) -> str:
        return f"<LayerPart [{self.start}, {self.stop})>"
