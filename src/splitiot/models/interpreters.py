"""One small protocol over the three packages that can run a .tflite model.

ai-edge-litert, tflite-runtime and TensorFlow, in this order unless one is named. Which of them work is found
out by making an interpreter: tflite-runtime imports beside numpy 2, and fails only then.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import importlib.metadata
import os
import platform
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import evolve, frozen

from splitiot import _fork
from splitiot._cached import cached_property
from splitiot.errors import MissingDependencyError, UnsupportedModel
from splitiot.models._custom_ops import registerers, version_suffix
from splitiot.pipeline import Kernels, Runtime, RuntimeInfo, TensorSpec

__all__ = [
    "Array",
    "Backend",
    "Interpreter",
    "available",
    "known_shapes",
    "open_interpreter",
    "pick",
    "runtime_info",
]

Array: TypeAlias = npt.NDArray[Any]

# one RELU on a float32 of shape (1,)
_TINY = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA0AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAM"
    "AAgABAAMAAAAEAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEA"
    "AAABAAAAAQAAAAAAAAACAAAAMAAAAAQAAADk////CAAAAAwAAAABAAAAeQAAAAEAAAABAAAADAAMAAgAAAAAAAQADAAAAAgAAAAM"
    "AAAAAQAAAHgAAAABAAAAAQAAAAEAAAAQAAAADAAMAAsAAAAAAAQADAAAABMAAAAAAAAT"
)

_WARNINGS = threading.Lock()

_USUAL = Runtime()


def _forked() -> None:
    global _WARNINGS
    _WARNINGS = threading.Lock()  # another thread may have held it


_fork.in_child(_forked)


class Interpreter(Protocol):
    """A model that is ready to run. Not thread-safe: one thread at a time.

    Attributes
    ----------
    inputs, outputs : tuple of TensorSpec
        In the order of the file. Unnamed tensors are called ``"tensor_<index>"``.
    input_indices, output_indices : tuple of int
        Which tensors of the file they are; a file may name one twice.
    info : RuntimeInfo
        What it really runs with.
    setters : tuple of callable
        One for each input: takes an array of exactly its type and shape, and copies it in.
    getters : tuple of callable
        One for each output: gives a copy that owns its memory.
    invoke : callable
        Runs the model once. It lets go of the GIL.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_indices: tuple[int, ...]
    output_indices: tuple[int, ...]
    info: RuntimeInfo
    setters: tuple[Callable[[Array], None], ...]
    getters: tuple[Callable[[], Array], ...]
    invoke: Callable[[], None]

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes (an estimate)."""

    def set(self, position: int, array: Array) -> None:
        """Give the input at `position` its value."""

    def get(self, position: int) -> Array:
        """Return a copy of the output at `position`."""

    def close(self) -> None:
        """Free what it holds. It can't be used any more."""


@frozen
class Backend:
    """One of the three packages, probed: its name, its version, its Interpreter and its OpResolverTypes."""

    name: str
    version: str
    interpreter: Any
    resolvers: dict[Kernels, Any]

    def info(self, runtime: Runtime = _USUAL) -> RuntimeInfo:
        """What a part run by this package, with these kernels and custom operators, on this machine is run with."""
        return RuntimeInfo(self.name, self.version + version_suffix(runtime), runtime.kernels, platform.machine())

    def make(self, model: bytes, runtime: Runtime, preserve: bool = False) -> Any:
        """Make the package's own interpreter of a model and let it allocate.

        Raises
        ------
        UnsupportedModel
            The package can't run this model with these kernels.
        """
        make: Callable[..., Any] = self.interpreter
        if runtime.custom_ops:
            package = importlib.import_module(self.interpreter.__module__)
            make = partial(package.InterpreterWithCustomOps, registerers(runtime))
        try:
            with _no_warnings(self.name == "tensorflow" or preserve):
                raw = make(
                    model_content=model,
                    num_threads=runtime.threads,
                    experimental_op_resolver_type=self.resolvers[runtime.kernels],
                    experimental_preserve_all_tensors=preserve,
                )
                raw.allocate_tensors()
        except (ValueError, RuntimeError, IndexError) as error:  # the last from XNNPACK's maps
            raise UnsupportedModel(
                f"{self.name} {self.version} with {runtime.kernels} kernels can't run this model: {_tidy(error)}"
            ) from error
        return raw


@contextlib.contextmanager
def _no_warnings(wanted: bool) -> Iterator[None]:
    """Swallow the packages' own notices (deprecation, debugging)."""
    if not wanted:
        yield
        return
    with _WARNINGS, warnings.catch_warnings():  # catch_warnings itself is not thread-safe
        warnings.simplefilter("ignore")
        yield


def _tidy(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _version(module: str, distribution: str) -> str:
    version = getattr(importlib.import_module(module), "__version__", None)
    return str(version or importlib.metadata.version(distribution))


def _litert() -> tuple[Any, Any, str]:
    module = importlib.import_module("ai_edge_litert.interpreter")
    return module.Interpreter, module.OpResolverType, _version("ai_edge_litert", "ai-edge-litert")


def _tflite_runtime() -> tuple[Any, Any, str]:
    module = importlib.import_module("tflite_runtime.interpreter")
    return module.Interpreter, module.OpResolverType, _version("tflite_runtime", "tflite-runtime")


def _tensorflow() -> tuple[Any, Any, str]:
    tf = importlib.import_module("tensorflow")
    return tf.lite.Interpreter, tf.lite.experimental.OpResolverType, tf.__version__


_PACKAGES: dict[str, tuple[str, str, Callable[[], tuple[Any, Any, str]]]] = {
    "litert": ("ai-edge-litert", "litert", _litert),
    "tflite-runtime": ("tflite-runtime", "tflite", _tflite_runtime),
    "tensorflow": ("tensorflow", "tensorflow", _tensorflow),
}


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: native code announces its delegate there, once a process."""
    try:
        kept = os.dup(2)
    except OSError:  # closed: there is nothing to keep quiet
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@cache
def _probe(name: str) -> Backend | Exception:
    """Import a package and run a tiny model with it; what went wrong, if it does not work."""
    try:
        with _no_warnings(True):
            interpreter, resolver, version = _PACKAGES[name][2]()
    except Exception as error:  # a package built for another numpy may raise anything
        return error
    resolvers: dict[Kernels, Any] = {
        "default": resolver.BUILTIN,
        "no-delegate": resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": resolver.BUILTIN_REF,
    }
    backend = Backend(name, str(version), interpreter, resolvers)
    try:
        with quiet_stderr():
            raw = backend.make(_TINY, Runtime())
        position = raw.get_input_details()[0]["index"]
        raw.set_tensor(position, np.full(1, 2, np.float32))
        raw.invoke()
        answer = raw.get_tensor(raw.get_output_details()[0]["index"])
    except Exception as error:  # SystemError: tflite-runtime beside numpy 2
        return error
    return backend if answer.tolist() == [2.0] else RuntimeError(f"answered {answer!r} instead of 2")


def available() -> tuple[str, ...]:
    """Names of the interpreters that work here, the preferred one first.

    This imports all of them, TensorFlow too, which takes seconds: `pick` stops at the first.
    """
    return tuple(name for name in _PACKAGES if isinstance(_probe(name), Backend))


def pick(name: str = "auto") -> Backend:
    """Choose an interpreter package.

    Parameters
    ----------
    name : str
        ``"auto"`` (the first that works), ``"litert"``, ``"tflite-runtime"`` or ``"tensorflow"``.

    Raises
    ------
    MissingDependencyError
        It is not installed, or does not work here; the cause is chained.
    ValueError
        There is no interpreter of this name.
    """
    if name != "auto" and name not in _PACKAGES:
        raise ValueError(f"no interpreter is called {name!r}: choose from auto, {', '.join(_PACKAGES)}")
    wrong: dict[str, Exception] = {}
    for candidate in _PACKAGES if name == "auto" else [name]:
        backend = _probe(candidate)
        if isinstance(backend, Backend):
            return backend
        wrong[candidate] = backend
    package, extra, _ = _PACKAGES[next(iter(wrong))]
    missing = MissingDependencyError(f"an interpreter ({package})" if name == "auto" else package, extra)
    for candidate, error in wrong.items():
        if not isinstance(error, ImportError):
            missing.add_note(f"{_PACKAGES[candidate][0]} is there but does not work: {_tidy(error)}")
    raise missing from next(iter(wrong.values()))


def runtime_info(runtime: Runtime | None = None) -> RuntimeInfo:
    """What this machine would run a part with. Makes no interpreter but the probe's.

    Raises what `pick` raises.
    """
    runtime = runtime or Runtime()
    return pick(runtime.name).info(runtime)


def _spec(details: dict[str, Any]) -> TensorSpec:
    """Describe one of the package's tensors."""
    scale, zero_point = details["quantization"]
    return TensorSpec(
        details["name"] or f"tensor_{details['index']}",
        np.dtype(details["dtype"]).name,
        tuple(int(d) for d in details["shape"]),
        float(scale) if scale else None,
        int(zero_point) if scale else None,
    )


class _Native:
    """The protocol over any of the three packages."""

    def __init__(self, backend: Backend, model: bytes, runtime: Runtime) -> None:
        self._raw: Any = backend.make(model, runtime)
        self._model_bytes = len(model)
        self.info = backend.info(runtime)
        ins, outs = self._raw.get_input_details(), self._raw.get_output_details()
        self.inputs, self.outputs = tuple(map(_spec, ins)), tuple(map(_spec, outs))
        self.input_indices = tuple(int(d["index"]) for d in ins)
        self.output_indices = tuple(int(d["index"]) for d in outs)
        set_ = self._raw.set_tensor
        self.setters: tuple[Callable[[Array], None], ...] = tuple(partial(set_, d["index"]) for d in ins)
        self.getters: tuple[Callable[[], Array], ...] = tuple(_getter(self._raw, k, d) for k, d in enumerate(outs))
        self.invoke: Callable[[], None] = self._raw.invoke

    @cached_property
    def nbytes(self) -> int:
        # The file, the copies of its weights that XNNPACK packs, and the tensors that are no weights:
        # 0.6 to 1.5 times what 50 interpreters of each of seven networks were seen to take.
        tensors = sum(_spec(d).nbytes for d in self._raw.get_tensor_details() if d["dtype"] not in _UNSIZED)
        copies = 3 if self.info.kernels == "default" else 1
        return 65_536 + copies * self._model_bytes + max(0, tensors - self._model_bytes)

    def set(self, position: int, array: Array) -> None:
        self.setters[position](array)

    def get(self, position: int) -> Array:
        return self.getters[position]()

    def close(self) -> None:
        # native memory goes with the last reference; an `invoke` in another thread keeps its own
        self._raw = None
        self.setters, self.getters, self.invoke = (), (), _closed


def _getter(raw: Any, position: int, details: dict[str, Any]) -> Callable[[], Array]:
    shape, index = details["shape"], details["index"]
    if len(shape) and 0 not in shape and -1 not in details["shape_signature"]:
        return partial(raw.get_tensor, index)

    def get() -> Array:
        # the packages give a numpy scalar for a tensor of rank 0, and an error for one with no elements
        try:
            return np.asarray(raw.get_tensor(index))
        except ValueError:
            now = raw.get_output_details()[position]
            if 0 not in now["shape"]:
                raise
            return np.empty(now["shape"], now["dtype"])

    return get


_UNSIZED = (np.object_, np.bytes_, np.str_, np.void)


def _closed() -> None:
    raise RuntimeError("this interpreter was closed")


def open_interpreter(model: bytes, runtime: Runtime | None = None) -> Interpreter:
    """Make a model ready to run.

    Nothing here guards against a file that crashes the interpreter: `splitiot.load_model` validates, and
    `splitiot.models.verify_model` tries a model in a child process.

    Parameters
    ----------
    model : bytes
        A .tflite file. The first subgraph is what runs.
    runtime : Runtime, optional

    Raises
    ------
    MissingDependencyError
        No interpreter, or not the one that was asked for.
    UnsupportedModel
        The interpreter does not take this model.
    """
    runtime = runtime or Runtime()
    return _Native(pick(runtime.name), model, runtime)


def known_shapes(
    model: bytes,
    runtime: Runtime | None = None,
    *,
    invoke: bool = False,
    inputs: Mapping[int, tuple[int, ...]] | None = None,
) -> dict[int, tuple[int, ...]]:
    """Ask an interpreter for the shapes of the first subgraph's tensors.

    In this process, which a hostile file can kill: `splitiot.models.probe.child_shapes` asks in a child.

    Parameters
    ----------
    model : bytes
    runtime : Runtime, optional
        Its kernels are not used: a delegate hides the shapes of the tensors inside it.
    invoke : bool
        Run the model once, on zeros: some shapes are known only then. Without it they are those that follow
        from the inputs' shapes.
    inputs : mapping of int to tuple of int, optional
        Other shapes for inputs, by tensor index.

    Returns
    -------
    dict of int to tuple of int
        By the tensor's index. The interpreter's own temporary tensors may follow behind those of the file.

    Raises
    ------
    MissingDependencyError
        No interpreter, or not the one that was asked for.
    UnsupportedModel
        The interpreter does not take this model, or fails to run it.
    """
    runtime = runtime or Runtime()
    backend = pick(runtime.name)
    raw = backend.make(model, evolve(runtime, kernels="no-delegate"), preserve=invoke)
    if inputs:
        try:
            for index, shape in inputs.items():
                raw.resize_tensor_input(index, list(shape))
            raw.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UnsupportedModel(
                f"{backend.name} {backend.version} can't run this model with other shapes of its inputs: {_tidy(error)}"
            ) from error
    if invoke:
        try:
            for details in raw.get_input_details():
                raw.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
            raw.invoke()
        except (ValueError, RuntimeError) as error:
            raise UnsupportedModel(
                f"{backend.name} {backend.version} failed to run this model on zeros: {_tidy(error)}"
            ) from error
    return {d["index"]: tuple(int(n) for n in d["shape"]) for d in raw.get_tensor_details()}
