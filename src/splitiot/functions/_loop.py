"""One event loop in a thread of its own, where the coroutines of all tasks run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from splitiot import _fork
from splitiot.errors import LocalProtocolError

__all__ = ["wait_for"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def wait_for(awaitable: Awaitable[T]) -> T:
    """Await something on that loop, from any thread (also from one that runs a loop itself), and return its result.

    It is always the same loop: what a set-up makes there can be used there. Ctrl-C cancels what is awaited.

    Raises
    ------
    LocalProtocolError
        The caller is a coroutine on that loop: it would wait for itself.
    """
    loop = _running()
    if threading.current_thread() is _thread:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # it will never be awaited: spare the caller Python's warning
        raise LocalProtocolError("a coroutine of a task runs tasks that are coroutines: await them there instead")
    future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), loop)
    try:
        value, error = future.result()
    except BaseException:
        future.cancel()
        raise
    if error is not None:
        raise error
    return value


async def _awaited(awaitable: Awaitable[T]) -> tuple[T, None] | tuple[Any, BaseException]:
    try:
        return await awaitable, None
    except (SystemExit, KeyboardInterrupt) as error:  # these would end the loop, and all that others await on it
        return None, error


def _running() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="splitiot-coroutines", daemon=True)
            _thread.start()
        return _loop


def _forked() -> None:
    """Begin anew: closing the parent's loop here would take its wake-up out of a selector that both share."""
    global _lock, _loop, _thread
    if _loop is not None:
        _fork.leave(_loop)
    _lock, _loop, _thread = threading.Lock(), None, None


_fork.in_child(_forked)
