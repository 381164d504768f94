"""Show where a model can be cut, and what would cross there.

A cut is the number of steps on the device: 0 is all on the edge, the last one all local.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitiot.cli._arguments import TARGET, add_kernels_argument, add_model_arguments
from splitiot.cli._console import Console
from splitiot.cli._format import brief, ranges, short_name, size, step_label, tensor_type
from splitiot.cli._target import Target, load_target, model_inputs
from splitiot.models.keras.layer_names import layer_names
from splitiot.pipeline import Pipeline, Runtime, TensorSpec

__all__ = ["add_arguments", "run"]

_MANY = 4  # tensors at one cut that the table shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot inspect``."""
    parser.add_argument("target", metavar="MODEL", help=TARGET)
    add_model_arguments(parser)
    add_kernels_argument(parser)
    parser.add_argument(
        "--plot", metavar="FILE.png", nargs="?", const="", help="also draw it (default: MODEL.png); .svg and .pdf, too"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot inspect``."""
    runtime = Runtime(kernels=arguments.kernels)
    target = load_target(arguments.target, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
    console.need_rich()
    description = describe(target)
    if arguments.plot is not None:
        from splitiot.cli._picture import draw

        description["plot"] = str(draw(description, Path(arguments.plot or f"{target.name}.png")))
    if console.json:
        console.data(description)
    else:
        _show(description, console)
        if "plot" in description:
            console.print(f"drawn in {description['plot']}")
    return 0


def describe(target: Target) -> dict[str, Any]:
    """Return all that is known without running anything, as plain data."""
    pipeline = target.pipeline
    inputs = model_inputs(pipeline)
    input_bytes = None if inputs is None else sum(spec.nbytes for spec in inputs)
    cuts = [_cut(pipeline, cut, input_bytes) for cut in range(pipeline.n + 1)]
    for cut, layers in zip(cuts[1:], layer_names(pipeline), strict=True):
        cut["layers"] = list(layers)
    _mark_minima(cuts)
    return {
        "target": target.text,
        "name": target.name,
        "digest": pipeline.digest,
        "n": pipeline.n,
        "signature": getattr(pipeline, "signature", None),
        "sink": pipeline.sink,
        "stateful": pipeline.stateful,
        "warnings": list(getattr(pipeline, "warnings", ())),
        "inputs": None if inputs is None else [_tensor(spec) for spec in inputs],
        "input_bytes": input_bytes,
        "cuts": cuts,
    }


def _cut(pipeline: Pipeline, cut: int, input_bytes: int | None) -> dict[str, Any]:
    step = pipeline.steps[cut - 1] if cut else None
    legal = cut in pipeline.cuts
    sent = pipeline.boundary(cut) if legal else None
    nbytes = None if sent is None else sent.nbytes
    return {
        "cut": cut,
        "step": None if step is None else {"name": step.name, "kind": step.kind, "tier": step.tier},
        "legal": legal,
        "why": None if legal else pipeline.refused.get(cut, "not legal"),
        "tensors": None if sent is None or sent.tensors is None else [_tensor(spec) for spec in sent.tensors],
        "sent_bytes": nbytes,
        "returned_bytes": pipeline.returned(cut).nbytes if legal else None,
        "of_input": nbytes / input_bytes if nbytes is not None and input_bytes else None,
        "minimum": False,
        "layers": [],
    }


def _mark_minima(cuts: Sequence[dict[str, Any]]) -> None:
    """Mark each cut that has fewer bytes, up or down, than every legal cut before it."""
    before: list[tuple[int, int]] = []
    for cut in cuts:
        up, down = cut["sent_bytes"], cut["returned_bytes"]
        if up is not None and down is not None:
            cut["minimum"] = all(up < u or down < d for u, d in before)
            before.append((up, down))


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "bytes": None if spec.dtype == "bytes" else spec.nbytes,
        "scale": spec.scale,
        "zero_point": spec.zero_point,
    }


# for people -------------------------------------------------------------------------------------------------


def _show(description: dict[str, Any], console: Console) -> None:
    reasons: dict[str, list[int]] = {}
    for cut in description["cuts"]:
        if not cut["legal"]:
            reasons.setdefault(cut["why"], []).append(cut["cut"])
    marks = {why: number for number, why in enumerate(reasons, 1)}
    columns = {
        "cut": "right",
        "step in front": "left",
        "what crosses": "left start",
        "type and shape": "left",
        "bytes  ": "right",
        "x input": "right",
        "legal": "left",
    }
    rows = [_row(cut, description["n"], marks) for cut in description["cuts"]]
    if not reasons:  # the summary says so
        del columns["legal"]
        rows = [row[:-1] for row in rows]
    if description["input_bytes"] is None:
        del columns["x input"]
        rows = [row[:5] + row[6:] for row in rows]
    if any(cut["layers"] for cut in description["cuts"]):
        columns = {"cut": "right", "step in front": "left", "Keras layer": "left", **columns}
        rows = [[*row[:2], _layer(cut["layers"]), *row[2:]] for row, cut in zip(rows, description["cuts"], strict=True)]
    styles = ["dim" if not cut["legal"] else "green" if cut["minimum"] else None for cut in description["cuts"]]
    console.print(f"{description['name']}  {_summary(description)}", style="bold")
    console.print(f"digest {description['digest']}", style="dim")
    if description["stateful"]:
        console.print("stateful: the cut stays where the first request has it", style="yellow")
    console.print("", console.table(columns, rows, styles), "")
    if any(cut["minimum"] for cut in description["cuts"]):
        console.print("* fewer bytes, up or back, than at every cut before it: where the edge runs each step at least")
        console.print("  as fast as the device, only these can be best")
    for why, cuts in reasons.items():
        console.print(f"[{marks[why]}] {'cut' if len(cuts) == 1 else 'cuts'} {ranges(cuts)}: {why}")
    for warning in description["warnings"]:
        console.print(f"warning: {warning}", style="yellow")


def _summary(description: dict[str, Any]) -> str:
    legal = sum(cut["legal"] for cut in description["cuts"])
    phrases = [f"{description['n']} steps", f"{legal} of {description['n'] + 1} cuts legal"]
    if description["input_bytes"] is not None:
        phrases.append(f"input {description['input_bytes']:,} bytes")
    phrases.append(f"results on the {description['sink']}")
    return " · ".join(phrases)


def _row(cut: dict[str, Any], n: int, marks: dict[str, int]) -> list[str]:
    step = cut["step"]
    front = "(the input)" if step is None else step_label(step["name"], step["kind"])
    tensors, types, nbytes = cut["tensors"], "", size(cut["sent_bytes"])
    if not cut["legal"]:
        names, nbytes = f"{brief(cut['why'])} [{marks[cut['why']]}]", ""
    elif tensors is None:
        names = "(known when it runs)"
    elif not tensors:
        names = "nothing: all local" if cut["cut"] == n else "nothing"
    else:
        shown = tensors[:_MANY]
        names = "\n".join(short_name(t["name"]) for t in shown)
        types = "\n".join(tensor_type(t["dtype"], t["shape"]) for t in shown)
        if len(tensors) > _MANY:
            names += f"\nand {len(tensors) - _MANY} more"
    share = "" if cut["of_input"] is None else f"{cut['of_input']:.2f}"
    legal = "yes" if cut["legal"] else "no"
    return [str(cut["cut"]), front, names, types, nbytes + (" *" if cut["minimum"] else "  "), share, legal]


def _layer(layers: Sequence[str], longest: int = 18) -> str:
    if not layers:
        return ""
    more = f" +{len(layers) - 1}" if len(layers) > 1 else ""
    room = longest - len(more)
    return (layers[0] if len(layers[0]) <= room else f"{layers[0][: room - 2]}..") + more
