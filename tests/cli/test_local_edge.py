"""`splitiot run` without --edge: the edge that it starts beside, in real processes."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splitiot.cli._local_edge import GRACE_S
from tests.cli.helpers import CHAIN, TARGETS, Cli, process

pytestmark = pytest.mark.network

ALONE = "if 'serve' in sys.argv:\n    "  # what only the edge does


class Alive:
    """A pipe that processes of a target hold open; it ends when the last of them does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "alive"
        os.mkfifo(self.path)
        self._pipe = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    @property
    def code(self) -> str:
        """What a target does to be among them."""
        return f"held = open({str(self.path)!r}, 'w')"

    def ended(self) -> bool:
        """Wait until none is left."""
        readable, _, _ = select.select([self._pipe], [], [], 60)
        return bool(readable) and os.read(self._pipe, 1) == b""

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Alive]:
    yield (found := Alive(tmp_path))
    found.close()


def target(folder: Path, code: str = "", tail: str = "return 2 * x") -> Path:
    path = folder / "app.py"
    path.write_text(
        f"import os, sys, threading, splitiot as si\n{code}\n"
        "def same(x):\n    return x\n"
        f"def tail(x):\n    {tail}\n"
        "pipeline = si.tasks([same, si.task(tail, tier='edge')])\n"
        "sample = 3\n"
    )
    return path


@pytest.mark.extra("http")
def test_an_edge_is_started_beside_and_ends(cli: Cli, tmp_path: Path, alive: Alive) -> None:
    kept = tmp_path / "out.npz"
    words = ["run", target(tmp_path, alive.code), "--cut", 1, "--count", 3, "--save", kept, "--json"]
    device = process(*words)
    out, err = device.communicate(timeout=60)
    assert device.returncode == 0, err
    assert alive.ended()
    *requests, last = map(json.loads, out.splitlines())
    assert [(r["cut"], r["source"], r["exact"]) for r in requests] == [(1, "edge", True)] * 3
    assert all(r["network_s"] > 0 and r["edge_s"] > 0 for r in requests)
    assert last["totals"]["sources"] == {"edge": 3}
    assert err.count("an edge was started beside, at http://127.0.0.1:") == 1
    assert "edge:" not in err
    with np.load(kept) as saved:
        assert [int(saved[name]) for name in saved] == [6, 6, 6]


@pytest.mark.extra("http")
def test_only_its_device_may_connect_and_nobody_sees_how(cli: Cli, tmp_path: Path) -> None:
    path = target(tmp_path, ALONE + "print(sys.argv[1:], os.getsid(0) == os.getpid())")
    device = process("run", path, "--sink", "edge", "--count", 0, "--period", 0.01, "--json")
    assert device.stdout is not None
    try:
        assert json.loads(device.stdout.readline())["source"] == "edge"
        assert device.stderr is not None
        lines = [device.stderr.readline()]
        while "started beside" not in lines[-1]:
            lines.append(device.stderr.readline())
            assert lines[-1]
        url = re.findall(r"http://127\.0\.0\.1:\d+", lines[-1])[0]
        said = cli("run", path, "--edge", url, "--sink", "edge", "--count", 1, "--json")
    finally:
        device.send_signal(signal.SIGINT)
        out, err = device.communicate(timeout=60)
        device.kill()
    assert said.code == 3
    assert "bearer token" in said.err
    assert (device.returncode, "Traceback" in err) == (130, False)
    assert json.loads(out.splitlines()[-1])["totals"]["failed"] == 0
    runtime = "'--runtime=auto', '--kernels=default', '--threads=1', '--sink=edge'"
    words = f"['serve', '{path}', '--port=0', '--json', {runtime}]"
    # in a session of its own: Ctrl-C in a terminal is for the device, which ends the edge after its last request
    assert f"edge: {words} True\n" in "".join(lines) + err


@pytest.mark.extra("http")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_edge_does_not_outlive_the_device(tmp_path: Path, alive: Alive, number: signal.Signals) -> None:
    device = process("run", target(tmp_path, alive.code), "--count", 0, "--period", 0.01, "--json")
    assert device.stdout is not None
    try:
        assert json.loads(device.stdout.readline())["source"] == "edge"
        device.send_signal(number)
        assert alive.ended()
        device.communicate(timeout=60)
    finally:
        device.kill()


@pytest.mark.slow
@pytest.mark.extra("http")
def test_an_edge_that_hangs_does_not_outlive_the_device(tmp_path: Path, alive: Alive) -> None:
    hanging = "sys.stdout.write('hangs\\n') if x > 3 else None\n    return x if x == 3 else threading.Event().wait()"
    np.save(given := tmp_path / "in.npy", np.array(4))
    words = ["--profile", profile(tmp_path), "--input", given, "--json"]
    device = process("run", target(tmp_path, alive.code, hanging), *words)
    assert device.stderr is not None
    try:
        while "edge: hangs" not in (line := device.stderr.readline()):
            assert line
        began_s = time.monotonic()
        device.kill()
        assert alive.ended()
        assert time.monotonic() - began_s > 0.5 * GRACE_S  # it had time to end well
    finally:
        device.kill()
        device.communicate()


def profile(folder: Path) -> Path:
    """A profile of that target: measuring would hang here."""
    import splitiot as si

    def same(x: int) -> int:
        return x

    def tail(x: int) -> int:
        return x

    pipeline = si.tasks([same, si.task(tail, tier="edge")])
    made = si.TierProfile.from_steps(pipeline.digest, [1e-6, 1e-6], sent_bytes=[8, 8, 0], returned_bytes=[8, 8, 0])
    made.save(path := folder / "profile.json")
    return path


@pytest.mark.extra("http")
def test_what_the_target_prints_there_goes_to_stderr_and_blocks_nothing(tmp_path: Path) -> None:
    # what stands before the line that says where it listens has no end of its own
    path = target(tmp_path, ALONE + "print('imported')", tail="print('\\n' + 'x' * 9999, end=''); return x")
    device = process("run", path, "--count", 30, "--cut", 1, "--json")
    out, err = device.communicate(timeout=60)
    assert device.returncode == 0, err
    assert "edge: imported\n" in err
    assert err.count(f"edge: {'x' * 9999}\n") >= 30
    assert json.loads(out.splitlines()[-1])["totals"]["sources"] == {"edge": 30}


@pytest.mark.extra("http", "litert")
def test_it_gets_the_same_runtime(cli: Cli, model: Path) -> None:
    words = ["run", model, "--cut", 2, "--count", 1, "--kernels", "reference", "--threads", 2]
    said = cli(*words, "--json")
    assert said.code == 0, said.err
    assert (said.lines[0]["source"], said.lines[0]["exact"]) == ("edge", True)


@pytest.mark.parametrize(
    ("edge", "code", "words"),
    [
        ("raise RuntimeError('no edge on purpose')", 2, "no edge on purpose"),
        ("print('about to go', flush=True); os._exit(7)", 3, "it said: about to go"),
        ("os._exit(7)", 3, "it said: nothing"),
        ("sys.modules['uvicorn'] = None", 2, 'pip install "splitiot[http]"'),
    ],
)
def test_an_edge_that_does_not_start(cli: Cli, tmp_path: Path, edge: str, code: int, words: str) -> None:
    said = cli("run", target(tmp_path, ALONE + edge), "--count", 1, "--json")
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("splitiot: the edge beside did not start; it said: ")
    assert words in said.err
    assert said.err.count("\n") == 1


def test_with_debug_all_that_it_said_is_shown(tmp_path: Path) -> None:
    path = target(tmp_path, ALONE + "raise RuntimeError('no edge on purpose')")
    device = process("run", path, "--count", 1, "--json", "--debug")
    _, err = device.communicate(timeout=60)
    assert device.returncode == 1
    assert "edge: Traceback" in err
    assert "the edge beside did not start" in err


@pytest.mark.extra("http")
def test_an_edge_that_dies_is_a_fallback(cli: Cli) -> None:
    said = cli("run", f"{Path(CHAIN).with_name('dying.py')}", "--cut", 1, "--count", 4, "--json")
    assert said.code == 0, said.err
    assert [r["source"] for r in said.lines[:2]] == ["edge", "fallback"]
    assert {r["source"] for r in said.lines[2:-1]} <= {"local", "fallback"}


@pytest.mark.parametrize("words", [["--token-file", "mine"], ["--ca", "mine.pem"], ["--follow"]])
def test_what_is_for_an_edge_that_runs_already(cli: Cli, words: list[str]) -> None:
    said = cli("run", CHAIN, *words, "--json")
    assert (said.code, said.out) == (2, "")
    assert f"{words[0]} is for an edge that runs already" in said.err


@pytest.mark.extra("http")
@pytest.mark.parametrize("words", [["--cut", "1"], ["--cut", "0", "--window", "3"], ["--fps", "5"], ["--newest"]])
def test_streams_and_dropped_ones(cli: Cli, words: list[str]) -> None:
    target = str(TARGETS / "filtering.py")
    said = cli("run", target, *words, "--json")
    assert said.code == 0, said.err
    totals = said.lines[-1]["totals"]
    if "--newest" in words:  # which gave way to newer ones is chance
        assert totals["failed"] == 0
        return
    assert (totals["requests"], totals["failed"], totals["dropped"]) == (12, 0, 4)
    assert said.lines[-1]["score"] == {"right": 12}
    assert [line["dropped"] for line in said.lines[:-1]] == [x % 3 == 0 for x in range(12)]
    if "--cut" in words:
        assert totals["cuts"] == {words[1]: 12}
    said = cli("run", target, "--edge", "none")
    assert said.code == 0
    assert "0 without a value, 4 dropped by tasks" in said.out
