"""Commands that other processes end: SIGTERM and SIGHUP leave nothing open, lost or running."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from splitiot.cli._signals import Terminated, terminable
from tests.cli.helpers import TARGETS, process, serving

CAMERA = TARGETS / "camera.py"
ENDS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]


def lines_until(device: subprocess.Popen[str], count: int) -> None:
    assert device.stdout is not None
    for _ in range(count):
        assert device.stdout.readline(), device.communicate()[1]


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_run_closes_its_camera_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.setenv("CAMERA_FOLDER", str(tmp_path))
    kept = tmp_path / "out.npz"
    words = ["--edge", "none", "--count", 1_000_000, "--period", 0.01, "--save", kept, "--json"]
    device = process("run", CAMERA, *words)
    lines_until(device, 3)
    device.send_signal(number)
    out, err = device.communicate(timeout=60)
    assert (device.returncode, "Traceback" in err) == (code, False), err
    assert (tmp_path / "opened").exists() and (tmp_path / "closed").exists()
    totals = json.loads(out.splitlines()[-1])["totals"]
    with np.load(kept) as saved:
        assert [int(saved[name]) for name in saved] == [2 * k + 1 for k in range(totals["requests"])]
    assert ("interrupted" if number == signal.SIGINT else f"ended by {number.name}") in err


@pytest.mark.network
@pytest.mark.extra("http")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stream_closes_its_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    monkeypatch.setenv("CAMERA_FOLDER", str(tmp_path))
    device = process("run", CAMERA, "--window", 3, "--json", "--no-telemetry")
    lines_until(device, 3)
    device.send_signal(number)
    out, err = device.communicate(timeout=60)
    assert (device.returncode, "Traceback" in err) == (128 + number, False), err
    assert (tmp_path / "closed").exists()
    assert json.loads(out.splitlines()[-1])["totals"]["failed"] == 0


@pytest.mark.network
@pytest.mark.extra("http")
def test_a_camera_that_does_not_come_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_FOLDER", str(tmp_path))
    monkeypatch.setenv("CAMERA_FRAMES", "3")
    device = process("run", CAMERA, "--window", 3, "--json", "--no-telemetry")
    assert device.stderr is not None
    for line in device.stderr:
        if "the camera waits" in line:
            break
    device.send_signal(signal.SIGTERM)
    _, err = device.communicate(timeout=60)
    assert device.returncode == 143, err
    assert "still waits for its next value" in err and "Traceback" not in err


@pytest.mark.network
@pytest.mark.extra("http")
def test_a_server_whose_terminal_goes_ends_as_with_ctrl_c() -> None:
    with serving(TARGETS / "chain.py") as (_, server):
        server.send_signal(signal.SIGHUP)
        _, said = server.communicate(timeout=60)
        assert server.returncode == 0, said
    assert "served 0 requests" in said and "Traceback" not in said


@contextmanager
def children(parent: subprocess.Popen[str]) -> Iterator[dict[int, str]]:
    """Handles of a process's children by number, with their command lines."""
    handles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent.pid:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                handles[os.pidfd_open(int(entry.name))] = command
        except OSError:  # it has ended
            continue
    try:
        yield handles
    finally:
        for handle in handles:
            os.close(handle)


@pytest.mark.network
@pytest.mark.extra("litert", "http", "cli", "plot", "vision")
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are followed with Linux's pidfd")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_demonstration_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    demo = process("demo", "--out", tmp_path / "out", "--requests", 8, "--device-ms", 60)
    assert demo.stdout is not None
    try:
        for line in demo.stdout:
            if "fast" in line and "ms" in line:  # the first phase: all its processes are there
                break
        with children(demo) as handles:
            assert any("demo._edge" in command for command in handles.values()), handles
            assert any("demo._device" in command for command in handles.values()), handles
            demo.send_signal(number)
            demo.communicate(timeout=60)
            for handle, command in handles.items():
                assert select.select([handle], [], [], 30)[0], command
        assert demo.returncode == (143 if number == signal.SIGTERM else -number)
    finally:
        demo.kill()
        demo.communicate()


def test_what_was_is_again_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(Terminated, match="SIGHUP") as caught, terminable():
        signal.raise_signal(signal.SIGHUP)
    assert caught.value.number == signal.SIGHUP
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_the_clean_up_is_not_disturbed() -> None:
    done = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            done.append("cleaned")

    with pytest.raises(Terminated), terminable():
        work()
    assert done == ["cleaned"]


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_output_in_an_encoding_that_lacks_a_character(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text("import splitiot as si\ndef grüße(x):\n    return x\npipeline = si.tasks([grüße])\nsample = 1\n")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    ran = process("run", path, "--edge", "none", "--count", 1, "--json")
    _, err = ran.communicate(timeout=60)
    assert ran.returncode == 0, err
    for words in (["inspect", path], ["run", tmp_path / "größer.py"], ["--help"], ["inspect", path, "--json"]):
        ran = process(*words)
        _, err = ran.communicate(timeout=60)
        assert "Traceback" not in err and "UnicodeEncodeError" not in err, err
