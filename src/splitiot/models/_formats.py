"""The formats that there are, and what asks an interpreter for what their files do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from splitiot.models._format import AskShapes, Format
from splitiot.models.tflite.format import TFLite
from splitiot.models.tflite.graph import DTYPES
from splitiot.models.tflite.reader import LARGEST_BYTES
from splitiot.pipeline import Runtime

__all__ = ["ARRAY_TYPES", "FORMATS", "LARGEST_BYTES", "child_shapes_for", "format_of"]

FORMATS: Final[tuple[Format, ...]] = (TFLite(),)

ARRAY_TYPES: Final = frozenset(DTYPES.values())
"""Names of the numpy types that their tensors have."""


def format_of(data: bytes) -> Format | None:
    """Return the format that a file's first bytes tell of, if it is one of ours."""
    return next((each for each in FORMATS if each.recognises(data)), None)


def child_shapes_for(runtime: Runtime | None) -> AskShapes:
    """Return what asks an interpreter in a child process for shapes."""

    def ask(model: bytes, inputs: Mapping[int, tuple[int, ...]] | None = None) -> Mapping[int, tuple[int, ...]]:
        from splitiot.models import probe  # few networks need it, and starting processes takes modules

        return probe.child_shapes(model, runtime, inputs=inputs)

    return ask
