"""The package as a whole: what importing it loads, the names it exports, its documentation, its files."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import splitiot
from tests.conftest import EXTRAS

CHECKOUT = Path(__file__).parents[1]
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(splitiot.__path__, "splitiot.")
    if not info.name.endswith(".__main__")  # importing it runs the command
)
PUBLIC = [name for name in MODULES if not any(part.startswith("_") for part in name.split("."))]

HEAVY = {
    *("asyncio", "concurrent", "ctypes.util", "email", "http", "logging", "multiprocessing", "socket"),
    *("sqlite3", "ssl", "subprocess", "unittest", "urllib.request", "xml"),
    *("pytest", *(module for modules in EXTRAS.values() for module in modules)),
}
CORE_DEPENDENCIES = {"attr", "attrs", "msgspec", "numpy", "typing_extensions"}
SANS_IO = {
    *("codecs", "cost", "estimators", "framing", "limits", "observation", "pipeline", "plan", "planner", "policies"),
    *("recorder", "session", "solver", "topology", "wire"),
}


def fresh(code: str) -> object:
    """Run code in a new interpreter and return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def loaded_by(statement: str) -> set[str]:
    names = fresh(f"import json, sys\n{statement}\njson.dump(sorted(sys.modules), sys.stdout)")
    assert isinstance(names, list)
    return set(names)


def test_import_loads_nothing_heavy() -> None:
    # numpy and msgspec load some of the standard library themselves: what they load costs nothing more
    added = loaded_by("import splitiot") - loaded_by("import attrs, msgspec, numpy, typing_extensions")
    assert "splitiot" in added
    heavy = {name for name in added if name in HEAVY or name.partition(".")[0] in HEAVY}
    assert not heavy
    foreign = {name.partition(".")[0] for name in added} - sys.stdlib_module_names - CORE_DEPENDENCIES
    assert foreign == {"splitiot"}


def test_exports_are_sorted_once_each() -> None:
    names = list(splitiot.__all__)
    assert len(names) == len(set(names))
    # the order that ruff keeps: constants, classes, the rest
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


@pytest.mark.parametrize("name", splitiot.__all__)
def test_export_resolves(name: str) -> None:
    assert getattr(splitiot, name) is not None
    assert name in dir(splitiot)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = splitiot.no_such_name  # type: ignore[attr-defined]


def test_exports_are_not_hidden_by_modules() -> None:
    # importing splitiot.x sets the attribute x of the package: a function of the same name would vanish
    code = f"""
import importlib, json, sys, types, splitiot
for name in {MODULES!r}:
    importlib.import_module(name)
kinds = {{name: isinstance(getattr(splitiot, name), types.ModuleType) for name in splitiot.__all__}}
json.dump(kinds, sys.stdout)
"""
    modules = {name: isinstance(getattr(splitiot, name), ModuleType) for name in splitiot.__all__}
    assert fresh(code) == modules


def undocumented(thing: object, name: str) -> list[str]:
    """Return what has no docstring of its own and inherits none: the thing itself, its public methods."""
    missing = [] if inspect.getdoc(thing) else [name]
    if inspect.isclass(thing):
        kinds = FunctionType | property | classmethod | staticmethod
        members = [m for m, value in vars(thing).items() if m[0] != "_" and isinstance(value, kinds)]
        missing += [f"{name}.{m}" for m in members if not inspect.getdoc(getattr(thing, m))]
    return missing


@pytest.mark.parametrize("name", ["splitiot", *MODULES])
def test_module_is_documented(name: str) -> None:
    module = importlib.import_module(name)  # must work without extras too
    assert module.__doc__, f"{name} has no docstring"
    assert isinstance(getattr(module, "__all__", None), list), f"{name} has no __all__"
    missing = []
    for public in module.__all__:
        thing = getattr(module, public)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == name:
            missing += undocumented(thing, public)
    assert not missing, f"{name}: no docstrings for {', '.join(missing)}"


def test_version_is_the_distribution_s() -> None:
    assert metadata.version("splitiot") == splitiot.__version__


def test_the_changelog_s_newest_version_is_this_one() -> None:
    changelog = (CHECKOUT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## ([\d.]+) - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert versions[0] == splitiot.__version__
    assert len(versions) + 1 == len(re.findall(r"^## ", changelog, re.MULTILINE)), "one is unreleased, each other dated"
    groups = set(re.findall(r"^### (.*)$", changelog, re.MULTILINE))
    assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_distribution_has_its_files() -> None:
    assert resources.files("splitiot").joinpath("py.typed").is_file()
    source = CHECKOUT / "src" / "splitiot"
    data = {
        path.relative_to(source)
        for path in source.rglob("*")
        if path.suffix in {".json", ".md", ".png", ".pyi", ".tflite", ".typed"}
        and not any(part.startswith(".") for part in path.relative_to(source).parts)  # a tool's cache
    }
    missing = {str(path) for path in data if not Path(splitiot.__path__[0], path).is_file()}
    assert not missing


def test_every_public_module_has_a_reference_page() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (CHECKOUT / "docs" / "reference").glob("*.md"))
    documented = {line.split()[1] for line in pages.splitlines() if line.startswith("::: ")}
    # a package's page shows what it exports from its modules; one that exports nothing needs none
    missing = {
        name
        for name in PUBLIC
        if getattr(importlib.import_module(name), "__all__", True)
        and not any(f"{name}.".startswith(f"{page}.") for page in documented)
    }
    assert not missing, f"add `::: module` to a page of docs/reference for: {', '.join(sorted(missing))}"


def test_the_sans_io_contract_names_every_core_module() -> None:
    # import-linter wants its source modules to exist, so they are added to the contract as they are written
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (c for c in contracts if c["name"].startswith("The core"))
    existing = {name for name in SANS_IO if f"splitiot.{name}" in MODULES}
    assert set(contract["source_modules"]) == {f"splitiot.{name}" for name in existing}


def imports(source: str) -> Iterator[str]:
    """Yield what a module imports anywhere, also by `importlib.import_module("name")`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
            yield from (str(each.value) for each in node.args[:1] if isinstance(each, ast.Constant))


def test_every_extra_is_imported_by_something() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = settings["optional-dependencies"]
    assert extras.keys() - {"all"} == EXTRAS.keys(), "tests/conftest.py names what can be imported with each extra"
    # these two can't live beside the others: TensorFlow is too large, tflite-runtime wants numpy 1
    assert extras["all"] == [f"splitiot[{','.join(x for x in extras if x not in {'all', 'tflite', 'tensorflow'})}]"]
    imported = {name for path in (CHECKOUT / "src").rglob("*.py") for name in imports(path.read_text("utf-8"))}
    unused = {
        f"{module} of {extra}"
        for extra, modules in EXTRAS.items()
        for module in modules
        if not any(f"{name}.".startswith(f"{module}.") for name in imported)
    }
    assert not unused, f"nothing in src imports {', '.join(sorted(unused))}: an extra comes with what needs it"
    table = (CHECKOUT / "docs" / "getting-started.md").read_text("utf-8")
    assert not [extra for extra in extras if f"| `{extra}` |" not in table], "docs/getting-started.md lists every extra"


def test_the_lowest_versions_that_ci_tests_are_those_that_are_promised() -> None:
    bounds = runpy.run_path(str(CHECKOUT / "tools" / "lowest.py"))["lowest"]()
    assert {"numpy", "starlette", "Pillow"} <= bounds.keys()
    lock = (CHECKOUT / "tools" / "requirements" / "locks" / "lowest.txt").read_text("utf-8")
    tested = dict(line.split("==") for line in lock.lower().replace("_", "-").splitlines() if "==" in line)
    bounds.pop("tensorflow")  # 600 MB, and not beside the others: tested at its newest only
    wrong = {name for name, bound in bounds.items() if not f"{tested.get(name.lower())}.".startswith(f"{bound}.")}
    assert not wrong, f"make lock: {', '.join(sorted(wrong))}"
