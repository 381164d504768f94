"""`splitiot replay`, and the logs that `splitiot run --trace` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitiot.policies import LocalMode
from splitiot.policies.best import LeastLatency
from splitiot.sim import load_trace, replay
from tests.cli.helpers import CHAIN, TARGETS, Cli, serving
from tests.cli.test_run import free_port
from tests.sim.logs import logged

POLICIES = TARGETS / "policies.py"


def test_scores_are_those_of_replay(cli: Cli, tmp_path: Path) -> None:
    trace = logged(tmp_path, LocalMode(LeastLatency(), 0.3))
    path = tmp_path / "trace.jsonl"
    said = cli("replay", path, "--policy", "least-latency", "--policy", "local", "--json")
    assert (said.code, said.err) == (0, "")
    found = said.document
    wanted = replay(trace, LeastLatency)
    assert wanted.log is not None
    assert found["scores"]["least-latency"] == wanted.to_dict() | {"log": None}
    assert found["log"] == wanted.log.to_dict()
    assert list(found["scores"]) == ["least-latency", "local"]
    assert found["scores"]["local"]["switches"] == 0
    assert (found["trace"], found["digest"], found["dropped"]) == (str(path), trace.header.digest, 0)
    assert found["policy"] == "LocalMode(policy=LeastLatency(), probability=0.3)"


def test_options_are_those_of_replay(cli: Cli, tmp_path: Path) -> None:
    trace = logged(tmp_path, LeastLatency())
    words = ["replay", tmp_path / "trace.jsonl", "--policy", f"{POLICIES}:ready", "--seed", 3, "--window", 0, "--json"]
    said = cli(*words, "--objective", "period")
    score = said.document["scores"][f"{POLICIES}:ready"]
    from tests.cli.targets.policies import ready

    wanted = replay(trace, lambda: ready, seed=3, window=0, objective="period_s").to_dict()
    assert score == wanted | {"log": None}
    assert score["objective"] == "period_s"


@pytest.mark.extra("cli")
def test_a_table_with_a_row_for_each_policy(cli: Cli, tmp_path: Path) -> None:
    logged(tmp_path, LocalMode(LeastLatency(), 0.3))
    path = tmp_path / "trace.jsonl"
    said = cli("replay", path, "--policy", "least-latency", "--policy", "local")
    assert said.code == 0
    assert "60 decisions, 60 of them measured" in said.out
    starts = [line.split()[0] for line in said.out.splitlines() if line.strip()]
    assert starts.index("the") < starts.index("least-latency") < starts.index("local")
    assert "the log's policy: LocalMode" in said.out
    path.write_bytes(path.read_bytes()[:-20])
    assert cli("replay", path).err == "warning: 1 torn lines were dropped\n"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["nowhere.jsonl"], "there is no file nowhere.jsonl"),
        ([CHAIN], "chain.py, line 1 is no line of a trace"),
        (["--policy", "wisest"], "least-latency, local"),
        (["--policy", f"{POLICIES}:Wanting"], "without arguments"),
        (["--objective", "energy"], "watts"),
        (["--window", "-1"], "usage"),
    ],
)
def test_unusable(cli: Cli, tmp_path: Path, words: list[str], wanted: str) -> None:
    logged(tmp_path, requests=3)
    if words[0].startswith("--"):
        words = [str(tmp_path / "trace.jsonl"), *words]
    said = cli("replay", *words, "--json")
    assert said.code == 2
    assert wanted in said.err
    assert said.out == ""


def test_another_version_is_2(cli: Cli, tmp_path: Path) -> None:
    logged(tmp_path, requests=3)
    path = tmp_path / "trace.jsonl"
    path.write_text(path.read_text().replace('"format":1,"splitiot"', '"format":9,"splitiot"', 1))
    said = cli("replay", path, "--json")
    assert said.code == 2
    assert "this version reads 1" in said.err


@pytest.mark.network
def test_a_run_without_an_edge_s_answer_is_logged(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new" / "trace.jsonl"
    url = f"http://127.0.0.1:{free_port()}"
    assert cli("run", CHAIN, "--edge", url, "--count", 3, "--trace", path, "--json").code == 3
    trace = load_trace(path)
    assert [(p.cut, p.edge_up) for p in trace.plans] == [(3, False)] * 3
    assert cli("replay", path, "--policy", "local", "--json").document["scores"]["local"]["coverage"] == 1.0


@pytest.mark.extra("http")
@pytest.mark.network
def test_a_run_is_logged_and_replayed(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with serving(CHAIN) as (url, _):
        policy = f"{POLICIES}:OneStep"
        said = cli("run", CHAIN, "--edge", url, "--policy", policy, "--count", 6, "--trace", path, "--json")
    assert said.code == 0
    trace = load_trace(path)
    assert [p.cut for p in trace.plans] == [line["cut"] for line in said.lines[:-1]] == [1] * 6
    assert trace.header.policy == "OneStep(cut=1)"
    totals = [row["total_s"] for row in trace.to_rows()]
    assert all(0 < t <= line["total_s"] for t, line in zip(totals, said.lines[:-1], strict=True))
    found = cli("replay", path, "--policy", policy, "--policy", "local", "--json").document["scores"]
    assert found[policy]["coverage"] == 1.0
    assert found["local"]["coverage"] == 0.0


def test_without_an_edge_there_is_nothing_to_log(cli: Cli, tmp_path: Path) -> None:
    said = cli("run", CHAIN, "--edge", "none", "--trace", tmp_path / "t", "--json")
    assert said.code == 2
    assert "--trace" in said.err
    assert list(tmp_path.iterdir()) == []
