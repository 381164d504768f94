"""Tasks, opened: their set-ups done, ready to be called one after another."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from splitiot._log import logger
from splitiot.errors import StepError
from splitiot.functions._signature import several
from splitiot.pipeline import DROP, Payload

if TYPE_CHECKING:
    from splitiot.functions import Task

__all__ = ["TaskExecutable"]

Call: TypeAlias = Callable[[Payload], Payload]


class TaskExecutable:
    """Some tasks of a pipeline. What raises in them leaves them as good as they were."""

    survives = True

    def __init__(self, made: Sequence[Task]) -> None:
        self._made = tuple(made)
        self.nbytes = 0  # nobody knows; a runner that lacks memory closes others
        self._open = contextlib.ExitStack()
        if any(task.isolated or task.resource is not None for task in made):
            # nobody may close what holds this: a mounted service, a device that was dropped
            weakref.finalize(self, _leave, self._open, os.getpid())
        self._start()

    def _start(self) -> None:
        calls: list[tuple[Call, Task, tuple[type, ...] | None]] = []
        try:
            for task in self._made:
                calls.append((self._opened(task), task, task.signature.classes()))
        except BaseException:
            self.close()
            raise
        self._calls = calls

    def __call__(self, payload: Payload, /) -> Payload:
        return self.stepwise(payload, _nothing)

    def stepwise(self, payload: Payload, lap: Callable[[], object]) -> Payload:
        """Run once, and call `lap` behind each step; behind one that drops the frame nothing runs."""
        for call, task, classes in self._calls:
            try:
                payload = call(payload)
                if hasattr(payload, "__await__"):
                    payload = _wait_for(payload)
            except Exception as error:
                error.add_note(f"in task {task.name!r}")
                raise
            lap()
            if classes is not None and not isinstance(payload, classes):
                raise StepError(
                    f"task {task.name!r} returned a {type(payload).__name__}; its annotation says {_name(task)}"
                )
            if payload is DROP:
                break
        return payload

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


def _leave(held: contextlib.ExitStack, owner: int) -> None:
    if os.getpid() != owner:  # a copy in a child of this process: the parent's camera stays open
        return
    try:
        held.close()
    except Exception:
        logger.warning("a task's tear-down raised", exc_info=True)


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


def _nothing() -> None:
    pass


def _name(task: Task) -> str:
    hint = task.signature.returns
    return hint.__name__ if isinstance(hint, type) else str(hint)
