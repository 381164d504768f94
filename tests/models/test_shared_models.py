"""Real and odd models: what is legal, what crosses, and that every legal cut is exact under three kernels.

The folder's README.md says what to expect of each file; the table here is that list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from splitiot.errors import CutError, MissingDependencyError, NotCuttable
from splitiot.models import load_model, verify_model
from splitiot.models.interpreters import pick
from splitiot.pipeline import Runtime

pytestmark = pytest.mark.models

KERNELS = ("default", "no-delegate", "reference")


@frozen
class Expected:
    n: int
    inner: tuple[int, ...]
    """The legal cuts but 0 and n."""
    ends: bool = True
    """Whether 0 is legal, and n where results are wanted on the edge (else it always is)."""
    stateful: bool = False
    signature: str | None = None
    tensors: int = 1
    """The most tensors that cross at an inner cut."""
    types: tuple[str, ...] = ()
    """Types that cross at some inner cut."""
    passes: tuple[int, ...] = ()
    """Cuts that an input passes through."""
    early: bool = False
    """Whether a result is produced long before the end."""
    warns: str | None = None
    reasons: dict[int, str] = field(factory=dict)
    """Words in the reasons of refused cuts."""
    cant_run: str | None = None
    """Why the uncut model can't be checked here."""
    bakes: bool = False
    """Whether an interpreter must be asked for shapes."""


def upto(n: int, **more: Any) -> Expected:
    return Expected(n, tuple(range(1, n)), **more)


SHARED = {
    "ad01_int8": upto(10),
    "hello_world_float": upto(3),
    "hello_world_int8": upto(3, types=("int8",)),
    "keyword_scrambled_8bit": upto(15, stateful=True, cant_run="killed by SIG"),
    "kws_ref_model": upto(13),
    "micro_speech_quantized": upto(4),
    "pretrainedResnet_quant": upto(16, tensors=2),
    "str_ww_ref_model": upto(11),
    "trained_lstm_int8": upto(4, stateful=True),
    "vww_96_float": upto(31, types=("float32",)),
    "vww_96_int8": upto(31, types=("int8",)),
    "odd/bool_mid": upto(6, types=("bool",), passes=(1,), tensors=2),
    "odd/buffer_offset": upto(2),
    "odd/complex_fft": upto(6, types=("complex64",)),
    "odd/cond": upto(4, passes=(1, 2), tensors=2),
    "odd/gru_keras": upto(5),
    "odd/hashtable_string": Expected(
        4,
        (),
        ends=False,
        # 4 only where the result is wanted on the edge
        reasons={0: "STRING", 1: "STRING", 2: "RESOURCE", 3: "shape", 4: "shape"},
        cant_run="STRING",
    ),
    "odd/input_skip": upto(4, passes=(1, 2), tensors=2),
    "odd/lstm_keras": upto(5),
    "odd/multi_signature:dec": upto(2, signature="dec"),
    "odd/multi_signature:enc": upto(1, signature="enc"),
    "odd/nms": upto(4, bakes=True, passes=(1,), tensors=3),
    "odd/random": upto(3, warns="RANDOM", passes=(1,), tensors=2),
    "odd/scalar": upto(4, passes=(1, 2), tensors=2),
    "odd/two_in": upto(5, passes=(1,), tensors=2),
    "odd/two_out_dynrange": upto(11, tensors=3, early=True),
    "odd/two_out_float": upto(11, tensors=3, early=True),
    "odd/two_out_fp16": upto(11, tensors=3, early=True),
    "odd/two_out_int16x8": upto(15, types=("int16",), tensors=3, early=True),
    "odd/two_out_int8_floatio": upto(14, types=("int8",), tensors=3, early=True),
    "odd/variable": Expected(
        8,
        (7,),
        stateful=True,
        reasons={1: "CALL_ONCE"} | dict.fromkeys(range(2, 7), "RESOURCE"),
    ),
    "odd/where_dyn": Expected(7, (1,), passes=(1,), tensors=2, reasons=dict.fromkeys(range(2, 7), "data")),
    "odd/while": upto(3),
}


def load(folder: Path, name: str, **how: Any) -> Any:
    return load_model(folder / f"{name.partition(':')[0]}.tflite", signature=SHARED[name].signature, **how)


@pytest.fixture
def _interpreter() -> None:
    try:
        pick()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_the_table_is_complete(models_dir: Path) -> None:
    files = {str(path.relative_to(models_dir).with_suffix("")) for path in models_dir.rglob("*.tflite")}
    assert files == {name.partition(":")[0] for name in SHARED}


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("sink", ["device", "edge"])
@pytest.mark.parametrize("name", SHARED)
def test_what_is_legal_and_what_crosses(name: str, sink: Any, models_dir: Path) -> None:
    expected, model = SHARED[name], load(models_dir, name, sink=sink)
    assert model.n == len(model.steps) == expected.n
    ends = {0, expected.n} if expected.ends else ({expected.n} if sink == "device" else set())
    assert model.cuts == tuple(sorted(ends.union(expected.inner)))
    assert model.stateful == expected.stateful
    assert sorted(model.refused) == [cut for cut in range(model.n + 1) if cut not in model.cuts]
    for cut, why in model.refused.items():
        assert expected.reasons[cut].lower() in why.lower()
        for ask in (model.boundary, model.split):
            with pytest.raises(NotCuttable) as caught:
                ask(cut)
            assert why in str(caught.value)
    with pytest.raises(CutError):
        model.boundary(model.n + 1)
    if expected.warns:
        assert any(expected.warns in text for text in model.warnings)
    else:
        assert model.warnings == ()
    inner = {cut: model.boundary(cut) for cut in expected.inner}
    types = {t.dtype for boundary in inner.values() for t in boundary.tensors}
    assert types >= set(expected.types)
    inputs = {t.name for t in model.inputs}
    assert tuple(cut for cut, b in inner.items() if inputs & set(b.names)) == expected.passes
    if sink == "device" and inner:
        assert max(len(b.tensors) for b in inner.values()) == expected.tensors
    outputs = {t.name for t in model.outputs}
    early = [cut for cut in expected.inner if outputs & set(model.part(0, cut).outputs.names)]
    assert bool(early) == expected.early
    if sink == "edge":
        assert all(outputs & set(inner[cut].names) for cut in early), "early results are wanted on the edge"
        assert all(model.returned(cut).nbytes == 0 for cut in model.cuts)


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", SHARED)
def test_every_legal_cut_is_exact(name: str, kernels: Any, models_dir: Path) -> None:
    expected, model = SHARED[name], load(models_dir, name)
    report = verify_model(model, runtime=Runtime(kernels=kernels))
    assert report.digest == model.digest
    assert report.info.kernels == kernels
    if expected.cant_run:
        assert not report.ok
        assert not report.ran
        assert report.lines == ()
        assert expected.cant_run.lower() in report.detail.lower()
        assert "can't run here" in str(report)
        return
    assert report.ok, str(report)
    assert tuple(line.cut for line in report.lines) == model.cuts
    assert [line.nbytes for line in report.lines] == [model.boundary(cut).nbytes for cut in model.cuts]
    assert all(line.max_abs_difference == 0 for line in report.lines)


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("name", ["odd/two_out_float", "odd/cond", "odd/multi_signature:enc", "odd/two_in"])
def test_exact_when_results_are_wanted_on_the_edge(name: str, models_dir: Path) -> None:
    report = verify_model(load(models_dir, name, sink="edge"))
    assert report.ok, str(report)


def test_bytes_that_cross(models_dir: Path) -> None:
    limits = {"hello_world_int8": (16, 16), "hello_world_float": (16, 16), "kws_ref_model": (0.02, 16.4)}
    for name, (low, high) in limits.items():
        model = load(models_dir, name)
        ratios = [model.boundary(cut).nbytes / model.boundary(0).nbytes for cut in range(1, model.n)]
        assert (min(ratios), max(ratios)) == pytest.approx((low, high), rel=0.25)
    resnet = load(models_dir, "pretrainedResnet_quant")
    assert sum(len(resnet.boundary(cut).tensors) == 1 for cut in range(1, resnet.n)) == 7


def test_shapes_that_only_an_interpreter_knows(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **more: object) -> None:
        raise MissingDependencyError("an interpreter (ai-edge-litert)", "litert")

    monkeypatch.setattr("splitiot.models.probe.child_shapes", missing)
    for name, expected in SHARED.items():
        model = load(models_dir, name)
        asked = [cut for cut, why in model.refused.items() if "needs an interpreter" in why]
        assert bool(asked) == expected.bakes, (name, model.refused)
        if asked:
            assert all("splitiot[litert]" in model.refused[cut] for cut in asked)
