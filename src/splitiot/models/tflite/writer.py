"""Tables -> bytes. The same tables give the same bytes.

Tables are written front to back: vtables, tables and small vectors first, then every buffer's contents at a
multiple of 16 bytes, as the schema's `force_align` asks (XNNPACK and microcontrollers rely on it).
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np

from splitiot.errors import UnsupportedModel
from splitiot.models.tflite.reader import IDENTIFIER
from splitiot.models.tflite.table import (
    SCALAR,
    STRING,
    TABLE,
    UNION,
    VECTOR,
    Field,
    Table,
    TableType,
)

__all__ = ["write_model"]

_U32 = struct.Struct("<I")
_ALIGN_BYTES = 16
_LARGEST_BYTES = 2**31 - 1


def write_model(model: Table) -> bytes:
    """Write a `Model` table as a .tflite file.

    Raises
    ------
    UnsupportedModel
        The file would have more than 2 GB.

    Examples
    --------
    >>> from splitiot.models.tflite.reader import read_model
    >>> model = Table("Model", version=3, description="nothing")
    >>> read_model(write_model(model)) == model
    True
    """
    return _Writer().model(model)


class _Writer:
    def __init__(self) -> None:
        self.out = bytearray(b"\0\0\0\0" + IDENTIFIER)
        self.vtables: dict[bytes, int] = {}
        self.deferred: list[tuple[int, np.ndarray[Any, Any]]] = []

    def model(self, model: Table) -> bytes:
        self.table(model, 0)
        size = len(self.out)
        chunks: list[bytes | bytearray | memoryview] = [self.out]
        for slot, data in self.deferred:
            padding = -(size + 4) % _ALIGN_BYTES
            _U32.pack_into(self.out, slot, size + padding - slot)
            # a copy of something small is cheaper than a view of it
            chunks += [bytes(padding), _U32.pack(len(data)), data.tobytes() if len(data) < 4096 else data.data]
            size += padding + 4 + len(data)
            if size > _LARGEST_BYTES:
                raise UnsupportedModel(f"the part would have {size} bytes: more than 2 GB can't be written")
        return b"".join(chunks)

    def table(self, table: Table, slot: int) -> None:
        """Append a table and what hangs on it; `slot` is where its offset goes."""
        present = _present(table)
        layout = _layout(table.type, tuple(present))
        out = self.out
        at = self.vtables.get(layout.vtable)
        if at is None:
            out += bytes(len(out) % 2)
            at = self.vtables[layout.vtable] = len(out)
            out += layout.vtable
        out += bytes(-len(out) % layout.align)
        position = len(out)
        _U32.pack_into(out, slot, position - slot)
        out += layout.pack(position - at, *[present[s] if scalar else 0 for s, scalar in layout.order])
        for field, offset in layout.references:
            place, value = position + offset, present[field.slot]
            if field.kind == VECTOR:
                self.scalars(table.type, field, place, value)
            elif field.kind in (TABLE, UNION):
                self.table(value, place)
            elif field.kind == STRING:
                raw = value.encode("utf-8", "surrogateescape")
                self.vector(place, len(raw), raw + b"\0", 4)
            else:
                start = self.vector(place, len(value), bytes(4 * len(value)), 4)
                for index, item in enumerate(value):
                    self.table(item, start + 4 * index)

    def scalars(self, kind: TableType, field: Field, place: int, value: Any) -> None:
        array = value
        if not isinstance(value, np.ndarray) or value.dtype != field.dtype or not value.flags.c_contiguous:
            array = np.ascontiguousarray(value, field.dtype)
        if kind.name == "Buffer" and len(array):
            self.deferred.append((place, array.view(np.uint8)))
        else:
            self.vector(place, len(array), array.tobytes(), max(4, field.size))

    def vector(self, place: int, count: int, raw: bytes, align: int) -> int:
        """Append a length and contents; the contents are aligned. Returns where they start."""
        out = self.out
        out += bytes(-(len(out) + 4) % align)
        _U32.pack_into(out, place, len(out) - place)
        out += _U32.pack(count)
        start = len(out)
        out += raw
        return start


class _Layout:
    """How a table with certain fields is laid out."""

    __slots__ = ("align", "order", "pack", "references", "vtable")

    def __init__(self, kind: TableType, slots: tuple[int, ...]) -> None:
        fields = [field for field in kind.fields if field is not None and field.slot in slots]
        # wide scalars first: then everything is aligned without holes
        fields.sort(key=lambda field: (-field.width, field.slot))
        wide = bool(fields) and fields[0].width == 8
        self.align, code, at = (8, "<i4x", 8) if wide else (4, "<i", 4)
        offsets = {}
        for field in fields:
            offsets[field.slot] = at
            code += field.unpack.format[1:] if field.kind == SCALAR else "I"
            at += field.width
        count = max(slots, default=-1) + 1
        self.vtable = struct.pack(f"<{count + 2}H", 4 + 2 * count, at, *(offsets.get(i, 0) for i in range(count)))
        self.pack = struct.Struct(code).pack
        self.order = [(field.slot, field.kind == SCALAR) for field in fields]
        references = sorted((f for f in fields if f.kind != SCALAR), key=lambda field: field.slot)
        self.references = [(field, offsets[field.slot]) for field in references]


@functools.lru_cache(1024)
def _layout(kind: TableType, slots: tuple[int, ...]) -> _Layout:
    return _Layout(kind, slots)


def _present(table: Table) -> dict[int, Any]:
    """The values to be written, by slot: no defaults; a union's type stands before it."""
    values: dict[int, Any] = {}
    by_name = table.type.by_name
    for name, value in table.fields.items():
        field = by_name[name]
        if value is None or (field.kind == SCALAR and field.is_default(value)):
            continue
        values[field.slot] = value
        if field.kind == UNION:
            values[field.slot - 1] = field.members.index(value.name)
    return dict(sorted(values.items()))
