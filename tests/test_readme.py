"""The README and the examples do what they say: their code runs, their commands exist and work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", README, flags=re.S)


def python(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        env={**os.environ, "XDG_CACHE_HOME": str(cwd / "cache"), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def edge(arguments: list[str], cwd: Path) -> Iterator[str]:
    """An edge process and its address, which is the first line that it prints."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=cwd, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, "the edge did not say where it listens"
        yield found[0]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with what the README tells to write."""
    code = next(code for kind, code in BLOCKS if kind == "python" and code.startswith("# app.py"))
    (tmp_path / "app.py").write_text(code)
    return tmp_path


@pytest.mark.extra("litert")
@pytest.mark.extra("http")
@pytest.mark.extra("cli")
def test_python_blocks_run(app: Path) -> None:
    blocks = [code for kind, code in BLOCKS if kind == "python" and not code.startswith("# app.py")]
    assert len(blocks) >= 4
    with edge(["-m", "splitiot", "serve", "app.py:pipeline", "--port", "0", "--json", "--no-profile"], app) as url:
        code = "\n".join(blocks).replace("http://127.0.0.1:8765", url)
        (app / "readme.py").write_text(code)
        ran = python("readme.py", cwd=app)
    assert ran.returncode == 0, ran.stderr
    assert "True" in ran.stdout.splitlines()  # report.ok
    assert "plan 1:" in ran.stdout
    assert {"head.tflite", "tail.tflite"} <= {path.name for path in app.iterdir()}


@pytest.mark.extra("litert")
@pytest.mark.extra("cli")
def test_commands_for_a_model_run(tmp_path: Path) -> None:
    from splitiot.samples import fomo

    shutil.copy(fomo("int8"), tmp_path / "model.tflite")
    commands = re.findall(r"^\$ splitiot ((?:inspect|split|verify) .*?)(?:\s+#.*)?$", README, flags=re.M)
    assert len(commands) == 3
    for command in commands:
        ran = python("-m", "splitiot", *shlex.split(command), cwd=tmp_path)
        assert ran.returncode == 0, (command, ran.stderr)


@pytest.mark.extra("litert")
@pytest.mark.extra("http")
@pytest.mark.extra("cli")
def test_serve_and_run_as_the_readme_says(app: Path) -> None:
    serve = re.search(r"^\$ splitiot (serve .*)$", README, flags=re.M)
    run = re.search(r"^\$ splitiot (run .*)$", README, flags=re.M)
    assert serve and run
    with edge(["-m", "splitiot", *shlex.split(serve[1]), "--port", "0", "--json"], app) as url:
        ran = python("-m", "splitiot", *shlex.split(run[1].replace("http://127.0.0.1:8765", url)), cwd=app)
    assert ran.returncode == 0, ran.stderr


def test_links_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["where_to_cut.py", "own_transport.py"])
@pytest.mark.extra("litert")
def test_examples_in_one_process(name: str, tmp_path: Path) -> None:
    ran = python(str(ROOT / "examples" / name), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    if name == "own_transport.py":
        assert ran.stdout == "41.0 from the edge\n"


def test_example_of_a_policy(tmp_path: Path) -> None:
    path = ROOT / "examples" / "custom_policy.py"
    ran = python(str(path), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    _, *lines = ran.stdout.splitlines()
    assert len(lines) == 14
    cuts = [int(line.split()[3]) for line in lines]
    assert cuts == [0] * 6 + [1] * 6 + [0] * 2  # two slow requests tell of the slow link, then the battery is low
    assert [line.split(maxsplit=4)[4] for line in lines] == ["least latency_s"] * 12 + ["battery low"] * 2
    policy = re.search(r"^@frozen\nclass KeepBattery.*?\n\n\n", path.read_text(), flags=re.S | re.M)
    assert policy
    assert len([line for line in policy[0].splitlines() if line.strip()]) < 15


@pytest.mark.extra("litert")
@pytest.mark.extra("http")
@pytest.mark.extra("vision")
def test_example_in_two_processes(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "digits"
    with edge([str(folder / "edge.py"), "0"], tmp_path) as url:
        ran = python(str(folder / "device.py"), url, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "edge: up" in ran.stdout
    assert ran.stdout.count("digits at (84, 12), (20, 16)") == 10


@pytest.mark.extra("litert")
@pytest.mark.extra("http")
def test_example_mounted_in_an_application(tmp_path: Path) -> None:
    script = (
        "import sys, threading, uvicorn\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import mounted_edge\n"
        "server = uvicorn.Server(uvicorn.Config(mounted_edge.app, port=0, log_config=None))\n"
        "threading.Thread(target=server.run, daemon=True).start()\n"
        "while not server.started: pass\n"
        "port = server.servers[0].sockets[0].getsockname()[1]\n"
        "import splitiot as si\n"
        "from app import pipeline\n"
        "frame = bytes(96 * 96 * 2)\n"
        "for token in ('secret-of-camera-7', 'wrong'):\n"
        "    transport = si.HttpTransport(f'http://127.0.0.1:{port}', token=token)\n"
        "    with si.Device(pipeline, transport, sample=frame, policy=si.Fixed(0), cache=False) as device:\n"
        "        print(device.run(frame).source)\n"
        "server.should_exit = True\n"
    )
    ran = python("-c", script, str(ROOT / "examples"), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["edge", "local"]
