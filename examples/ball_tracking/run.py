"""The show: the sequential original, every cut, and automatic mode on a device whose speed changes.

$ python examples/ball_tracking/run.py [--out FOLDER]        # about a minute

The edge is a process of its own. The device is this one; for automatic mode it plays a slower machine, which takes as
many milliseconds for a frame as `PHASES` say. What comes out: a table, the annotated video that the edge wrote, and a
plot of the rate and the cut over time. It fails where any cut gives something else than the original.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import app
import original
import scene
from attrs import frozen

import splitiot as si

HERE = Path(__file__).parent
PHASES = (("quick", 0.015), ("busy", 0.042), ("slow", 0.140), ("busy", 0.042), ("quick", 0.015))
"""What the five steps between capture and drawing take together on the played device, in seconds."""
CAPTURE_S = 0.006
"""What capture takes there: a camera does not get slower."""


@frozen
class Arrived:
    """One frame of a run: when its outcome came, and at which cut it was run."""

    at_s: float
    cut: int
    value: dict[str, Any] | None


class PlayedDevice(si.Runner):
    """Takes as long for the steps before drawing as a slower machine would."""

    processing_s = 0.0
    """Of those behind capture together."""
    shares: Sequence[float] = ()
    """How it is divided among them."""

    def run_timed(
        self, start: int, stop: int, payload: Any, owner: Hashable = None
    ) -> tuple[Any, float, tuple[float, ...]]:
        result, seconds, steps_s = super().run_timed(start, stop, payload, owner)
        wanted = [CAPTURE_S, *(share * self.processing_s for share in self.shares)]
        played = tuple(max(took_s, wanted[step]) for step, took_s in enumerate(steps_s, start=start))
        wait_s = sum(played) - sum(steps_s)
        time.sleep(wait_s)
        return result, seconds + wait_s, played


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/ball"), help="where results go (%(default)s)")
    parser.add_argument("--fps", type=float, default=24.0, help="the target of automatic mode (%(default)s)")
    parser.add_argument("--phase", type=int, default=180, help="frames in each of its phases (%(default)s)")
    parser.add_argument("--cuts", type=int, nargs="*", default=app.pipeline.cuts, help="the others (all)")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    os.environ["SPLITIOT_BALL_SOURCE"] = "rendered"  # its truth is known
    video, _ = scene.rendered(scene.show_progress)

    began_s = time.monotonic()
    expected = original.track(str(video), str(out / "original.avi"))
    took_s = time.monotonic() - began_s
    print("             frames/s   error: mean  median  p95 px    found  lost  output")
    report("original", len(expected) / took_s, expected, "")

    same = True
    for cut in arguments.cuts:
        made = out / f"cut-{cut}.avi"
        arrived, took_s = run_cut(cut, made)
        values = [one.value for one in arrived]
        equal = values == expected and same_video(made, out / "original.avi")
        same = same and equal
        if equal:
            made.unlink()
        report(f"cut {cut}", len(values) / took_s, values, "the same" if equal else "DIFFERENT")

    arrived = run_automatically(arguments.fps, arguments.phase, out / "annotated.avi")
    values = [one.value for one in arrived]
    equal = all(places(value) == places(expected[k % len(expected)]) for k, value in enumerate(values))
    same = same and equal
    report("automatic", len(values) / arrived[-1].at_s, values, "the same" if equal else "DIFFERENT")
    try:
        draw_plot(arrived, arguments.fps, arguments.phase, out / "ball.png")
    except ImportError:
        print("no plot: it needs matplotlib (pip install matplotlib)")
    print(f"videos and plot: {out}")
    if not same:
        raise SystemExit("an output differs from the original's")


# runs -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def edge(video: Path, *options: str) -> Iterator[str]:
    """An edge in a process of its own, which writes an annotated video; gives its address."""
    command = [sys.executable, "-m", "splitiot", "serve", f"{HERE / 'app.py'}:pipeline", "--port", "0", "--json"]
    settings = {**os.environ, "SPLITIOT_BALL_VIDEO": str(video)}
    log = video.with_name("edge.log")
    with log.open("a", encoding="utf-8") as notes:
        process = subprocess.Popen([*command, *options], env=settings, stdout=subprocess.PIPE, stderr=notes, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the edge did not start: {log} says why")
            yield json.loads(line)["url"]
        finally:
            process.terminate()  # it ends its work, and closes the video
            process.communicate()


def run_cut(cut: int, video: Path) -> tuple[list[Arrived], float]:
    """Run the whole video at one cut, as fast as it goes."""
    with (
        edge(video, "--no-profile") as url,
        si.Device(app.pipeline, si.HttpTransport(url), policy=si.Fixed(cut), sample=app.sample) as device,
    ):
        began_s = time.monotonic()
        arrived = [take(outcome, began_s) for outcome in device.map(app.inputs(), window=3)]
        return arrived, time.monotonic() - began_s


def run_automatically(fps: float, phase: int, video: Path) -> list[Arrived]:
    """Run at the camera's pace, while the device gets slower and quick again."""
    own = si.profile(app.pipeline, app.sample)
    assert own.steps_s is not None  # tasks are timed one by one
    steps_s = [float(s) for s in own.steps_s]
    processing_s = sum(steps_s[1:-1])

    def camera() -> Iterator[int]:
        due_s = time.monotonic()
        for number in range(phase * len(PHASES)):
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s, time.monotonic()) + 1 / scene.FPS  # what is late is not made up for
            runner.processing_s = PHASES[number // phase][1]
            yield number % scene.FRAMES

    runner = PlayedDevice(app.pipeline)
    runner.shares = [s / processing_s for s in steps_s[1:-1]]
    policy = si.ThroughputTarget(fps)
    with (
        edge(video) as url,
        contextlib.closing(runner),
        si.Device(app.pipeline, si.HttpTransport(url), policy=policy, profile=own, runner=runner) as device,
    ):
        began_s = time.monotonic()
        return [take(outcome, began_s) for outcome in device.map(camera(), window=3)]


def take(outcome: si.Outcome, began_s: float) -> Arrived:
    if outcome.error is not None:
        print(f"a frame was lost: {outcome.error}", file=sys.stderr)
    cut = -1 if outcome.plan is None else outcome.plan.cut
    return Arrived(time.monotonic() - began_s, cut, outcome.value)


# results ----------------------------------------------------------------------------------------------------


def report(name: str, rate: float, values: Sequence[dict[str, Any] | None], output: str) -> None:
    """Print a line of the table."""
    found = app.score(values)
    errors = f"{found['error_px']:>11.2f} {found['error_median_px']:>7.2f} {found['error_p95_px']:>7.2f}"
    shares = f"{found['found']:>6.1%} {sum(value is None for value in values):>5}"
    print(f"{name:<12} {rate:>8.1f}   {errors}   {shares}  {output}".rstrip(), flush=True)


def places(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """A value without its count of frames, which goes on when the video begins anew."""
    return None if value is None else {name: value[name] for name in value if name != "frames"}


def same_video(one: Path, other: Path) -> bool:
    """Whether two videos have the same pixels: MJPEG writes the same bytes for them."""
    return one.read_bytes() == other.read_bytes()


def draw_plot(arrived: Sequence[Arrived], fps: float, phase: int, file: Path) -> None:
    """Draw the rate and the cut over time."""
    import numpy as np
    from matplotlib import pyplot as plt

    times = np.array([one.at_s for one in arrived])
    cuts = [one.cut for one in arrived]
    window_s = 1.0
    at = np.arange(window_s, times[-1], 0.1)
    rates = (np.searchsorted(times, at) - np.searchsorted(times, at - window_s)) / window_s
    names = [step.name for step in app.pipeline.steps]

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 6.4), sharex=True, height_ratios=(1, 1.15))
    ends = [0.0, *(float(times[k * phase - 1]) for k in range(1, len(PHASES) + 1))]
    for k, (name, seconds) in enumerate(PHASES):
        for axes in (top, bottom):
            axes.axvspan(ends[k], ends[k + 1], color="tab:orange", alpha=min(0.5, 0.02 + 2 * seconds), lw=0)
        text = f"{name}\n{seconds * 1e3:.0f} ms a frame"
        top.text((ends[k] + ends[k + 1]) / 2, scene.FPS * 1.28, text, ha="center", va="top")
    top.plot(at, rates, color="tab:blue", label="rate, over the last second")
    top.axhline(fps, color="tab:red", ls="--", lw=1.2, label=f"target: {fps:g} frames/s")
    top.axhline(scene.FPS, color="gray", ls=":", lw=1.2, label=f"camera: {scene.FPS} frames/s")
    top.set(ylabel="frames/s", ylim=(0, scene.FPS * 1.32), title="Ball tracking: the cut follows the device's speed")
    top.legend(loc="lower left", ncols=3, framealpha=0.9)
    bottom.step(times, cuts, where="post", color="tab:green", lw=1.8)
    legal = app.pipeline.cuts
    bottom.set_yticks(legal, [f"{names[cut - 1].replace('_', ' ')}  {cut}" for cut in legal])
    bottom.set(ylim=(legal[0] - 0.5, legal[-1] + 0.5), ylabel="cut: last step on the device", xlabel="seconds")
    bottom.grid(axis="y", alpha=0.3)
    bottom.set_xlim(0, float(times[-1]))
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
