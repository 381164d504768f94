"""Which tensors have a shape that the file really tells, and why the others have not.

Files give -1 for a size that the converter did not know. Where it is the batch, which every operator on the way
keeps, the stored 1 is right. Elsewhere an interpreter must be asked, unless the size follows from the data:
such a tensor has another shape at every run, and can't cross.

Files of 2019 and before know no -1, and say nothing of a shape that their converter did not know, as they do of a
scalar's. Where such a file has a computed tensor like that, an interpreter is asked for all of them.
"""

from __future__ import annotations

import math

from splitiot.models.tflite.graph import Graph, Operator, Tensor
from splitiot.models.tflite.operators import (
    BATCHED,
    CONTROL,
    DATA_SHAPED,
    RANDOM,
    RESOURCES,
    SHAPE_INPUTS,
    SHAPE_READERS,
)

__all__ = ["Shapes"]

_OWN_VALUES = RANDOM | RESOURCES | CONTROL | {"CUSTOM"}
"""What they give is not decided by their inputs alone."""


class Shapes:
    """What is known about the shapes of one subgraph's tensors.

    Attributes
    ----------
    varying : dict of int to str
        Tensors whose shape depends on the data, with the reason.
    unranked : set of int
        Tensors of which not even the number of dimensions is known.
    unknown : set of int
        Tensors whose shape is fixed, but only an interpreter knows it.
    open_inputs : list of Tensor
        Inputs with a free size other than the batch: it is taken as it is stored.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.varying: dict[int, str] = {}
        self.unranked: set[int] = set()
        self.unknown: set[int] = set()
        self.open_inputs: list[Tensor] = []
        self._fixed_values: set[int] = {t.index for t in graph.tensors if t.constant or 0 in t.shape}
        # only newer converters say of every tensor whether its rank is known, or write signatures at all
        self._ranks = any(t.ranked for t in graph.tensors)
        self._modern = self._ranks or any(t.signature is not None for t in graph.tensors)
        for index in graph.inputs:
            tensor = graph.tensors[index]
            if self._no_rank(tensor):
                self.unranked.add(index)
            if tensor.signature is not None and -1 in tensor.signature[1:]:
                self.open_inputs.append(tensor)
        # a scalar looks the same as a tensor whose shape the converter did not know
        untold = {i for o in graph.operators for i in o.outputs if i >= 0 and graph.tensors[i].may_lack_shape}
        self._silent = bool(untold) and not self._modern
        for operator in graph.operators:
            self._visit(operator)

    def _no_rank(self, tensor: Tensor) -> bool:
        return self._ranks and tensor.may_lack_shape

    def _visit(self, operator: Operator) -> None:
        inputs = [i for i in operator.inputs if i >= 0]
        why = self._depends(operator, inputs)
        fixed = bool(inputs) and not operator.subgraphs and operator.code not in _OWN_VALUES
        if fixed and all(
            i in self._fixed_values or (operator.code in SHAPE_READERS and i not in self.varying) for i in inputs
        ):
            self._fixed_values.update(operator.outputs)
        for index in operator.outputs:
            if index < 0:
                continue
            tensor = self.graph.tensors[index]
            free = tensor.signature is not None and -1 in tensor.signature
            if self._no_rank(tensor):
                self.unranked.add(index)
            elif why and (free or not self._modern or (operator.code == "WHERE")):
                self.varying[index] = why
            elif (
                self._silent
                or (not self._ranks and tensor.may_lack_shape)
                or (free and not self._batch_only(operator, inputs, tensor))
            ):
                self.unknown.add(index)

    def _depends(self, operator: Operator, inputs: list[int]) -> str | None:
        """Why the outputs' shapes may depend on the data, None when they do not."""
        for position in SHAPE_INPUTS.get(operator.code, ()):
            if position < len(operator.inputs):
                index = operator.inputs[position]
                if index >= 0 and index not in self._fixed_values:
                    return f"{operator} takes its output's size from {self.graph.tensors[index]}, which is computed"
        decides = operator.code in DATA_SHAPED and not (operator.code == "CUSTOM" and self._has_fixed_shapes(operator))
        if decides and not all(i in self._fixed_values for i in inputs):
            return f"{operator} gives a result whose size depends on the data"
        for index in inputs:
            if index in self.varying:
                return self.varying[index]
        return None

    def _has_fixed_shapes(self, operator: Operator) -> bool:
        """Whether the file gives fixed shapes for all that an operator makes."""
        outputs = [self.graph.tensors[i] for i in operator.outputs if i >= 0]
        return all(t.shape and (t.signature is None or -1 not in t.signature) for t in outputs)

    def _batch_only(self, operator: Operator, inputs: list[int], tensor: Tensor) -> bool:
        """Whether the only free size is the batch, handed on from an input whose shape is known."""
        assert tensor.signature is not None
        if -1 in tensor.signature[1:]:
            return False
        sources = [
            self.graph.tensors[i]
            for i in inputs
            if not self.graph.tensors[i].constant and self.graph.tensors[i].signature is not None
        ]
        if not sources or any(t.index in self.unknown or t.index in self.unranked for t in sources):
            return False
        if not all(t.signature and t.signature[0] == -1 and t.shape[0] == tensor.shape[0] for t in sources):
            return False
        if operator.code in BATCHED:
            return True
        return self._keeps_batch(operator, sources[0], tensor)

    def _keeps_batch(self, operator: Operator, source: Tensor, tensor: Tensor) -> bool:
        code, options, rank = operator.code, operator.options, max(len(source.shape), 1)
        if code == "RESHAPE":
            return math.prod(source.shape) == math.prod(tensor.shape)
        if code == "FULLY_CONNECTED":
            weights = self.graph.tensors[operator.inputs[1]].shape
            return math.prod(source.shape) * weights[0] == math.prod(tensor.shape) * weights[1]
        if code in ("CONCATENATION", "PACK", "UNPACK") and options is not None:
            axis: int = options["axis"]
            return axis % (rank + (code == "PACK")) != 0
        if code in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"):
            axes = self._ints(operator.inputs[1])
            return axes is not None and all(axis % rank for axis in axes)
        if code in ("TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD"):
            values = self._ints(operator.inputs[1])
            return bool(values) and values[0] == 0 and (code == "TRANSPOSE" or values[1] == 0)
        if code == "SQUEEZE" and options is not None:
            dims = options["squeeze_dims"]
            return dims is not None and len(dims) > 0 and all(d % rank for d in dims.tolist())
        if code in ("SPLIT", "SPLIT_V"):
            axes = self._ints(operator.inputs[0 if code == "SPLIT" else 2])
            return axes is not None and all(axis % rank for axis in axes)
        return False

    def _ints(self, index: int) -> list[int]:
        """A constant's integers; nothing where it is computed."""
        tensor = self.graph.tensors[index]
        if tensor.data is None or tensor.type not in ("INT32", "INT64"):
            return []
        values: list[int] = tensor.data.view("<i4" if tensor.type == "INT32" else "<i8").tolist()
        return values
