"""Which operators are steps, and which tensors are alive at each cut."""

from __future__ import annotations

from collections.abc import Iterable

from splitiot.models.tflite.graph import Graph, Operator
from splitiot.models.tflite.operators import CONTROL, RANDOM, RESOURCES

__all__ = ["Liveness"]


class Liveness:
    """Steps, and where tensors are born and used last.

    Operators that compute constants from constants are no steps: every part that needs them gets a copy.

    Attributes
    ----------
    steps : tuple of Operator
    constants : dict of int to Operator
        The operators that are no steps, by the tensors they make.
    born : dict of int to int
        The first cut at which a tensor exists: 0 for inputs, k + 1 for what step k makes. Constants are not in it,
        unless they are results: a result that no step makes belongs to the first step.
    last : dict of int to int
        The last step that reads a tensor.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[int, Operator] = {}
        steps = []
        for operator in graph.operators:
            if self._is_constant(operator):
                self.constants |= dict.fromkeys((i for i in operator.outputs if i >= 0), operator)
            else:
                steps.append(operator)
        if not steps:  # nothing but constants: then those are what there is to run
            steps, self.constants = list(graph.operators), {}
        self.steps = tuple(steps)
        self.results = tuple(dict.fromkeys(graph.outputs))
        self.born: dict[int, int] = dict.fromkeys(graph.inputs, 0)
        self.last: dict[int, int] = {}
        for index, operator in enumerate(self.steps):
            self.born |= dict.fromkeys((i for i in operator.outputs if i >= 0), index + 1)
            self.last |= dict.fromkeys((i for i in operator.inputs if i >= 0), index)
        self.constant_results = frozenset(i for i in self.results if i not in self.born)
        self.born |= dict.fromkeys(self.constant_results, 1)
        self._order = sorted(
            (i for i in self.born if i in self.last and i not in self.constant_results), key=self.born.__getitem__
        )

    def _is_constant(self, operator: Operator) -> bool:
        if operator.code in CONTROL or operator.code in RANDOM or operator.code in RESOURCES:
            return False
        if operator.code == "CUSTOM" or operator.subgraphs or not operator.inputs:
            return False
        tensors = self.graph.tensors
        return all(i < 0 or tensors[i].constant or i in self.constants for i in operator.inputs) and not any(
            tensors[i].type in ("RESOURCE", "VARIANT") for i in operator.outputs if i >= 0
        )

    def live(self, cut: int) -> tuple[int, ...]:
        """Tensors that exist at `cut` and that a later step reads, the oldest first."""
        return tuple(i for i in self._order if self.born[i] <= cut <= self.last[i])

    def results_at(self, cut: int) -> tuple[int, ...]:
        """The graph's outputs that exist at `cut`, in the graph's order."""
        return tuple(i for i in self.results if self.born[i] <= cut)

    def needed_constants(self, indices: Iterable[int]) -> dict[int, Operator]:
        """The constant operators, by their index, that making these tensors takes."""
        needed: dict[int, Operator] = {}
        wanted = list(indices)
        while wanted:
            operator = self.constants.get(wanted.pop())
            if operator is not None and operator.index not in needed:
                needed[operator.index] = operator
                wanted += operator.inputs
        return needed
