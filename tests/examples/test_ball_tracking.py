"""The ball tracker: its video tells the truth, it finds the ball, and each cut gives what the plain loop gives."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitiot as si
from tests.examples.loading import EXAMPLES, load

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install -r tools/requirements/examples.txt")
FOLDER = EXAMPLES / "ball_tracking"
app, original, scene, scoring, source, steps = load(
    "ball_tracking", "app", "original", "scene", "score", "source", "steps"
)
CLIP = range(60, 96)
"""Frames of a short video: the ball passes behind the post, and comes out again."""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPLITIOT_BALL_SOURCE", "SPLITIOT_BALL_VIDEO"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def video() -> Path:
    file: Path = scene.rendered()[0]
    return file


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = scene.open_writer(file, width=scene.WIDTH, height=scene.HEIGHT)
    for frame in scene.render(scene.path()[CLIP.start : CLIP.stop]):
        writer.write(frame)
    writer.release()
    return file


@pytest.fixture(scope="module")
def expected(clip: Path) -> tuple[list[dict[str, Any]], bytes]:
    """What the plain loop says, and the video that it writes."""
    annotated = clip.with_name("annotated.avi")
    return original.track(str(clip), str(annotated)), annotated.read_bytes()


# the scene --------------------------------------------------------------------------------------------------


def test_the_same_frames_each_time() -> None:
    balls = scene.path(4)
    first, second = (list(scene.render(balls)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first[0].shape == (scene.HEIGHT, scene.WIDTH, 3)
    assert not np.array_equal(first, list(scene.render(balls, seed=1)))


def test_the_truth_is_true() -> None:
    balls = scene.path()
    assert len(balls) == scene.FRAMES
    for ball in balls:
        assert ball.radius <= ball.x <= scene.WIDTH - ball.radius + 10
        assert 0 < ball.y < scene.HEIGHT
    whole = [ball for ball in balls if ball.visible > 0.99]
    hidden = [ball for ball in balls if ball.visible == 0]
    assert len(whole) > 200
    assert len(hidden) >= 8
    shown = [*whole[::40], *hidden[::4]]
    for ball, frame in zip(shown, scene.render(shown), strict=True):
        blue, green, red = frame[round(ball.y), round(ball.x)].astype(int)
        assert (green > blue + 30 and green > red + 30) == (ball in whole), ball


def test_the_truth_is_kept_in_a_file_beside_the_video(video: Path) -> None:
    truth = scene.read_truth(video.with_name("truth.csv"))
    assert [ball.frame for ball in truth] == list(range(scene.FRAMES))
    for read, made in zip(truth, scene.path(), strict=True):
        assert (read.x, read.y, read.radius) == pytest.approx((made.x, made.y, made.radius), abs=1e-4)
    assert not list(video.parents[1].glob("making-*"))


def test_it_is_rendered_once(video: Path) -> None:
    before = video.stat().st_mtime_ns
    assert scene.rendered(lambda done, total: pytest.fail("rendered again"))[0] == video
    assert video.stat().st_mtime_ns == before


def test_what_was_begun_and_given_up_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def give_up(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.rendered(give_up)
    assert list((tmp_path / "splitiot" / "ball_tracking").iterdir()) == []


# the tracker ------------------------------------------------------------------------------------------------


def test_the_ball_is_found(video: Path) -> None:
    found = app.score(original.track(str(video)))
    assert found["error_median_px"] < 1
    assert found["error_px"] < 1.5
    assert found["error_p95_px"] < 5
    assert found["found"] >= 0.98
    assert found["false_alarms"] == 0
    assert found["missing"] == 0


def test_the_score_measures(video: Path) -> None:
    truth = scene.path()
    scale = scene.WIDTH / steps.WIDTH

    def value(ball: Any, dx: float = 0.0) -> dict[str, Any]:
        x, y = (ball.x + dx + 0.5) / scale - 0.5, (ball.y + 0.5) / scale - 0.5
        return {"found": True, "x": x, "y": y, "radius": ball.radius / scale}

    right = app.score([value(ball) for ball in truth])
    assert right["error_px"] == pytest.approx(0, abs=1e-3)
    assert (right["found"], right["false_alarms"]) == (1, 1)  # it "found" the ball behind the post, too
    beside = app.score([value(ball, dx=3) for ball in truth])
    assert (beside["error_median_px"], beside["error_p95_px"]) == pytest.approx((3, 3), abs=1e-3)
    nothing = app.score([None, {"found": False, "x": 0.0, "y": 0.0}])
    assert math.isnan(nothing["error_px"])
    assert (nothing["found"], nothing["missing"], nothing["false_alarms"]) == (0, 0.5, 0)


def test_the_largest_green_thing_is_the_ball() -> None:
    picture = np.zeros((180, 320, 3), np.uint8)
    mask = np.zeros((180, 320), np.uint8)
    for x, radius in ((40, 6), (200, 15), (290, 9)):
        cv2.circle(mask, (x, 90), radius, 255, cv2.FILLED)
    place = steps.contours(picture, mask)[1]
    assert place == pytest.approx((200, 90, 15), abs=1)
    assert steps.contours(picture, np.zeros_like(mask))[1] is None
    speck = cv2.circle(np.zeros_like(mask), (200, 90), 2, 255, cv2.FILLED)
    assert steps.contours(picture, speck)[1] is None


def test_pins_leave_six_cuts() -> None:
    assert app.pipeline.n == 7
    assert app.pipeline.cuts == (1, 2, 3, 4, 5, 6)


def test_the_pipeline_gives_what_the_loop_gives(
    clip: Path, expected: tuple[list[dict[str, Any]], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITIOT_BALL_SOURCE", str(clip))
    monkeypatch.setenv("SPLITIOT_BALL_VIDEO", str(tmp_path / "out" / "annotated.avi"))
    with si.Runner(app.pipeline) as runner:
        values = [runner.run(0, app.pipeline.n, number, "me")[0] for number in app.inputs()]
    assert values == expected[0]
    assert (tmp_path / "out" / "annotated.avi").read_bytes() == expected[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["annotated.avi"]
    assert app.pipeline.run(0) == expected[0][0]


@pytest.mark.parametrize("cut", app.pipeline.cuts)
def test_every_cut_gives_what_the_loop_gives(
    cut: int,
    clip: Path,
    expected: tuple[list[dict[str, Any]], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPLITIOT_BALL_SOURCE", str(clip))
    monkeypatch.setenv("SPLITIOT_BALL_VIDEO", str(tmp_path / "annotated.avi"))
    with si.EdgeService([app.pipeline]) as service:
        transport = si.InMemory(lambda frame: service.handle(frame, peer="camera"))
        some_bytes = [100.0] * (app.pipeline.n + 1)  # any profile does: the cut is fixed
        profile = si.TierProfile.from_steps(
            app.pipeline.digest, [0.001] * app.pipeline.n, sent_bytes=some_bytes, returned_bytes=some_bytes
        )
        with si.Device(app.pipeline, transport, policy=si.Fixed(cut), profile=profile) as device:
            outcomes = list(device.map(app.inputs(), window=3))
    assert {(outcome.source, outcome.plan.cut) for outcome in outcomes if outcome.plan} == {("edge", cut)}
    assert [outcome.value for outcome in outcomes] == expected[0]
    assert (tmp_path / "annotated.avi").read_bytes() == expected[1]


# sources ----------------------------------------------------------------------------------------------------


def test_a_source_gives_the_frame_that_is_asked_for(clip: Path) -> None:
    opened = source.Source(str(clip))
    frames = [opened.read(number) for number in range(opened.count())]
    assert len(frames) == len(CLIP)
    for number in (0, 7, 3, 4, 0):
        assert np.array_equal(opened.read(number), frames[number])
    opened.close()


def test_frames_in_order_are_read_without_seeking(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[int] = []
    monkeypatch.setattr(source.Source, "_seek", lambda self, number: sought.append(number))
    opened = source.Source(str(clip))
    for number in (0, 1, 2, 9):
        opened.read(number)
    opened.close()
    assert sought == [9]


def test_a_frame_that_is_not_there_is_dropped(clip: Path) -> None:
    opened = source.Source(str(clip))
    assert steps.capture(opened, len(CLIP) + 5) is si.DROP
    assert isinstance(steps.capture(opened, 1), np.ndarray)
    opened.close()


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no video .*nothing\.avi"):
        source.Source(str(tmp_path / "nothing.avi"))


# the scripts ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.extra("http")
@pytest.mark.extra("plot")
def test_the_show(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "--out", str(tmp_path), "--cuts", "4", "--phase", "20"]
    ran = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["original", "cut 4", "automatic"]
    assert all(line.endswith("the same") for line in lines[2:4])
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"original.avi", "annotated.avi", "ball.png", "edge.log"}
    annotated = cv2.VideoCapture(str(tmp_path / "annotated.avi"))
    assert annotated.get(cv2.CAP_PROP_FRAME_COUNT) == 100


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.extra("http")
@pytest.mark.extra("cli")
@pytest.mark.parametrize("how", [["--cut", "3"], ["--fps", "24"]])
def test_the_command_line_runs_it_and_tells_the_error(
    how: list[str], clip: Path, expected: tuple[list[dict[str, Any]], bytes], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "splitiot", "run", f"{FOLDER / 'app.py'}:pipeline", "--json", *how]
    settings = {"SPLITIOT_BALL_SOURCE": str(clip), "SPLITIOT_BALL_VIDEO": str(tmp_path / "annotated.avi")}
    ran = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    assert last["totals"]["requests"] == len(CLIP)
    found = sum(value["found"] for value in expected[0]) / len(CLIP)
    assert last["score"] == pytest.approx({"found": found})
    assert (tmp_path / "annotated.avi").read_bytes() == expected[1]


def test_the_page_shows_the_pipeline() -> None:
    page = (FOLDER.parents[1] / "docs" / "how-to" / "track-a-ball.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.S | re.M)
    assert code in (FOLDER / "app.py").read_text("utf-8")
    for name in ("SPLITIOT_BALL_SOURCE", "SPLITIOT_BALL_VIDEO", "tools/requirements/examples.txt"):
        assert name in page
