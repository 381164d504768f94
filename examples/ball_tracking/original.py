"""The same tracker as one loop, as one writes it who never heard of splitiot.

$ python examples/ball_tracking/original.py [VIDEO [ANNOTATED.avi]]
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import cv2


def track(video: str, annotated: str | None = None) -> list[dict[str, Any]]:
    """Find the ball in each frame, and draw it."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    trail: deque[tuple[int, int] | None] = deque(maxlen=32)
    writer: Any = None
    results: list[dict[str, Any]] = []
    frames = found_frames = 0
    reader = cv2.VideoCapture(video)
    while True:
        there, frame = reader.read()
        if not there:
            break

        height, width = frame.shape[:2]
        small = cv2.resize(frame, (320, 320 * height // width), interpolation=cv2.INTER_AREA)
        hsv = cv2.cvtColor(cv2.GaussianBlur(small, (11, 11), 0), cv2.COLOR_BGR2HSV)
        mask = cv2.inRange(hsv, (38, 80, 25), (85, 255, 255))
        mask = cv2.erode(mask, kernel, iterations=2)
        mask = cv2.dilate(mask, kernel, iterations=2)
        shapes, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)

        found, x, y, radius = False, 0.0, 0.0, 0.0
        if shapes:
            (cx, cy), r = cv2.minEnclosingCircle(max(shapes, key=cv2.contourArea))
            if r >= 4:
                found, x, y, radius = True, cx, cy, r

        frames += 1
        found_frames += found
        trail.append((round(x), round(y)) if found else None)
        for i in range(1, len(trail)):
            before, after = trail[i - 1], trail[i]
            if before is not None and after is not None:
                cv2.line(small, before, after, (40, 90 + 165 * i // 32, 255), 1 + 2 * i // 32, cv2.LINE_AA)
        text = "no ball"
        if found:
            cv2.circle(small, (round(x), round(y)), round(radius), (255, 255, 255), 2, cv2.LINE_AA)
            text = f"x {x:.0f}  y {y:.0f}  r {radius:.0f}"
        cv2.rectangle(small, (0, 0), (320, 18), (30, 30, 30), cv2.FILLED)
        text = f"frame {frames}   {text}   found {100 * found_frames // frames} %"
        cv2.putText(small, text, (6, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)

        if annotated is not None:
            if writer is None:
                fourcc = cv2.VideoWriter.fourcc(*"MJPG")
                size = (small.shape[1], small.shape[0])
                writer = cv2.VideoWriter(annotated, cv2.CAP_OPENCV_MJPEG, fourcc, 30, size)
            writer.write(small)
        results.append({"found": found, "x": x, "y": y, "radius": radius, "frames": frames})

    reader.release()
    if writer is not None:
        writer.release()
    return results


def main() -> None:
    if len(sys.argv) > 1:
        video = sys.argv[1]
    else:
        import scene

        video = str(scene.rendered(scene.show_progress)[0])
    results = track(video, sys.argv[2] if len(sys.argv) > 2 else None)
    print(f"{len(results)} frames, the ball found in {sum(r['found'] for r in results)}")


if __name__ == "__main__":
    main()
