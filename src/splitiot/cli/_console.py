"""What all commands say, and how: tables and results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from splitiot._cached import cached_property
from splitiot._escape import escaped, escaped_json
from splitiot.errors import MissingDependencyError

if TYPE_CHECKING:
    from rich.console import Console as Rich
    from rich.table import Table
    from rich.text import Text

__all__ = ["Cell", "Console", "write_what_can_be_written"]

Cell: TypeAlias = str | tuple[str, str]
"""Of a table: text, or text and its style."""

_PIPED_COLUMNS = 120


def write_what_can_be_written() -> None:
    """Let stdout and stderr replace characters that their encoding lacks: a result is worth more than its dashes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


class Console:
    """Where a command writes.

    With `json`, stdout gets JSON documents and nothing else, and rich is not needed.

    Parameters
    ----------
    json : bool
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    @cached_property
    def out(self) -> Rich:
        """Rich's console on stdout, for results.

        Raises
        ------
        MissingDependencyError
            The extra ``cli`` is not installed.
        """
        return _rich(stderr=False)

    @cached_property
    def err(self) -> Rich:
        """Rich's console on stderr, for progress."""
        return _rich(stderr=True)

    def need_rich(self) -> None:
        """Make sure, before the work is done, that its results can be shown; with `json` they always can.

        Raises
        ------
        MissingDependencyError
            The extra ``cli`` is not installed.
        """
        if not self.json:
            assert self.out is not None

    def with_markup(self) -> Rich:
        """Return rich's console on stdout with its own settings, for the demonstration: it reads markup.

        Raises
        ------
        MissingDependencyError
            The extra ``cli`` is not installed.
        """
        return _rich(stderr=False, markup=True, highlight=True)

    def print(self, *blocks: str | Table, style: str | None = None) -> None:
        """Write text, and tables that `table` made, to stdout; nothing with `json`."""
        if not self.json:
            for block in blocks or ("",):
                self.out.print(_text(block) if isinstance(block, str) else block, style=style)

    def data(self, document: Any, *, line: bool = False) -> None:
        """Write one JSON document to stdout, on one line if wanted; numbers that are not finite become null."""
        import msgspec

        text = msgspec.json.encode(document)
        sys.stdout.write(escaped_json((text if line else msgspec.json.format(text)).decode()) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say something on stderr."""
        sys.stderr.write(f"{_one_line(escaped(text))}\n")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Say what deserves attention on stderr."""
        self.note(f"warning: {text}")

    def error(self, text: str) -> None:
        """Say on stderr, on one line, why it ends."""
        self.note(f"splitiot: {text}")

    def table(
        self,
        columns: Mapping[str, str],
        rows: Sequence[Sequence[Cell]],
        styles: Sequence[str | None] | None = None,
    ) -> Table:
        """Make a plain table without vertical lines.

        Parameters
        ----------
        columns : mapping of str to str
            Headings, and ``"right"`` or ``"left"``: these always have the room that they need. Where a line is too
            short, ``"left end"`` columns lose their ends, ``"left start"`` columns their beginnings, and
            ``"left wrap"`` columns take several lines.
        rows : sequence of sequence of cells
        styles : sequence, optional
            One for each row.
        """
        from rich import box
        from rich.table import Table
        from rich.text import Text

        columns = {escaped(heading): how for heading, how in columns.items()}
        texts = [[_text(cell) if isinstance(cell, str) else _text(*cell) for cell in row] for row in rows]
        wanted = [
            max([len(heading), *(len(line) for row in texts for line in row[index].plain.split("\n"))])
            for index, heading in enumerate(columns)
        ]
        ways = [how.partition(" ")[::2] for how in columns.values()]
        missing = sum(wanted) + 2 * len(wanted) - self.out.width
        for index, (_, way) in enumerate(ways):
            if missing > 0 and way in ("end", "start"):
                room = max(8, wanted[index] - missing)
                missing -= wanted[index] - room
                wanted[index] = room
                for row in texts:
                    row[index] = _shortened(row[index], room, way)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False, header_style="bold")
        for heading, (side, way), width in zip(columns, ways, wanted, strict=True):
            justify: Any = side
            wraps = way == "wrap"
            table.add_column(
                Text(heading), justify=justify, no_wrap=not wraps, overflow="fold", min_width=None if wraps else width
            )
        for number, row in enumerate(texts):
            table.add_row(*row, style=None if styles is None else styles[number])
        return table

    @contextlib.contextmanager
    def live(self, draw: Callable[[], Sequence[str | Table]]) -> Iterator[Callable[[], None]]:
        """Keep what `draw` returns on the terminal; gives a function that draws it anew, at most 20 times a second."""
        from rich.console import Group
        from rich.live import Live

        def drawn() -> Group:
            return Group(*(_text(block) if isinstance(block, str) else block for block in draw()))

        with Live(drawn(), console=self.out, auto_refresh=False) as view:
            drawn_s = 0.0

            def refresh() -> None:
                nonlocal drawn_s
                if time.monotonic() - drawn_s > 0.05:  # drawing takes longer than a small network
                    drawn_s = time.monotonic()
                    view.update(drawn(), refresh=True)

            try:
                yield refresh
            finally:
                view.update(drawn(), refresh=True)

    @contextlib.contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Callable[[float], None]]:
        """Show a progress bar on stderr where that is a terminal; gives a function that takes what is done, 0..1.

        Parameters
        ----------
        label : str
            What is being done.
        total : int, optional
            Of how many things; a percentage is shown without it.
        """
        if not _can_draw():
            yield lambda share: None
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        count = "{task.percentage:>3.0f} %" if total is None else "{task.completed:.0f} of {task.total:.0f}"
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn(count),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(escaped(label), total=total or 100)
            yield lambda share: bar.update(task, completed=share * (total or 100))

    @contextlib.contextmanager
    def status(self, label: str) -> Iterator[None]:
        """Show on stderr, where that is a terminal, that something takes a moment."""
        if not _can_draw():
            yield
            return
        with self.err.status(_text(label)):
            yield

    @contextlib.contextmanager
    def log(self, *names: str) -> Iterator[None]:
        """Pass on to stderr what these loggers say meanwhile."""
        handler = _ToConsole(self)
        loggers = [logging.getLogger(name) for name in names]
        before = [(each.level, each.propagate) for each in loggers]
        for each in loggers:
            each.addHandler(handler)
            each.setLevel(logging.INFO if each.name == "splitiot" else logging.WARNING)
            each.propagate = False
        try:
            yield
        finally:
            for each, (level, propagate) in zip(loggers, before, strict=True):
                each.removeHandler(handler)
                each.setLevel(level)
                each.propagate = propagate


class _ToConsole(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._console.warn(message)
        else:
            self._console.note(message)


def _shortened(text: Text, room: int, way: str) -> Text:
    from rich.text import Text

    def shorten(line: str) -> str:
        if len(line) <= room:
            return line
        return f"..{line[2 - room :]}" if way == "start" else f"{line[: room - 2]}.."

    return Text("\n".join(map(shorten, text.plain.split("\n"))), style=text.style)


def _text(text: str, style: str = "") -> Text:
    """Return text that rich shows as it is: it reads no markup in it, and the terminal finds no commands there."""
    from rich.text import Text

    return Text(escaped(text), style=style)


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")).strip()


def _can_draw() -> bool:
    if not sys.stderr.isatty():
        return False
    import importlib.util

    return importlib.util.find_spec("rich") is not None


def _rich(*, stderr: bool, markup: bool = False, highlight: bool = False) -> Rich:
    try:
        from rich.console import Console as Rich
    except ImportError as error:
        raise MissingDependencyError("rich", "cli") from error
    console = Rich(stderr=stderr, markup=markup, emoji=False, highlight=highlight)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_COLUMNS
    return console
