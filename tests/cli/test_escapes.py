"""What an edge, a file's name, a tensor's name or a task's exception says reaches no terminal as it is."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from splitiot import load_model, wire
from splitiot.cli._console import Console
from tests import networks
from tests.cli.helpers import CHAIN, Cli, process, serving
from tests.http_servers import TYPE, http_server

# clear the screen, set the title, ring, return, turn the text round, C1's CSI
EVIL = "\x1b[2J\x1b]0;owned\x07\r\u202egpj.exe\u2066\x9b31m\x08\x7f"


def acting(text: str) -> set[str]:
    """Return what a terminal would obey in a text."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    turning = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    return {c for c in text if unicodedata.category(c) in kinds or c in turning} - {"\n", "\t"}


def failing(body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
    return 503, "text/plain", EVIL.encode()


def refusing(body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
    return 403, "text/plain", EVIL.encode()


def speaking(body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
    """Answer as an edge that can't compute."""
    failure = wire.Failure(boot=wire.NOBODY, sequence=0, edge_boot=bytes([7]) * wire.BOOT_BYTES, message=EVIL)
    return 200, TYPE, b"".join(bytes(part) for part in _parts(wire.encode(failure)))


def _parts(encoded: object) -> list[bytes]:
    return [encoded] if isinstance(encoded, bytes | bytearray) else list(encoded)  # type: ignore[call-overload]


@pytest.mark.parametrize("answer", [failing, refusing, speaking])
@pytest.mark.parametrize("how", [[], ["--json"]])
@pytest.mark.extra("cli")
def test_an_edge_that_says_it(answer: object, how: list[str]) -> None:
    with http_server(answer) as server:  # type: ignore[arg-type]
        for words in (["link", server.url, "--count", 3], ["run", CHAIN, "--edge", server.url, "--count", 3]):
            child = process(*words, *how)
            out, err = child.communicate(timeout=60)
            assert not acting(out)
            assert not acting(err)
            if words[0] == "link":
                assert child.returncode == 3
                assert "owned" in err


TASK = """
from splitiot import tasks

def break_(x):
    raise ValueError({evil!r})

pipeline = tasks([break_])
sample = 1
"""


@pytest.mark.extra("http")
@pytest.mark.extra("cli")
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_task_on_the_edge_that_says_it(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "task.py").write_text(TASK.format(evil=EVIL))
    target = str(tmp_path / "task.py")
    with serving(target, "--no-profile") as (url, server):
        child = process("run", target, "--edge", url, "--count", 2, "--cut", 0, *how)
        out, err = child.communicate(timeout=60)
        server.terminate()
        said, log = server.communicate(timeout=60)
    assert "owned" in out + err
    for text in (out, err, said, log):
        assert not acting(text)


@pytest.mark.skipif(os.name != "posix", reason="no such names elsewhere")
@pytest.mark.extra("cli")
@pytest.mark.parametrize("how", [[], ["--json"]])
@pytest.mark.parametrize("command", [["inspect"], ["split", "--cut", "2", "--out"], ["verify"]])
def test_names_of_files_and_tensors(cli: Cli, tmp_path: Path, command: list[str], how: list[str]) -> None:
    data = networks.early_output()
    names = {name for cut in load_model(data).cuts for name in load_model(data).boundary(cut).names}
    for name in names:
        data = data.replace(name.encode(), b"\x1b" + name.encode()[1:])
    path = tmp_path / f"net{EVIL}.tflite"
    path.write_bytes(data)
    assert any("\x1b" in name for name in load_model(path).boundary(1).names)
    word, *rest = command
    said = cli(word, path, *rest, *([str(tmp_path / "parts")] if "--out" in rest else []), *how)
    assert said.out + said.err
    assert not acting(said.out)
    assert not acting(said.err)


@pytest.mark.extra("http")
@pytest.mark.extra("cli")
@pytest.mark.skipif(os.name != "posix", reason="no such names elsewhere")
def test_a_target_of_an_edge(tmp_path: Path) -> None:
    path = tmp_path / f"net{EVIL}.tflite"
    path.write_bytes(networks.early_output())
    child = process("serve", path, "--port", 0, "--no-profile")
    assert child.stdout is not None
    said = ""
    while "Ctrl-C ends this" not in said:
        line = child.stdout.readline()
        assert line, child.communicate()[1]
        said += line
    child.terminate()
    out, err = child.communicate(timeout=60)
    assert "owned" in said
    assert not acting(said + out + err)


@pytest.mark.extra("cli")
def test_everything_that_a_console_writes(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.print(EVIL, console.table({EVIL: "left"}, [[EVIL], [(EVIL, "green")]]), style="red")
    console.note(EVIL)
    console.warn(EVIL)
    console.error(EVIL)
    console.data({EVIL: EVIL})
    out, err = capsys.readouterr()
    assert "owned" in out
    assert "owned" in err
    assert not acting(out + err)
