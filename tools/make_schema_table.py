"""Write src/splitiot/models/tflite/schema.py from the Python schema that ai-edge-litert ships.

    python tools/make_schema_table.py            writes the table
    python tools/make_schema_table.py --check    fails when the committed table differs

Needs `ai-edge-litert` (Apache-2.0). Its generated module has 20,000 lines; what a reader and a writer need of
them is: for every table its fields in slot order, their kinds and defaults, and the names in a few enumerations.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src" / "splitiot" / "models" / "tflite" / "schema.py"
UNIONS = ("QuantizationDetails", "SparseIndexVector", "BuiltinOptions", "BuiltinOptions2")
KINDS = {"Bool": "bool", "Float32": "float", "Float64": "double"}
WIDTH = 110

HEADER = '''"""The TFLite schema as a table: every flatbuffer table's fields in slot order. Generated, do not edit.

Written by tools/make_schema_table.py from `schema_py_generated.py` of ai-edge-litert {version}
(https://github.com/google-ai-edge/LiteRT, Apache-2.0); `--check` there compares.

A line is a table and its fields, `name:kind` or `name:kind=default`, by slot; `-` is a slot that is no longer used.
Kinds: scalars (bool, int8 ... uint64, float, double), `string`, `*Table`, `|Union` (its type is the slot before),
and vectors of those in brackets.
"""

# ruff: noqa: E501
# fmt: off

from __future__ import annotations

__all__ = ["OPERATORS", "TABLES", "TENSOR_TYPES", "UNIONS"]

'''


def snake(name: str) -> str:
    """Turn the generated camelCase into the schema's own snake_case."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def scalar(kind: str) -> str:
    return KINDS.get(kind, kind.lower())


def enumeration(text: str, name: str) -> dict[str, int]:
    found = re.search(rf"^class {name}\(object\):\n((?:    \w+ = \d+\n)+)", text, re.MULTILINE)
    assert found, name
    return {key: int(value) for key, value in re.findall(r"    (\w+) = (\d+)\n", found[1])}


def accessor(body: str, name: str) -> str:
    """The text of the method that reads one field."""
    found = re.search(rf"    def {name}\(self(?:, j)?\):\n(.*?)(?=\n    # |\ndef |\Z)", body, re.DOTALL)
    assert found, name
    return found[1]


def kind_of(body: str, method: str, name: str, prepend: str) -> str:
    if prepend != "UOffsetTRelative":
        return scalar(prepend)
    code = accessor(body, method)
    vector = "_tab.Vector(" in code
    if "_tab.Union(" in code:
        kind = "|" + (
            method if method in UNIONS else "QuantizationDetails" if method == "Details" else "SparseIndexVector"
        )
    elif "_tab.String(" in code:
        kind = "string"
    elif found := re.search(r"obj = (\w+)\(\)", code):
        kind = "*" + found[1]
    elif found := re.search(r"number_types\.(\w+)Flags, a", code):
        kind = scalar(found[1])
    else:
        raise AssertionError(f"{name}: {code}")
    return f"[{kind}]" if vector else kind


def table(text: str, name: str) -> list[str]:
    start = text.index(f"class {name}(object):\n    __slots__")
    body = text[start : text.index(f"class {name}T(object):", start)]
    slots = int(re.search(rf"def {name}Start\(builder\):\n    builder.StartObject\((\d+)\)", body)[1])  # type: ignore[index]
    fields = ["-"] * slots
    pattern = rf"def {name}Add(\w+)\(builder, (\w+)\):\n    builder.Prepend(\w+?)Slot\((\d+), .*?(?:, ([-\w.]+))?\)\n"
    for method, argument, prepend, slot, default in re.findall(pattern, body):
        kind = kind_of(body, method, argument, prepend)
        known = "" if kind[0] in "[*|s" or float(default or 0) == 0 else f"={default}"
        fields[int(slot)] = f"{snake(argument)}:{kind}{known}"
    return fields


def render(text: str, version: str) -> str:
    unions = {u: enumeration(text, u) for u in UNIONS}
    wanted, done, rows = ["Model"], set(), []
    while wanted:
        name = wanted.pop()
        if name in done:
            continue
        done.add(name)
        fields = table(text, name)
        rows.append(" ".join([name, *fields]))
        for field in fields:
            for found in re.findall(r"\*(\w+)", field):
                wanted.append(found)
            for found in re.findall(r"\|(\w+)", field):
                wanted.extend(m for m in unions[found] if m != "NONE")
    lines = [HEADER.format(version=version), 'TABLES = """\n', "\n".join(sorted(rows)), '\n"""\n\n']
    for union, members in unions.items():
        assert list(members.values()) == list(range(len(members)))
        lines.append(f"{constant(union)} = (\n{wrapped(members)})\n\n")
    for name, title in (("TensorType", "TENSOR_TYPES"), ("BuiltinOperator", "OPERATORS")):
        members = enumeration(text, name)
        values = {v: k for k, v in members.items()}
        names = [values.get(v, f"UNUSED_{v}") for v in range(max(values) + 1)]
        lines.append(f"{title} = (\n{wrapped(names)})\n\n")
    pairs = "".join(f'    "{u}": {constant(u)},\n' for u in UNIONS)
    lines.append(f"UNIONS = {{\n{pairs}}}\n")
    return "".join(lines)


def constant(union: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", union).upper()


def wrapped(names: object) -> str:
    """Names as string literals, as many in a line as fit."""
    lines, line = [], "   "
    for name in names:  # type: ignore[attr-defined]
        item = f' "{name}",'
        if len(line) + len(item) > WIDTH:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([*lines, line]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    package = importlib.util.find_spec("ai_edge_litert")
    if package is None or package.origin is None:
        print("ai-edge-litert is not installed", file=sys.stderr)
        return 2
    text = (Path(package.origin).parent / "schema_py_generated.py").read_text()
    new = render(text, importlib.metadata.version("ai-edge-litert"))
    if not arguments.check:
        TARGET.write_text(new)
        return 0
    if TARGET.read_text() == new:
        return 0
    print(f"{TARGET.name} is not what {Path(__file__).name} writes", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
