"""What a command works on: TARGET, and what stands beside it."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from attrs import frozen

from splitiot.cli._errors import CommandFailed, UsageError
from splitiot.errors import SplitiotError
from splitiot.functions import TaskPipeline
from splitiot.models._array_pipeline import ArrayPipeline
from splitiot.pipeline import Chain, Pipeline, Runtime, TensorSpec

__all__ = [
    "Score",
    "Target",
    "legal_cut",
    "load_model_file",
    "load_object",
    "load_target",
    "model_inputs",
    "nearest_cuts",
]

Score: TypeAlias = Callable[[list[Any]], dict[str, float]]

_NOTHING = object()


@frozen
class Target:
    """What is to be run.

    Parameters
    ----------
    text : str
        As it was given.
    name : str
        Short, for people.
    pipeline : Pipeline
    module : module, optional
        Where the pipeline was found, if not in a model's file.
    """

    text: str
    name: str
    pipeline: Pipeline
    module: ModuleType | None = None

    @property
    def draws_sample(self) -> bool:
        """Whether `sample` gives a random one, since there is nothing beside the pipeline."""
        return not self.has_sample and self._hook("inputs") is _NOTHING

    @property
    def has_sample(self) -> bool:
        """Whether there is a `sample` beside the pipeline."""
        return self._hook("sample") is not _NOTHING

    def sample(self, seed: int = 0) -> Any:
        """Return a typical input: `sample` beside the pipeline, or the first of `inputs`, or a random one for a model.

        Raises
        ------
        UsageError
            There is none of them.
        """
        hook = self._hook("sample")
        if hook is not _NOTHING:
            return self._called("sample", hook)
        for first in self.inputs() or ():
            return first
        first = self.pipeline.links[0] if isinstance(self.pipeline, Chain) else self.pipeline
        if not isinstance(first, ArrayPipeline):
            raise UsageError(
                f"{self.text} needs a typical input: define `sample` (a value, or a function that makes one) beside "
                "the pipeline"
            )
        return first.random_input(seed)

    def inputs(self) -> Iterator[Any] | None:
        """Return what `inputs` beside the pipeline gives (it is an iterable, or makes one); None where there is none.

        Raises
        ------
        UsageError
            It is no iterable, or raises. What it gives later is checked later.
        CommandFailed
            From the iterator: `inputs` raised, or gave what the pipeline does not take.
        """
        hook = self._hook("inputs")
        if hook is _NOTHING:
            return None
        values = self._called("inputs", hook)
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise UsageError(
                f"inputs of {self.text} must be an iterable of inputs, or a function that makes one, "
                f"not {type(values).__name__}"
            )
        return self._checked(iter(values))

    def _checked(self, values: Iterator[Any]) -> Iterator[Any]:
        """Check each value; closing this closes what gives them, a camera say."""
        try:
            for number in itertools.count(1):
                try:
                    value = next(values)
                except StopIteration:
                    return
                except Exception as error:
                    raise CommandFailed(
                        f"inputs of {self.text} raised {error!r} for number {number} (--debug shows where)"
                    ) from error
                try:
                    self.pipeline.bind(value)
                except (SplitiotError, ValueError, TypeError) as error:
                    raise CommandFailed(f"inputs of {self.text}, number {number}: {error}") from error
                yield value
        finally:
            close = getattr(values, "close", None)
            if callable(close):
                close()

    def score(self) -> Score | None:
        """Return `score` beside the pipeline, made safe to call; None where there is none.

        Raises
        ------
        UsageError
            It is no function.
        CommandFailed
            From the function: it raised, or what it returned are no numbers by name.
        """
        hook = self._hook("score")
        if hook is _NOTHING:
            return None
        if not callable(hook):
            raise UsageError(
                f"score of {self.text} must be a function of the list of all results, not {type(hook).__name__}"
            )

        def score(values: list[Any]) -> dict[str, float]:
            try:
                numbers = hook(values)
            except Exception as error:
                raise CommandFailed(f"score() of {self.text} raised {error!r} (--debug shows where)") from error
            try:
                if not all(isinstance(name, str) and not isinstance(numbers[name], str | bytes) for name in numbers):
                    raise TypeError
                return {name: float(numbers[name]) for name in numbers}
            except (TypeError, ValueError, LookupError) as error:
                raise CommandFailed(f"score() of {self.text} must return numbers by name, got {numbers!r}") from error

        return score

    def _hook(self, name: str) -> Any:
        """Return what the pipeline's module has under this name, unless that is one of the steps."""
        value = getattr(self.module, name, _NOTHING)
        links = self.pipeline.links if isinstance(self.pipeline, Chain) else (self.pipeline,)
        steps = [each for link in links if isinstance(link, TaskPipeline) for each in link.tasks]
        return _NOTHING if any(value is step or value is step.function for step in steps) else value

    def _called(self, name: str, hook: Any) -> Any:
        if not callable(hook):
            return hook
        try:
            return hook()
        except Exception as error:
            raise UsageError(f"{name}() of {self.text} raised {error!r} (--debug shows where)") from error


def model_inputs(pipeline: Pipeline) -> tuple[TensorSpec, ...] | None:
    """Return the inputs of a pipeline that begins with a network, None for others."""
    first: Any = pipeline.links[0] if isinstance(pipeline, Chain) else pipeline
    inputs: tuple[TensorSpec, ...] | None = getattr(first, "inputs", None)
    return inputs


def load_target(text: str, *, signature: str | None = None, sink: Any = None, runtime: Runtime | None = None) -> Target:
    """Load what TARGET names.

    Raises
    ------
    UsageError
        There is no such thing.
    ModelError
        The model is broken, or can't be read.
    """
    if os.path.lexists(text) and not Path(text).is_dir() and not text.endswith(".py"):
        model = load_model_file(text, signature=signature, sink=sink, runtime=runtime)
        return Target(text, model.name, model)
    if Path(text, "manifest.json").is_file() or (Path(text).is_dir() and "/" in text):
        return _bundle(text, signature, sink, runtime)
    where, _, name = text.rpartition(":") if _has_name(text) else (text, "", "pipeline")
    if not where.endswith(".py") and ("/" in text or text.endswith(".tflite")):
        raise UsageError(f"there is no file {text}")
    pipeline = load_object(f"{where}:{name}")
    if not isinstance(pipeline, Pipeline):
        kind = type(pipeline).__name__
        raise UsageError(f"{text} is a {kind}, not a pipeline: make one with tasks() or load_model()")
    if signature is not None:
        raise UsageError("--signature is for .tflite files")
    short_name = Path(where).stem if name == "pipeline" else name
    pipeline = pipeline.with_runtime(runtime)
    return Target(text, short_name, pipeline if sink is None else pipeline.with_sink(sink), _module(where))


def _bundle(text: str, signature: str | None, sink: Any, runtime: Runtime | None) -> Target:
    from splitiot.models import load_bundle

    if signature is not None:
        raise UsageError("--signature is for .tflite files: a bundle has the one that it was written with")
    bundle = load_bundle(text, runtime=runtime)
    return Target(text, bundle.name, bundle if sink is None else bundle.with_sink(sink))


def load_model_file(path: str, *, signature: str | None, sink: Any, runtime: Runtime | None) -> Any:
    """Load a .tflite file.

    Raises
    ------
    UsageError
        It can't be read.
    ModelError
        It is broken.
    """
    from splitiot.models import load_model

    try:
        return load_model(path, signature=signature, sink=sink or "device", runtime=runtime)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error


def load_object(text: str) -> Any:
    """Return what ``file.py:name`` or ``package.module:name`` names. This runs that file.

    Raises
    ------
    UsageError
        There is no such file, module or name, or it can't be imported.
    """
    where, _, name = text.rpartition(":")
    module = _module(where)
    if not hasattr(module, name):
        raise UsageError(f"{where} has no {name!r}")
    return getattr(module, name)


def _has_name(text: str) -> bool:
    name = text.rpartition(":")[2]
    return ":" in text and name.isidentifier()


def _module(where: str) -> ModuleType:
    path = Path(where)
    if where.endswith(".py"):
        if not path.is_file():
            raise UsageError(f"there is no file {where}")
        path = path.resolve()
        for loaded in list(sys.modules.values()):
            if getattr(loaded, "__file__", None) == str(path):
                return loaded
        folder, load = str(path.parent), _from_file(path)
    else:
        folder, load = str(Path.cwd()), lambda: importlib.import_module(where)
    if folder not in sys.path:  # as `python file.py` and `python -m module` have it
        sys.path.insert(0, folder)
    try:
        return load()
    except ModuleNotFoundError as error:
        raise UsageError(f"{where} can't be imported: no module {error.name!r}") from error
    except Exception as error:
        raise UsageError(f"{where} can't be imported: {error!r} (--debug shows where)") from error


def _from_file(path: Path) -> Callable[[], ModuleType]:
    def load() -> ModuleType:
        # not under its bare name: numpy.py beside it must not become numpy
        name = f"splitiot_target_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path.name} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return load


def nearest_cuts(pipeline: Pipeline, cut: int) -> str:
    """Say which legal cuts are nearest to one that is not.

    Examples
    --------
    >>> from splitiot import tasks
    >>> def double(x): return 2 * x
    >>> nearest_cuts(tasks([double]), 7)
    'the nearest legal cut is 1'
    """
    below = [c for c in pipeline.cuts if c < cut][-1:]
    near = [*below, *[c for c in pipeline.cuts if c > cut][:1]]
    if not near:
        return "it has no legal cut at all"
    return f"the nearest legal cut{'s are' if len(near) > 1 else ' is'} {' and '.join(map(str, near))}"


def legal_cut(target: Target, cut: int) -> int:
    """Check a cut.

    Raises
    ------
    UsageError
        It is not legal: with the reason, and the nearest cuts that are.
    """
    pipeline = target.pipeline
    if cut in pipeline.cuts:
        return cut
    near = nearest_cuts(pipeline, cut)
    if not 0 <= cut <= pipeline.n:
        raise UsageError(f"{target.name} has no cut {cut}: with {pipeline.n} steps cuts are 0..{pipeline.n}; {near}")
    raise UsageError(f"{target.name} can't be cut at {cut}: {pipeline.refused.get(cut, 'not legal')}; {near}")
