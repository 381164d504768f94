"""Trying a model that nobody has run yet, and asking an interpreter about it: in a child process, never in ours."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from splitiot.errors import UnsupportedModel
from splitiot.models._child import ChildLost, answers
from splitiot.models._custom_ops import for_child
from splitiot.models._random_input import blame_random_input
from splitiot.models._request import Arrays, Failed, GetShapes, Probe, Refused, Request, Shapes, Whole
from splitiot.pipeline import Runtime

if TYPE_CHECKING:
    from splitiot.models.model import Model

__all__ = ["child_shapes", "probe_model"]

_A = TypeVar("_A", Shapes, Whole)


def probe_model(
    model: Model, runtime: Runtime | None = None, timeout_s: float = 60.0, *, sample: Any = None
) -> None:
    """Run a model twice, in a child process.

    Validation keeps most of what would crash an interpreter away, not all: interpreters have bugs of their own.

    Parameters
    ----------
    model : Model
        Inputs of type STRING get no values: such a model is only prepared to run.
    runtime : Runtime, optional
    timeout_s : float
        In seconds.
    sample : optional
        An input of your own, in place of a random one; what `Pipeline.run` takes.

    Raises
    ------
    UnsupportedModel
        It killed the child, did not end, or the interpreter refuses it. The message says which.
    MissingDependencyError
        No interpreter, or not the one that was asked for.
    ModelError
        The child process could not be started.
    """
    runtime = runtime or Runtime()
    payloads = []
    if all(tensor.dtype != "bytes" for tensor in model.inputs):
        payloads = [model.random_input() if sample is None else dict(model.bind(sample))]
    request = Probe(for_child(runtime), model.signature, model.sink, model.digest)
    whole = _ask(request, Whole, model.to_bytes(), payloads, timeout_s, "running it")
    if not whole.ran:
        reason = blame_random_input(whole.reason) if payloads and sample is None else whole.reason
        raise UnsupportedModel(f"{model.name} can't run here: {reason}")


def child_shapes(
    model: bytes,
    runtime: Runtime | None = None,
    *,
    inputs: Mapping[int, tuple[int, ...]] | None = None,
    timeout_s: float = 60.0,
) -> dict[int, tuple[int, ...]]:
    """Ask an interpreter in a child process for the shapes of the first subgraph's tensors.

    Parameters
    ----------
    model : bytes
        It is run once, on zeros.
    runtime : Runtime, optional
    inputs : mapping of int to tuple of int, optional
        Other shapes for inputs, by tensor index.
    timeout_s : float
        In seconds.

    Returns
    -------
    dict of int to tuple of int
        By the tensor's index.

    Raises
    ------
    UnsupportedModel
        It killed the child, did not end, or the interpreter refuses it.
    MissingDependencyError
        No interpreter, or not the one that was asked for.
    ModelError
        The child process could not be started.
    """
    request = GetShapes(for_child(runtime or Runtime()), inputs or {})
    return _ask(request, Shapes, model, [], timeout_s, "asking for its shapes").shapes


def _ask(
    request: Request, kind: type[_A], model: bytes, payloads: Sequence[Arrays], timeout_s: float, doing: str
) -> _A:
    """Start a child and wait for its answer."""
    try:
        with contextlib.closing(answers(request, model, payloads, timeout_s)) as stream:
            for answer in stream:
                if isinstance(answer, kind):
                    return answer
                if isinstance(answer, Refused):
                    raise UnsupportedModel(answer.reason)
                if isinstance(answer, Failed):
                    raise ChildLost(answer.reason)
            raise AssertionError("the answers never end")
    except ChildLost as error:
        raise UnsupportedModel(
            f"the model was tried in a child process: {error} while {doing}. It is broken in a way that only running "
            "it shows, or the interpreter is: try other kernels (Runtime) or another version of the interpreter"
        ) from None
