"""What the demonstration leaves behind: a table, a CSV file, a plot, a picture."""

from __future__ import annotations

import csv as csv_module
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from splitiot.vision import Detection, draw

if TYPE_CHECKING:
    from rich.console import Console

    from splitiot.cli.demo._messages import ProcessUsage, Ready, RequestResult
    from splitiot.cli.demo._run import Phase

__all__ = ["csv", "draw_detections", "plot", "summary"]

_COLOURS = {"splitiot": "#0072b2", "all local": "#009e73", "all edge": "#d55e00", "fixed middle": "#999999"}
_MARKS = {"edge": "o", "local": "s", "fallback": "X", "hedge": "^", "none": "x"}


def csv(rows: Sequence[RequestResult], path: Path) -> None:
    """Write one line a request; times in seconds."""
    names = [f.name for f in msgspec.structs.fields(type(rows[0])) if f.name != "value"]
    with path.open("w", newline="") as file:
        writer = csv_module.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow(["" if (v := getattr(row, name)) is None else v for name in names])


def _of(rows: Sequence[RequestResult], policy: str, phase: str | None = None) -> list[RequestResult]:
    return [row for row in rows if row.policy == policy and phase in (None, row.phase)]


def _mean_s(rows: Sequence[RequestResult]) -> float:
    return fmean(row.total_s for row in rows)


def summary(
    console: Console,
    rows: Sequence[RequestResult],
    ready: Ready,
    usage: ProcessUsage,
    phases: Sequence[Phase],
    out: Path,
    took_s: float,
) -> None:
    """Print how each policy did."""
    from rich.table import Table

    policies = list(dict.fromkeys(row.policy for row in rows))
    table = Table(title="mean latency of a request, ms", title_justify="left", box=None, pad_edge=False)
    table.add_column("policy")
    for name in (*(phase.name for phase in phases), "all phases", "requests", "lost", "wrong"):
        table.add_column(name, justify="right")
    overall = {p: fmean(_mean_s(_of(rows, p, phase.name)) for phase in phases) for p in policies}
    best = {phase.name: min(policies, key=lambda p: _mean_s(_of(rows, p, phase.name))) for phase in phases}
    for policy in policies:
        own = _of(rows, policy)
        cells = []
        for phase in phases:
            cell = f"{_mean_s(_of(rows, policy, phase.name)) * 1e3:.1f}"
            cells.append(f"[bold]{cell}[/bold]" if best[phase.name] == policy else cell)
        lost = sum(row.source == "none" for row in own)
        wrong = sum(not row.right for row in own) - lost
        name = f"fixed middle ({ready.middle} of {len(ready.steps)})" if policy == "fixed middle" else policy
        style = "bold" if policy == "splitiot" else ""
        table.add_row(name, *cells, f"{overall[policy] * 1e3:.1f}", str(len(own)), str(lost), str(wrong), style=style)
    console.print()
    console.print(table)
    cuts = ", ".join(f"{phase.name}: {_usual_cut(_of(rows, 'splitiot', phase.name))}" for phase in phases)
    others = min(overall[p] for p in policies if p != "splitiot")
    console.print(f"\nusual cut of {len(ready.steps)} steps   {cuts}", highlight=False)
    console.print(
        f"over all phases splitiot took {overall['splitiot'] / others:.2f} of the best fixed choice's time",
        highlight=False,
    )
    console.print(f"peak memory of the device process: {usage.peak_bytes / 2**20:.0f} MiB", highlight=False)
    console.print(f"{took_s:.0f} s; see {out}/: requests.png, found.png, requests.csv", highlight=False)


def _usual_cut(rows: Sequence[RequestResult]) -> int:
    cuts = [row.cut for row in rows]
    return max(set(cuts), key=cuts.count)


def plot(rows: Sequence[RequestResult], ready: Ready, phases: Sequence[Phase], path: Path) -> None:
    """Draw latency and cut of every request of splitiot, and what the others took on average."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    own = _of(rows, "splitiot")
    x = np.arange(1, len(own) + 1)
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    firsts = [next(i for i, row in enumerate(own) if row.phase == phase.name) for phase in phases] + [len(own)]
    for index, phase in enumerate(phases):
        begin, end = firsts[index] + 0.5, firsts[index + 1] + 0.5
        for axes in (top, bottom):
            axes.axvspan(begin, end, color="black", alpha=0.05 if index % 2 else 0.0, lw=0)
        top.text(
            (begin + end) / 2,
            1.02,
            f"{phase.name}\n{phase.conditions}",
            ha="center",
            va="bottom",
            fontsize=8,
            transform=top.get_xaxis_transform(),
        )
        for policy in dict.fromkeys(row.policy for row in rows):
            if policy != "splitiot":
                mean_ms = _mean_s(_of(rows, policy, phase.name)) * 1e3
                top.hlines(
                    mean_ms,
                    begin,
                    end,
                    color=_COLOURS[policy],
                    lw=2,
                    alpha=0.8,
                    label=f"{policy}, mean" if index == 0 else None,
                )
    top.plot(x, [row.total_s * 1e3 for row in own], color=_COLOURS["splitiot"], lw=1, label="splitiot")
    for source, mark in _MARKS.items():
        at = [i for i, row in enumerate(own) if row.source == source]
        if at:
            top.plot(
                x[at],
                [own[i].total_s * 1e3 for i in at],
                mark,
                ms=5,
                color=_COLOURS["splitiot"],
                mfc="white" if source != "edge" else None,
                label=f"answered by: {source}",
            )
    top.set_yscale("log")
    top.set_ylabel("latency of a request, ms")
    top.grid(alpha=0.3, which="both")
    top.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=6, fontsize=8, frameon=False)
    bottom.step(x, [row.cut for row in own], where="mid", color=_COLOURS["splitiot"])
    n = len(ready.steps)
    bottom.set_ylim(-0.05 * n, 1.05 * n)
    bottom.set_yticks([0, ready.middle, n], ["0: all on the edge", f"{ready.middle}", f"{n}: all local"])
    bottom.set_ylabel("cut: steps on the device")
    bottom.set_xlabel("request")
    bottom.grid(alpha=0.3)
    bottom.set_xlim(0.5, len(own) + 0.5)
    figure.savefig(path, dpi=110)


def draw_detections(pictures: Sequence[NDArray[Any]], rows: Sequence[RequestResult], path: Path) -> None:
    """Draw what was found on each picture, as the last request of splitiot for it answered."""
    from PIL import Image

    drawn = []
    for index, picture in enumerate(pictures):
        last = [row for row in rows if row.picture == index and row.policy == "splitiot" and row.value is not None]
        marks = last[-1].value if last else []
        detections = [Detection(x=m[0], y=m[1], score=m[2], label=1) for m in marks if len(m) == 3]
        drawn.append(draw(picture, detections, zoom=3))
    columns = min(3, len(drawn))
    width, height = max(d.width for d in drawn), max(d.height for d in drawn)
    sheet = Image.new("RGB", (columns * (width + 8) - 8, -(-len(drawn) // columns) * (height + 8) - 8), "white")
    for index, image in enumerate(drawn):
        sheet.paste(image, (index % columns * (width + 8), index // columns * (height + 8)))
    sheet.save(path)
