from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import splitiot as si
from splitiot.cli._format import brief, ranges
from splitiot.models import save_bundle
from tests import networks
from tests.cli.helpers import CHAIN, Cli


def test_json_is_what_the_model_says(cli: Cli, model: Path) -> None:
    said = cli("inspect", model, "--json")
    assert (said.code, said.err) == (0, "")
    found, loaded = said.document, si.load_model(model)
    assert (found["n"], found["digest"], found["name"]) == (5, loaded.digest, "twoway")
    assert (found["stateful"], found["warnings"], found["sink"]) == (False, [], "device")
    assert found["input_bytes"] == 288
    assert [c["cut"] for c in found["cuts"]] == [0, 1, 2, 3, 4, 5]
    assert [c["sent_bytes"] for c in found["cuts"]] == [288, 576, 576, 576, 288, 0]
    # one result of 576 bytes exists from cut 2 on, another of 288 bytes comes last
    assert [c["returned_bytes"] for c in found["cuts"]] == [864, 864, 288, 288, 288, 0]
    assert [c["of_input"] for c in found["cuts"]] == [1, 2, 2, 2, 1, 0]
    assert [c["minimum"] for c in found["cuts"]] == [True, False, True, False, True, True]
    assert [c["step"] and c["step"]["kind"] for c in found["cuts"]] == [None, *(s.kind for s in loaded.steps)]
    assert [[t["name"] for t in c["tensors"]] for c in found["cuts"]] == [
        list(loaded.boundary(cut).names) for cut in loaded.cuts
    ]


def test_results_wanted_on_the_edge_cross(cli: Cli, model: Path) -> None:
    cuts = cli("inspect", model, "--sink", "edge", "--json").document["cuts"]
    assert [c["sent_bytes"] for c in cuts] == [si.load_model(model, sink="edge").boundary(k).nbytes for k in range(6)]
    assert [c["returned_bytes"] for c in cuts] == [0] * 6


def test_a_refused_cut_has_its_reason(cli: Cli, refusing: Path) -> None:
    cuts = cli("inspect", refusing, "--json").document["cuts"]
    assert [c["legal"] for c in cuts] == [True, True, True, False, True]
    assert "operator 2 (WHERE)" in cuts[3]["why"]
    assert cuts[3]["sent_bytes"] is None
    assert not cuts[3]["minimum"]


def test_functions_have_no_bytes_before_they_run(cli: Cli) -> None:
    found = cli("inspect", CHAIN, "--json").document
    assert [c["sent_bytes"] for c in found["cuts"]] == [None, None, None, 0]
    assert [c["step"] and c["step"]["name"] for c in found["cuts"]] == [None, "spread", "gather", "squares"]
    assert found["input_bytes"] is None


@pytest.mark.extra("cli")
def test_the_table_has_no_long_line_and_the_whole_reason(cli: Cli, refusing: Path) -> None:
    said = cli("inspect", refusing)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 100
    words = " ".join(said.out.split())
    assert "its shape is not fixed [1]" in words
    assert f"[1] cut 3: {si.load_model(refusing).refused[3]}" in words


@pytest.mark.extra("cli")
def test_every_cut_stands_on_a_line_of_its_own(cli: Cli, model: Path) -> None:
    rows = [line.split() for line in cli("inspect", model).out.splitlines()]
    assert [row[0] for row in rows if row and row[0].isdigit()] == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.extra("cli")
def test_brackets_in_names_are_no_markup(cli: Cli, tmp_path: Path) -> None:
    net = networks.Net()
    x = net.unary("TANH", net.input((1, 4), name="[bold]x[/bold]"))
    (path := tmp_path / "odd.tflite").write_bytes(net.write(net.unary("RELU", x)))
    assert "[bold]x[/bold]" in cli("inspect", path).out


@pytest.mark.extra("cli")
def test_stateful_models_say_so(cli: Cli, tmp_path: Path) -> None:
    (path := tmp_path / "counter.tflite").write_bytes(networks.counter())
    assert "stateful" in cli("inspect", path).out


def test_a_signature_that_is_not_there(cli: Cli, model: Path) -> None:
    said = cli("inspect", model, "--signature", "nope", "--json")
    assert said.code == 2
    assert "no signature 'nope'" in said.err


def test_short_words() -> None:
    assert ranges([]) == ""
    assert ranges([0, 1, 2, 7]) == "0-2, 7"
    assert len(brief("x" * 100)) <= 28


def test_shared_models_fit_in_100_columns(cli: Cli, models_dir: Path) -> None:
    pytest.importorskip("rich", reason="rich (the extra 'cli') is not installed")
    paths = sorted(models_dir.rglob("*.tflite"))
    assert paths
    for path in paths:
        said = cli("inspect", path)
        assert (path.name, said.code, said.err) == (path.name, 0, "")
        assert max(map(len, said.out.splitlines())) <= 100, path.name


def test_a_bundle_shows_what_is_here(cli: Cli, model: Path, tmp_path: Path) -> None:
    save_bundle(si.load_model(model), tmp_path / "bundle", cuts=[3])
    found = cli("inspect", tmp_path / "bundle", "--json").document
    assert (found["name"], found["digest"]) == ("twoway", si.load_model(model).digest)
    assert [c["cut"] for c in found["cuts"] if c["legal"]] == [0, 3, 5]
    assert {c["why"] for c in found["cuts"] if not c["legal"]} == {"no head in this bundle"}
    assert cli("inspect", tmp_path / "bundle", "--sink", "edge").code == 2
    assert "--signature" in cli("inspect", tmp_path / "bundle", "--signature", "a").err


def test_a_folder_without_a_manifest(cli: Cli, tmp_path: Path) -> None:
    said = cli("inspect", tmp_path)
    assert said.code == 2
    assert "no bundle" in said.err


@pytest.mark.extra("plot")
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture(cli: Cli, refusing: Path, tmp_path: Path, suffix: str) -> None:
    where = tmp_path / "new" / f"picture{suffix}"
    said = cli("inspect", refusing, "--plot", where, "--json")
    assert (said.code, said.err) == (0, "")
    assert said.document["plot"] == str(where)
    assert where.stat().st_size > 2000
    if suffix == ".svg":
        text = where.read_text("utf-8")
        assert "refused: a shape that is not known" in text  # svg has text as paths, and as comments


@pytest.mark.extra("plot", "cli")
def test_a_picture_beside_the_table(cli: Cli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("inspect", model, "--plot")
    assert said.code == 0
    assert "drawn in twoway.png" in said.out
    assert (tmp_path / "twoway.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.extra("plot")
def test_a_picture_of_anything(tmp_path: Path) -> None:
    from splitiot.cli._picture import draw

    # functions: no bytes known; hostile names: mathematics, control characters, letters that fonts lack; many steps
    def one(cut: int, n: int) -> dict[str, Any]:
        step = {"name": "$\\frac{$\x1b[31m\u4e2d" * 9, "kind": "task", "tier": None} if cut else None
        size = None if cut % 3 == 0 else 0 if cut == n else 10**cut if cut < 10 else cut
        return {
            "cut": cut, "step": step, "legal": cut % 5 != 4, "why": "something new", "sent_bytes": size,
            "returned_bytes": size, "minimum": cut % 4 == 0,
        }  # fmt: skip

    for n in (1, 150):
        cuts = [one(cut, n) for cut in range(n + 1)]
        found = {"name": "$x_$\u4e2d", "n": n, "cuts": cuts, "input_bytes": None}
        assert draw(found, tmp_path / f"{n}.png").stat().st_size > 2000


def test_a_picture_needs_a_suffix(cli: Cli, model: Path, tmp_path: Path) -> None:
    said = cli("inspect", model, "--plot", tmp_path / "picture.exe", "--json")
    assert said.code == 2
    assert ".png, .svg, .pdf" in said.err
