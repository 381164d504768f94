"""The pipeline itself."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from splitiot._expect import expect
from splitiot.errors import CutError
from splitiot.pipeline._runtime import Part, Runtime, RuntimeInfo
from splitiot.pipeline._values import DROP, Boundary, Payload, Sink, Step, Tier

if TYPE_CHECKING:
    from splitiot.pipeline._chain import Chain

__all__ = ["Pipeline", "expect_pipeline"]


class Pipeline(abc.ABC):
    """An ordered run of n steps that can be cut.

    Attributes
    ----------
    steps : tuple of Step
    digest : str
        64 hexadecimal digits: the same digest, the same computation and the same table of steps.
    sink : {"device", "edge"}
        Where the results are wanted.
    stateful : bool
        Whether steps remember something between runs; then the cut can't move between `reset`s.
    cuts : tuple of int
        The legal cuts, ascending.
    refused : dict of int to str
        Why each of the other cuts is not legal.
    parts : tuple of (int, int), or None
        The only parts that are here (of a bundle); None where all are.
    exclusive_parts : dict of (int, int) to bool
        Runs of steps that hold something, a camera or what they remember, and so are opened as parts of their own:
        once, wherever the cut is. True for those that remember: each owner has one, and the cut does not cross them.
    unreturnable : str
        Why its results can't cross back from the edge; empty where they can, or nobody knows.
    """

    steps: tuple[Step, ...]
    digest: str
    sink: Sink
    stateful: bool
    cuts: tuple[int, ...]
    refused: Mapping[int, str]
    parts: tuple[tuple[int, int], ...] | None = None
    exclusive_parts: Mapping[tuple[int, int], bool] = MappingProxyType({})
    unreturnable: str = ""

    @property
    def n(self) -> int:
        """The number of steps."""
        return len(self.steps)

    @property
    def implementation(self) -> bytes:
        """8 bytes for each step: other ones, other code. Zeros where nobody can tell, empty where the digest says all.

        A model's digest is over its bytes, that of functions only over their names.
        """
        return b""

    def differing(self, implementation: bytes) -> tuple[str, ...]:
        """Names of the steps whose code is known here and in another process, and is not the same."""
        ours = self.implementation
        if ours == implementation or len(ours) != len(implementation):
            return ()
        found = []
        for at, step in enumerate(self.steps):
            here, there = ours[8 * at : 8 * at + 8], implementation[8 * at : 8 * at + 8]
            if here != there and any(here) and any(there):
                found.append(step.name)
        return tuple(found)

    @property
    def remembers(self) -> bool:
        """Whether any step remembers something between runs; then requests run one after another."""
        return self.stateful or any(self.exclusive_parts.values())

    def remembers_from(self, cut: int) -> bool:
        """Whether any of the steps [cut, n) remembers something between runs."""
        return self.stateful or any(keeps and stop > cut for (_, stop), keeps in self.exclusive_parts.items())

    def is_even_from(self, cut: int) -> bool:
        """Whether the steps [cut, n) do the same work in each run: a network's only, between fixed shapes."""
        return False

    def runs_on(self, tier: Tier, start: int, stop: int) -> bool:
        """Whether no step of [start, stop) is pinned to another tier."""
        return all(step.tier in (None, tier) for step in self.steps[start:stop])

    @abc.abstractmethod
    def boundary(self, cut: int) -> Boundary:
        """What crosses from the device to the edge at `cut` (with `sink="device"` nothing at n).

        Raises
        ------
        CutError
            `cut` is not in 0..n.
        NotCuttable
            The cut is not legal; the message says why.
        """

    @abc.abstractmethod
    def returned(self, cut: int) -> Boundary:
        """What crosses back from the edge to the device at `cut`."""

    @abc.abstractmethod
    def part(self, start: int, stop: int) -> Part:
        """Steps [start, stop); both must be legal cuts, 0 or n."""

    @abc.abstractmethod
    def bind(self, value: Any) -> Payload:
        """Check what a user gives to `run`, and make it the payload at cut 0."""

    @abc.abstractmethod
    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        """Divide what the head gave into what crosses and what stays (results that exist already)."""

    @abc.abstractmethod
    def join(self, kept: Payload, returned: Payload) -> Any:
        """Make the value that `run` returns from what stayed and what the tail gave."""

    @abc.abstractmethod
    def with_sink(self, sink: Sink) -> Pipeline:
        """Return the same pipeline with its results wanted elsewhere."""

    def with_runtime(self, runtime: Runtime | None) -> Pipeline:
        """Return the same pipeline as it is with another runtime; None is its own.

        Kernels that run neighbouring operators of a network as one forbid the cuts between them. `Device`,
        `EdgeService`, `Runner` and `profile` ask for this themselves.
        """
        return self

    @abc.abstractmethod
    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        """What this machine would run it with."""

    def run(self, value: Any, runtime: Runtime | None = None) -> Any:
        """Run all steps here, once; `DROP` if a task drops it. For many runs use a `splitiot.Runner`."""
        payload = self.part(0, self.n).run(self.bind(value), runtime)
        if payload is DROP:
            return DROP
        sent, kept = self.divide(self.n, payload)
        return self.join(kept, sent)

    def check_cut(self, cut: int) -> int:
        """Return `cut` when it lies in 0..n, raise CutError otherwise."""
        if type(cut) is int and 0 <= cut <= self.n:
            return cut
        if isinstance(cut, bool) or not isinstance(cut, int | np.integer) or not 0 <= cut <= self.n:
            raise CutError(f"cut {cut!r} is not in 0..{self.n}: a cut is the number of steps on the device")
        return int(cut)

    def _repr_html_(self) -> str:
        from splitiot._html import pipeline_html

        return pipeline_html(self)

    def __add__(self, other: Pipeline) -> Chain:
        expect_pipeline(other, "what is added")
        from splitiot.pipeline._chain import chained

        return chained(self, other)


def expect_pipeline(value: Any, name: str = "pipeline") -> Pipeline:
    """Return a pipeline that somebody gave.

    Raises
    ------
    TypeError
        It is none; the message says how to make one of what it is.
    """
    if isinstance(value, Pipeline):
        return value
    if isinstance(value, str | os.PathLike):
        advice = f"load_model({os.fspath(value)!r}) makes one of a model file"
    elif isinstance(value, type):
        advice = "give an object, not its class"
    elif callable(value) and hasattr(value, "__name__"):
        advice = f"tasks([{value.__name__}]) makes one of functions"
    elif isinstance(value, list | tuple) and value and all(map(callable, value)):
        advice = "tasks([...]) makes one of functions"
    else:
        advice = "load_model(...) makes one of a model, tasks([...]) of functions"
    pipeline: Pipeline = expect(value, Pipeline, name, advice)
    return pipeline
