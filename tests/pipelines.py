"""A light pipeline for tests: made-up bytes at each boundary, and steps that really compute."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from splitiot.errors import CutError, NotCuttable
from splitiot.pipeline import (
    Boundary,
    Executable,
    Part,
    Payload,
    Pipeline,
    Runtime,
    RuntimeInfo,
    Sink,
    Step,
    TensorSpec,
    Tier,
    pinned,
)


class SizedPipeline(Pipeline):
    """n steps; `nbytes[k]` bytes are alive at cut k, `nbytes[n]` are the results'.

    Each step makes one uint8 tensor ``t<k>`` of its input, so head + tail can be compared with the whole. The
    results' bytes go back to the device unless `returned_nbytes` says otherwise (what then "crosses back" is
    only said, not made).
    """

    def __init__(
        self,
        nbytes: Sequence[int],
        *,
        sink: Sink = "device",
        stateful: bool = False,
        refused: Mapping[int, str] | None = None,
        pins: Mapping[int, Tier] | None = None,
        returned_nbytes: int | None = None,
    ) -> None:
        if len(nbytes) < 2:
            raise CutError("a pipeline needs at least one step")
        self.nbytes = tuple(int(b) for b in nbytes)
        self.sink = sink
        self.stateful = stateful
        self.pins = dict(pins or {})
        self.returned_nbytes = returned_nbytes
        self._extra = dict(refused or {})
        n = len(self.nbytes) - 1
        self.steps = tuple(Step(f"s{i}", "made-up", self.pins.get(i)) for i in range(n))
        self.refused: Mapping[int, str] = dict(sorted((pinned(self.steps) | self._extra).items()))
        self.cuts = tuple(c for c in range(n + 1) if c not in self.refused)
        words = repr((self.nbytes, self.stateful, sorted(self.pins.items()), self.cuts))
        self.digest = hashlib.sha256(words.encode()).hexdigest()

    def tensor(self, cut: int) -> TensorSpec:
        return TensorSpec(f"t{cut}", "uint8", (self.nbytes[cut],))

    def boundary(self, cut: int) -> Boundary:
        cut = self.check_cut(cut)
        if cut in self.refused:
            raise NotCuttable(self.refused[cut])
        return Boundary(()) if cut == self.n and self.sink == "device" else Boundary((self.tensor(cut),))

    def returned(self, cut: int) -> Boundary:
        if self.check_cut(cut) == self.n or self.sink == "edge":
            return Boundary(())
        if self.returned_nbytes is not None:
            return Boundary((TensorSpec("returned", "uint8", (self.returned_nbytes,)),))
        return Boundary((self.tensor(self.n),))

    def part(self, start: int, stop: int) -> Part:
        if self.check_cut(stop) < self.check_cut(start):
            raise CutError(f"a part's stop {stop} lies before its start {start}")
        return _SizedPart(self, start, stop)

    def bind(self, value: Any) -> Payload:
        return value if isinstance(value, dict) else {"t0": np.asarray(value, np.uint8)}

    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        return ({}, payload) if cut == self.n and self.sink == "device" else (payload, {})

    def join(self, kept: Payload, returned: Payload) -> Any:
        return {**(kept or {}), **(returned or {})}

    def with_sink(self, sink: Sink) -> SizedPipeline:
        if sink == self.sink:
            return self
        return SizedPipeline(
            self.nbytes,
            sink=sink,
            stateful=self.stateful,
            refused=self._extra,
            pins=self.pins,
            returned_nbytes=self.returned_nbytes,
        )

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        return RuntimeInfo("made-up", "1", "default", "none")

    def sample(self, seed: int = 0) -> Payload:
        return {"t0": np.random.default_rng(seed).integers(0, 256, self.nbytes[0], dtype=np.uint8)}


class _SizedPart(Part):
    def __init__(self, pipeline: SizedPipeline, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.inputs, self.outputs = Boundary((pipeline.tensor(start),)), Boundary((pipeline.tensor(stop),))
        self._nbytes = pipeline.nbytes

    def open(self, runtime: Runtime | None = None) -> Executable:
        return _SizedExecutable(self._nbytes, self.start, self.stop)


class _SizedExecutable:
    def __init__(self, nbytes: Sequence[int], start: int, stop: int) -> None:
        self.nbytes = int(start < stop)
        self._nbytes, self._start, self._stop = nbytes, start, stop

    def __call__(self, payload: Payload, /) -> Payload:
        array = payload[f"t{self._start}"]
        for step in range(self._start, self._stop):
            array = np.resize(array if array.size else np.zeros(1, np.uint8), self._nbytes[step + 1]) + np.uint8(
                step + 1
            )
        return {f"t{self._stop}": array.copy()}

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass
