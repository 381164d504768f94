"""The demonstration, shortened: real processes, a real kill, and what it leaves behind."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.extra(name) for name in ("litert", "http", "cli", "plot", "vision")]


def demo(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "splitiot", "demo", "--out", str(out), *options],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_no_request_is_lost_and_none_is_wrong(tmp_path: Path) -> None:
    from PIL import Image

    out = tmp_path / "out"
    ran = demo(out, "--requests", "8", "--device-ms", "60")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with (out / "requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    policies = {row["policy"] for row in rows}
    assert policies == {"splitiot", "all local", "all edge", "fixed middle"}
    assert [row["phase"] for row in rows if row["policy"] == "splitiot"] == [
        phase for phase in ("fast", "slow", "edge dies", "recovered") for _ in range(8)
    ]
    assert all(row["right"] == "True" for row in rows)
    # the device is played: a whole run takes what was asked for, not what it takes here
    assert all(float(row["total_s"]) > 0.04 for row in rows if row["policy"] == "all local")
    own = [row for row in rows if row["policy"] == "splitiot"]
    assert {row["source"] for row in own if row["phase"] == "fast"} == {"edge"}
    dead = [row["source"] for row in own if row["phase"] == "edge dies"]
    assert set(dead[3:]) <= {"local", "fallback", "hedge"}  # killed after the second: nothing comes from it any more
    for name in ("requests.png", "found.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) >= 200
    assert {path.name for path in out.iterdir()} == {"requests.csv", "requests.png", "found.png"}  # no logs: no noise
    assert "lost" in ran.stdout and "peak memory" in ran.stdout


def test_a_network_that_takes_no_picture_is_refused(tmp_path: Path) -> None:
    from tests.networks import skip

    model = tmp_path / "model.tflite"
    model.write_bytes(skip())
    ran = demo(tmp_path / "out", "--model", str(model))
    assert ran.returncode not in (0, 1)
    assert "picture" in ran.stderr and "Traceback" not in ran.stderr


def test_bad_options(tmp_path: Path) -> None:
    ran = demo(tmp_path / "out", "--requests", "1")
    assert ran.returncode not in (0, 1)
    assert "--requests" in ran.stderr and "Traceback" not in ran.stderr
