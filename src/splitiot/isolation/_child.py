"""What runs in the child process."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final

from splitiot._child import Garbled, Parent, limit_memory
from splitiot.errors import LocalProtocolError
from splitiot.isolation._messages import Kind, decode, encode
from splitiot.isolation._names import LOADING, load
from splitiot.pipeline import DROP
from splitiot.wire import pack

__all__ = ["main"]

_TEXT_CHARS: Final = 2_000
_TRACE_CHARS: Final = 50_000
_RESERVE_BYTES: Final = 2**20


def main() -> None:
    """Serve calls: what a child process runs. Its second argument says which function's."""
    server = _Server(Parent())
    try:
        server.start(**json.loads(sys.argv[2]))
    except BaseException as error:
        server.answer("raised", text=_described(error), trace=_trace(error))
    else:
        server.serve()


class _Server:
    """Holds the function and what it needs in the child, and answers one request after another."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._opened = contextlib.ExitStack()
        self._held: tuple[Any, ...] = ()
        self._loop: Any = None
        self._reserve = bytearray(_RESERVE_BYTES)
        self._unlimit: Callable[[], object] | None = None

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
        self._parent.watch(timeout_s)
        self._parent.unwatch()  # its thread's stack stays, for the next one
        if max_bytes is not None:
            self._unlimit = limit_memory(max_bytes)
        self.answer("ready")

    def serve(self) -> None:
        """Answer until asked to end, or until there is no memory."""
        try:
            while self._served():
                self._parent.unwatch()
        except MemoryError:
            del self._reserve  # so that there is memory for saying so
            if self._unlimit is not None:
                self._unlimit()
            self.answer("memory")

    def _served(self) -> bool:
        try:
            header, arguments = decode(self._parent.receive())
        except Garbled:
            raise SystemExit(1) from None
        if header.kind == "end":
            self._end()
            return False
        self._parent.watch(self._timeout_s)
        try:
            answer = self._called(arguments)
        except MemoryError:
            raise
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are the function's
            answer = encode("raised", text=_described(error), trace=_trace(error))
        try:
            self._parent.send(*answer)
        except LocalProtocolError as error:  # too large
            self.answer("uncrossable", text=str(error))
        return True

    def _called(self, arguments: list[Any]) -> list[Any]:
        result = self._function(*self._held, *arguments)
        if hasattr(result, "__await__"):
            result = self._awaiting().run(_awaited(result))
        if result is DROP:
            return encode("drop")
        try:
            return encode("result", (pack(result),))
        except LocalProtocolError as error:
            return encode("uncrossable", text=_clean(str(error)))

    def answer(self, kind: Kind, *, text: str = "", trace: str = "") -> None:
        """Send a message that carries no payload."""
        self._parent.send(*encode(kind, text=text, trace=trace))

    def _end(self) -> None:
        text = ""
        try:
            self._opened.close()
        except BaseException as error:
            text = _described(error)
        self.answer("ended", text=text)

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


def _described(error: BaseException) -> str:
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
