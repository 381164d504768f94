"""Does a network mean something? What would crash an interpreter, or make it read garbage, is refused here.

A model file is code: interpreters check the flatbuffer at most, and follow every index in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

from splitiot.errors import MalformedModel
from splitiot.models.tflite.graph import BITS, Graph, Network, Operator, Tensor
from splitiot.models.tflite.operators import (
    ARITY,
    CONTROL,
    NEEDS_OPTIONS,
    OPTIONAL_INPUTS,
    OPTIONS,
    RESOURCES,
    code_set,
)
from splitiot.models.tflite.scales import check_scales, scaled
from splitiot.models.tflite.sparsity import check_sparsity
from splitiot.models.tflite.table import SCALAR, Table

__all__ = ["validate"]

_QUANTISED = {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767), "INT4": (-8, 7), "INT2": (-2, 1)}
_DEEPEST = 64
_LARGEST_BYTES = 2**31 - 1
# they compute with the scales; int16 sums and products may be plain integers
_SCALED = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 3, "FULLY_CONNECTED": 3, "SOFTMAX": 3, "LOGISTIC": 3,
    "TANH": 3, "ADD": 2, "SUB": 2, "MUL": 2, "DEQUANTIZE": 3, "QUANTIZE": 3,
}  # fmt: skip
_POSITIVE = (
    "stride_w", "stride_h", "stride_d", "dilation_wfactor", "dilation_hfactor", "dilation_dfactor",
    "dilation_w_factor", "dilation_h_factor", "dilation_d_factor", "filter_width", "filter_height", "block_size",
)  # fmt: skip
_SAME_SHAPE = code_set("""
RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LOGISTIC TANH SOFTMAX LOG_SOFTMAX ABS EXP LOG SIN COS SQRT RSQRT SQUARE NEG FLOOR
CEIL ROUND ELU GELU LEAKY_RELU HARD_SWISH DEQUANTIZE QUANTIZE CAST LOGICAL_NOT L2_NORMALIZATION
LOCAL_RESPONSE_NORMALIZATION
""")
_BROADCAST = code_set("""
ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE FLOOR_DIV FLOOR_MOD LESS LESS_EQUAL GREATER GREATER_EQUAL EQUAL
NOT_EQUAL LOGICAL_AND LOGICAL_OR
""")
_ARITHMETIC = code_set("""
CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV FULLY_CONNECTED BATCH_MATMUL AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D CUMSUM
MEAN SUM REDUCE_PROD REDUCE_MAX REDUCE_MIN SVDF UNIDIRECTIONAL_SEQUENCE_LSTM
""")
_NUMERIC = (_SAME_SHAPE | _BROADCAST | _ARITHMETIC) - {"EQUAL", "NOT_EQUAL"}  # these compare strings too
_SAME_TYPE = code_set("ADD SUB SQUARED_DIFFERENCE RESHAPE UNIDIRECTIONAL_SEQUENCE_LSTM")  # first input, last output
_INPUT_GATE = (1, 5, 12)  # weights, recurrent weights and bias
_ENUMS = {"padding": 2, "fused_activation_function": 6, "weights_format": 2, "kernel_type": 2, "mode": 2}


def validate(network: Network) -> None:
    """Check a network.

    Raises
    ------
    MalformedModel
        What is wrong, and where.
    """
    for graph in network.graphs:
        for tensor in graph.tensors:
            _tensor(f"subgraph {graph.index}, {tensor}", tensor)
        _flow(graph)
    for graph in network.graphs:  # now every index holds
        for operator in graph.operators:
            where = f"subgraph {graph.index}, {operator}"
            _operator(where, operator)
            _contents(where, graph, operator)
            _sizes(where, graph, operator)
            _calls(where, network, graph, operator)
    _acyclic(network)


def _fail(where: str, what: str) -> NoReturn:
    raise MalformedModel(f"{where}: {what}")


def _tensor(where: str, tensor: Tensor) -> None:
    if any(size < 0 for size in tensor.shape):
        _fail(where, f"negative sizes in its shape {tensor.shape}")
    if math.prod(tensor.shape) * BITS.get(tensor.type, 32) > 8 * _LARGEST_BYTES:
        _fail(where, f"its shape {tensor.shape} takes more than 2 GB")
    signature = tensor.signature
    if signature is not None:
        if len(signature) != len(tensor.shape):
            _fail(where, f"shape {tensor.shape} and shape signature {signature} differ in length")
        if any(s not in (-1, d) for s, d in zip(signature, tensor.shape, strict=True)):
            _fail(where, f"shape {tensor.shape} does not fit its signature {signature}")
    if tensor.variable and tensor.constant:
        _fail(where, "it is a variable, but the file holds contents for it")
    if tensor.table["sparsity"] is not None:
        check_sparsity(where, tensor)
    elif tensor.data is not None:
        _data(where, tensor)
    quantisation = tensor.table["quantization"]
    if quantisation is not None:
        _quantisation(where, tensor, quantisation)


def _data(where: str, tensor: Tensor) -> None:
    assert tensor.data is not None
    have = len(tensor.data)
    if tensor.type == "STRING":
        _strings(where, tensor)
    elif tensor.type in BITS:
        expected = (math.prod(tensor.shape) * BITS[tensor.type] + 7) // 8
        if have != expected:
            _fail(where, f"its buffer has {have} bytes, {tensor.type}{list(tensor.shape)} needs {expected}")


def _strings(where: str, tensor: Tensor) -> None:
    """A count, count + 1 offsets, and the characters."""
    assert tensor.data is not None
    raw = tensor.data.tobytes()
    count = int.from_bytes(raw[:4], "little", signed=True)
    if count != math.prod(tensor.shape) or len(raw) < 8 + 4 * count:
        _fail(where, f"its buffer holds {count} strings, its shape {tensor.shape} says {math.prod(tensor.shape)}")
    offsets = np.frombuffer(raw, "<i4", count + 1, 4).astype(np.int64)
    if offsets[0] < 8 + 4 * count or (np.diff(offsets) < 0).any() or offsets[-1] > len(raw):
        _fail(where, "its strings' offsets leave the buffer")


def _quantisation(where: str, tensor: Tensor, table: Table) -> None:
    scale, zero_point, axis = table["scale"], table["zero_point"], table["quantized_dimension"]
    count = 0 if scale is None else len(scale)
    if not count:
        return
    zeros = 0 if zero_point is None else len(zero_point)
    if zeros not in (1, count):
        _fail(where, f"{count} scales, but {zeros} zero points")
    if count > 1 or axis:
        if tensor.shape and not 0 <= axis < len(tensor.shape):
            _fail(where, f"quantised along dimension {axis} of {len(tensor.shape)}")
        if count > 1 and tensor.shape and tensor.shape[axis] != count:
            _fail(where, f"{count} scales along dimension {axis}, which has {tensor.shape[axis]} elements")
    low, high = _QUANTISED.get(tensor.type, (0, 0))
    scales = scale.tolist()
    least = min(scales)
    if not all(map(math.isfinite, scales)) or least < 0 or (low < high and least == 0):
        _fail(where, "a scale is not finite and greater than 0")
    if low < high and not low <= min(points := zero_point.tolist()) <= max(points) <= high:
        _fail(where, f"a zero point lies outside {tensor.type}'s {low}..{high}")


def _flow(graph: Graph) -> None:
    """Each tensor has one producer, which comes before its users."""
    where, count = f"subgraph {graph.index}", len(graph.tensors)
    for what, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for index in indices:
            if not 0 <= index < count:
                _fail(where, f"{what} {index} is not there, it has {count} tensors")
    if len(set(graph.inputs)) < len(graph.inputs):
        _fail(where, "a tensor is listed twice among its inputs")
    for index in graph.inputs:
        if graph.tensors[index].constant or graph.tensors[index].variable:
            _fail(where, f"{graph.tensors[index]} is an input, but the file gives its contents")
    producer: dict[int, Operator] = {}
    for operator in graph.operators:
        inner = f"{where}, {operator}"
        for index in (*operator.inputs, *operator.outputs, *operator.intermediates):
            if not -1 <= index < count:
                _fail(inner, f"tensor {index} is not there, the subgraph has {count}")
        for index in operator.outputs:
            if index < 0:
                continue
            tensor = graph.tensors[index]
            if index in producer:
                _fail(inner, f"{tensor} is written twice, {producer[index]} writes it too")
            if index in graph.inputs or tensor.constant or tensor.variable:
                _fail(inner, f"it writes {tensor}, which is an input, a constant or a variable")
            producer[index] = operator
    have = set(graph.inputs)
    for operator in graph.operators:
        for index in operator.inputs:
            if index >= 0 and index not in have and not _given(graph.tensors[index]):
                later = producer.get(index)
                why = f"{later} makes it only later" if later else "nothing makes it"
                _fail(f"{where}, {operator}", f"it reads {graph.tensors[index]}, but {why}")
        have.update(operator.outputs)
    for index in graph.outputs:
        if index not in have and not _given(graph.tensors[index]):
            _fail(where, f"output {graph.tensors[index]}: nothing makes it")


def _given(tensor: Tensor) -> bool:
    """Whether a tensor that no operator makes has contents (an empty one needs none)."""
    return tensor.constant or tensor.variable or 0 in tensor.shape


def _operator(where: str, operator: Operator) -> None:
    bounds = ARITY.get(operator.code)
    if bounds is not None:
        low, high, least, most = bounds
        if not low <= len(operator.inputs) <= high:
            _fail(where, f"{len(operator.inputs)} inputs, expected {_range(low, high)}")
        if not least <= len(operator.outputs) <= most:
            _fail(where, f"{len(operator.outputs)} outputs, expected {_range(least, most)}")
        optional = OPTIONAL_INPUTS.get(operator.code, ())
        for position, index in enumerate(operator.inputs):
            if index < 0 and position not in optional:
                _fail(where, f"an input that it needs is absent, input {position}")
    expected, options = OPTIONS.get(operator.code), operator.options
    if options is None:
        if operator.code in NEEDS_OPTIONS or operator.table["builtin_options_type"]:
            _fail(where, f"its options ({expected or 'of some kind'}) are missing")
        return
    if expected is not None and options.name != expected:
        _fail(where, f"it has {options.name}, expected {expected}")
    for field in _POSITIVE:
        if _scalar(options, field) and options[field] < 1:
            _fail(where, f"{field} must be at least 1, it is {options[field]}")
    for field, count in _ENUMS.items():
        if _scalar(options, field) and not 0 <= options[field] < count:
            _fail(where, f"{field} must be in 0..{count - 1}, it is {options[field]}")


def _scalar(options: Table, name: str) -> bool:
    """Whether there is a number of this name: StableHLO's options have vectors of the same names."""
    field = options.type.by_name.get(name)
    return field is not None and field.kind == SCALAR


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}" if high < 1 << 31 else f"{low} or more"


def _contents(where: str, graph: Graph, operator: Operator) -> None:
    """Counts and axes in the options against the tensors, and scales where they are computed with."""
    code, options = operator.code, operator.options
    if code in RESOURCES:
        handle = graph.tensors[(operator.inputs or operator.outputs)[0]]
        if handle.type != "RESOURCE":
            _fail(where, f"{handle} is {handle.type}, it must be a RESOURCE")
    if code not in CONTROL and code != "CUSTOM":
        for index in operator.inputs[1 if code in RESOURCES else 0 :]:
            if index >= 0 and graph.tensors[index].type == "RESOURCE":
                _fail(where, f"it reads {graph.tensors[index]}, a RESOURCE, as if it were a value")
    if code in _SCALED:
        types = ("INT8", "UINT8", "INT16")[: _SCALED[code]]
        for index in (*operator.inputs[:2], *operator.outputs):
            tensor = graph.tensors[index]
            if index >= 0 and tensor.type in types and not scaled(tensor):
                _fail(where, f"{tensor} is {tensor.type} without a scale")
    check_scales(where, graph, operator)
    _types(where, graph, operator)
    if code == "DEPTHWISE_CONV_2D" and (len(operator.inputs) < 3 or operator.inputs[2] < 0):
        _fail(where, "without a bias, which its kernels read unasked")
    if code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        _lstm(where, graph, operator)
    elif code in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        image, weights = (graph.tensors[i] for i in operator.inputs[:2])
        if not (len(image.shape) == 4 or image.may_lack_shape) or len(weights.shape) != 4 or 0 in weights.shape:
            _fail(where, f"it needs an image and weights of 4 dimensions, got {image.shape} and {weights.shape}")
    elif code == "FULLY_CONNECTED":
        weights = graph.tensors[operator.inputs[1]]
        if len(weights.shape) != 2 or 0 in weights.shape:
            _fail(where, f"its weights need 2 dimensions, they are {weights.shape}")
    if options is None:
        return
    if code in ("SPLIT", "SPLIT_V") and options["num_splits"] != len(operator.outputs):
        _fail(where, f"it splits into {options['num_splits']}, but has {len(operator.outputs)} outputs")
    elif code == "UNPACK" and options["num"] != len(operator.outputs):
        _fail(where, f"it unpacks {options['num']}, but has {len(operator.outputs)} outputs")
    elif code == "PACK" and options["values_count"] != len(operator.inputs):
        _fail(where, f"it packs {options['values_count']}, but has {len(operator.inputs)} inputs")
    elif code == "CONCATENATION":
        ranks = {len(graph.tensors[i].shape) for i in operator.inputs if i >= 0 and graph.tensors[i].shape}
        if ranks and not -max(ranks) <= options["axis"] < max(ranks):
            _fail(where, f"axis {options['axis']} of {max(ranks)} dimensions")


def _types(where: str, graph: Graph, operator: Operator) -> None:
    """Numbers where numbers are computed with, and results of their sources' type: kernels ask the inputs at most."""
    tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
    if operator.code in _NUMERIC:
        for tensor in tensors:
            if tensor.type not in BITS:
                _fail(where, f"it computes with numbers, {tensor} is {tensor.type}")
    if operator.code in _SAME_TYPE:
        source, result = tensors[0], tensors[-1]
        if source.type != result.type:
            _fail(where, f"it makes {result} of type {result.type} from {source}, which is {source.type}")


def _lstm(where: str, graph: Graph, operator: Operator) -> None:
    """What the kernels take for granted, integer ones above all."""
    source, inputs, between = graph.tensors[operator.inputs[0]], operator.inputs, operator.intermediates
    if not (2 <= len(source.shape) <= 3 or source.may_lack_shape):
        _fail(where, f"its input needs 2 or 3 dimensions, {source} has {source.shape}")
    if len({inputs[position] >= 0 for position in _INPUT_GATE}) > 1:
        _fail(where, "its input gate is given in part")
    if source.type == "INT8":
        # the hidden state's scale, and with normalised layers (inputs 20 to 23) the gates' too
        needed = range(5) if any(index >= 0 for index in inputs[20:]) else (4,)
        if len(between) < 5 or any(between[position] < 0 for position in needed):
            _fail(where, f"its intermediate tensors are {between}, int8 needs {', '.join(map(str, needed))}")


def _sizes(where: str, graph: Graph, operator: Operator) -> None:
    """Results as large as what they are made from.

    What crosses at a cut is announced by the stored shapes, and a variable that grows kills LiteRT.
    """
    if operator.code not in _SAME_SHAPE and operator.code not in _BROADCAST:
        return
    inputs = [graph.tensors[index] for index in operator.inputs]
    result = graph.tensors[operator.outputs[0]]
    # an open size, or a file too old to tell, is decided by the interpreter
    if not result.shape or any(t.signature is not None and -1 in t.signature for t in (result, *inputs)):
        return
    if not all(t.shape or t.constant or t.ranked for t in inputs):
        return
    shape: tuple[int, ...] = ()
    try:
        shape = np.broadcast_shapes(*(t.shape for t in inputs))
    except ValueError:
        _fail(where, f"its inputs' shapes do not fit each other: {', '.join(str(t.shape) for t in inputs)}")
    if shape != result.shape:
        _fail(where, f"{result} is stored with shape {result.shape}, it is made with {shape}")


def _calls(where: str, network: Network, graph: Graph, operator: Operator) -> None:
    """Called subgraphs exist, and take and give what the operator does."""
    for index in operator.subgraphs:
        if not 0 <= index < len(network.graphs):
            _fail(where, f"subgraph {index} is not there, the file has {len(network.graphs)}")
    called = [network.graphs[index] for index in operator.subgraphs]
    taken, given = operator.inputs, operator.outputs
    if operator.code == "IF":
        for branch in called:
            _fits(where, graph, taken[1:], branch, branch.inputs, "takes")
            _fits(where, graph, given, branch, branch.outputs, "gives")
    elif operator.code == "WHILE":
        condition, body = called
        _fits(where, graph, taken, condition, condition.inputs, "takes")
        _fits(where, graph, taken, body, body.inputs, "takes")
        _fits(where, graph, taken, body, body.outputs, "gives")
        _fits(where, graph, taken, graph, given, "gives")
        if [condition.tensors[i].type for i in condition.outputs] != ["BOOL"]:
            _fail(where, f"subgraph {condition.index}, its condition, must give one BOOL")
    elif operator.code in ("CALL", "STABLEHLO_COMPOSITE"):
        for body in called:
            _fits(where, graph, taken, body, body.inputs, "takes")
            _fits(where, graph, given, body, body.outputs, "gives")
    elif operator.code == "CALL_ONCE" and (called[0].inputs or called[0].outputs):
        _fail(where, f"subgraph {called[0].index}, which is called once, must take and give nothing")


def _fits(where: str, graph: Graph, indices: Iterable[int], called: Graph, others: Iterable[int], verb: str) -> None:
    mine = [graph.tensors[i].type if i >= 0 else None for i in indices]
    theirs = [called.tensors[i].type if i >= 0 else None for i in others]
    if mine != theirs:
        _fail(where, f"subgraph {called.index} {verb} {theirs}, the operator has {mine}")


def _acyclic(network: Network) -> None:
    """No subgraph calls itself, however indirectly. Without recursion: chains may be long."""
    calls: list[set[int]] = [
        {index for operator in graph.operators for index in operator.subgraphs} for graph in network.graphs
    ]
    open_, done = set[int](), set[int]()
    stack: list[tuple[int, Any]] = []
    for root in range(len(calls)):
        if root in done:
            continue
        stack.append((root, iter(sorted(calls[root]))))
        open_.add(root)
        while stack:
            index, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                open_.discard(index)
                done.add(index)
            elif following in open_:
                _fail(f"subgraph {index}", f"it calls subgraph {following}, which calls it")
            elif following not in done:
                if len(stack) == _DEEPEST:
                    _fail(f"subgraph {root}", f"calls are nested more than {_DEEPEST} deep")
                open_.add(following)
                stack.append((following, iter(sorted(calls[following]))))
