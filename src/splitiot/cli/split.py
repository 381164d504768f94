"""Write a model's head and tail as .tflite files, or a bundle of many.

The head is steps 0..CUT-1, for the device; the tail is the rest, for the edge. With several cuts a folder is written
that holds the parts, the whole and a manifest: `splitiot run FOLDER` takes it, and a device needs only the manifest and
the parts that it shall run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitiot.cli._arguments import add_kernels_argument, add_model_arguments
from splitiot.cli._console import Console
from splitiot.cli._errors import UsageError
from splitiot.cli._format import short_name, size, tensor_type
from splitiot.cli._target import Target, legal_cut, load_model_file
from splitiot.pipeline import Runtime

if TYPE_CHECKING:
    from splitiot.models import Model

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot split``."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite file")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--cut", type=int, action="append", metavar="K", help="how many steps run on the device; several make a bundle"
    )
    which.add_argument("--all", action="store_true", help="a bundle of the parts at all cuts")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: here; a bundle: the new folder MODEL.bundle)"
    )
    add_model_arguments(parser)
    add_kernels_argument(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot split``."""
    runtime = Runtime(kernels=arguments.kernels)
    model = load_model_file(arguments.model, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
    target = Target(arguments.model, model.name, model)
    cuts = list(model.cuts) if arguments.all else [legal_cut(target, cut) for cut in dict.fromkeys(arguments.cut)]
    console.need_rich()
    if arguments.all or len(cuts) > 1:
        return _bundle(arguments.model, model, cuts, arguments.out or Path(f"{model.name}.bundle"), console)
    return _pair(arguments.model, model, cuts[0], arguments.out or Path(), console)


def _pair(path: str, model: Model, cut: int, folder: Path, console: Console) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} can't be made: {error.strerror or error}") from error
    parts = dict(zip(("head", "tail"), model.split(cut), strict=True))
    document: dict[str, Any] = {"model": path, "digest": model.digest, "cut": cut, "n": model.n}
    for kind, part in parts.items():
        document[kind] = {"start": part.start, "stop": part.stop, "path": None, "bytes": 0}
        if part.start < part.stop:
            file = part.save(folder / f"{model.name}.{kind}-{cut}.tflite")
            document[kind] |= {"path": str(file), "bytes": file.stat().st_size}
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


def _bundle(path: str, model: Model, cuts: list[int], folder: Path, console: Console) -> int:
    from splitiot.models import load_bundle, save_bundle

    try:
        with console.status(f"writing the parts of {model.name}"):
            save_bundle(model, folder, cuts)
    except FileExistsError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror or error}") from error
    bundle = load_bundle(folder)
    parts: list[dict[str, Any]] = [
        {"start": start, "stop": stop, "path": str(file), "bytes": file.stat().st_size}
        for (start, stop), file in bundle.files.items()
    ]
    total = sum(part["bytes"] for part in parts)
    if console.json:
        console.data(
            {"model": path, "digest": model.digest, "n": model.n, "bundle": str(folder), "cuts": list(bundle.cuts)}
            | {"parts": parts, "bytes": total}
        )
        return 0
    sizes = {(part["start"], part["stop"]): size(part["bytes"]) for part in parts}
    rows = [
        (str(cut), sizes.get((0, cut), "-"), size(model.boundary(cut).nbytes), sizes.get((cut, model.n), "-"))
        for cut in bundle.cuts
    ]
    columns = {"cut": "right", "head, bytes": "right", "crosses, bytes": "right", "tail, bytes": "right"}
    console.print(console.table(columns, rows), "")
    whole = len(model.to_bytes())
    console.print(
        f"{len(parts)} parts and manifest.json in {folder}: {size(total)} bytes, {total / whole:.1f} x the model"
    )
    if total > 100 * 2**20:
        console.warn("each cut takes about as many bytes as the model: name the cuts that you need with --cut")
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
            (short_name(t["name"]), tensor_type(t["dtype"], t["shape"]), size(t["bytes"]))
            for t in crosses
        ]
        columns = {"crosses to the edge": "left start", "type and shape": "left", "bytes": "right"}
        console.print(console.table(columns, tensors), "")
    else:
        console.print("Nothing crosses to the edge.")
    console.print(f"{size(document['sent_bytes'])} bytes up, {size(document['returned_bytes'])} bytes back")
