"""Operators that kernels run as one, so that a cut between them changes bits.

XNNPACK, the delegate of the default kernels, rewrites a network before it runs it. Most of what it rewrites gives the
same bits (an activation becomes part of the operator before it, padding part of a convolution). What does not is listed
here, with its conditions; LiteRT's own kernels, without a delegate or the reference ones, rewrite nothing.
``tests/models/test_fusions.py`` tries pairs of operators on the installed interpreter and compares what it finds with
this list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np

from splitiot.models.tflite.graph import Graph, Operator, Tensor
from splitiot.models.tflite.operators import ELEMENTWISE

__all__ = ["FUSED", "Fusion", "find_fusions"]

FUSED: Final = frozenset(
    {
        *((one, other) for one in ("MUL", "SQUARE") for other in ("SUM", "MEAN")),
        ("DEQUANTIZE", "BATCH_MATMUL"),
        *(("MAX_POOL_2D", other) for other in ("RELU", "RELU6", "MAXIMUM", "MINIMUM")),
        *(("MINIMUM", other) for other in ("RELU", "RELU6", "MAXIMUM")),
        ("MAXIMUM", "MINIMUM"),
    }
)
"""Pairs of operators, the second working on the first's result, that run as one under some conditions.

- MUL of a float tensor by itself, without an activation, or SQUARE, and the SUM or MEAN of it over constant axes: they
  become one sum of squares, whoever else reads the squares.
- DEQUANTIZE of an int8 tensor with one scale and zero point 0, of which a BATCH_MATMUL is the only reader, as its
  second matrix: it multiplies by the integers.
- MAX_POOL_2D of floats, of which the only reader is a RELU or RELU6, or a MAXIMUM or MINIMUM with 0: the pooling clamps
  its result itself, and zeros get another sign.
- Limits of floats that leave only 0: a MINIMUM with a number below 0 and a RELU, RELU6 or MAXIMUM with 0 behind it, or
  a MAXIMUM with one above 0 and a MINIMUM with 0. They become one clamp, and zeros get another sign.

What changes nothing may lie between them: RESHAPE to the same shape, MAXIMUM with minus infinity, MINIMUM with
infinity, BROADCAST_TO; before a BATCH_MATMUL the TRANSPOSE of the last two dimensions; behind a MAX_POOL_2D other
limits.
"""

_FLOATS = ("FLOAT32", "FLOAT16")


class Fusion(msgspec.Struct, frozen=True):
    """Steps that run as one: no cut from `first` + 1 to `last`."""

    first: int
    last: int
    operators: tuple[str, str]
    """The two, with their numbers in the file."""


def find_fusions(graph: Graph, steps: Sequence[Operator]) -> Iterator[Fusion]:
    """Find what kernels that rewrite networks run as one.

    Parameters
    ----------
    graph : Graph
    steps : sequence of Operator
        Those that can be parted by a cut; operators of the graph that are none belong to every part.
    """
    if not {operator.code for operator in steps}.isdisjoint(_ENDS):
        yield from _Search(graph, steps).fusions()


class _Search:
    """Looks from each operator that may be the second of two for the first."""

    def __init__(self, graph: Graph, steps: Sequence[Operator]) -> None:
        self.tensors, self.steps = graph.tensors, steps
        self.maker = {tensor: index for index, step in enumerate(steps) for tensor in step.outputs if tensor >= 0}
        self.readers = _readers(graph)
        self.shaped = _shaped(graph, steps)

    def fusions(self) -> Iterator[Fusion]:
        for last, step in enumerate(self.steps):
            kind, source = _ENDS.get(step.code, ("", 0))
            if kind == "limits":
                zeros = (i for i, limit in enumerate(step.inputs) if _scalar(self.tensors[limit]) == 0)
                source = next((1 - i for i in zeros), source)
            if not kind or source >= len(step.inputs):
                continue
            crossed = self._crossed(step, step.inputs[source]) if kind == "limits" else None
            if crossed is not None:
                yield Fusion(crossed, last, (str(self.steps[crossed]), str(step)))
            index, first = self._root(step.inputs[source], last, kind)
            made_by = self.maker.get(index)
            if made_by is None:
                continue
            begin, start = self.steps[made_by], min(first, made_by)
            if kind == "squares":
                start = self._squares(begin, step, start)
            elif not (self._weights(begin, step, index) if kind == "weights" else self._pooled(begin, index)):
                continue
            if start < last:
                yield Fusion(start, last, (str(begin), str(step)))

    def _squares(self, begin: Operator, step: Operator, first: int) -> int:
        """The first step of a sum of squares; one past the last where it is none."""
        none = len(self.steps)
        squares = self.tensors[begin.outputs[0]]
        if squares.type not in _FLOATS or self.tensors[step.inputs[1]].data is None:
            return none
        if begin.code == "SQUARE":
            return first
        if begin.code != "MUL" or (begin.options is not None and begin.options["fused_activation_function"]):
            return none
        one, since_one = self._root(begin.inputs[0], first, "squares")
        other, since_other = self._root(begin.inputs[1], first, "squares")
        return min(since_one, since_other) if one == other else none

    def _crossed(self, step: Operator, index: int) -> int | None:
        """The earliest of the limits before one by 0 that leave nothing but 0 between them."""
        earliest = None
        while (made_by := self.maker.get(index)) is not None:
            before = self.steps[made_by]
            source = self._same(before, "limits")
            if source is None:
                return earliest
            other = "MAXIMUM" if step.code == "MINIMUM" else "MINIMUM"
            value = next((v for i in before.inputs if (v := _scalar(self.tensors[i])) is not None), 0.0)
            if before.code == other and (value > 0 if other == "MAXIMUM" else value < 0):
                earliest = made_by
            index = source
        return earliest

    def _pooled(self, begin: Operator, index: int) -> bool:
        """Whether a pooling clamps its result itself."""
        return (
            begin.code == "MAX_POOL_2D" and self.tensors[index].type in _FLOATS and self.readers.get(index, 0) < 2
        )

    def _weights(self, begin: Operator, step: Operator, index: int) -> bool:
        """Whether a matrix of integers is multiplied by as it is."""
        source = self.tensors[begin.inputs[0]]
        floats = (self.tensors[i].type == "FLOAT32" for i in (*step.inputs, *step.outputs))
        return (
            begin.code == "DEQUANTIZE" and source.type == "INT8" and _symmetric(source)
            and all(floats) and self.readers.get(index, 0) < 2
        )  # fmt: skip

    def _root(self, index: int, first: int, kind: str) -> tuple[int, int]:
        """The tensor that stands behind one, without what changes nothing, and the first step that this rests on."""
        while (made_by := self.maker.get(index)) is not None:
            step = self.steps[made_by]
            source = self._same(step, kind)
            if source is None:
                break
            first = min(first, made_by)
            if step.code == "RESHAPE":
                since = self.shaped.get(source)
                if since is None:
                    break
                first = min(first, since)
            index = source
        return index, first

    def _same(self, step: Operator, kind: str) -> int | None:
        """The input that a step hands on unchanged, None where it does something."""
        one = step.inputs[0]
        if step.code == "RESHAPE":
            same = self.tensors[one].shape == self.tensors[step.outputs[0]].shape
            return one if same else None
        if step.code == "BROADCAST_TO":
            return one
        if step.code in _SPARED:
            for index, limit in ((one, step.inputs[1]), (step.inputs[1], one)):
                value = _scalar(self.tensors[limit])
                if value is not None and (value == _SPARED[step.code] or kind == "limits"):
                    return index
        if step.code in _LIMITS and kind == "limits":
            return one
        if step.code == "TRANSPOSE" and kind == "weights":
            order = _integers(self.tensors[step.inputs[1]])
            usual = list(range(len(order)))
            if len(order) > 1 and order == [*usual[:-2], usual[-1], usual[-2]]:
                return one
        return None


_LIMITS: Final = frozenset({"RELU", "RELU6", "RELU_N1_TO_1"})

_ENDS: Final = {
    "SUM": ("squares", 0), "MEAN": ("squares", 0), "BATCH_MATMUL": ("weights", 1), "RELU": ("limits", 0),
    "RELU6": ("limits", 0), "MAXIMUM": ("limits", 2), "MINIMUM": ("limits", 2),
}  # fmt: skip
"""What the second operator may make of the first one's result, and which input that is (2: the one that is not 0)."""

_SPARED: Final = {"MAXIMUM": -np.inf, "MINIMUM": np.inf}
"""Limits that limit nothing."""


def _readers(graph: Graph) -> dict[int, int]:
    """How many operators that lead to a result read each tensor, and whether it is one."""
    wanted = set(graph.outputs)
    count = dict.fromkeys(wanted, 1)
    for operator in reversed(graph.operators):
        if wanted.intersection(operator.outputs) or not operator.outputs:
            for index in {i for i in operator.inputs if i >= 0}:
                count[index] = count.get(index, 0) + 1
                wanted.add(index)
    return count


def _shaped(graph: Graph, steps: Sequence[Operator]) -> dict[int, int]:
    """The step since which a tensor's shape is known before anything runs, of those of which it is.

    XNNPACK drops a RESHAPE only then: behind a RESHAPE to constant sizes, and operators that keep them.
    """
    given = {i for operator in graph.operators for i in operator.outputs} - {i for step in steps for i in step.outputs}
    given |= {tensor.index for tensor in graph.tensors if tensor.constant}
    since = dict.fromkeys(given, len(steps))
    for index, step in enumerate(steps):
        if step.code == "RESHAPE" and (len(step.inputs) < 2 or step.inputs[1] in given):
            since[step.outputs[0]] = index
        elif step.code in ELEMENTWISE and all(i in since for i in step.inputs):
            since[step.outputs[0]] = min(since[i] for i in step.inputs)
    return since


def _symmetric(tensor: Tensor) -> bool:
    table = tensor.table["quantization"]
    if table is None or table["scale"] is None or len(table["scale"]) != 1:
        return False
    zero_point = table["zero_point"]
    return zero_point is None or not len(zero_point) or not zero_point[0]


def _scalar(tensor: Tensor) -> float | None:
    """A constant's one float."""
    if tensor.data is None or tensor.type != "FLOAT32" or len(tensor.data) != 4:
        return None
    return float(tensor.data.view("<f4")[0])


def _integers(tensor: Tensor) -> list[int]:
    if tensor.data is None or tensor.type not in ("INT32", "INT64"):
        return []
    values: list[int] = tensor.data.view("<i4" if tensor.type == "INT32" else "<i8").tolist()
    return values
