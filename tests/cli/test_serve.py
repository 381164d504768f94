"""`splitiot serve`, and `splitiot run` against it: real processes, real HTTP."""

from __future__ import annotations

import json
import runpy
import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import splitiot as si
from splitiot.adapters.http import PATH
from splitiot.models import save_bundle
from splitiot.models._random_input import random_payload
from tests.cli.helpers import CHAIN, HARDWARE, TARGETS, Cli, process, serving
from tests.session.support import request_of

POLICIES = TARGETS / "policies.py"
WANTED = (8 * np.arange(64.0)) ** 2


@pytest.mark.extra("http")
@pytest.mark.network
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_processes(tmp_path: Path, number: signal.Signals) -> None:
    kept = tmp_path / "out.npz"
    with serving(CHAIN) as (url, server):
        device = process("run", CHAIN, "--edge", url, "--cut", 1, "--count", 5, "--save", kept, "--json")
        out, err = device.communicate(timeout=60)
        assert device.returncode == 0, err
        server.send_signal(number)
        rest, said = server.communicate(timeout=60)
        assert server.returncode == 0, said
    *requests, last = map(json.loads, out.splitlines())
    assert {(r["cut"], r["source"], r["exact"], r["why"]) for r in requests} == {(1, "edge", True, "fixed at cut 1")}
    for r in requests:
        assert r["sent_bytes"] > 4096  # 512 float64
        assert 0 < r["edge_s"] < r["total_s"]
        assert 0 < r["network_s"] < r["total_s"]
        assert 0 < r["device_s"] < r["total_s"]
    assert last["totals"]["sources"] == {"edge": 5}
    assert rest == ""  # one line, and it was read
    assert "served 5 requests: 0 failed" in said
    with np.load(kept) as saved:
        assert all(np.array_equal(saved[name], WANTED) for name in saved)
        assert len(saved.files) == 5


@pytest.mark.extra("http", "litert")
@pytest.mark.network
def test_a_model_over_http_is_bit_exact(cli: Cli, model: Path, tmp_path: Path) -> None:
    with serving(model, CHAIN) as (url, _):
        for cut in range(6):
            words = ["run", model, "--cut", cut, "--count", 1, "--save", tmp_path / f"{cut}.npz", "--json"]
            said = cli(*words, "--edge", url)
            assert said.code == 0, said.err
            assert said.lines[0]["source"] == ("local" if cut == 5 else "edge")
            assert said.lines[0]["exact"]
        assert cli(*words[:2], "--count", 1, "--edge", url, "--policy", "local", "--json").lines[0]["cut"] == 5
        assert cli("run", CHAIN, "--edge", url, "--count", 1, "--json").code == 0
    found = []
    for cut in range(6):
        with np.load(tmp_path / f"{cut}.npz") as saved:
            found.append({name: saved[name].tobytes() for name in saved})
    assert len(found[0]) == 2
    assert all(each == found[5] for each in found)


@pytest.mark.extra("http")
@pytest.mark.network
def test_no_machine_has_what_the_other_one_has(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "accelerator")
    with serving(HARDWARE) as (url, server):
        monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "camera")
        said = cli("run", HARDWARE, "--edge", url, "--count", 8, "--json")
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=60)
    assert said.code == 0, said.err
    assert {line["cut"] for line in said.lines if "cut" in line} <= {1, 2}
    assert "can't be measured" in told and "no camera" in told and "learn it from its answers" in told
    monkeypatch.setenv("SPLITIOT_TEST_HARDWARE", "accelerator")
    said = cli("serve", HARDWARE, "--policy", "least-latency", "--port", 0)
    assert said.code == 2
    assert "no camera" in said.err


@pytest.mark.extra("http")
@pytest.mark.network
def test_policies_from_files(cli: Cli) -> None:
    with serving(CHAIN) as (url, _):
        for policy, cut in ((f"{POLICIES}:OneStep", 1), (f"{POLICIES}:ready", 2)):
            (one, _) = cli("run", CHAIN, "--edge", url, "--count", 1, "--policy", policy, "--json").lines
            assert (one["cut"], one["why"]) == (cut, "one step")


@pytest.mark.extra("http")
@pytest.mark.network
def test_the_edge_plans_for_those_who_follow(cli: Cli) -> None:
    with serving(CHAIN, "--policy", f"{POLICIES}:OneStep") as (url, _):
        said = cli("run", CHAIN, "--edge", url, "--count", 6, "--follow", "--policy", f"{POLICIES}:ready", "--json")
    assert said.code == 0
    cuts = [r["cut"] for r in said.lines[:-1]]
    assert cuts[0] == 2  # its own policy, before the edge has said anything
    assert cuts[-1] == 1


@pytest.mark.extra("http")
@pytest.mark.network
def test_tokens(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (allowed := tmp_path / "allowed").write_text("# who may connect\n\nkitchen s3cret\ngarden other\n")
    (own := tmp_path / "own").write_text("s3cret\n")
    (wrong := tmp_path / "wrong").write_text("kitchen guess\n")
    with serving(CHAIN, "--token-file", allowed) as (url, _):
        words = ["run", CHAIN, "--edge", url, "--cut", 0, "--count", 1, "--json"]
        assert cli(*words, "--token-file", own).code == 0
        said = cli(*words, "--token-file", wrong)
        assert said.code == 3
        assert "bearer token" in said.err
        assert said.lines[0]["source"] == "local"
        said = cli(*words, "--token-file", allowed)
        assert said.code == 2
        assert "2 tokens" in said.err
        monkeypatch.setenv("SPLITIOT_TOKEN", "other")
        assert cli(*words).code == 0


@pytest.mark.extra("http")
@pytest.mark.network
def test_another_pipeline_is_refused(cli: Cli) -> None:
    with serving(CHAIN) as (url, _):
        said = cli("run", TARGETS / "failing.py", "--edge", url, "--count", 1, "--json")
    assert said.code == 3
    assert said.lines[0]["source"] == "local"
    assert "the edge does not serve this pipeline" in said.err


@pytest.mark.extra("http")
@pytest.mark.network
def test_a_port_that_is_taken_is_3(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = cli("serve", CHAIN, "--port", taken.getsockname()[1], "--no-profile", "--json")
    assert (said.code, said.out) == (3, "")
    assert "can't listen on 127.0.0.1" in said.err
    assert "address already in use" in said.err.lower()


@pytest.mark.extra("http", "cli")
@pytest.mark.network
def test_people_are_told_where_and_how() -> None:
    server = process("serve", CHAIN, "--port", 0)
    assert server.stdout is not None
    try:
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            line = server.stdout.readline()
            assert line, server.communicate()[1]
            lines.append(line)
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    url = lines[0].removeprefix("edge ready at ").strip()
    assert urlsplit(url).port
    assert f"splitiot run {CHAIN} --edge {url}" in " ".join("".join(lines).split())
    assert server.returncode == 0


UNUSABLE = {
    "open without encryption": (["--host", "0.0.0.0"], "--allow-plaintext"),
    "open without tokens": (["--host", "0.0.0.0", "--allow-plaintext"], "--allow-anonymous"),
    "no certificate": (["--cert", "nowhere.pem"], "there is no file nowhere.pem"),
    "a key alone": (["--key", CHAIN], "--key needs --cert"),
    "every proxy": (["--proxy", "10.0.0.0/8", "--proxy", "*"], "--proxy *"),
    "a policy without profiles": (["--policy", "least-latency", "--no-profile"], "--no-profile"),
    "no such policy": (["--policy", "local"], "there is no policy 'local'"),
    "the same twice": ([CHAIN], "the same pipeline"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable(cli: Cli, case: str) -> None:
    words, wanted = UNUSABLE[case]
    said = cli("serve", CHAIN, *words)
    assert (said.code, said.out) == (2, "")
    assert wanted in said.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nobody could connect"),
        ("kitchen\n", "line 1"),
        ("# x\na b\nc d e\n", "line 3"),
        ("a same\nb same\n", "b has the token of a"),
    ],
)
def test_token_files(cli: Cli, tmp_path: Path, text: str, words: str) -> None:
    (path := tmp_path / "tokens").write_text(text)
    said = cli("serve", CHAIN, "--token-file", path)
    assert said.code == 2
    assert words in said.err
    assert "same\n" not in said.err


@pytest.mark.extra("http", "litert")
@pytest.mark.network
def test_a_device_with_one_head_of_a_bundle(cli: Cli, tmp_path: Path) -> None:
    fomo, device = si.samples.fomo("int8"), tmp_path / "device"
    bundle = save_bundle(si.load_model(fomo), tmp_path / "bundle", cuts=[7])
    device.mkdir()
    for name in ("manifest.json", "head-7.tflite"):
        shutil.copy(bundle / name, device / name)
    kept = tmp_path / "out.npz"
    with serving(fomo) as (url, server):
        said = cli("run", device, "--edge", url, "--cut", 7, "--count", 2, "--save", kept, "--json")
        assert said.code == 0, said.err
        assert {(r["cut"], r["source"], r["exact"]) for r in said.lines[:-1]} == {(7, "edge", True)}
        refused = cli("run", device, "--edge", url, "--cut", 6, "--count", 1, "--json")
        assert refused.code == 2
        assert "no head in this bundle; the nearest legal cuts are 0 and 7" in refused.err
        server.kill()
        server.wait()
    image = random_payload(si.load_model(fomo).inputs, np.random.default_rng(0))
    with np.load(kept) as saved:
        assert np.array_equal(saved["000001"], si.load_model(fomo).run(image))
    lost = cli("run", device, "--edge", url, "--count", 1, "--deadline", 300, "--json")
    assert lost.code == 3
    assert lost.lines[0]["source"] == "none"
    assert lost.lines[-1]["totals"]["failed"] == 1
    assert cli("run", device, "--edge", "none", "--count", 1, "--json").code == 2


HANGS = '''
import time
import splitiot as si


def first(x: int) -> int:
    return x


def second(x: int) -> int:
    print("began", flush=True)
    while True:
        time.sleep(0.01)


pipeline = si.tasks([first, second])
'''


@pytest.mark.extra("http")
@pytest.mark.network
def test_it_ends_although_a_step_hangs(tmp_path: Path) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(HANGS, "utf-8")
    frame = request_of(runpy.run_path(str(script))["pipeline"], 1, 1)
    with serving(script, "--no-profile", "--shutdown", 2) as (url, server):
        there = urlsplit(url)
        with socket.create_connection((there.hostname, there.port)) as raw:
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(frame)}\r\n\r\n"
            raw.sendall(head.encode() + frame)
            assert server.stdout is not None
            assert server.stdout.readline() == "began\n"
            server.send_signal(signal.SIGTERM)
            _, said = server.communicate(timeout=30)
    assert server.returncode == 3
    assert "by force" in said
