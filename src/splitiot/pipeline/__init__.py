"""What is cut: a pipeline of n steps, its cuts, and what is alive at each of them.

A cut is the number of steps on the device: at 0 everything runs on the edge, at n everything runs locally.
"""

from __future__ import annotations

from splitiot.pipeline._pipeline import Chain, Pipeline, expect_pipeline
from splitiot.pipeline._plain import DTYPES, MAX_DEPTH, copied, dtype_name, foreign, own, rebuilt, shown
from splitiot.pipeline._runtime import Executable, Kernels, Part, Runtime, RuntimeInfo
from splitiot.pipeline._values import (
    DROP,
    NOTHING,
    UNTYPED,
    Boundary,
    Drop,
    Payload,
    Placement,
    Sink,
    Step,
    TensorSpec,
    Tier,
    check_sink,
    pinned,
)

__all__ = [
    "DROP",
    "DTYPES",
    "MAX_DEPTH",
    "NOTHING",
    "UNTYPED",
    "Boundary",
    "Chain",
    "Drop",
    "Executable",
    "Kernels",
    "Part",
    "Payload",
    "Pipeline",
    "Placement",
    "Runtime",
    "RuntimeInfo",
    "Sink",
    "Step",
    "TensorSpec",
    "Tier",
    "check_sink",
    "copied",
    "dtype_name",
    "expect_pipeline",
    "foreign",
    "own",
    "pinned",
    "rebuilt",
    "shown",
]
