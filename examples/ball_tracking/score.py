"""How far the tracker's places lie from the truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scene import SEEN, WIDTH, Ball


def score(values: Iterable[dict[str, Any] | None], truth: Sequence[Ball], width: int) -> dict[str, float]:
    """Compare.

    Parameters
    ----------
    values : iterable of dict or None
        What the tracker gave for each frame from the first on; None for a frame that was dropped or failed.
    truth : sequence of Ball
        It begins anew where there are more values.
    width : int
        Of the picture that the tracker looked at: errors are in pixels of the video.

    Returns
    -------
    dict of str to float
        ``error_px`` (mean), ``error_median_px`` and ``error_p95_px`` over the frames where the ball is visible (half
        of it or more) and was found; ``found`` and ``missing``: the shares of the frames with a visible ball where it
        was found, or that have no value; ``false_alarms``: the share of the frames with nothing of the ball where one
        was found all the same.
    """
    scale = WIDTH / width
    errors: list[float] = []
    seen = found = missing = hidden = false = 0
    for number, value in enumerate(values):
        ball = truth[number % len(truth)]
        has = value is not None and bool(value["found"])
        if ball.visible >= SEEN:
            seen += 1
            found += has
            missing += value is None
        elif ball.visible == 0:
            hidden += 1
            false += has
        if value is not None and has and ball.visible >= SEEN:
            # pixels' centres: the small picture's first one covers the middle of the video's first two
            x, y = ((value[name] + 0.5) * scale - 0.5 for name in ("x", "y"))
            errors.append(math.hypot(x - ball.x, y - ball.y))
    return {
        "error_px": float(np.mean(errors)) if errors else math.nan,
        "error_median_px": float(np.median(errors)) if errors else math.nan,
        "error_p95_px": float(np.percentile(errors, 95)) if errors else math.nan,
        "found": found / max(1, seen),
        "missing": missing / max(1, seen),
        "false_alarms": false / max(1, hidden),
    }
