"""Pipelines of ordinary Python functions."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from platform import machine, python_version
from typing import Any, TypeAlias

from attrs import frozen

from splitiot.errors import CutError, LocalProtocolError
from splitiot.pipeline import (
    NOTHING,
    UNTYPED,
    Boundary,
    Executable,
    Part,
    Payload,
    Pipeline,
    Runtime,
    RuntimeInfo,
    Sink,
    Step,
    Tier,
    pinned,
)

__all__ = ["Task", "TaskPipeline", "task", "tasks"]

Function: TypeAlias = Callable[[Any], Any]


@frozen
class Task:
    """One function as a step.

    Parameters
    ----------
    function : callable
        Takes the value of the step before, returns the value for the step behind.
    name : str
        The same on both sides; it stands in the digest instead of the code.
    tier : Tier, optional
        The only tier that may run it.
    """

    function: Function
    name: str
    tier: Tier | None = None


def task(function: Function, *, name: str | None = None, tier: Tier | str | None = None) -> Task:
    """Make a step of a function, with a name or a pin of its own.

    Raises
    ------
    TypeError
        `function` can't be called.
    CutError
        It has no name of its own (a lambda) and none was given.

    Examples
    --------
    >>> task(lambda x: x + 1, name="increment", tier="device").tier
    <Tier.DEVICE: 'device'>
    """
    if not callable(function):
        raise TypeError(f"a task is a function, got {type(function).__name__}: {function!r}")
    name = name or getattr(function, "__name__", "")
    if not name or name == "<lambda>":
        raise CutError("a task needs a name that both sides know: use task(function, name='...')")
    return Task(function, name, None if tier is None else Tier(tier))


def tasks(functions: Iterable[Function | Task], *, version: str = "1", sink: Sink = "device") -> TaskPipeline:
    """Make a pipeline of functions; each takes the value that the one before returned.

    Parameters
    ----------
    functions : iterable of callable or Task
    version : str
        Stands in the digest: change it when the functions' meaning changes, so that a device and an edge
        with different code refuse each other.
    sink : {"device", "edge"}
        Where the results are wanted.

    Raises
    ------
    CutError
        No function, two with one name, or one without a name.

    Examples
    --------
    >>> def double(x): return 2 * x
    >>> def increment(x): return x + 1
    >>> pipeline = tasks([double, increment])
    >>> pipeline.cuts, pipeline.run(20)
    ((0, 1, 2), 41)
    """
    made = [f if isinstance(f, Task) else task(f) for f in functions]
    if not made:
        raise CutError("a pipeline needs at least one task")
    names = [t.name for t in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CutError(f"two tasks are called {', '.join(twice)}: give them names with task(function, name='...')")
    return TaskPipeline(made, version=version, sink=sink)


class TaskPipeline(Pipeline):
    """A pipeline of functions. Made by `tasks`.

    What crosses is known only when it runs, so boundaries have no names and no bytes: profiles measure them.
    """

    def __init__(self, made: Sequence[Task], *, version: str, sink: Sink) -> None:
        self.tasks = tuple(made)
        self.version = version
        self.sink = sink
        self.stateful = False
        self.steps = tuple(Step(t.name, "task", t.tier) for t in self.tasks)
        words = ["tasks", version, *(f"{t.name}@{t.tier or ''}" for t in self.tasks)]
        self.digest = hashlib.sha256("\n".join(map(repr, words)).encode()).hexdigest()
        self.refused: Mapping[int, str] = dict(sorted(pinned(self.steps).items()))
        self.cuts = tuple(c for c in range(self.n + 1) if c not in self.refused)

    def boundary(self, cut: int) -> Boundary:
        return NOTHING if self.check_cut(cut) == self.n and self.sink == "device" else UNTYPED

    def returned(self, cut: int) -> Boundary:
        return NOTHING if self.check_cut(cut) == self.n or self.sink == "edge" else UNTYPED

    def part(self, start: int, stop: int) -> Part:
        if self.check_cut(stop) < self.check_cut(start):
            raise CutError(f"a part's stop {stop} lies before its start {start}")
        return _TaskPart(self.tasks, start, stop)

    def bind(self, value: Any) -> Payload:
        return value

    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        return (None, payload) if cut == self.n and self.sink == "device" else (payload, None)

    def join(self, kept: Payload, returned: Payload) -> Any:
        return returned if kept is None else kept

    def with_sink(self, sink: Sink) -> TaskPipeline:
        return self if sink == self.sink else TaskPipeline(self.tasks, version=self.version, sink=sink)

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        return RuntimeInfo("python", python_version(), "default", machine())

    def __repr__(self) -> str:
        return f"tasks([{', '.join(t.name for t in self.tasks)}])"


class _TaskPart(Part):
    def __init__(self, made: Sequence[Task], start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.inputs = self.outputs = UNTYPED
        self._functions = tuple(t.function for t in made[start:stop])

    def open(self, runtime: Runtime | None = None) -> Executable:
        return _TaskExecutable(self._functions)


def _nothing() -> None:
    pass


class _TaskExecutable:
    def __init__(self, functions: Sequence[Function]) -> None:
        self._functions = functions
        self.nbytes = sys.getsizeof(functions)

    def __call__(self, payload: Payload, /) -> Payload:
        return self.stepwise(payload, _nothing)

    def stepwise(self, payload: Payload, lap: Callable[[], object]) -> Payload:
        """Run once, and call `lap` behind each step."""
        for function in self._functions:
            payload = function(payload)
            lap()
            if hasattr(payload, "__await__"):
                if hasattr(payload, "close"):
                    payload.close()  # never awaited, as we know
                raise LocalProtocolError(f"task {function!r} is a coroutine function: make it a plain one")
        return payload

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass
