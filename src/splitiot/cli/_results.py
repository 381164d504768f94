"""What ``splitiot run`` keeps of its requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from splitiot.cli._console import Console
from splitiot.cli._inputs import flatten, write_outputs
from splitiot.cli._record import CsvFile, Record, Totals, record_of
from splitiot.cli._target import Score
from splitiot.plan import Outcome

__all__ = ["Results"]


class Results:
    """Totals, and what else is wanted: a line each in a CSV file, arrays in a .npz file, a score of all values.

    Parameters
    ----------
    console : Console
    score : callable, optional
        Takes the list of all values, None where there was none.
    save : str, optional
        The .npz file.
    """

    csv: CsvFile | None = None

    def __init__(self, console: Console, score: Score | None, *, save: str | None) -> None:
        self._console, self._score, self._save = console, score, save
        self.totals = Totals()
        self._arrays: dict[str, Any] = {}
        self._values: list[Any] = []

    def add(self, number: int, outcome: Outcome, load: Mapping[str, float] | None) -> Record:
        """Keep how a request ended, and return it as plain data."""
        record = record_of(number, outcome, load)
        self.totals.add(record)
        if self.csv is not None:
            self.csv.add(record)
        if self._save is not None and outcome.ok:
            self._arrays |= flatten(outcome.value, number)
        if self._score is not None:
            self._values += [None] * (outcome.index - len(self._values))  # those that gave way to newer ones
            self._values.append(outcome.value if outcome.ok else None)
        return record

    @contextlib.contextmanager
    def concluded(self) -> Iterator[None]:
        """Write what comes last when the ``with`` block ends; a run that was interrupted has a score, too."""
        is_whole = False
        try:
            yield
            is_whole = True
        except KeyboardInterrupt:
            is_whole = bool(self._values)  # what runs for ever ends so
            raise
        finally:
            if self._save is not None and self._arrays:
                write_outputs(self._save, self._arrays)
            self._conclude(scored=is_whole)

    def _conclude(self, *, scored: bool) -> None:
        """Write the target's score, and with JSON the totals, whatever becomes of the score."""
        document: dict[str, Any] = {"totals": self.totals.to_dict()}
        try:
            if scored and self._score is not None:
                document["score"] = self._score(self._values)
        finally:
            if self._console.json:
                self._console.data(document, line=True)
        for name, value in document.get("score", {}).items():
            self._console.print(f"{name} {value:.6g}")
