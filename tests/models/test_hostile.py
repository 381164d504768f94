"""Files that somebody broke, by chance or on purpose: read and cut, or refused with a typed error, at once.

The same mutants are made every time. `tools/fuzz_models.py` makes as many as one wants, and runs those that
were accepted.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from splitiot.errors import MalformedModel, ModelError, UnsupportedModel
from splitiot.models import load_model
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.writer import write_model
from tests import networks
from tests.networks import Net
from tests.share import FULL
from tools import fuzz_models

MODELS = {f.__name__: f for f in (
    networks.concatenation, networks.counter, networks.loop, networks.quantised, networks.sparse, networks.svdf
)}  # fmt: skip


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return {name: make() for name, make in MODELS.items()}


SHARE = 1 if FULL else 10


@pytest.mark.parametrize(
    ("byte", "structural"), [(20_000 // SHARE, 0), (0, 2_000 // SHARE)], ids=["byte", "structural"]
)
def test_mutants(byte: int, structural: int, models: dict[str, bytes]) -> None:
    """Only typed refusals, and none takes a second; many get through, else little would be tested."""
    result = fuzz_models.fuzz(models, byte, structural, seed=1)["byte" if byte else "structural"]
    counts = result["counts"]
    assert result["bad"] == []
    assert counts.total() == byte + structural
    assert set(counts) <= {"accepted", "MalformedModel", "UnsupportedModel", "NotCuttable"}
    assert min(counts["accepted"], counts["MalformedModel"]) > 0.1 * counts.total()


@pytest.mark.extra("litert")
def test_accepted_mutants_run(models: dict[str, bytes]) -> None:
    """Of these none kills the interpreter (the long run of the tool allows one in a thousand)."""
    found = fuzz_models.fuzz({name: models[name] for name in ("concatenation", "svdf")}, 400, 400, seed=2, run=True)
    ends = found["byte"]["ends"] + found["structural"]["ends"]
    assert ends["ran"] > 200
    assert not [end for end in ends if end.startswith("killed")], ends


# speaks as the fuzzer's child does, and dies for certain where a broken model only might
DYING_CHILD = """
import os, signal, struct, sys
print("ready", flush=True)
while head := sys.stdin.buffer.read(4):
    data = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
    print("begin", flush=True)
    if data == b"bad":
        os.kill(os.getpid(), signal.SIGKILL)
    print("ran", flush=True)
"""


def test_the_fuzzer_sees_what_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before a death and what is behind it is told all the same."""
    monkeypatch.setattr(fuzz_models, "CHILD", [sys.executable, "-c", DYING_CHILD])
    assert fuzz_models.run_batch([b"good", b"bad", b"good"]) == ["ran", "killed -9", "ran"]
    assert fuzz_models.run_batch([b"bad", b"bad"]) == ["killed -9", "killed -9"]


def test_the_fuzzer_sees_other_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(fuzz_models, "load_model", broken)
    result = fuzz_models.fuzz({"chain": networks.chain()}, 5, 0)["byte"]
    assert result["counts"] == {"other": 5}
    assert "IndexError: out of range" in result["bad"][0]


def test_mutants_are_the_same_each_time() -> None:
    models = {"chain": networks.chain(), "loop": networks.loop()}
    for kind in ("byte", "structural"):
        first = list(fuzz_models.mutants(models, kind, range(40), 3))
        assert first == list(fuzz_models.mutants(models, kind, range(40), 3))
        assert first[20:] == list(fuzz_models.mutants(models, kind, range(20, 40), 3))
        assert first != list(fuzz_models.mutants(models, kind, range(40), 4))
        assert len({data for _, _, data in first}) > 30


# what killed an interpreter once


def growing_variable() -> bytes:
    """A sum of a variable and an input that is three times as large, put back into the variable."""
    table = read_model(networks.counter())
    table["subgraphs"][0]["tensors"][0].fields["shape"] = np.array([3, 4], np.int32)
    return write_model(table)


def test_a_result_of_another_size_than_what_it_is_made_from() -> None:
    """LiteRT 2.x is killed in the second run: its variable has grown."""
    with pytest.raises(MalformedModel, match=r"operator 3 \(TANH\): tensor .* stored with shape \(1, 4\).* \(3, 4\)"):
        load_model(growing_variable())


def test_a_variable_that_is_put_into_itself() -> None:
    table = read_model(networks.counter())
    assign = table["subgraphs"][0]["operators"][5]
    assign.fields["inputs"] = assign["inputs"][[0, 0]]
    with pytest.raises(MalformedModel, match=r"operator 5.*ASSIGN_VARIABLE.*a RESOURCE, as if it were a value"):
        load_model(write_model(table))


@pytest.mark.parametrize("fields", [{}, {"padding": np.zeros(4, np.int64)}], ids=["absent", "vector"])
def test_options_with_a_vector_where_others_have_a_number(fields: dict[str, object]) -> None:
    """StableHLO's `padding` is a vector, and absent where it is empty: that was a TypeError."""
    net = Net()
    y = net.tensor((1, 4))
    options = Table("StablehloConvolutionOptions", **fields)
    net.raw_op("STABLEHLO_CONVOLUTION", [net.input((1, 4)), net.weights(4, 4)], [y], builtin_options2=options)
    assert load_model(net.write(y)).n == 1


def test_sizes_that_can_not_be_broadcast() -> None:
    net = Net()
    y = net.op("ADD", [net.input((1, 4)), net.input((1, 3))], (1, 4), options=Table("AddOptions"))
    with pytest.raises(MalformedModel, match=r"do not fit each other: \(1, 4\), \(1, 3\)"):
        load_model(net.write(y))


@pytest.mark.parametrize("shape", [(2, 1, 4), (4,), (1, 4), ()])
def test_sizes_that_can(shape: tuple[int, ...]) -> None:
    net = Net()
    made = np.broadcast_shapes((1, 4), shape)
    y = net.op("ADD", [net.input((1, 4)), net.input(shape)], made, options=Table("AddOptions"))
    assert load_model(net.write(y)).n == 1


def depthwise(bias: Iterable[int]) -> bytes:
    net = Net()
    inputs = [net.input((1, 6, 6, 2)), net.weights(1, 3, 3, 2)]
    if bias:
        net.weights(2)
    options = Table("DepthwiseConv2DOptions", stride_w=1, stride_h=1, depth_multiplier=1)
    return net.write(net.op("DEPTHWISE_CONV_2D", [*inputs, *bias], (1, 6, 6, 2), options=options))


def test_a_depthwise_convolution_without_a_bias() -> None:
    """A convolution does without; these kernels read the bias unasked, float ones too (LiteRT 2.3: SIGSEGV)."""
    assert load_model(depthwise([2])).n == 1
    for bias in ((), (-1,)):
        with pytest.raises(MalformedModel, match=r"operator 0 \(DEPTHWISE_CONV_2D\): without a bias"):
            load_model(depthwise(bias))


def absent_input(code: str) -> bytes:
    net = Net()
    x = net.input((1, 4))
    constant = [net.constant(v, "INT32") for v in ([1, 4], [0, 0], [1, 1])]
    absent = {
        "RESHAPE": ([x, -1], (1, 4), "ReshapeOptions"),
        "CONCATENATION": ([x, -1], (1, 4), "ConcatenationOptions"),
        "STRIDED_SLICE": ([x, constant[1], constant[0], -1], (1, 4), "StridedSliceOptions"),
    }
    inputs, shape, options = absent[code]
    return net.write(net.op(code, inputs, shape, options=Table(options)))


@pytest.mark.parametrize(("code", "position"), [("RESHAPE", 1), ("CONCATENATION", 1), ("STRIDED_SLICE", 3)])
def test_an_input_that_may_not_be_absent(code: str, position: int) -> None:
    """It may be left out of RESHAPE's list, but where the list says -1 LiteRT follows it (SIGSEGV)."""
    message = rf"operator 0 \({code}\): an input that it needs is absent, input {position}"
    with pytest.raises(MalformedModel, match=message):
        load_model(absent_input(code))


def lstm(
    *,
    absent: Iterable[int] = (),
    between: Iterable[int] = range(5),
    rank: int = 3,
    kind: str = "INT8",
    norm: bool = False,
) -> bytes:
    """An int8 LSTM of 2 cells over 3 steps of 4 values; `absent` inputs are -1, `between` exist."""
    net = Net()
    x = net.input((1, 3, 4, *[1] * (rank - 3)), "INT8", scale=0.1)
    matrices = [net.constant(np.ones((2, width)), "INT8", scale=0.1) for width in (4, 4, 4, 4, 2, 2, 2, 2)]
    biases = [net.constant(np.ones(2), "INT32", scale=0.01) for _ in range(4)]
    states = [
        net.tensor((1, 2), kind_, scale=scale, is_variable=True) for kind_, scale in (("INT8", 0.1), ("INT16", 2**-11))
    ]
    ones = np.ones(2, np.int16)
    norms = [net.tensor((2,), "INT16", scale=0.01, data=ones) for _ in range(4)] if norm else []
    inputs = [x, *matrices, -1, -1, -1, *biases, -1, -1, *states, *(norms or [-1] * 4)]
    for position in absent:
        inputs[position] = -1
    made = [net.tensor((1, 2), "INT8", scale=0.1) for _ in range(5)]
    intermediates = np.array([made[i] if i in between else -1 for i in range(5)], np.int32)
    y = net.tensor((1, 3, 2), kind, scale=0.1)
    options = Table("UnidirectionalSequenceLSTMOptions", fused_activation_function=4)
    net.raw_op("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], options=options, intermediates=intermediates)
    return net.write(y)


@pytest.mark.parametrize(
    "fields",
    [{}, {"between": [4]}, {"absent": [1, 5, 12]}, {"norm": True}],
    ids=["whole", "one intermediate", "coupled", "norm"],
)
def test_sound_lstms(fields: dict[str, Any]) -> None:
    assert load_model(lstm(**fields)).n == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"between": range(4)}, r"its intermediate tensors are .*, -1\), int8 needs 4"),
        ({"between": [4], "norm": True}, r"its intermediate tensors are .*, int8 needs 0, 1, 2, 3, 4"),
        ({"absent": [12]}, "its input gate is given in part"),
        ({"absent": [6]}, "an input that it needs is absent, input 6"),
        ({"rank": 4}, r"its input needs 2 or 3 dimensions, tensor 0 'in0' has \(1, 3, 4, 1\)"),
        ({"kind": "INT64"}, r"of type INT64 from tensor 0 'in0', which is INT8"),
    ],
)  # fmt: skip
def test_lstms_whose_kernel_takes_something_for_granted(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedModel, match=rf"operator 0 \(UNIDIRECTIONAL_SEQUENCE_LSTM\): .*{message}"):
        load_model(lstm(**fields))


def quantised_pair(code: str, kind: str, *scales: float | list[float] | None, made: str | None = None) -> bytes:
    """An operator of two inputs, with the scales of these and of its result."""
    net = Net()
    a, b = (net.input((1, 4), kind, scale=scale, axis=int(isinstance(scale, list))) for scale in scales[:2])
    scale = scales[2] if len(scales) > 2 else None
    y = net.tensor((1, 4), made or kind, scale=scale, axis=int(isinstance(scale, list)))
    net.raw_op(code, [a, b], [y])
    return net.write(y)


FOUR = [0.1] * 4


@pytest.mark.parametrize(
    ("code", "kind", "scales", "message"),
    [
        ("ADD", "INT8", (0.06, 0.09, 7e-38), "scales of 0.06 and 0.09 can't be computed with to give one of 7e-38"),
        ("ADD", "INT8", (0.1, 1e5, 0.1), "can't be computed with"),
        ("ADD", "UINT8", (0.1, 0.1, 3e38), "can't be computed with"),
        ("ADD", "INT16", (0.1, 2e3, 0.1), "can't be computed with"),
        ("ADD", "INT16", (0.1, None, 0.1), "one scale a tensor, tensor 1 'in1' has none"),
        ("ADD", "INT8", (0.1, FOUR, 0.1), "one scale a tensor, tensor 1 'in1' has 4"),
        ("SUB", "INT8", (3e38, 0.1, 0.1), "can't be computed with"),
        ("SUB", "INT16", (None, None, None), "one scale a tensor, tensor 0 'in0' has none"),
        ("SQUARED_DIFFERENCE", "INT8", (100.0, 0.1, 0.1), "can't be computed with"),
        ("LESS", "INT8", (None, None), "one scale a tensor, tensor 0 'in0' has none"),
        ("EQUAL", "UINT8", (0.1, FOUR), "one scale a tensor, tensor 1 'in1' has 4"),
    ],
)  # fmt: skip
def test_scales_without_a_multiplier(code: str, kind: str, scales: tuple[Any, ...], message: str) -> None:
    """Kernels check the multipliers that they make of scales, and abort the process (SIGABRT)."""
    made = "BOOL" if len(scales) == 2 else None
    with pytest.raises(MalformedModel, match=rf"operator 0 \({code}\): .*{message}"):
        load_model(quantised_pair(code, kind, *scales, made=made))


@pytest.mark.extra("litert")
def test_scales_with_a_multiplier_run() -> None:
    """The bounds are not too narrow: what lies just inside runs, or is refused by the kernels, and kills nothing."""
    pairs = [
        quantised_pair("ADD", "INT8", 0.1, 5e4, 0.1),
        quantised_pair("ADD", "UINT8", 1e-45, 0.1, 0.1),
        quantised_pair("ADD", "INT16", 0.1, 1.6e3, 0.1),
        quantised_pair("ADD", "INT16", None, None, None),
        quantised_pair("SUB", "INT8", 1e20, 0.1, 0.1),
        quantised_pair("SQUARED_DIFFERENCE", "INT8", 20.0, 0.1, 0.1),
        quantised_pair("LESS", "INT8", 5.0, 0.1, made="BOOL"),
        quantised_pair("EQUAL", "INT16", None, None, made="BOOL"),
    ]
    for data in pairs:
        assert load_model(data).n == 1
    assert set(fuzz_models.run_batch(pairs)) <= {"ran", "refused"}


def test_scales_in_blocks_where_one_is_computed_with() -> None:
    table = read_model(quantised_pair("ADD", "INT8", 0.1, 0.1, 0.1))
    table["subgraphs"][0]["tensors"][2]["quantization"].fields["details"] = Table("BlockwiseQuantization")
    with pytest.raises(MalformedModel, match=r"operator 0 \(ADD\): .*tensor 2 't2' is quantised in another way"):
        load_model(write_model(table))


def test_denormal_scales_that_xnnpack_trips_over() -> None:
    for scales in ((1e-38, 0.1), (0.1, 1e-38)):
        net = Net()
        x = net.input((1, 4), "INT8", scale=scales[0])
        y = net.op("QUANTIZE", [x], (1, 4), "INT8", scale=scales[1])
        with pytest.raises(MalformedModel, match=r"operator 0 \(QUANTIZE\): tensor . '.*' has the scale 1e-38"):
            load_model(net.write(y))


@pytest.mark.parametrize("kind", ["STRING", "RESOURCE", "VARIANT"])
@pytest.mark.parametrize("code", ["SOFTMAX", "CUMSUM"])
def test_numbers_that_are_written_to_what_holds_none(code: str, kind: str) -> None:
    net = Net()
    x = net.input((1, 4))
    inputs = [x, net.constant(1, "INT32")] if code == "CUMSUM" else [x]
    y = net.op(code, inputs, (1, 4), kind)
    with pytest.raises(MalformedModel, match=rf"operator 0 \({code}\): it computes with numbers, .* is {kind}"):
        load_model(net.write(y))


def test_bytes_that_are_taken_for_another_type() -> None:
    """RESHAPE copies the input's bytes, however few the result has."""
    net = Net()
    y = net.op("RESHAPE", [net.input((1, 4), "INT32"), net.constant([4], "INT32")], (4,), "INT8")
    with pytest.raises(MalformedModel, match=r"\(RESHAPE\): it makes tensor 2 't2' of type INT8 from .* is INT32"):
        load_model(net.write(y))


def test_deep_and_wide_files_end_at_once() -> None:
    """Tables that share their bytes, and lengths that the file does not have."""
    data = bytearray(networks.chain())
    for at in range(0, len(data) - 4, 4):
        changed = bytes(data[:at]) + b"\xff\xff\xff\x7f" + bytes(data[at + 4 :])
        began = time.thread_time()
        with contextlib.suppress(MalformedModel, UnsupportedModel):
            load_model(changed)
        assert time.thread_time() - began < fuzz_models.SLOW_S


@pytest.mark.parametrize("make", networks.SOUND, ids=lambda f: f.__name__)
def test_every_prefix_of_a_file_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    for length in range(0, len(data) - 16, 7):
        try:
            load_model(data[:length])
        except ModelError:
            continue
        pytest.fail(f"{length} of {len(data)} bytes were taken for a model")
