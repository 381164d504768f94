"""Parts, and what runs them."""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Final, Literal, Protocol, TypeAlias, get_args

from attrs import field, frozen

from splitiot.pipeline._values import Boundary, Payload

__all__ = ["Executable", "Kernels", "Part", "Runtime", "RuntimeInfo"]

Kernels: TypeAlias = Literal["default", "no-delegate", "reference"]
"""Which kernels an interpreter uses: with its default delegate (XNNPACK), without one, or the reference ones."""


def _registerers(values: Iterable[str | Callable[[int], object]]) -> tuple[str | Callable[[int], object], ...]:
    registerers = () if isinstance(values, str) else tuple(values)
    if isinstance(values, str) or not all(callable(each) or isinstance(each, str) for each in registerers):
        raise TypeError(f"custom_ops are names or functions, such as ('libmine.so:RegisterMine',), got {values!r}")
    return registerers


_NAMES: Final = ("auto", "litert", "tflite-runtime", "tensorflow")


@frozen
class Runtime:
    """What a part shall be run with.

    Parameters
    ----------
    name : str
        ``"auto"``, ``"litert"``, ``"tflite-runtime"`` or ``"tensorflow"``.
    kernels : {"default", "no-delegate", "reference"}
    threads : int
    custom_ops : sequence of str or callable
        What registers custom operators that the interpreter does not know: ``"libmine.so:RegisterMine"``, a library and
        a C function that takes a pointer to TFLite's ``MutableOpResolver``; the function's name alone where its library
        is loaded already; or a pybind function that takes that pointer as an integer.

    Raises
    ------
    ValueError
        There is no such runtime, or there are no such kernels or threads.
    TypeError
        A registerer is neither a name nor a function.
    """

    name: str = "auto"
    kernels: Kernels = "default"
    threads: int = 1
    custom_ops: tuple[str | Callable[[int], object], ...] = field(default=(), converter=_registerers)

    def __attrs_post_init__(self) -> None:
        if self.name not in _NAMES:
            raise ValueError(f"there is no runtime {self.name!r}: {', '.join(_NAMES)}")
        if self.kernels not in get_args(Kernels):
            raise ValueError(f"there are no kernels {self.kernels!r}: {', '.join(get_args(Kernels))}")
        if type(self.threads) is not int or self.threads < 1:
            raise ValueError(f"threads must be a whole number of at least 1, got {self.threads!r}")


@frozen
class RuntimeInfo:
    """What a part is really run with. Results agree bit for bit only where all four are the same."""

    name: str
    version: str
    kernels: str
    machine: str

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all four, as they cross with requests and replies."""
        return _fingerprint((self.name, self.version, self.kernels, self.machine))


@functools.lru_cache(maxsize=64)
def _fingerprint(fields: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(fields).encode("utf-8", "replace")).hexdigest()[:16]


class Executable(Protocol):
    """An opened part. Not thread-safe: one thread at a time.

    It does not write into what it is given, and what it returns is nobody else's: the caller may run it on the same
    payload again, and may keep both.

    One that runs its steps one by one may have a method ``stepwise(payload, lap)`` as well: it runs once, and calls
    ``lap(waited_s)`` behind each step, so that they can be timed singly; `waited_s` of those seconds were no work. One
    that is still good when a run raised may say so with an attribute ``survives = True``; others are closed then.
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
