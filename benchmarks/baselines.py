"""What splitiot is compared with, written anew: the plainest way to do the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ai_edge_litert.interpreter import Interpreter
from attrs import frozen
from numpy.typing import NDArray

from splitiot import Model

Array = NDArray[Any]


def bare(model: bytes) -> Callable[[Array], Array]:
    """Make a whole network ready in one interpreter: set_tensor, invoke, get_tensor and nothing else."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    source, result = taken["index"], given["index"]

    def run(array: Array) -> Array:
        interpreter.set_tensor(source, array)
        interpreter.invoke()
        output: Array = interpreter.get_tensor(result)
        return output

    return run


@frozen
class StepFile:
    """One step as a file of its own, and the names of what it takes and gives, in the file's order."""

    model: bytes
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    passed: frozenset[str]
    """What is given as it was taken, since a later step needs it, too."""


def step_files(model: Model) -> list[StepFile]:
    """Cut a network behind every step."""
    parts = [model.part(index, index + 1) for index in range(model.n)]
    return [StepFile(p.to_bytes(), p.inputs.names, p.outputs.names, frozenset(p.passthrough)) for p in parts]


def interpreter_per_step(files: Sequence[StepFile], values: Mapping[str, Array]) -> dict[str, Array]:
    """Run a network as SCIoT's client does: for each step a new interpreter is made, used once and thrown away."""
    alive = dict(values)
    for file in files:
        interpreter = Interpreter(model_content=file.model, num_threads=1)
        interpreter.allocate_tensors()
        for name, details in zip(file.takes, interpreter.get_input_details(), strict=True):
            interpreter.set_tensor(details["index"], alive[name])
        interpreter.invoke()
        for name, details in zip(file.gives, interpreter.get_output_details(), strict=True):
            if name not in file.passed:
                alive[name] = interpreter.get_tensor(details["index"])
    return {name: alive[name] for name in files[-1].gives}


def guide_choice(device_s: Sequence[float], edge_s: Sequence[float], latency_s: float) -> int:
    """Choose a split as the guide's loop does: every split summed anew, O(n^2), the link a constant.

    Returns
    -------
    int
        The last step on the device.
    """
    best, least = 0, float("inf")
    for split in range(len(device_s)):
        total = sum(device_s[: split + 1]) + latency_s + sum(edge_s[split + 1 :])
        if total < least:
            best, least = split, total
    return best
