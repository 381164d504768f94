"""Pipelines of ordinary Python functions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from inspect import iscoroutinefunction
from itertools import groupby, pairwise
from platform import machine, python_version
from typing import Any, Literal, TypeAlias, overload

from attrs import field, frozen

from splitiot._cached import cached_property
from splitiot._expect import described
from splitiot.errors import CutError
from splitiot.functions._code import code_hash
from splitiot.functions._executable import Seam, TaskExecutable
from splitiot.functions._signature import Signature, read
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
    check_sink,
    pinned,
)

__all__ = ["Resource", "State", "Task", "TaskPipeline", "task", "tasks"]

Function: TypeAlias = Callable[..., Any]

Resource: TypeAlias = Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]
"""Makes a context manager: set-up and tear-down of what a task holds."""

State: TypeAlias = Literal["none", "shared", "own"]
"""What a task remembers between runs: nothing; something that its neighbours look at too; something of its own."""


@frozen
class Task:
    """One function as a step, which can still be called. Made by `task`.

    Parameters
    ----------
    function : callable
        Takes the value of the step before, returns the value for the step behind.
    name : str
        The same on both sides; it stands in the digest instead of the code.
    tier : Tier, optional
        The only tier that may run it.
    state : {"none", "shared", "own"}
    resource : callable, optional
    isolated : bool
    timeout_s : float
    max_bytes : int, optional
    copy : bool
    parallel : bool
    signature : Signature
        What its annotations and parameters say.
    """

    function: Function
    name: str
    tier: Tier | None = None
    state: State = "none"
    resource: Resource | None = None
    isolated: bool = False
    timeout_s: float = 30.0
    max_bytes: int | None = None
    copy: bool = True
    parallel: bool = False
    signature: Signature = field(init=False, repr=False, eq=False)

    @signature.default
    def _read(self) -> Signature:
        return read(self.function, self.name, holds=self.resource is not None)

    @property
    def serialized(self) -> bool:
        """Whether one thread at a time may be in it."""
        alone = self.isolated or self.resource is not None or iscoroutinefunction(self.function)
        return not (self.parallel or alone)

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """Call the function."""
        return self.function(*arguments, **more)


@overload
def task(
    function: Function,
    *,
    name: str | None = ...,
    tier: Tier | str | None = ...,
    state: State = ...,
    resource: Resource | None = ...,
    isolated: bool = ...,
    timeout_s: float = ...,
    max_bytes: int | None = ...,
    copy: bool = ...,
    parallel: bool = ...,
) -> Task: ...


@overload
def task(
    *,
    name: str | None = ...,
    tier: Tier | str | None = ...,
    state: State = ...,
    resource: Resource | None = ...,
    isolated: bool = ...,
    timeout_s: float = ...,
    max_bytes: int | None = ...,
    copy: bool = ...,
    parallel: bool = ...,
) -> Callable[[Function], Task]: ...


def task(
    function: Function | None = None,
    *,
    name: str | None = None,
    tier: Tier | str | None = None,
    state: State = "none",
    resource: Resource | None = None,
    isolated: bool = False,
    timeout_s: float = 30.0,
    max_bytes: int | None = None,
    copy: bool = True,
    parallel: bool = False,
) -> Task | Callable[[Function], Task]:
    """Make a step of a function, with a name, a pin, a set-up, or a state.

    A function with one parameter is given the value of the step before as it is; one with several parameters the items
    of the tuple that the step before returned; one without parameters nothing (the step before returned None). Async
    functions are awaited. A return annotation is checked at each run.

    Parameters
    ----------
    function : callable, optional
        It may return `splitiot.DROP` to drop the frame. Left out, what comes back is a decorator.
    name : str, optional
        The function's own, unless given.
    tier : Tier or str, optional
        The only tier that may run it: ``"device"`` for one that reads a sensor.
    state : {"none", "shared", "own"}
        What it remembers between runs. ``"shared"``: its neighbours look at it too, so there is no cut beside it.
        ``"own"``: it may be cut from them. Where a task that remembers has no `tier`, the cut can't move until
        `Device.reset`; with one, it stays there and the cut moves elsewhere. Requests then run one after another.
    resource : callable, optional
        Makes a context manager: set-up and tear-down of a camera, a window, a connection, or an object that remembers.
        What that gives is the function's first argument. It is opened where the task runs, when it runs first, and
        closed with the `Runner` (`Device`, `EdgeService`); where the task remembers, once for each device.
    isolated : bool
        Run it in a child process, which can be stopped if it hangs, and may crash: the frame ends in an error
        (`TaskKilled`), and the next one has a new child. The function, and its resource, must be importable.
        Without it a task that hangs holds up its thread for ever: Python can't stop a thread.
    timeout_s : float
        When an isolated task counts as hung.
    max_bytes : int, optional
        What an isolated task may allocate (on Linux).
    copy : bool
        A task may write into what it is given, and may use again what it returned: what somebody else holds is copied
        first. False is a promise that it does neither, and saves these copies: arrays are given read-only, so that
        one that writes into them raises ValueError wherever the cut is; what it returned must stay as it is.
    parallel : bool
        Several threads may be in the function at once. Without that promise an edge with several requests lets one at
        a time in: a function that has a buffer of its own would give one request's value to another. It is not needed
        where each call has something of its own anyway: tasks with a `resource` (each thread has one), isolated ones,
        coroutines.

    Raises
    ------
    TypeError
        `function` can't be called.
    CutError
        It has no name of its own (a lambda) and none was given, it is a generator, it needs keyword arguments, or what
        was asked for does not go together.

    Examples
    --------
    >>> task(lambda x: x + 1, name="increment", tier="device").tier
    <Tier.DEVICE: 'device'>

    >>> @task(tier="edge")
    ... def double(x):
    ...     return 2 * x
    >>> double.tier, double(21)
    (<Tier.EDGE: 'edge'>, 42)
    """
    if function is None:
        return partial(
            task,
            name=name,
            tier=tier,
            state=state,
            resource=resource,
            isolated=isolated,
            timeout_s=timeout_s,
            max_bytes=max_bytes,
            copy=copy,
            parallel=parallel,
        )
    if not callable(function):
        also = ": a network is added, tasks([...]) + model" if isinstance(function, Pipeline) else ""
        raise TypeError(f"a task is a function, got {described(function)}{also}")
    name = name or getattr(function, "__name__", "")
    if not name or name == "<lambda>":
        raise CutError("a task needs a name that both sides know: use task(function, name='...')")
    if state not in ("none", "shared", "own"):
        raise CutError(f"the state of task {name!r} is 'none', 'shared' or 'own', got {state!r}")
    if isolated and state != "none":
        raise CutError(
            f"task {name!r} remembers something, so it can't be isolated: that would be lost with its process"
        )
    if not 0 < timeout_s < math.inf:
        raise CutError(f"timeout_s of task {name!r} must be a positive number of seconds, got {timeout_s}")
    if tier is not None and tier not in tuple(Tier):
        raise ValueError(f"the tier of task {name!r} is 'device' or 'edge', got {tier!r}")
    if max_bytes is not None and not isolated:
        raise CutError(f"max_bytes of task {name!r} is for isolated tasks: only a process of its own can be limited")
    pin = None if tier is None else Tier(tier)
    return Task(function, name, pin, state, resource, isolated, timeout_s, max_bytes, copy, parallel)


def tasks(
    functions: Iterable[Function | Task], *, version: str = "1", sink: Sink = "device", check_code: bool = True
) -> TaskPipeline:
    """Make a pipeline of functions; each takes the value that the one before returned.

    None, numbers, strings, bytes, numpy arrays, and lists, tuples and dicts (with string keys) of them can cross; what
    annotations say can't cross refuses the cut there, with the reason in `Pipeline.refused`. Without annotations that
    is found when it runs.

    Parameters
    ----------
    functions : iterable of callable or Task
    version : str
        Stands in the digest: change it when the functions' meaning changes, so that a device and an edge
        with different code refuse each other.
    sink : {"device", "edge"}
        Where the results are wanted.
    check_code : bool
        An edge and a device whose functions have other code, as far as their sources tell (see
        `Pipeline.implementation`), refuse each other. False: only names, pins and `version` count.

    Raises
    ------
    CutError
        No function, two with one name, or one without a name; an isolated one that can't be imported; one that can't
        take what the one before returns; or nothing that may cross is left.

    Examples
    --------
    >>> def double(x): return 2 * x
    >>> def increment(x): return x + 1
    >>> pipeline = tasks([double, increment])
    >>> pipeline.cuts, pipeline.run(20)
    ((0, 1, 2), 41)

    >>> def both(x): return x // 10, x % 10
    >>> def put_together(tens, ones): return 10 * tens + ones
    >>> tasks([both, put_together]).run(41)
    41
    """
    if callable(functions) or not isinstance(functions, Iterable):
        name = getattr(functions, "__name__", "function")
        raise TypeError(f"tasks() takes a list of functions, got {described(functions)}: write tasks([{name}])")
    chain = [f if isinstance(f, Task) else task(f) for f in functions]
    if not chain:
        raise CutError("a pipeline needs at least one task")
    names = [t.name for t in chain]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CutError(f"two tasks are called {', '.join(twice)}: give them names with task(function, name='...')")
    for thing in [part for t in chain if t.isolated for part in (t.function, t.resource) if part is not None]:
        from splitiot.isolation import importable

        importable(thing)
    for before, behind in pairwise(chain):
        if why := behind.signature.unfit(before.signature.returns):
            raise CutError(f"task {behind.name!r} can't take what {before.name!r} returns: {why}")
    pipeline = TaskPipeline(chain, version=version, sink=sink, check_code=check_code)
    if not pipeline.cuts and any("can't cross" in why for why in pipeline.refused.values()):
        raise CutError("nothing may be placed anywhere: " + "; ".join(dict.fromkeys(pipeline.refused.values())))
    return pipeline


class TaskPipeline(Pipeline):
    """A pipeline of functions. Made by `tasks`.

    What crosses is known only when it runs, so boundaries have no names and no bytes: profiles measure them.
    """

    def __init__(self, tasks: Sequence[Task], *, version: str, sink: Sink, check_code: bool = True) -> None:
        self.tasks = tuple(tasks)
        self.check_code = check_code
        self.version = version
        self.sink = check_sink(sink)
        self.stateful = any(t.state != "none" and t.tier is None for t in self.tasks)
        self.steps = tuple(Step(t.name, "task", t.tier) for t in self.tasks)
        entries = ["tasks", version, *map(_digest_entry, self.tasks)]
        self.digest = hashlib.sha256("\n".join(map(repr, entries)).encode()).hexdigest()
        self.exclusive_parts = {} if self.stateful else _exclusive_parts(self.tasks)
        why = self.tasks[-1].signature.obstacle_behind()
        self.unreturnable = f"task {self.tasks[-1].name!r} returns {why}, which can't cross" if why else ""
        refused = _uncrossable(self.tasks, sink)
        if self.unreturnable and sink == "device":
            refused |= dict.fromkeys(range(self.n), self.unreturnable)
        refused |= _glued(self.tasks) | pinned(self.steps)
        self.refused: Mapping[int, str] = dict(sorted(refused.items()))
        self.cuts = tuple(c for c in range(self.n + 1) if c not in self.refused)
        self._seams = tuple(map(self._seam, range(self.n + 1)))

    @cached_property
    def implementation(self) -> bytes:
        """8 bytes for each function: other ones, other code; zeros where its source is not known, or a library's."""
        every = [code_hash(t.function) for t in self.tasks] if self.check_code else []
        return b"".join(every) if any(map(any, every)) else b""

    def boundary(self, cut: int) -> Boundary:
        return NOTHING if self.check_cut(cut) == self.n and self.sink == "device" else UNTYPED

    def returned(self, cut: int) -> Boundary:
        return NOTHING if self.check_cut(cut) == self.n or self.sink == "edge" else UNTYPED

    def part(self, start: int, stop: int) -> Part:
        if self.check_cut(stop) < self.check_cut(start):
            raise CutError(f"a part's stop {stop} lies before its start {start}")
        return _TaskPart(self.tasks, self._seams, start, stop)

    def bind(self, value: Any) -> Payload:
        return value

    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        return (None, payload) if cut == self.n and self.sink == "device" else (payload, None)

    def join(self, kept: Payload, returned: Payload) -> Any:
        return returned if kept is None else kept

    def with_sink(self, sink: Sink) -> TaskPipeline:
        if sink == self.sink:
            return self
        return TaskPipeline(self.tasks, version=self.version, sink=sink, check_code=self.check_code)

    def _seam(self, place: int) -> Seam:
        returns = place == self.n and self.sink == "device"
        if any(cut < self.n for cut in self.cuts) if returns else place in self.cuts:
            return "cut"
        return "end" if place in (0, self.n) else "inner"

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        return RuntimeInfo("python", python_version(), "default", machine())

    def __repr__(self) -> str:
        return f"tasks([{', '.join(t.name for t in self.tasks)}])"


class _TaskPart(Part):
    def __init__(self, tasks: Sequence[Task], seams: Sequence[Seam], start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.inputs = self.outputs = UNTYPED
        self._tasks, self._seams = tuple(tasks[start:stop]), tuple(seams[start : stop + 1])

    def open(self, runtime: Runtime | None = None) -> Executable:
        return TaskExecutable(self._tasks, self._seams)


def _digest_entry(task: Task) -> str:
    """Return a task's entry in the digest. Entries are quoted there, so no task's name can pass for another's entry."""
    return f"{task.name}@{task.tier or ''}" + ("" if task.state == "none" else f"!{task.state}")


def _exclusive_parts(tasks: Sequence[Task]) -> dict[tuple[int, int], bool]:
    """Tasks that hold something, each run of neighbours that remember on one tier together."""
    parts: dict[tuple[int, int], bool] = {}
    for (_, keeps), run in groupby(enumerate(tasks), lambda indexed: (indexed[1].tier, indexed[1].state != "none")):
        places = list(run)
        if keeps:
            parts[places[0][0], places[-1][0] + 1] = True
        else:
            parts |= {(at, at + 1): False for at, t in places if t.resource is not None or t.isolated}
    return parts


def _glued(tasks: Sequence[Task]) -> dict[int, str]:
    """The cuts beside tasks that share what they remember."""
    return {
        cut: f"task {t.name!r} shares what it remembers with its neighbours: give it state='own' if it does not"
        for at, t in enumerate(tasks)
        if t.state == "shared"
        for cut in (at, at + 1)
        if 0 < cut < len(tasks)
    }


def _uncrossable(tasks: Sequence[Task], sink: Sink) -> dict[int, str]:
    """The cuts where something would cross that can't, as far as annotations say."""
    n, refused = len(tasks), {}
    for cut in range(n + 1 if sink == "edge" else n):
        before = tasks[cut - 1].signature.obstacle_behind() if cut else None
        why = before or (tasks[cut].signature.obstacle_before() if cut < n else None)
        if why:
            between = f"task {tasks[cut - 1].name!r} returns" if before else f"task {tasks[cut].name!r} takes"
            refused[cut] = f"{between} {why}, which can't cross"
    return refused
