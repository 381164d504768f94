"""`inputs` and `score` beside a pipeline: what `splitiot run` runs, and what it says of the results."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.cli.helpers import CHAIN, TARGETS, Cli, Said, process

SCORED = TARGETS / "scored.py"
ALONE = ("--edge", "none", "--no-telemetry")


def target(folder: Path, code: str) -> Path:
    """Write a pipeline that doubles, and what else a test wants beside it."""
    path = folder / "target.py"
    path.write_text(f"import splitiot as si\ndef double(x):\n    return 2 * x\npipeline = si.tasks([double])\n{code}\n")
    return path


def ran(said: Said) -> int:
    return len(said.lines) - 1


def test_all_inputs_and_the_score_of_their_results(cli: Cli) -> None:
    said = cli("run", SCORED, *ALONE, "--json")
    assert said.code == 3  # one was lost
    assert [r["error"] is None for r in said.lines[:-1]] == [True, True, True, False, True]
    assert said.lines[-1]["totals"]["requests"] == 5
    assert said.lines[-1]["score"] == {"sum": 1 + 3 + 5 + 9, "lost": 3, "of": 5}


def test_the_first_inputs(cli: Cli) -> None:
    said = cli("run", SCORED, *ALONE, "--count", 3, "--json")
    assert (said.code, ran(said)) == (0, 3)
    assert said.lines[-1]["score"] == {"sum": 9, "lost": -1, "of": 3}
    assert ran(cli("run", SCORED, *ALONE, "--count", 9, "--json")) == 5
    assert ran(cli("run", SCORED, *ALONE, "--count", 0, "--json")) == 5


@pytest.mark.extra("cli")
def test_the_score_stands_below_the_totals(cli: Cli) -> None:
    said = cli("run", SCORED, *ALONE, "--count", 3)
    assert said.code == 0
    assert said.out.endswith("cuts    2 (3x)\nsum 9\nlost -1\nof 3\n")


def test_files_instead(cli: Cli, tmp_path: Path) -> None:
    np.save(path := tmp_path / "in.npy", np.array(10))
    said = cli("run", SCORED, *ALONE, "--input", path, "--count", 2, "--json")
    assert said.code == 0
    assert said.lines[-1]["score"] == {"sum": 42, "lost": -1, "of": 2}
    assert ran(cli("run", SCORED, *ALONE, "--input", path, "--json")) == 20


@pytest.mark.parametrize(
    "code",
    [
        "inputs = [3, 1, 2]",
        "inputs = iter([3, 1, 2])",  # only once
        "inputs = (x for x in [3, 1, 2])\nsample = 0",
        "def inputs(): return [3, 1, 2]",
        "import itertools\ndef inputs(): yield 3; yield 1; yield 2; yield from itertools.count(9)",
        "import numpy as np\ninputs = np.array([3, 1, 2])",
    ],
)
def test_what_inputs_may_be(cli: Cli, tmp_path: Path, code: str) -> None:
    kept = tmp_path / "out.npz"
    said = cli("run", target(tmp_path, code), *ALONE, "--count", 3, "--save", kept, "--json")
    assert said.code == 0, said.err
    assert "score" not in said.lines[-1]
    with np.load(kept) as saved:
        assert [int(saved[name]) for name in sorted(saved)] == [6, 2, 4]


def test_the_first_input_is_a_sample(cli: Cli, tmp_path: Path) -> None:
    said = cli("profile", target(tmp_path, "inputs = [3]"), "--budget", 0.01, "--json")
    assert said.code == 0, said.err
    (tmp_path / "other").mkdir()
    assert "define `sample`" in cli("profile", target(tmp_path / "other", "inputs = []"), "--json").err


def test_endless_inputs_end_with_ctrl_c_and_a_score(tmp_path: Path) -> None:
    code = "import itertools\ninputs = itertools.count()\ndef score(values): return {'last': values[-1]}"
    device = process("run", target(tmp_path, code), *ALONE, "--period", 0.01, "--json")
    assert device.stdout is not None
    try:
        read = [json.loads(device.stdout.readline()) for _ in range(3)]
        device.send_signal(signal.SIGINT)
        out, err = device.communicate(timeout=60)
    finally:
        device.kill()
    assert device.returncode == 130, err
    *rest, last = map(json.loads, out.splitlines())
    count = len(read) + len(rest)
    # a last one may be counted and not shown
    assert last["totals"]["requests"] in (count, count + 1)
    assert last["score"]["last"] in (2 * (count - 1), 2 * count)


def test_a_step_is_no_hook(cli: Cli, tmp_path: Path) -> None:
    (path := tmp_path / "steps.py").write_text(
        "import splitiot as si\n"
        "def inputs(x): return x\n"
        "@si.task\ndef score(x): return -x\n"
        "pipeline = si.tasks([inputs]) + si.tasks([score])\n"
        "sample = 3\n"
    )
    said = cli("run", path, *ALONE, "--count", 2, "--json")
    assert said.code == 0, said.err
    assert (ran(said), "score" in said.lines[-1]) == (2, False)
    assert ran(cli("run", CHAIN, *ALONE, "--json")) == 20


UNUSABLE = {
    "inputs() raises": ("def inputs(): raise OSError('no camera')", "inputs() of", "no camera"),
    "no iterable": ("inputs = 3", "must be an iterable", "not int"),
    "a path": ("inputs = 'frames/'", "must be an iterable", "not str"),
    "a mapping": ("inputs = {'a': 1}", "must be an iterable", "not dict"),
    "none at all": ("inputs = []", "inputs of", "gives none"),
    "a score that is no function": ("sample = 1\nscore = 0.5", "score of", "not float"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_hooks_that_can_t_be_used(cli: Cli, tmp_path: Path, case: str) -> None:
    code, *words = UNUSABLE[case]
    said = cli("run", target(tmp_path, code), *ALONE, "--json")
    assert (said.code, said.out) == (2, "")
    assert all(each in said.err for each in words), said.err
    assert said.err.count("\n") == 1


def test_inputs_that_end_with_an_error(cli: Cli, tmp_path: Path) -> None:
    code = (
        "def inputs():\n    yield 1\n    yield 2\n    raise OSError('camera gone')\ndef score(values): return {'n': 1}"
    )
    said = cli("run", target(tmp_path, code), *ALONE, "--json")
    assert said.code == 3
    assert "camera gone" in said.err
    assert "number 3" in said.err
    assert said.lines[-1]["totals"]["requests"] == 2  # what was there is told
    assert "score" not in said.lines[-1]


@pytest.mark.extra("litert")
def test_an_input_that_the_network_does_not_take(cli: Cli, model: Path, tmp_path: Path) -> None:
    (path := tmp_path / "net.py").write_text(
        "import numpy as np, splitiot as si\n"
        f"pipeline = si.load_model({str(model)!r})\n"
        "inputs = [np.zeros((1, 6, 6, 2), np.float32), np.zeros(3, np.float32)]\n"
    )
    said = cli("run", path, *ALONE, "--json")
    assert said.code == 3
    assert "number 2" in said.err
    assert "expected float32[1, 6, 6, 2]" in said.err
    assert said.lines[-1]["totals"]["requests"] == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def score(values): raise KeyError('truth')", "raised KeyError('truth')"),
        ("def score(values): return 0.5", "numbers by name, got 0.5"),
        ("def score(values): return {'mota': 'good'}", "numbers by name"),
        ("def score(values): return {'mota': '0.5'}", "numbers by name"),
        ("def score(values): return {1: 0.5}", "numbers by name"),
        ("def score(values): return None", "numbers by name"),
    ],
)
def test_scores_that_are_none(cli: Cli, tmp_path: Path, code: str, words: str) -> None:
    said = cli("run", target(tmp_path, f"inputs = [1, 2]\n{code}"), *ALONE, "--json")
    assert said.code == 3
    assert "score() of" in said.err
    assert words in said.err
    assert list(said.lines[-1]) == ["totals"]  # the run was good
    assert said.lines[-1]["totals"]["requests"] == 2


def test_a_score_that_is_not_finite_is_null(cli: Cli, tmp_path: Path) -> None:
    code = "import numpy as np\ninputs = [1]\ndef score(values): return {'a': float('nan'), 'b': np.float32(0.5)}"
    assert cli("run", target(tmp_path, code), *ALONE, "--json").lines[-1]["score"] == {"a": None, "b": 0.5}
