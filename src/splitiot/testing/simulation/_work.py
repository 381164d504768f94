"""What the devices of a simulation compute: small exact functions whose results tell whose they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, TypeAlias

import numpy as np
from attrs import field, frozen

from splitiot.functions import TaskPipeline, task, tasks
from splitiot.pipeline import DROP, Payload, Sink
from splitiot.topology import TierProfile

__all__ = ["MIXED", "Memory", "Trap", "Value", "Work", "flavoured", "same", "value_of", "works"]

Value: TypeAlias = tuple[int, int, int, int, Any]
"""Whose it is, which request, which step is to fail, what was computed so far, and what makes it large."""

MIXED: Final = 2**61 - 1


class Trap(Exception):
    """What a step raises where it is told to."""


class Memory:
    """What a step remembers of all the values before."""

    def __init__(self) -> None:
        self.sum = 0

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sum = -1

    def take(self, sum_: int) -> int:
        """Return what depends on this value and all before, in their order."""
        self.sum = (self.sum * 2862933555777941757 + sum_ + 3037000493) & MIXED
        return self.sum


def value_of(salt: int, number: int, trap: int = 0) -> Value:
    """Return what a request begins with.

    Parameters
    ----------
    salt : int
        Whose it is.
    number : int
    trap : int
        k: step k - 1 raises; -k: step k - 1 drops the frame; 0: none does.
    """
    return salt, number, trap, (salt * 7919 + number) & MIXED, b""


def flavoured(value: Payload, flavour: int) -> Payload:
    """Return what another runtime gives instead: nearly the same, but not quite."""
    if flavour == 0 or not isinstance(value, tuple):
        return value
    salt, number, trap, sum_, large = value
    return salt, number, trap, sum_ ^ flavour, large


def same(one: Any, other: Any) -> bool:
    """Whether two values agree bit for bit, types included."""
    if type(one) is not type(other):
        return False
    if type(one) in (int, bytes):
        return bool(one == other)
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _checksum(large: Any) -> int:
    """What there is to read in what makes a value large: so a wrong one shows in all that follows."""
    size = len(large)
    return 0 if size == 0 else size * 65536 + int(large[0]) * 257 + int(large[-1])


def _mixing_step(index: int, size: int, arrays: bool) -> Callable[[Value], Any]:
    def step(value: Value) -> Any:
        salt, number, trap, sum_, large = value
        if trap:
            if trap == index + 1:
                raise Trap(f"step {index} was told to")
            if trap == -index - 1:
                return DROP
        sum_ = (sum_ * 6364136223846793005 + _checksum(large) + 97 * salt + index) & MIXED
        more = np.full(size, sum_ & 0x7FFF, np.int16) if arrays else bytes([sum_ & 0xFF]) * size
        return salt, number, trap, sum_, more

    return step


def _stateful_step(index: int) -> Callable[[Memory, Value], Value]:
    def step(memory: Memory, value: Value) -> Value:
        salt, number, trap, sum_, large = value
        return salt, number, trap, memory.take(sum_ + index), large

    return step


@frozen(eq=False)
class Work:
    """A pipeline, what it costs, and how to know what it must give.

    Parameters
    ----------
    name : str
    pipeline : TaskPipeline
    functions : sequence of callable
        The same steps without the pipeline; the one that remembers takes its memory first.
    memory_at : int, optional
        Which step remembers.
    seconds : tuple of float
        Of each step on the device.
    """

    name: str
    pipeline: TaskPipeline
    functions: Sequence[Callable[..., Any]]
    memory_at: int | None
    seconds: tuple[float, ...]
    sizes: tuple[int, ...]

    profile: TierProfile = field(init=False)
    served: TierProfile = field(init=False)

    @profile.default
    def _profile(self) -> TierProfile:
        sizes = [float(size) for size in self.sizes]
        returned = [sizes[-1] + 40.0] * self.pipeline.n + [0.0]
        sent = [40.0, *(size + 40.0 for size in sizes[:-1]), 0.0]
        if self.pipeline.sink == "edge":
            sent[-1], returned = sizes[-1] + 40.0, [0.0] * (self.pipeline.n + 1)
        return TierProfile.from_steps(
            self.pipeline.digest, self.seconds, sent_bytes=sent, returned_bytes=returned, spread=0.05
        )

    @served.default
    def _served(self) -> TierProfile:
        return self.profile.scaled(0.1)

    def result(self, value: Value, memory: Memory | None = None, *, start: int = 0, stop: int | None = None) -> Any:
        """Return what the steps give, without pipeline, session or wire; DROP where one drops it."""
        result: Any = value
        for index in range(start, len(self.functions) if stop is None else stop):
            function = self.functions[index]
            result = function(memory, result) if index == self.memory_at else function(result)
            if result is DROP:
                break
        return result


def _work(
    name: str,
    sizes: Sequence[int],
    *,
    arrays: bool = False,
    memory_at: int | None = None,
    tiers: dict[int, str] | None = None,
    sink: Sink = "device",
) -> Work:
    functions: list[Callable[..., Any]] = []
    steps = []
    for index, size in enumerate(sizes):
        tier = (tiers or {}).get(index)
        if index == memory_at:
            functions.append(_stateful_step(index))
            steps.append(task(functions[-1], name=f"{name} {index}", tier=tier, state="own", resource=Memory))
        else:
            functions.append(_mixing_step(index, size, arrays))
            steps.append(task(functions[-1], name=f"{name} {index}", tier=tier))
    seconds = tuple([0.03, 0.02, 0.04, 0.03, 0.02, 0.04][: len(sizes)])
    # its code is not looked at: then frames are as long wherever this package is installed
    return Work(name, tasks(steps, sink=sink, check_code=False), functions, memory_at, seconds, tuple(sizes))


@functools.cache
def works() -> dict[str, Work]:
    """Return all there are, by name."""
    all_works = [
        _work("numbers", [1800, 300, 900, 64, 32]),
        _work("arrays", [600, 1000, 200, 40], arrays=True, tiers={0: "device"}),
        _work("stateful", [900, 900, 200, 32], memory_at=1),
        _work("remembering", [1200, 300, 200, 200, 32], memory_at=3, tiers={3: "edge"}),
        _work("collecting", [900, 200, 64], tiers={0: "device", 2: "edge"}, sink="edge"),
    ]
    return {work.name: work for work in all_works}
