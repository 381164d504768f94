from __future__ import annotations

from pathlib import Path

import pytest

import splitiot as si
from splitiot.cli._target import load_target
from tests.cli.helpers import CHAIN, TARGETS, Cli

LINK = ["--rtt", 10, "--up", 1]


def save(path: Path, steps_s: list[float], target: str = CHAIN) -> Path:
    """A profile of the chain with made-up seconds: 800, 8000, 800 and 0 bytes up, 100 back."""
    pipeline = load_target(target).pipeline
    sizes = {"sent_bytes": [800, 8000, 400, 0], "returned_bytes": [100, 100, 100, 0]}
    si.TierProfile.from_steps(pipeline.digest, steps_s, machine=path.stem, **sizes).save(path)
    return path


@pytest.fixture
def profiles(tmp_path: Path) -> list[object]:
    device = save(tmp_path / "device.json", [0.001, 0.001, 0.2])
    edge = save(tmp_path / "edge.json", [0.0001, 0.0001, 0.001])
    return ["--device", device, "--edge", edge]


def test_json_is_what_solve_says(cli: Cli, profiles: list[object]) -> None:
    said = cli("plan", CHAIN, *LINK, "--down", 4, *profiles, "--json")
    assert (said.code, said.err) == (0, "")
    found = said.document
    device, edge = (si.TierProfile.load(str(path)) for path in profiles[1::2])
    link = si.Link.from_mbit_per_s(1, 4, rtt_s=0.01)
    plan = si.solve(load_target(CHAIN).pipeline, si.Topology(tiers=[device, edge], links=[link]))
    assert found["cut"] == plan.cut == 2
    assert found["split"]
    assert found["plan"] == plan.to_dict()
    assert [p["cuts"] for p in found["placements"]] == [[0], [1], [2], [3]]
    # 2 ms here, 400 bytes at 125 kB/s, 1 ms there, 100 bytes at 500 kB/s, 10 ms
    assert found["placements"][2]["latency_s"] == pytest.approx(0.002 + 0.0032 + 0.001 + 0.0002 + 0.01)
    assert found["placements"][2]["energy_j"] is None
    assert found["machines"] == {"device": "device", "edge": "edge"}


def test_tiers_can_be_scaled(cli: Cli, profiles: list[object]) -> None:
    words = ["plan", CHAIN, *LINK, *profiles, "--device-slowdown", 3, "--edge-speedup", 2, "--json"]
    row = cli(*words).document["placements"][2]
    assert (row["device_s"], row["edge_s"]) == (pytest.approx(0.006), pytest.approx(0.0005))


def test_objectives(cli: Cli, profiles: list[object]) -> None:
    words = ["plan", CHAIN, *LINK, *profiles, "--json"]
    assert cli(*words, "--objective", "period").document["plan"]["objective"] == "period_s"
    found = cli(*words, "--objective", "energy", "--watts", "2,1,0.5,0.1").document
    row = found["placements"][2]
    # 2 W computing, 1 W sending, 0.5 W receiving, 0.1 W waiting for edge and link
    assert row["energy_j"] == pytest.approx(2 * 0.002 + 0.0032 + 0.5 * 0.0008 + 0.1 * (0.001 + 0.01))
    said = cli(*words, "--objective", "energy")
    assert said.code == 2
    assert "--watts" in said.err


@pytest.mark.extra("cli")
def test_the_table_marks_best_and_runner_up(cli: Cli, profiles: list[object]) -> None:
    said = cli("plan", CHAIN, *LINK, *profiles)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 100
    marked = {line.partition("<- ")[2].strip(): line.split()[0] for line in said.out.splitlines() if "<-" in line}
    assert marked == {"best": "2", "runner-up": "0"}
    assert "plan 1: cut 2 (2 of 3 steps on the device)" in said.out
    assert "do not split" not in said.out


@pytest.mark.extra("cli")
def test_do_not_split_is_said(cli: Cli, profiles: list[object]) -> None:
    said = cli("plan", CHAIN, "--rtt", 10_000, "--up", 1, *profiles)
    assert "do not split: all local is best" in said.out


def test_measures_here_and_keeps_the_profile(cli: Cli, tmp_path: Path) -> None:
    kept = tmp_path / "here.json"
    said = cli("plan", CHAIN, *LINK, "--budget", 0.01, "--save-profile", kept, "--json")
    assert said.code == 0
    assert str(kept) in said.err
    found = si.TierProfile.load(kept)
    # arrays of 64, 512 and 64 float64 cross; at the end nothing does
    assert found.sent_bytes is not None
    assert found.sent_bytes.tolist() == [512, 4096, 512, 0]
    again = cli("plan", CHAIN, *LINK, "--device", kept, "--edge", kept, "--json")
    assert again.code == 0
    assert [p["sent_bytes"] for p in again.document["placements"]] == [512, 4096, 512, 0]


def test_pins_are_kept(cli: Cli) -> None:
    found = cli("plan", f"{CHAIN}:pinned", *LINK, "--budget", 0.01, "--json").document
    assert [p["cuts"] for p in found["placements"]] == [[1], [2]]


@pytest.mark.extra("litert")
def test_a_model_s_sample_is_made_up(cli: Cli, model: Path) -> None:
    found = cli("plan", model, *LINK, "--budget", 0.01, "--json").document
    assert [p["sent_bytes"] for p in found["placements"]] == [288, 576, 576, 576, 288, 0]


def test_nothing_feasible_is_1(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "torn.py"
    target.write_text(
        "import splitiot as si\n"
        "def a(x): return x\n"
        "def b(x): return x\n"
        "pipeline = si.tasks([si.task(a, tier='edge'), si.task(b, tier='device')])\n"
        "sample = 1.0\n"
    )
    said = cli("plan", target, *LINK, "--budget", 0.01, "--json")
    assert (said.code, said.out) == (1, "")
    assert "no legal cut" in said.err


def test_a_profile_of_another_pipeline(cli: Cli, tmp_path: Path) -> None:
    other = str(TARGETS / "chain.py") + ":pinned"
    kept = save(tmp_path / "other.json", [1, 1, 1], other)
    said = cli("plan", CHAIN, *LINK, "--device", kept, "--edge", kept, "--json")
    assert said.code == 2
    assert "another pipeline" in said.err


@pytest.mark.parametrize("text", ["nothing", "{}", '{"format": 99}'])
def test_a_file_that_is_no_profile(cli: Cli, tmp_path: Path, text: str) -> None:
    (path := tmp_path / "p.json").write_text(text)
    said = cli("plan", CHAIN, *LINK, "--device", path, "--edge", path, "--json")
    assert said.code == 2
    assert said.err.startswith("splitiot: ")


@pytest.mark.parametrize("words", [["--rtt", "-1", "--up", "1"], ["--rtt", "1", "--up", "0"], ["--rtt", "1"]])
def test_links_that_can_t_be(cli: Cli, words: list[str]) -> None:
    assert cli("plan", CHAIN, *words).code == 2
