"""The command itself: help, version, exit codes, what goes to stdout and to stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import splitiot
from splitiot.cli import COMMANDS
from splitiot.cli._errors import UsageError, exit_code
from splitiot.errors import (
    EdgeUnavailable,
    Infeasible,
    MalformedModel,
    MissingDependencyError,
    NotCuttable,
    ProfileError,
    RemoteError,
    TraceError,
    TransportTimeout,
)
from tests.cli.helpers import CHAIN, TARGETS, Cli, environment


def test_version(cli: Cli) -> None:
    assert cli("--version") == (said := cli("--version"))
    assert (said.code, said.out, said.err) == (0, f"splitiot {splitiot.__version__}\n", "")


def test_help_names_every_command_and_exit_code(cli: Cli) -> None:
    said = cli("--help")
    assert said.code == 0
    assert all(name in said.out for name in COMMANDS)
    assert "130" in said.out


@pytest.mark.parametrize("command", ["inspect", "split", "verify", "plan", "profile", "link", "serve", "run", "replay"])
def test_each_command_explains_itself(cli: Cli, command: str) -> None:
    said = cli(command, "--help")
    assert said.code == 0
    assert "--json" in said.out
    assert "--debug" in said.out


def test_the_demonstration_explains_itself(cli: Cli) -> None:
    said = cli("demo", "--help")
    assert said.code == 0
    assert "--requests" in said.out


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = "import sys; from splitiot.cli import main; main(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    loaded = set(done.stderr.split())
    assert not loaded & {"rich", "asyncio", "uvicorn", "starlette", "ai_edge_litert", "splitiot.models", "numpy"}
    assert {name for name in loaded if name.startswith("splitiot.")} == {
        "splitiot.cli",
        "splitiot.cli._console",
        "splitiot.cli._errors",
        "splitiot.cli._signals",
        "splitiot._cached",
        "splitiot._escape",
        "splitiot._lazy",
        "splitiot.errors",
    }


@pytest.mark.parametrize(
    "words", [[], ["frobnicate"], ["inspect"], ["split", "m.tflite"], ["run", "x", "--count", "-1"]]
)
def test_wrong_usage_is_2(cli: Cli, words: list[str]) -> None:
    said = cli(*words)
    assert said.code == 2
    assert said.out == ""
    assert "usage: splitiot" in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Infeasible("no"), 1),
        (UsageError("no"), 2),
        (MalformedModel("no"), 2),
        (NotCuttable("no"), 2),
        (ProfileError("no"), 2),
        (TraceError("no"), 2),
        (MissingDependencyError("rich", "cli"), 2),
        (TransportTimeout("no"), 3),
        (EdgeUnavailable("no"), 3),
        (RemoteError("no"), 3),
        (OSError("no"), 3),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code


UNUSABLE = {
    "no such model": (["inspect", "nowhere.tflite"], "there is no file nowhere.tflite"),
    "no such module": (["inspect", "nowhere_at_all:pipeline"], "no module 'nowhere_at_all'"),
    "no such python file": (["inspect", "nowhere.py"], "there is no file nowhere.py"),
    "no such name": (["inspect", f"{CHAIN}:nothing"], "has no 'nothing'"),
    "not a pipeline": (["inspect", f"{CHAIN}:no_pipeline"], "is a int, not a pipeline"),
    "not a model": ([], "TFL3"),
    "a broken module": ([], "broken on purpose"),
    "a folder": (["split", str(TARGETS), "--cut", "1"], "is a folder, and no regular file: give a .tflite file"),
    "no sample": (["plan", str(TARGETS / "shapeless.py"), "--rtt", "1", "--up", "1", "--json"], "define `sample`"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_input_is_one_clear_line_and_2(cli: Cli, case: str, tmp_path: Path) -> None:
    words, wanted = UNUSABLE[case]
    if case == "not a model":
        (path := tmp_path / "README.txt").write_text("This is no model, though it is long enough to be one.")
        words = ["inspect", str(path)]
    elif case == "a broken module":
        words = ["inspect", str(broken(tmp_path))]
    said = cli(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("splitiot: ")
    assert wanted in said.err
    assert said.err.count("\n") == 1


def broken(folder: Path) -> Path:
    path = folder / "broken.py"
    path.write_text("raise RuntimeError('this file is broken on purpose')\n")
    return path


def test_debug_shows_the_traceback(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        cli("inspect", broken(tmp_path), "--debug")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_ctrl_c_is_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("splitiot.cli.inspect.load_target", interrupted)
    said = cli("inspect", CHAIN)
    assert (said.code, said.out) == (130, "")


def test_without_rich_json_works_and_tables_say_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)  # as if it were not installed
    assert cli("inspect", CHAIN, "--json").code == 0
    said = cli("inspect", CHAIN)
    assert said.code == 2
    assert 'pip install "splitiot[cli]"' in said.err


@pytest.mark.extra("litert")
def test_without_rich_nothing_is_done_in_vain(cli: Cli, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr("splitiot.models.Model.verify", lambda *_, **__: pytest.fail("it was verified first"))
    assert cli("verify", model).code == 2


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m splitiot inspect {CHAIN} --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=environment())
    assert done.stderr == ""
