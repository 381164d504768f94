"""`splitiot profile` and `splitiot link`, and `plan --edge-url`: what a machine, a link and an edge cost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import splitiot as si
from splitiot.cli._target import load_target
from splitiot.profiling import _measure
from tests.cli.helpers import CHAIN, HARDWARE, Cli, serving

NOBODY = "http://127.0.0.1:1"


def test_json_is_the_profile(cli: Cli, tmp_path: Path) -> None:
    kept = tmp_path / "here.json"
    said = cli("profile", CHAIN, "--budget", 0.01, "--out", kept, "--json")
    assert said.code == 0
    assert str(kept) in said.err
    found = si.TierProfile.from_dict(said.document)
    assert found.to_dict() == json.loads(kept.read_text())
    assert found.digest == load_target(CHAIN).pipeline.digest
    assert found.steps_s is not None
    assert found.n == len(found.steps_s) == 3
    assert found.machine
    again = cli("plan", CHAIN, "--rtt", 1, "--up", 1, "--device", kept, "--edge", kept, "--json")
    assert again.code == 0


@pytest.mark.extra("cli")
def test_the_table(cli: Cli) -> None:
    said = cli("profile", CHAIN, "--budget", 0.01)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 100
    lines = {line.split()[0]: line.split() for line in said.out.splitlines() if line.strip()[:1].isdigit()}
    assert set(lines) == {"0", "1", "2", "3"}
    assert lines["3"][-2 if lines["3"][-1].startswith("#") else -1].endswith("%")
    assert "digest" in said.out
    shares = [float(word[:-1]) for row in lines.values() for word in row if word.endswith("%")]
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_of_one_tier(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "camera")
    assert cli("profile", HARDWARE, "--budget", 0.01, "--json").code == 3
    words = ("profile", HARDWARE, "--budget", 0.01, "--tier")
    heads = cli(*words, "device", "--json").document["heads_s"]
    assert 0 < heads[1] < heads[2] < heads[3]
    said = cli(*words, "edge", "--json")
    assert (said.code, said.out) == (3, "")
    assert "no accelerator" in said.err
    monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "camera accelerator")
    assert cli(*words, "edge", "--json").code == 0


def test_plan_measures_what_is_missing_as_what_it_is(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "camera accelerator")
    kept = tmp_path / "edge.json"
    assert cli("profile", HARDWARE, "--budget", 0.01, "--tier", "edge", "--out", kept, "--json").code == 0
    monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "camera")
    words = ("plan", HARDWARE, "--rtt", 1, "--up", 1, "--budget", 0.01, "--json")
    assert cli(*words, "--edge", kept).code == 0
    assert "no accelerator" in cli(*words).err


@pytest.mark.extra("cli")
def test_what_is_guessed_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "camera")
    said = cli("profile", HARDWARE, "--budget", 0.01, "--tier", "device")
    assert "only the other tier runs them: accelerator" in said.out


@pytest.mark.extra("litert", "cli")
def test_a_network(cli: Cli, model: Path) -> None:
    said = cli("profile", model, "--budget", 0.01, "--heads", 3, "--kernels", "reference")
    assert said.code == 0
    assert "reference kernels" in said.out


@pytest.mark.extra("plot")
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture(cli: Cli, tmp_path: Path, kind: str) -> None:
    picture = tmp_path / f"curves.{kind}"
    said = cli("profile", CHAIN, "--budget", 0.01, "--plot", picture, "--json")
    assert said.code == 0, said.err
    beginning = picture.read_bytes()[:5]
    assert beginning == (b"\x89PNG\r" if kind == "png" else b"<?xml")


@pytest.mark.extra("plot")
def test_a_picture_of_an_unknown_kind_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    said = cli("profile", CHAIN, "--plot", tmp_path / "curves.docx", "--json")
    assert (said.code, said.out) == (2, "")
    assert ".png" in said.err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--out", "no/such/folder/p.json"], "there is no folder"),
        (["--heads", "9"], "--heads"),
        (["--budget", "0"], "--budget"),
    ],
)
def test_unusable(cli: Cli, words: list[str], wanted: str) -> None:
    said = cli("profile", CHAIN, *words, "--json")
    assert (said.code, said.out) == (2, "")
    assert wanted in said.err


def test_noise_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_measure, "_noisy", lambda times: True)
    said = cli("profile", CHAIN, "--budget", 0.01, "--json")
    assert said.code == 0
    assert said.err.startswith("warning: this machine is noisy")


@pytest.mark.network
@pytest.mark.extra("http", "cli")
def test_link_and_plan_with_a_running_edge(cli: Cli) -> None:
    with serving(CHAIN) as (url, _):
        found = cli("link", url, "--count", 3, "--json")
        assert found.code == 0, found.err
        data = found.document
        assert 0 < data["rtt_min_s"] <= data["rtt_s"] < 5
        assert len(data["rtts_s"]) == 3
        assert data["up_bytes_per_s"] > 1e5
        assert data["down_bytes_per_s"] > 1e3
        shown = cli("link", url, "--count", 3)
        assert shown.code == 0
        (line,) = [line for line in shown.out.splitlines() if line.startswith("Link(")]
        numbers = {name: float(value) for name, value in re.findall(r"(\w+)=([^,)]+)", line)}
        assert si.Link(**numbers).rtt_s > 0
        planned = cli("plan", CHAIN, "--edge-url", url, "--budget", 0.01, "--json")
        assert planned.code == 0, planned.err
        assert "Mbit/s up" in planned.err
        assert planned.document["machines"]["edge"]
        both = cli("plan", CHAIN, "--edge-url", url, "--rtt", 3, "--json")
        assert both.code == 2
        other = cli("plan", f"{CHAIN}:pinned", "--edge-url", url, "--json")
        assert other.code == 2
        assert "does not serve this pipeline" in other.err


@pytest.mark.network
@pytest.mark.extra("http")
def test_an_edge_that_measured_nothing(cli: Cli) -> None:
    with serving(CHAIN, "--no-profile") as (url, _):
        said = cli("plan", CHAIN, "--edge-url", url, "--json")
    assert said.code == 2
    assert "has no profile" in said.err


@pytest.mark.network
@pytest.mark.extra("http")
def test_tokens(cli: Cli, tmp_path: Path) -> None:
    (tokens := tmp_path / "tokens").write_text("lamp secret\n")
    with serving(CHAIN, "--token-file", tokens) as (url, _):
        said = cli("link", url, "--json")
        assert said.code == 3
        assert "401" in said.err
        assert cli("link", url, "--count", 1, "--token-file", tokens, "--json").code == 0


@pytest.mark.network
@pytest.mark.parametrize("words", [["link", NOBODY], ["plan", CHAIN, "--edge-url", NOBODY]])
def test_nobody_there_is_3(cli: Cli, words: list[str]) -> None:
    said = cli(*words, "--json")
    assert (said.code, said.out) == (3, "")
    assert f"the edge at {NOBODY} can't be reached" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("url", ["edge:8443", "ftp://edge", "http://10.0.0.1:8765"])
def test_addresses_that_can_t_be(cli: Cli, url: str) -> None:
    assert cli("link", url, "--json").code == 2
