"""Random inputs: enough to run a network, and said to be random where it does not run on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.errors import UnsupportedModel
from splitiot.models import load_model
from splitiot.models.tflite.schema import TENSOR_TYPES
from splitiot.models.tflite.table import Table
from tests import networks
from tests.networks import Net

needs_litert = pytest.mark.extra("litert")
RANDOM = "The input was random: give one of your own"


@given(st.integers(1, 40), st.integers(0, 1000))
def test_word_numbers_are_in_range(rows: int, seed: int) -> None:
    model = load_model(networks.lookup(rows=rows))
    assert model.index_limits == {"words": rows}
    words = model.random_input(seed)["words"]
    assert (words.dtype, words.shape) == (np.float32, (1, 4))
    assert ((words >= 0) & (words < rows) & (words == words.round())).all()
    assert (words == model.random_input(seed)["words"]).all()


def test_what_is_no_index_has_no_limit() -> None:
    for make in (networks.chain, networks.skip, networks.loop, networks.two_inputs, networks.string_input):
        assert load_model(make()).index_limits == {}


@pytest.mark.parametrize(("code", "position"), [("EMBEDDING_LOOKUP", 0), ("GATHER_ND", 1)])
@pytest.mark.parametrize("kind", ["INT32", "INT64"])
def test_other_operators_that_look_up(code: str, position: int, kind: str) -> None:
    net = Net()
    last = (3, 1) if code == "GATHER_ND" else (3,)
    ids, table = net.input(last, kind), net.weights(4, 2)
    inputs = [ids, table] if position == 0 else [table, ids]
    options = Table("GatherNdOptions") if code == "GATHER_ND" else None
    model = load_model(net.write(net.op(code, inputs, (3, 2), options=options)))
    assert model.index_limits == {"in0": 4}
    assert model.random_input()["in0"].max() < 4


def test_of_several_uses_the_least_counts() -> None:
    net = Net()
    ids = net.input((2,), "INT32")
    options = Table("GatherOptions", axis=0)
    pair = [net.op("GATHER", [net.weights(rows, 3), ids], (2, 3), options=options) for rows in (9, 4)]
    model = load_model(net.write(net.add(*pair)))
    assert model.index_limits == {"in0": 4}


def test_an_axis_counts_from_the_end() -> None:
    net = Net()
    ids = net.input((2,), "INT32")
    model = load_model(
        net.write(net.op("GATHER", [net.weights(9, 4), ids], (9, 2), options=Table("GatherOptions", axis=-1)))
    )
    assert model.index_limits == {"in0": 4}


def test_small_types_stay_what_they_can_be() -> None:
    net = Net()
    ids = net.input((64,), "UINT8")
    cast = Table("CastOptions", in_data_type=TENSOR_TYPES.index("UINT8"), out_data_type=TENSOR_TYPES.index("INT32"))
    wide = net.op("CAST", [ids], (64,), "INT32", options=cast)
    model = load_model(
        net.write(net.op("GATHER", [net.weights(300, 2), wide], (64, 2), options=Table("GatherOptions", axis=0)))
    )
    drawn = model.random_input()["in0"]
    assert drawn.dtype == np.uint8


@needs_litert
def test_it_runs_on_them() -> None:
    file = networks.lookup()
    assert load_model(file, probe=True).verify().ok


@needs_litert
def test_where_it_does_not_that_is_said() -> None:
    file = networks.lookup(shift=True)
    good = np.array([[100, 101, 102, 104]], np.float32)
    with pytest.raises(UnsupportedModel, match=RANDOM):
        load_model(file, probe=True)
    model = load_model(file, probe=True, sample=good)
    report = model.verify()
    assert not report.ok and RANDOM in report.detail
    assert model.verify(sample=good).ok
    with pytest.raises(UnsupportedModel) as caught:  # of an input of one's own it is not said
        load_model(file, probe=True, sample=good - 100)
    assert RANDOM not in str(caught.value)


@needs_litert
def test_word_numbers_as_floats(field_dir: Path) -> None:
    model = load_model(field_dir / "ids_as_floats.tflite", probe=True)
    report = model.verify()
    assert report.ok and len(report.lines) == 7
