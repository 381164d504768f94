"""The guides that can run do run: their blocks of Python, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_readme import ROOT, python


@pytest.mark.parametrize("name", ["record-and-replay.md"])
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / name).read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.S | re.M)
    (tmp_path / "page.py").write_text("\n".join(blocks), "utf-8")
    ran = python("page.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("100 plans by LocalMode")
    assert "100 decisions" in ran.stdout
