"""A picture of a pipeline: the bytes that cross at each cut, and the cuts that are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from splitiot.cli._errors import UsageError
from splitiot.cli._format import step_label
from splitiot.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "kind_of_refusal"]

_FORMATS: Final = (".png", ".svg", ".pdf")
_LONGEST: Final = 24  # letters of a step's name
_MOST_LABELS: Final = 90
_INCHES_A_CUT: Final = 0.21
_BLUE: Final = "#8fb1dd"
_GREEN: Final = "#2f8f5b"
_RED: Final = "#b5443c"
_HATCHES: Final = ("////", "xxxx", "\\\\\\\\", "....", "----", "++++")

_KINDS: Final = (
    ("which would be on both sides", "state that steps share"),
    ("are run as one", "operators that are run as one"),
    ("can't cross", "a type that can't cross"),
    ("shape", "a shape that is not known"),
    ("must run on the", "a step that is pinned"),
    ("in this bundle", "the head is not here"),
    ("is not here", "the head is not here"),
)


def kind_of_refusal(why: str) -> str:
    """Sort a reason for which a cut is refused into one of a few kinds.

    Examples
    --------
    >>> kind_of_refusal("a RESOURCE lives inside one interpreter and can't cross. Cut elsewhere")
    "a type that can't cross"
    """
    return next((kind for phrase, kind in _KINDS if phrase in why), "another reason")


def draw(description: dict[str, Any], path: Path) -> Path:
    """Draw what `splitiot.cli.inspect.describe` returns.

    Parameters
    ----------
    description : dict
    path : Path
        Its suffix tells the format.

    Raises
    ------
    MissingDependencyError
        The extra ``plot`` is not installed.
    UsageError
        The file can't be written, or has an unknown suffix.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"--plot writes {', '.join(_FORMATS)} files, not {path.name!r}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "plot") from error
    width = min(max(6.4, 1.6 + _INCHES_A_CUT * (description["n"] + 1)), 30.0)
    figure = Figure(figsize=(width, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _bars(axes, description["cuts"], description["input_bytes"])
    _labels(axes, description["cuts"], description["n"])
    legal = sum(cut["legal"] for cut in description["cuts"])
    title = f"{plain(description['name'], 60)}: bytes at each cut ({legal} of {description['n'] + 1} legal)"
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=max(1, int(width / 2.5)), frameon=False, fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}") from error
    return path


def plain(text: str, longest: int = _LONGEST) -> str:
    r"""Return text that every font has, shortened.

    Examples
    --------
    >>> plain("conv\x1b2d"), plain("a" * 9, 5)
    ('conv?2d', 'aaa..')
    """
    text = "".join(c if c.isprintable() and ord(c) < 0x180 else "?" for c in text[: 4 * longest])
    return text if len(text) <= longest else f"{text[: longest - 2]}.."


def _bars(axes: Axes, cuts: Sequence[dict[str, Any]], input_bytes: int | None) -> None:
    sizes = [cut[key] for cut in cuts for key in ("sent_bytes", "returned_bytes") if cut[key]]
    sizes += [input_bytes] if input_bytes else []
    low = 10 ** math.floor(math.log10(min(sizes, default=10)) - 0.3)
    high = max(*sizes, 10 * low, 10)
    high *= (high / low) ** 0.18  # room for the numbers
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    refused: dict[str, list[int]] = {}
    for cut in cuts:
        if not cut["legal"]:
            refused.setdefault(kind_of_refusal(cut["why"]), []).append(cut["cut"])
    look: dict[str, Any]
    for number, (kind, where) in enumerate(refused.items()):
        hatch = _HATCHES[number % len(_HATCHES)]
        look = {"facecolor": "#f6e3e1", "edgecolor": "#dba8a3", "hatch": hatch, "linewidth": 0, "zorder": 1}
        axes.bar(where, high - low, bottom=low, width=0.92, label=f"refused: {kind}", **look)
    for minimum, colour, label in ((False, _BLUE, "up to the edge"), (True, _GREEN, "fewer than at every cut before")):
        chosen = [cut for cut in cuts if cut["sent_bytes"] and cut["minimum"] is minimum]
        if chosen:
            heights = [cut["sent_bytes"] - low for cut in chosen]
            axes.bar([c["cut"] for c in chosen], heights, bottom=low, width=0.72, color=colour, label=label, zorder=2)
    back = [cut for cut in cuts if cut["returned_bytes"]]
    if back:
        at, values = [cut["cut"] for cut in back], [cut["returned_bytes"] for cut in back]
        axes.plot(at, values, "D", color="#333333", markersize=2.6, linestyle="", label="back", zorder=4)
    if input_bytes:
        axes.axhline(input_bytes, color="#333333", linestyle="--", linewidth=0.9, zorder=3, label="the input")
    _numbers(axes, cuts, low)


def _numbers(axes: Axes, cuts: Sequence[dict[str, Any]], low: float) -> None:
    from matplotlib.patheffects import withStroke

    many = len(cuts) > _MOST_LABELS
    halo = [withStroke(linewidth=2, foreground="white")]
    for cut in cuts:
        if not cut["legal"] or many:
            continue
        size = cut["sent_bytes"]
        label = "?" if size is None else "0" if size == 0 else short_bytes(size)
        look: dict[str, Any] = {
            "rotation": 90,
            "fontsize": 6,
            "ha": "center",
            "va": "bottom",
            "zorder": 5,
            "path_effects": halo,
        }
        colour = _GREEN if cut["minimum"] else "#444444"
        axes.annotate(
            label,
            (cut["cut"], size or low),
            (0, 4),
            textcoords="offset points",
            color=colour,
            annotation_clip=True,
            **look,
        )


def _labels(axes: Axes, cuts: Sequence[dict[str, Any]], n: int) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    every = max(1, math.ceil((n + 1) / _MOST_LABELS))
    shown = [cut for cut in cuts if cut["cut"] % every == 0 or cut["cut"] == n]
    axes.set_xticks([cut["cut"] for cut in shown], [_front(cut) for cut in shown], rotation=90, fontsize=7)
    for cut, label in zip(shown, axes.get_xticklabels(), strict=True):
        label.set_parse_math(False)
        if not cut["legal"]:
            label.set_color(_RED)
        elif cut["minimum"]:
            label.set_color(_GREEN)
            label.set_fontweight("bold")
    axes.set_xlim(-0.7, n + 0.7)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_bytes(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("bytes (log scale)")
    axes.set_xlabel("cut: steps on the device, and the last of them")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _front(cut: dict[str, Any]) -> str:
    step = cut["step"]
    if step is None:
        return "(the input)  0"
    return f"{plain(step_label(step['name'], step['kind']))}  {cut['cut']}"


def short_bytes(count: float) -> str:
    """Return a number of bytes in few letters.

    Examples
    --------
    >>> [short_bytes(b) for b in (2, 999, 27648, 110592, 3e6)]
    ['2 B', '999 B', '27.6 kB', '111 kB', '3 MB']
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g} B"
