"""`splitiot run`, alone: without an edge, or with one that is not there."""

from __future__ import annotations

import csv
import json
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from splitiot.cli._record import Record, Totals
from splitiot.sim import load_trace
from tests.cli.helpers import CHAIN, TARGETS, Cli, process
from tests.http_servers import http_server

WANTED = (8 * np.arange(64.0)) ** 2


def test_all_local_gives_the_pipeline_s_results(cli: Cli, tmp_path: Path) -> None:
    kept = tmp_path / "out.npz"
    said = cli("run", CHAIN, "--edge", "none", "--count", 3, "--save", kept, "--json")
    assert (said.code, said.err) == (0, "")
    *requests, last = said.lines
    assert [r["request"] for r in requests] == [1, 2, 3]
    assert {(r["cut"], r["source"], r["exact"], r["sent_bytes"], r["error"]) for r in requests} == {
        (3, "local", True, 0, None)
    }
    assert last["totals"]["requests"] == 3
    assert last["totals"]["sources"] == {"local": 3}
    with np.load(kept) as saved:
        assert sorted(saved) == ["000001", "000002", "000003"]
        assert np.array_equal(saved["000002"], WANTED)


def test_inputs_are_taken_in_turn(cli: Cli, tmp_path: Path) -> None:
    np.save(one := tmp_path / "one.npy", np.ones(16))
    np.save(two := tmp_path / "two.npy", np.full(16, 2.0))
    kept = tmp_path / "out.npz"
    said = cli("run", CHAIN, "--edge", "none", "--count", 3, "--input", one, two, "--save", kept, "--json")
    assert said.code == 0
    with np.load(kept) as saved:
        assert [saved[name][0] for name in sorted(saved)] == [64, 256, 64]


@pytest.mark.extra("litert")
def test_named_inputs_and_results(cli: Cli, model: Path, tmp_path: Path) -> None:
    np.savez(given := tmp_path / "in.npz", in0=np.ones((1, 6, 6, 2), np.float32))
    kept = tmp_path / "out.npz"
    assert cli("run", model, "--edge", "none", "--count", 1, "--input", given, "--save", kept, "--json").code == 0
    with np.load(kept) as saved:
        assert {name: saved[name].shape for name in saved} == {"000001.t4": (1, 6, 6, 4), "000001.t9": (1, 6, 6, 2)}


@pytest.mark.extra("litert", "vision")
def test_pictures(cli: Cli, tmp_path: Path) -> None:
    import splitiot as si

    picture = si.samples.pictures()[0]
    kept = tmp_path / "out.npz"
    words = ["run", si.samples.fomo("int8"), "--edge", "none", "--count", 1, "--input", picture.path]
    assert cli(*words, "--save", kept, "--json").code == 0
    model = si.load_model(si.samples.fomo("int8"))
    (spec,) = model.inputs
    tensor = si.vision.to_tensor(
        si.vision.load_picture(picture.path), dtype=spec.dtype, scale=spec.scale, zero_point=spec.zero_point
    )
    with np.load(kept) as saved:
        assert np.array_equal(saved["000001"], model.run(tensor))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.npy", b"no array", "in.npy"),
        ("in.npz", b"no archive", "in.npz"),
        ("in.npy", None, "there is no file"),
    ],
)
def test_inputs_that_can_t_be_read(cli: Cli, tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    said = cli("run", CHAIN, "--edge", "none", "--input", path)
    assert (said.code, said.out) == (2, "")
    assert words in said.err


def test_pickled_arrays_are_refused(cli: Cli, tmp_path: Path) -> None:
    np.save(path := tmp_path / "in.npy", np.array([{}], dtype=object), allow_pickle=True)
    said = cli("run", CHAIN, "--edge", "none", "--input", path)
    assert said.code == 2
    assert "holds Python objects: save an array of numbers" in said.err


def test_an_input_of_another_shape(cli: Cli, model: Path, tmp_path: Path) -> None:
    np.save(path := tmp_path / "in.npy", np.zeros((1, 2), np.float32))
    said = cli("run", model, "--edge", "none", "--input", path)
    assert said.code == 2
    assert "float32[1, 2], expected float32[1, 6, 6, 2]" in said.err


def test_every_request_is_in_the_csv(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new" / "requests.csv"
    said = cli("run", CHAIN, "--edge", "none", "--count", 4, "--csv", path, "--json")
    assert said.code == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["request"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["total_s"]) for row in rows] == [r["total_s"] for r in said.lines[:-1]]
    assert rows[0]["network_s"] == ""


@pytest.mark.extra("cli")
def test_without_a_terminal_a_line_a_request(cli: Cli) -> None:
    said = cli("run", CHAIN, "--edge", "none", "--count", 30)
    assert said.code == 0
    assert sum(line.split()[:2] == [str(i), "3"] for i in range(1, 31) for line in said.out.splitlines()) == 30
    assert "30 requests: 30 local; 0 without a value" in said.out


def test_a_step_that_fails_is_3(cli: Cli, tmp_path: Path) -> None:
    np.save(fine := tmp_path / "fine.npy", np.ones(2))
    np.save(bad := tmp_path / "bad.npy", np.full(2, 9.0))
    words = ["run", TARGETS / "failing.py", "--edge", "none", "--count", 4, "--input", fine, bad, "--json"]
    said = cli(*words)
    assert said.code == 3
    assert "2 of 4 requests ended without a value" in said.err
    assert [r["error"] is None for r in said.lines[:-1]] == [True, False, True, False]
    assert "too much on purpose" in said.lines[1]["error"]
    assert said.lines[1]["source"] == "none"


def test_for_ever_ends_with_ctrl_c_and_totals() -> None:
    device = process("run", CHAIN, "--edge", "none", "--count", 0, "--period", 0.01, "--json")
    assert device.stdout is not None
    try:
        read = [json.loads(device.stdout.readline()) for _ in range(3)]
        device.send_signal(signal.SIGINT)
        out, err = device.communicate(timeout=60)
    finally:
        device.kill()
    assert device.returncode == 130, err
    assert [r["request"] for r in read] == [1, 2, 3]
    *rest, last = map(json.loads, out.splitlines())
    # the signal may come when a request is counted and its line is not yet written
    assert last["totals"]["requests"] - len(rest) in (3, 4)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.network
def test_an_edge_that_is_not_there_is_3_and_loses_nothing(cli: Cli, tmp_path: Path) -> None:
    kept = tmp_path / "out.npz"
    url = f"http://127.0.0.1:{free_port()}"
    said = cli("run", CHAIN, "--edge", url, "--count", 3, "--save", kept, "--json")
    assert said.code == 3
    assert url in said.err
    assert "could never be used" in said.err
    assert "refused" in said.err
    assert [r["error"] for r in said.lines[:-1]] == [None] * 3
    assert said.lines[-1]["totals"]["failed"] == 0
    with np.load(kept) as saved:
        assert np.array_equal(saved["000003"], WANTED)


@pytest.mark.network
def test_an_edge_that_is_needed_and_not_there(cli: Cli) -> None:
    said = cli("run", f"{CHAIN}:pinned", "--edge", f"http://127.0.0.1:{free_port()}", "--count", 1, "--json")
    assert said.code == 3
    assert "EdgeUnavailable" in said.lines[0]["error"]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    found = {"cpu": 0.5, "memory": 0.25, "temperature_c": 40.0, "battery": 0.9, "process_bytes": 1e6}
    monkeypatch.setattr("splitiot.telemetry.DeviceLoad", lambda: lambda: dict(found))
    return found


def test_the_load_is_in_the_records(cli: Cli, tmp_path: Path, load: dict[str, float]) -> None:
    path = tmp_path / "requests.csv"
    said = cli("run", CHAIN, "--edge", "none", "--count", 2, "--csv", path, "--json")
    assert said.code == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for one in (*said.lines[:-1], *rows):
        assert [float(one[name]) for name in ("cpu", "memory", "temperature_c", "battery")] == [0.5, 0.25, 40.0, 0.9]
    totals = said.lines[-1]["totals"]
    assert (totals["mean_cpu"], totals["mean_memory"], totals["max_temperature_c"]) == (0.5, 0.25, 40.0)


@pytest.mark.extra("cli")
def test_the_load_is_a_line_of_the_totals(cli: Cli, load: dict[str, float]) -> None:
    words = ["run", CHAIN, "--edge", "none", "--count", 2]
    assert cli(*words).out.endswith("load    cpu 50%, memory 25%, at most 40.0 C\n")
    assert "load" not in cli(*words, "--no-telemetry").out


@pytest.mark.network
@pytest.mark.parametrize("wanted", [True, False])
def test_the_load_is_for_policies_and_in_the_log(
    cli: Cli, tmp_path: Path, load: dict[str, float], wanted: bool
) -> None:
    words = ["run", CHAIN, "--edge", f"http://127.0.0.1:{free_port()}", "--count", 2, "--json"]
    words += ["--policy", f"{TARGETS / 'policies.py'}:Battery", "--trace", str(tmp_path / "trace.jsonl")]
    said = cli(*words, *([] if wanted else ["--no-telemetry"]))
    assert [r["why"].partition(";")[0] for r in said.lines[:-1]] == [f"battery {0.9 if wanted else None}"] * 2
    assert [r["cpu"] for r in said.lines[:-1]] == [0.5 if wanted else None] * 2
    logged = [each.telemetry for each in load_trace(tmp_path / "trace.jsonl").plans]
    assert logged == [load if wanted else None] * 2


@pytest.mark.network
@pytest.mark.extra("cli")
def test_what_keeps_it_from_the_edge_is_said(cli: Cli) -> None:
    def portal(frame: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        return 200, "text/html", b"<html>please log in</html>"

    with http_server(portal) as server:
        said = cli("run", CHAIN, "--edge", server.url, "--count", 3)
    assert said.code == 3
    words = " ".join(said.err.split())
    assert words.count("a web page (text/html)") == 2  # when it was found, and at the end
    assert "To mend it: log in where this network wants it" in words


def test_without_psutil(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    said = cli("run", CHAIN, "--edge", "none", "--count", 1, "--json")
    assert (said.code, said.err) == (0, "")
    assert said.lines[0]["cpu"] is None


@pytest.mark.extra("telemetry")
def test_the_load_of_this_machine(cli: Cli) -> None:
    said = cli("run", CHAIN, "--edge", "none", "--count", 1, "--json")
    assert 0 < said.lines[0]["memory"] < 1


UNUSABLE = {
    "no url": (["--edge", "edge:8443"], "no edge's address"),
    "plaintext": (["--edge", "http://192.0.2.1:1"], "--allow-plaintext"),
    "credential in the url": (["--edge", "http://me:secret@localhost"], "--token-file"),
    "no such policy": (["--edge", "none", "--policy", "wisest"], "least-latency, local"),
    "no policy": (["--edge", "none", "--policy", f"{TARGETS / 'policies.py'}:si"], "is no policy"),
    "a policy with arguments": (
        ["--edge", "none", "--policy", f"{TARGETS / 'policies.py'}:Wanting"],
        "without arguments",
    ),
    "cut and policy": (["--edge", "none", "--cut", "1", "--policy", "local"], "leave --policy"),
    "cut and fps": (["--cut", "1", "--fps", "5"], "leave --policy, --follow and --fps"),
    "fps and policy": (["--fps", "5", "--policy", "local"], "--fps is a policy"),
    "a stream without an edge": (["--edge", "none", "--window", "3"], "need an edge"),
    "no such cut": (["--edge", "none", "--cut", "4"], "cuts are 0..3"),
    "no such profile": (["--edge", "http://localhost:1", "--profile", "nowhere.json"], "there is no file"),
    "no such token file": (["--edge", "http://localhost:1", "--token-file", "nowhere"], "nowhere can't be read"),
    "no such ca": (["--edge", "https://localhost:1", "--ca", "nowhere"], "--ca nowhere"),
    "save for ever": (["--edge", "none", "--count", "0", "--save", "x.npz"], "--count"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable(cli: Cli, case: str) -> None:
    words, wanted = UNUSABLE[case]
    said = cli("run", CHAIN, *words, "--json")
    assert said.code == 2
    assert wanted in said.err
    assert "secret" not in said.err


def test_all_local_where_that_is_not_legal(cli: Cli) -> None:
    for words in (["--edge", "none"], ["--edge", "http://localhost:1", "--policy", "local"]):
        said = cli("run", f"{CHAIN}:pinned", *words, "--json")
        assert said.code == 2
        assert "must run on the edge" in said.err


def test_totals_without_any_request() -> None:
    totals = Totals()
    assert totals.to_dict()["p50_s"] is None
    assert str(totals).startswith("0 requests: none")


def test_the_load_in_totals() -> None:
    totals = Totals()
    for number, (cpu, temperature_c) in enumerate([(None, None), (0.2, 0.0), (0.4, -5.0)], 1):
        one = Record(number, 1, "edge", True, False, "", 10, 5, 0.1, 0.1, 0.1, total_s=0.1, error=None)
        totals.add(evolve(one, cpu=cpu, temperature_c=temperature_c))
    assert totals.to_dict()["mean_cpu"] == pytest.approx(0.3)
    assert totals.to_dict()["mean_memory"] is None
    assert str(totals).endswith("load    cpu 30%, at most 0.0 C")


def test_quantiles_are_values_that_were_seen() -> None:
    totals = Totals()
    for number in range(1, 21):
        totals.add(Record(number, 1, "edge", True, False, "", 10, 5, 0.1, 0.1, 0.1, total_s=float(number), error=None))
    assert (totals.quantile_s(0.5), totals.quantile_s(0.95), totals.quantile_s(1.0)) == (10, 19, 20)
    assert (totals.sent_bytes, totals.received_bytes) == (200, 100)
