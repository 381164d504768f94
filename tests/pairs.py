"""Small networks of two neighbouring operators, and whether a cut between them changes bits.

Kernels may run neighbours as one. Each `Unit` adds one operator to a network; `PAIRS` are all that fit each other.
``python -m tests.pairs 0 1 2`` tries some of them, and writes a line of JSON for each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from splitiot.errors import UnsupportedModel
from splitiot.models import load_model
from splitiot.models._check import difference
from splitiot.models.interpreters import Array, open_interpreter
from splitiot.models.model import Model
from splitiot.models.tflite.table import Table
from splitiot.pipeline import Boundary, Kernels, Runtime
from tests.networks import Net

Shape = tuple[int, ...]
Arrays = dict[str, Array]

SHAPES: tuple[Shape, ...] = ((1, 6, 10, 132), (2, 3, 7, 67))
"""Height, width and channels, even and odd; enough of them that another order of additions shows."""


class DoesNotFit(Exception):
    """An operator does not take this shape."""


@frozen
class Unit:
    """One operator.

    Parameters
    ----------
    name : str
        The operator, and behind a blank which of its forms.
    takes, gives : {"FLOAT32", "INT8"}
    add : callable
        Takes a network and a tensor, adds the operator, returns its result. It may add inputs and constants.
    """

    name: str
    takes: str
    gives: str
    add: Callable[[Net, int], int]

    @property
    def code(self) -> str:
        return self.name.partition(" ")[0]


# float operators

_UNARY = (
    *("RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "ABS", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "NEG"),
    *("FLOOR", "CEIL", "ROUND", "SIN", "COS", "ELU", "HARD_SWISH"),
)
_OPTIONS = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions", "POW": "PowOptions",
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
}  # fmt: skip
_RELU6 = 3


def _shape(net: Net, x: int) -> Shape:
    return net.shape(x)


def _unary(code: str) -> Unit:
    return Unit(code, "FLOAT32", "FLOAT32", lambda net, x: net.unary(code, x))


def _binary(code: str, form: str) -> Unit:
    def add(net: Net, x: int) -> int:
        shape, channels = _shape(net, x), _shape(net, x)[-1]
        other = {
            "itself": lambda: x,
            "another": lambda: net.input(shape),
            "scalar": lambda: net.constant(1.7),
            "channels": lambda: net.constant(net.random.normal(0, 1, channels)),
            "two": lambda: net.constant(2.0),
            "zero": lambda: net.constant(0.0),
            "below zero": lambda: net.constant(-0.5),
            "itself, RELU6": lambda: x,
        }[form]()
        activation = {"fused_activation_function": _RELU6} if form.endswith("RELU6") else {}
        return net.op(code, [x, other], shape, options=Table(_OPTIONS[code], **activation))

    return Unit(f"{code} {form}", "FLOAT32", "FLOAT32", add)


def _reduction(code: str, axes: Sequence[int], keep: bool) -> Unit:
    def add(net: Net, x: int) -> int:
        shape = _shape(net, x)
        if len(shape) != 4:
            raise DoesNotFit
        left = [1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes]
        options = Table("ReducerOptions", keep_dims=keep)
        return net.op(code, [x, net.constant(list(axes), "INT32")], left, options=options)

    return Unit(f"{code} {list(axes)}", "FLOAT32", "FLOAT32", add)


def _image(net: Net, x: int) -> Shape:
    shape = _shape(net, x)
    if len(shape) != 4:
        raise DoesNotFit
    return shape


def _conv(net: Net, x: int) -> int:
    *space, channels = _image(net, x)
    options = Table("Conv2DOptions", stride_w=1, stride_h=1)
    return net.op("CONV_2D", [x, net.weights(8, 3, 3, channels), net.weights(8)], (*space, 8), options=options)


def _conv_valid(net: Net, x: int) -> int:
    b, h, w, channels = _image(net, x)
    if min(h, w) < 3:
        raise DoesNotFit
    options = Table("Conv2DOptions", stride_w=1, stride_h=1, padding=1)
    return net.op("CONV_2D", [x, net.weights(8, 3, 3, channels), net.weights(8)], (b, h - 2, w - 2, 8), options=options)


def _pointwise(net: Net, x: int) -> int:
    *space, channels = _image(net, x)
    options = Table("Conv2DOptions", stride_w=1, stride_h=1, fused_activation_function=_RELU6)
    return net.op("CONV_2D", [x, net.weights(16, 1, 1, channels), net.weights(16)], (*space, 16), options=options)


def _depthwise(net: Net, x: int) -> int:
    shape = _image(net, x)
    options = Table("DepthwiseConv2DOptions", stride_w=1, stride_h=1, depth_multiplier=1)
    operands = [x, net.weights(1, 3, 3, shape[-1]), net.weights(shape[-1])]
    return net.op("DEPTHWISE_CONV_2D", operands, shape, options=options)


def _transposed_conv(net: Net, x: int) -> int:
    b, h, w, channels = _image(net, x)
    made = (b, 2 * h, 2 * w, 4)
    options = Table("TransposeConvOptions", stride_w=2, stride_h=2)
    operands = [net.constant(made, "INT32"), net.weights(4, 2, 2, channels), x]
    return net.op("TRANSPOSE_CONV", operands, made, options=options)


def _dense(net: Net, x: int) -> int:
    *outer, width = _shape(net, x)
    if not outer:
        raise DoesNotFit
    options = Table("FullyConnectedOptions", keep_num_dims=True)
    return net.op("FULLY_CONNECTED", [x, net.weights(9, width), net.weights(9)], (*outer, 9), options=options)


def _weights_of_dense(net: Net, x: int) -> int:
    """What it works on are the weights."""
    shape = _shape(net, x)
    if len(shape) != 2:
        raise DoesNotFit
    options = Table("FullyConnectedOptions")
    return net.op("FULLY_CONNECTED", [net.input((5, shape[1])), x, -1], (5, shape[0]), options=options)


def _matrices(side: str, transposed: bool = False) -> Callable[[Net, int], int]:
    def add(net: Net, x: int) -> int:
        shape = _shape(net, x)
        if len(shape) < 2:
            raise DoesNotFit
        *outer, rows, columns = shape
        options = Table("BatchMatMulOptions", adj_y=transposed)
        if side == "left":
            return net.op("BATCH_MATMUL", [x, net.input((*outer, columns, 5))], (*outer, rows, 5), options=options)
        inner, width = (columns, rows) if transposed else (rows, columns)
        return net.op("BATCH_MATMUL", [net.input((*outer, 5, inner)), x], (*outer, 5, width), options=options)

    return add


def _pool(code: str, size: int = 2) -> Callable[[Net, int], int]:
    def add(net: Net, x: int) -> int:
        b, h, w, channels = _image(net, x)
        if min(h, w) < size:
            raise DoesNotFit
        options = Table("Pool2DOptions", stride_w=2, stride_h=2, filter_width=size, filter_height=size, padding=1)
        made = (b, (h - size) // 2 + 1, (w - size) // 2 + 1, channels)
        return net.op(code, [x], made, options=options)

    return add


def _pad(net: Net, x: int) -> int:
    b, h, w, channels = _image(net, x)
    margins = net.constant([[0, 0], [1, 1], [1, 1], [0, 0]], "INT32")
    return net.op("PAD", [x, margins], (b, h + 2, w + 2, channels), options=Table("PadOptions"))


def _mirror_pad(net: Net, x: int) -> int:
    b, h, w, channels = _image(net, x)
    if min(h, w) < 2:
        raise DoesNotFit
    margins = net.constant([[0, 0], [1, 1], [1, 1], [0, 0]], "INT32")
    return net.op("MIRROR_PAD", [x, margins], (b, h + 2, w + 2, channels), options=Table("MirrorPadOptions"))


def _flatten(net: Net, x: int) -> int:
    shape = _shape(net, x)
    made = (shape[0], int(np.prod(shape[1:])))
    return net.op("RESHAPE", [x, net.constant(made, "INT32")], made, options=Table("ReshapeOptions"))


def _expand(net: Net, x: int) -> int:
    shape = _shape(net, x)
    made = (1, *shape)
    return net.op("EXPAND_DIMS", [x, net.constant(0, "INT32")], made, options=Table("ExpandDimsOptions"))


def _transpose(*order: int) -> Callable[[Net, int], int]:
    def add(net: Net, x: int) -> int:
        shape = _shape(net, x)
        if len(order) != len(shape):
            raise DoesNotFit
        made = tuple(shape[i] for i in order)
        return net.op("TRANSPOSE", [x, net.constant(order, "INT32")], made, options=Table("TransposeOptions"))

    return add


def _concatenation(net: Net, x: int) -> int:
    shape = _shape(net, x)
    made = (*shape[:-1], 2 * shape[-1])
    options = Table("ConcatenationOptions", axis=len(shape) - 1)
    return net.op("CONCATENATION", [x, net.input(shape)], made, options=options)


def _split(net: Net, x: int) -> int:
    shape = _shape(net, x)
    if shape[-1] % 2:
        raise DoesNotFit
    return net.split(x, 2, len(shape) - 1)[1]


def _slice(net: Net, x: int) -> int:
    shape = _shape(net, x)
    made = (*shape[:-1], shape[-1] - 1)
    begin = net.constant([0] * (len(shape) - 1) + [1], "INT32")
    return net.op("SLICE", [x, begin, net.constant(made, "INT32")], made, options=Table("SliceOptions"))


def _every_other(net: Net, x: int) -> int:
    shape = _image(net, x)
    made = (*shape[:-1], (shape[-1] + 1) // 2)
    operands = [x, *(net.constant(v, "INT32") for v in ([0] * 4, list(shape), [1, 1, 1, 2]))]
    return net.op("STRIDED_SLICE", operands, made, options=Table("StridedSliceOptions"))


def _resize(code: str) -> Callable[[Net, int], int]:
    def add(net: Net, x: int) -> int:
        b, h, w, channels = _image(net, x)
        name = "ResizeBilinearOptions" if code == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
        made = (b, 2 * h + 1, 2 * w - 1, channels)
        return net.op(code, [x, net.constant(made[1:3], "INT32")], made, options=Table(name))

    return add


def _space_to_depth(net: Net, x: int) -> int:
    b, h, w, channels = _image(net, x)
    if h % 2 or w % 2:
        raise DoesNotFit
    options = Table("SpaceToDepthOptions", block_size=2)
    return net.op("SPACE_TO_DEPTH", [x], (b, h // 2, w // 2, 4 * channels), options=options)


def _depth_to_space(net: Net, x: int) -> int:
    b, h, w, channels = _image(net, x)
    if channels % 4:
        raise DoesNotFit
    options = Table("DepthToSpaceOptions", block_size=2)
    return net.op("DEPTH_TO_SPACE", [x], (b, 2 * h, 2 * w, channels // 4), options=options)


def _prelu(net: Net, x: int) -> int:
    shape = _shape(net, x)
    alpha = net.constant(np.abs(net.random.normal(0, 0.3, shape[-1])))
    return net.op("PRELU", [x, alpha], shape)


def _same(code: str, **options: Any) -> Callable[[Net, int], int]:
    name = {
        "SOFTMAX": "SoftmaxOptions", "LEAKY_RELU": "LeakyReluOptions", "GELU": "GeluOptions", "CUMSUM": "CumsumOptions",
        "LOG_SOFTMAX": "LogSoftmaxOptions", "L2_NORMALIZATION": "L2NormOptions",
    }[code]  # fmt: skip

    def add(net: Net, x: int) -> int:
        more = [net.constant(1, "INT32")] if code == "CUMSUM" else []
        return net.op(code, [x, *more], _shape(net, x), options=Table(name, **options))

    return add


def _hybrid_dense(net: Net, x: int) -> int:
    *outer, width = _shape(net, x)
    if not outer:
        raise DoesNotFit
    w = net.constant(net.random.integers(-127, 128, (9, width)), "INT8", scale=0.004 + 0.001 * np.arange(9))
    options = Table("FullyConnectedOptions", keep_num_dims=True, asymmetric_quantize_inputs=True)
    return net.op("FULLY_CONNECTED", [x, w, net.weights(9)], (*outer, 9), options=options)


def _hybrid_conv(net: Net, x: int) -> int:
    *space, channels = _image(net, x)
    w = net.constant(net.random.integers(-127, 128, (8, 3, 3, channels)), "INT8", scale=0.004 + 0.001 * np.arange(8))
    options = Table("Conv2DOptions", stride_w=1, stride_h=1)
    return net.op("CONV_2D", [x, w, net.weights(8)], (*space, 8), options=options)


def _float(name: str, add: Callable[[Net, int], int]) -> Unit:
    return Unit(name, "FLOAT32", "FLOAT32", add)


FLOATS: tuple[Unit, ...] = (
    *map(_unary, _UNARY),
    *(_binary(code, "another") for code in _OPTIONS if code != "POW"),
    *(_binary(code, form) for code in ("ADD", "MUL", "MAXIMUM") for form in ("scalar", "channels")),
    *(_binary(code, "itself") for code in ("ADD", "SUB", "MUL", "DIV", "SQUARED_DIFFERENCE")),
    _binary("MAXIMUM", "zero"), _binary("MINIMUM", "zero"), _binary("MUL", "itself, RELU6"),
    _binary("POW", "two"), _binary("MINIMUM", "scalar"), _binary("MINIMUM", "below zero"),
    *(_reduction(code, axes, keep) for code in ("SUM", "MEAN") for axes, keep in (([1, 2], False), ([3], True))),
    *(_reduction(code, [3], True) for code in ("REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")),
    _float("CONV_2D", _conv), _float("CONV_2D valid", _conv_valid), _float("CONV_2D pointwise", _pointwise),
    _float("DEPTHWISE_CONV_2D", _depthwise), _float("TRANSPOSE_CONV", _transposed_conv),
    _float("FULLY_CONNECTED", _dense), _float("FULLY_CONNECTED weights", _weights_of_dense),
    _float("BATCH_MATMUL left", _matrices("left")), _float("BATCH_MATMUL right", _matrices("right")),
    _float("BATCH_MATMUL right, transposed", _matrices("right", True)),
    _float("AVERAGE_POOL_2D", _pool("AVERAGE_POOL_2D")), _float("MAX_POOL_2D", _pool("MAX_POOL_2D")),
    _float("PAD", _pad), _float("MIRROR_PAD", _mirror_pad), _float("RESHAPE", _flatten), _float("EXPAND_DIMS", _expand),
    _float("TRANSPOSE last two", _transpose(0, 1, 3, 2)), _float("TRANSPOSE", _transpose(0, 3, 1, 2)),
    _float("TRANSPOSE of two", _transpose(1, 0)),
    _float("CONCATENATION", _concatenation), _float("SPLIT", _split), _float("SLICE", _slice),
    _float("STRIDED_SLICE", _every_other), _float("RESIZE_BILINEAR", _resize("RESIZE_BILINEAR")),
    _float("RESIZE_NEAREST_NEIGHBOR", _resize("RESIZE_NEAREST_NEIGHBOR")),
    _float("SPACE_TO_DEPTH", _space_to_depth), _float("DEPTH_TO_SPACE", _depth_to_space), _float("PRELU", _prelu),
    _float("SOFTMAX", _same("SOFTMAX", beta=1.0)), _float("LOG_SOFTMAX", _same("LOG_SOFTMAX")),
    _float("LEAKY_RELU", _same("LEAKY_RELU", alpha=0.1)), _float("GELU", _same("GELU")),
    _float("GELU by tanh", _same("GELU", approximate=True)), _float("CUMSUM", _same("CUMSUM")),
    _float("L2_NORMALIZATION", _same("L2_NORMALIZATION")),
    _float("FULLY_CONNECTED hybrid", _hybrid_dense), _float("CONV_2D hybrid", _hybrid_conv),
)  # fmt: skip


# int8 operators. Every int8 tensor that is not bound to another scale has this one.

_SCALE, _ZERO = 0.05, 3


def _int8(net: Net, code: str, inputs: Sequence[int], shape: Sequence[int], **fields: Any) -> int:
    return net.op(code, inputs, shape, "INT8", **({"scale": _SCALE, "zero_point": _ZERO} | fields))


def _scales(net: Net, x: int) -> dict[str, Any]:
    table = net.tensors[x]["quantization"]
    return {"scale": float(table["scale"][0]), "zero_point": int(table["zero_point"][0])}


def _int8_unary(code: str, **fields: Any) -> Unit:
    options = {"LEAKY_RELU": Table("LeakyReluOptions", alpha=0.1), "SOFTMAX": Table("SoftmaxOptions", beta=1.0)}

    def add(net: Net, x: int) -> int:
        return _int8(net, code, [x], _shape(net, x), options=options.get(code), **fields)

    return Unit(code, "INT8", "INT8", add)


def _int8_binary(code: str, form: str, **fields: Any) -> Unit:
    def add(net: Net, x: int) -> int:
        same = _scales(net, x) if code in ("MAXIMUM", "MINIMUM") else {}
        at = same or {"scale": 0.03, "zero_point": -2}
        other = {
            "itself": lambda: x,
            "another": lambda: net.input(_shape(net, x), "INT8", **at),
            "scalar": lambda: net.constant(21, "INT8", **at),
        }[form]()
        options = Table(_OPTIONS[code])
        return _int8(net, code, [x, other], _shape(net, x), options=options, **(same or fields))

    return Unit(f"{code} {form}", "INT8", "INT8", add)


def _int8_conv(net: Net, x: int) -> int:
    *space, channels = _image(net, x)
    scales = 0.004 + 0.001 * np.arange(8)
    w = net.constant(net.random.integers(-127, 128, (8, 3, 3, channels)), "INT8", scale=scales)
    bias = net.constant(net.random.integers(-500, 500, 8), "INT32", scale=_scales(net, x)["scale"] * scales)
    options = Table("Conv2DOptions", stride_w=1, stride_h=1)
    return _int8(net, "CONV_2D", [x, w, bias], (*space, 8), options=options, scale=0.4)


def _int8_depthwise(net: Net, x: int) -> int:
    shape = _image(net, x)
    channels = shape[-1]
    scales = 0.01 + 0.0001 * np.arange(channels)
    w = net.constant(net.random.integers(-127, 128, (1, 3, 3, channels)), "INT8", scale=scales, axis=3)
    bias = net.constant(net.random.integers(-500, 500, channels), "INT32", scale=_scales(net, x)["scale"] * scales)
    options = Table("DepthwiseConv2DOptions", stride_w=1, stride_h=1, depth_multiplier=1)
    return _int8(net, "DEPTHWISE_CONV_2D", [x, w, bias], shape, options=options, scale=0.2)


def _int8_dense(net: Net, x: int) -> int:
    *outer, width = _shape(net, x)
    if not outer:
        raise DoesNotFit
    w = net.constant(net.random.integers(-127, 128, (9, width)), "INT8", scale=0.004)
    bias = net.constant(net.random.integers(-500, 500, 9), "INT32", scale=0.004 * _scales(net, x)["scale"])
    options = Table("FullyConnectedOptions", keep_num_dims=True)
    return _int8(net, "FULLY_CONNECTED", [x, w, bias], (*outer, 9), options=options, scale=0.4)


def _int8_matrices(net: Net, x: int) -> int:
    shape = _shape(net, x)
    if len(shape) < 2:
        raise DoesNotFit
    *outer, rows, columns = shape
    left = net.input((*outer, 5, rows), "INT8", scale=0.03, zero_point=-2)
    made = (*outer, 5, columns)
    return _int8(net, "BATCH_MATMUL", [left, x], made, options=Table("BatchMatMulOptions"), scale=0.6)


def _int8_reduction(code: str, axes: Sequence[int], **fields: Any) -> Unit:
    def add(net: Net, x: int) -> int:
        shape = _image(net, x)
        left = [1 if i in axes else d for i, d in enumerate(shape)]
        operands = [x, net.constant(list(axes), "INT32")]
        return _int8(net, code, operands, left, options=Table("ReducerOptions", keep_dims=True), **fields)

    return Unit(f"{code} {list(axes)}", "INT8", "INT8", add)


def _int8_kept(make: Callable[[Net, int], int]) -> Callable[[Net, int], int]:
    """An operator that only moves values: its result has its input's type and scale."""

    def add(net: Net, x: int) -> int:
        before = len(net.tensors)
        made = make(net, x)
        scale = net.tensors[x]["quantization"]
        for tensor in net.tensors[before:]:
            if tensor["type"] == 0 and "buffer" not in tensor.fields:  # FLOAT32, computed or an input
                tensor.fields |= {"type": net.tensors[x]["type"], "quantization": scale}
        return made

    return add


def _quantize(net: Net, x: int) -> int:
    return _int8(net, "QUANTIZE", [x], _shape(net, x), options=Table("QuantizeOptions"))


def _quantize_evenly(net: Net, x: int) -> int:
    return _int8(net, "QUANTIZE", [x], _shape(net, x), options=Table("QuantizeOptions"), zero_point=0)


def _dequantize(net: Net, x: int) -> int:
    return net.op("DEQUANTIZE", [x], _shape(net, x), options=Table("DequantizeOptions"))


def _dequantize_evenly(net: Net, x: int) -> int:
    """Its input has zero point 0, if it is the network's."""
    if x not in net.inputs:
        raise DoesNotFit
    net.tensors[x]["quantization"].fields["zero_point"] = np.zeros(1, np.int64)
    return _dequantize(net, x)


def _kept(name: str, make: Callable[[Net, int], int]) -> Unit:
    return Unit(name, "INT8", "INT8", _int8_kept(make))


INTEGERS: tuple[Unit, ...] = (
    *(_int8_unary(code, scale=_SCALE, zero_point=_ZERO) for code in ("RELU", "RELU6", "ABS", "LEAKY_RELU")),
    _int8_unary("RELU_N1_TO_1", scale=0.01, zero_point=0), _int8_unary("HARD_SWISH", scale=0.03),
    _int8_unary("LOGISTIC", scale=1 / 256, zero_point=-128), _int8_unary("TANH", scale=1 / 128, zero_point=0),
    _int8_unary("SOFTMAX", scale=1 / 256, zero_point=-128), _int8_unary("QUANTIZE", scale=0.11, zero_point=-9),
    *(_int8_binary(code, form, scale=0.09) for code in ("ADD", "SUB", "MUL") for form in ("itself", "another")),
    *(_int8_binary(code, "scalar", scale=0.09) for code in ("ADD", "MUL")),
    *(_int8_binary(code, form) for code in ("MAXIMUM", "MINIMUM") for form in ("another", "scalar")),
    _int8_binary("SQUARED_DIFFERENCE", "another", scale=0.2, zero_point=0),
    *(_int8_reduction(code, axes, scale=s) for code, s in (("SUM", 2.0), ("MEAN", 0.04)) for axes in ([1, 2], [3])),
    Unit("CONV_2D", "INT8", "INT8", _int8_conv), Unit("DEPTHWISE_CONV_2D", "INT8", "INT8", _int8_depthwise),
    Unit("FULLY_CONNECTED", "INT8", "INT8", _int8_dense), Unit("BATCH_MATMUL right", "INT8", "INT8", _int8_matrices),
    _kept("AVERAGE_POOL_2D", _pool("AVERAGE_POOL_2D")), _kept("MAX_POOL_2D", _pool("MAX_POOL_2D")), _kept("PAD", _pad),
    _kept("RESHAPE", _flatten), _kept("TRANSPOSE last two", _transpose(0, 1, 3, 2)),
    _kept("CONCATENATION", _concatenation), _kept("SPLIT", _split), _kept("SLICE", _slice),
    _kept("STRIDED_SLICE", _every_other), _kept("RESIZE_BILINEAR", _resize("RESIZE_BILINEAR")),
)  # fmt: skip

BETWEEN: tuple[Unit, ...] = (
    Unit("QUANTIZE of floats", "FLOAT32", "INT8", _quantize),
    Unit("QUANTIZE of floats to zero point 0", "FLOAT32", "INT8", _quantize_evenly),
    Unit("DEQUANTIZE", "INT8", "FLOAT32", _dequantize),
    Unit("DEQUANTIZE of zero point 0", "INT8", "FLOAT32", _dequantize_evenly),
)

UNITS = (*FLOATS, *INTEGERS, *BETWEEN)


@frozen
class Pair:
    """Two operators, the second working on the first's result."""

    first: Unit
    second: Unit

    def __str__(self) -> str:
        return f"{self.first.name} -> {self.second.name}"

    def network(self, shape: Shape) -> bytes:
        """Write it.

        Raises
        ------
        DoesNotFit
            One of them does not take this shape.
        """
        net = Net()
        scales = {"scale": _SCALE, "zero_point": _ZERO} if self.first.takes == "INT8" else {}
        middle = self.first.add(net, net.input(shape, self.first.takes, **scales))
        return net.write(self.second.add(net, middle))


PAIRS = tuple(Pair(first, second) for first in UNITS for second in UNITS if first.gives == second.takes)


def values(model: Model, seed: int, *, odd: bool = False) -> Arrays:
    """Values that show a difference: of many sizes, or with `odd` zeros of both signs, infinities and no numbers."""
    random = np.random.default_rng(seed)
    made: Arrays = {}
    for spec in model.inputs:
        if spec.dtype != "float32":
            info = np.iinfo(spec.dtype)
            made[spec.name] = random.integers(info.min, info.max, spec.shape, spec.dtype, endpoint=True)
        elif odd:
            made[spec.name] = random.choice(_ODD, spec.shape)
        else:
            made[spec.name] = (
                random.standard_normal(spec.shape) * np.exp(seed * random.standard_normal(spec.shape))
            ).astype(np.float32)
    return made


_ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e38, -1e38, 1e-40, 1.0, -1.0, 2.5, -3.0, 6.0, 7.0], np.float32)


class Halves:
    """A network and its two parts at a cut, whether that is legal or not."""

    def __init__(self, model: Model, cut: int) -> None:
        self._model = model
        self._head, self._tail = model.with_runtime(Runtime(kernels="no-delegate")).split(cut)
        self._files = model.to_bytes(), self._head.to_bytes(), self._tail.to_bytes()

    def changes(self, payloads: Sequence[Arrays], kernels: Kernels) -> str:
        """Say how head and tail differ from the whole; empty where they agree, bit for bit.

        Raises
        ------
        UnsupportedModel
            These kernels do not run the whole.
        """
        model, runtime = self._model, Runtime(kernels=kernels)
        inputs, outputs = Boundary(model.inputs), Boundary(model.outputs)
        whole = _Run(self._files[0], inputs, outputs, runtime)
        head = _Run(self._files[1], self._head.inputs, self._head.outputs, runtime)
        tail = _Run(self._files[2], self._tail.inputs, self._tail.outputs, runtime)
        for payload in payloads:
            middle = head(payload)
            results = _results(model, middle) | tail({name: middle[name] for name in tail.takes})
            why, _ = difference(results, whole(payload))
            if why:
                return why
        return ""


def _results(model: Model, middle: Arrays) -> Arrays:
    return {spec.name: middle[spec.name] for spec in model.outputs if spec.name in middle}


class _Run:
    """A .tflite file in an interpreter, by names."""

    def __init__(self, data: bytes, inputs: Boundary, outputs: Boundary, runtime: Runtime) -> None:
        self.takes, self.gives = inputs.names, outputs.names
        self._interpreter = open_interpreter(data, runtime)

    def __call__(self, payload: Arrays) -> Arrays:
        for name, set_ in zip(self.takes, self._interpreter.setters, strict=True):
            set_(payload[name])
        self._interpreter.invoke()
        return dict(zip(self.gives, (get() for get in self._interpreter.getters), strict=True))


KERNELS: tuple[Kernels, ...] = ("default", "no-delegate", "reference")


def tried(pair: Pair) -> list[dict[str, Any]]:
    """Compare a pair's head and tail with the whole, in each shape: which kernels run it, and which change bits."""
    found = []
    for shape in SHAPES:
        try:
            model = load_model(pair.network(shape))
        except DoesNotFit:
            continue
        assert model.n == 2
        halves = Halves(model, 1)
        payloads = [values(model, 0), values(model, 1), values(model, 2, odd=True)]
        changed = {}
        for kernels in KERNELS:
            try:
                changed[kernels] = halves.changes(payloads, kernels)
            except UnsupportedModel:  # the reference kernels have not all operators
                continue
        found.append({"shape": shape, "legal": 1 in model.cuts, "changed": changed})
    return found


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        print(json.dumps({"at": number}), flush=True)
        print(json.dumps({"pair": number, "found": tried(PAIRS[number])}), flush=True)
