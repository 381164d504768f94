"""Models of Keras 2: files that Keras 3 can't load, and models of tf-keras."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitiot.errors import UnsupportedModel
from splitiot.models import from_keras

pytestmark = [
    pytest.mark.extra("tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]


@pytest.fixture(scope="module")
def tf_keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tf_keras", reason="pip install tf-keras")


def two_in_two_out(tf_keras: Any) -> Any:
    left, right = tf_keras.Input((4,), name="left"), tf_keras.Input((3,), name="right")
    both = tf_keras.layers.Concatenate()([tf_keras.layers.Dense(5, activation="relu")(left), right])
    results = [tf_keras.layers.Dense(2, name="two")(both), tf_keras.layers.Dense(1, name="one")(both)]
    return tf_keras.Model({"left": left, "right": right}, results)


def sequential(tf_keras: Any) -> Any:
    layers = tf_keras.layers
    return tf_keras.Sequential([tf_keras.Input((2,)), layers.Dense(8), layers.Activation("tanh"), layers.Dense(1)])


def test_a_sequential_model(tf_keras: Any) -> None:
    model = sequential(tf_keras)
    cut = from_keras(model)
    value = np.float32([[0.25, -1]])
    assert np.allclose(cut.run(value), model(value).numpy(), atol=1e-6)
    assert cut.verify().ok
    assert len(cut.cuts) == cut.n + 1


def test_several_inputs_by_name(tf_keras: Any) -> None:
    model = two_in_two_out(tf_keras)
    cut = from_keras(model)
    value = {"left": np.float32([[1, 2, 3, 4]]), "right": np.float32([[-1, 0, 5]])}
    wanted = [result.numpy() for result in model(value)]
    assert sorted(spec.name for spec in cut.inputs) == ["left", "right"]
    results = cut.run(value)
    assert np.allclose(results["two"], wanted[0], atol=1e-6)
    assert np.allclose(results["one"], wanted[1], atol=1e-6)
    assert cut.verify().ok


def test_int8(tf_keras: Any) -> None:
    random = np.random.default_rng(3)
    samples = [random.normal(0, 1, (1, 2)).astype(np.float32) for _ in range(50)]
    cut = from_keras(sequential(tf_keras), quantize="int8", representative=samples)
    assert cut.inputs[0].dtype == "int8"
    assert cut.verify().ok


def test_layers_are_refused(tf_keras: Any) -> None:
    with pytest.raises(UnsupportedModel, match="leave granularity out"):
        from_keras(sequential(tf_keras), granularity="layer")


def test_a_file_of_keras_2(tf_keras: Any, field_dir: Path) -> None:
    path = field_dir / "keras2_xor.h5"
    cut = from_keras(path)
    for pair in ([0, 0], [0, 1], [1, 0], [1, 1]):
        got = cut.run(np.float32([pair]))
        assert abs(float(got.ravel()[0]) - (pair[0] ^ pair[1])) < 0.3
    assert cut.verify().ok


def test_a_file_as_old_keras_wrote_it(tf_keras: Any, tmp_path: Path) -> None:
    """Keras 3 stumbles over a first layer that brings the input's shape, and no input layer."""
    model = sequential(tf_keras)
    model.save(path := tmp_path / "old.h5")
    make_older(path)
    value = np.float32([[0.25, -1]])
    assert np.allclose(from_keras(path).run(value), model(value).numpy(), atol=1e-6)


def test_without_tf_keras_the_advice_is_one_that_works(
    tf_keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequential(tf_keras).save(path := tmp_path / "old.h5")
    make_older(path)
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(UnsupportedModel, match="pip install tf-keras"):
        from_keras(path)


def make_older(path: Path) -> None:
    """Write the configuration as Keras 2.2 did."""
    import json

    import h5py

    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layers = config["config"]["layers"]
        shape = layers.pop(0)["config"]["batch_input_shape"]
        layers[0]["config"]["batch_input_shape"] = shape
        for layer in layers:
            for value in layer["config"].values():
                if isinstance(value, dict) and "config" in value:
                    value["config"]["dtype"] = "float32"
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.2.4-tf"
