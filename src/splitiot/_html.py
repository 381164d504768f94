"""What notebooks show: tables with bars, as HTML without scripts, classes or anything from elsewhere.

Text keeps the notebook's own colour, so that it can be read on light and on dark. The objects are known by their
attributes only: nothing is imported from the modules above. Every text is escaped: a model's file may hold any names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

__all__ = ["costs_html", "pipeline_html", "plan_html", "profile_html"]

_MOST_ROWS: Final = 150
_MOST_TENSORS: Final = 3
_LONGEST: Final = 60  # letters of a name
_COLOURS: Final = {
    "device": "#5b8ff9",
    "up": "#f6903d",
    "edge": "#3fb27f",
    "down": "#d8649a",
    "trip": "#9aa0a6",
}
_CELL: Final = "padding:1px 8px;text-align:{side};white-space:nowrap;border:0;background:transparent;color:inherit"


class _Bar:
    """Pieces of colour one after another; each piece's share of the whole width."""

    def __init__(self, pieces: Iterable[tuple[float, str]]) -> None:
        self._pieces = [(share, colour) for share, colour in pieces if math.isfinite(share) and share > 0]

    def html(self) -> str:
        inner = "".join(
            f'<div style="width:{100 * min(share, 1):.2f}%;background:{colour}"></div>'
            for share, colour in self._pieces
        )
        return f'<div style="display:flex;width:16em;height:0.8em">{inner}</div>'


def pipeline_html(pipeline: Any) -> str:
    """Show the cuts of a pipeline, and the bytes that cross at each."""
    n, cuts, sizes = pipeline.n, set(pipeline.cuts), {}
    for cut in pipeline.cuts:
        sizes[cut] = pipeline.boundary(cut).nbytes
    most = max((size for size in sizes.values() if size), default=1)
    reasons: dict[str, int] = {}
    rows: list[list[str | _Bar]] = []
    for cut in range(n + 1):
        step = pipeline.steps[cut - 1] if cut else None
        front = "(the input)" if step is None else step.name if step.kind == "task" else step.kind
        if cut not in cuts:
            mark = reasons.setdefault(pipeline.refused.get(cut, "not legal"), len(reasons) + 1)
            rows.append([str(cut), front, "", _Bar([]), f"refused [{mark}]"])
            continue
        size = sizes[cut]
        bar = _Bar([] if size is None else [(size / most, _COLOURS["up"])])
        rows.append([str(cut), front, "" if size is None else f"{size:,}", bar, _crossing(pipeline, cut)])
    title = getattr(pipeline, "name", type(pipeline).__name__)
    facts = [f"{n} steps, {len(cuts)} of {n + 1} cuts legal", f"results on the {pipeline.sink}"]
    if pipeline.stateful:
        facts.append("stateful: the cut stays where the first request has it")
    notes = [f"digest {pipeline.digest}", *(f"warning: {warning}" for warning in getattr(pipeline, "warnings", ()))]
    heads = ["cut >", "step in front", "bytes >", "", "what crosses"]
    table = _table(heads, rows, dim={c for c in range(n + 1) if c not in cuts})
    return _box(title, facts, table, notes, [f"[{mark}] {why}" for why, mark in reasons.items()])


def _crossing(pipeline: Any, cut: int) -> str:
    tensors = pipeline.boundary(cut).tensors
    if tensors is None:
        return "(known when it runs)"
    if not tensors:
        return "nothing: all local" if cut == pipeline.n else "nothing"
    more = f" and {len(tensors) - _MOST_TENSORS} more" if len(tensors) > _MOST_TENSORS else ""
    return ", ".join(map(_tensor, tensors[:_MOST_TENSORS])) + more


def profile_html(profile: Any) -> str:
    """Show the seconds of heads and tails."""
    whole = max(float(profile.heads_s[-1]), float(profile.tails_s[0])) or 1.0
    rows: list[list[str | _Bar]] = [
        [
            str(cut),
            _ms(float(head)),
            _Bar([(float(head) / whole, _COLOURS["device"])]),
            _ms(float(tail)),
            _Bar([(float(tail) / whole, _COLOURS["edge"])]),
        ]
        for cut, (head, tail) in enumerate(zip(profile.heads_s, profile.tails_s, strict=True))
    ]
    facts = [f"{profile.n} steps", f"whole {_ms(profile.whole_s)} ms", f"spread {profile.spread:.1%}"]
    runtime = profile.runtime
    if runtime is not None:
        facts.append(f"{runtime.name} {runtime.version}, {runtime.kernels} kernels, {runtime.machine}")
    heads = ["cut >", "head, ms >", "", "tail, ms >", ""]
    notes = [f"digest {profile.digest}"]
    return _box(f"Profile of {profile.machine or 'a tier'}", facts, _table(heads, rows), notes)


def costs_html(costs: Any, chosen: int | None = None) -> str:
    """Show what each placement would take; the chosen row, or the fastest allowed one, is bold."""
    terms = {
        "device": costs.device_s,
        "up": costs.up_s,
        "edge": costs.edge_s,
        "down": costs.down_s,
        "trip": costs.rtt_s + costs.wait_s,
    }
    latency, mask, steps = costs.latency_s, costs.mask, costs.pipeline.steps
    shown = [float(v) for v in latency if math.isfinite(v)]
    most = max(shown, default=1.0) or 1.0
    if chosen is None and mask.any():
        chosen = min((row for row in range(len(costs)) if mask[row]), key=lambda row: float(latency[row]))
    rows: list[list[str | _Bar]] = []
    for row, placement in enumerate(costs.placements):
        cut = placement.cut
        step = steps[cut - 1] if cut else None
        front = "all edge" if step is None else "all local" if cut == len(steps) else step.kind
        if step is not None and cut < len(steps) and step.kind == "task":
            front = step.name
        cells: list[str | _Bar] = [str(cut), front, f"{costs.sent_bytes[row]:,.0f}"]
        cells += [_ms(float(column[row])) for column in terms.values()]
        cells += [_ms(float(latency[row]))]
        cells.append(_Bar((float(column[row]) / most, _COLOURS[name]) for name, column in terms.items()))
        rows.append(cells)
    heads = ["cut >", "step in front", "sent bytes >", *(f"{name} >" for name in terms), "latency >", ""]
    dim = {row for row in range(len(costs)) if not mask[row]}
    table = _table(heads, rows, dim=dim, bold=set() if chosen is None else {chosen}, colours=_COLOURS)
    facts = [f"{len(costs)} placements, {int(mask.sum())} allowed", "milliseconds"]
    return _box("Costs", facts, table, [])


def plan_html(plan: Any) -> str:
    """Show a plan's reasons, and all placements that it was chosen from."""
    explained = f'<pre style="margin:4px 0;background:transparent;color:inherit">{_text(plan.explain())}</pre>'
    return explained + costs_html(plan.costs, plan.row)


def _tensor(spec: Any) -> str:
    name = str(spec.name).partition(";")[0]
    name = name if len(name) <= _LONGEST else f"..{name[2 - _LONGEST :]}"
    return f"{name} {spec.dtype}[{','.join(map(str, spec.shape))}]"


def _ms(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    ms = seconds * 1e3
    return f"{ms:,.3f}" if ms < 10 else f"{ms:,.1f}"


def _text(text: str) -> str:
    # control characters have no place in HTML, and bidirectional ones would turn the text around them
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str | _Bar]],
    *,
    dim: Iterable[int] = (),
    bold: Iterable[int] = (),
    colours: dict[str, str] | None = None,
) -> str:
    """Make a table; a heading that ends in " >" has its column to the right, `colours` mark headings."""
    dim, bold = set(dim), set(bold)
    sides = ["right" if head.endswith(" >") else "left" for head in heads]
    styles = [_CELL.format(side=side) for side in sides]
    html = ["<table style='border-collapse:collapse;border:0;font-size:90%'><thead><tr>"]
    for head, style in zip(heads, styles, strict=True):
        column = head.removesuffix(" >")
        colour = (colours or {}).get(column)
        mark = f'<span style="color:{colour}">&#9632;</span> ' if colour else ""
        html.append(f'<th style="{style};border-bottom:1px solid currentColor">{mark}{_text(column)}</th>')
    html.append("</tr></thead><tbody>")
    for number, row in enumerate(rows):
        if len(rows) > _MOST_ROWS and _MOST_ROWS // 2 <= number < len(rows) - _MOST_ROWS // 2 and number not in bold:
            if number == _MOST_ROWS // 2:
                left_out = len(rows) - 2 * (_MOST_ROWS // 2)
                html.append(
                    f'<tr><td colspan="{len(heads)}" style="{styles[0]}">... {left_out} rows left out</td></tr>'
                )
            continue
        look = "opacity:0.55" if number in dim else "font-weight:bold" if number in bold else ""
        cells = "".join(
            f'<td style="{style}">{cell.html() if isinstance(cell, _Bar) else _text(cell)}</td>'
            for cell, style in zip(row, styles, strict=True)
        )
        html.append(f'<tr style="background:transparent;{look}">{cells}</tr>')
    html.append("</tbody></table>")
    return "".join(html)


def _box(title: str, facts: Sequence[str], table: str, notes: Sequence[str], below: Sequence[str] = ()) -> str:
    small = '<div style="font-size:85%;opacity:0.75">{}</div>'
    above = "".join(small.format(_text(note)) for note in notes)
    under = "".join(small.format(_text(note)) for note in below)
    return (
        f'<div style="margin:4px 0"><div><b>{_text(title)}</b> &#183; {_text(" · ".join(facts))}</div>{above}'
        f'<div style="max-height:36em;overflow:auto;margin-top:4px">{table}</div>{under}</div>'
    )
