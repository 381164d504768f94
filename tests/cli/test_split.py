from __future__ import annotations

from pathlib import Path

import pytest

import splitiot as si
from splitiot.models import ModelPart, load_bundle
from tests.cli.helpers import Cli


def test_writes_both_parts(cli: Cli, model: Path, tmp_path: Path) -> None:
    said = cli("split", model, "--cut", 3, "--out", tmp_path / "new" / "folder", "--json")
    assert (said.code, said.err) == (0, "")
    found, parts = said.document, si.load_model(model).split(3)
    for kind, part in zip(("head", "tail"), parts, strict=True):
        path = Path(found[kind]["path"])
        assert path == tmp_path / "new" / "folder" / f"twoway.{kind}-3.tflite"
        assert path.read_bytes() == part.to_bytes()
        assert found[kind]["bytes"] == path.stat().st_size
        read = ModelPart.load(path)
        assert (read.start, read.stop) == (found[kind]["start"], found[kind]["stop"]) == (part.start, part.stop)
    assert (found["sent_bytes"], found["returned_bytes"]) == (576, 288)
    assert [t["bytes"] for t in found["crosses"]] == [576]


def test_writes_here_unless_told_otherwise(
    cli: Cli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("split", model, "--cut", 1, "--json").code == 0
    assert (tmp_path / "twoway.head-1.tflite").is_file()


@pytest.mark.extra("cli")
@pytest.mark.parametrize(
    ("cut", "kind", "words"), [(0, "tail", "no step to the device"), (5, "head", "no step to the edge")]
)
def test_a_part_without_steps_is_explained(
    cli: Cli, model: Path, tmp_path: Path, cut: int, kind: str, words: str
) -> None:
    said = cli("split", model, "--cut", cut, "--out", tmp_path / "out")
    assert said.code == 0
    assert words in said.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"twoway.{kind}-{cut}.tflite"]


def test_an_illegal_cut_is_refused_with_the_nearest_ones(cli: Cli, refusing: Path, tmp_path: Path) -> None:
    said = cli("split", refusing, "--cut", 3, "--out", tmp_path / "out")
    assert (said.code, said.out) == (2, "")
    assert "WHERE" in said.err
    assert "the nearest legal cuts are 2 and 4" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("cut", "near"), [(-1, 0), (6, 5)])
def test_a_cut_that_does_not_exist(cli: Cli, model: Path, cut: int, near: int) -> None:
    said = cli("split", model, "--cut", cut)
    assert said.code == 2
    assert "cuts are 0..5" in said.err
    assert f"the nearest legal cut is {near}" in said.err


def test_a_folder_that_can_t_be_made(cli: Cli, model: Path) -> None:
    said = cli("split", model, "--cut", 1, "--out", model / "below", "--json")
    assert said.code == 2
    assert "can't be made" in said.err


def test_all_cuts_make_a_bundle(cli: Cli, model: Path, tmp_path: Path) -> None:
    said = cli("split", model, "--all", "--out", tmp_path / "new" / "bundle", "--json")
    assert (said.code, said.err) == (0, "")
    found, bundle = said.document, load_bundle(tmp_path / "new" / "bundle")
    assert found["cuts"] == list(bundle.cuts) == [0, 1, 2, 3, 4, 5]
    assert [(p["start"], p["stop"]) for p in found["parts"]] == list(bundle.parts)
    assert found["bytes"] == sum(Path(p["path"]).stat().st_size for p in found["parts"])
    assert found["digest"] == bundle.digest == si.load_model(model).digest


def test_several_cuts_make_a_bundle(cli: Cli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("split", model, "--cut", 4, "--cut", 2, "--json").code == 0
    assert load_bundle("twoway.bundle").parts == ((0, 2), (0, 4), (0, 5), (2, 5), (4, 5))


@pytest.mark.extra("cli")
def test_a_bundle_is_shown(cli: Cli, model: Path, tmp_path: Path) -> None:
    said = cli("split", model, "--all", "--out", tmp_path / "bundle")
    assert said.code == 0
    assert "9 parts and manifest.json" in " ".join(said.out.split())


def test_a_bundle_overwrites_nothing_else(cli: Cli, model: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said = cli("split", model, "--all", "--out", tmp_path, "--json")
    assert (said.code, said.out) == (2, "")
    assert "no bundle" in said.err
    assert sorted(tmp_path.iterdir()) == before


def test_cuts_are_named_once(cli: Cli, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("split", model, "--all", "--cut", 1).code == 2
    assert cli("split", model).code == 2
