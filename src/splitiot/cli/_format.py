"""How numbers, names and reasons are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "brief",
    "fitting_digits",
    "milliseconds",
    "ranges",
    "rate",
    "short_name",
    "size",
    "step_label",
    "tensor_type",
]


def milliseconds(seconds: float | None, digits: int | None = None) -> str:
    """Return milliseconds without the unit, ``-`` where they are not known.

    Parameters
    ----------
    seconds : float, optional
    digits : int, optional
        Behind the point; about three significant ones unless given.

    Examples
    --------
    >>> [milliseconds(s) for s in (0.0000123, 0.00345, 0.0678, 1.2345, None, float("nan"))]
    ['0.012', '3.45', '67.8', '1,234', '-', '-']
    >>> milliseconds(0.0678, digits=2)
    '67.80'
    """
    if seconds is None or seconds != seconds:
        return "-"
    ms = seconds * 1e3
    return f"{ms:,.{fitting_digits([seconds]) if digits is None else digits}f}"


def fitting_digits(seconds: Iterable[float]) -> int:
    """Return how many digits behind the point a column of milliseconds needs, so that its points are aligned.

    Examples
    --------
    >>> fitting_digits([0.0001, 0.0678]), fitting_digits([])
    (1, 3)
    """
    ms = max((s for s in seconds if s == s), default=0.0) * 1e3
    return 3 if ms < 1 else 2 if ms < 10 else 1 if ms < 1000 else 0


def size(count: float | None) -> str:
    """Return a number of bytes without the unit, ``?`` where it is not known.

    Examples
    --------
    >>> size(27648), size(None)
    ('27,648', '?')
    """
    return "?" if count is None else f"{count:,.0f}"


def rate(bytes_per_s: float) -> str:
    """Return a bandwidth.

    Examples
    --------
    >>> rate(125e3)
    '1 Mbit/s'
    """
    return f"{bytes_per_s / 125e3:.4g} Mbit/s"


def step_label(name: str, kind: str) -> str:
    """Return what a step is called in a table: a function by its name, an operator by its kind."""
    return name if kind == "task" else kind


def tensor_type(dtype: str, shape: Iterable[int]) -> str:
    """Return a tensor's type and shape.

    Examples
    --------
    >>> tensor_type("int8", (1, 12, 12, 2))
    'int8[1,12,12,2]'
    """
    return f"{dtype}[{','.join(map(str, shape))}]"


def short_name(name: str) -> str:
    """Return the first of the names that a converter has joined: together they have hundreds of letters.

    Examples
    --------
    >>> short_name("model/conv2d/Relu;model/batch_norm/FusedBatchNormV3;model/conv2d/BiasAdd")
    'model/conv2d/Relu'
    """
    return name.partition(";")[0]


def brief(why: str, longest: int = 28) -> str:
    """Return the heart of a reason: what stands behind its first colon or bracket, up to the next stop.

    Examples
    --------
    >>> brief("tensor 0 'x', an input of the model: STRING can't cross: it is no array. Cut elsewhere")
    "STRING can't cross"
    """
    heart = why.partition(": ")[2] or why.partition(") ")[2] or why
    for stop in (": ", ". ", ", ", "; "):
        heart = heart.partition(stop)[0]
    return heart if len(heart) <= longest else f"{heart[: longest - 2].rstrip()}.."


def ranges(cuts: Sequence[int]) -> str:
    """Write ascending numbers short.

    Examples
    --------
    >>> ranges([1, 3, 4, 5, 9])
    '1, 3-5, 9'
    """
    runs: list[list[int]] = []
    for cut in cuts:
        if runs and cut == runs[-1][1] + 1:
            runs[-1][1] = cut
        else:
            runs.append([cut, cut])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
