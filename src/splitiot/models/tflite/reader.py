"""Bytes -> tables: a flatbuffer reader that trusts nothing.

Every offset is checked before it is followed. The schema has no recursive table, so nesting is bounded; what is
read is charged against the file's length, so that offsets which share one place can't blow a small file up.
Fields that the table does not know are refused, not dropped: what they say could change the result.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from splitiot.errors import MalformedModel, UnsupportedModel
from splitiot.models.tflite.table import (
    SCALAR,
    STRING,
    TABLE,
    UNION,
    VECTOR,
    VECTOR_OF_TABLES,
    Field,
    Table,
    TableType,
    table_type,
)

__all__ = ["IDENTIFIER", "LARGEST_BYTES", "read_model"]

IDENTIFIER = b"TFL3"
LARGEST_BYTES = 2**31 - 1
"""Offsets in a flatbuffer are 32 bits; interpreters read no longer ones."""
_SLACK_BYTES = 1 << 16
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")


def read_model(data: bytes | memoryview) -> Table:
    """Read a whole .tflite file.

    Buffers and operator options that are stored behind the flatbuffer (files that were made for more than 2 GB)
    are brought into their tables, as views.

    Returns
    -------
    Table
        The `Model` table. Its arrays are views of `data`.

    Raises
    ------
    MalformedModel
        An offset, a length or a string is broken.
    UnsupportedModel
        A field, an option or a size that this version does not know.
    """
    if len(data) > LARGEST_BYTES:
        raise UnsupportedModel(f"the file has {len(data)} bytes: more than 2 GB can't be cut")
    if len(data) < 8 or bytes(data[4:8]) != IDENTIFIER:
        identifier = bytes(data[4:8])
        raise MalformedModel(f"not a TFLite file: bytes 4..8 must be {IDENTIFIER!r}, they are {identifier!r}")
    reader = _Reader(data)
    model = reader.table(_U32.unpack_from(data, 0)[0], table_type("Model"))
    return _bring_in(model, data)


class _Layout:
    """Where fields are in a table."""

    __slots__ = ("fields", "size", "unions", "unpack")

    def __init__(
        self, size: int, fields: tuple[tuple[Field, int], ...], unpack: Callable[..., tuple[Any, ...]]
    ) -> None:
        self.size, self.fields, self.unpack = size, fields, unpack
        self.unions = tuple(field for field, _ in fields if field.kind == UNION)


class _Reader:
    """One pass over one file."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        self.end = len(data)
        self.left = 4 * self.end + _SLACK_BYTES
        self.layouts: dict[tuple[int, str], _Layout] = {}

    def table(self, position: int, kind: TableType) -> Table:
        data = self.data
        if position + 4 > self.end:
            raise MalformedModel(f"{kind.name}: offset {position} lies outside the file ({self.end} bytes)")
        vtable = position - _I32.unpack_from(data, position)[0]
        layout = self.layouts.get((vtable, kind.name))
        if layout is None:
            layout = self.layouts[vtable, kind.name] = self.layout(vtable, kind)
        if position + layout.size > self.end:
            raise MalformedModel(f"{kind.name} at {position}: it leaves the file ({self.end} bytes)")
        self.left -= layout.size + 4
        if self.left < 0:
            self.overdrawn()
        fields: dict[str, Any] = {}
        for (field, offset), value in zip(layout.fields, layout.unpack(data, position), strict=True):
            if field.kind == SCALAR:
                # a stored default reads like an absent one, so that equal models are equal (NaN stays)
                if value != field.default or not field.is_default(value):
                    fields[field.name] = value
                continue
            to = position + offset + value
            if field.kind == VECTOR:
                fields[field.name] = self.vector(to, field, kind)
            elif field.kind == TABLE:
                fields[field.name] = self.table(to, table_type(field.target))
            elif field.kind == VECTOR_OF_TABLES:
                target, start = table_type(field.target), to + 4
                offsets = self.vector(to, _OFFSETS, kind).tolist()
                fields[field.name] = [self.table(start + 4 * i + o, target) for i, o in enumerate(offsets)]
            elif field.kind == STRING:
                fields[field.name] = self.string(to, field, kind)
            else:
                fields[field.name] = to
        for field in layout.unions:
            self.union(field, kind, fields)
        return Table.of(kind, fields)

    def layout(self, vtable: int, kind: TableType) -> _Layout:
        """Where the fields are in the tables that share a vtable."""
        if vtable < 0 or vtable + 4 > self.end:
            raise MalformedModel(f"{kind.name}: vtable at {vtable} lies outside the file ({self.end} bytes)")
        length, size = struct.unpack_from("<HH", self.data, vtable)
        if length < 4 or length % 2 or vtable + length > self.end or size < 4:
            raise MalformedModel(f"{kind.name}: vtable at {vtable} has a broken length {length} or size {size}")
        count = (length - 4) // 2
        fields = []
        for slot, offset in enumerate(struct.unpack_from(f"<{count}H", self.data, vtable + 4)):
            if offset == 0:
                continue
            if slot >= len(kind.fields):
                raise UnsupportedModel(
                    f"{kind.name} has a field in slot {slot}, which this version of splitiot does not know: "
                    "it may change the result. Convert the model with an older converter, or update splitiot"
                )
            field = kind.fields[slot]
            if field is not None:  # else out of use: interpreters do not read it
                fields.append((field, offset))
        fields.sort(key=lambda item: item[1])
        code, at = "<", 0
        for field, offset in fields:
            if offset < max(at, 4) or offset + field.width > size:
                raise MalformedModel(
                    f"{kind.name}.{field.name}: slot {field.slot} overlaps another or leaves the table"
                )
            code += f"{offset - at}x{field.unpack.format[1:] if field.kind == SCALAR else 'I'}"
            at = offset + field.width
        return _Layout(size, tuple(fields), struct.Struct(code).unpack_from)

    def overdrawn(self) -> NoReturn:
        raise MalformedModel("tables or vectors share so many bytes that reading them would blow the file up")

    def vector(self, position: int, field: Field, kind: TableType) -> np.ndarray[Any, Any]:
        if position + 4 > self.end:
            raise MalformedModel(f"{kind.name}.{field.name}: offset {position} lies outside the file")
        count = _U32.unpack_from(self.data, position)[0]
        if position + 4 + count * field.size > self.end:
            raise MalformedModel(f"{kind.name}.{field.name}: {count} elements leave the file ({self.end} bytes)")
        self.left -= 4 + count * field.size
        if self.left < 0:
            self.overdrawn()
        return np.frombuffer(self.data, field.dtype, count, position + 4)

    def string(self, position: int, field: Field, kind: TableType) -> str:
        raw = self.vector(position, _BYTES, kind).tobytes()
        end = position + 4 + len(raw)
        if end >= self.end or self.data[end]:
            raise MalformedModel(f"{kind.name}.{field.name}: a string without its terminating zero")
        # bytes that are no UTF-8 survive a round trip as surrogates; `graph` shows them readable
        return raw.decode("utf-8", "surrogateescape")

    def union(self, field: Field, kind: TableType, fields: dict[str, Any]) -> None:
        """Read a union's table, once its type is known; without a type there is nothing."""
        tag = kind.fields[field.slot - 1]
        assert tag is not None
        position, member = fields.pop(field.name), fields.pop(tag.name, 0)
        if member >= len(field.members):
            raise UnsupportedModel(
                f"{kind.name}.{field.name} is of kind {member}, which this version of splitiot does not know"
            )
        if member:
            fields[field.name] = self.table(position, table_type(field.members[member]))


_OFFSETS = Field("offsets", 0, "[uint32]", None)
_BYTES = Field("string", 0, "[uint8]", None)


def _bring_in(model: Table, data: bytes | memoryview) -> Table:
    """Replace (offset, size) into the bytes behind the flatbuffer by the bytes themselves."""
    for index, buffer in enumerate(model["buffers"] or ()):
        offset, size = buffer.fields.pop("offset", 0), buffer.fields.pop("size", 0)
        if offset > 1:
            buffer.fields["data"] = _behind(data, offset, size, f"buffer {index}")
    for graph in model["subgraphs"] or ():
        for index, operator in enumerate(graph["operators"] or ()):
            offset = operator.fields.pop("large_custom_options_offset", 0)
            size = operator.fields.pop("large_custom_options_size", 0)
            if offset > 1:
                operator.fields["custom_options"] = _behind(data, offset, size, f"operator {index}'s options")
    return model


def _behind(data: bytes | memoryview, offset: int, size: int, what: str) -> np.ndarray[Any, Any]:
    if offset + size > len(data):
        raise MalformedModel(f"{what}: bytes {offset}..{offset + size} lie outside the file ({len(data)} bytes)")
    return np.frombuffer(data, np.uint8, size, offset)
