"""Pipelines one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from splitiot._cached import cached_property
from splitiot.errors import CutError
from splitiot.pipeline._pipeline import Pipeline
from splitiot.pipeline._runtime import Executable, Part, Runtime, RuntimeInfo
from splitiot.pipeline._values import DROP, Boundary, Payload, Sink, pinned

__all__ = ["Chain", "chained"]


def chained(one: Pipeline, other: Pipeline) -> Chain:
    """Return two pipelines one after the other; the links of chains become links of this one."""
    return Chain((*_links(one), *_links(other)))


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
        # results of all but the last are wanted by the next one, wherever that runs: so they always cross
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
