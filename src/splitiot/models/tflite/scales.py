"""Checks of the scales that kernels turn into multipliers: outside a range LiteRT aborts the process."""

from __future__ import annotations

from typing import Final

from splitiot.errors import MalformedModel
from splitiot.models.tflite.graph import Graph, Operator, Tensor
from splitiot.models.tflite.operators import code_set

__all__ = ["check_scales", "scaled"]

_LARGEST, _LEAST_NORMAL = 2.0**128 - 2.0**104, 2.0**-126  # of float32
_ORDER, _EQUAL = code_set("LESS LESS_EQUAL GREATER GREATER_EQUAL"), code_set("EQUAL NOT_EQUAL")
_COMPARE = _ORDER | _EQUAL
# the types that are always computed with one scale a tensor, and those that may be plain integers
_ALWAYS: Final = {
    "ADD": ("INT8", "UINT8"), "SUB": ("INT8", "UINT8", "INT16"), "SQUARED_DIFFERENCE": ("INT8",),
} | dict.fromkeys(_COMPARE, ("INT8",))  # fmt: skip
_IF_GIVEN: Final = {"ADD": ("INT16",)} | dict.fromkeys(_ORDER, ("UINT8",)) | dict.fromkeys(_EQUAL, ("UINT8", "INT16"))


def scaled(tensor: Tensor) -> bool:
    """Whether the file gives scales of a tensor."""
    return bool(_scales(tensor))


def check_scales(where: str, graph: Graph, operator: Operator) -> None:
    """Check the scales of operators whose kernels die of some.

    Raises
    ------
    MalformedModel
        A scale is missing, there are several where one is computed with, or multipliers leave their range.
    """
    code = operator.code
    if code in ("QUANTIZE", "BATCH_MATMUL"):  # XNNPACK makes nothing of such a scale, and goes on
        for index in (*operator.inputs[:1], *(operator.outputs if code == "QUANTIZE" else ())):
            tensor = graph.tensors[index]
            if tensor.type in ("INT8", "UINT8") and min(_scales(tensor), default=1.0) < _LEAST_NORMAL:
                raise MalformedModel(f"{where}: {tensor} has the scale {min(_scales(tensor)):g}, which is denormal")
    if code not in _ALWAYS:
        return
    indices = operator.inputs if code in _COMPARE else (*operator.inputs, *operator.outputs)
    tensors = [graph.tensors[index] for index in indices]
    kind = tensors[0].type
    if kind not in _ALWAYS[code] and not (kind in _IF_GIVEN.get(code, ()) and any(map(scaled, tensors))):
        return
    for tensor in tensors:
        count = len(_scales(tensor))
        if count != 1:
            raise MalformedModel(f"{where}: it computes with one scale a tensor, {tensor} has {count or 'none'}")
        if tensor.table["quantization"]["details"] is not None:
            raise MalformedModel(f"{where}: it computes with one scale a tensor, {tensor} is quantised in another way")
    if code not in _COMPARE:
        _multiplier(where, code, kind, *(_scales(tensor)[0] for tensor in tensors))


def _multiplier(where: str, code: str, kind: str, a: float, b: float, result: float) -> None:
    """The kernels divide twice the greater scale by the result's, shifted, and want less than 1 (SUB does not)."""
    bits = 14 if code == "SQUARED_DIFFERENCE" else 15 if kind == "INT16" else 20
    twice, shifted = 2 * max(a, b), result * 2**bits  # as float32 they overflow
    product = twice * twice if code == "SQUARED_DIFFERENCE" else twice
    if max(twice, shifted) > _LARGEST or (code != "SUB" and product >= shifted):
        raise MalformedModel(f"{where}: scales of {a:g} and {b:g} can't be computed with to give one of {result:g}")


def _scales(tensor: Tensor) -> list[float]:
    table = tensor.table["quantization"]
    scales = None if table is None else table["scale"]
    return [] if scales is None else [float(value) for value in scales]
