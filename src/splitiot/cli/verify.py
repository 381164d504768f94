"""Check every legal cut of a model against the uncut model, bit for bit, on this machine.

Head, bytes and tail run in a child process. What is found holds for this runtime, version, kernels and architecture.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from splitiot.cli._arguments import add_model_arguments, add_runtime_arguments, at_least, positive, runtime_of
from splitiot.cli._console import Cell, Console
from splitiot.cli._format import brief, ranges, size
from splitiot.cli._inputs import read_inputs
from splitiot.cli._target import Target, load_model_file

if TYPE_CHECKING:
    from splitiot.models import VerifyReport
    from splitiot.models.verify import CutCheck

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot verify``."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite file")
    parser.add_argument("--samples", type=at_least(1), default=2, metavar="N", help="random inputs (default: 2)")
    parser.add_argument("--input", metavar="FILE", nargs=1, default=[], help="one of your own: .npy, .npz or a picture")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the inputs (default: 0)")
    parser.add_argument("--timeout", type=positive, default=120.0, metavar="S", help="seconds a cut (default: 120)")
    add_model_arguments(parser)
    add_runtime_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot verify``: 0 where all is exact, 1 where not."""
    runtime = runtime_of(arguments)
    model = load_model_file(arguments.model, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
    sample = read_inputs(arguments.input, Target(arguments.model, model.name, model))[0] if arguments.input else None
    console.need_rich()
    done = 0
    with console.progress(f"checking {model.name}", total=len(model.cuts)) as report_progress:

        def count(_: CutCheck) -> None:
            nonlocal done
            done += 1
            report_progress(done / len(model.cuts))

        report = model.verify(
            arguments.samples,
            sample,
            runtime=runtime,
            seed=arguments.seed,
            timeout_s=arguments.timeout,
            on_line=count,
        )
    if console.json:
        console.data({"model": arguments.model, "name": model.name, **report.to_dict()})
    else:
        _show(model.name, report, console)
    return 0 if report.ok else 1


def _show(name: str, report: VerifyReport, console: Console) -> None:
    info = report.info
    runs = f"{report.samples} input{'s' * (report.samples != 1)}"
    console.print(f"{name}  {runs} · {info.name} {info.version} · {info.kernels} kernels · {info.machine}")
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow")
    rows: dict[int, tuple[str, str, Cell, str]] = {
        cut: (str(cut), "", ("refused", "dim"), brief(why, 60)) for cut, why in report.refused.items()
    }
    for line in report.lines:
        result = ("exact", "green") if line.ok else ("DIFFERENT", "bold red")
        gap = f" (by up to {line.max_abs_difference:.3g})" if line.max_abs_difference else ""
        rows[line.cut] = (str(line.cut), size(line.nbytes), result, line.detail + gap)
    columns = {"cut": "right", "bytes": "right", "result": "left", "why": "left wrap"}
    if not any(row[3] for row in rows.values()):
        del columns["why"]
    if report.lines:
        console.print("", console.table(columns, [rows[cut][: len(columns)] for cut in sorted(rows)]), "")
    if not report.lines:
        console.print(report.detail if report.ran else f"it can't run here: {report.detail}", style="red")
        console.print("no cut could be checked: NOT OK", style="bold red")
        return
    exact = sum(line.ok for line in report.lines)
    verdict = f"{exact} of {len(report.lines)} cuts exact"
    if report.refused:
        verdict += f", {len(report.refused)} refused ({ranges(sorted(report.refused))})"
    console.print(f"{verdict}: {'ok' if report.ok else 'NOT OK'}", style="bold green" if report.ok else "bold red")
