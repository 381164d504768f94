"""`--policy` finds policies of others: by module, by file, and by the name that an installed package gives."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import CHAIN, environment, serving
from tests.test_readme import ROOT

PAGE = (ROOT / "docs" / "how-to" / "write-a-policy.md").read_text("utf-8")
GROUP = "splitiot.policies"

POLICIES = '''
import splitiot as si


class KeepBattery(si.Policy):
    """Says who decided."""

    def decide(self, context):
        return si.Decision(context.at_cut(1), "mine")


ready = si.Fixed(2)
not_one = 3
'''


def install(folder: Path, points: dict[str, str], name: str = "mypackage") -> None:
    """A package and its metadata, as pip leaves them."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(POLICIES)
    (folder / name / "broken.py").write_text("raise RuntimeError('half installed')\n")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{GROUP}]", *(f"{point} = {value}" for point, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's package is installed."""
    folder = tmp_path_factory.mktemp("site")
    (block,) = re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.S | re.M)
    points = tomllib.loads(block)["project"]["entry-points"][GROUP]
    others = {
        "ready": "mypackage:ready",
        "three": "mypackage:not_one",
        "broken": "mypackage.broken:Policy",
        "gone": "mypackage:ProcessUsage",
        "adaptive": "mypackage:KeepBattery",
    }
    install(folder, points | others)
    return folder


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(CHAIN, "--no-profile") as (address, _):
        yield address


def splitiot(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(site), variables["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "splitiot", *map(str, words)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def cuts(site: Path, url: str, policy: object) -> set[int]:
    ran = splitiot(site, "run", CHAIN, "--edge", url, "--policy", policy, "--count", 2, "--json")
    assert ran.returncode == 0, ran.stderr
    *requests, _ = map(json.loads, ran.stdout.splitlines())
    assert {one["source"] for one in requests} <= {"edge", "local"}
    return {one["cut"] for one in requests}


@pytest.mark.network
@pytest.mark.extra("http")
def test_the_page_s_commands_use_the_policy(site: Path, url: str) -> None:
    commands = re.findall(r"^\$ splitiot (run .*)$", PAGE, flags=re.M)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        assert words[1:3] == ["app.py:pipeline", "--edge"]
        assert cuts(site, url, words[words.index("--policy") + 1]) == {1}


@pytest.mark.network
@pytest.mark.extra("http")
@pytest.mark.parametrize(
    ("policy", "cut"), [("ready", 2), ("mypackage:ready", 2), (f"{ROOT}/examples/custom_policy.py:KeepBattery", None)]
)
def test_ready_ones_and_files(site: Path, url: str, policy: str, cut: int | None) -> None:
    found = cuts(site, url, policy)
    assert found == {cut} if cut is not None else found


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("three", "three is no policy"),
        ("broken", "policy broken (mypackage.broken:Policy) can't be loaded: RuntimeError('half installed')"),
        ("gone", "policy gone (mypackage:ProcessUsage) can't be loaded: AttributeError"),
        ("wisest", "give one of adaptive, least-latency, local, broken, gone, keep-battery, ready, three"),
        ("nopackage:Mine", "no module 'nopackage'"),
        ("mypackage:ProcessUsage", "has no 'ProcessUsage'"),
        ("mypackage.broken:Policy", "half installed"),
    ],
)
def test_what_can_t_be_used_is_said(site: Path, policy: str, words: str) -> None:
    ran = splitiot(site, "run", CHAIN, "--edge", "none", "--policy", policy, "--count", 1, "--json")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.network
@pytest.mark.extra("http")
def test_a_package_can_t_take_our_names(site: Path, tmp_path: Path, url: str) -> None:
    trace = tmp_path / "trace.jsonl"
    ran = splitiot(site, "run", CHAIN, "--edge", url, "--policy", "adaptive", "--count", 1, "--trace", trace, "--json")
    assert ran.returncode == 0, ran.stderr
    assert "RetestOnDrift" in trace.read_text().splitlines()[0]
