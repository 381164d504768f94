"""A second format: a class for its files and one for its anatomy are all that models, parts and bundles ask for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitiot.errors import MalformedModel, NotCuttable
from splitiot.models import ModelPart, _formats, execute, load_bundle, load_model, save_bundle
from splitiot.models._format import Anatomy, AskShapes, Format
from splitiot.pipeline import Kernels, Runtime, RuntimeInfo, Sink, Step, TensorSpec

SIZE = 3


class Sums:
    """A chain of additions: tensor k is what step k takes, and step k adds its own number to it."""

    signature: str | None = None
    subgraph = 0
    stateful = random = False

    def __init__(self, addends: Sequence[int], first: int = 0) -> None:
        self.addends, self.first = addends, first
        self.steps = tuple(Step(f"x{first + k + 1}", "ADD") for k in range(len(addends)))
        self.names = tuple(f"x{first + k}" for k in range(len(addends) + 1))
        self.inputs: tuple[int, ...] = (0,)
        self.outputs: tuple[int, ...] = (len(addends),)
        self.input_names: Mapping[str, str] = {}
        self.output_names: Mapping[str, str] = {}

    def even_from(self) -> int:
        return 0

    def identity(self) -> str:
        return f"{len(self.steps)} sums"

    def warnings(self, kernels: Kernels) -> Iterable[str]:
        return () if kernels == "default" else (f"{kernels} kernels add slowly",)

    def spec(self, index: int, shape: tuple[int, ...] | None = None) -> TensorSpec:
        return TensorSpec(self.names[index], "float32", (SIZE,))

    def shape(self, index: int) -> tuple[int, ...] | None:
        return (SIZE,)

    def index_limits(self) -> Mapping[int, int]:
        return {}

    def crossing(self, cut: int, sink: Sink) -> tuple[int, ...]:
        return () if cut == len(self.steps) and sink == "device" else (cut,)

    def returning(self, cut: int, sink: Sink) -> tuple[int, ...]:
        return () if cut == len(self.steps) or sink == "edge" else self.outputs

    def results_at(self, cut: int) -> tuple[int, ...]:
        return self.outputs if cut == len(self.steps) else ()

    def produced(self, start: int, stop: int, sink: Sink) -> tuple[int, ...]:
        return self.crossing(start, sink) if start == stop else (stop,)

    def remembers(self, start: int, stop: int) -> bool:
        return False

    def refused(self, sink: Sink, *, fusing: bool) -> dict[int, str]:
        return {cut: "a sum of 0 can't be parted" for cut, addend in enumerate(self.addends) if cut and not addend}

    def fused(self, cut: int) -> str:
        return ""

    def write_part(
        self,
        start: int,
        stop: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        signature: str,
        description: bytes,
    ) -> bytes:
        return file_of(self.addends[start:stop], first=start, description=description.decode())


class SumsFormat(Format):
    """JSON behind four bytes."""

    def recognises(self, data: bytes) -> bool:
        return data[:4] == b"SUMS"

    def read(
        self,
        data: bytes,
        *,
        signature: str | None,
        ask_shapes: AskShapes,
        resize_input: Mapping[str, Sequence[int]] | None = None,
    ) -> tuple[bytes, Anatomy]:
        return data, Sums(json.loads(data[4:])["addends"])

    def read_part(self, data: bytes, *, ask_shapes: AskShapes) -> tuple[Anatomy, bytes]:
        content = json.loads(data[4:])
        if "description" not in content:
            raise MalformedModel("no part")
        return Sums(content["addends"], content["first"]), content["description"].encode()


def file_of(addends: Sequence[int], **more: Any) -> bytes:
    return b"SUMS" + json.dumps({"addends": [*addends], **more}).encode()


class Adder:
    """What runs such a file; see `splitiot.models.interpreters.Interpreter`."""

    info = RuntimeInfo("adder", "1", "default", "any")
    nbytes = 0

    def __init__(self, model: bytes, runtime: Runtime | None = None) -> None:
        content = json.loads(model[4:])
        sums = Sums(content["addends"], content.get("first", 0))
        self.inputs, self.outputs = (sums.spec(0),), (sums.spec(len(sums.steps)),)
        self.input_indices, self.output_indices = sums.inputs, sums.outputs
        self.value: Any = None
        self.setters = (lambda array: setattr(self, "value", array.copy()),)
        self.getters = (lambda: np.array(self.value),)
        self.addends = sums.addends

    def invoke(self) -> None:
        for addend in self.addends:
            self.value = self.value + np.float32(addend)

    def close(self) -> None:
        self.value = None


@pytest.fixture(autouse=True)
def _second_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_formats, "FORMATS", (*_formats.FORMATS, SumsFormat()))
    monkeypatch.setattr(execute, "open_interpreter", Adder)


FILE = file_of([1, 2, 0, 4])


def test_its_network_is_a_model() -> None:
    model = load_model(FILE)
    assert [step.name for step in model.steps] == ["x1", "x2", "x3", "x4"]
    assert model.cuts == (0, 1, 3, 4)
    assert model.refused == {2: "a sum of 0 can't be parted"}
    assert load_model(FILE, runtime=Runtime(kernels="reference")).warnings == ("reference kernels add slowly",)
    assert model.digest != load_model(file_of([1, 2, 0, 5])).digest
    image = np.ones(SIZE, np.float32)
    for cut in model.cuts:
        head, tail = model.split(cut)
        sent, kept = model.divide(cut, head.run(model.bind(image)))
        assert model.join(kept, tail.run(sent)).tolist() == [8, 8, 8]
    with pytest.raises(NotCuttable, match="a sum of 0"):
        model.split(2)


def test_its_parts_are_files(tmp_path: Path) -> None:
    model = load_model(FILE)
    saved = model.part(1, 4).save(tmp_path / "tail.sums")
    part = ModelPart.load(saved)
    assert (part.start, part.stop, part.n, part.digest) == (1, 4, 4, model.digest)
    assert part.run({"x1": np.zeros(SIZE, np.float32)})["x4"].tolist() == [6, 6, 6]
    with pytest.raises(MalformedModel, match="no part"):
        ModelPart.load(FILE)


def test_its_parts_make_a_bundle(tmp_path: Path) -> None:
    model = load_model(FILE)
    bundle = load_bundle(save_bundle(model, tmp_path / "bundle"))
    assert (bundle.cuts, bundle.digest, bundle.refused) == (model.cuts, model.digest, dict(model.refused))
    assert bundle.part(0, 3).run({"x0": np.zeros(SIZE, np.float32)})["x3"].tolist() == [3, 3, 3]
