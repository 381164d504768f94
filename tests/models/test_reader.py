"""The reader and the writer: round trips, and files that are broken on purpose."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.errors import MalformedModel, ModelError, UnsupportedModel
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.schema import BUILTIN_OPTIONS, OPERATORS, TABLES
from splitiot.models.tflite.table import SCALAR, Table, TableType, table_type
from splitiot.models.tflite.writer import write_model
from tests import networks


@pytest.mark.parametrize("make", [*networks.SOUND, *networks.REFUSED[:-1]], ids=lambda f: f.__name__)
def test_round_trip(make) -> None:
    data = make()
    model = read_model(data)
    again = write_model(model)
    assert read_model(again) == model
    assert write_model(read_model(again)) == again == data


def test_round_trip_of_files(models_dir: Path) -> None:
    files = sorted(models_dir.rglob("*.tflite"))
    assert files
    for file in files:
        model = read_model(file.read_bytes())
        written = write_model(model)
        assert read_model(written) == model, file.name
        assert write_model(read_model(written)) == written, file.name


_INTS = {"b": 8, "B": 8, "h": 16, "H": 16, "i": 32, "I": 32, "q": 64, "Q": 64}


@st.composite
def tables(draw: st.DrawFn, name: str) -> Table:
    """Any table of the schema, with any values."""
    values = {}
    for field in table_type(name).by_name.values():
        if not draw(st.booleans()):
            continue
        if field.kind == SCALAR:
            code = field.unpack.format[1:]
            if field.name.endswith("_type") and field.name.startswith(("builtin", "details", "array")):
                continue  # follows from the union
            if code == "?":
                values[field.name] = draw(st.booleans())
            elif code in "fd":
                values[field.name] = draw(st.floats(width=32 if code == "f" else 64))
            else:
                low = 0 if code.isupper() else -(1 << (_INTS[code] - 1))
                high = low + (1 << _INTS[code]) - 1
                values[field.name] = draw(st.integers(low, high))
        elif field.members:
            values[field.name] = draw(tables(draw(st.sampled_from(field.members[1:]))))
        elif field.target:
            inner = draw(st.lists(tables(field.target), max_size=2 if field.target != "Tensor" else 1))
            values[field.name] = inner if field.kind != 2 else draw(tables(field.target))
        elif hasattr(field, "dtype"):
            raw = draw(st.binary(max_size=16))
            values[field.name] = np.frombuffer(raw[: len(raw) // 8 * 8], field.dtype)
            if field.dtype == np.bool_:
                values[field.name] = np.array([b % 2 for b in raw], np.bool_)
        else:
            values[field.name] = draw(st.text(max_size=5))
    return Table(name, **values)


@given(tables("Operator"), tables("Tensor"), tables("Metadata"))
def test_round_trip_of_any_tables(operator: Table, tensor: Table, metadata: Table) -> None:
    for key in ("large_custom_options_offset", "large_custom_options_size"):
        operator.fields.pop(key, None)  # they point behind the flatbuffer
    graph = Table("SubGraph", operators=[operator, operator], tensors=[tensor])
    model = Table("Model", version=3, subgraphs=[graph], metadata=[metadata])
    written = write_model(model)
    assert read_model(written) == model
    assert write_model(read_model(written)) == written


def test_negative_zero_is_no_default() -> None:
    """A leaky ReLU with alpha -0.0 gives zeros of another sign than one with 0.0, which is what an absent one has."""
    negative, positive = (
        Table("Model", subgraphs=[Table("SubGraph", operators=[
            Table("Operator", builtin_options=Table("LeakyReluOptions", alpha=alpha))
        ])])
        for alpha in (-0.0, 0.0)
    )
    assert read_model(write_model(negative)) == negative != positive == read_model(write_model(positive))


def test_buffers_are_aligned() -> None:
    model = Table("Model", buffers=[Table("Buffer", data=np.arange(n, dtype=np.uint8)) for n in range(40)])
    written = write_model(model)
    for n in range(1, 40):
        at = written.find(struct.pack("<I", n) + bytes(range(n)))
        assert (at + 4) % 16 == 0
    for made in (networks.constant_operator(), networks.quantised()):
        for buffer in read_model(made)["buffers"]:
            if (data := buffer["data"]) is not None:
                assert (data.__array_interface__["data"][0] - np.frombuffer(made, np.uint8).ctypes.data) % 16 == 0


def test_buffers_are_views() -> None:
    data = networks.chain()
    views = [b["data"] for b in read_model(data)["buffers"] if b["data"] is not None]
    assert views
    assert all(np.shares_memory(v, np.frombuffer(data, np.uint8)) for v in views)


def test_contents_behind_the_flatbuffer() -> None:
    front = write_model(Table("Model", version=3, buffers=[Table("Buffer"), Table("Buffer", offset=4096, size=5)]))
    data = front.ljust(4096, b"\0") + b"hello"
    assert read_model(data)["buffers"][1]["data"].tobytes() == b"hello"
    with pytest.raises(MalformedModel, match=r"buffer 1: bytes 4096\.\.4101 lie outside"):
        read_model(data[:-1])


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="Operator has a field in slot 14"):
        read_model(networks.unknown_field())


def test_fields_out_of_use_are_ignored() -> None:
    """RESIZE_BILINEAR's old sizes stand in slots that nobody reads."""
    kind = TableType("ResizeBilinearOptions", "new_height:int32 new_width:int32 align_corners:bool half:bool")
    options = Table.of(kind, {"new_height": 7, "align_corners": True})
    operator = Table("Operator", builtin_options=options)
    graph = Table("SubGraph", operators=[operator])
    read = read_model(write_model(Table("Model", subgraphs=[graph])))
    assert read["subgraphs"][0]["operators"][0]["builtin_options"].fields == {"align_corners": True}


def test_not_tflite() -> None:
    for data in (b"", b"TFL3", b"\x08\0\0\0TFL2" + bytes(16), b"PK\x03\x04" + bytes(30)):
        with pytest.raises(MalformedModel, match="not a TFLite file"):
            read_model(data)


def test_shared_offsets_do_not_blow_up() -> None:
    """10,000 subgraphs that are one and the same, with 10,000 tensors that are one: 10^8 tables from 80 kB."""
    count = 10_000
    out = bytearray(struct.pack("<I4s", 20, b"TFL3") + struct.pack("<HHHHH", 10, 8, 0, 0, 4) + b"\0\0")
    assert len(out) == 20
    out += struct.pack("<iI", 12, 4)  # Model: its vtable, offset of the vector
    out += struct.pack("<I", count) + b"".join(struct.pack("<I", 4 * (count - i) + 8) for i in range(count))
    out += struct.pack("<HHHH", 6, 8, 4, 0)  # SubGraph's vtable
    out += struct.pack("<iI", 8, 4)
    tail = len(out)
    out += struct.pack("<I", count) + b"".join(struct.pack("<I", 4 * (count - i) + 4) for i in range(count))
    out += struct.pack("<HH", 4, 4) + struct.pack("<i", 4)  # Tensor: empty
    assert tail
    with pytest.raises(MalformedModel, match="blow the file up"):
        read_model(bytes(out))


@given(st.integers(0, 2**32 - 1))
def test_mutants(seed: int) -> None:
    """Whatever is done to a file, the reader raises nothing but a ModelError."""
    random = np.random.default_rng(seed)
    makers = networks.SOUND
    data = bytearray(makers[random.integers(len(makers))]())
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(len(data) - 4))
        if random.random() < 0.5:
            data[at] = random.integers(256)
        else:
            struct.pack_into("<I", data, at & ~3, int(random.choice([0, 1, 4, 127, 2**31, 2**32 - 1, len(data)])))
    if random.random() < 0.2:
        del data[int(random.integers(8, len(data))) :]
    with contextlib.suppress(ModelError):
        write_model(read_model(bytes(data)))


def test_schema() -> None:
    """The table holds what the code relies on."""
    assert OPERATORS[3] == "CONV_2D"
    assert OPERATORS[127] == "PLACEHOLDER_FOR_GREATER_OP_CODES"
    assert BUILTIN_OPTIONS[1] == "Conv2DOptions"
    for row in TABLES.strip().splitlines():
        assert table_type(row.split()[0]).fields is not None
