"""What is cut: capture -> resize -> blur -> HSV mask -> morphology -> contours -> aggregate and draw.

$ splitiot run examples/ball_tracking/app.py:pipeline --cut 3       # three steps here, the rest on an edge
$ splitiot run examples/ball_tracking/app.py:pipeline --fps 24      # as many as 24 frames a second allow

The camera is on the device, and what is drawn is kept on the edge: of eight cuts six are left, 1 to 6.
SPLITIOT_BALL_SOURCE chooses the frames (see source.py), SPLITIOT_BALL_VIDEO names the annotated video to be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import scene
import score as scoring
from source import chosen, numbers, open_source
from steps import WIDTH, Canvas, blur, capture, contours, draw, hsv_mask, morphology, resize

import splitiot as si

pipeline = si.tasks(
    [
        si.task(capture, tier="device", resource=open_source),
        resize,
        blur,
        hsv_mask,
        morphology,
        contours,
        si.task(draw, name="aggregate_and_draw", tier="edge", state="own", resource=Canvas),
    ],
    version="1",
)

sample = 0
"""A typical input is a frame's number."""


def inputs() -> Iterator[int]:
    """All inputs of a run, in order."""
    return numbers()


def score(values: Sequence[dict[str, Any] | None]) -> dict[str, float]:
    """The tracking error, where the truth is known."""
    if chosen() != "rendered":
        found = sum(value is not None and bool(value["found"]) for value in values)
        return {"found": found / max(1, len(values))}
    return scoring.score(values, scene.read_truth(scene.rendered()[1]), WIDTH)
