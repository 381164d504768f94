"""How-to pages do what they say: their Python runs, and prints what stands below it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import networks
from tests.models.test_foreign import FILES, two_signatures
from tests.test_readme import ROOT, python

PAGES: dict[str, dict[str, Callable[[], bytes]]] = {
    "../faq": {"open.tflite": networks.open_input},
    "../limitations": {},
    "check-your-own": {},
    "deploy": {},
    "forks": {},
    "write-a-policy": {},
    "stays-local": {},
    "limits": {},
    "processes": {},
    "streams": {},
    "tasks": {},
    "torture": {},
    "state": {"keyword.tflite": networks.svdf, "counter.tflite": networks.counter},
    "unknown-models": {
        "network.onnx": lambda: FILES["net.onnx"][0],
        "network.pt": lambda: FILES["net.pt"][0],
        "network.keras": lambda: FILES["new.keras"][0],
        "network.tflite": networks.chain,
        "disordered.tflite": networks.disordered,
        "custom.tflite": networks.custom,
        "open.tflite": networks.open_input,
        "where.tflite": networks.where,
        "signatures.tflite": two_signatures,
    },
}


NOT_PYTHON = {
    "../faq": ["console"],
    "deploy": ["bash", "bash", "bash", "bash", "py", "nginx", "py", "bash", "ini"],
    "forks": ["console"],
    "processes": ["py", "bash", "py"],
    "torture": ["console"],
    "write-a-policy": ["console", "toml", "console", "console"],
}
"""Other blocks of a page: tests/cli/test_policy.py and tests/adapters/test_nginx.py look after these."""


@pytest.mark.extra("litert")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_and_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    for name, make in PAGES[page].items():
        (tmp_path / name).write_bytes(make())
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    code, printed = (re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.S | re.M) for kind in ("python", "text"))
    kinds = re.findall(r"^```(\w+)$", text, flags=re.M)
    assert [kind for kind in kinds if kind not in ("python", "text")] == NOT_PYTHON.get(page, []), "another kind"
    (tmp_path / "page.py").write_text("\n".join(code))
    ran = python("page.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "".join(printed)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_in_the_navigation(page: str) -> None:
    assert f"how-to/{page}.md".removeprefix("how-to/../") in (ROOT / "mkdocs.yml").read_text()


def test_a_run_is_recorded_and_replayed(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "record-and-replay.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.S | re.M)
    (tmp_path / "page.py").write_text("\n".join(blocks), "utf-8")
    ran = python("page.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("100 plans by LocalMode")
    assert "100 decisions" in ran.stdout
