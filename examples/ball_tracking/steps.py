"""The seven steps of the tracker, each an ordinary function of plain values: no step knows where it runs.

The recipe is a well-known one: make the picture small, smooth it, keep what has the ball's colour, tidy that up, and
take the largest thing that is left.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import cv2
import numpy as np
import scene
from numpy.typing import NDArray
from source import Source

import splitiot as si

Picture: TypeAlias = NDArray[np.uint8]
Place: TypeAlias = tuple[float, float, float]
"""x, y, radius, in pixels of the small picture."""

WIDTH = 320  # of the small picture
LOWER, UPPER = (38, 80, 25), (85, 255, 255)  # green: hue (0..180), saturation, value
KERNEL = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
MIN_RADIUS = 4.0
TRAIL = 32  # frames


def capture(source: Source, number: int) -> Picture | si.Drop:
    """The next frame; where the source has none to give, the frame is dropped."""
    frame = source.read(number)
    return si.DROP if frame is None else frame


def resize(frame: Picture) -> Picture:
    """A small picture."""
    height, width = frame.shape[:2]
    return np.asarray(cv2.resize(frame, (WIDTH, WIDTH * height // width), interpolation=cv2.INTER_AREA), np.uint8)


def blur(picture: Picture) -> tuple[Picture, Picture]:
    """The picture, and a smooth one beside it: what is drawn in the end is the sharp one."""
    return picture, np.asarray(cv2.GaussianBlur(picture, (11, 11), 0), np.uint8)


def hsv_mask(picture: Picture, smooth: Picture) -> tuple[Picture, Picture]:
    """What has the ball's colour: a mask of 0 and 255."""
    return picture, np.asarray(cv2.inRange(cv2.cvtColor(smooth, cv2.COLOR_BGR2HSV), LOWER, UPPER), np.uint8)


def morphology(picture: Picture, mask: Picture) -> tuple[Picture, Picture]:
    """The mask without specks."""
    return picture, np.asarray(cv2.dilate(cv2.erode(mask, KERNEL, iterations=2), KERNEL, iterations=2), np.uint8)


def contours(picture: Picture, mask: Picture) -> tuple[Picture, Place | None]:
    """The circle around the largest thing in the mask."""
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        return picture, None
    (x, y), radius = cv2.minEnclosingCircle(max(found, key=cv2.contourArea))
    return picture, (float(x), float(y), float(radius)) if radius >= MIN_RADIUS else None


class Canvas:
    """What the last step keeps of one device: the trail, what it counted, and the annotated video.

    SPLITIOT_BALL_VIDEO names the video's file; without it none is written. It is there when the canvas is closed.
    """

    def __init__(self) -> None:
        self.trail: deque[tuple[int, int] | None] = deque(maxlen=TRAIL)
        self.frames = self.found = 0
        self._file = os.environ.get("SPLITIOT_BALL_VIDEO")
        self._writer: Any = None
        self._making = Path()

    def write(self, picture: Picture) -> None:
        """Add a frame to the annotated video."""
        if not self._file:
            return
        if self._writer is None:
            folder = Path(self._file).resolve().parent
            folder.mkdir(parents=True, exist_ok=True)
            self._making = folder / f"making-{uuid.uuid4().hex}.avi"
            self._writer = scene.open_writer(self._making, width=picture.shape[1], height=picture.shape[0])
        self._writer.write(picture)

    def __enter__(self) -> Canvas:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None and self._file:
            self._writer.release()
            self._making.replace(self._file)  # at once: nobody sees half a video


def draw(canvas: Canvas, picture: Picture, ball: Place | None) -> dict[str, Any]:
    """Aggregate, draw, and say in few bytes where the ball is."""
    canvas.frames += 1
    canvas.found += ball is not None
    canvas.trail.append(None if ball is None else (round(ball[0]), round(ball[1])))
    drawn = picture.copy()  # what came may be somebody else's, or read-only
    for age, (a, b) in enumerate(itertools.pairwise(canvas.trail), start=1):
        if a is not None and b is not None:
            cv2.line(drawn, a, b, (40, 90 + 165 * age // TRAIL, 255), 1 + 2 * age // TRAIL, cv2.LINE_AA)
    if ball is not None:
        x, y, radius = ball
        cv2.circle(drawn, (round(x), round(y)), round(radius), (255, 255, 255), 2, cv2.LINE_AA)
        text = f"x {x:.0f}  y {y:.0f}  r {radius:.0f}"
    else:
        text = "no ball"
    cv2.rectangle(drawn, (0, 0), (drawn.shape[1], 18), (30, 30, 30), cv2.FILLED)
    text = f"frame {canvas.frames}   {text}   found {100 * canvas.found // canvas.frames} %"
    cv2.putText(drawn, text, (6, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
    canvas.write(drawn)
    x, y, radius = ball or (0.0, 0.0, 0.0)
    return {"found": ball is not None, "x": x, "y": y, "radius": radius, "frames": canvas.frames}
