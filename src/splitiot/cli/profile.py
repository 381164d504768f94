"""Measure what a target's heads and tails cost on this machine.

A few heads and tails are measured, in turns; the others lie on curves through them. What is kept with --out is for
`splitiot plan --device` or --edge, `splitiot run --profile`, and splitiot.TierProfile.load().
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from splitiot.cli._arguments import TARGET, add_model_arguments, add_runtime_arguments, at_least, positive, runtime_of
from splitiot.cli._console import Console
from splitiot.cli._errors import UsageError
from splitiot.cli._format import fitting_digits, milliseconds, step_label
from splitiot.cli._profiles import profile_target
from splitiot.cli._target import Target, load_target

if TYPE_CHECKING:
    from splitiot.topology import TierProfile

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot profile``."""
    parser.add_argument("target", metavar="TARGET", help=TARGET)
    parser.add_argument("--out", metavar="FILE", help="keep the profile there, as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves (.png, .svg, .pdf)")
    parser.add_argument("--budget", type=positive, default=2.0, metavar="S", help="seconds of measuring (default: 2)")
    parser.add_argument(
        "--heads", type=at_least(1), choices=range(1, 9), default=8, metavar="N", help="to measure, 1..8 (default: 8)"
    )
    tier_help = "what this machine is, if steps are pinned to the other one: it can't run them, or should not"
    parser.add_argument("--tier", choices=("device", "edge"), help=tier_help)
    parser.add_argument("--input", metavar="FILE", nargs=1, default=[], help="a typical one: .npy, .npz or a picture")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of a random input (default: 0)")
    add_model_arguments(parser)
    add_runtime_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write the profile to stdout")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot profile``."""
    for path in (arguments.out, arguments.plot):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"there is no folder {Path(path).parent} to keep {path} in")
    if arguments.plot is not None:
        _need_plots(arguments.plot)
    runtime = runtime_of(arguments)
    target = load_target(arguments.target, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
    console.need_rich()
    measured = profile_target(
        target,
        runtime,
        console,
        inputs=arguments.input,
        seed=arguments.seed,
        budget_s=arguments.budget,
        heads=arguments.heads,
        tier=arguments.tier,
    )
    if arguments.out is not None:
        measured.save(arguments.out)
        console.note(f"profile kept in {arguments.out}")
    if arguments.plot is not None:
        _plot(measured, target, arguments.plot)
        console.note(f"picture in {arguments.plot}")
    if console.json:
        console.data(measured.to_dict())
    else:
        _show(measured, target, console, arguments.tier)
    return 0


def _show(profile: TierProfile, target: Target, console: Console, tier: str | None) -> None:
    pipeline, n = target.pipeline, profile.n
    digits = fitting_digits([profile.whole_s])
    rows, before = [], 0
    for cut in sorted({0, n, *pipeline.cuts}):
        step = pipeline.steps[cut - 1] if cut else None
        front = "all edge" if step is None else step_label(step.name, step.kind)
        share = float(profile.heads_s[cut] - profile.heads_s[before]) / profile.whole_s if profile.whole_s > 0 else 0.0
        head, tail = float(profile.heads_s[cut]), float(profile.tails_s[cut])
        rows.append(
            [
                str(cut),
                front,
                milliseconds(head, digits) if cut else "-",
                milliseconds(tail, digits) if cut < n else "-",
                f"{share:.1%}" if cut else "-",
                "#" * round(30 * share),
            ]
        )
        before = cut
    info = profile.runtime
    runtime = "" if info is None else f" · {info.name} {info.version}, {info.kernels} kernels · {info.machine}"
    title = f"{target.name}  {n} steps · {milliseconds(profile.whole_s)} ms the whole{runtime}"
    columns = {"cut": "right", "step in front": "left end", "head ms": "right", "tail ms": "right", "share": "right"}
    console.print(title, style="bold")
    console.print(f"digest {profile.digest}", f"machine {profile.machine}", "")
    console.print(console.table(columns | {"": "left"}, rows), "")
    guessed = [step.name for step in pipeline.steps if tier is not None and step.tier not in (None, tier)]
    if guessed:
        console.print(f"guessed, since only the other tier runs them: {', '.join(guessed)}")
    naive = ""
    if profile.steps_s is not None:
        naive = f"; steps alone sum up to {milliseconds(float(profile.steps_s.sum()))} ms"
    console.print(
        f"a further part costs {milliseconds(profile.startup_s)} ms{naive}",
        f"single runs scatter by {profile.spread:.0%}; what is shown may be off by {profile.noise:.0%}",
    )


def _need_plots(path: str) -> None:
    from splitiot.errors import MissingDependencyError

    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "plot") from error
    kinds = FigureCanvasAgg(Figure()).get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in kinds:
        raise UsageError(f"{path}: a picture's name ends with .png, .svg or .pdf")


def _plot(profile: TierProfile, target: Target, path: str) -> None:
    from matplotlib.figure import Figure

    cuts = sorted({0, profile.n, *target.pipeline.cuts})
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(cuts, 1e3 * profile.heads_s[cuts], marker="o", markersize=3, label="head [0, cut)")
    axes.plot(cuts, 1e3 * profile.tails_s[cuts], marker="s", markersize=3, label="tail [cut, n)")
    axes.plot(cuts, 1e3 * (profile.heads_s + profile.tails_s)[cuts], linestyle=":", color="grey", label="head + tail")
    title = f"{target.name} · {profile.machine}"
    axes.set(xlabel="cut (steps on the device)", ylabel="ms", ylim=(0, None), title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
