"""What is cut: a pipeline of n steps, its cuts, and what is alive at each of them.

A cut is the number of steps on the device: at 0 everything runs on the edge, at n everything runs locally.
"""

from __future__ import annotations

import abc
import enum
import hashlib
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from attrs import field, frozen

from splitiot.errors import CutError

__all__ = [
    "DROP",
    "Boundary",
    "Chain",
    "Drop",
    "Executable",
    "Kernels",
    "Part",
    "Payload",
    "Pipeline",
    "Placement",
    "Runtime",
    "RuntimeInfo",
    "Sink",
    "Step",
    "TensorSpec",
    "Tier",
]

Payload: TypeAlias = Any
"""Plain data with array leaves; for a model a dict of arrays by tensor name."""

Sink: TypeAlias = Literal["device", "edge"]
"""Where the results are wanted."""

Kernels: TypeAlias = Literal["default", "no-delegate", "reference"]
"""Which kernels an interpreter uses: with its default delegate (XNNPACK), without one, or the reference ones."""


class Drop(enum.Enum):
    """The type of `DROP`."""

    DROP = "drop"

    def __repr__(self) -> str:
        return "DROP"


DROP: Final = Drop.DROP
"""What a task returns to drop a frame: the steps behind it do not run, and the request ends without a value."""


class Tier(enum.StrEnum):
    """A place that computes."""

    DEVICE = "device"
    EDGE = "edge"
    CLOUD = "cloud"


@frozen
class TensorSpec:
    """Name, type and shape of one array that can cross.

    Parameters
    ----------
    name : str
    dtype : str
        A numpy type name, such as ``"int8"``.
    shape : tuple of int
    scale, zero_point : float and int, optional
        Of an affine quantised tensor: ``real = (stored - zero_point) * scale``.

    Examples
    --------
    >>> TensorSpec("image", "int8", (1, 96, 96, 3)).nbytes
    27648
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array's contents."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _describe(tensors: tuple[TensorSpec, ...] | None) -> str:
    if tensors is None:
        return "untyped"
    return ";".join(f"{t.name!r}:{t.dtype}:{','.join(map(str, t.shape))}" for t in tensors)


@frozen
class Boundary:
    """The values alive at a place in a pipeline.

    Parameters
    ----------
    tensors : tuple of TensorSpec, or None
        None where only a run can tell what the values are (between Python functions).
    """

    tensors: tuple[TensorSpec, ...] | None
    nbytes: int | None = field(init=False)
    """Bytes of all tensors together; None where they must be measured."""
    fingerprint: str = field(init=False, repr=False)
    """16 hexadecimal digits over the names, types and shapes, in order."""

    _expected: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...] | None = field(init=False, repr=False, eq=False)

    @_expected.default
    def _lay_out(self) -> tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...] | None:
        if self.tensors is None:
            return None
        return tuple((t.name, np.dtype(t.dtype), t.shape) for t in self.tensors)

    @nbytes.default
    def _count(self) -> int | None:
        return None if self.tensors is None else sum(t.nbytes for t in self.tensors)

    @fingerprint.default
    def _hash(self) -> str:
        return hashlib.sha256(_describe(self.tensors).encode()).hexdigest()[:16]

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, () where unknown."""
        return () if self.tensors is None else tuple(t.name for t in self.tensors)

    def mismatch(self, payload: Payload) -> str | None:
        """Say how a payload differs from this boundary, or None when it fits.

        Examples
        --------
        >>> boundary = Boundary((TensorSpec("x", "float32", (2,)),))
        >>> boundary.mismatch({"x": np.zeros(3, np.float32)})
        "'x' has shape (3,), expected (2,)"
        """
        if self._expected is None:
            return None
        if not isinstance(payload, Mapping):
            return f"expected arrays named {', '.join(self.names)}, got {type(payload).__name__}"
        if len(payload) != len(self._expected):
            return f"expected arrays named {sorted(self.names)}, got {sorted(map(str, payload))}"
        for name, dtype, shape in self._expected:
            array = payload.get(name)
            if array is None:
                return f"expected arrays named {sorted(self.names)}, got {sorted(map(str, payload))}"
            if not isinstance(array, np.ndarray):
                return f"{name!r} is a {type(array).__name__}, expected an array"
            if array.dtype != dtype:
                if array.dtype.newbyteorder() == dtype:  # interpreters would take its bytes for their own
                    return f"{name!r} is not in this machine's byte order"
                return f"{name!r} has dtype {array.dtype.name}, expected {dtype.name}"
            if array.shape != shape:
                return f"{name!r} has shape {array.shape}, expected {shape}"
        return None


NOTHING = Boundary(())
UNTYPED = Boundary(None)


@frozen
class Step:
    """One indivisible unit of a pipeline.

    Parameters
    ----------
    name : str
    kind : str
        The operator (``"CONV_2D"``), or ``"task"``.
    tier : Tier, optional
        The only tier that may run it.
    """

    name: str
    kind: str
    tier: Tier | None = None


def _ints(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _strs(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class Placement:
    """Where the cuts are, and how the payloads cross.

    Parameters
    ----------
    cuts : tuple of int
        One cut for each pair of neighbouring tiers, ascending.
    codecs : tuple of str
        One codec's name for each cut.

    Examples
    --------
    >>> Placement(cuts=(16,)).cut
    16
    """

    cuts: tuple[int, ...] = field(converter=_ints)
    codecs: tuple[str, ...] = field(converter=_strs, default=("raw",))

    def __attrs_post_init__(self) -> None:
        if len(self.cuts) != len(self.codecs):
            raise CutError(f"{len(self.cuts)} cuts but {len(self.codecs)} codecs: give one codec for each cut")
        if any(b < a for a, b in zip(self.cuts, self.cuts[1:], strict=False)):
            raise CutError(f"cuts must ascend, got {self.cuts}")

    @property
    def cut(self) -> int:
        """The number of steps on the device."""
        return self.cuts[0]

    @property
    def codec(self) -> str:
        """How the payload crosses the first link."""
        return self.codecs[0]


@frozen
class Runtime:
    """What a part shall be run with.

    Parameters
    ----------
    name : str
        ``"auto"``, ``"litert"``, ``"tflite-runtime"`` or ``"tensorflow"``.
    kernels : {"default", "no-delegate", "reference"}
    threads : int
    """

    name: str = "auto"
    kernels: Kernels = "default"
    threads: int = 1


@frozen
class RuntimeInfo:
    """What a part is really run with. Results agree bit for bit only where all four are the same."""

    name: str
    version: str
    kernels: str
    machine: str


class Executable(Protocol):
    """An opened part. Not thread-safe: one thread at a time.

    One that runs its steps one by one may have a method ``stepwise(payload, lap)`` as well: it runs once, and calls
    ``lap()`` behind each step, so that they can be timed singly. One that is still good when a run raised may say so
    with an attribute ``survives = True``; others are closed then.
    """

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes (an estimate)."""

    def __call__(self, payload: Payload, /) -> Payload:
        """Run once. The result owns its memory: the next run does not change it."""

    def reset(self) -> None:
        """Forget state kept between runs."""

    def close(self) -> None:
        """Free what it holds."""


class Part(abc.ABC):
    """Steps [start, stop) of a pipeline, runnable.

    Attributes
    ----------
    start, stop : int
    inputs, outputs : Boundary
        What it takes and what it gives. ``outputs`` holds the results produced inside as well.
    """

    start: int
    stop: int
    inputs: Boundary
    outputs: Boundary

    @abc.abstractmethod
    def open(self, runtime: Runtime | None = None) -> Executable:
        """Make it ready to run, with `runtime` where it needs one."""

    def run(self, payload: Payload, runtime: Runtime | None = None) -> Payload:
        """Open, run once and close. For many runs use a `splitiot.Runner`."""
        executable = self.open(runtime)
        try:
            return executable(payload)
        finally:
            executable.close()


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
    solo : dict of (int, int) to bool
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
    solo: Mapping[tuple[int, int], bool] = MappingProxyType({})
    unreturnable: str = ""

    @property
    def n(self) -> int:
        """The number of steps."""
        return len(self.steps)

    @property
    def remembers(self) -> bool:
        """Whether any step remembers something between runs; then requests run one after another."""
        return self.stateful or any(self.solo.values())

    def remembers_from(self, cut: int) -> bool:
        """Whether any of the steps [cut, n) remembers something between runs."""
        return self.stateful or any(keeps and stop > cut for (_, stop), keeps in self.solo.items())

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
        if not isinstance(other, Pipeline):
            return NotImplemented
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
        self.solo = {
            (first + start, first + stop): keeps
            for first, p in zip(self._firsts, self.links, strict=False)
            for (start, stop), keeps in p.solo.items()
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


def pinned(steps: Sequence[Step]) -> dict[int, str]:
    """The cuts that steps' pins forbid, with the reason of each."""
    refused: dict[int, str] = {}
    for index, step in enumerate(steps):
        if step.tier is Tier.DEVICE:
            refused |= dict.fromkeys(range(index + 1), f"step {index} ({step.name}) must run on the device")
        elif step.tier is not None:
            refused |= dict.fromkeys(
                range(index + 1, len(steps) + 1), f"step {index} ({step.name}) must run on the {step.tier}"
            )
    return refused
