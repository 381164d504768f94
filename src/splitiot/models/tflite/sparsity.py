"""Checks of sparse constants: contents stored without the zeros, in compressed rows and blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from splitiot.errors import MalformedModel
from splitiot.models.tflite.graph import BITS, Tensor
from splitiot.models.tflite.table import Table

__all__ = ["check_sparsity"]

_DENSE, _SPARSE_CSR = 0, 1


def check_sparsity(where: str, tensor: Tensor) -> None:
    """Check that a sparse tensor's indices stay inside its contents and its shape.

    Raises
    ------
    MalformedModel
        They do not.
    """
    table: Table = tensor.table["sparsity"]
    order, blocks, dims = table["traversal_order"], table["block_map"], table["dim_metadata"] or []
    rank, extra = len(tensor.shape), 0 if blocks is None else len(blocks)
    if order is None or sorted(order.tolist()) != list(range(rank + extra)) or len(dims) != rank + extra:
        raise MalformedModel(f"{where}: its sparse dimensions do not fit its shape {tensor.shape}")
    if extra and not all(0 <= b < rank for b in blocks.tolist()):
        raise MalformedModel(f"{where}: a block lies along a dimension that is not there")
    stored, dense = 1, math.prod(tensor.shape)
    for level, dim in enumerate(dims):
        if dim["format"] == _DENSE:
            if dim["dense_size"] < 1:
                raise MalformedModel(f"{where}: sparse dimension {level} has size {dim['dense_size']}")
            stored *= dim["dense_size"]
        elif dim["format"] == _SPARSE_CSR:
            stored = _compressed(f"{where}: sparse dimension {level}", dim, stored, dense)
        else:
            raise MalformedModel(f"{where}: sparse dimension {level} has format {dim['format']}")
        if stored > dense:
            raise MalformedModel(f"{where}: it stores {stored} elements for a shape of {dense}")
    have = 0 if tensor.data is None else len(tensor.data)
    if tensor.type not in BITS or have != (stored * BITS[tensor.type] + 7) // 8:
        raise MalformedModel(f"{where}: its buffer has {have} bytes for {stored} stored elements")


def _compressed(where: str, dim: Table, parents: int, dense: int) -> int:
    segments, indices = _values(dim["array_segments"]), _values(dim["array_indices"])
    if (
        len(segments) != parents + 1
        or segments[0] != 0
        or (np.diff(segments) < 0).any()
        or segments[-1] != len(indices)
    ):
        raise MalformedModel(f"{where}: its segments do not fit")
    if len(indices) and (indices.min() < 0 or indices.max() >= max(dense, 1)):
        raise MalformedModel(f"{where}: an index leaves the tensor")
    return len(indices)


def _values(vector: Table | None) -> np.ndarray[Any, Any]:
    values = None if vector is None else vector["values"]
    return np.zeros(0, np.int64) if values is None else values.astype(np.int64)
