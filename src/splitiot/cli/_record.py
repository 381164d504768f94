"""One line for each request, and what they come to."""

from __future__ import annotations

import collections
import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from attrs import asdict, frozen

from splitiot.cli._format import milliseconds, size
from splitiot.plan import Outcome

__all__ = ["COLUMNS", "CsvFile", "Record", "Totals", "cells", "record_of"]


@frozen
class Record:
    """How one request went, as plain data.

    Parameters
    ----------
    request : int
        From 1 on.
    cut : int, optional
    source : str
    exact : bool
    probe : bool
    why : str
        The policy's words.
    sent_bytes, received_bytes : int
    device_s : float, optional
        Computing on the device: the head, and the rest where it finished alone.
    network_s : float, optional
        The round trip less the time on the edge; None where there was none.
    edge_s : float, optional
        Computing on the edge.
    total_s : float
        From the call until the value was there.
    error : str, optional
    dropped : bool
        A task dropped it: there is no value, and nothing went wrong.
    cpu, memory, temperature_c, battery : float, optional
        The device's load when the request ended, as `splitiot.DeviceLoad` has it.
    """

    request: int
    cut: int | None
    source: str
    exact: bool
    probe: bool
    why: str
    sent_bytes: int
    received_bytes: int
    device_s: float | None
    network_s: float | None
    edge_s: float | None
    total_s: float
    error: str | None
    dropped: bool = False
    cpu: float | None = None
    memory: float | None = None
    temperature_c: float | None = None
    battery: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def record_of(number: int, outcome: Outcome, load: Mapping[str, float] | None = None) -> Record:
    """Make the record of an outcome, and of the device's load by then."""
    observation, plan = outcome.observation, outcome.plan
    computed = [] if observation is None else [s for s in (observation.head_s, observation.local_s) if s is not None]
    edge = None if observation is None or observation.edge is None else observation.edge.compute_s
    return Record(
        request=number,
        cut=plan.cut if plan is not None else None if observation is None else observation.cut,
        source=outcome.source,
        exact=outcome.exact,
        probe=plan is not None and plan.probe,
        why="" if plan is None else plan.why,
        sent_bytes=0 if observation is None else observation.sent_bytes,
        received_bytes=0 if observation is None else observation.received_bytes,
        device_s=sum(computed) if computed else None,
        network_s=None if observation is None else observation.network_s,
        edge_s=edge,
        total_s=outcome.latency_s,
        error=None if outcome.error is None or outcome.dropped else f"{type(outcome.error).__name__}: {outcome.error}",
        dropped=outcome.dropped,
        **{name: (load or {}).get(name) for name in _LOAD},
    )


_LOAD = ("cpu", "memory", "temperature_c", "battery")

COLUMNS = {
    "request": "right",
    "cut": "right",
    "sent bytes": "right",
    "device": "right",
    "network": "right",
    "edge": "right",
    "total ms": "right",
    "source": "left",
    "exact": "left",
    "": "left end",
}
"""Headings for `cells`."""


def cells(one: Record) -> list[str]:
    """Return a record as cells of a table, times in milliseconds."""
    return [
        str(one.request),
        "-" if one.cut is None else str(one.cut),
        size(one.sent_bytes) if one.sent_bytes else "-",
        milliseconds(one.device_s, digits=2),
        milliseconds(one.network_s, digits=2),
        milliseconds(one.edge_s, digits=2),
        milliseconds(one.total_s, digits=2),
        one.source,
        "yes" if one.exact else "no",
        one.error or ("dropped" if one.dropped else "probe" if one.probe else ""),
    ]


class CsvFile:
    """Writes records to a CSV file, each at once: what was written stays, whatever ends the run."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._writer = csv.writer(file)
        self._started = False

    def add(self, one: Record) -> None:
        """Write one record, and the headings before the first."""
        row = one.to_dict()
        if not self._started:
            self._started = True
            self._writer.writerow(row)
        self._writer.writerow(["" if value is None else value for value in row.values()])
        self._file.flush()


class Totals:
    """What all requests come to. Of their times the last 100,000 are kept.

    Parameters
    ----------
    clock : callable
        Monotonic seconds: tells how many a second there were.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_s = self._last_s = 0.0
        self.requests = self.failed = self.dropped = self.inexact = self.sent_bytes = self.received_bytes = 0
        self.sources: collections.Counter[str] = collections.Counter()
        self.cuts: collections.Counter[int] = collections.Counter()
        self._seconds: collections.deque[float] = collections.deque(maxlen=100_000)
        self._cpu, self._memory = _Mean(), _Mean()
        self.max_temperature_c: float | None = None

    def add(self, one: Record) -> None:
        """Count one request, which ended just now."""
        self.requests += 1
        self._last_s = self._clock()
        if self.requests == 1:
            self._first_s = self._last_s
        self.sources[one.source] += 1
        self.sent_bytes += one.sent_bytes
        self.received_bytes += one.received_bytes
        if one.cut is not None:
            self.cuts[one.cut] += 1
        self._cpu.add(one.cpu)
        self._memory.add(one.memory)
        if one.temperature_c is not None:
            before = self.max_temperature_c
            self.max_temperature_c = one.temperature_c if before is None else max(one.temperature_c, before)
        if one.error is not None:
            self.failed += 1
            return
        if one.dropped:
            self.dropped += 1
            return
        self.inexact += not one.exact
        self._seconds.append(one.total_s)

    @property
    def per_s(self) -> float | None:
        """Requests a second, from the end of the first to the end of the last."""
        between_s = self._last_s - self._first_s
        return (self.requests - 1) / between_s if self.requests > 1 and between_s > 0 else None

    def quantile_s(self, share: float) -> float | None:
        """Seconds that this share of the requests with a value took at most."""
        return _quantile(list(self._seconds), share)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "dropped": self.dropped,
            "per_s": self.per_s,
            "inexact": self.inexact,
            "sources": dict(self.sources),
            "cuts": {str(cut): count for cut, count in sorted(self.cuts.items())},
            "p50_s": self.quantile_s(0.5),
            "p95_s": self.quantile_s(0.95),
            "mean_s": statistics.fmean(self._seconds) if self._seconds else None,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "mean_cpu": self._cpu.value,
            "mean_memory": self._memory.value,
            "max_temperature_c": self.max_temperature_c,
        }

    def __str__(self) -> str:
        sources = ", ".join(f"{count} {source}" for source, count in self.sources.most_common())
        cuts = ", ".join(f"{cut} ({count}x)" for cut, count in self.cuts.most_common(4))
        if len(self.cuts) > 4:
            cuts += f" and {len(self.cuts) - 4} more"
        middle, high = milliseconds(self.quantile_s(0.5)), milliseconds(self.quantile_s(0.95))
        dropped = f", {self.dropped} dropped by tasks" if self.dropped else ""
        rate = f"; {self.per_s:.3g} a second" if self.per_s is not None else ""
        return (
            f"{self.requests} requests: {sources or 'none'}; {self.failed} without a value{dropped}\n"
            f"total   median {middle} ms, 95 % within {high} ms{rate}; {self.sent_bytes:,} bytes sent\n"
            f"cuts    {cuts or '-'}{self._load()}"
        )

    def _load(self) -> str:
        means = [f"{name} {mean.value:.0%}" for name, mean in (("cpu", self._cpu), ("memory", self._memory)) if mean.n]
        if self.max_temperature_c is not None:
            means.append(f"at most {self.max_temperature_c:.1f} C")
        return f"\nload    {', '.join(means)}" if means else ""


class _Mean:
    def __init__(self) -> None:
        self.n, self._sum = 0, 0.0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.n, self._sum = self.n + 1, self._sum + value

    @property
    def value(self) -> float | None:
        return self._sum / self.n if self.n else None


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of the values does not exceed."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)]
