"""Running a model's part: a dict of arrays in, a dict of arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from splitiot.errors import LocalProtocolError, MalformedModel, ModelError
from splitiot.models.interpreters import Array, Interpreter, open_interpreter
from splitiot.pipeline import Boundary, Executable, Payload, Runtime

__all__ = ["PartFile", "open_part"]


class PartFile(Protocol):
    """What `open_part` needs to know of a model's part."""

    start: int
    stop: int
    inputs: Boundary
    outputs: Boundary
    stateful: bool

    @property
    def passthrough(self) -> tuple[str, ...]:
        """Names that are inputs and, untouched, outputs as well."""

    def to_bytes(self) -> bytes:
        """The part as a .tflite file; its inputs and outputs in the boundaries' order."""


def open_part(part: PartFile, runtime: Runtime | None = None) -> Executable:
    """Make a part of a model ready to run.

    What passes through is copied: the caller may use its own arrays again.

    Raises
    ------
    MissingDependencyError
        No interpreter, or not the one that was asked for.
    UnsupportedModel
        The interpreter does not take this part.
    MalformedModel
        The file and the part's boundaries disagree.
    """
    if part.start == part.stop:
        return _Identity(part)
    return _InInterpreter(part, runtime or Runtime())


class _Identity:
    """No steps: what goes in comes out."""

    nbytes = 0

    def __init__(self, part: PartFile) -> None:
        self._part = part
        self._names = part.outputs.names
        self._takes = {t.name: (_dtype(t.dtype), t.shape) for t in part.inputs.tensors or ()}

    def __call__(self, payload: Payload, /) -> Payload:
        if not self._fits(payload):  # strings, for example, take a closer look
            wrong = _mismatch(self._part.inputs, payload)
            if wrong is not None:
                raise LocalProtocolError(f"{_where(self._part)} {wrong}")
        return {name: np.array(payload[name], order="C") for name in self._names}

    def _fits(self, payload: Payload) -> bool:
        takes = self._takes
        if type(payload) is not dict or len(payload) != len(takes):
            return False
        for name, array in payload.items():
            if type(array) is not np.ndarray or takes.get(name) != (array.dtype, array.shape):
                return False
        return True

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


class _InInterpreter:
    """A part in an interpreter. The call is a hot path: everything that can be looked up is, at opening."""

    __slots__ = ("_gets", "_interpreter", "_invoke", "_model", "_part", "_passed", "_runtime", "_sets", "_width")

    def __init__(self, part: PartFile, runtime: Runtime) -> None:
        self._part, self._runtime = part, runtime
        self._model = part.to_bytes()
        self._bind()

    def _bind(self) -> None:
        self._interpreter = interpreter = open_interpreter(self._model, self._runtime)
        inputs, outputs = _check(self._part, interpreter)
        passed = set(self._part.passthrough)
        self._width = len(inputs)
        self._sets: tuple[tuple[str, np.dtype[Any] | None, Callable[[Array], None]], ...] = tuple(
            # strings are arrays of several types
            (t.name, _dtype(t.dtype), set_)
            for t, set_ in zip(inputs, interpreter.setters, strict=True)
        )
        self._gets: tuple[tuple[str, Callable[[], Array]], ...] = tuple(
            (t.name, get) for t, get in zip(outputs, interpreter.getters, strict=True) if t.name not in passed
        )
        self._passed = tuple(t.name for t in outputs if t.name in passed)
        self._invoke = interpreter.invoke

    @property
    def nbytes(self) -> int:
        return self._interpreter.nbytes

    def __call__(self, payload: Payload, /) -> Payload:
        try:
            if len(payload) != self._width:
                raise ValueError("number of arrays")
            for name, dtype, set_ in self._sets:
                array = payload[name]
                # the interpreter takes an array of the other byte order for one of its own
                if array.dtype is not dtype and dtype is not None and array.dtype != dtype:
                    raise ValueError("dtype")
                set_(array)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._refusal(payload, error) from error
        try:
            self._invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{_where(self._part)} failed in {self._name()}: {error}") from error
        result: dict[str, Array] = {}
        for name, get in self._gets:  # no comprehension: on Python 3.11 it is one more call
            result[name] = get()
        for name in self._passed:
            result[name] = np.array(payload[name], order="C")
        return result

    def reset(self) -> None:
        # resource variables and the generators of random operators survive the packages' own reset
        if self._part.stateful:
            self._interpreter.close()
            self._bind()

    def close(self) -> None:
        self._interpreter.close()
        self._sets, self._gets, self._width = (), (), -1
        self._invoke = self._interpreter.invoke

    def _name(self) -> str:
        info = self._interpreter.info
        return f"{info.name} {info.version} with {info.kernels} kernels"

    def _refusal(self, payload: Payload, error: Exception) -> LocalProtocolError:
        if self._width < 0:
            return LocalProtocolError(f"{_where(self._part)} was closed: open it again")
        wrong = _mismatch(self._part.inputs, payload) or f"does not take this payload: {error}"
        return LocalProtocolError(f"{_where(self._part)} {wrong}")


def _dtype(name: str) -> np.dtype[Any] | None:
    return None if name == "bytes" else np.dtype(name)


def _where(part: PartFile) -> str:
    return f"part [{part.start}, {part.stop}):"


def _mismatch(boundary: Boundary, payload: Payload) -> str | None:
    """Like `Boundary.mismatch`, and sees the byte order, too."""
    wrong = boundary.mismatch(payload)
    if wrong is None and isinstance(payload, Mapping):
        for name, array in payload.items():
            if not array.dtype.isnative:
                return f"{name!r} is not in this machine's byte order: use .astype({array.dtype.name!r})"
    return wrong


def _check(part: PartFile, interpreter: Interpreter) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The part's input and output tensors, once they are seen to be what the file has."""
    inputs, outputs = part.inputs.tensors or (), part.outputs.tensors or ()
    # an output's shape may be known only after a run
    if [(t.dtype, t.shape) for t in inputs] != [(t.dtype, t.shape) for t in interpreter.inputs] or [
        t.dtype for t in outputs
    ] != [t.dtype for t in interpreter.outputs]:
        interpreter.close()
        raise MalformedModel(
            f"{_where(part)} the file takes {interpreter.inputs} and gives {interpreter.outputs}, but the part "
            f"says {inputs} and {outputs}. Was it changed after it was cut? Cut it again from the whole model"
        )
    return inputs, outputs
