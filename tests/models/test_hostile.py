"""Files that somebody broke, by chance or on purpose: read and cut, or refused with a typed error, at once.

The same mutants are made every time. `tools/fuzz_models.py` makes as many as one wants, and runs those that
were accepted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from splitiot.errors import MalformedModel, ModelError, UnsupportedModel
from splitiot.models import load_model
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.writer import write_model
from tests import networks
from tests.networks import Net
from tools import fuzz_models

MODELS = {f.__name__: f for f in (
    networks.concatenation, networks.counter, networks.loop, networks.quantised, networks.sparse, networks.svdf
)}  # fmt: skip


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return {name: make() for name, make in MODELS.items()}


# the same code runs in every environment: all of them in the main one, a tenth in the others
SHARE = 1 if "litert" in os.environ.get("SPLITIOT_TEST_EXTRAS", "litert").split(",") else 10


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
