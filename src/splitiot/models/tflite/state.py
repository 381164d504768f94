"""What steps share or remember: variables, tables, state tensors. Steps that share such a thing stay together."""

from __future__ import annotations

import msgspec

from splitiot.models.tflite.graph import Graph, Network, Operator
from splitiot.models.tflite.operators import BUILT_IN, RANDOM, RESOURCES, STATE_INPUTS

__all__ = ["State", "find_state"]


class State(msgspec.Struct, eq=False):
    """What a step touches, itself and in the subgraphs that it calls."""

    shared: dict[str, str] = {}
    """Things that live in the interpreter, with the operator that touches each."""
    remembers: bool = False
    """Whether something is written that the next run finds again."""
    random: dict[str, None] = {}
    custom: dict[str, str] = {}
    """Custom operators that interpreters do not all bring with them, with their names."""


def find_state(network: Network, graph: Graph, operators: tuple[Operator, ...]) -> tuple[State, ...]:
    """For every operator of `graph`, what it touches."""
    reached: dict[int, State] = {}
    resources = _resources(graph)
    return tuple(_operator_state(network, graph, operator, resources, reached) for operator in operators)


def _resources(graph: Graph) -> dict[int, str]:
    """The variable or table that each RESOURCE tensor stands for."""
    resources: dict[int, str] = {}
    for operator in graph.operators:
        options = operator.options
        if operator.code == "VAR_HANDLE" and options is not None:
            container, name = options["container"] or "", options["shared_name"] or ""
            label = f"variable {'/'.join(filter(None, (container, name)))!r}"
        elif operator.code == "HASHTABLE" and options is not None:
            label = f"table {options['table_id']}"
        else:
            continue
        resources |= dict.fromkeys(operator.outputs, label)
    return resources


def _operator_state(
    network: Network, graph: Graph, operator: Operator, resources: dict[int, str], reached: dict[int, State]
) -> State:
    state = State()
    for index in (*operator.inputs, *operator.outputs):
        if index in resources:
            state.shared[resources[index]] = str(operator)
        elif index >= 0 and graph.tensors[index].variable:
            state.shared[f"subgraph {graph.index}'s {graph.tensors[index]}"] = str(operator)
            state.remembers = True
    if operator.code == "ASSIGN_VARIABLE":
        state.remembers = True
    elif operator.code in RESOURCES and not state.shared:
        state.shared["a resource that is handed in"] = str(operator)
    elif operator.code in STATE_INPUTS and any(
        position < len(operator.inputs) and operator.inputs[position] >= 0 for position in STATE_INPUTS[operator.code]
    ):
        state.remembers = True
    if operator.code in RANDOM:
        state.random[_place(graph, operator)] = None
    if operator.custom and operator.custom not in BUILT_IN:
        state.custom[_place(graph, operator)] = operator.custom
    for index in operator.subgraphs:
        inner = reached.get(index)
        if inner is None:
            inner = reached[index] = _graph_state(network, network.graphs[index], reached)
        state.shared |= dict.fromkeys(inner.shared, f"{operator}, through subgraph {index},")
        # what is done once is done again by a fresh interpreter: nothing that a run leaves to the next
        state.remembers |= inner.remembers and operator.code != "CALL_ONCE"
        state.random |= inner.random
        state.custom |= inner.custom
    return state


def _place(graph: Graph, operator: Operator) -> str:
    return f"{operator} of subgraph {graph.index}" if graph.index else str(operator)


def _graph_state(network: Network, graph: Graph, reached: dict[int, State]) -> State:
    whole, resources = State(), _resources(graph)
    for operator in graph.operators:
        state = _operator_state(network, graph, operator, resources, reached)
        whole.shared |= state.shared
        whole.remembers |= state.remembers
        whole.random |= state.random
        whole.custom |= state.custom
    return whole
