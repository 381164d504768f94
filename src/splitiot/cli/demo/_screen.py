"""What the demonstration shows while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from splitiot.cli.demo._messages import Ready, RequestResult
    from splitiot.cli.demo._run import Phase

__all__ = ["SOURCE_STYLE", "Screen", "ms"]

SOURCE_STYLE = {"edge": "cyan", "local": "green", "hedge": "yellow", "fallback": "magenta", "none": "bold red"}
_ROWS = 14


def ms(seconds: float | None) -> str:
    """Milliseconds for a table, a dash for None."""
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"


class Screen:
    """A live table of the last requests; plain lines where the output is no terminal."""

    def __init__(self, console: Console, phases: Sequence[Phase], requests: int) -> None:
        self._console, self._phases, self._requests = console, phases, requests
        self._rows: deque[RequestResult] = deque(maxlen=_ROWS)
        self._phase: Phase | None = None
        self._status = ""
        self._header: list[Text] = []
        self._steps = 0
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        from rich.live import Live

        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, refresh_per_second=12, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, status: str) -> None:
        """Show what is going on."""
        self._status = status
        self._update(f"-- {status}")

    def ready(self, ready: Ready) -> None:
        """The device told what it runs."""
        from rich.text import Text

        self._steps = len(ready.steps)
        self._header = [
            Text(
                f"{self._steps} steps; the device is played: {ready.factor:.0f} times slower than this machine, "
                f"{ready.whole_s * 1e3:.0f} ms for all steps"
            )
        ]
        self._update(self._header[0].plain)

    def enter(self, phase: Phase) -> None:
        """A phase begins."""
        self._phase, self._status = phase, ""
        self._update(f"== {phase.name}: {phase.conditions}")

    def row(self, row: RequestResult) -> None:
        """A request ended."""
        self._rows.append(row)
        self._update(
            f"{row.number:>4}  cut {row.cut:>2}/{self._steps}  {row.sent_bytes:>6} B  device {ms(row.device_s):>7}  "
            f"network {ms(row.network_s):>7}  edge {ms(row.edge_s):>6}  total {ms(row.total_s):>7} ms  {row.source}"
            + ("" if row.right else f"  WRONG {row.error}")
        )

    def _update(self, line: str) -> None:
        if self._live is not None:
            self._live.update(self._render())
        else:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        title = Text("splitiot demo", style="bold")
        for phase in self._phases:
            now = phase is self._phase
            title.append("   ")
            title.append(f"{'>' if now else ' '} {phase.name}", style="bold reverse" if now else "dim")
        lines: list[RenderableType] = [title, *self._header]
        if self._phase is not None:
            believed = f"   believed: {self._rows[-1].believed_mbit:.2f} Mbit/s up" if self._rows else ""
            lines.append(Text(f"link: {self._phase.conditions}{believed}"))
        lines += [self._table(), Text(self._status, style="italic")]
        return Group(*lines)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("request", "cut", "bytes", "device ms", "network ms", "edge ms", "total ms"):
            table.add_column(name, justify="right", min_width=8)
        table.add_column("source")
        table.add_column("right")
        for row in self._rows:
            table.add_row(
                str(row.number),
                f"{row.cut}/{self._steps}",
                f"{row.sent_bytes:,}",
                ms(row.device_s),
                ms(row.network_s),
                ms(row.edge_s),
                ms(row.total_s),
                Text(row.source, style=SOURCE_STYLE[row.source]),
                Text("yes", style="green") if row.right else Text("NO", style="bold red"),
            )
        return table
