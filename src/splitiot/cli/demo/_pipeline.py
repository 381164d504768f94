"""What the demonstration runs: camera bytes, a network, and what it found. The same on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitiot.errors import UnsupportedModel
from splitiot.functions import tasks
from splitiot.models import load_model
from splitiot.pipeline import Pipeline, TensorSpec
from splitiot.samples import fomo, threshold
from splitiot.vision import centroids, rgb565_to_rgb888, to_tensor

__all__ = ["build", "size"]


def size(spec: TensorSpec) -> tuple[int, int]:
    """Width and height of the picture that a network takes."""
    if len(spec.shape) != 4 or spec.shape[0] != 1 or spec.shape[3] not in (1, 3):
        raise UnsupportedModel(
            "the demonstration needs a network that takes one picture, (1, height, width, 3) or in grey "
            f"(1, height, width, 1), not {spec.shape}"
        )
    return spec.shape[2], spec.shape[1]


def build(path: Path | str | None = None) -> tuple[Pipeline, tuple[int, int]]:
    """Make the pipeline of a model file (our own network unless given), and the picture's width and height."""
    model = load_model(fomo("int8") if path is None else path)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UnsupportedModel("the demonstration needs a network with one input and one output")
    (takes,), (gives,) = model.inputs, model.outputs
    width, height = size(takes)
    least = threshold() if path is None else 0.5

    def unpack(frame: bytes) -> NDArray[np.uint8]:
        return rgb565_to_rgb888(frame, width=width, height=height, byte_order="big")

    def normalise(picture: NDArray[np.uint8]) -> NDArray[Any]:
        channels: Any = takes.shape[3]
        return to_tensor(
            picture, channels=channels, dtype=takes.dtype, scale=takes.scale, zero_point=takes.zero_point
        )

    def find(grid: NDArray[Any]) -> list[list[float]]:
        if grid.ndim != 4:  # no grid of cells: a classifier's scores
            best = int(np.argmax(grid))
            return [[float(best), float(grid.ravel()[best])]]
        detections = centroids(
            grid, threshold=least, cell_px=width / grid.shape[2], scale=gives.scale, zero_point=gives.zero_point
        )
        return [[d.x, d.y, d.score] for d in detections]

    return tasks([unpack, normalise]) + model + tasks([find]), (width, height)
