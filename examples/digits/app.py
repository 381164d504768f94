"""What is cut: camera bytes -> picture -> network -> places of digits. Device and edge import the same file.

$ splitiot serve examples/digits/app.py:pipeline
$ splitiot run examples/digits/app.py:pipeline --edge http://127.0.0.1:8765
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import splitiot as si

WIDTH = HEIGHT = 96
SCALE, ZERO_POINT = 1 / 256, -128  # of the network's output

model = si.load_model(si.samples.fomo("int8"))


def unpack(frame: bytes) -> NDArray[np.uint8]:
    """RGB565, as an OV2640 camera sends it."""
    return si.vision.rgb565_to_rgb888(frame, width=WIDTH, height=HEIGHT, byte_order="big")


def normalise(picture: NDArray[np.uint8]) -> NDArray[Any]:
    """The network's input."""
    return si.vision.to_tensor(picture, dtype="int8")


def find(grid: NDArray[np.int8]) -> list[tuple[float, float, float]]:
    """Place and score of each digit."""
    least = si.samples.threshold()
    found = si.vision.centroids(grid, threshold=least, scale=SCALE, zero_point=ZERO_POINT)
    return [(d.x, d.y, d.score) for d in found]


pipeline = si.tasks([unpack, normalise]) + model + si.tasks([find])


def sample() -> bytes:
    """A typical input."""
    picture = si.vision.load_picture(si.samples.pictures()[0].path)
    return si.vision.rgb888_to_rgb565(picture, byte_order="big")
