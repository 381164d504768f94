"""Writes down what a planner decides and is told, a line each."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from attrs import astuple
from numpy.typing import NDArray

from splitiot import __version__, _fork
from splitiot.cost import name_of
from splitiot.errors import LocalProtocolError
from splitiot.observation import Observation
from splitiot.plan import Plan
from splitiot.recorder import Recorded, Recorder
from splitiot.sim._trace_lines import FORMAT, plain, plain_values
from splitiot.topology import TierProfile

__all__ = ["TraceWriter"]


class TraceWriter(Recorder):
    """Writes a log of one planner as JSON Lines, for `load_trace` and `replay`.

    Each file begins with a header that has all that a replay needs: profiles, prior link, objective and the planner's
    state of then. A line is written whole, with one call, and is with the operating system when the call returns. Where
    JSON has no number, the words ``NaN``, ``Infinity`` and ``-Infinity`` stand as strings.

    A file that passes `max_bytes` becomes ``path.1``, the one before it ``path.2``, and so on; so does a file that is
    there already when a writer begins, or when its planner is restored in mid-run.

    It writes for one process: in one that is forked recording ends, with a line in the log.

    Parameters
    ----------
    path : path
    max_bytes : int
        Of one file.
    keep : int
        How many older files stay; those beyond are deleted.

    Raises
    ------
    OSError
        The file can't be written.

    Examples
    --------
    Give it to the planner, or to the device that makes one::

        with TraceWriter("trace.jsonl") as recorder, Device(pipeline, transport, recorder=recorder) as device:
            device.run(value)
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 1 << 26, keep: int = 8) -> None:
        if max_bytes < 1 or keep < 1:
            raise ValueError(f"max_bytes and keep must be >= 1, got {max_bytes} and {keep}")
        self.path = Path(os.fspath(path))
        self._max_bytes, self._keep = max_bytes, keep
        self._planner: Recorded | None = None
        self._run = ""
        self._events = self._size = 0
        self._mask: tuple[NDArray[np.bool_] | None, list[bool] | None] = (None, None)
        self._encode = msgspec.json.Encoder(enc_hook=_number).encode
        self._file: FileIO | None = None
        self._ours = True
        self._open()
        _fork.in_child(self._disown)

    def _disown(self) -> None:
        self._ours = False
        self.close()

    def close(self) -> None:
        """End it; what a planner does later is not recorded."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # what a planner tells

    def began(self, planner: Recorded) -> None:
        self._live()
        if self._planner is not None and self._planner is not planner:
            raise LocalProtocolError("a trace is of one planner: give each a TraceWriter with a path of its own")
        self._planner = planner
        self._run = os.urandom(8).hex()
        if self._events:
            self._open()
        elif self._size:  # nothing has followed from the first header
            self._live().truncate(0)
            self._size = 0
        self._begin()

    def planned(
        self,
        plan: Plan,
        now_s: float,
        *,
        deadline_s: float | None = None,
        telemetry: Mapping[str, float] | None = None,
        edge_up: bool = True,
    ) -> None:
        costs, decision, objective = plan.costs, plan.decision, plan.objective
        row = decision.row
        values = costs.values(objective)
        if costs.mask is not self._mask[0]:  # planners keep theirs for long
            self._mask = (costs.mask, None if costs.mask.all() else costs.mask.tolist())
        self._event(
            {
                "plan": {
                    "id": plan.id,
                    "now_s": plain(now_s),
                    "row": row,
                    "cut": costs.placements[row].cut,
                    "why": decision.why,
                    "probe": decision.probe,
                    "propensity": plain(decision.propensity),
                    "objective": name_of(objective),
                    "latency_s": plain(values[row] if objective == "latency_s" else plan.latency_s),
                    "costs": _numbers(values),
                    "mask": self._mask[1],
                    "beliefs": _numbers(costs.beliefs),
                    "deadline_s": plain(deadline_s),
                    "telemetry": plain_values(telemetry),
                    "edge_up": edge_up,
                }
            }
        )

    def observed(self, observation: Observation, now_s: float) -> None:
        self._event({"observation": {"now_s": plain(now_s), "seen": plain(observation)}})

    def profiled(self, tier_index: int, profile: TierProfile) -> None:
        self._event({"profile": {"tier_index": tier_index, "profile": profile.to_dict()}})

    # files

    def _event(self, line: dict[str, Any]) -> None:
        self._write(line)
        self._events += 1
        if self._size > self._max_bytes:  # now, since the next header has the state that follows from this line
            self._open()
            self._begin()

    def _begin(self) -> None:
        planner = self._planner
        assert planner is not None
        pipeline, costs, link = planner.pipeline, planner.costs, planner.topology.links[0]
        cuts = costs.cuts.tolist()
        header = {
            "format": FORMAT,
            "splitiot": __version__,
            "run": self._run,
            "digest": pipeline.digest,
            "n": pipeline.n,
            "cuts": cuts,
            "sent_bytes": [pipeline.boundary(cut).nbytes for cut in cuts],
            "returned_bytes": [pipeline.returned(cut).nbytes for cut in cuts],
            "sink": pipeline.sink,
            "stateful": pipeline.stateful,
            "tiers": [tier.to_dict() for tier in planner.topology.tiers],
            "link": [plain(number) for number in astuple(link)],
            "objective": name_of(planner.objective),
            "power": None if costs.power is None else list(astuple(costs.power)),
            "policy": repr(planner.policy),
            "state": planner.snapshot(),
        }
        self._write({"header": header})

    def _write(self, line: dict[str, Any]) -> None:
        data = self._encode(line) + b"\n"
        if self._live().write(data) != len(data):
            raise OSError(f"{self.path} took only a part of a line: is the disk full?")
        self._size += len(data)

    def _live(self) -> FileIO:
        if not self._ours:
            raise LocalProtocolError(
                f"{self.path} is written by the process that this one was forked from: make a TraceWriter in each "
                "process, with a path of its own"
            )
        if self._file is None or self._file.closed:
            raise LocalProtocolError("this trace writer was closed")
        return self._file

    def _open(self) -> None:
        """Begin a new file, and keep the ones before under other names."""
        if self._file is not None:
            self._file.close()
        names = [self.path, *(Path(f"{self.path}.{k}") for k in range(1, self._keep + 1))]
        if self.path.exists() and self.path.stat().st_size:
            for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
                if newer.exists():
                    os.replace(newer, older)
        self._file = FileIO(self.path, "a")
        self._events = self._size = 0


def _numbers(values: NDArray[np.float64]) -> list[Any]:
    return values.tolist() if math.isfinite(values.sum()) else [plain(v) for v in values.tolist()]


def _number(value: Any) -> Any:
    """Return numpy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a trace")
