"""Trying a model that nobody has run yet, and asking an interpreter about it: in a child process, never in ours."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from splitiot.errors import MissingDependencyError, UnsupportedModel
from splitiot.models._child import start_child
from splitiot.models._custom_ops import for_child
from splitiot.models._random_input import was_random
from splitiot.models._request import pack_request
from splitiot.pipeline import Runtime

if TYPE_CHECKING:
    from splitiot.models.model import Model

__all__ = ["child_shapes", "probe_model"]


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
    header = {"task": "probe", "signature": model.signature, "sink": model.sink, "digest": model.digest}
    answer = _ask(header, model.to_bytes(), payloads, runtime, timeout_s, "running it")
    if not answer["ran"]:
        why = answer["probed"]
        raise UnsupportedModel(
            f"{model.name} can't run here: {was_random(why) if payloads and sample is None else why}"
        )


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
    header = {"task": "shapes", "inputs": [[index, list(shape)] for index, shape in (inputs or {}).items()]}
    answer = _ask(header, model, [], runtime or Runtime(), timeout_s, "asking for its shapes")
    return {index: tuple(shape) for index, shape in answer["shapes"]}


def _ask(
    header: dict[str, Any], model: bytes, payloads: list[Any], runtime: Runtime, timeout_s: float, doing: str
) -> dict[str, Any]:
    """Start a child and wait for its answer."""
    header["runtime"] = for_child(runtime)
    with start_child(pack_request(header, model, payloads)) as (messages, end):
        while True:
            try:
                message = messages.get(timeout=timeout_s)
            except queue.Empty:
                death = f"no answer within {timeout_s:g} s"
                break
            if message is None:
                death = end()
                break
            if "missing" in message:
                raise MissingDependencyError(*message["missing"])
            if "refused" in message:
                raise UnsupportedModel(message["refused"])
            if "failed" in message:
                death = message["failed"]
                break
            if "shapes" in message or "probed" in message:
                return message
    raise UnsupportedModel(
        f"the model was tried in a child process: {death} while {doing}. It is broken in a way that only running it "
        "shows, or the interpreter is: try other kernels (Runtime) or another version of the interpreter"
    )
