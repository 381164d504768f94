from __future__ import annotations

from pathlib import Path

import pytest

from tests import networks
from tests.cli.helpers import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SPLITIOT_TOKEN", raising=False)
    return Cli(capsys)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two results, one of them early; every cut is legal."""
    path = tmp_path / "twoway.tflite"
    path.write_bytes(networks.early_output())
    return path


@pytest.fixture
def refusing(tmp_path: Path) -> Path:
    """A network with cuts that are refused: data-dependent shapes."""
    path = tmp_path / "where.tflite"
    path.write_bytes(networks.where())
    return path
