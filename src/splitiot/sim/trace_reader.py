"""Reads what a `TraceWriter` wrote, and trusts none of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from splitiot._files import open_regular
from splitiot.errors import ProfileError, TraceError
from splitiot.sim import _trace_lines
from splitiot.sim.trace import Event, Header, Trace

__all__ = ["load_trace"]

MAX_LINE_BYTES: Final = 1 << 26


def load_trace(
    path: str | os.PathLike[str], *, max_lines: int = 1_000_000, max_bytes: int = 1 << 30
) -> Trace:
    """Read what a `TraceWriter` wrote: this file, and before it those that were rotated away in the same run.

    Parameters
    ----------
    path : path
    max_lines : int
        Where to stop with an error; a plan of 60 rows takes about 2 kB of memory.
    max_bytes : int
        Of all files together.

    Raises
    ------
    TraceError
        It is no trace, of another version, broken (but for lines that a crash tore, which are dropped and counted),
        longer than `max_lines` or `max_bytes`, no regular file, or can't be read.
    FileNotFoundError
    """
    newest = Path(os.fspath(path))
    files = [newest, *itertools.takewhile(Path.exists, (Path(f"{newest}.{k}") for k in itertools.count(1)))]
    header: Header | None = None
    parts: list[list[Event]] = []
    dropped = 0
    left, left_bytes = max_lines, max_bytes
    for file in files:  # the newest first: it says which run is meant
        read = _File(file, left, left_bytes)
        if header is not None and read.header is not None and read.header.run != header.run:
            break
        dropped += read.dropped
        left -= len(read.events)
        left_bytes -= read.size
        if read.header is not None:
            header = read.header
            parts.append(read.events)
    if header is None:
        raise TraceError(f"{newest} has no header: nothing was recorded, or it is no trace of a TraceWriter")
    return Trace(header, [event for part in reversed(parts) for event in part], dropped)


class _File:
    """One file's contents."""

    def __init__(self, path: Path, max_lines: int, max_bytes: int) -> None:
        self.size = 0
        self.header: Header | None = None
        self.events: list[Event] = []
        self.dropped = 0
        for number, line, last in _lines(path, max_bytes):
            self.size += len(line)
            if self.size > max_bytes:  # it grows
                raise TraceError(f"{path} and what belongs to it has more bytes than load_trace(max_bytes=) allows")
            try:
                self._take(line)
            except msgspec.DecodeError as error:
                if last and not isinstance(error, msgspec.ValidationError):
                    self.dropped += 1  # torn by a crash
                    return
                raise _broken(path, number, error) from error
            except (ProfileError, TypeError, ValueError, OverflowError, RecursionError) as error:
                raise _broken(path, number, error) from error
            if len(self.events) > max_lines:
                raise TraceError(f"{path} and what belongs to it has more lines than load_trace(max_lines=) allows")

    def _take(self, text: bytes) -> None:
        line = _trace_lines.decode(text)
        if self.header is not None:
            self.events.append(_trace_lines.event(line, self.header))
        elif line.header is not None:
            self.header = _trace_lines.header(line.header)
        else:
            raise ValueError("it does not begin with a header")


def _broken(path: Path, number: int, error: Exception) -> TraceError:
    return TraceError(
        f"{path}, line {number} is no line of a trace ({error}): if it was edited, restore it; else record again"
    )


def _lines(path: Path, max_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """Give number, contents, and whether it is the last one, of each line."""
    with open_regular(path, most_bytes=max_bytes, what="a trace", error=TraceError) as file:
        read: Callable[[], bytes] = lambda: file.readline(MAX_LINE_BYTES)  # noqa: E731  (one of two ways to read)
        line = read()
        for number in itertools.count(1):
            if not line:
                return
            following = read()
            if len(line) == MAX_LINE_BYTES:
                raise TraceError(f"{path}, line {number} is longer than any line of a trace")
            yield number, line, not following
            line = following
