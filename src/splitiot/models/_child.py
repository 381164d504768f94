"""A child process that tries models: native code that crashes or never ends takes only the child with it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

import msgspec

from splitiot._child import ChildDied, ChildHung, ChildProcess, Garbled
from splitiot.errors import MissingDependencyError, ModelError
from splitiot.models._request import Answer, Arrays, Missing, Request, request_pieces

__all__ = ["CODE", "MAX_BYTES", "ChildLost", "answers"]

CODE: Final = "from splitiot.models._child_main import main; main()"

MAX_BYTES: Final = 2**32
"""Of a request: a model file may have 2 GiB."""

_DECODER: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


class ChildLost(Exception):
    """The child gives no further answer; the message says why."""


def answers(
    request: Request, model: bytes, payloads: Sequence[Arrays], timeout_s: float
) -> Generator[Answer, None, None]:
    """Ask a child process, and give its answers one by one; close it to end the child.

    Raises
    ------
    ChildLost
        No next answer came within `timeout_s`, or the child has died.
    MissingDependencyError
        It has no such interpreter.
    ModelError
        It could not be started.
    """
    try:
        child = ChildProcess("models", CODE, max_bytes=MAX_BYTES, on_stderr=_keep_nothing)
    except OSError as error:
        raise ModelError(str(error)) from error
    try:
        child.send(*request_pieces(request, model, payloads))
        while True:
            answer = _DECODER.decode(child.receive(timeout_s)[0])
            if isinstance(answer, Missing):
                raise MissingDependencyError(answer.package, answer.extra)
            yield answer
    except ChildHung:
        raise ChildLost(f"no answer within {timeout_s:g} s") from None
    except ChildDied as death:
        raise ChildLost(_death(child, death)) from None
    except (Garbled, IndexError, msgspec.DecodeError) as error:
        raise ChildLost(f"garbled answer: {error}") from error
    finally:
        child.kill()


def _death(child: ChildProcess, death: ChildDied) -> str:
    if death.exit_code is None:
        return str(death)
    last = child.last_line()
    return f"ended with {death}" + (f": {last}" if last else "")


def _keep_nothing(line: str) -> None:
    """Interpreters say much; only the last line is of use, and the child process keeps that."""
