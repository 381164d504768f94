"""A cut network against the whole one: the same names, types, shapes and bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from splitiot.errors import ModelError
from splitiot.models._array_pipeline import CuttablePipeline
from splitiot.models._request import Arrays
from splitiot.pipeline import Boundary, Executable, Payload, Runtime

__all__ = ["CutChecker", "Run", "difference", "open_steps"]


class Run(Protocol):
    """A network that is ready to run: arrays in, arrays out."""

    def __call__(self, payload: Arrays, /) -> Arrays:
        """Run it once."""

    def close(self) -> None:
        """Free what it holds."""


def difference(got: Arrays, wanted: Arrays) -> tuple[str, float | None]:
    """Say how arrays differ from those wanted, bit for bit.

    Returns
    -------
    why : str
        Empty when they are the same: names, types, shapes and bytes (so NaN equals NaN, and 0.0 is not -0.0).
    largest : float or None
        The largest absolute difference; None where there is no such number.

    Examples
    --------
    >>> difference({"y": np.float32([1, 2])}, {"y": np.float32([1, 4])})
    ("'y' differs in 1 of 2 values", 2.0)
    """
    if got.keys() != wanted.keys():
        return f"the results are {sorted(got)}, wanted {sorted(wanted)}", None
    whys, largest = [], 0.0
    for name, right in wanted.items():
        left = got[name]
        if left.dtype != right.dtype or left.shape != right.shape:
            return f"{name!r} is {left.dtype}{left.shape}, wanted {right.dtype}{right.shape}", None
        if left.tobytes() == right.tobytes():
            continue
        changed = _bits(left) != _bits(right)
        wide = np.complex128 if left.dtype.kind == "c" else np.float64
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = (array.reshape(-1)[changed].astype(wide) for array in (left, right))
            gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        largest = max(largest, float(np.nan_to_num(gap, nan=np.inf).max()))
        count = int(np.count_nonzero(changed))
        whys.append(f"{name!r} differs in {count} of {left.size} values")
    return "; ".join(whys), largest if np.isfinite(largest) else None


def _bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array's elements as rawly compared items."""
    return np.ascontiguousarray(array).reshape(-1).view(f"V{array.dtype.itemsize}")


def _through_bytes(payload: Arrays) -> Arrays:
    """What a wire makes of a payload: other memory, the same bytes."""
    return {name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for name, array in payload.items()}


class CutChecker:
    """Runs one network whole and cut.

    Parameters
    ----------
    pipeline : CuttablePipeline
    runtime : Runtime
    payloads : sequence of payloads
        Each is run once at every cut; a stateful pipeline takes them as one sequence.
    open_whole : callable
        Makes ready what the parts are compared with.
    fresh : bool
        Whether every payload needs a fresh run: an operator that draws numbers goes on where the run before ended, so
        only first runs can be compared.
    """

    def __init__(
        self,
        pipeline: CuttablePipeline[Any],
        runtime: Runtime,
        payloads: Sequence[Arrays],
        open_whole: Callable[[], Run],
        *,
        fresh: bool = False,
    ) -> None:
        self.pipeline, self.runtime, self.payloads = pipeline, runtime, payloads
        self.open_whole, self.fresh = open_whole, fresh and not pipeline.stateful
        self.wanted: list[Arrays] = []

    def whole(self) -> str:
        """Run the uncut network, twice; say why nothing can be compared, if so."""
        self.wanted = self._results(self.open_whole)
        again = self._results(self.open_whole)
        for first, second in zip(self.wanted, again, strict=True):
            why, _ = difference(second, first)
            if why:
                return f"the uncut model is not reproducible, nothing can be compared: from run to run {why}"
        return ""

    def cut(self, cut: int) -> tuple[str, float | None]:
        """Run head, bytes and tail; say what is wrong, and the largest difference."""
        results = self._results(lambda: _Cut(self.pipeline, self.runtime, cut))
        for index, (got, wanted) in enumerate(zip(results, self.wanted, strict=True)):
            why, gap = difference(got, wanted)
            if why:
                return f"sample {index}: {why}", gap
        return "", 0.0

    def _results(self, open_run: Callable[[], Run]) -> list[Arrays]:
        """What one sequence of runs gives, one result for each payload."""
        results = []
        run = open_run()
        for index, payload in enumerate(self.payloads):
            if index and self.fresh:
                run.close()
                run = open_run()
            results.append(run(payload))
        run.close()
        return results


def open_steps(pipeline: CuttablePipeline[Any], runtime: Runtime) -> Run:
    """Make all steps of a pipeline together ready to run: for what has no file of its own to be compared with."""
    return _Steps(pipeline, runtime)


class _Steps:
    """All steps of a pipeline together."""

    def __init__(self, pipeline: CuttablePipeline[Any], runtime: Runtime) -> None:
        self._run: Executable = pipeline.part(0, pipeline.n).open(runtime)
        self._names = pipeline.results

    def __call__(self, payload: Arrays) -> Arrays:
        outputs = self._run(payload)
        return {name: outputs[name] for name in self._names}

    def close(self) -> None:
        self._run.close()


class _Cut:
    """Head, bytes, tail."""

    def __init__(self, pipeline: CuttablePipeline[Any], runtime: Runtime, cut: int) -> None:
        self._pipeline, self._cut = pipeline, cut
        head, tail = pipeline.split(cut)
        self._boundary = pipeline.boundary(cut)
        self._returned = pipeline.returned(cut) if pipeline.sink == "device" else None
        self._head: Executable = head.open(runtime)
        self._tail: Executable = tail.open(runtime)

    def __call__(self, payload: Arrays) -> Arrays:
        sent, kept = self._pipeline.divide(self._cut, self._head(payload))
        _expect(self._boundary, sent, "what crosses")
        back = self._tail(_through_bytes(sent))
        if self._returned is not None:
            _expect(self._returned, back, "what crosses back")
        results = {**kept, **_through_bytes(back)}
        return {name: results[name] for name in self._pipeline.results}

    def close(self) -> None:
        self._head.close()
        self._tail.close()


def _expect(boundary: Boundary, payload: Payload, what: str) -> None:
    wrong = boundary.mismatch(payload)
    if wrong is not None:
        raise ModelError(f"{what} is not what the boundary says: {wrong}")
