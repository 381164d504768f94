"""One subgraph of a network: its steps, and what crosses at each cut. Which cuts are legal: `refused_cuts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from splitiot._cached import cached_property
from splitiot.errors import MalformedModel, MissingDependencyError, ModelError
from splitiot.models._format import FUSING, AskShapes
from splitiot.models.tflite.fusions import Fusion, find_fusions
from splitiot.models.tflite.graph import DTYPES, Network, Operator, Tensor
from splitiot.models.tflite.indices import index_limits
from splitiot.models.tflite.liveness import Liveness
from splitiot.models.tflite.operators import BUILT_INTO_XNNPACK, UNEVEN
from splitiot.models.tflite.refused_cuts import refused_cuts, run_as_one
from splitiot.models.tflite.shapes import Shapes
from splitiot.models.tflite.slice import slice_network
from splitiot.models.tflite.state import find_state
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.writer import write_model
from splitiot.pipeline import Kernels, Sink, Step, TensorSpec

__all__ = ["Anatomy"]


class Anatomy:
    """One subgraph, taken apart. See `splitiot.models._format.Anatomy`.

    Parameters
    ----------
    network : Network
        Validated.
    index : int
        The subgraph.
    ask_shapes : AskShapes
        Asks an interpreter for shapes that the file does not tell, if it comes to that.
    signature : str, optional
        Which of the file's signatures it is.
    unchosen : bool
        Whether nobody said which subgraph: then several signatures are worth a warning.

    Attributes
    ----------
    operators : tuple of Operator
        What the steps are.
    producer : dict of int to Operator
        Who makes a tensor.
    """

    def __init__(
        self,
        network: Network,
        index: int,
        *,
        ask_shapes: AskShapes,
        signature: str | None = None,
        unchosen: bool = False,
    ) -> None:
        self.network, self.graph = network, network.graphs[index]
        if not self.graph.operators or not self.graph.outputs:
            raise MalformedModel(f"subgraph {index} has no operator or no output: there is nothing to run")
        self.ask_shapes, self.signature, self.unchosen = ask_shapes, signature, unchosen
        self.subgraph, self.inputs, self.outputs = index, self.graph.inputs, self.graph.outputs
        self.liveness = Liveness(self.graph)
        self.operators = self.liveness.steps
        self.shapes = Shapes(self.graph)
        self.names = _names(self.graph.tensors)
        self.steps = tuple(Step(self._step_name(operator), operator.code) for operator in self.operators)
        self.input_names: Mapping[str, str]
        self.output_names: Mapping[str, str]
        self.input_names, self.output_names = self._signature_names()
        self.states = find_state(network, self.graph, self.operators)
        self.stateful = any(state.remembers for state in self.states)
        self.random = any(state.random for state in self.states)
        self.producer = {i: operator for operator in self.graph.operators for i in operator.outputs if i >= 0}
        self._answer: dict[int, tuple[int, ...]] | str | None = None

    def _step_name(self, operator: Operator) -> str:
        """The name of what a step makes."""
        outputs = [i for i in operator.outputs if i >= 0]
        return self.names[outputs[0]] if outputs else f"{operator.code}_{operator.index}"

    def _signature_names(self) -> tuple[dict[str, str], dict[str, str]]:
        """What the file's signature calls inputs and outputs."""
        for signature in self.network.signatures:
            if signature.key == self.signature and signature.subgraph == self.subgraph:
                inputs, outputs = (
                    {name: self.names[index] for name, index in entries}
                    for entries in (signature.inputs, signature.outputs)
                )
                return inputs, outputs
        return {}, {}

    def identity(self) -> str:
        """Say what is cut besides the file, for the digest: the subgraph, and the table of steps."""
        return "\n".join((f"\nsubgraph {self.subgraph}", *(f"{o.index} {o.code}" for o in self.operators)))

    def even_from(self) -> int:
        """The first cut behind all steps that may work more for some values than for others."""
        first, shapes = 0, self.shapes
        untold = {*shapes.varying, *shapes.unranked, *shapes.unknown}
        for cut, (operator, state) in enumerate(zip(self.operators, self.states, strict=True), start=1):
            uneven = operator.code in UNEVEN or bool(operator.custom) or state.remembers
            if uneven or not untold.isdisjoint((*operator.inputs, *operator.outputs)):
                first = cut
        return first

    def index_limits(self) -> Mapping[int, int]:
        """Inputs that are used as indices, as far as that is known: what their values must be less than."""
        return index_limits(self.graph, self.shape)

    def remembers(self, start: int, stop: int) -> bool:
        """Whether one of the steps [start, stop) leaves something to the next run."""
        return any(state.remembers for state in self.states[start:stop])

    def results_at(self, cut: int) -> tuple[int, ...]:
        """The outputs that exist at `cut`, each once."""
        return self.liveness.results_at(cut)

    def warnings(self, kernels: Kernels) -> Iterable[str]:
        """What to know before cutting, and running with these kernels."""
        signatures = self.network.signatures
        if self.unchosen and len({each.subgraph for each in signatures}) > 1:
            first = "the first subgraph"
            taken = next((each.key for each in signatures if each.subgraph == self.subgraph), first)
            others = ", ".join(repr(each.key) for each in signatures if each.key != taken)
            yield f"several signatures and none was chosen: it is {taken!r}; signature= takes {others} as well"
        for what in dict.fromkeys(what for state in self.states for what in state.random):
            yield f"{what} draws random numbers: only fresh interpreters, run by run, agree with the whole model"
        for what, name in {place: name for state in self.states for place, name in state.custom.items()}.items():
            if name not in BUILT_INTO_XNNPACK:
                yield f"{what} is a custom operator: it can be cut, but only runs where it is registered"
            elif kernels not in FUSING:
                yield f"{what} is a custom operator of XNNPACK: it only runs with the default kernels"
        for tensor in self.shapes.open_inputs:
            yield (
                f"input {self.names[tensor.index]!r} has open sizes {tensor.signature}: it is taken as "
                f"{tensor.shape}; fix the shape when converting if that is not what you mean"
            )

    @property
    def n(self) -> int:
        """The number of steps."""
        return len(self.operators)

    def crossing(self, cut: int, sink: Sink) -> tuple[int, ...]:
        """The tensors that cross at a cut."""
        if cut == 0:
            return self.graph.inputs
        if sink == "device":
            return self.liveness.live(cut) if cut < self.n else ()
        return tuple(dict.fromkeys((*self.liveness.live(cut), *self.liveness.results_at(cut))))

    def returning(self, cut: int, sink: Sink) -> tuple[int, ...]:
        """The tensors that cross back: results that the device does not have at `cut`."""
        if sink == "edge":
            return ()
        if cut == 0:
            return self.liveness.results
        have = set(self.liveness.results_at(cut))
        return tuple(i for i in self.liveness.results if i not in have)

    def produced(self, start: int, stop: int, sink: Sink) -> tuple[int, ...]:
        """What the part [start, stop) gives: what crosses at its end, and the results made inside."""
        if start == stop:
            return self.crossing(start, sink)
        born = self.liveness.born
        first = 0 if start == 0 else start + 1
        results = [i for i in self.liveness.results_at(stop) if sink == "edge" or born[i] >= first]
        return tuple(dict.fromkeys((*self.crossing(stop, sink), *results)))

    def shape(self, index: int) -> tuple[int, ...] | None:
        """A tensor's shape, None where even an interpreter can't tell, or there is none to ask."""
        if index in self.shapes.varying or index in self.shapes.unranked:
            return None
        if index not in self.shapes.unknown:
            return self.graph.tensors[index].shape
        answer = self.answer
        return answer.get(index) if isinstance(answer, dict) else None

    @property
    def answer(self) -> dict[int, tuple[int, ...]] | str:
        """What an interpreter says about the shapes, or why there is no answer. Asked once."""
        if self._answer is None:
            self._answer = self._ask()
        return self._answer

    def _ask(self) -> dict[int, tuple[int, ...]] | str:
        table, tensors = self.part_table(0, self.n, self.graph.inputs, self.liveness.results, baked=False)
        try:
            known = self.ask_shapes(write_model(table))
        except MissingDependencyError:
            return 'only an interpreter knows its shape, and there is none: pip install "splitiot[litert]"'
        except ModelError as error:
            return f"only an interpreter knows its shape, and it does not run: {error}"
        return {old: known[new] for old, new in tensors.items() if new in known}

    def spec(self, index: int, shape: tuple[int, ...] | None = None) -> TensorSpec:
        """Describe a tensor; where its shape is not known, with the one that the file has.

        With `shape` no interpreter is asked: it stands for one that the file does not tell.
        """
        tensor = self.graph.tensors[index]
        if shape is None or not (index in self.shapes.unknown or index in self.shapes.varying):
            shape = self.shape(index)
        scale, zero_point = _affine(tensor)
        return TensorSpec(
            self.names[index],
            DTYPES.get(tensor.type, "bytes" if tensor.type == "STRING" else "void"),
            tensor.shape if shape is None else shape,
            scale,
            zero_point,
        )

    @cached_property
    def fusions(self) -> tuple[Fusion, ...]:
        """Steps that some kernels run as one."""
        return tuple(find_fusions(self.graph, self.operators))

    def fused(self, cut: int) -> str:
        """Which operators on both sides of a cut some kernels run as one; empty where there are none."""
        return "; ".join(run_as_one(f) for f in self.fusions if f.first < cut <= f.last)

    def refused(self, sink: Sink, *, fusing: bool) -> dict[int, str]:
        """The cuts that are not legal, with the reasons of each."""
        return refused_cuts(self, sink, fusing=fusing)

    def _part_shapes(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> tuple[dict[int, tuple[int, ...]], dict[int, tuple[int, ...]]]:
        """Shapes that become fixed in a part's file, and those of inputs that the whole model learns when it runs.

        Where the file has an open size (-1), the stored one stands for it, and may become another. Where it has no
        shape at all, kernels are chosen without one: that must stay so.
        """
        shapes, deferred = {}, {}
        for index in dict.fromkeys((*inputs, *outputs)):
            shape = self.shape(index) if index in self.shapes.unknown else None
            if shape and self.graph.tensors[index].signature is not None:
                shapes[index] = shape
            elif shape and index in inputs and shape != self.graph.tensors[index].shape:
                deferred[index] = shape
        return shapes, deferred

    def part_table(
        self,
        start: int,
        stop: int,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        baked: bool = True,
        signature: str = "serving_default",
        metadata: bytes | None = None,
    ) -> tuple[Table, dict[int, int]]:
        """Make the tables of the part [start, stop)."""
        steps = self.operators[start:stop]
        wanted = [i for operator in steps for i in operator.inputs]
        # a result that no step makes belongs to the first step
        wanted += [i for i in outputs if i in self.liveness.constant_results and i not in inputs]
        operators: dict[int, Operator] = {o.index: o for o in steps} | self.liveness.needed_constants(wanted)
        shapes, deferred = self._part_shapes(inputs, outputs) if baked else ({}, {})
        return slice_network(
            self.network,
            self.graph,
            [operators[index] for index in sorted(operators)],
            inputs,
            outputs,
            names=dict(enumerate(self.names)),
            shapes=shapes,
            deferred=deferred,
            signature=signature,
            metadata=metadata,
        )

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
        """Write the part [start, stop) as a file of its own."""
        table, _ = self.part_table(
            start, stop, tuple(inputs), tuple(outputs), signature=signature, metadata=description
        )
        return write_model(table)


def _affine(tensor: Tensor) -> tuple[float | None, int | None]:
    """Scale and zero point, where there is one of each."""
    table = tensor.table["quantization"]
    if table is None or table["scale"] is None or len(table["scale"]) != 1 or not tensor.type.startswith(("INT", "U")):
        return None, None
    zero_point = table["zero_point"]
    return float(table["scale"][0]), int(zero_point[0]) if zero_point is not None and len(zero_point) else 0


def _names(tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
    """The tensors' own names; what has none, or another's, gets one from its index."""
    taken = {tensor.name for tensor in tensors}
    seen: set[str] = set()
    names = []
    for tensor in tensors:
        name = tensor.name or f"tensor_{tensor.index}"
        if name in seen or (not tensor.name and name in taken):
            name = f"{name}#{tensor.index}"
            while name in seen or name in taken:
                name += "'"
        seen.add(name)
        names.append(name)
    return tuple(names)
