"""`splitiot torture`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from splitiot.testing import simulate
from splitiot.testing.simulation.bugs import BUGS
from tests.cli.helpers import TARGETS, Cli

LOSS_ENDS = next(bug for bug in BUGS if bug.name == "loss-ends")
FAULTS = "signalled-partition,edge-crash"


def test_a_document(cli: Cli) -> None:
    said = cli("torture", "--seeds", 3, "--first-seed", 5, "--json")
    assert (said.code, said.err) == (0, "")
    found = said.document
    wanted = [simulate(seed=seed) for seed in (5, 6, 7)]
    assert (found["seeds"], found["first_seed"], found["failed"]) == (3, 5, 0)
    assert found["requests"] == sum(report.requests for report in wanted)
    assert sum(found["faults"].values()) == sum(len(report.faults) for report in wanted)
    assert found["bites"]["loss" if "loss" in found["bites"] else next(iter(found["bites"]))] > 0
    assert found["failures"] == [] and found["smallest"] is None


def test_processes_find_what_one_finds(cli: Cli) -> None:
    one = cli("torture", "--seeds", 5, "--json").document
    several = cli("torture", "--seeds", 5, "--jobs", 3, "--json").document
    assert one | {"seconds": 0} == several | {"seconds": 0}


def test_a_process_that_dies_is_an_error(cli: Cli, tmp_path: Path) -> None:
    elsewhere = f"import os\nif os.getpid() != {os.getpid()}:\n    os._exit(7)\n"
    (tmp_path / "mine.py").write_text(f"{elsewhere}from splitiot import LeastLatency\nmine = LeastLatency()\n")
    said = cli("torture", "--seeds", 2, "--jobs", 2, "--policy", f"{tmp_path / 'mine.py'}:mine", "--json")
    assert (said.code, said.out) == (3, "")
    assert "a worker ended: exit code 7" in said.err


def test_a_failure_is_explained(cli: Cli) -> None:
    with LOSS_ENDS.planted():
        said = cli("torture", "--seeds", 3, "--faults", FAULTS, "--json")
    assert said.code == 1
    found = said.document
    assert found["failed"] >= 1
    assert found["smallest"]["faults"] in (["signalled-partition"], ["edge-crash"])
    assert "no value" in found["explained"]
    assert f"--first-seed {found['smallest']['seed']}" in found["explained"]


@pytest.mark.extra("cli")
def test_tables(cli: Cli) -> None:
    said = cli("torture", "--seeds", 2, "--faults", "loss,jitter")
    assert said.code == 0
    assert "loss" in said.out and "2 seeds" in said.out and "0 failed" in said.out
    with LOSS_ENDS.planted():
        said = cli("torture", "--seeds", 2, "--faults", FAULTS)
    assert said.code == 1
    assert "Before that:" in said.out and "To run it again:" in said.out


def test_a_policy_by_name(cli: Cli) -> None:
    said = cli("torture", "--seeds", 1, "--policy", f"{TARGETS / 'policies.py'}:ready", "--stays-away", "--json")
    assert said.code == 0


@pytest.mark.parametrize("words", [["--faults", "rain"], ["--policy", "none-such"], ["--seeds", "0"], ["--jobs", "x"]])
def test_wrong_usage(cli: Cli, words: list[str]) -> None:
    said = cli("torture", *words, "--json")
    assert said.code == 2
    assert said.err


def test_teeth(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from splitiot.testing.simulation import bugs

    chosen = [bug for bug in BUGS if bug.name in ("ends-twice", "latency-short")]
    monkeypatch.setattr(bugs, "BUGS", chosen)
    said = cli("torture", "--teeth", "--seeds", 5, "--json")
    assert said.code == 0
    assert said.document["caught"] == 2
    assert {each["bug"]: each["promise"] for each in said.document["bugs"]} == {
        "ends-twice": "two outcomes",
        "latency-short": "wrong latency",
    }
