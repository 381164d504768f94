"""One event loop in a thread of its own, where the coroutines of all tasks run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["wait_for"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def wait_for(awaitable: Awaitable[T]) -> T:
    """Await something on that loop, from any thread (also from one that runs a loop itself), and return its result.

    It is always the same loop: what a set-up makes there can be used there. Ctrl-C cancels what is awaited.
    """
    future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), _running())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _running() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="splitiot-coroutines", daemon=True).start()
        return _loop
