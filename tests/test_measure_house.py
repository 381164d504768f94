"""The tool that counts circles of imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "measure_house.py"


def measured(package: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, package, *options], capture_output=True, text=True, check=False)


def write_package(folder: Path, **sources: str) -> Path:
    package = folder / "house"
    package.mkdir()
    for name, source in {"__init__": "", **sources}.items():
        (package / f"{name}.py").write_text(source)
    return package


@pytest.mark.parametrize(
    "back",
    [
        "import house.first",
        "from house import first",
        "from house.first import thing",
        "def later():\n    from house.first import thing",
        "def later():\n    import importlib\n    return importlib.import_module('house.first')",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(tmp_path: Path, back: str) -> None:
    package = write_package(tmp_path, first="from house.second import other", second=f"{back}\nother = 1")
    result = measured(package, "--circles")
    assert result.returncode == 1
    assert "2 modules import each other: house.first, house.second" in result.stdout


def test_a_circle_through_a_lazy_name_is_found(tmp_path: Path) -> None:
    exports = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.first import thing\n"
    package = write_package(
        tmp_path,
        __init__=f"{exports}def __getattr__(name): ...",
        first="from house.second import other",
        second="def later():\n    from house import thing",
    )
    assert "house.first, house.second" in measured(package, "--circles").stdout


def test_imports_for_types_make_no_circle(tmp_path: Path) -> None:
    back = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.first import thing"
    package = write_package(tmp_path, first="from house.second import other", second=f"{back}\nother = 1")
    result = measured(package, "--circles")
    assert (result.returncode, result.stdout) == (0, "0 circles of imports among 3 modules\n")


def test_lines_of_code_are_no_docstrings_comments_or_blanks(tmp_path: Path) -> None:
    statement = "value = [\n    1,  # one\n]"
    function = 'def f():\n    """Do."""\n    return """\n    """'
    source = f'"""What it is.\n\nMore.\n"""\n\n# why\n{statement}\n\n\n{function}\n'
    result = measured(write_package(tmp_path, plain=source))
    (row,) = (line.split() for line in result.stdout.splitlines() if line.startswith("(root)"))
    assert row[:5] == ["(root)", "2", "6", "3", "plain.py"]
    assert row[6:8] == ["3", "f"]
