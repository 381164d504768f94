"""A pipeline, and pipelines one after another: what is added to a pipeline makes a chain, which is one again."""

from __future__ import annotations

import abc
import hashlib
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from splitiot._cached import cached_property
from splitiot._expect import expect
from splitiot.errors import CutError
from splitiot.pipeline._runtime import Executable, Part, Runtime, RuntimeInfo
from splitiot.pipeline._values import DROP, Boundary, Payload, Sink, Step, Tier, pinned

__all__ = ["Chain", "Pipeline", "expect_pipeline"]


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
        names = []
        for at, step in enumerate(self.steps):
            our_hash, their_hash = ours[8 * at : 8 * at + 8], implementation[8 * at : 8 * at + 8]
            if our_hash != their_hash and any(our_hash) and any(their_hash):
                names.append(step.name)
        return tuple(names)

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
        return Chain((*_links(self), *_links(other)))


def _links(pipeline: Pipeline) -> tuple[Pipeline, ...]:
    return pipeline.links if isinstance(pipeline, Chain) else (pipeline,)


class Chain(Pipeline):
    """Pipelines one after another, as one: ``tasks([...]) + model + tasks([...])``.

    Parameters
    ----------
    links : sequence of Pipeline
        Each one's result is the next one's input. Only the last one's `sink` counts.
    """

    def __init__(self, links: Sequence[Pipeline]) -> None:
        if not links:
            raise CutError("a chain needs at least one pipeline")
        # every link but the last feeds the next one, wherever that runs: so its result always crosses
        self.links = (*(p.with_sink("edge") for p in links[:-1]), links[-1])
        self.steps = tuple(step for p in self.links for step in p.steps)
        self.sink = self.links[-1].sink
        self.stateful = any(p.stateful for p in self.links)
        self.digest = hashlib.sha256("\n".join(["chain", *(p.digest for p in self.links)]).encode()).hexdigest()
        self._firsts = [0]
        for p in self.links:
            self._firsts.append(self._firsts[-1] + p.n)
        refused = {
            first + cut: why
            for first, p in zip(self._firsts, self.links, strict=False)
            for cut, why in p.refused.items()
        }
        self.unreturnable = self.links[-1].unreturnable
        if self.unreturnable and self.sink == "device":
            refused = dict.fromkeys(range(len(self.steps)), self.unreturnable) | refused
        refused |= pinned(self.steps)
        self.exclusive_parts = {
            (first + start, first + stop): keeps
            for first, p in zip(self._firsts, self.links, strict=False)
            for (start, stop), keeps in p.exclusive_parts.items()
        }
        if any(p.parts is not None for p in self.links):
            here = [cut for cut in range(self.n + 1) if self._has(0, cut)]
            refused = {c: "its head is not here" for c in range(self.n + 1) if c and c not in here} | refused
            ends = [(0, c) for c in here if c] + [(c, self.n) for c in range(1, self.n) if self._has(c, self.n)]
            self.parts = tuple(sorted(end for end in ends if end[0] == 0 or end[0] not in refused))
        self.refused = dict(sorted(refused.items()))
        self.cuts = tuple(c for c in range(self.n + 1) if c not in refused)

    def _locate(self, cut: int) -> tuple[int, int]:
        """Index of the link that a cut lies in, and the cut inside it: a seam belongs to the link behind it."""
        cut = self.check_cut(cut)
        for index in range(len(self.links) - 1):
            if cut < self._firsts[index + 1]:
                return index, cut - self._firsts[index]
        return len(self.links) - 1, cut - self._firsts[-2]

    def _has(self, start: int, stop: int) -> bool:
        """Whether all of [start, stop) is here."""
        for first, p in zip(self._firsts, self.links, strict=False):
            i, j = max(start - first, 0), min(stop - first, p.n)
            if i < j and p.parts is not None and (i, j) not in p.parts:
                return False
        return True

    @cached_property
    def implementation(self) -> bytes:
        """8 bytes for each step: other ones, other code."""
        every = [p.implementation or bytes(8 * p.n) for p in self.links]
        return b"".join(every) if any(map(any, every)) else b""

    def is_even_from(self, cut: int) -> bool:
        index, inner = self._locate(cut)
        behind = self.links[index + 1 :]
        return self.links[index].is_even_from(inner) and all(p.is_even_from(0) for p in behind)

    def boundary(self, cut: int) -> Boundary:
        index, inner = self._locate(cut)
        return self.links[index].boundary(inner)

    def returned(self, cut: int) -> Boundary:
        index, inner = self._locate(cut)
        return self.links[-1].returned(inner if index == len(self.links) - 1 else 0)

    def part(self, start: int, stop: int) -> Part:
        (first, i), (last, j) = self._locate(start), self._locate(stop)
        if stop < start:
            raise CutError(f"a part's stop {stop} lies before its start {start}")
        if first == last:
            return _ChainPart(self, start, stop, first, [self.links[first].part(i, j)])
        parts = [self.links[first].part(i, self.links[first].n)]
        parts += [p.part(0, p.n) for p in self.links[first + 1 : last]]
        parts.append(self.links[last].part(0, j))
        return _ChainPart(self, start, stop, first, parts)

    def bind(self, value: Any) -> Payload:
        return self.links[0].bind(value)

    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        index, inner = self._locate(cut)
        sent, kept = self.links[index].divide(inner, payload)
        return (sent, kept) if index == len(self.links) - 1 else (sent, None)  # results come from the last link

    def join(self, kept: Payload, returned: Payload) -> Any:
        return self.links[-1].join(kept, returned)

    def with_sink(self, sink: Sink) -> Chain:
        return self if sink == self.sink else Chain((*self.links[:-1], self.links[-1].with_sink(sink)))

    def with_runtime(self, runtime: Runtime | None) -> Chain:
        links = tuple(p.with_runtime(runtime) for p in self.links)
        return self if all(a is b for a, b in zip(links, self.links, strict=True)) else Chain(links)

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        infos = [p.runtime_info(runtime) for p in self.links]
        return next((i for i in infos if i.name != "python"), infos[0])

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.links))


class _ChainPart(Part):
    def __init__(self, chain: Chain, start: int, stop: int, first: int, parts: Sequence[Part]) -> None:
        self.start, self.stop = start, stop
        self.inputs, self.outputs = parts[0].inputs, parts[-1].outputs
        self._links, self.parts = chain.links[first : first + len(parts)], tuple(parts)

    def open(self, runtime: Runtime | None = None) -> Executable:
        opened: list[Executable] = []
        try:
            for part in self.parts:
                opened.append(part.open(runtime))
        except BaseException:
            for executable in opened:
                executable.close()
            raise
        return opened[0] if len(opened) == 1 else _ChainExecutable(self._links, opened)


class _ChainExecutable:
    def __init__(self, links: Sequence[Pipeline], opened: Sequence[Executable]) -> None:
        self._links, self._opened = links, opened
        self._at_work: Executable | None = None
        self.nbytes = sum(executable.nbytes for executable in opened)

    @property
    def survives(self) -> bool:
        """Whether what raised is still good; those before it have done their work, those behind have not begun."""
        return self._at_work is None or getattr(self._at_work, "survives", False)

    def __call__(self, payload: Payload, /) -> Payload:
        payload = self._run(self._opened[0], payload)
        for before, link, executable in zip(self._links, self._links[1:], self._opened[1:], strict=False):
            if payload is DROP:
                break
            payload = self._run(executable, link.bind(before.join(None, payload)))
        return payload

    def _run(self, executable: Executable, payload: Payload) -> Payload:
        self._at_work = executable
        payload = executable(payload)
        self._at_work = None
        return payload

    def reset(self) -> None:
        for executable in self._opened:
            executable.reset()

    def close(self) -> None:
        for executable in self._opened:
            executable.close()


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
