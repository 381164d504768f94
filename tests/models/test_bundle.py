"""Bundles: what is written, what is read back, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitiot as si
from splitiot.errors import CutError, EdgeUnavailable, MalformedModel, NotCuttable, ProfileError, TransportError
from splitiot.models import Bundle, Model, load_bundle, save_bundle
from splitiot.profiling import profile
from tests import networks

FOMO = si.samples.fomo("int8")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only(bundle: Path, folder: Path, *names: str) -> Path:
    """Copy the manifest and some of the parts, as one does to a device."""
    folder.mkdir()
    for name in ("manifest.json", *names):
        shutil.copy(bundle / name, folder / name)
    return folder


@pytest.fixture
def model() -> Model:
    return si.load_model(networks.early_output())


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return save_bundle(model, tmp_path / "bundle")


# without an interpreter -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", ["device", "edge"])
@pytest.mark.parametrize(
    "make", [networks.early_output, networks.two_inputs, networks.passthrough, networks.quantised, networks.bool_mid]
)
def test_says_what_the_model_says(make: Callable[[], bytes], sink: Any, tmp_path: Path) -> None:
    model = si.load_model(make(), sink=sink)
    bundle = load_bundle(save_bundle(model, tmp_path / "b"))
    for what in ("digest", "n", "name", "sink", "stateful", "signature", "steps", "inputs", "cuts", "warnings"):
        assert getattr(bundle, what) == getattr(model, what), what
    assert bundle.refused == model.refused
    for cut in model.cuts:
        assert bundle.boundary(cut) == model.boundary(cut)  # with scale and zero point
        assert bundle.returned(cut) == model.returned(cut)
        payload = {name: object() for name in model.part(0, cut).outputs.names}
        assert bundle.divide(cut, dict(payload)) == model.divide(cut, dict(payload))
        for ends in {(0, cut), (cut, model.n)}:
            part = bundle.part(*ends)
            assert (part.inputs, part.outputs) == (model.part(*ends).inputs, model.part(*ends).outputs)
    assert set(bundle.parts) == {e for c in model.cuts for e in ((0, c), (c, model.n)) if e[0] < e[1]}


def test_the_same_model_gives_the_same_bytes(model: Model, folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    assert before == contents(save_bundle(model, tmp_path / "again"))
    assert before["head-2.tflite"] == model.part(0, 2).to_bytes()
    assert list(json.loads(before["manifest.json"]))[:2] == ["kind", "format"]


def test_some_cuts(model: Model, tmp_path: Path) -> None:
    bundle = load_bundle(save_bundle(model, tmp_path / "b", cuts=[3, 3]))
    assert bundle.cuts == (0, 3, 5)
    assert bundle.parts == ((0, 3), (0, 5), (3, 5))
    assert [path.name for path in bundle.files.values()] == ["head-3.tflite", "whole.tflite", "tail-3.tflite"]
    with pytest.raises(CutError, match=r"part \[0, 2\) of model is not in this bundle; it has \[0, 3\)"):
        bundle.part(0, 2)
    with pytest.raises(NotCuttable, match="no head in this bundle"):
        bundle.boundary(2)


def test_a_device_has_only_what_was_copied(folder: Path, tmp_path: Path, model: Model) -> None:
    bundle = load_bundle(only(folder, tmp_path / "device", "head-3.tflite"))
    assert (bundle.cuts, bundle.parts) == ((0, 3), ((0, 3),))
    assert sorted(bundle.refused) == [1, 2, 4, 5]
    assert bundle.digest == model.digest
    with pytest.raises(CutError, match="not in this bundle"):
        bundle.part(3, 5)
    assert load_bundle(only(folder, tmp_path / "none")).cuts == (0,)


def test_illegal_cuts_are_not_written(tmp_path: Path) -> None:
    model = si.load_model(networks.where())
    with pytest.raises(NotCuttable, match="WHERE"):
        save_bundle(model, tmp_path / "b", cuts=[3])
    with pytest.raises(CutError):
        save_bundle(model, tmp_path / "b", cuts=[99])
    assert not list(tmp_path.iterdir())
    assert load_bundle(save_bundle(model, tmp_path / "b")).refused == model.refused


def test_a_bundle_is_replaced_whole(model: Model, folder: Path) -> None:
    save_bundle(model, folder, cuts=[2])
    assert sorted(contents(folder)) == ["head-2.tflite", "manifest.json", "tail-2.tflite", "whole.tflite"]
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]  # nothing temporary stays


def test_nothing_else_is_overwritten(model: Model, folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (other := tmp_path / "other").mkdir()
    (other / "manifest.json").write_text("{}")
    (file := tmp_path / "file").write_text("mine")
    (link := tmp_path / "link").symlink_to(other, target_is_directory=True)
    for where, words in ((folder, "'notes.txt'"), (other, "no bundle"), (file, "no folder"), (link, "no folder")):
        with pytest.raises(FileExistsError, match=words):
            save_bundle(model, where)
    assert (folder / "notes.txt").read_text() == file.read_text() == "mine"
    (empty := tmp_path / "empty").mkdir()
    assert load_bundle(save_bundle(model, empty)).cuts == model.cuts


def test_what_fails_leaves_nothing(model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_bundle(model, folder, cuts=[2])
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_the_sink_is_that_of_the_parts(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.with_sink("device") is bundle
    with pytest.raises(CutError, match="results on the device"):
        bundle.with_sink("edge")


# what is not what it says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["flip", "cut short", "swap", "gone"])
def test_a_changed_file_is_refused(folder: Path, change: str) -> None:
    bundle = load_bundle(folder)
    path = folder / "head-3.tflite"
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif change == "cut short":
        path.write_bytes(data[:-1])
    elif change == "swap":
        shutil.copy(folder / "head-2.tflite", path)
    else:
        path.unlink()
    with pytest.raises(MalformedModel, match=r"head-3\.tflite"):
        bundle.part(0, 3)
    assert bundle.part(0, 2).stop == 2


def edited(folder: Path, edit: Callable[[Any], object]) -> Path:
    path = folder / "manifest.json"
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))
    return folder


def test_another_part_under_a_true_checksum_is_refused(folder: Path) -> None:
    def swap(document: Any) -> None:
        by_name = {part["file"]: part for part in document["parts"]}
        for key in ("bytes", "sha256"):
            by_name["head-3.tflite"][key] = by_name["head-2.tflite"][key]

    shutil.copy(folder / "head-2.tflite", folder / "head-3.tflite")
    with pytest.raises(MalformedModel, match="not the part"):
        load_bundle(edited(folder, swap)).part(0, 3)


@pytest.mark.parametrize(
    "name",
    ["../head-1.tflite", "/etc/passwd", "a/../head-1.tflite", "head-1.tflite\n", "..", "", ".hidden", "C:\\x.tflite"],
)
def test_a_file_elsewhere_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(MalformedModel, match="no file name of a part"):
        load_bundle(edited(folder, lambda d: d["parts"][0].update(file=name)))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.update(kind="zip"),
        lambda d: d.update(format=1),
        lambda d: d.update(format="1"),
        lambda d: d.update(n=10**9),
        lambda d: d.update(n=4),
        lambda d: d.update(n=-1),
        lambda d: d.update(digest="x" * 64),
        lambda d: d.update(digest=None),
        lambda d: d.update(sink="cloud"),
        lambda d: d.update(steps="CONV_2D"),
        lambda d: d.update(extra=1),
        lambda d: d.pop("cuts"),
        lambda d: d["cuts"].reverse(),
        lambda d: d["cuts"].append(d["cuts"][-1]),
        lambda d: d["cuts"][0].update(kept=["no result"]),
        lambda d: d["cuts"][0].update(cut=-1),
        lambda d: d["cuts"][0]["sent"][0].update(dtype="object"),
        lambda d: d["cuts"][0]["sent"][0].update(shape=[-1]),
        lambda d: d["cuts"][0]["sent"][0].update(shape=[2**30, 2**30]),
        lambda d: d["cuts"][0]["sent"][0].update(shape=[1] * 40),
        lambda d: d["cuts"][0]["sent"].append(d["cuts"][0]["sent"][0]),
        lambda d: d["refused"].append([1, "both"]),
        lambda d: d["parts"].append(d["parts"][0]),
        lambda d: d["parts"][0].update(start=1, stop=2),
        lambda d: d["parts"][0].update(start=3, stop=1),
        lambda d: d["parts"][0].update(bytes=2**40),
        lambda d: d["parts"][0].update(sha256="00"),
        lambda d: d.update(results=[]),
    ],
)
def test_a_manifest_that_can_t_be_is_refused(folder: Path, edit: Callable[[Any], object]) -> None:
    with pytest.raises(MalformedModel, match=r"manifest\.json"):
        load_bundle(edited(folder, edit))


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b'{"kind": "splitiot bundle"'])
def test_no_manifest_at_all(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(MalformedModel):
        load_bundle(folder)


def test_no_bundle(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text("x")
    for where in (tmp_path, tmp_path / "missing", file):
        with pytest.raises(MalformedModel, match="no bundle"):
            load_bundle(where)


# run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fomo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(si.load_model(FOMO), tmp_path_factory.mktemp("bundles") / "fomo", cuts=[7, 13])


def image(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-128, 128, (1, 96, 96, 3)).astype(np.int8)


class Edge:
    """An edge with the whole model, and a switch."""

    def __init__(self) -> None:
        self.service = si.EdgeService([si.load_model(FOMO)])
        self.up = True

    def handle(self, frame: bytes) -> bytes:
        if not self.up:
            raise TransportError("switched off")
        return self.service.handle(frame, peer="me")


@pytest.mark.extra("litert")
def test_a_head_alone_is_a_device(fomo: Path, tmp_path: Path) -> None:
    bundle = load_bundle(only(fomo, tmp_path / "device", "head-7.tflite"))
    model, edge = si.load_model(FOMO), Edge()
    with si.Device(bundle, si.InMemory(edge.handle), policy=si.Fixed(7), cache=tmp_path / "cache") as device:
        for seed in range(3):
            outcome = device.run(image(seed))
            assert (outcome.source, outcome.exact, outcome.plan and outcome.plan.cut) == ("edge", True, 7)
            assert np.array_equal(outcome.value, model.run(image(seed)))
        edge.up = False
        for _ in range(3):
            outcome = device.run(image(), deadline_s=0.5)
            assert outcome.source == "none"
            assert isinstance(outcome.error, EdgeUnavailable)
    # what a few parts cost is not kept as what the whole model costs
    assert [path for path in (tmp_path / "cache").iterdir() if "-parts-" not in path.name] == []


@pytest.mark.extra("litert")
def test_with_its_tail_it_finishes_alone(fomo: Path, tmp_path: Path) -> None:
    bundle = load_bundle(only(fomo, tmp_path / "device", "head-7.tflite", "tail-7.tflite"))
    edge = Edge()
    with si.Device(bundle, si.InMemory(edge.handle), policy=si.Fixed(7), cache=False) as device:
        assert device.run(image()).source == "edge"
        edge.up = False
        outcome = device.run(image())
        assert (outcome.source, outcome.exact) == ("fallback", True)
        assert np.array_equal(outcome.value, si.load_model(FOMO).run(image()))


@pytest.mark.extra("litert")
def test_every_part_runs_and_the_whole_is_the_model(fomo: Path) -> None:
    bundle, want = load_bundle(fomo), si.load_model(FOMO).run(image())
    assert np.array_equal(bundle.run(image()), want)
    for cut in bundle.cuts:
        sent, kept = bundle.divide(cut, bundle.part(0, cut).run(bundle.bind(image())))
        assert bundle.boundary(cut).mismatch(sent) is None
        back = bundle.part(cut, bundle.n).run(sent) if cut < bundle.n else {}
        assert np.array_equal(bundle.join(kept, back), want)


@pytest.mark.extra("litert")
def test_only_what_is_here_is_measured(fomo: Path, tmp_path: Path) -> None:
    bundle = load_bundle(only(fomo, tmp_path / "device", "head-7.tflite", "head-13.tflite", "tail-13.tflite"))
    measured = profile(bundle, image(), budget_s=0.0)
    assert (measured.digest, measured.n) == (bundle.digest, 25)
    assert 0 < measured.heads_s[7] <= measured.heads_s[13] <= measured.heads_s[25]
    assert 0 < measured.tails_s[13] <= measured.tails_s[0]
    nothing = load_bundle(only(fomo, tmp_path / "nothing"))
    assert profile(nothing, image()).heads_s[0] == 0


@pytest.mark.extra("litert")
def test_functions_in_front_of_a_bundle(fomo: Path, tmp_path: Path) -> None:
    def negative(x: Any) -> Any:
        return ~x

    before = si.tasks([negative], version="1")
    bundle = load_bundle(only(fomo, tmp_path / "device", "head-7.tflite"))
    here, there = before + bundle, before + si.load_model(FOMO)
    assert here.digest == there.digest
    assert here.parts == ((0, 1), (0, 8))
    assert here.cuts == (0, 1, 8)
    assert there.parts is None
    with pytest.raises(ProfileError, match="profile the whole"):
        profile(here, image())
    service = si.EdgeService([there])
    transport = si.InMemory(lambda frame: service.handle(frame, peer="me"))
    known = profile(there, image(), budget_s=0.0)
    with si.Device(here, transport, policy=si.Fixed(8), profile=known, cache=False) as device:
        outcome = device.run(image())
        assert (outcome.source, outcome.plan and outcome.plan.cut) == ("edge", 8)
        assert np.array_equal(outcome.value, there.run(image()))


def test_looks_like_what_it_is(fomo: Path, tmp_path: Path) -> None:
    bundle = load_bundle(only(fomo, tmp_path / "device", "tail-7.tflite"))
    assert isinstance(bundle, Bundle)
    assert repr(bundle) == "<Bundle 'fomo_int8': 1 of 5 parts, 25 steps>"
