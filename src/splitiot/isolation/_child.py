"""What runs in the child process."""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import io
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from splitiot.errors import LocalProtocolError
from splitiot.isolation._messages import Kind, Received, frame, receive, send, unpacked
from splitiot.isolation._names import LOADING, load
from splitiot.pipeline import DROP
from splitiot.wire import pack

__all__ = ["main"]

_TEXT_CHARS: Final = 2_000
_TRACE_CHARS: Final = 50_000
_LATE_S: Final = 10.0
_RESERVE_BYTES: Final = 2**20


def main() -> None:
    """Serve calls: what a child process runs. Its second argument says which function's."""
    order = json.loads(sys.argv[2])
    with open(os.devnull, "r+b", buffering=0) as null:
        try:
            os.fstat(2)
        except OSError:  # there is no standard error
            os.dup2(null.fileno(), 2)
        incoming, outgoing = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(null.fileno(), 0)
        os.dup2(2, 1)  # what the function prints is no message
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if hasattr(os, "register_at_fork"):  # forks of this process do not keep the pipes open
        os.register_at_fork(after_in_child=incoming.close)
        os.register_at_fork(after_in_child=outgoing.close)
    requests: queue.SimpleQueue[Received | BaseException] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(incoming, requests), daemon=True).start()
    server = _Server(outgoing, requests)
    try:
        try:
            server.start(**order)
        except BaseException as error:
            server.answer("raised", text=_words(error), trace=_trace(error))
        else:
            server.serve()
    except BrokenPipeError:  # the parent is gone: _listen ends this process
        pass


def _listen(incoming: io.FileIO, requests: queue.SimpleQueue[Received | BaseException]) -> None:
    try:
        while True:
            requests.put(receive(incoming))
    except (EOFError, OSError):  # the parent is gone: end, whatever the function is doing
        if sys.platform != "win32" and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
    except BaseException as error:
        requests.put(error)


class _Server:
    """Holds the function and what it needs in the child, and answers one request after another."""

    def __init__(self, outgoing: io.FileIO, requests: queue.SimpleQueue[Received | BaseException]) -> None:
        self._outgoing, self._requests = outgoing, requests
        self._opened = contextlib.ExitStack()
        self._held: tuple[Any, ...] = ()
        self._loop: Any = None
        self._reserve = bytearray(_RESERVE_BYTES)
        self._unlimit: Callable[[], object] = _nothing
        self._null = os.open(os.devnull, os.O_WRONLY)

    def start(
        self, function: tuple[str, str], resource: tuple[str, str] | None, timeout_s: float, max_bytes: int | None
    ) -> None:
        """Import everything and do the set-up, then limit the memory."""
        self._timeout_s = timeout_s
        LOADING.append(function[1])
        self._function = load(*function)
        context = None if resource is None else load(*resource)
        LOADING.clear()
        if inspect.iscoroutinefunction(self._function):
            self._awaiting()
        if context is not None:
            self._held = (self._entered(context()),)
        self._watch()
        faulthandler.cancel_dump_traceback_later()  # its thread's stack stays, for the next one
        if max_bytes is not None:
            self._unlimit = _limit(max_bytes)
        self.answer("ready")

    def serve(self) -> None:
        """Answer until asked to end, or until there is no memory."""
        try:
            while self._served():
                faulthandler.cancel_dump_traceback_later()
        except MemoryError:
            del self._reserve  # so that there is memory for saying so
            self._unlimit()
            self.answer("memory")

    def _served(self) -> bool:
        received = self._requests.get()
        if isinstance(received, MemoryError):
            raise received
        if isinstance(received, BaseException):
            raise SystemExit(1)
        if received[0].kind == "end":
            self._end()
            return False
        self._watch()
        try:
            arguments = unpacked(received)
            del received  # what it brought is the function's now
            pieces = self._called(arguments)
        except MemoryError:
            raise
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are the function's
            pieces = frame("raised", text=_words(error), trace=_trace(error))
        send(self._outgoing, pieces)
        return True

    def _called(self, arguments: list[Any]) -> list[Any]:
        result = self._function(*self._held, *arguments)
        if hasattr(result, "__await__"):
            result = self._awaiting().run(_awaited(result))
        if result is DROP:
            return frame("drop")
        try:
            return frame("result", (pack(result),))
        except LocalProtocolError as error:
            return frame("uncrossable", text=_clean(str(error)))

    def answer(self, kind: Kind, *, text: str = "", trace: str = "") -> None:
        """Send a message that carries no payload."""
        send(self._outgoing, frame(kind, text=text, trace=trace))

    def _end(self) -> None:
        text = ""
        try:
            self._opened.close()
        except BaseException as error:
            text = _words(error)
        self.answer("ended", text=text)

    def _watch(self) -> None:
        """End this process a while after the parent should have done it.

        The listening thread does that at once, unless native code never gives it its turn.
        """
        with contextlib.suppress(RuntimeError):  # no memory for its thread
            faulthandler.dump_traceback_later(self._timeout_s + _LATE_S, exit=True, file=self._null)

    def _awaiting(self) -> Any:
        if self._loop is None:
            import asyncio

            self._loop = self._opened.enter_context(asyncio.Runner())
        return self._loop

    def _entered(self, context: Any) -> Any:
        if not hasattr(context, "__aenter__"):
            return self._opened.enter_context(context)
        loop = self._awaiting()
        held = loop.run(_awaited(context.__aenter__()))
        self._opened.push(lambda *error: loop.run(_awaited(context.__aexit__(*error))))
        return held


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _nothing() -> None:
    pass


def _limit(max_bytes: int) -> Callable[[], object]:
    """Limit what can be written and is nobody else's: not address space, of which allocators hold some in reserve.

    Returns what takes the limit away.
    """
    if sys.platform == "linux":
        import resource

        with open("/proc/self/status", "rb") as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith(b"VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = 1024 * kib + max_bytes
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
        return partial(resource.setrlimit, resource.RLIMIT_DATA, (hard, hard))
    return _nothing


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # its own __str__ raised
        text = "(no message)"
    kind = type(error).__qualname__
    return _clean(f"{kind}: {text}" if text else kind)[:_TEXT_CHARS]


def _trace(error: BaseException) -> str:
    return _clean("".join(traceback.format_exception(error)))[-_TRACE_CHARS:]


def _clean(text: str) -> str:
    """Without what is no Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()
