from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from splitiot.models import Model, VerifyReport
from tests import networks
from tests.cli.helpers import Cli


@pytest.mark.extra("litert")
def test_every_cut_is_checked(cli: Cli, model: Path) -> None:
    said = cli("verify", model, "--json", "--samples", 1)
    assert (said.code, said.err) == (0, "")
    found = said.document
    assert found["ok"]
    assert found["samples"] == 1
    assert [(line["cut"], line["ok"], line["nbytes"]) for line in found["lines"]] == [
        (0, True, 288),
        (1, True, 576),
        (2, True, 576),
        (3, True, 576),
        (4, True, 288),
        (5, True, 0),
    ]
    assert found["info"]["kernels"] == "default"


@pytest.mark.extra("litert", "cli")
def test_the_table_tells_what_it_holds_for(cli: Cli, refusing: Path) -> None:
    said = cli("verify", refusing, "--kernels", "reference", "--runtime", "litert")
    assert said.code == 0
    assert "litert" in said.out
    assert "reference kernels" in said.out
    assert "4 of 4 cuts exact, 1 refused (3): ok" in said.out


@pytest.mark.extra("litert")
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_difference_is_1(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    if form == "table":
        pytest.importorskip("rich", reason="rich (the extra 'cli') is not installed")
    verify = Model.verify

    def spoilt(self: Model, *args: Any, **options: Any) -> VerifyReport:
        report = verify(self, *args, **options)
        wrong = evolve(report.lines[2], ok=False, max_abs_difference=0.25, detail="sample 0: 't4' differs")
        return evolve(report, lines=(*report.lines[:2], wrong, *report.lines[3:]))

    monkeypatch.setattr(Model, "verify", spoilt)
    said = cli("verify", model, *(["--json"] if form == "json" else []))
    assert said.code == 1
    if form == "json":
        assert not said.document["ok"]
    else:
        assert "5 of 6 cuts exact: NOT OK" in said.out
        assert "differs (by up to 0.25)" in said.out


def test_a_model_that_can_t_be_checked_is_1(cli: Cli, tmp_path: Path) -> None:
    (path := tmp_path / "strings.tflite").write_bytes(networks.string_input())
    said = cli("verify", path, "--json")
    assert said.code == 1
    assert not said.document["ok"]
    assert "STRING" in said.document["detail"]


@pytest.mark.extra("litert")
def test_a_runtime_that_is_not_installed_is_2(cli: Cli, model: Path) -> None:
    from splitiot.models import available

    missing = sorted({"tflite-runtime", "tensorflow"} - set(available()))
    if not missing:
        pytest.skip("all runtimes are installed here")
    said = cli("verify", model, "--runtime", missing[0])
    assert said.code == 2
    assert "pip install" in said.err
