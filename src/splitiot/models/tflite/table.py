"""Flatbuffer tables as plain Python objects, described by the rows of `schema`."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np

from splitiot.models.tflite.schema import TABLES, UNIONS

__all__ = [
    "SCALAR",
    "STRING",
    "TABLE",
    "UNION",
    "VECTOR",
    "VECTOR_OF_TABLES",
    "Field",
    "Table",
    "TableType",
    "table_type",
]

SCALAR, STRING, TABLE, UNION, VECTOR, VECTOR_OF_TABLES = range(6)

_FORMATS: Final = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float": "f", "double": "d",
}  # fmt: skip


@final
class Field:
    """One slot of a table: how to read and write what stands there."""

    __slots__ = ("default", "dtype", "kind", "members", "name", "size", "slot", "target", "unpack", "width")

    def __init__(self, name: str, slot: int, kind: str, default: str | None) -> None:
        self.name, self.slot = name, slot
        self.target = ""
        """The table that the field refers to."""
        self.members: tuple[str, ...] = ()
        """Of a union: its tables, by the value of the slot before."""
        self.default: Any = None
        self.size = 4
        """Bytes of one element."""
        item = kind.strip("[]*|")
        if item in _FORMATS:
            self.unpack = struct.Struct("<" + _FORMATS[item])
            self.size = self.unpack.size
            self.dtype = np.dtype("?" if item == "bool" else f"<{_FORMATS[item]}")
            self.kind = VECTOR if kind[0] == "[" else SCALAR
            if self.kind == SCALAR:
                self.default = self.dtype.type(default or 0).item()
        elif item == "string":
            self.kind = STRING
        elif kind[0] == "|":
            self.kind, self.members = UNION, UNIONS[item]
        else:
            self.kind, self.target = VECTOR_OF_TABLES if kind[0] == "[" else TABLE, item
        self.width = self.size if self.kind == SCALAR else 4
        """Bytes in the table itself: all but scalars are offsets."""

    def is_default(self, value: Any) -> bool:
        """Whether a scalar may be left out of a file, bit for bit: -0.0 is not 0.0, though they are equal."""
        return bool(value == self.default) and math.copysign(1, value) == math.copysign(1, self.default)


@final
class TableType:
    """A table's name and its fields in slot order (None: a slot out of use)."""

    __slots__ = ("by_name", "fields", "name")

    def __init__(self, name: str, row: str) -> None:
        self.name = name
        fields: list[Field | None] = []
        for slot, column in enumerate(row.split()):
            key, _, kind = column.partition(":")
            kind, _, default = kind.partition("=")
            fields.append(Field(key, slot, kind, default or None) if kind else None)
        self.fields = tuple(fields)
        self.by_name = {field.name: field for field in fields if field is not None}


@functools.cache
def _rows() -> Mapping[str, str]:
    rows = (line.partition(" ") for line in TABLES.strip().splitlines())
    return {name: row for name, _, row in rows}


@functools.cache
def table_type(name: str) -> TableType:
    """Look up a table of the schema; KeyError when there is none of that name."""
    return TableType(name, _rows()[name])


@final
class Table:
    """One table of a file: a value for each field that differs from its default.

    Scalars are Python numbers, strings `str`, vectors of scalars numpy arrays (views of the file), vectors of
    tables lists, unions the table itself. What is absent reads as the schema's default, None for what is no scalar.

    Examples
    --------
    >>> options = Table("Conv2DOptions", stride_w=2, stride_h=2)
    >>> options["stride_w"], options["dilation_wfactor"], options.name
    (2, 1, 'Conv2DOptions')
    """

    __slots__ = ("fields", "type")

    def __init__(self, name: str, /, **fields: Any) -> None:
        self.type = table_type(name)
        if unknown := [key for key in fields if key not in self.type.by_name]:
            raise KeyError(f"{name} has no field {unknown[0]!r}")
        self.fields: dict[str, Any] = fields

    @classmethod
    def of(cls, kind: TableType, fields: dict[str, Any]) -> Table:
        """Make one from fields that are known to exist."""
        table = cls.__new__(cls)
        table.type, table.fields = kind, fields
        return table

    @property
    def name(self) -> str:
        """The table's name in the schema."""
        return self.type.name

    def __getitem__(self, key: str) -> Any:
        try:
            return self.fields[key]
        except KeyError:
            return self.type.by_name[key].default

    def replace(self, /, **changes: Any) -> Table:
        """Return a copy with other values; None takes a field out."""
        fields = {k: v for k, v in (self.fields | changes).items() if v is not None}
        return Table(self.name, **fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return self.name == other.name and _plain(self) == _plain(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.fields.items())})"


def _plain(value: Any) -> Any:
    """A value whose `==` compares contents bit for bit: NaN equals NaN, a list equals an array."""
    if isinstance(value, Table):
        members = ((key, field, value[key]) for key, field in value.type.by_name.items())
        return {key: _scalar(field, v) if field.kind == SCALAR else _typed(field, v) for key, field, v in members}
    return value


def _scalar(field: Field, value: Any) -> bytes:
    return field.unpack.pack(value)


def _typed(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.kind == VECTOR:
        return np.asarray(value, field.dtype).tobytes()
    if field.kind == VECTOR_OF_TABLES:
        return [(v.name, _plain(v)) for v in value]
    return (value.name, _plain(value)) if isinstance(value, Table) else value
