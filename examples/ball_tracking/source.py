"""Where frames come from: the rendered video, a file of yours, or a camera.

SPLITIOT_BALL_SOURCE says which: `rendered` (unless it is set), the path of a video, or the number of a camera.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import cv2
import numpy as np
import scene
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]


def chosen() -> str:
    """What SPLITIOT_BALL_SOURCE says."""
    return os.environ.get("SPLITIOT_BALL_SOURCE") or "rendered"


class Source:
    """An open video or camera."""

    def __init__(self, what: str) -> None:
        if what == "rendered":
            what = str(scene.rendered(scene.show_progress)[0])
        self.is_camera = what.isdecimal()
        self._what = what
        self._video: Any = None
        self._next = 0
        self._open()

    def read(self, number: int) -> Picture | None:
        """Return frame `number` of a video, or the newest one of a camera; None where there is none."""
        if number != self._next and not self.is_camera:
            self._seek(number)
        there, frame = self._video.read()
        self._next = number + 1
        return np.asarray(frame, np.uint8) if there else None

    def count(self) -> int:
        """How many frames a video has."""
        return int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))

    def close(self) -> None:
        self._video.release()

    def _open(self) -> None:
        self._video = cv2.VideoCapture(int(self._what) if self.is_camera else self._what)
        if not self._video.isOpened():
            raise OSError(f"there is no {'camera' if self.is_camera else 'video'} {self._what}")

    def _seek(self, number: int) -> None:
        if number == 0:  # exact with every format
            self.close()
            self._open()
        else:
            self._video.set(cv2.CAP_PROP_POS_FRAMES, number)


@contextlib.contextmanager
def open_source() -> Iterator[Source]:
    """Set-up and tear-down of the first step."""
    source = Source(chosen())
    try:
        yield source
    finally:
        source.close()


def numbers() -> Iterator[int]:
    """The numbers of all frames: of a video from its first to its last, of a camera without end."""
    with open_source() as source:
        count = None if source.is_camera else source.count()
    return iter(itertools.count() if count is None else range(count))
