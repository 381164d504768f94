"""Tables of a whole model -> tables of a part: what it needs, renumbered, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from splitiot.models.tflite.graph import Graph, Network, Operator
from splitiot.models.tflite.operators import SUBGRAPH_FIELDS
from splitiot.models.tflite.schema import OPERATORS, TENSOR_TYPES
from splitiot.models.tflite.table import Table

__all__ = ["METADATA", "slice_network"]

METADATA = "splitiot"
"""The name under which a part's own description is stored in it."""

_KEPT_METADATA = ("min_runtime_version",)


def slice_network(
    network: Network,
    graph: Graph,
    operators: Sequence[Operator],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    names: Mapping[int, str],
    shapes: Mapping[int, tuple[int, ...]],
    deferred: Mapping[int, tuple[int, ...]] = MappingProxyType({}),
    signature: str = "serving_default",
    metadata: bytes | None = None,
) -> tuple[Table, dict[int, int]]:
    """Make the `Model` table of a part.

    Parameters
    ----------
    network : Network
    graph : Graph
        The subgraph that is cut; it becomes the first. What `operators` call goes along.
    operators : sequence of Operator
        In the order of the whole model.
    inputs, outputs : sequence of int
        Tensors of `graph`, in the order that the part shall have.
    names : mapping of int to str
        Names of `graph`'s tensors.
    shapes : mapping of int to tuple of int
        Shapes of tensors that the file does not tell; they become fixed.
    deferred : mapping of int to tuple of int
        Shapes of inputs that the whole model's interpreter learns only when it runs.
    signature : str
        Key of the part's signature.
    metadata : bytes, optional
        The part's description.

    Returns
    -------
    tuple of Table and dict
        The model, and the new index of every tensor of `graph` that is in it.
    """
    part = _Part(network, [graph.index, *_reached(network, operators)])
    tensors = part.used(operators, inputs, outputs)
    tables = [part.graph(graph, operators, tensors, inputs, outputs, names, shapes)]
    for index in list(part.graphs)[1:]:
        inner = network.graphs[index]
        everything = part.used(inner.operators, inner.inputs, inner.outputs)
        tables.append(part.graph(inner, inner.operators, everything, inner.inputs, inner.outputs, {}, {}))
    outside = dict(tensors)
    if deferred:  # when all other operators' codes have their numbers
        tables[0], moved = part.defer_shapes(tables[0], {tensors[old]: shape for old, shape in deferred.items()})
        outside |= {old: moved[tensors[old]] for old in deferred}
    model = network.table
    entries = [
        Table("Metadata", name=entry["name"], buffer=part.buffer(entry["buffer"]))
        for entry in model["metadata"] or ()
        if entry["name"] in _KEPT_METADATA
    ]
    if metadata is not None:
        part.buffers.append(Table("Buffer", data=np.frombuffer(metadata, np.uint8)))
        entries.append(Table("Metadata", name=METADATA, buffer=len(part.buffers) - 1))
    model = Table(
        "Model",
        version=model["version"],
        operator_codes=[*(model["operator_codes"][index] for index in part.codes), *part.more_codes],
        subgraphs=tables,
        description=model["description"],
        buffers=part.buffers,
        metadata=entries or None,
        signature_defs=[
            Table(
                "SignatureDef",
                inputs=_map(inputs, names, outside),
                outputs=_map(outputs, names, outside),
                signature_key=signature,
            )
        ],
    )
    return model, tensors


def _map(indices: Iterable[int], names: Mapping[int, str], tensors: Mapping[int, int]) -> list[Table]:
    return [Table("TensorMap", name=names[index], tensor_index=tensors[index]) for index in indices]


def _reached(network: Network, operators: Iterable[Operator]) -> list[int]:
    """The subgraphs that operators call, directly or not, in the file's order."""
    reached: set[int] = set()
    wanted = [index for operator in operators for index in operator.subgraphs]
    while wanted:
        index = wanted.pop()
        if index not in reached:
            reached.add(index)
            wanted += [i for operator in network.graphs[index].operators for i in operator.subgraphs]
    return sorted(reached)


class _Part:
    """New numbers, given out as things are met."""

    def __init__(self, network: Network, graphs: Sequence[int]) -> None:
        self.network = network
        self.graphs = {old: new for new, old in enumerate(graphs)}
        self.codes: dict[int, int] = {}
        self.more_codes: list[Table] = []
        self.buffers = [Table("Buffer")]
        self._buffers: dict[int, int] = {}

    def used(self, operators: Iterable[Operator], inputs: Iterable[int], outputs: Iterable[int]) -> dict[int, int]:
        """The tensors that are used, in their old order, with their new numbers."""
        used = {*inputs, *outputs}
        for operator in operators:
            used.update(operator.inputs, operator.outputs, operator.intermediates)
        used.discard(-1)
        return {old: new for new, old in enumerate(sorted(used))}

    def buffer(self, old: int) -> int:
        """The new number of a buffer that has contents."""
        if old not in self._buffers:
            self._buffers[old] = len(self.buffers)
            self.buffers.append(Table("Buffer", data=self.network.table["buffers"][old]["data"]))
        return self._buffers[old]

    def graph(
        self,
        graph: Graph,
        operators: Iterable[Operator],
        tensors: Mapping[int, int],
        inputs: Iterable[int],
        outputs: Iterable[int],
        names: Mapping[int, str],
        shapes: Mapping[int, tuple[int, ...]],
    ) -> Table:
        tables = []
        for old in tensors:
            tensor = graph.tensors[old]
            changes: dict[str, object] = {"buffer": self.buffer(tensor.buffer) if tensor.constant else 0}
            if old in names:
                changes["name"] = names[old]
            if old in shapes:
                changes |= {"shape": np.array(shapes[old], np.int32), "shape_signature": None}
            tables.append(tensor.table.replace(**changes))
        remap = {**tensors, -1: -1}
        return Table(
            "SubGraph",
            tensors=tables,
            inputs=_indices(inputs, remap),
            outputs=_indices(outputs, remap),
            operators=[self.operator(operator, remap) for operator in operators],
            name=graph.table["name"],
        )

    def defer_shapes(self, graph: Table, deferred: Mapping[int, tuple[int, ...]]) -> tuple[Table, dict[int, int]]:
        """Let operators learn an input's shape when they run, as they do in the whole model.

        A delegate takes operators or leaves them by the shapes that the file tells: a part whose file tells more would
        be run by other kernels. So the input gets a tensor of its own, and the old one is made from it by a RESHAPE to
        sizes that are computed. (They are the sum of themselves and a variable that stays 0: what is computed from
        constants only, interpreters compute beforehand.)
        """
        tensors, added = list(graph["tensors"]), list[Table]()
        taken = {tensor["name"] for tensor in tensors}
        add, reshape = len(self.codes), len(self.codes) + 1
        self.more_codes = [_code("ADD"), _code("RESHAPE")]
        moved: dict[int, int] = {}
        for inner, shape in deferred.items():
            sizes = np.array(shape, np.int32)
            self.buffers.append(Table("Buffer", data=sizes.view(np.uint8)))
            moved[inner] = first = len(tensors)
            stored, name = tensors[inner], tensors[inner]["name"]
            tensors[inner] = stored.replace(name=_unused(name, taken))
            vector = {"shape": np.array([len(shape)], np.int32), "type": TENSOR_TYPES.index("INT32")}
            tensors += [
                stored.replace(shape=sizes),
                Table("Tensor", name=_unused(f"{name} 0", taken), is_variable=True, **vector),
                Table("Tensor", name=_unused(f"{name} sizes", taken), buffer=len(self.buffers) - 1, **vector),
                Table("Tensor", name=_unused(f"{name} sum", taken), **vector),
            ]
            zero, stored_sizes, computed = range(first + 1, first + 4)
            added += [
                _operator(add, [zero, stored_sizes], [computed], Table("AddOptions")),
                _operator(reshape, [first, computed], [inner], Table("ReshapeOptions")),
            ]
        places = {"inputs": graph["inputs"].tolist(), "outputs": graph["outputs"].tolist()}
        changed = {key: np.array([moved.get(i, i) for i in old], np.int32) for key, old in places.items()}
        return graph.replace(tensors=tensors, operators=[*added, *graph["operators"]], **changed), moved

    def operator(self, operator: Operator, remap: Mapping[int, int]) -> Table:
        old = operator.table["opcode_index"]
        changes: dict[str, object] = {
            "opcode_index": self.codes.setdefault(old, len(self.codes)),
            "inputs": _indices(operator.inputs, remap),
            "outputs": _indices(operator.outputs, remap),
            "debug_metadata_index": None,
        }
        if operator.intermediates:
            changes["intermediates"] = _indices(operator.intermediates, remap)
        if operator.subgraphs and operator.options is not None:
            key = "builtin_options" if operator.table["builtin_options2"] is None else "builtin_options2"
            changes[key] = self.options(operator.options)
        return operator.table.replace(**changes)

    def options(self, options: Table) -> Table:
        changes: dict[str, object] = {}
        for name in SUBGRAPH_FIELDS[options.name]:
            value = options[name]
            if isinstance(value, int):
                changes[name] = self.graphs[value]
            elif value is not None:
                changes[name] = np.array([self.graphs[index] for index in value.tolist()], np.int32)
        return options.replace(**changes)


def _code(name: str) -> Table:
    number = OPERATORS.index(name)
    return Table("OperatorCode", deprecated_builtin_code=number, builtin_code=number, version=1)


def _operator(code: int, inputs: Sequence[int], outputs: Sequence[int], options: Table) -> Table:
    indices = {"inputs": np.array(inputs, np.int32), "outputs": np.array(outputs, np.int32)}
    return Table("Operator", opcode_index=code, builtin_options=options, **indices)


def _unused(name: str, taken: set[str]) -> str:
    """A name that no tensor has, made from one."""
    while name in taken:
        name += "'"
    taken.add(name)
    return name


def _indices(old: Iterable[int], remap: Mapping[int, int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array([remap[index] for index in old], np.int32)
