"""Tasks, opened: their set-ups done, ready to be called one after another."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from splitiot._log import logger
from splitiot.errors import LocalProtocolError, StepError
from splitiot.functions._signature import several
from splitiot.functions._turns import Turn, turns_of
from splitiot.pipeline import DROP, Payload, copied, own, shown

if TYPE_CHECKING:
    from splitiot.functions import Task

__all__ = ["Seam", "TaskExecutable"]

Call: TypeAlias = Callable[[Payload], Payload]

Seam: TypeAlias = Literal["cut", "end", "inner"]
"""What a place between tasks is: one where a cut may lie, an end of the pipeline that nothing crosses, or neither."""

Settle: TypeAlias = Callable[[list[Any]], None]
"""Takes a box with a value, and makes it the one that the next task gets."""

_Called: TypeAlias = "tuple[Call, Task, tuple[type, ...] | None, Settle | None]"


class TaskExecutable:
    """Some tasks of a pipeline. What raises in them leaves them as good as they were.

    Where a cut may lie, the value becomes what crossing would make of it, plain and nobody else's. So no task writes
    into what its caller or another task holds, and where the cut is makes no difference.

    Parameters
    ----------
    tasks : sequence of Task
    seams : sequence of {"cut", "end", "inner"}
        The places before the first task, between them, and behind the last one.
    """

    survives = True

    def __init__(self, tasks: Sequence[Task], seams: Sequence[Seam]) -> None:
        self._tasks, self._seams = tuple(tasks), tuple(seams)
        self.nbytes = 0  # unknown: a runner that lacks memory closes other executables
        self._open = contextlib.ExitStack()
        if any(task.isolated or task.resource is not None for task in tasks):
            # the owner (a mounted service, a dropped device) may never be closed
            weakref.finalize(self, _leave, self._open, os.getpid())
        self._start()

    def _start(self) -> None:
        ends = (None, *self._tasks, None)
        self._settle, *settles = map(_settling, self._seams, ends, ends[1:])
        groups: list[tuple[Sequence[Turn], list[_Called]]] = []
        try:
            for tasks in self._groups():
                turns = turns_of(task.function for task in tasks if task.serialized)
                groups.append((turns, []))
                for task in tasks:
                    groups[-1][1].append((self._opened(task), task, task.signature.classes(), settles.pop(0)))
        except BaseException:
            self.close()
            raise
        self._calls = groups

    def _groups(self) -> list[list[Task]]:
        """Tasks between which no cut may lie: what one of them returned is read by the next as it is."""
        groups: list[list[Task]] = []
        for task, seam in zip(self._tasks, self._seams, strict=False):
            if not groups or seam != "inner":
                groups.append([])
            groups[-1].append(task)
        return groups

    def __call__(self, payload: Payload, /) -> Payload:
        return self.stepwise(payload, _nothing)

    def stepwise(self, payload: Payload, lap: Callable[[float], object]) -> Payload:
        """Run once, and call `lap` behind each step, with the seconds for which it waited for other threads.

        Behind a step that drops the frame nothing runs.
        """
        box = [payload]
        if self._settle is not None:
            self._settle(box)
        del payload  # from here on only the box, or a task, holds the value
        for turns, calls in self._calls:
            taken: list[Callable[[], None]] = []
            try:
                waited_s = 0.0
                for turn in turns:
                    give, seconds = turn.take()
                    taken.append(give)
                    waited_s += seconds
                if not _run(box, calls, lap, waited_s):
                    break
            finally:
                for give in taken:
                    give()
        return box[0]

    def reset(self) -> None:
        """Do the set-ups anew: what was remembered is gone."""
        self.close()
        self._start()

    def close(self) -> None:
        """Do the tear-downs, the last set-up's first. At the latest they are done when the process ends."""
        _leave(self._open, os.getpid())

    def _opened(self, task: Task) -> Call:
        function = task.function
        if task.isolated:
            from splitiot.isolation import IsolatedFunction

            isolated = IsolatedFunction(
                function, name=task.name, timeout_s=task.timeout_s, max_bytes=task.max_bytes, resource=task.resource
            )
            function = self._open.enter_context(contextlib.closing(isolated))
            return _call(function, task, ())
        if task.resource is None:
            return _call(function, task, ())
        try:
            context: Any = task.resource()
            if hasattr(context, "__aenter__"):
                held = _wait_for(context.__aenter__())
                self._open.push(lambda *error: _wait_for(context.__aexit__(*error)))
            else:
                held = self._open.enter_context(context)
        except Exception as error:
            error.add_note(f"in the set-up of task {task.name!r}")
            raise
        return _call(function, task, (held,))


def _run(box: list[Any], calls: Sequence[_Called], lap: Callable[[float], object], waited_s: float) -> bool:
    """Run tasks on the value in a box; False where one of them drops it."""
    for call, task, classes, settle in calls:
        try:
            box[0] = call(box[0])
            if hasattr(box[0], "__await__"):
                box[0] = _wait_for(box[0])
        except Exception as error:
            error.add_note(f"in task {task.name!r}")
            raise
        if classes is not None and not isinstance(box[0], classes):
            raise StepError(f"task {task.name!r} returned a {type(box[0]).__name__}; its annotation says {_name(task)}")
        if box[0] is DROP:
            lap(waited_s)
            return False
        if settle is not None:
            settle(box)
        lap(waited_s)
        waited_s = 0.0
    return True


def _leave(held: contextlib.ExitStack, owner: int) -> None:
    if os.getpid() != owner:  # this is a fork's copy: the parent's resources, a camera say, stay open
        return
    try:
        held.close()
    except Exception:
        logger.warning("a task's tear-down raised", exc_info=True)


def _settling(seam: Seam, before: Task | None, behind: Task | None) -> Settle | None:
    """What is done at a place between two tasks; None where it is a part's first or last."""
    where = "the pipeline's value" if before is None else f"the result of task {before.name!r}"
    if before is None and behind is not None:
        where = f"the value for task {behind.name!r}"
    trusted = before is not None and not before.copy
    reads = behind is not None and not behind.copy
    if seam == "inner":
        return None
    if seam == "end":
        return None if trusted or reads else _own_or_copy
    if (trusted and (reads or behind is None)) or (reads and before is None):
        return partial(shown, where=where)
    return partial(_own_and_show if reads else own, where=where)


def _own_and_show(box: list[Any], where: str) -> None:
    own(box, where)
    shown(box, where)


def _own_or_copy(box: list[Any]) -> None:
    """Nothing crosses here, so it may be anything."""
    try:
        own(box, "")
    except LocalProtocolError:
        box[0] = copied(box[0])


def _call(function: Callable[..., Any], task: Task, held: tuple[Any, ...]) -> Call:
    """Make a function of one value of one that takes none, one or several, and what its set-up gave."""
    name, least, most = task.name, task.signature.least, task.signature.most
    if least == 0:

        def without(payload: Payload) -> Payload:
            if payload is not None:
                raise TypeError(f"task {name!r} takes nothing, and was given a {type(payload).__name__}")
            return function(*held)

        return without
    if least > 1:
        return lambda payload: function(*held, *several(payload, least, most, name))
    if held:
        (resource,) = held
        return lambda payload: function(resource, payload)
    return function


def _wait_for(awaitable: Any) -> Any:
    from splitiot.functions._loop import wait_for

    return wait_for(awaitable)


def _nothing(waited_s: float) -> None:
    pass


def _name(task: Task) -> str:
    hint = task.signature.returns
    return hint.__name__ if isinstance(hint, type) else str(hint)
