"""The proof and its report: what it sees, what it survives, and what it can't say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitiot._child import _messages
from splitiot.errors import LocalProtocolError, MissingDependencyError, ModelError
from splitiot.models import _child, load_model, verify, verify_model
from splitiot.models._check import difference
from splitiot.models._random_input import random_payload
from splitiot.models._request import Answer, Check, Cut, Probe, Running, Whole, read_request, request_pieces
from splitiot.models.interpreters import pick
from splitiot.pipeline import Runtime, TensorSpec
from tests import networks

START = "import os, signal, time, splitiot.models._child_main as c; "


@pytest.fixture
def _interpreter() -> None:
    try:
        pick()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def change_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run `code` in each child before it begins; `c` is the module that checks."""
    monkeypatch.setattr(_child, "CODE", START + f"exec({code!r}); c.main()")


runs = pytest.mark.usefixtures("_interpreter")


@runs
@pytest.mark.parametrize("kernels", ["default", "no-delegate", "reference"])
@pytest.mark.parametrize("make", [networks.early_output, networks.input_result, networks.branches])
def test_every_cut_is_exact(make: Callable[[], bytes], kernels: Any) -> None:
    model = load_model(make())
    seen: list[int] = []
    report = verify_model(model, runtime=Runtime(kernels=kernels), on_line=lambda line: seen.append(line.cut))
    assert report.ok, str(report)
    assert seen == [line.cut for line in report.lines] == list(model.cuts)
    assert (report.samples, report.ran, report.detail) == (2, True, "")
    assert report.info == model.runtime_info(Runtime(kernels=kernels))
    assert str(report).endswith(f"{len(seen)} of {len(seen)} cuts exact: ok")
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is True
    assert data["lines"][0] == {
        "cut": 0,
        "nbytes": model.boundary(0).nbytes,
        "ok": True,
        "max_abs_difference": 0.0,
        "detail": "",
    }


@runs
@pytest.mark.parametrize("make", [networks.early_output, networks.two_inputs, networks.constant_result])
def test_results_on_the_edge(make: Callable[[], bytes]) -> None:
    report = verify_model(load_model(make(), sink="edge"))
    assert report.ok, str(report)


@runs
@pytest.mark.parametrize("make", [networks.svdf, networks.counter])
def test_state_is_one_sequence_at_each_cut(make: Callable[[], bytes]) -> None:
    model = load_model(make())
    assert model.stateful
    report = verify_model(model, samples=1)
    assert report.ok, str(report)
    assert report.samples == 3, "one run shows nothing of state"
    for cut in model.refused:
        assert f"{cut:>5} {'':>11}  refused: " in str(report)


@runs
def test_random_numbers_are_compared_from_fresh_interpreters() -> None:
    report = verify_model(load_model(networks.random()), samples=3)
    assert report.ok, str(report)
    assert "warning: " in str(report)


@runs
def test_ones_own_sample() -> None:
    model = load_model(networks.two_inputs())
    sample = {t.name: np.full(t.shape, 0.5, t.dtype) for t in model.inputs}
    report = model.verify(sample=sample)
    assert report.ok, str(report)
    assert report.samples == 1
    with pytest.raises(LocalProtocolError):
        model.verify(sample=1.0)
    with pytest.raises(ValueError, match="samples"):
        model.verify(samples=0)


@runs
def test_a_wrong_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    # one bit of what crosses, at one cut
    change_child(
        monkeypatch,
        "import splitiot.models._check as k\n"
        "through, real = k._through_bytes, c.CutChecker.cut\n"
        "def flip(payload):\n"
        "    out = {k: v.copy() for k, v in through(payload).items()}\n"
        "    for a in out.values(): a.reshape(-1).view('uint8')[3] ^= 128\n"
        "    return out\n"
        "def cut(self, at):\n"
        "    k._through_bytes = flip if at == 2 else through\n"
        "    return real(self, at)\n"
        "c.CutChecker.cut = cut",
    )
    report = verify_model(load_model(networks.chain()))
    assert not report.ok
    assert [line.cut for line in report.lines if not line.ok] == [2]
    line = report.lines[2]
    assert line.max_abs_difference is not None
    assert line.max_abs_difference > 0
    assert line.detail.startswith("sample 0: ")
    assert "FAILED: sample 0: " in str(report)
    assert str(report).endswith("4 of 5 cuts exact: NOT OK")


@runs
def test_a_crash_takes_one_cut_only(monkeypatch: pytest.MonkeyPatch) -> None:
    change_child(
        monkeypatch,
        "real = c.CutChecker.cut\n"
        "def cut(self, k):\n"
        "    if k == 1: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if k == 3: os._exit(7)\n"
        "    return real(self, k)\n"
        "c.CutChecker.cut = cut",
    )
    report = verify_model(load_model(networks.chain()))
    assert [(line.cut, line.ok) for line in report.lines] == [(0, True), (1, False), (2, True), (3, False), (4, True)]
    assert report.lines[1].detail == "killed by SIGSEGV while running head and tail"
    assert report.lines[3].detail == "ended with exit code 7 while running head and tail"
    assert report.ran
    assert not report.ok


@runs
def test_a_whole_model_that_crashes_can_not_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    change_child(monkeypatch, "c.CutChecker.whole = lambda self: os.abort()")
    report = verify_model(load_model(networks.chain()))
    assert (report.ok, report.ran, report.lines) == (False, False, ())
    assert report.detail == "killed by SIGABRT while running the uncut model"
    assert "can't run here: killed by SIGABRT" in str(report)
    assert report.info == pick().info()


@runs
def test_a_model_that_the_interpreter_refuses() -> None:
    report = verify_model(load_model(networks.custom()))
    assert (report.ok, report.ran, report.lines) == (False, False, ())
    assert "can't run this model" in report.detail
    assert "Wobble" in report.detail


def test_strings_do_not_reach_the_child() -> None:
    report = verify_model(load_model(networks.string_input()))
    assert (report.ok, report.ran, report.samples) == (False, False, 0)
    assert "STRING" in report.detail
    assert "can't run here" in str(report)


@runs
def test_what_differs_from_run_to_run_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    change_child(
        monkeypatch,
        "import splitiot.models._whole as w\n"
        "real, calls = w._File.__call__, []\n"
        "def run(self, payload):\n"
        "    calls.append(1)\n"
        "    return {k: v + len(calls) for k, v in real(self, payload).items()}\n"
        "w._File.__call__ = run",
    )
    report = verify_model(load_model(networks.chain()))
    assert (report.ok, report.ran, report.lines) == (False, True, ())
    assert "not reproducible" in report.detail
    assert "not reproducible" in str(report)


@runs
def test_a_boundary_that_is_not_true_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    change_child(
        monkeypatch,
        "from splitiot.models.model import Model\n"
        "real = Model.divide\n"
        "def divide(self, cut, payload):\n"
        "    sent, kept = real(self, cut, payload)\n"
        "    return {k: v[..., :1] for k, v in sent.items()}, kept\n"
        "Model.divide = divide",
    )
    report = verify_model(load_model(networks.chain()))
    assert "what crosses is not what the boundary says" in report.lines[1].detail
    assert report.lines[-1].ok, "nothing crosses at n"


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    change_child(
        monkeypatch,
        "sys.modules.update({'ai_edge_litert.interpreter': None, 'tflite_runtime.interpreter': None, "
        "'tensorflow': None})",
    )
    with pytest.raises(MissingDependencyError, match=r"splitiot\[litert\]"):
        verify_model(load_model(networks.chain()))
    with pytest.raises(MissingDependencyError, match=r"splitiot\[tflite\]"):
        verify_model(load_model(networks.chain()), runtime=Runtime("tflite-runtime"))


def test_a_child_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(networks.chain())
    monkeypatch.setattr(_child, "CODE", "raise SystemExit('no such thing')")
    with pytest.raises(ModelError, match="did not start: ended with exit code 1: no such thing"):
        verify_model(model)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ModelError, match="no child process can be started with '/nowhere/python'"):
        verify_model(model)


def test_what_the_child_can_not_read() -> None:
    model = load_model(networks.chain())
    model.digest = "f" * 64  # type: ignore[misc]
    try:
        pick()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with pytest.raises(ModelError, match=r"could not be checked: .* the parent ffff"):
        verify_model(model)


@pytest.mark.parametrize(
    ("said", "ran", "details"),
    [
        ([Running()], False, {}),
        ([Running(), Whole(ran=True), Running(0)], True, {0: "no answer within 0.5 s"}),
    ],
)
def test_an_endless_loop(said: list[Answer], ran: bool, details: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def answers(request: Check, model: bytes, payloads: Any, timeout_s: float) -> Iterator[Answer]:
        asked.append([*request.cuts])
        yield from said if len(asked) == 1 else _well(asked[-1])
        assert timeout_s == 0.5
        raise _child.ChildLost("no answer within 0.5 s")

    monkeypatch.setattr(verify, "answers", answers)
    report = verify_model(load_model(networks.chain()), timeout_s=0.5)
    assert report.ran is ran
    assert not report.ok
    if ran:
        assert asked == [[0, 1, 2, 3, 4], [1, 2, 3, 4]]
        assert [line.ok for line in report.lines] == [False, True, True, True, True]
        assert details[0] in report.lines[0].detail
    else:
        assert report.detail == "no answer within 0.5 s while running the uncut model"


def _well(cuts: list[int]) -> list[Answer]:
    lines = [answer for cut in cuts for answer in (Running(cut), Cut(cut, "", 0.0))]
    return [Running(), Whole(ran=True), *lines]


def test_a_child_that_hangs_is_ended_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_child, "CODE", f"{START} from splitiot._child import Parent; Parent(); time.sleep(600)")
    with pytest.raises(ModelError, match=r"did not start: no answer within 0\.5 s"):
        verify_model(load_model(networks.chain()), timeout_s=0.5)


@pytest.mark.parametrize("code", ["os.write(1, b'x' * 99)", "Parent().send(b'x')", "Parent().send()"])
def test_a_garbled_answer(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_child, "CODE", f"{START} from splitiot._child import Parent; {code}; time.sleep(600)")
    with pytest.raises(ModelError, match="did not start: garbled answer"):
        verify_model(load_model(networks.chain()))


TYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
TYPES += ["float16", "float32", "float64", "complex64", "complex128"]


@given(
    hnp.arrays(st.sampled_from(TYPES), hnp.array_shapes(min_dims=0, min_side=0)),
    st.data(),
)
def test_difference_sees_each_bit_and_nothing_else(array: Any, data: st.DataObject) -> None:
    array = np.asarray(array)
    assert difference({"y": array.copy()}, {"y": array}) == ("", 0.0)
    if array.size and array.dtype != bool:
        other = array.copy()
        raw = other.reshape(-1).view(np.uint8)
        raw[data.draw(st.integers(0, raw.size - 1))] ^= data.draw(st.sampled_from([1, 2, 64, 128]))
        why, largest = difference({"y": other}, {"y": array})
        assert why == f"'y' differs in 1 of {array.size} values"
        assert largest is None or largest >= 0


def test_difference_in_words() -> None:
    one, nan = np.float32([1, 2]), np.float32([np.nan, 2])
    assert difference({"y": nan}, {"y": nan.copy()}) == ("", 0.0)
    assert difference({"y": nan}, {"y": one}) == ("'y' differs in 1 of 2 values", None)
    assert difference({"y": np.float32([-0.0])}, {"y": np.float32([0.0])}) == ("'y' differs in 1 of 1 values", 0.0)
    assert difference({"y": one}, {"y": one.astype(np.float64)})[0] == "'y' is float32(2,), wanted float64(2,)"
    assert difference({"y": one}, {"y": one[:1]})[0] == "'y' is float32(2,), wanted float32(1,)"
    assert difference({"y": one}, {"z": one})[0] == "the results are ['y'], wanted ['z']"
    int8 = np.int8([-128]), np.int8([127])
    assert difference({"y": int8[0]}, {"y": int8[1]})[1] == 255.0


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (200,), (2, 1, 3)])
def test_random_payloads_and_the_way_to_the_child(dtype: str, shape: tuple[int, ...]) -> None:
    spec = TensorSpec("x", dtype, shape)
    payload = random_payload([spec, TensorSpec("y", dtype, shape)], np.random.default_rng(3))
    again = random_payload([spec], np.random.default_rng(3))
    array = np.asarray(payload["x"])
    assert (array.dtype.name, array.shape) == (dtype, shape)
    assert np.array_equal(array, again["x"]), "one seed, one payload"
    if array.size > 100:
        assert len(np.unique(array)) > 1
        if dtype in ("int8", "uint8"):
            assert np.ptp(array.astype(int)) > 200
        elif array.dtype.kind in "iu" and array.dtype.itemsize > 2:
            assert 0 <= array.min() <= array.max() <= 9
    asked = Probe(["auto", "default", 1, ["a.so:B"]], "key", "edge", "digest")
    framed = _messages.frame(request_pieces(asked, b"model", [payload, payload]))
    request, model, payloads = read_request(_messages.read(BytesIO(b"".join(framed))))
    assert (request, model, len(payloads)) == (asked, b"model", 2)
    for name, value in payloads[1].items():
        assert difference({name: value}, {name: np.asarray(payload[name])}) == ("", 0.0)


def test_there_are_no_random_strings() -> None:
    for dtype in ("bytes", "str", "no such type"):
        with pytest.raises(ModelError, match=r"input 'x' is of type .*: random values of it can't be made"):
            random_payload([TensorSpec("x", dtype, (1,))], np.random.default_rng(0))
