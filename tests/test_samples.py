"""splitiot.samples: the shipped network does what its figures say, as far as six pictures can show."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest

from splitiot import samples, vision

PRECISIONS = ("float32", "int8")
FACTS = json.loads(samples.fomo().with_name("fomo.json").read_text(encoding="utf-8"))


def pixels(picture: samples.Picture) -> Any:
    pytest.importorskip("PIL", reason="Pillow (the extra 'vision') is not installed")
    return vision.load_picture(picture.path)


class Network:
    """One of the shipped files in LiteRT."""

    def __init__(self, precision: Any) -> None:
        litert = pytest.importorskip(
            "ai_edge_litert.interpreter", reason="ai-edge-litert (the extra 'litert') is not installed"
        )
        self.interpreter = litert.Interpreter(model_path=str(samples.fomo(precision)))
        self.interpreter.allocate_tensors()
        [self.source], [self.sink] = (
            self.interpreter.get_input_details(),
            self.interpreter.get_output_details(),
        )

    def __call__(self, picture: Any) -> list[vision.Detection]:
        if self.source["dtype"] == np.float32:
            tensor, quantisation = vision.to_tensor(picture), {}
        else:
            tensor = vision.to_tensor(picture, dtype=self.source["dtype"])
            scale, zero_point = self.sink["quantization"]
            quantisation = {"scale": scale, "zero_point": zero_point}
        self.interpreter.set_tensor(self.source["index"], tensor)
        self.interpreter.invoke()
        grid = self.interpreter.get_tensor(self.sink["index"])
        return vision.centroids(grid, threshold=samples.threshold(), **quantisation)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_files_are_those_that_were_measured(precision: Any) -> None:
    content = samples.fomo(precision).read_bytes()
    assert content[4:8] == b"TFL3"
    assert len(content) < 150_000
    facts = FACTS["files"][f"fomo_{precision}.tflite"]
    assert len(content) == facts["bytes"]
    assert hashlib.sha256(content).hexdigest() == facts["sha256"]


def test_the_figures() -> None:
    test = FACTS["test"]
    for precision in PRECISIONS:
        m = test[precision]
        hits, extra, missed = m["true_positives"], m["false_positives"], m["false_negatives"]
        assert hits + missed == test["digits"]
        assert m["precision"] == pytest.approx(hits / (hits + extra), abs=1e-4)
        assert m["recall"] == pytest.approx(hits / (hits + missed), abs=1e-4)
        assert m["f1"] == pytest.approx(2 * hits / (2 * hits + extra + missed), abs=1e-4)
        assert m["f1"] >= 0.85
    assert test["int8"]["f1"] >= test["float32"]["f1"] - 0.02


def test_photographs_and_digits_are_held_out() -> None:
    groups = [set(FACTS["photographs"][s]) for s in ("train", "validation", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups))
    held_out = {name.rsplit(".", 1)[0] for name in FACTS["photographs"]["test"]}
    assert {p.name.rsplit("_", 1)[0] for p in samples.pictures()} == held_out
    attribution = samples.fomo().with_name("ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(name in attribution for group in groups for name in group)


def test_pictures() -> None:
    found = samples.pictures()
    assert len(found) == 6
    assert len({p.name for p in found}) == 6
    for picture in found:
        assert picture.path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.centroids
        assert all(0 < x < 96 and 0 < y < 96 for x, y in picture.centroids)


def test_pictures_are_96_by_96_and_not_rescaled() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow (the extra 'vision') is not installed")
    for picture in samples.pictures():
        with image.open(picture.path) as file:
            assert (file.size, file.mode) == ((96, 96), "RGB")
            assert (pixels(picture) == np.asarray(file)).all()


def test_threshold() -> None:
    assert 0 < samples.threshold() < 1
    assert samples.threshold() == FACTS["threshold"]


def test_unknown_precision() -> None:
    with pytest.raises(ValueError, match="float16"):
        samples.fomo("float16")  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_inputs_and_outputs(precision: Any) -> None:
    network = Network(precision)
    source, sink = network.source, network.sink
    for details, shape in ((source, (1, 96, 96, 3)), (sink, (1, 12, 12, 2))):
        assert tuple(details["shape"]) == tuple(details["shape_signature"]) == shape
        assert details["dtype"] == np.dtype(precision)
    if precision == "int8":
        assert source["quantization"] == (pytest.approx(1 / 255), -128)
        assert sink["quantization"] == (pytest.approx(1 / 256), -128)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_digits_are_found_within_one_cell(precision: Any) -> None:
    network = Network(precision)
    for picture in samples.pictures():
        found = network(pixels(picture))
        assert len(found) == len(picture.centroids), picture.name
        for truth in picture.centroids:
            # Digits are more than two cells apart, so no detection can be the nearest of two.
            assert min(math.dist((d.x, d.y), truth) for d in found) <= 8, picture.name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plain_pictures_hold_no_digits(precision: Any) -> None:
    network = Network(precision)
    for level in (0, 64, 128, 192, 255):
        assert network(np.full((96, 96, 3), level, np.uint8)) == []
