"""What a format of networks must provide: a folder beside this file with a class `Format`, and an `Anatomy`.

Everything here is about bytes and tables: no interpreter, no process. What an interpreter must say is asked through
`AskShapes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from splitiot.pipeline import Kernels, Sink, Step, TensorSpec

__all__ = ["FUSING", "Anatomy", "AskShapes", "Format"]

FUSING: Final[frozenset[Kernels]] = frozenset({"default"})
"""The kernels that run neighbouring operators as one, so that a cut between them changes bits."""


class AskShapes(Protocol):
    """Asks an interpreter for the shapes of a network's tensors.

    It raises MissingDependencyError where there is no interpreter, and ModelError where that does not run the network.
    """

    def __call__(
        self, model: bytes, inputs: Mapping[int, tuple[int, ...]] | None = None
    ) -> Mapping[int, tuple[int, ...]]:
        """Return them by the tensor's index; `inputs` are other shapes for inputs."""


class Anatomy(Protocol):
    """One network taken apart: its steps, where it may be cut, what would cross there, and the files of its parts.

    Its tensors have numbers. A cut lies before the step of its number.

    Attributes
    ----------
    signature : str or None
        Which of the file's signatures it is, if it is one.
    subgraph : int
        Which of the file's graphs it is: 0 is the one that interpreters run unless they are told otherwise.
    steps : tuple of Step
        In the order in which they run.
    names : tuple of str
        A name for every tensor, each once.
    inputs, outputs : tuple of int
        As the file lists them; an output may stand there twice.
    input_names, output_names : mapping of str to str
        What the file's signature calls inputs and outputs, with the names of their tensors.
    stateful, random : bool
        Whether a run leaves something to the next, and whether one draws random numbers.
    """

    signature: str | None
    subgraph: int
    steps: tuple[Step, ...]
    names: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: Mapping[str, str]
    output_names: Mapping[str, str]
    stateful: bool
    random: bool

    def even_from(self) -> int:
        """The first cut behind all steps that may work more for some values than for others."""

    def identity(self) -> str:
        """Say what is cut besides the file, for the digest: the graph, and the table of steps."""

    def warnings(self, kernels: Kernels) -> Iterable[str]:
        """What to know before cutting, and running with these kernels."""

    def spec(self, index: int, shape: tuple[int, ...] | None = None) -> TensorSpec:
        """Describe a tensor.

        Where its shape is not known it is the one that the file has, or `shape`: then no interpreter is asked.
        """

    def shape(self, index: int) -> tuple[int, ...] | None:
        """A tensor's shape, None where even an interpreter can't tell, or there is none to ask."""

    def index_limits(self) -> Mapping[int, int]:
        """Inputs that are used as indices, as far as that is known: what their values must be less than."""

    def crossing(self, cut: int, sink: Sink) -> tuple[int, ...]:
        """The tensors that cross at a cut."""

    def returning(self, cut: int, sink: Sink) -> tuple[int, ...]:
        """The tensors that cross back: results that the device does not have at `cut`."""

    def results_at(self, cut: int) -> tuple[int, ...]:
        """The outputs that exist at `cut`, each once."""

    def produced(self, start: int, stop: int, sink: Sink) -> tuple[int, ...]:
        """What the part [start, stop) gives: what crosses at its end, and the results made inside.

        A part without steps gives what crosses there.
        """

    def remembers(self, start: int, stop: int) -> bool:
        """Whether one of the steps [start, stop) leaves something to the next run."""

    def refused(self, sink: Sink, *, fusing: bool) -> dict[int, str]:
        """The cuts that are not legal, with the reasons of each; `fusing` kernels run operators as one."""

    def fused(self, cut: int) -> str:
        """Which operators on both sides of a cut some kernels run as one; empty where there are none."""

    def write_part(
        self,
        start: int,
        stop: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        signature: str,
        description: bytes,
    ) -> bytes:
        """Write the part [start, stop) as a file of its own, with a description that `Format.read_part` gives back."""


class Format(Protocol):
    """One format of files."""

    def recognises(self, data: bytes) -> bool:
        """Whether a file's first bytes say that it is of this format."""

    def read(
        self,
        data: bytes,
        *,
        signature: str | None,
        ask_shapes: AskShapes,
        resize_input: Mapping[str, Sequence[int]] | None = None,
    ) -> tuple[bytes, Anatomy]:
        """Read and check a network; give its file, which is another one if inputs are resized, and its anatomy.

        Raises
        ------
        MalformedModel
            The file is broken.
        UnsupportedModel
            It uses something that is not known, or has no such signature or input.
        """

    def read_part(self, data: bytes, *, ask_shapes: AskShapes) -> tuple[Anatomy, bytes]:
        """Read and check a part; give its anatomy and the description that was written with it.

        Raises
        ------
        MalformedModel
            The file is broken, or no part.
        """
