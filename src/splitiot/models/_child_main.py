"""What is done in the child process: every cut against the whole model, bit for bit; or one try; or shapes.

It answers one request, and says what it begins too, so that the parent knows what was being run when native code kills
the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from splitiot._child import Parent
from splitiot.errors import MissingDependencyError, ModelError, UnsupportedModel
from splitiot.models._check import CutChecker
from splitiot.models._child import MAX_BYTES
from splitiot.models._request import (
    Answer,
    Arrays,
    Check,
    Cut,
    Failed,
    GetShapes,
    Info,
    Missing,
    Refused,
    Running,
    Shapes,
    Whole,
    read_request,
)
from splitiot.models._whole import open_whole
from splitiot.models.interpreters import known_shapes, open_interpreter, pick, runtime_info
from splitiot.models.model import Model, load_model
from splitiot.pipeline import Runtime

__all__ = ["main"]

_Say: TypeAlias = Callable[[Answer], None]


def main() -> None:
    """Answer one request. Ends the process without clean-up: native clean-up may crash, too."""
    parent = Parent(max_bytes=MAX_BYTES)
    _no_core_dump()

    def say(answer: Answer) -> None:
        parent.send(msgspec.msgpack.encode(answer))

    try:
        _answer(parent, say)
    except MissingDependencyError as error:
        say(Missing(error.package, error.extra))
    except Exception as error:
        say(Failed(f"{type(error).__name__}: {error}"))
    sys.stderr.flush()
    os._exit(0)


def _answer(parent: Parent, say: _Say) -> None:
    request, file, payloads = read_request(parent.receive())
    runtime = Runtime(*request.runtime)
    say(Running())
    pick(runtime.name)
    if isinstance(request, GetShapes):
        inputs = {index: tuple(shape) for index, shape in request.inputs.items()}
        try:
            say(Shapes(known_shapes(file, runtime, invoke=True, inputs=inputs)))
        except UnsupportedModel as error:
            say(Refused(str(error)))
        return
    info = runtime_info(runtime)
    say(Info((info.name, info.version, info.kernels, info.machine)))
    model = load_model(file, signature=request.signature, sink=request.sink, runtime=runtime)
    if model.digest != request.digest:
        raise ModelError(f"the child made digest {model.digest} of this file, the parent {request.digest}")
    if isinstance(request, Check):
        _check(say, model, runtime, payloads, request.cuts)
    else:
        _probe(say, model, runtime, payloads)


def _checker(model: Model, runtime: Runtime, payloads: Sequence[Arrays]) -> CutChecker:
    return CutChecker(model, runtime, payloads, lambda: open_whole(model, runtime), fresh=model.random)


def _probe(say: _Say, model: Model, runtime: Runtime, payloads: Sequence[Arrays]) -> None:
    """Run the uncut model; that it draws random numbers is no matter here."""
    try:
        if payloads:
            _checker(model, runtime, payloads).whole()
        else:
            open_interpreter(model.to_bytes(), runtime)
    except MissingDependencyError:
        raise
    except Exception as error:
        say(Whole(ran=False, reason=str(error)))
        return
    say(Whole(ran=True))


def _check(
    say: _Say, model: Model, runtime: Runtime, payloads: Sequence[Arrays], cuts: Sequence[int]
) -> None:
    """Run the uncut model, and every cut against it."""
    checker = _checker(model, runtime, payloads)
    try:
        reason = checker.whole()
    except MissingDependencyError:
        raise
    except Exception as error:
        say(Whole(ran=False, reason=str(error)))
        return
    say(Whole(ran=True, reason=reason))
    if reason:
        return
    for cut in cuts:
        say(Running(cut))
        try:
            reason, largest = checker.cut(cut)
        except Exception as error:
            reason, largest = f"{type(error).__name__}: {error}", None
        say(Cut(cut, reason, largest))


def _no_core_dump() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
