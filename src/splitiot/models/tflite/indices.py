"""Which inputs of a graph are indices into something, and how large they may be: for random inputs that can be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from splitiot.models.tflite.graph import Graph, Operator
from splitiot.models.tflite.operators import code_set

__all__ = ["index_limits"]

_KEEPS: Final = code_set("""
CAST RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE SLICE STRIDED_SLICE GATHER TILE BROADCAST_TO REVERSE_V2
""")
"""Their results are values of their first input: a number stays the index that it was."""

_KEEPS_LAST: Final = code_set("SPLIT")
_KEEPS_ALL: Final = code_set("CONCATENATION PACK UNPACK SPLIT_V")

_POSITIONS: Final = {"GATHER": (1, 0), "EMBEDDING_LOOKUP": (0, 1), "GATHER_ND": (1, 0)}
"""Of the indices, and of what they point into."""


def index_limits(graph: Graph, shape: Callable[[int], tuple[int, ...] | None]) -> Mapping[int, int]:
    """Find inputs that are used as indices.

    They are followed through operators that only move or convert them. What a subgraph does with them is not looked at.

    Parameters
    ----------
    graph : Graph
    shape : callable
        Gives a tensor's shape, None where it is not known.

    Returns
    -------
    mapping of int to int
        By the input's tensor: the number that its values must be less than, of all uses the least.
    """
    origins: dict[int, set[int]] = {i: {i} for i in graph.inputs}  # whose values a tensor has
    limits: dict[int, int] = {}
    for operator in graph.operators:
        bound = _bound(operator, shape)
        if bound is not None:
            for origin in origins.get(operator.inputs[_POSITIONS[operator.code][0]], ()):
                limits[origin] = min(limits.get(origin, bound), bound)
        moved = {origin for i in _moved(operator) for origin in origins.get(i, ())}
        if moved:
            for i in operator.outputs:
                origins.setdefault(i, set()).update(moved)
    return limits


def _moved(operator: Operator) -> tuple[int, ...]:
    if operator.code in _KEEPS:
        return operator.inputs[:1]
    if operator.code in _KEEPS_LAST:
        return operator.inputs[-1:]
    return operator.inputs if operator.code in _KEEPS_ALL else ()


def _bound(operator: Operator, shape: Callable[[int], tuple[int, ...] | None]) -> int | None:
    """How many things an operator's indices can point at."""
    if operator.code not in _POSITIONS or len(operator.inputs) < 2:
        return None
    indices, table = (operator.inputs[position] for position in _POSITIONS[operator.code])
    sizes = shape(table)
    if not sizes:
        return None
    if operator.code == "GATHER_ND":
        depth = (shape(indices) or (0,))[-1]
        return min(sizes[:depth], default=None)
    axis = 0 if operator.code == "EMBEDDING_LOOKUP" or operator.options is None else int(operator.options["axis"])
    return sizes[axis] if -len(sizes) <= axis < len(sizes) else None
