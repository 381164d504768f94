"""Write a model's head and tail as .tflite files.

The head is steps 0..CUT-1, for the device; the tail is the rest, for the edge.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from splitiot.cli._out import Console, Unusable, size
from splitiot.cli._target import Target, add_model_arguments, legal_cut, load_model_file
from splitiot.cli.inspect import short_name

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot split``."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite file")
    parser.add_argument("--cut", type=int, required=True, metavar="K", help="how many steps run on the device")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(), help="where to write (default: here)")
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot split``."""
    model = load_model_file(arguments.model, signature=arguments.signature, sink=arguments.sink, runtime=None)
    cut = legal_cut(Target(arguments.model, model.name, model), arguments.cut)
    console.need_rich()
    folder: Path = arguments.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unusable(f"{folder} can't be made: {error.strerror or error}") from error
    parts = dict(zip(("head", "tail"), model.split(cut), strict=True))
    document: dict[str, Any] = {"model": arguments.model, "digest": model.digest, "cut": cut, "n": model.n}
    for kind, part in parts.items():
        document[kind] = {"start": part.start, "stop": part.stop, "path": None, "bytes": 0}
        if part.start < part.stop:
            path = part.save(folder / f"{model.name}.{kind}-{cut}.tflite")
            document[kind] |= {"path": str(path), "bytes": path.stat().st_size}
    sent, returned = model.boundary(cut), model.returned(cut)
    document["crosses"] = [
        {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "bytes": t.nbytes} for t in sent.tensors or ()
    ]
    document |= {"sent_bytes": sent.nbytes, "returned_bytes": returned.nbytes}
    if console.json:
        console.data(document)
    else:
        _show(document, console)
    return 0


def _show(document: dict[str, Any], console: Console) -> None:
    cut, n = document["cut"], document["n"]
    rows = []
    for kind in ("head", "tail"):
        part = document[kind]
        steps = f"[{part['start']}, {part['stop']})"
        rows.append((kind, steps, size(part["bytes"]) if part["path"] else "-", part["path"] or "no steps: no file"))
    columns = {"part": "left", "steps": "right", "bytes": "right", "file": "left wrap"}
    console.print(console.table(columns, rows), "")
    if cut == 0:
        console.print("Cut 0 leaves no step to the device: it sends its input as it is, the tail is the whole model.")
    elif cut == n:
        console.print(f"Cut {n} leaves no step to the edge: the head is the whole model.")
    crosses = document["crosses"]
    if crosses:
        tensors = [
            (short_name(t["name"]), f"{t['dtype']}[{','.join(map(str, t['shape']))}]", size(t["bytes"]))
            for t in crosses
        ]
        columns = {"crosses to the edge": "left start", "type and shape": "left", "bytes": "right"}
        console.print(console.table(columns, tensors), "")
    else:
        console.print("Nothing crosses to the edge.")
    console.print(f"{size(document['sent_bytes'])} bytes up, {size(document['returned_bytes'])} bytes back")
