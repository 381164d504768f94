"""The video that is tracked, unless you give one of your own: a green ball on a photograph of a table.

It bounces from wall to wall in curves, comes nearer and goes away, and passes behind a post and a box. The picture
drifts, the light changes, the sensor is noisy. Where the ball is in each frame is known, so errors can be measured.

$ python examples/ball_tracking/scene.py     # renders it into the cache, and says where it is
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]

WIDTH, HEIGHT, FPS, FRAMES = 640, 360, 30, 300
PHOTOGRAPH = Path(__file__).with_name("table.jpg")
POST = (412, 0, 466, HEIGHT)  # left, top, right, bottom
BOX = (96, 286, 190, HEIGHT)
GREEN = np.array([62.0, 190.0, 74.0])  # blue, green, red, as OpenCV has it
SEEN = 0.5
"""A ball of which less than this share is visible need not be found."""


@frozen
class Ball:
    """Where the ball is in one frame, in pixels of it, and which share of its disc is visible."""

    frame: int
    x: float
    y: float
    radius: float
    visible: float


def path(frames: int = FRAMES) -> list[Ball]:
    """Where the ball is: gravity, walls that give back all speed, and a side wind that bends the way."""
    substeps = 32
    dt = 1 / (FPS * substeps)
    x, y, vx, vy = 70.0, 70.0, 185.0, 0.0
    found = []
    for number in range(frames):
        t = number / FPS
        radius = 19 + 4 * math.sin(2 * math.pi * t / 4.7)
        found.append(Ball(number, x, y, radius, _visible(x, y, radius)))
        for _ in range(substeps):
            vx += 160 * math.sin(2 * math.pi * t / 2.9) * dt
            vy += 520 * dt
            x, y, t = x + vx * dt, y + vy * dt, t + dt
            if (x < radius and vx < 0) or (x > WIDTH - radius and vx > 0):
                vx = -vx
            if y > HEIGHT - 6 - radius and vy > 0:
                vy = -math.sqrt(2 * 520 * 250)  # always as high
    return found


def _visible(x: float, y: float, radius: float) -> float:
    (left, top), disc = _disc(x, y, radius)
    return float((disc * ~_hidden()[top : top + len(disc), left : left + disc.shape[1]]).sum() / (math.pi * radius**2))


def _disc(x: float, y: float, radius: float) -> tuple[tuple[int, int], NDArray[np.float64]]:
    """Return the corner of a patch of the frame, and how much of each of its pixels a disc covers."""
    left, right = max(0, int(x - radius - 2)), min(WIDTH, int(x + radius + 3))
    top, bottom = max(0, int(y - radius - 2)), min(HEIGHT, int(y + radius + 3))
    ys, xs = np.mgrid[top:bottom, left:right]
    return (left, top), np.clip(radius + 0.5 - np.hypot(xs - x, ys - y), 0, 1)


def _hidden() -> NDArray[np.bool_]:
    hidden = np.zeros((HEIGHT, WIDTH), bool)
    for left, top, right, bottom in (POST, BOX):
        hidden[top:bottom, left:right] = True
    return hidden


def render(balls: list[Ball], seed: int = 0) -> Iterator[Picture]:
    """Give the frames."""
    random = np.random.default_rng(seed)
    photograph = np.asarray(cv2.imread(str(PHOTOGRAPH)), np.uint8)
    noise = [random.normal(0, 3.5, (HEIGHT + 64, WIDTH + 64, 3)).astype(np.float32) for _ in range(4)]
    front, hidden = _front(photograph), _hidden()
    for ball in balls:
        t = ball.frame / FPS
        frame = _background(photograph, t)
        _paint_ball(frame, ball)
        frame[hidden] = front[hidden]
        light = 1 + 0.15 * math.sin(2 * math.pi * t / 3.7)
        light *= 0.62 if 5.5 <= t < 7 else 1.0  # a lamp goes out for a while
        dx, dy = random.integers(0, 64, 2)
        grain = noise[ball.frame % len(noise)][dy : dy + HEIGHT, dx : dx + WIDTH]
        yield np.clip(frame * np.float32(light) + grain, 0, 255).astype(np.uint8)


def _background(photograph: Picture, t: float) -> NDArray[np.float32]:
    """The photograph, drifting and zooming a little."""
    zoom = 1.16 + 0.03 * math.sin(2 * math.pi * t / 6.1)
    height, width = photograph.shape[:2]
    dx = 10 * math.sin(2 * math.pi * t / 7.3) + WIDTH / 2 - zoom * width / 2
    dy = 6 * math.sin(2 * math.pi * t / 5.2) + HEIGHT / 2 - zoom * height / 2
    moved = np.array([[zoom, 0, dx], [0, zoom, dy]])
    return np.asarray(cv2.warpAffine(photograph, moved, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR), np.float32)


def _front(photograph: Picture) -> NDArray[np.float32]:
    """What the ball passes behind: a post and a box, of the table's wood."""
    front = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    wood = cv2.resize(photograph[60:340, 520:600], (120, 420)).astype(np.float32)
    for left, top, right, bottom in (POST, BOX):
        width, height = right - left, bottom - top
        grain = wood if height > width else np.ascontiguousarray(wood.transpose(1, 0, 2))
        piece = grain[20 : 20 + height, 20 : 20 + width]
        shade = np.linspace(0.95, 0.5, width, dtype=np.float32)[None, :, None]
        front[top:bottom, left:right] = piece * shade
        cv2.rectangle(front, (left, top - 2), (right - 1, bottom + 1), (18, 26, 40), 2)
    return front


def _paint_ball(frame: NDArray[np.float32], ball: Ball) -> None:
    (left, top), shadow = _disc(ball.x + 7, ball.y + 10, ball.radius)
    rows, columns = slice(top, top + len(shadow)), slice(left, left + shadow.shape[1])
    frame[rows, columns] *= (1 - 0.4 * shadow)[..., None]
    (left, top), disc = _disc(ball.x, ball.y, ball.radius)
    rows, columns = slice(top, top + len(disc)), slice(left, left + disc.shape[1])
    ys, xs = np.mgrid[rows, columns]
    nx, ny = (xs - ball.x) / ball.radius, (ys - ball.y) / ball.radius
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    lit = np.clip(-0.5 * nx - 0.6 * ny + 0.62 * nz, 0, 1)  # the lamp is above, on the left
    colour = GREEN * (0.5 + 0.6 * lit)[..., None] + (170 * lit**24)[..., None]
    frame[rows, columns] += (colour - frame[rows, columns]) * disc[..., None]


# files ------------------------------------------------------------------------------------------------------


def write_truth(file: Path, balls: list[Ball]) -> None:
    """Write a CSV file: frame, x, y, radius, visible."""
    with file.open("w", encoding="ascii", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(("frame", "x", "y", "radius", "visible"))
        rows.writerows((b.frame, f"{b.x:.4f}", f"{b.y:.4f}", f"{b.radius:.4f}", f"{b.visible:.4f}") for b in balls)


def read_truth(file: Path) -> list[Ball]:
    """Read what `write_truth` wrote."""
    with file.open(encoding="ascii", newline="") as opened:
        return [
            Ball(int(row["frame"]), *(float(row[name]) for name in ("x", "y", "radius", "visible")))
            for row in csv.DictReader(opened)
        ]


def open_writer(file: Path, *, width: int, height: int) -> Any:
    """Open a video for writing: MJPEG in AVI, which OpenCV writes and reads everywhere, without ffmpeg."""
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(file), cv2.CAP_OPENCV_MJPEG, fourcc, FPS, (width, height))
    if not writer.isOpened():
        raise OSError(f"{file} can't be written as a video")
    return writer


def folder() -> Path:
    """Where the rendered video lies: in the user's cache, under a name that changes with this file."""
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    made_from = Path(__file__).read_bytes() + PHOTOGRAPH.read_bytes()
    return Path(root) / "splitiot" / "ball_tracking" / hashlib.sha256(made_from).hexdigest()[:12]


def rendered(progress: Callable[[int, int], object] | None = None) -> tuple[Path, Path]:
    """Return the video and its truth, rendered now unless that was done before (3 seconds)."""
    there = folder()
    video, truth = there / "ball.avi", there / "truth.csv"
    if video.is_file():
        return video, truth
    there.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="making-", dir=there.parent))
    try:
        balls = path()
        write_truth(made / truth.name, balls)
        writer = open_writer(made / video.name, width=WIDTH, height=HEIGHT)
        for number, frame in enumerate(render(balls), start=1):
            writer.write(frame)
            if progress is not None:
                progress(number, len(balls))
        writer.release()
        try:
            made.rename(there)  # at once, so that nobody sees half a video
        except OSError:  # another process was faster
            if not video.is_file():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return video, truth


def show_progress(done: int, total: int) -> None:
    """Say so on stderr: on a terminal one line that grows."""
    if sys.stderr.isatty() and (done % 20 == 0 or done == total):
        print(f"\rrendering the video: {done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)
    elif done == 1:
        print(f"rendering the video, {total} frames, once", file=sys.stderr, flush=True)


if __name__ == "__main__":
    for made in rendered(show_progress):
        print(made)
