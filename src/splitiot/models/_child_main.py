"""What is done in the child process: every cut against the whole model, bit for bit; or one try; or shapes.

It reads one request from standard input and writes one line of JSON for each thing that it begins or has
found to standard output, so that the parent knows what was being run when native code kills the process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence

from splitiot.errors import MissingDependencyError, ModelError, UnsupportedModel
from splitiot.models._check import CutChecker
from splitiot.models._request import WHOLE, Arrays, read_request
from splitiot.models._whole import open_whole
from splitiot.models.interpreters import known_shapes, open_interpreter, pick, runtime_info
from splitiot.models.model import Model, load_model
from splitiot.pipeline import Runtime

__all__ = ["main"]


def main() -> None:
    """Answer one request. Ends the process without clean-up: native clean-up may crash, too."""
    # native code may print: keep the answers' descriptor for the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _no_core_dump()

    def say(**message: object) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        _answer(say)
    except MissingDependencyError as error:
        say(missing=[error.package, error.extra])
    except Exception as error:
        say(failed=f"{type(error).__name__}: {error}")
    sys.stderr.flush()
    os._exit(0)


def _answer(say: Callable[..., None]) -> None:
    header, file, payloads = read_request(sys.stdin.buffer)
    runtime = Runtime(*header["runtime"])
    say(at=WHOLE)
    pick(runtime.name)
    if header.get("task") == "shapes":
        inputs = {index: tuple(shape) for index, shape in header["inputs"]}
        try:
            shapes = known_shapes(file, runtime, invoke=True, inputs=inputs)
        except UnsupportedModel as error:
            say(refused=str(error))
            return
        say(shapes=[[index, list(shape)] for index, shape in shapes.items()])
        return
    info = runtime_info(runtime)
    say(info=[info.name, info.version, info.kernels, info.machine])
    model = load_model(file, signature=header["signature"], sink=header["sink"], runtime=runtime)
    if model.digest != header["digest"]:
        raise ModelError(f"the child made digest {model.digest} of this file, the parent {header['digest']}")
    if header.get("task") == "probe":
        _probe(say, model, runtime, payloads)
    else:
        _check(say, model, runtime, payloads, header["cuts"])


def _checker(model: Model, runtime: Runtime, payloads: Sequence[Arrays]) -> CutChecker:
    return CutChecker(model, runtime, payloads, lambda: open_whole(model, runtime), fresh=model.random)


def _probe(say: Callable[..., None], model: Model, runtime: Runtime, payloads: Sequence[Arrays]) -> None:
    """Run the uncut model; that it draws random numbers is no matter here."""
    try:
        if payloads:
            _checker(model, runtime, payloads).whole()
        else:
            open_interpreter(model.to_bytes(), runtime)
    except MissingDependencyError:
        raise
    except Exception as error:
        say(probed=str(error), ran=False)
        return
    say(probed="", ran=True)


def _check(
    say: Callable[..., None], model: Model, runtime: Runtime, payloads: Sequence[Arrays], cuts: Sequence[int]
) -> None:
    """Run the uncut model, and every cut against it."""
    checker = _checker(model, runtime, payloads)
    try:
        why = checker.whole()
    except MissingDependencyError:
        raise
    except Exception as error:
        say(whole=str(error), ran=False)
        return
    say(whole=why, ran=True)
    if why:
        return
    for cut in cuts:
        say(at=cut)
        try:
            why, largest = checker.cut(cut)
        except Exception as error:
            why, largest = f"{type(error).__name__}: {error}", None
        say(cut=cut, why=why, largest=largest)
    say(done=True)


def _no_core_dump() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
