"""Running some layers of a Keras model: a dict of arrays in, a dict of arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitiot.errors import LocalProtocolError, ModelError, UnsupportedModel
from splitiot.models.keras._calls import LayerCall
from splitiot.models.keras._compile import Compiled
from splitiot.pipeline import Part, Payload, Runtime

__all__ = ["LayersExecutable", "check_runtime"]


class LayersExecutable:
    """A part's layers, ready to run by TensorFlow."""

    nbytes = 0  # the compiled steps and the weights are the pipeline's, however many parts are open

    def __init__(
        self, part: Part, calls: Sequence[tuple[LayerCall, Compiled]], taken: Sequence[str], given: Sequence[str]
    ) -> None:
        import tensorflow as tf

        self._part, self._given, self._tensor = part, given, tf.constant
        used = {name for call, _ in calls for name in call.inputs}
        self._used = tuple(name for name in taken if name in used)
        last = {name: index for index, (call, _) in enumerate(calls) for name in call.inputs}
        last |= dict.fromkeys(given, len(calls))
        self._plan = [
            (
                function,
                call.inputs,
                call.outputs,
                # values are let go when they are used last
                tuple(n for n in (*call.inputs, *call.outputs) if last.get(n, index) == index),
                call.name,
            )
            for index, (call, function) in enumerate(calls)
        ]

    def __call__(self, payload: Payload, /) -> Payload:
        wrong = self._part.inputs.mismatch(payload)
        if wrong is not None:
            raise LocalProtocolError(f"part [{self._part.start}, {self._part.stop}): {wrong}")
        values = {name: self._tensor(payload[name]) for name in self._used}
        for function, inputs, outputs, done, name in self._plan:
            try:
                results = function(*(values[i] for i in inputs))
            except Exception as error:  # TensorFlow's errors share no root but Exception
                raise ModelError(f"layer {name} failed: {error}") from error
            values.update(zip(outputs, results, strict=True))
            for i in done:
                values.pop(i, None)
        return {name: np.array(values[name] if name in values else payload[name], order="C") for name in self._given}

    def reset(self) -> None:
        """Layers that remember are refused: there is nothing to forget."""

    def close(self) -> None:
        """What it holds is the pipeline's."""


def check_runtime(runtime: Runtime | None) -> None:
    """Refuse what is not TensorFlow as it is."""
    if runtime is not None and (runtime.name not in ("auto", "tensorflow") or runtime.kernels != "default"):
        raise UnsupportedModel(
            f"Keras layers are run by TensorFlow, with its own kernels, not by {runtime.name!r} with "
            f"{runtime.kernels!r} kernels: use granularity='operator' for that"
        )
