"""What is done in the child process: every cut against the whole model, bit for bit; or one try; or shapes.

It reads one request from standard input and writes one line of JSON for each thing that it begins or has
found to standard output, so that the parent knows what was being run when native code kills the process.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from splitiot.errors import MissingDependencyError, ModelError, UnsupportedModel
from splitiot.models.interpreters import Array, known_shapes, open_interpreter, pick, runtime_info
from splitiot.pipeline import Boundary, Executable, Payload, Runtime, TensorSpec

if TYPE_CHECKING:
    from splitiot.models.layers import LayerPipeline
    from splitiot.models.model import Model

__all__ = ["Checker", "difference", "main", "pack_request"]

WHOLE = -1  # stands for a cut in the messages: the uncut model
_HEAD = struct.Struct("<Q")

Arrays = dict[str, Array]


def difference(got: Arrays, wanted: Arrays) -> tuple[str, float | None]:
    """Say how arrays differ from those wanted, bit for bit.

    Returns
    -------
    why : str
        Empty when they are the same: names, types, shapes and bytes (so NaN equals NaN, and 0.0 is not -0.0).
    largest : float or None
        The largest absolute difference; None where there is no such number.

    Examples
    --------
    >>> difference({"y": np.float32([1, 2])}, {"y": np.float32([1, 4])})
    ("'y' differs in 1 of 2 values", 2.0)
    """
    if got.keys() != wanted.keys():
        return f"the results are {sorted(got)}, wanted {sorted(wanted)}", None
    whys, largest = [], 0.0
    for name, right in wanted.items():
        left = got[name]
        if left.dtype != right.dtype or left.shape != right.shape:
            return f"{name!r} is {left.dtype}{left.shape}, wanted {right.dtype}{right.shape}", None
        if left.tobytes() == right.tobytes():
            continue
        changed = _bits(left) != _bits(right)
        wide = np.complex128 if left.dtype.kind == "c" else np.float64
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = (array.reshape(-1)[changed].astype(wide) for array in (left, right))
            gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        largest = max(largest, float(np.nan_to_num(gap, nan=np.inf).max()))
        count = int(np.count_nonzero(changed))
        whys.append(f"{name!r} differs in {count} of {left.size} values")
    return "; ".join(whys), largest if np.isfinite(largest) else None


def _bits(array: Array) -> Array:
    """The array's elements as rawly compared items."""
    return np.ascontiguousarray(array).reshape(-1).view(f"V{array.dtype.itemsize}")


def _through_bytes(payload: Mapping[str, Array]) -> Arrays:
    """What a wire makes of a payload: other memory, the same bytes."""
    return {name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for name, array in payload.items()}


class Checker:
    """Runs one model whole and cut.

    Parameters
    ----------
    model : Model or LayerPipeline
        Of layers the whole is all steps together, of a file it is the file.
    runtime : Runtime
    payloads : sequence of payloads
        Each is run once at every cut; a stateful model takes them as one sequence.
    """

    def __init__(self, model: Model | LayerPipeline, runtime: Runtime, payloads: Sequence[Arrays]) -> None:
        self.model, self.runtime, self.payloads = model, runtime, payloads
        # an operator that draws numbers goes on where the run before ended: only first runs can be compared
        self.fresh = not model.stateful and any(kind in text for text in model.warnings for kind in _RANDOM)
        self.wanted: list[Arrays] = []

    def whole(self) -> str:
        """Run the uncut model, twice; say why nothing can be compared, if so."""
        self.wanted = self._sequence(self._whole)
        again = self._sequence(self._whole)
        for first, second in zip(self.wanted, again, strict=True):
            why, _ = difference(second, first)
            if why:
                return f"the uncut model is not reproducible, nothing can be compared: from run to run {why}"
        return ""

    def _whole(self) -> _Run:
        from splitiot.models.model import Model

        if not isinstance(self.model, Model):
            return _Steps(self.model, self.runtime)
        return (_Whole if self.model.subgraph == 0 else _Signature)(self.model, self.runtime)

    def cut(self, cut: int) -> tuple[str, float | None]:
        """Run head, bytes and tail; say what is wrong, and the largest difference."""
        found = self._sequence(lambda: _Cut(self.model, self.runtime, cut))
        largest: float | None = 0.0
        for index, (got, wanted) in enumerate(zip(found, self.wanted, strict=True)):
            why, gap = difference(got, wanted)
            if why:
                return f"sample {index}: {why}", gap
        return "", largest

    def _sequence(self, make: Callable[[], _Run]) -> list[Arrays]:
        answers = []
        runs = make()
        for index, payload in enumerate(self.payloads):
            if index and self.fresh:
                runs.close()
                runs = make()
            answers.append(runs(payload))
        runs.close()
        return answers


_RANDOM = ("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL")


class _Run(Protocol):
    def __call__(self, payload: Arrays, /) -> Arrays: ...

    def close(self) -> None: ...


class _Whole:
    """The uncut file, as its maker wrote it."""

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self._interpreter = interpreter = open_interpreter(model.to_bytes(), runtime)
        # a file may name one tensor twice, a Model has it once
        self._sets = _named(model.inputs, interpreter.input_indices, interpreter.setters)
        self._gets = _named(model.outputs, interpreter.output_indices, interpreter.getters)

    def __call__(self, payload: Arrays) -> Arrays:
        for name, set_ in self._sets.items():
            set_(payload[name])
        self._interpreter.invoke()
        return {name: get() for name, get in self._gets.items()}

    def close(self) -> None:
        self._interpreter.close()


class _Signature:
    """The uncut file again, where what is cut is not its first subgraph."""

    def __init__(self, model: Model, runtime: Runtime) -> None:
        backend = pick(runtime.name)
        raw = backend.make(model.to_bytes(), runtime)
        self._run = raw.get_signature_runner(model.signature)
        self._inputs = {key: _name(d) for key, d in self._run.get_input_details().items()}
        self._outputs = {key: _name(d) for key, d in self._run.get_output_details().items()}
        names = {t.name for t in model.outputs}
        if {t.name for t in model.inputs} != {*self._inputs.values()} or names != {*self._outputs.values()}:
            raise ModelError("the signature's tensors have no names of their own: it can't be run by name")

    def __call__(self, payload: Arrays) -> Arrays:
        results = self._run(**{key: payload[name] for key, name in self._inputs.items()})
        return {name: results[key] for key, name in self._outputs.items()}

    def close(self) -> None:
        self._run = None


class _Steps:
    """All steps of a pipeline together."""

    def __init__(self, pipeline: LayerPipeline, runtime: Runtime) -> None:
        self._run: Executable = pipeline.part(0, pipeline.n).open(runtime)
        self._results = pipeline._results

    def __call__(self, payload: Arrays) -> Arrays:
        made = self._run(payload)
        return {name: made[name] for name in self._results}

    def close(self) -> None:
        self._run.close()


def _name(details: dict[str, Any]) -> str:
    return str(details["name"]) or f"tensor_{details['index']}"


def _named(
    specs: Sequence[TensorSpec], indices: Sequence[int], calls: Sequence[Callable[..., Any]]
) -> dict[str, Callable[..., Any]]:
    first = dict(zip(indices, calls, strict=True))
    return {spec.name: first[index] for spec, index in zip(specs, dict.fromkeys(indices), strict=True)}


class _Cut:
    """Head, bytes, tail."""

    def __init__(self, model: Model | LayerPipeline, runtime: Runtime, cut: int) -> None:
        self._model, self._cut = model, cut
        head, tail = model.split(cut)
        self._boundary = model.boundary(cut)
        self._returned = model.returned(cut) if model.sink == "device" else None
        self._head: Executable = head.open(runtime)
        self._tail: Executable = tail.open(runtime)

    def __call__(self, payload: Arrays) -> Arrays:
        sent, kept = self._model.divide(self._cut, self._head(payload))
        _expect(self._boundary, sent, "what crosses")
        back = self._tail(_through_bytes(sent))
        if self._returned is not None:
            _expect(self._returned, back, "what crosses back")
        results = {**kept, **_through_bytes(back)}
        return {name: results[name] for name in self._model._results}

    def close(self) -> None:
        self._head.close()
        self._tail.close()


def _expect(boundary: Boundary, payload: Payload, what: str) -> None:
    wrong = boundary.mismatch(payload)
    if wrong is not None:
        raise ModelError(f"{what} is not what the boundary says: {wrong}")


def pack_request(header: dict[str, Any], model: bytes, payloads: Sequence[Arrays]) -> bytes:
    """Make the bytes that the child reads: a length, JSON, the model, the arrays."""
    arrays = [[[name, a.dtype.str, list(a.shape)] for name, a in payload.items()] for payload in payloads]
    head = json.dumps(header | {"model_bytes": len(model), "arrays": arrays}).encode()
    raw = [a.tobytes() for payload in payloads for a in payload.values()]
    return b"".join([_HEAD.pack(len(head)), head, model, *raw])


def _read_request(stream: IO[bytes]) -> tuple[dict[str, Any], bytes, list[Arrays]]:
    (length,) = _HEAD.unpack(stream.read(_HEAD.size))
    header: dict[str, Any] = json.loads(stream.read(length))
    model = stream.read(header["model_bytes"])
    payloads: list[Arrays] = []
    for described in header["arrays"]:
        payload: Arrays = {}
        for name, text, shape in described:
            dtype = np.dtype(text)
            count = int(np.prod(shape, dtype=np.int64))
            payload[name] = np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(shape)
        payloads.append(payload)
    return header, model, payloads


def main() -> None:
    """Answer one request. Ends the process without clean-up: native clean-up may crash, too."""
    # native code may print: keep the answers' descriptor for the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _no_core_dump()

    def say(**message: Any) -> None:
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
    from splitiot.models import load_model

    header, file, payloads = _read_request(sys.stdin.buffer)
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
        return
    checker = Checker(model, runtime, payloads)
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
    for cut in header["cuts"]:
        say(at=cut)
        try:
            why, largest = checker.cut(cut)
        except Exception as error:
            why, largest = f"{type(error).__name__}: {error}", None
        say(cut=cut, why=why, largest=largest)
    say(done=True)


def _probe(say: Callable[..., None], model: Model, runtime: Runtime, payloads: Sequence[Arrays]) -> None:
    """Run the uncut model; that it draws random numbers is no matter here."""
    try:
        if payloads:
            Checker(model, runtime, payloads).whole()
        else:
            open_interpreter(model.to_bytes(), runtime)
    except MissingDependencyError:
        raise
    except Exception as error:
        say(probed=str(error), ran=False)
        return
    say(probed="", ran=True)


def _no_core_dump() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
