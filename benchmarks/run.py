"""Measure splitiot against the plain way of doing the same: ``python benchmarks/run.py [--json FILE] [--only NAME]``.

Everything is measured side by side, in turns, and a row's ratio is the median over its rounds: it holds on a busy
machine, where seconds do not. This is no test: it exits with 0 when a target is missed, and says so; with 1 if
something could not be measured.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import networks
import processes
import protocol
from measure import Row

ROWS: Mapping[str, Callable[[], Row]] = {
    "head-tail-float32": functools.partial(networks.head_tail, "float32"),
    "head-tail-int8": functools.partial(networks.head_tail, "int8"),
    "every-cut-float32": functools.partial(networks.every_cut, "float32"),
    "every-cut-int8": functools.partial(networks.every_cut, "int8"),
    "all-local-float32": functools.partial(networks.all_local, "float32"),
    "all-local-int8": functools.partial(networks.all_local, "int8"),
    "new-interpreters-float32": functools.partial(networks.new_interpreters, "float32", 15.0),
    "new-interpreters-int8": functools.partial(networks.new_interpreters, "int8", 8.0),
    "cut-file": networks.cut_file,
    "wire-hot-copyto": functools.partial(protocol.wire_copies, "copyto", 1),
    "wire-cold-copyto": functools.partial(protocol.wire_copies, "copyto", 64),
    "wire-hot-bytes": functools.partial(protocol.wire_copies, "bytes", 1),
    "http": functools.partial(protocol.http, False),
    "http-infer": functools.partial(protocol.http, True),
    "decide": functools.partial(protocol.decide, False),
    "decide-observe": functools.partial(protocol.decide, True),
    "import": functools.partial(processes.imports, False),
    "import-used": functools.partial(processes.imports, True),
    "memory": processes.memory,
}


def main() -> int:
    """Measure what was asked for, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", action="append", help="rows whose name begins so (may be repeated)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    chosen = [name for name in ROWS if arguments.only is None or name.startswith(tuple(arguments.only))]
    if not chosen:
        parser.error(f"there is no such row; there are {', '.join(ROWS)}")
    began_s = time.monotonic()
    rows: list[Row] = []
    failed: list[str] = []
    for number, name in enumerate(chosen, start=1):
        print(f"[{time.monotonic() - began_s:3.0f} s] {number}/{len(chosen)} {name}", file=sys.stderr, flush=True)
        try:
            rows.append(ROWS[name]())
        except Exception:
            failed.append(name)
            traceback.print_exc()
    print(f"[{time.monotonic() - began_s:3.0f} s] done", file=sys.stderr, flush=True)
    _table(rows)
    missed = [row for row in rows if row.met is False]
    print()
    for row in missed:
        print(f"MISSED: {row.name}: {_ratio(row)} where {_target(row)} is wanted")
    for name in failed:
        print(f"NOT MEASURED: {name} (see above)")
    with_target = [row for row in rows if row.met is not None]
    print(f"{len(with_target) - len(missed)} of {len(with_target)} targets met")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(_plain(rows, failed), indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _table(rows: list[Row]) -> None:
    head = ("name", "measured", "reference", "ratio", "quartiles", "target", "", "what")
    lines = [
        (
            row.name,
            _figure(row.measured, row),
            "" if row.reference is None else _figure(row.reference, row),
            _ratio(row),
            "" if row.spread is None else "{:.2f}-{:.2f}".format(*row.spread),
            _target(row),
            {True: "met", False: "NOT MET", None: "-"}[row.met],
            row.what + (f" ({row.note})" if row.note else ""),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, ["-" * width for width in (*widths[:-1], 4)], *lines):
        cells = zip(line, widths, strict=True)
        print("  ".join(c.rjust(w) if 0 < i < 6 else c.ljust(w) for i, (c, w) in enumerate(cells)).rstrip())


def _figure(value: float, row: Row) -> str:
    if row.unit == "bytes":
        return f"{value / 2**20:.1f} MB"
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms"


def _ratio(row: Row) -> str:
    return _figure(row.measured, row) if row.ratio is None else f"{row.ratio:.2f}x"


def _target(row: Row) -> str:
    if row.limit_s is not None:
        return f"< {row.limit_s * 1e3:.0f} ms"
    if row.target is None:
        return ""
    return f"{'>=' if row.faster else '<='} {row.target:.2f}x"


def _plain(rows: list[Row], failed: list[str]) -> dict[str, object]:
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "msgspec", "ai-edge-litert", "uvicorn", "starlette")},
        "rows": [
            {
                "name": row.name,
                "what": row.what,
                "unit": row.unit,
                "measured": row.measured,
                "reference": row.reference,
                "ratio": row.ratio,
                "quartiles": row.spread,
                "target": row.limit_s if row.limit_s is not None else row.target,
                "at_least": row.faster,
                "met": row.met,
                "note": row.note,
                "rounds": list(row.ratios),
            }
            for row in rows
        ],
        "not_measured": failed,
    }


if __name__ == "__main__":
    sys.exit(main())
