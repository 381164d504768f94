"""A part of a model: steps [start, stop), as a .tflite file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from splitiot._files import read_bounded, write_atomically
from splitiot.errors import CutError, MalformedModel, NotCuttable
from splitiot.models._format import FUSING, Anatomy
from splitiot.models._formats import FORMATS, LARGEST_BYTES, child_shapes_for, format_of
from splitiot.pipeline import Boundary, Executable, Part, Runtime, Sink, TensorSpec

__all__ = ["ModelPart"]

_FORMAT = 1
_Tensor = tuple[str, str, tuple[int, ...]]


class _Description(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a part says about itself, stored in its file as JSON."""

    format: int
    digest: str
    start: int
    stop: int
    n: int
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    passthrough: list[str]
    sink: Sink
    stateful: bool = False
    name: str = ""
    fused: str = ""


class ModelPart(Part):
    """Steps [start, stop) of a model.

    Attributes
    ----------
    start, stop, n : int
        `n` is the number of steps of the whole model.
    digest : str
        The whole model's.
    name : str
    inputs, outputs : Boundary
        In the order of the file's inputs and outputs. A result whose size depends on the data stands there with
        the shape that the file has.
    passthrough : tuple of str
        Names that are inputs and, untouched, outputs as well.
    sink : {"device", "edge"}
    stateful : bool
        Whether it remembers something between runs.
    fused : str
        What it must not be run with the default kernels for: which operators at one of its ends those run as one. Empty
        where any kernels will do.
    """

    def __init__(
        self,
        description: _Description,
        inputs: Boundary,
        outputs: Boundary,
        write: Callable[[], bytes],
        runtime: Runtime | None = None,
    ) -> None:
        self.start, self.stop, self.n = description.start, description.stop, description.n
        self.digest, self.name, self.sink = description.digest, description.name, description.sink
        self.passthrough = tuple(description.passthrough)
        self.stateful, self.fused = description.stateful, description.fused
        self.inputs, self.outputs = inputs, outputs
        self._write, self._runtime = write, runtime

    @classmethod
    def cut(
        cls,
        anatomy: Anatomy,
        start: int,
        stop: int,
        *,
        digest: str,
        name: str,
        sink: Sink,
        signature: str,
        runtime: Runtime | None,
    ) -> ModelPart:
        """Describe a part; its bytes are made when they are asked for. `Model.part` checks the cuts."""
        taken = anatomy.crossing(start, sink)
        given = anatomy.produced(start, stop, sink)
        inputs = Boundary(tuple(map(anatomy.spec, taken)))
        outputs = Boundary(tuple(map(anatomy.spec, given)))
        description = _Description(
            _FORMAT, digest, start, stop, len(anatomy.steps), _listed(inputs), _listed(outputs),
            [anatomy.names[i] for i in given if i in set(taken)], sink,
            anatomy.remembers(start, stop), name,
            anatomy.fused(start) or anatomy.fused(stop),
        )  # fmt: skip

        def write() -> bytes:
            return anatomy.write_part(
                start, stop, taken, given, signature=signature, description=msgspec.json.encode(description)
            )

        return cls(description, inputs, outputs, write, runtime)

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes, *, runtime: Runtime | None = None) -> ModelPart:
        """Read a part that was saved; `runtime` is what it is run with when nothing else is said.

        Raises
        ------
        MalformedModel
            The file is broken, no part, does not fit its own description, or can't be read.
        FileNotFoundError
        """
        if isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
        else:
            data = read_bounded(source, most_bytes=LARGEST_BYTES, what="a part of a model", error=MalformedModel)
        anatomy, raw = (format_of(data) or FORMATS[0]).read_part(data, ask_shapes=child_shapes_for(None))
        try:
            description = msgspec.json.decode(raw, type=_Description)
        except msgspec.DecodeError as error:
            raise MalformedModel(f"the part's description is broken: {error}") from error
        if description.format != _FORMAT or not 0 <= description.start < description.stop <= description.n:
            raise MalformedModel(
                f"the part's description has format {description.format} and steps "
                f"[{description.start}, {description.stop}) of {description.n}: cut the model again with this version"
            )
        inputs = Boundary(tuple(map(anatomy.spec, anatomy.inputs)))
        # what an interpreter told when it was cut need not be asked again
        told = [shape for _, _, shape in description.outputs]
        if len(told) != len(anatomy.outputs):
            raise MalformedModel("the part's outputs are not those of its description: was it changed?")
        outputs = Boundary(tuple(map(anatomy.spec, anatomy.outputs, told)))
        if _listed(inputs) != description.inputs or _listed(outputs) != description.outputs:
            raise MalformedModel("the part's inputs and outputs are not those of its description: was it changed?")
        return cls(description, inputs, outputs, lambda: data, runtime)

    def to_bytes(self) -> bytes:
        """Return the part as a .tflite file. The same part gives the same bytes.

        Raises
        ------
        CutError
            The part has no steps.
        """
        if self.start == self.stop:
            raise CutError(f"part [{self.start}, {self.stop}) has no steps: there is no file for it")
        return self._write()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the part to a file: all of it, or nothing."""
        path = Path(path)
        write_atomically(path, self.to_bytes())
        return path

    def open(self, runtime: Runtime | None = None) -> Executable:
        """Make it ready to run, in an interpreter.

        Raises
        ------
        MissingDependencyError
            There is no interpreter.
        UnsupportedModel
            The interpreter does not take it.
        NotCuttable
            One of its ends is no legal cut with these kernels.
        """
        from splitiot.models.execute import open_part

        runtime = runtime or self._runtime or Runtime()
        if self.fused and runtime.kernels in FUSING:
            raise NotCuttable(f"part [{self.start}, {self.stop}) of {self.name} can't be run like that: {self.fused}")
        return open_part(self, runtime)

    def __repr__(self) -> str:
        return f"<ModelPart {self.name!r} [{self.start}, {self.stop}) of {self.n}>"


def _listed(boundary: Boundary) -> list[_Tensor]:
    tensors: tuple[TensorSpec, ...] = boundary.tensors or ()
    return [(t.name, t.dtype, t.shape) for t in tensors]
