"""Inputs that hold something, as a camera does: FOLDER/opened while it is open, FOLDER/closed behind that."""

import os
import sys
import threading
from pathlib import Path

import splitiot as si

FOLDER = Path(os.environ.get("CAMERA_FOLDER", "."))
FRAMES = int(os.environ.get("CAMERA_FRAMES", "1000000"))  # then it has no more, and does not say so


def frames():
    (FOLDER / "opened").touch()
    try:
        yield from range(FRAMES)
        sys.stderr.write("the camera waits\n")
        threading.Event().wait()
    finally:
        (FOLDER / "closed").touch()


def double(x):
    return 2 * x


def increment(x):
    return x + 1


pipeline = si.tasks([double, increment])
sample = 3
inputs = frames
