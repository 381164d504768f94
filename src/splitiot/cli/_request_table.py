"""The table of requests that ``splitiot run`` shows while they run."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from splitiot.cli._console import Console
from splitiot.cli._record import COLUMNS, Record, Totals, cells

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["request_table"]

_ROWS = 14  # in the live table


@contextlib.contextmanager
def request_table(console: Console, totals: Totals) -> Iterator[Callable[[Record], None]]:
    """Give a function that shows a record: in a live table, as a line where there is no terminal, or as JSON."""
    if console.json:
        yield lambda record: console.data(record.to_dict(), line=True)
        return
    if not console.out.is_terminal:
        console.print(_aligned(list(COLUMNS)))
        try:
            yield lambda record: console.print(_aligned(cells(record)))
        finally:
            console.print("", str(totals))
        return
    last: deque[Record] = deque(maxlen=max(3, min(_ROWS, console.out.height - 8)))

    def draw() -> list[str | Table]:
        return [console.table(COLUMNS, [*map(cells, last)], [*map(_style, last)]), "", str(totals)]

    with console.live(draw) as refresh:

        def show(record: Record) -> None:
            last.append(record)
            refresh()

        yield show


def _style(record: Record) -> str | None:
    return "red" if record.error else "yellow" if record.source in ("fallback", "hedge") else None


def _aligned(row: list[str]) -> str:
    """Return cells as record aligned line of a log."""
    widths = (7, 4, 12, 8, 8, 8, 9)
    right = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False))
    return f"{right}  {row[7]:<8}  {row[8]:<5}  {' '.join(row[9].split())}".rstrip()
