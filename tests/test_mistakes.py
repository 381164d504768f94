"""What callers get wrong, and the sentence that each of them reads: what it was, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import splitiot as si


def double(x: Any) -> Any:
    return 2 * x


def increment(x: Any) -> Any:
    return x + 1


PIPELINE = si.tasks([double, increment])
PROFILE = si.TierProfile.from_steps(PIPELINE.digest, [1e-3, 1e-3], sent_bytes=[8, 8, 0], returned_bytes=[8, 8, 0])
LINK = si.Link.from_mbit_per_s(1, rtt_s=0.01)
TOPOLOGY = si.Topology(tiers=[PROFILE, PROFILE.scaled(0.1)], links=[LINK])
LOADS = "load_model('x.tflite') makes one of a model file"
FUNCTIONS = "tasks([double]) makes one of functions"


def transport() -> si.InMemory:
    return si.InMemory(lambda frame: None)


def device(**options: Any) -> si.Device:
    return si.Device(PIPELINE, transport(), profile=PROFILE, connect_s=0, cache=False, **options)


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "url": (lambda: si.Device(PIPELINE, "http://edge"), TypeError, "HttpTransport('http://edge')"),
    "class of a transport": (lambda: si.Device(PIPELINE, si.InMemory), TypeError, "write InMemory(...)"),
    "file for a device": (lambda: si.Device("x.tflite", transport()), TypeError, LOADS),
    "function for a device": (lambda: si.Device(double, transport()), TypeError, FUNCTIONS),
    "list for a device": (lambda: si.Device([double], transport()), TypeError, "tasks([...]) makes one"),
    "class of a policy": (lambda: device(policy=si.Best), TypeError, "write Best(...)"),
    "name of a policy": (lambda: device(policy="latency_s"), TypeError, "LeastLatency()"),
    "link": (lambda: device(link=3), TypeError, "Link.from_mbit_per_s"),
    "runtime": (lambda: device(runtime="litert"), TypeError, "Runtime('litert')"),
    "deadline": (lambda: device(deadline_s="1"), ValueError, "positive number of seconds, got '1'"),
    "patience": (lambda: device(patience_s=0), ValueError, "patience_s must be a positive"),
    "telemetry that is no function": (lambda: device(telemetry={"battery": 1}), TypeError, "run(..., telemetry="),
    "word as telemetry": (lambda: device().run(3, telemetry={"battery": "low"}), TypeError, "must be a number, got"),
    "word from the telemetry": (lambda: device(telemetry=lambda: {"a": "b"}).run(3), TypeError, "'a' must be a number"),
    "no mapping as telemetry": (lambda: device().run(3, telemetry="low"), TypeError, "numbers by name"),
    "word as a constraint": (lambda: device(subject_to="x"), TypeError, "StepsOnDevice(1)"),
    "words as constraints": (lambda: device(subject_to=["x"]), TypeError, "StepsOnDevice(1)"),
    "file to serve": (lambda: si.EdgeService("x.tflite"), TypeError, LOADS),
    "files to serve": (lambda: si.EdgeService(["x.tflite"]), TypeError, LOADS),
    "functions to serve": (lambda: si.EdgeService([double]), TypeError, FUNCTIONS),
    "policy of an edge": (lambda: si.EdgeService([PIPELINE], policy=si.Best), TypeError, "write Best(...)"),
    "workers": (lambda: si.EdgeService([PIPELINE], workers=0), ValueError, "workers must be >= 1"),
    "function, not a list": (lambda: si.tasks(abs), TypeError, "write tasks([abs])"),
    "network as a task": (lambda: si.tasks([PIPELINE]), TypeError, "tasks([...]) + model"),
    "sink": (lambda: si.tasks([double], sink="cloud"), ValueError, "'device' or 'edge'"),
    "sink elsewhere": (lambda: PIPELINE.with_sink("cloud"), ValueError, "'device' or 'edge'"),
    "tier": (lambda: si.task(double, tier="fog"), ValueError, "'device' or 'edge', got 'fog'"),
    "sum": (lambda: PIPELINE + double, TypeError, FUNCTIONS),
    "file to solve": (lambda: si.solve("x.tflite", TOPOLOGY), TypeError, LOADS),
    "file to measure": (lambda: si.profile("x.tflite", 3), TypeError, LOADS),
    "function to measure": (lambda: si.profile(double, 3), TypeError, FUNCTIONS),
    "function to run": (lambda: si.Runner(double), TypeError, FUNCTIONS),
    "one link": (lambda: si.Topology(tiers=[PROFILE, PROFILE], links=LINK), TypeError, "write links=[...]"),
    "number as a link": (lambda: si.Topology(tiers=[PROFILE, PROFILE], links=[1]), TypeError, "Link.from_mbit_per_s"),
    "file as a tier": (lambda: si.Topology(tiers=["a", "b"], links=[LINK]), TypeError, "TierProfile.load(path)"),
    "name of a runtime": (lambda: si.Runtime("onnx"), ValueError, "litert"),
    "kernels": (lambda: si.Runtime(kernels="fast"), ValueError, "no-delegate"),
    "threads": (lambda: si.Runtime(threads=0), ValueError, "at least 1, got 0"),
    "service as an answer": (lambda: si.InMemory(si.EdgeService([PIPELINE])), TypeError, "service.handle"),
    "topology": (lambda: si.solve(PIPELINE, [PROFILE, PROFILE]), TypeError, "Topology(tiers=[device, edge]"),
    "profile as a topology": (lambda: si.Planner(PIPELINE, PROFILE), TypeError, "Topology(tiers=[device, edge]"),
    "constraint of solve": (lambda: si.solve(PIPELINE, TOPOLOGY, subject_to="x"), TypeError, "StepsOnDevice(1)"),
    "objective": (lambda: si.solve(PIPELINE, TOPOLOGY, objective="speed"), ValueError, "latency_s, period_s"),
    "objective of a policy": (lambda: si.Best("speed"), ValueError, "latency_s, period_s"),
    "constraint of a policy": (lambda: si.Best(subject_to="x"), TypeError, "StepsOnDevice(1)"),
    "class in a wrapper": (lambda: si.Hysteresis(si.Best), TypeError, "Best(...)"),
    "cut below 0": (lambda: si.Fixed(-1), ValueError, "Fixed(pipeline.n)"),
    "number as a model": (lambda: si.load_model(3), TypeError, "path or the bytes of a .tflite file"),
    "functions as a model": (lambda: si.load_model([double]), TypeError, "tasks([...]) functions"),
    "steps": (lambda: si.StepsOnDevice(-1), ValueError, ">= 0, got -1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told(name: str) -> None:
    call, kind, words = MISTAKES[name]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_pipeline_need_not_be_a_list() -> None:
    with si.EdgeService(PIPELINE) as service:
        assert service.pipelines == (PIPELINE,)


BROKEN = {
    "no JSON": b"{",
    "bad byte": b'{"format": "\xff"}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep inside": b'{"format": 1, "digest": "a", "heads_s": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge": b'{"format": 1, "digest": "a", "heads_s": [0, 1], "tails_s": [1, 0], "spread": 1' + b"0" * 400 + b"}",
    "list": b"[]",
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_profile_is_a_profile_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(si.errors.ProfileError):
        si.TierProfile.load(path)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_cache_is_measured_anew(tmp_path: Path, content: bytes) -> None:
    def run() -> None:
        with si.Device(PIPELINE, transport(), connect_s=0, cache=tmp_path) as device:
            assert device.run(20).value == 41

    run()
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    path.write_bytes(content)
    run()
    assert len(path.read_bytes()) > len(sound) / 2
    assert si.TierProfile.load(path).digest == PIPELINE.digest


@pytest.mark.parametrize("cache", [None, "relative/folder"])
def test_without_a_home_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it gives where nobody has a home
    if cache is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    with si.Device(PIPELINE, transport(), connect_s=0) as device:
        assert device.run(20).value == 41
    assert list(tmp_path.iterdir()) == []
