"""A file's tables as a network: tensors, operators and subgraphs with their indices resolved."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from splitiot.errors import MalformedModel, UnsupportedModel
from splitiot.models.tflite.operators import SUBGRAPH_FIELDS
from splitiot.models.tflite.schema import OPERATORS, TENSOR_TYPES
from splitiot.models.tflite.table import Table

__all__ = ["BITS", "DTYPES", "MAX_RANK", "Graph", "Network", "Operator", "Signature", "Tensor", "decode"]

DTYPES: Final = {
    "FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "BOOL": "bool",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "COMPLEX64": "complex64", "COMPLEX128": "complex128",
}  # fmt: skip
"""The tensor types that are numpy arrays."""

BITS: Final = {name: 8 * np.dtype(dtype).itemsize for name, dtype in DTYPES.items()} | {
    "BFLOAT16": 16, "INT4": 4, "UINT4": 4, "INT2": 2, "FLOAT8_E4M3FN": 8, "FLOAT8_E5M2": 8,
}  # fmt: skip
"""Bits of one element, of the types that have a fixed size."""

MAX_RANK: Final = 8


class Tensor(msgspec.Struct, eq=False):
    """One tensor of a subgraph.

    `data` is None unless the file holds its contents; `signature` is None where every size is fixed.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    signature: tuple[int, ...] | None
    ranked: bool
    """Whether the file says that `shape` has the right number of dimensions (older files never do)."""
    variable: bool
    buffer: int
    data: npt.NDArray[Any] | None
    table: Table

    @property
    def constant(self) -> bool:
        """Whether the file gives its contents."""
        return self.data is not None

    @property
    def may_lack_shape(self) -> bool:
        """Whether the file may not tell its shape: it has none, and nothing says that it is a scalar."""
        return not self.shape and not self.ranked and not self.constant

    def __str__(self) -> str:
        return f"tensor {self.index} {self.name!r}" if self.name else f"tensor {self.index}"


class Operator(msgspec.Struct, eq=False):
    """One operator of a subgraph; `code` is its name, `subgraphs` what it calls. -1 is an absent tensor."""

    index: int
    code: str
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    options: Table | None
    subgraphs: tuple[int, ...]
    table: Table

    def __str__(self) -> str:
        return f"operator {self.index} ({self.custom or self.code})"


class Graph(msgspec.Struct, eq=False):
    """One subgraph."""

    index: int
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: Table


class Signature(msgspec.Struct, eq=False):
    """A name for a subgraph, as the converter gave it."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...] = ()
    """Names of inputs, each with its tensor."""
    outputs: tuple[tuple[str, int], ...] = ()


class Network(msgspec.Struct, eq=False):
    """A whole file."""

    table: Table
    graphs: tuple[Graph, ...]
    signatures: tuple[Signature, ...]


def decode(model: Table) -> Network:
    """Resolve the indices of a `Model` table.

    Raises
    ------
    MalformedModel
        An index points nowhere, or something that must be there is not.
    UnsupportedModel
        An operator or a tensor type that this version does not know, or external buffers.
    """
    if model["external_buffers"] or model["external_buffer_groups"]:
        raise UnsupportedModel(
            "the model keeps weights in files of their own (external buffers): convert it into one file"
        )
    codes = [_code(index, table) for index, table in enumerate(model["operator_codes"] or ())]
    buffers = [table["data"] for table in model["buffers"] or ()]
    graphs = tuple(_graph(i, t, codes, buffers) for i, t in enumerate(model["subgraphs"] or ()))
    if not graphs:
        raise MalformedModel("the model has no subgraph")
    for entry in model["metadata"] or ():
        if entry["buffer"] >= len(buffers):
            raise MalformedModel(f"metadata {_shown(entry['name'])!r}: buffer {entry['buffer']} is not there")
    return Network(model, graphs, tuple(_signature(t, graphs) for t in model["signature_defs"] or ()))


def _shown(name: str | None) -> str:
    """A name in which bytes that are no UTF-8 are replaced."""
    return (name or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _ints(array: npt.NDArray[Any] | None) -> tuple[int, ...]:
    return () if array is None else tuple(array.tolist())


def _code(index: int, table: Table) -> tuple[str, str]:
    # the first field is 8 bits wide and says 127 where the code is greater
    code = max(table["deprecated_builtin_code"], table["builtin_code"])
    if code < 0:
        raise MalformedModel(f"operator code {index} is negative: {code}")
    if code >= len(OPERATORS):
        raise UnsupportedModel(f"operator code {code} is newer than this version of splitiot knows")
    name, custom = OPERATORS[code], _shown(table["custom_code"])
    if name == "CUSTOM" and not custom:
        raise MalformedModel(f"operator code {index} is a custom operator without a name")
    return name, custom if name == "CUSTOM" else ""


def _graph(index: int, table: Table, codes: list[tuple[str, str]], buffers: list[Any]) -> Graph:
    tensors = tuple(_tensor(f"subgraph {index}", i, t, buffers) for i, t in enumerate(table["tensors"] or ()))
    operators = []
    for i, t in enumerate(table["operators"] or ()):
        if t["opcode_index"] >= len(codes):
            raise MalformedModel(f"subgraph {index}, operator {i}: operator code {t['opcode_index']} is not there")
        code, custom = codes[t["opcode_index"]]
        options = t["builtin_options"] if t["builtin_options2"] is None else t["builtin_options2"]
        operators.append(
            Operator(
                index=i,
                code=code,
                custom=custom,
                inputs=_ints(t["inputs"]),
                outputs=_ints(t["outputs"]),
                intermediates=_ints(t["intermediates"]),
                options=options,
                subgraphs=_called(options),
                table=t,
            )
        )
    inputs, outputs = _ints(table["inputs"]), _ints(table["outputs"])
    return Graph(index, _shown(table["name"]), tensors, tuple(operators), inputs, outputs, table)


def _called(options: Table | None) -> tuple[int, ...]:
    if options is None or options.name not in SUBGRAPH_FIELDS:
        return ()
    called: list[int] = []
    for field in SUBGRAPH_FIELDS[options.name]:
        value = options[field]
        called += [value] if isinstance(value, int) else _ints(value)
    return tuple(called)


def _tensor(where: str, index: int, table: Table, buffers: list[Any]) -> Tensor:
    name = _shown(table["name"])
    where = f"{where}, tensor {index} {name!r}"
    if not 0 <= table["type"] < len(TENSOR_TYPES):
        raise UnsupportedModel(f"{where}: tensor type {table['type']} is newer than this version of splitiot knows")
    if table["external_buffer"]:
        raise UnsupportedModel(f"{where} keeps its weights in an external buffer: convert the model into one file")
    buffer = table["buffer"]
    if buffer >= max(len(buffers), 1):
        raise MalformedModel(f"{where}: buffer {buffer} is not there, the file has {len(buffers)}")
    shape, signature = table["shape"], table["shape_signature"]
    for vector in (shape, signature):
        if vector is not None and len(vector) > MAX_RANK:
            raise MalformedModel(f"{where} has {len(vector)} dimensions, more than {MAX_RANK}")
    data = buffers[buffer] if buffer else None  # buffer 0 is empty by convention
    return Tensor(
        index,
        name,
        TENSOR_TYPES[table["type"]],
        _ints(shape),
        None if signature is None or not len(signature) else _ints(signature),
        table["has_rank"],
        table["is_variable"],
        buffer,
        data if data is not None and len(data) else None,
        table,
    )


def _signature(table: Table, graphs: tuple[Graph, ...]) -> Signature:
    key, index = _shown(table["signature_key"]), table["subgraph_index"]
    if index >= len(graphs):
        raise MalformedModel(f"signature {key!r}: subgraph {index} is not there, the file has {len(graphs)}")
    for entry in [*(table["inputs"] or ()), *(table["outputs"] or ())]:
        if entry["tensor_index"] >= len(graphs[index].tensors):
            raise MalformedModel(f"signature {key!r}: tensor {entry['tensor_index']} is not in subgraph {index}")
    return Signature(key, index, _entries(table["inputs"]), _entries(table["outputs"]))


def _entries(tables: list[Table] | None) -> tuple[tuple[str, int], ...]:
    return tuple((_shown(table["name"]), table["tensor_index"]) for table in tables or ())
