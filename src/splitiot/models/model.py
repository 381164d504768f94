"""A .tflite network as a pipeline."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitiot._cached import cached_property
from splitiot._expect import described
from splitiot._files import read_bounded
from splitiot.errors import UnsupportedModel
from splitiot.models._array_pipeline import CuttablePipeline
from splitiot.models._format import FUSING, Anatomy
from splitiot.models._formats import FORMATS, LARGEST_BYTES, child_shapes_for, format_of
from splitiot.models.part import ModelPart
from splitiot.pipeline import (
    NOTHING,
    UNTYPED,
    Boundary,
    Runtime,
    RuntimeInfo,
    Sink,
    TensorSpec,
    check_sink,
)

if TYPE_CHECKING:
    from splitiot.models.verify import VerifyReport

__all__ = ["Model", "load_model"]


def load_model(
    source: str | os.PathLike[str] | bytes,
    *,
    signature: str | None = None,
    sink: Sink = "device",
    runtime: Runtime | None = None,
    resize_input: Mapping[str, Sequence[int]] | None = None,
    probe: bool = False,
    sample: Any = None,
) -> Model:
    """Read and check a .tflite network.

    No interpreter is imported here. Where only an interpreter knows a shape, one is asked in a child process.

    Parameters
    ----------
    source : path or bytes
    signature : str, optional
        Which of the model's signatures, where it has several. Otherwise it is the first subgraph, as interpreters
        have it.
    sink : {"device", "edge"}
        Where the results are wanted.
    runtime : Runtime, optional
        What parts are run with when nothing else is said. The default kernels run some neighbouring operators as one:
        the cuts between those are legal only with other kernels.
    resize_input : mapping of str to sequence of int, optional
        Shapes for inputs with open sizes, by name: ``{"image": (1, 96, 96, 3)}``. What follows for the other tensors
        is asked from an interpreter in a child process. Both sides must give the same shapes: the digest changes.
    probe : bool
        Run the model once, in a child process, before it is trusted: a file that passes all checks may still crash
        an interpreter.
    sample : optional
        An input to probe it with, in place of a random one: what `Pipeline.run` takes.

    Raises
    ------
    MalformedModel
        The file is broken.
    UnsupportedModel
        The file uses something that this version does not know, has no such signature or input, is of another format,
        or did not survive the probe; or what is no file, is larger than 2 GB, or can't be read. The message says what
        to do.
    MissingDependencyError
        `probe` or `resize_input` was asked for, and there is no interpreter.
    FileNotFoundError
    """
    if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview):
        raise TypeError(
            f"load_model takes the path or the bytes of a .tflite file, got {described(source)}: from_keras(...) takes "
            "a Keras model, tasks([...]) functions"
        )
    if isinstance(source, bytes | bytearray | memoryview):
        data, file, name = bytes(source), "this file", "model"
    else:
        path = Path(source)
        if path.is_dir():
            from splitiot.models import foreign

            foreign.refuse_folder(path)
        data = read_bounded(path, most_bytes=LARGEST_BYTES, what="a .tflite file", error=UnsupportedModel)
        file, name = path.name, path.stem
    known = format_of(data)
    if known is None:
        from splitiot.models import foreign

        foreign.refuse_file(data, file)
    data, anatomy = (known or FORMATS[0]).read(
        data, signature=signature, ask_shapes=child_shapes_for(runtime), resize_input=resize_input
    )
    model = Model(data, anatomy, name=name, sink=check_sink(sink), runtime=runtime)
    if probe:
        from splitiot.models.probe import probe_model

        probe_model(model, runtime, sample=sample)
    return model


class Model(CuttablePipeline[ModelPart]):
    """A network: its operators are the steps. Made by `load_model`.

    Operators that only prepare constants (float16 weights behind DEQUANTIZE) are no steps: every part that needs
    them has a copy.

    Attributes
    ----------
    name : str
    signature : str or None
    subgraph : int
        The subgraph that is cut; interpreters run the first one, unless they are told otherwise.
    inputs, outputs : tuple of TensorSpec
        Each once. An output whose size depends on the data stands there with the shape that the file has.
    warnings : tuple of str
        What to know before cutting: random and custom operators, open sizes.
    random : bool
        Whether it draws random numbers: then only fresh interpreters agree.
    """

    def __init__(
        self,
        data: bytes,
        anatomy: Anatomy,
        *,
        name: str,
        sink: Sink,
        runtime: Runtime | None = None,
    ) -> None:
        self._data, self._anatomy, self._runtime = data, anatomy, runtime
        self._kernels = "default" if runtime is None else runtime.kernels
        self.signature, self.subgraph, self.sink = anatomy.signature, anatomy.subgraph, sink
        self.stateful, self.random = anatomy.stateful, anatomy.random
        self.warnings = tuple(anatomy.warnings(self._kernels))
        self.steps = anatomy.steps
        results = [anatomy.names[i] for i in dict.fromkeys(anatomy.outputs)]
        inputs = tuple(map(anatomy.spec, anatomy.inputs))
        self._describe(name, inputs, results, anatomy.input_names, anatomy.output_names)
        # asked for on every request
        self._boundaries: dict[int, Boundary] = {}
        self._returns: dict[int, Boundary] = {}

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """SHA-256 over the file, the subgraph and the table of steps."""
        digest = hashlib.sha256(self._data)
        digest.update(self._anatomy.identity().encode())
        return digest.hexdigest()

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Each result once."""
        return tuple(map(self._anatomy.spec, dict.fromkeys(self._anatomy.outputs)))

    @cached_property
    def refused(self) -> Mapping[int, str]:  # type: ignore[override]
        return self._anatomy.refused(self.sink, fusing=self._kernels in FUSING)

    @cached_property
    def cuts(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(cut for cut in range(self.n + 1) if cut not in self.refused)

    def boundary(self, cut: int) -> Boundary:
        known = self._boundaries.get(cut)
        if known is None:
            cut = self._checked_cut(cut)
            known = Boundary(tuple(map(self._anatomy.spec, self._anatomy.crossing(cut, self.sink))))
            self._boundaries[cut] = known
        return known

    def returned(self, cut: int) -> Boundary:
        known = self._returns.get(cut)
        if known is None:
            cut = self._checked_cut(cut)
            tensors = self._anatomy.returning(cut, self.sink)
            if any(self._anatomy.shape(i) is None for i in tensors):
                known = UNTYPED
            else:
                known = Boundary(tuple(map(self._anatomy.spec, tensors))) if tensors else NOTHING
            self._returns[cut] = known
        return known

    def is_even_from(self, cut: int) -> bool:
        return cut >= self._even_from

    @cached_property
    def _even_from(self) -> int:
        return self._anatomy.even_from()

    def part(self, start: int, stop: int) -> ModelPart:
        start, stop = self._checked_ends(start, stop)
        return ModelPart.cut(
            self._anatomy,
            start,
            stop,
            digest=self.digest,
            name=self.name,
            sink=self.sink,
            signature=self.signature or "serving_default",
            runtime=self._runtime,
        )

    @cached_property
    def index_limits(self) -> Mapping[str, int]:
        """Inputs that are used as indices, as far as that is known: what their values must be less than."""
        return {self._anatomy.names[i]: limit for i, limit in self._anatomy.index_limits().items()}

    def division(self, cut: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of what crosses and of what stays."""
        names = self._anatomy.names
        sent = tuple(names[i] for i in self._anatomy.crossing(cut, self.sink))
        if self.sink == "edge" or cut == 0:
            return sent, ()
        return sent, tuple(names[i] for i in self._anatomy.results_at(cut))

    def fused(self, cut: int) -> str:
        """Which operators the default kernels run as one across a cut, so that it is legal only with others.

        Empty where there are none.
        """
        return self._anatomy.fused(self.check_cut(cut))

    def with_sink(self, sink: Sink) -> Model:
        if sink == self.sink:
            return self
        return self._with(check_sink(sink), self._runtime)

    def with_runtime(self, runtime: Runtime | None) -> Model:
        return self if runtime is None or runtime == self._runtime else self._with(self.sink, runtime)

    def _with(self, sink: Sink, runtime: Runtime | None) -> Model:
        other = Model(
            self._data, self._anatomy, name=self.name, sink=sink, runtime=runtime
        )
        if "digest" in vars(self):
            vars(other)["digest"] = self.digest
        return other

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        from splitiot.models.interpreters import runtime_info

        return runtime_info(runtime or self._runtime)

    def to_bytes(self) -> bytes:
        """Return the file, as it was given."""
        return self._data

    def verify(
        self, samples: int = 2, sample: Any = None, runtime: Runtime | None = None, **options: Any
    ) -> VerifyReport:
        """Compare head -> bytes -> tail with the whole model, bit for bit, at every legal cut, in a child process.

        With another `runtime` than the model's own the legal cuts are those of `with_runtime`.

        See `splitiot.models.verify.verify_model`.
        """
        from splitiot.models.verify import verify_model

        return verify_model(self, samples=samples, sample=sample, runtime=runtime or self._runtime, **options)

    def __repr__(self) -> str:
        return f"<Model {self.name!r}: {self.n} steps, {len(self._data)} bytes>"
