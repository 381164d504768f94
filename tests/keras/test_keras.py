from __future__ import annotations

import json
import os
import re
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitiot as si
from splitiot.errors import CutError, LocalProtocolError, MalformedModel, UnsupportedModel
from splitiot.models import LayerPipeline, from_keras
from splitiot.models.keras.layer_names import layer_names
from splitiot.pipeline import Pipeline, Runtime, Sink

pytestmark = [
    pytest.mark.extra("tensorflow"),
    # Keras' own variables, when Keras saves them beside numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="session")
def keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own
        import keras
        import tensorflow

    assert tensorflow.__version__
    return keras


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> Iterator[None]:
    """Names and random numbers begin anew in each test."""
    module = request.getfixturevalue("keras")
    module.utils.clear_session()
    module.utils.set_random_seed(7)
    yield
    module.utils.clear_session()


def settle(keras: Any, model: Any) -> Any:
    """Give every weight a value of its own: fresh BatchNormalization layers are nearly identities."""
    random = np.random.default_rng(5)
    for weight in model.weights:
        scale = 0.5 if "variance" in weight.path else 0.2
        value = random.normal(0, scale, weight.shape)
        weight.assign(np.abs(value) + 0.1 if "variance" in weight.path else value)
    return model


def mixed(keras: Any) -> Any:
    """Two inputs and two results, a skip, Concatenate, a shared layer, a nested model called twice, operators."""
    layers = keras.layers
    inside = keras.Input((8, 8, 4), name="inside")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, padding="same", name="conv")(inside))
    x = layers.ReLU(name="relu")(x)
    block = keras.Model(inside, layers.Add(name="add")([inside, x]), name="block")

    picture, extra = keras.Input((8, 8, 3), name="picture"), keras.Input((16,), name="extra")
    first = layers.Conv2D(4, 3, padding="same", name="first")(picture)
    once = block(first)
    x = layers.Concatenate(name="join")([block(once), first])  # a skip over two calls
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", name="deep")(x)
    x = keras.ops.multiply(x, 0.5) + keras.ops.maximum(x, 0.0)  # operators, not layers
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    shared = layers.Dense(8, activation="relu", name="shared")
    one, two = shared(layers.Dense(16, name="widen")(x)), shared(extra)
    both = keras.ops.concatenate([one[:, 2:6], two], axis=-1)
    score = layers.Dense(3, activation="softmax", name="score")(both)
    return settle(keras, keras.Model([picture, extra], [score, one], name="mixed"))


def sample(seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "picture": random.normal(size=(1, 8, 8, 3)).astype(np.float32),
        "extra": random.normal(size=(1, 16)).astype(np.float32),
    }


def at(pipeline: Pipeline, cut: int, value: Any) -> dict[str, Any]:
    """What comes out when head and tail run at this cut, and only what the boundaries allow goes across."""
    payload = pipeline.part(0, cut).run(pipeline.bind(value))
    sent, kept = pipeline.divide(cut, payload)
    assert pipeline.boundary(cut).mismatch(sent) is None
    sent = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in sent.items()}
    made = pipeline.part(cut, pipeline.n).run(sent) if sent else {}
    if pipeline.sink == "device":
        made = {name: made[name] for name in pipeline.returned(cut).names}
    joined = pipeline.join(kept, made)
    return joined if isinstance(joined, dict) else {"only": joined}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[k].dtype == other[k].dtype and one[k].shape == other[k].shape and one[k].tobytes() == other[k].tobytes()
        for k in one
    )


def exact_everywhere(pipeline: Pipeline, value: Any) -> dict[str, Any]:
    whole = pipeline.run(value)
    whole = whole if isinstance(whole, dict) else {"only": whole}
    assert pipeline.cuts == tuple(range(pipeline.n + 1)), pipeline.refused
    wrong = [cut for cut in pipeline.cuts if not same(at(pipeline, cut, value), whole)]
    assert wrong == []
    return whole


# layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", ["device", "edge"])
def test_layers_are_exact_at_every_cut(keras: Any, sink: Sink) -> None:
    model = mixed(keras)
    pipeline = from_keras(model, granularity="layer", sink=sink)
    for seed in range(3):
        value = sample(seed)
        whole = exact_everywhere(pipeline, value)
        said = model([value["picture"], value["extra"]], training=False)
        for ours, keras_own in zip(whole.values(), said, strict=True):
            np.testing.assert_allclose(ours, np.asarray(keras_own), rtol=1e-5, atol=1e-6)


def test_middle_parts_of_layers(keras: Any) -> None:
    pipeline = from_keras(mixed(keras), granularity="layer", sink="edge")
    value = pipeline.bind(sample())
    whole = pipeline.part(0, pipeline.n).run(value)
    for first in range(0, pipeline.n, 3):
        for second in range(first, pipeline.n + 1, 4):
            middle = pipeline.part(first, second).run(pipeline.part(0, first).run(value))
            assert same(pipeline.part(second, pipeline.n).run(middle), whole), (first, second)


def test_the_names_of_layers(keras: Any) -> None:
    pipeline = from_keras(mixed(keras), granularity="layer")
    names = [step.name for step in pipeline.steps]
    assert names[:9] == [
        "first", "block/conv", "block/norm", "block/relu", "block/add",
        "block/conv@2", "block/norm@2", "block/relu@2", "block/add@2",
    ]  # fmt: skip
    assert {"shared", "shared@2", "join", "deep"} <= set(names)
    assert len(set(names)) == len(names)
    kinds = {step.name: step.kind for step in pipeline.steps}
    assert (kinds["shared@2"], kinds["deep"], kinds["multiply"]) == ("Dense", "DepthwiseConv2D", "Multiply")
    assert pipeline.boundary(2).names == ("extra", "first", "block/conv")  # "first" is wanted by Add and Concatenate
    assert [spec.name for spec in pipeline.inputs] == ["picture", "extra"]
    assert [spec.name for spec in pipeline.outputs] == list(pipeline.run(sample())) == ["score", "shared"]
    assert len(from_keras(mixed(keras)).steps) < pipeline.n


def test_layers_with_several_values_and_integers(keras: Any) -> None:
    layers = keras.layers
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(20, 8, name="embed")(words)
    every, hidden, cell = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(x)
    seen = layers.MultiHeadAttention(2, 4, name="look")(every, value=x, key=every)
    x = layers.Concatenate(name="both")([layers.Flatten(name="flat")(seen), hidden * 2.0, cell])
    model = settle(keras, keras.Model(words, layers.Dense(2, name="out")(x)))
    pipeline = from_keras(model, granularity="layer")
    value = np.arange(6, dtype=np.int32)[None]
    whole = exact_everywhere(pipeline, value)
    np.testing.assert_allclose(whole["only"], np.asarray(model(value)), rtol=1e-5, atol=1e-6)
    after = [step.name for step in pipeline.steps].index("lstm") + 1
    assert {"lstm:0", "lstm:1", "lstm:2", "embed"} == set(pipeline.boundary(after).names)


def test_sequential_models_and_a_batch_of_their_own(keras: Any) -> None:
    layers = keras.layers
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="a"), layers.ReLU(name="b")], name="inner")
    model = settle(keras, keras.Sequential([keras.Input(batch_shape=(3, 4)), inner, layers.Dense(2, name="c")]))
    pipeline = from_keras(model, granularity="layer")
    assert [step.name for step in pipeline.steps] == ["inner/a", "inner/b", "c"]
    value = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(exact_everywhere(pipeline, value)["only"], np.asarray(model(value)), rtol=1e-5)
    by_operator = from_keras(model)
    np.testing.assert_allclose(by_operator.run(value), np.asarray(model(value)), rtol=1e-5)


@pytest.mark.parametrize("granularity", ["operator", "layer"])
def test_dicts_of_inputs_and_results_go_by_name(keras: Any, granularity: Any) -> None:
    one, two = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    results = {"y": keras.layers.Dense(2, name="of_z")(one), "b": keras.layers.Dense(2, name="of_a")(two)}
    model = settle(keras, keras.Model({"z": one, "a": two}, results))
    value = {"z": np.ones((1, 4), np.float32), "a": np.full((1, 4), 2, np.float32)}
    said = model(value)
    whole = exact_everywhere(from_keras(model, granularity=granularity), value)
    np.testing.assert_allclose(whole["of_z"], np.asarray(said["y"]), rtol=1e-5)
    np.testing.assert_allclose(whole["of_a"], np.asarray(said["b"]), rtol=1e-5)


def test_masks_stay_inside_when_operators_are_cut(keras: Any) -> None:
    x = keras.Input((5,), dtype="int32")
    y = keras.layers.Embedding(9, 4, mask_zero=True)(x)
    model = settle(keras, keras.Model(x, keras.layers.LSTM(3)(y)))
    value = np.int32([[1, 2, 0, 0, 0]])
    whole = exact_everywhere(from_keras(model), value)
    np.testing.assert_allclose(whole["only"], np.asarray(model(value)), rtol=1e-4, atol=1e-6)


def test_a_call_of_ones_own_is_one_step(keras: Any) -> None:
    class Twice(keras.Model):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return super().call(super().call(x))

    x = keras.Input((4,))
    twice = Twice(inputs=x, outputs=keras.layers.Dense(4, activation="tanh")(x), name="twice")
    outside = keras.Input((4,))
    model = settle(keras, keras.Model(outside, keras.layers.ReLU(name="last")(twice(outside))))
    pipeline = from_keras(model, granularity="layer")
    assert [step.name for step in pipeline.steps] == ["twice", "last"]
    value = np.float32([[1, -2, 3, 0.5]])
    np.testing.assert_allclose(exact_everywhere(pipeline, value)["only"], np.asarray(model(value)), rtol=1e-5)


def fomo(keras: Any) -> Any:
    """FOMO as Edge Impulse describes it, and as `tools/train_fomo.py` builds it; the weights are random."""
    trunk = keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, include_top=False, weights=None)
    x = keras.layers.Conv2D(32, 1, activation="relu", name="head")(trunk.get_layer("block_6_expand_relu").output)
    x = keras.layers.Conv2D(2, 1, name="logits")(x)
    return keras.Model(trunk.input, keras.layers.Softmax(name="grid")(x))


def test_fomo_has_59_layers(keras: Any) -> None:
    model = fomo(keras)
    assert len(model.layers) == 60  # with its InputLayer
    pipeline = from_keras(model, granularity="layer")
    assert pipeline.n == 59
    names = [step.name for step in pipeline.steps]
    # SCIoT's table of FOMO 96x96: Adds 25, 43, 52 take 16, 34, 43
    adds = {
        i: [names.index(v) for v in pipeline._graph.calls[i].inputs]
        for i, s in enumerate(pipeline.steps)
        if s.kind == "Add"
    }
    assert {i: min(taken) for i, taken in adds.items()} == {25: 16, 43: 34, 52: 43}
    value = np.random.default_rng(3).random((1, 96, 96, 3), np.float32)
    whole = exact_everywhere(pipeline, value)
    np.testing.assert_allclose(whole["only"], np.asarray(model(value)), rtol=1e-4, atol=1e-6)
    assert pipeline.boundary(0).nbytes == 110_592
    assert [len(pipeline.boundary(cut).names) for cut in (17, 18, 25, 26)] == [1, 2, 2, 1]


def test_two_loads_of_one_file_are_the_same_pipeline(keras: Any, tmp_path: Path) -> None:
    model = mixed(keras)
    model.save(path := tmp_path / "mixed.keras")
    first = from_keras(path, granularity="layer")
    keras.layers.Dense(3)  # names count on
    second = from_keras(str(path), granularity="layer")
    assert first.digest == second.digest
    assert first.steps == second.steps
    assert same(first.run(sample()), second.run(sample()))
    assert first.with_sink("edge").digest == first.digest
    kernel = second.model.get_layer("first").kernel
    kernel.assign(kernel + 1)
    assert from_keras(second.model, granularity="layer").digest != first.digest


def test_the_digest_sees_what_operators_are_given(keras: Any) -> None:
    def made(stop: int, factor: float) -> str:
        keras.utils.clear_session()
        x = keras.Input((8,), name="x")
        model = keras.Model(x, keras.ops.multiply(x[:, :stop], factor), name="m")
        return from_keras(model, granularity="layer").digest

    assert made(3, 2.0) == made(3, 2.0)
    assert len({made(3, 2.0), made(4, 2.0), made(3, 2.5)}) == 3


def test_layers_behind_a_device_and_between_functions(keras: Any) -> None:
    def scale(pixels: Any) -> Any:
        return {"picture": pixels.astype(np.float32), "extra": np.ones((1, 16), np.float32)}

    def best(results: Any) -> int:
        return int(np.argmax(results["score"]))

    model = from_keras(mixed(keras), granularity="layer")
    pipeline = si.tasks([scale]) + model + si.tasks([best])
    pixels = np.random.default_rng(2).integers(-2, 3, (1, 8, 8, 3))
    expected = pipeline.run(pixels)
    service = si.EdgeService([pipeline])
    for cut in (0, 1, 4, 12, pipeline.n):
        with si.Device(
            pipeline, si.InMemory(lambda frame: service.handle(frame, peer="me")), policy=si.Fixed(cut), sample=pixels
        ) as device:
            assert device.run(pixels, deadline_s=30).unwrap() == expected


def test_what_layers_are_run_with(keras: Any) -> None:
    pipeline = from_keras(mixed(keras), granularity="layer")
    info = pipeline.runtime_info()
    assert (info.name, info.kernels) == ("keras", "default")
    assert info.version.startswith(keras.__version__)
    for runtime in (Runtime("litert"), Runtime(kernels="reference")):
        with pytest.raises(UnsupportedModel, match="TensorFlow"):
            pipeline.part(0, 1).open(runtime)
        with pytest.raises(UnsupportedModel, match="TensorFlow"):
            from_keras(pipeline.model, granularity="layer", runtime=runtime)
    with pytest.raises(LocalProtocolError, match="has shape"):
        pipeline.part(0, 1).run({"picture": np.zeros((1, 8, 8, 4), np.float32), "extra": np.zeros((1, 16), np.float32)})


def test_layers_that_cannot_be_told_apart_are_refused(keras: Any) -> None:
    layers = keras.layers

    def layered(x: Any, y: Any) -> LayerPipeline:
        return from_keras(keras.Model(x, y), granularity="layer")

    x = keras.Input((5,), dtype="int32")
    with pytest.raises(UnsupportedModel, match=r"embed \(Embedding\) hands a mask on"):
        layered(x, layers.LSTM(3)(layers.Embedding(9, 4, mask_zero=True, name="embed")(x)))
    x = keras.Input(batch_shape=(1, 5, 2))
    with pytest.raises(UnsupportedModel, match=r"remember \(GRU\) changes a variable"):
        layered(x, layers.GRU(3, stateful=True, name="remember")(x))
    x = keras.Input((5,))
    with pytest.raises(UnsupportedModel, match=r"noisy \(Dropout\) changes a variable or draws random"):
        layered(x, layers.Dropout(0.5, name="noisy")(x, training=True))
    x = keras.Input(batch_shape=(1, 5, 2))
    with pytest.raises(UnsupportedModel, match="stateful=False"):
        from_keras(keras.Model(x, layers.GRU(3, stateful=True)(x)))
    x = keras.Input((None, 5))
    with pytest.raises(UnsupportedModel, match="only the batch may be open"):
        layered(x, layers.Dense(2)(x))

    class Own(keras.Model):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x * 2

    for granularity in ("operator", "layer"):
        with pytest.raises(UnsupportedModel, match=r"inputs of Own .* are not known"):
            from_keras(Own(), granularity=granularity)  # type: ignore[call-overload]
        with pytest.raises(UnsupportedModel, match="expected a Keras"):
            from_keras(42, granularity=granularity)  # type: ignore[call-overload]
    x = keras.Input((2,))
    with pytest.raises(UnsupportedModel, match="no layer"):
        layered(x, x)


def test_dropout_that_does_nothing_is_a_step(keras: Any) -> None:
    x = keras.Input((5,))
    model = keras.Model(x, keras.layers.Dropout(0.5)(x))
    value = np.ones((1, 5), np.float32)
    assert exact_everywhere(from_keras(model, granularity="layer"), value)["only"].tolist() == value.tolist()


# layers: the proof, and files of parts ----------------------------------------------------------------------------


@pytest.mark.parametrize("sink", ["device", "edge"])
def test_layers_are_verified(keras: Any, sink: Sink) -> None:
    pipeline = from_keras(mixed(keras), granularity="layer", sink=sink)
    seen: list[int] = []
    report = pipeline.verify(samples=3, on_line=lambda line: seen.append(line.cut))
    assert report.ok, str(report)
    assert seen == [line.cut for line in report.lines] == list(pipeline.cuts)
    assert [line.nbytes for line in report.lines] == [pipeline.boundary(cut).nbytes for cut in pipeline.cuts]
    assert (report.samples, report.ran, report.digest) == (3, True, pipeline.digest)
    assert report.info == pipeline.runtime_info()
    assert str(report).endswith(f"{pipeline.n + 1} of {pipeline.n + 1} cuts exact: ok")
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert pipeline.verify(sample=sample()).samples == 1
    with pytest.raises(LocalProtocolError):
        pipeline.verify(sample=1.0)
    with pytest.raises(ValueError, match="samples"):
        pipeline.verify(samples=0)
    with pytest.raises(UnsupportedModel, match="TensorFlow"):
        pipeline.verify(runtime=Runtime("litert"))


def test_layers_that_differ_are_seen(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = from_keras(mixed(keras), granularity="layer")
    split = LayerPipeline.split

    def other(self: LayerPipeline, cut: int) -> Any:
        """At one cut a tail that takes two values of one shape for each other; at one a head that fails."""
        head, tail = split(self, cut)
        if cut == 6:  # "block/conv@2" is wanted by its own BatchNormalization, "block/add" by the second Add
            swapped = {"block/add": "block/conv@2", "block/conv@2": "block/add"}
            run = tail.open()
            tail.open = lambda runtime=None: Opened(lambda p: run({k: p[swapped.get(k, k)] for k in p}))  # type: ignore[method-assign,misc]
        if cut == 9:
            head.open = lambda runtime=None: Opened(lambda p: 1 / 0)  # type: ignore[method-assign]
        return head, tail

    class Opened:
        def __init__(self, run: Any) -> None:
            self.run = run

        def __call__(self, payload: Any) -> Any:
            return self.run(payload)

        def close(self) -> None:
            pass

    monkeypatch.setattr(LayerPipeline, "split", other)
    report = pipeline.verify()
    assert not report.ok
    assert [line.cut for line in report.lines if not line.ok] == [6, 9]
    assert report.lines[6].detail.startswith("sample 0: ")
    assert report.lines[6].max_abs_difference
    assert report.lines[9].detail == "ZeroDivisionError: division by zero"


def test_layers_that_do_not_run_and_cuts_that_are_refused(keras: Any) -> None:
    class Picky(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            import tensorflow as tf

            return tf.debugging.check_numerics(x * float("inf"), "picky")

    x = keras.Input((3,))
    report = from_keras(keras.Model(x, Picky(name="picky")(x)), granularity="layer").verify()
    assert (report.ok, report.ran, report.lines) == (False, False, ())
    assert "layer picky failed" in report.detail

    class Chosen(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            import tensorflow as tf

            return tf.where(x > 0)

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor((None, 2), "int64")

    y = keras.layers.Rescaling(2.0, name="twice")(Chosen(name="chosen")(keras.layers.ReLU(name="relu")(x)))
    pipeline = from_keras(keras.Model(x, y), granularity="layer", sink="edge")
    report = pipeline.verify(sample=np.float32([[1, -1, 2]]))
    assert report.ok, str(report)
    assert [line.cut for line in report.lines] == [0, 1]
    assert set(report.refused) == {2, 3}


def close(ours: dict[str, Any], said: Any) -> None:
    said = said if isinstance(said, list) else [said]
    for name, wanted, got in zip(ours, ours.values(), said, strict=True):
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-5, atol=1e-6, err_msg=name)


def saved_parts_compute_the_same(keras: Any, pipeline: LayerPipeline, value: Any, folder: Path) -> None:
    """Head and tail at each cut, from their files, as Keras runs them: close; layer by layer: bit for bit."""
    for cut in range(1, pipeline.n):
        given = dict(pipeline.bind(value))
        for part in pipeline.split(cut):
            assert part.save(folder / "part.keras") == folder / "part.keras"
            loaded = keras.saving.load_model(folder / "part.keras")
            wanted = part.run(given)
            arrays = [given[name] for name in part.inputs.names]
            close(wanted, loaded(arrays[0] if len(arrays) == 1 else arrays))
            again = from_keras(loaded, granularity="layer")
            kinds = [step.kind for step in pipeline.steps[part.start : part.stop]]
            assert sorted(step.kind for step in again.steps) == sorted(kinds)
            made = again.part(0, again.n).run(dict(zip([t.name for t in again.inputs], arrays, strict=True)))
            exact = [made[name] for name in again._graph.results]
            assert [a.tobytes() for a in exact] == [a.tobytes() for a in wanted.values()], part
            given = pipeline.divide(cut, wanted)[0] if part.start == 0 else {}


def test_saved_layers_with_skips_shared_layers_nested_models_and_operators(keras: Any, tmp_path: Path) -> None:
    model = mixed(keras)
    before = [(layer.name, len(layer._inbound_nodes)) for layer in model.layers]
    saved_parts_compute_the_same(keras, from_keras(model, granularity="layer"), sample(), tmp_path)
    assert [(layer.name, len(layer._inbound_nodes)) for layer in model.layers] == before, "it is the user's"
    assert [path.name for path in tmp_path.iterdir()] == ["part.keras"]


def test_saved_layers_of_results_on_the_edge(keras: Any, tmp_path: Path) -> None:
    pipeline = from_keras(mixed(keras), granularity="layer", sink="edge")
    saved_parts_compute_the_same(keras, pipeline, sample(), tmp_path)


def test_saved_layers_with_one_name_in_two_models(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers

    def branch(name: str) -> Any:
        inside = keras.Input((6,), name="inside")
        x = layers.Dense(6, activation="tanh", name="dense")(inside)
        return keras.Model(inside, keras.ops.multiply(x, 0.5) + inside, name=name)

    x = keras.Input((6,), name="x")
    # operators are named within one session: as two files would bring it, both have the same names
    left, right = (keras.utils.clear_session() or branch(name) for name in ("left", "right"))
    model = settle(keras, keras.Model(x, layers.Concatenate(name="both")([left(x), right(x), x]), name="twins"))
    pipeline = from_keras(model, granularity="layer")
    assert {"left/dense", "right/dense", "left/multiply", "right/multiply"} <= {s.name for s in pipeline.steps}
    value = np.random.default_rng(4).normal(size=(1, 6)).astype(np.float32)
    saved_parts_compute_the_same(keras, pipeline, value, tmp_path)


def test_saved_layers_with_tables_statistics_and_several_values(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(20, 8, name="embed")(words)
    norm = layers.Normalization(name="norm")
    norm.adapt(np.random.default_rng(1).normal(3, 2, (50, 6, 8)).astype(np.float32))
    every, hidden, cell = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(norm(x))
    seen = layers.MultiHeadAttention(2, 4, name="look")(every, value=norm(x), key=every)
    x = layers.Concatenate(name="both")([layers.Flatten(name="flat")(seen), hidden * 2.0, cell])
    model = keras.Model(words, layers.Dense(2, name="out")(x))
    pipeline = from_keras(model, granularity="layer")
    saved_parts_compute_the_same(keras, pipeline, np.arange(6, dtype=np.int32)[None], tmp_path)


def test_saved_layers_of_classes_of_ones_own(keras: Any, tmp_path: Path) -> None:
    class Trained(keras.Model):  # type: ignore[misc, name-defined]
        """Only training is its own: that is no matter for a part."""

        def train_step(self, data: Any) -> Any:
            return {}

    x = keras.Input((4,), name="x")
    y = keras.layers.ReLU(name="relu")(keras.layers.Dense(3, name="dense")(x))
    model = Trained(inputs=x, outputs=y)
    model.compile(loss=lambda y, z: 0.0)
    saved_parts_compute_the_same(keras, from_keras(model, granularity="layer"), np.ones((1, 4), np.float32), tmp_path)

    class Own(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x * 2

    x = keras.Input((3,))
    for layer, says in ((Own(), "register Own"), (keras.layers.Lambda(lambda x: x * 2), "Lambda")):
        pipeline = from_keras(keras.Model(x, keras.layers.ReLU()(layer(x))), granularity="layer")
        with pytest.raises(UnsupportedModel, match=f"can't save .*{says}.*between operators"):
            pipeline.split(1)[1].save(tmp_path / "own.keras")
    assert not (tmp_path / "own.keras").exists()
    keras.saving.register_keras_serializable("tests")(Own)
    pipeline = from_keras(keras.Model(x, keras.layers.ReLU()(Own()(x))), granularity="layer")
    saved_parts_compute_the_same(keras, pipeline, np.float32([[1, -2, 3]]), tmp_path)


def test_what_is_no_file_of_layers(keras: Any, tmp_path: Path) -> None:
    pipeline = from_keras(mixed(keras), granularity="layer")
    with pytest.raises(UnsupportedModel, match=r"'head.tflite' has another suffix. .* between operators"):
        pipeline.part(0, 3).save(tmp_path / "head.tflite")
    with pytest.raises(CutError, match="no steps"):
        pipeline.part(3, 3).save(tmp_path / "nothing.keras")
    with pytest.raises(OSError, match="nowhere"):
        pipeline.part(0, 3).save(tmp_path / "nowhere" / "head.keras")
    assert not [*tmp_path.iterdir()]


# operators --------------------------------------------------------------------------------------------------------


def test_operators_are_exact_at_every_cut(keras: Any) -> None:
    model = mixed(keras)
    pipeline = from_keras(model)
    assert isinstance(pipeline, si.Model)
    assert pipeline.name == "mixed"
    report = pipeline.verify(samples=3)
    assert report.ok, str(report)
    assert len(report.lines) == pipeline.n + 1
    value = sample()
    whole = exact_everywhere(pipeline, value)
    assert list(whole) == ["score", "shared"]
    for ours, said in zip(whole.values(), model([value["picture"], value["extra"]]), strict=True):
        np.testing.assert_allclose(ours, np.asarray(said), rtol=1e-4, atol=1e-5)
    assert [spec.name for spec in pipeline.inputs] == ["picture", "extra"]


def test_operators_are_called_as_the_layers_that_they_are_made_of(keras: Any) -> None:
    layers = keras.layers
    x = keras.Input((4,))
    y = layers.Dense(4, activation="tanh", name="dense")(x)
    y = layers.Dense(4, activation="tanh", name="dense_1")(y)
    y = layers.Dense(4, activation="sigmoid", name="dense_1_1")(y)
    pipeline = from_keras(keras.Model(x, layers.Dense(4, name="last")(y), name="net_2"))
    found = [{name.split("/")[1] for name in step.name.split(";")} for step in pipeline.steps[:-1]]
    assert found == [{"dense"}, {"dense"}, {"dense_1"}, {"dense_1"}, {"dense_1_1"}, {"dense_1_1"}]
    assert pipeline.steps[-1].name == "last"


def test_float16_keeps_types_and_nearly_all_digits(keras: Any) -> None:
    model = mixed(keras)
    plain, pipeline = from_keras(model), from_keras(model, quantize="float16")
    assert pipeline.verify().ok
    assert {spec.dtype for spec in (*pipeline.inputs, *pipeline.outputs)} == {"float32"}
    for name, array in pipeline.run(sample()).items():
        np.testing.assert_allclose(array, plain.run(sample())[name], rtol=2e-2, atol=2e-3)
    assert pipeline.digest != plain.digest


def test_int8_takes_and_gives_bytes(keras: Any) -> None:
    model = mixed(keras)
    plain = from_keras(model)
    typical = [sample(seed) for seed in range(40)]
    batchless = [{name: array[0] for name, array in value.items()} for value in typical]
    pipeline = from_keras(model, quantize="int8", representative=batchless)
    again = from_keras(model, quantize="int8", representative=lambda: iter(typical))
    assert pipeline.to_bytes() == again.to_bytes()
    report = pipeline.verify()
    assert report.ok, str(report)
    assert {spec.dtype for spec in (*pipeline.inputs, *pipeline.outputs)} == {"int8"}
    for value in typical[:5]:
        stored = {
            spec.name: np.clip(np.round(value[spec.name] / spec.scale) + spec.zero_point, -128, 127).astype(np.int8)
            for spec in pipeline.inputs
        }
        result, wanted = pipeline.run(stored), plain.run(value)
        for spec in pipeline.outputs:
            real = (result[spec.name].astype(np.float32) - spec.zero_point) * spec.scale
            span = float(np.ptp([plain.run(v)[spec.name] for v in typical]))
            assert np.max(np.abs(real - wanted[spec.name])) < 0.1 * span


@pytest.mark.parametrize(
    ("typical", "says"),
    [
        ([], "no representative inputs"),
        ([{"picture": np.zeros((8, 8, 3))}], "has no extra"),
        ([np.zeros((8, 8, 3))], "must be dicts"),
        ([{"picture": np.zeros((8, 8)), "extra": np.zeros(16)}], "'picture' has shape"),
    ],
)
def test_representative_inputs_that_do_not_fit(keras: Any, typical: Any, says: str) -> None:
    with pytest.raises(UnsupportedModel, match=says):
        from_keras(mixed(keras), quantize="int8", representative=typical)


def test_what_tflite_has_no_operator_for(keras: Any) -> None:
    x = keras.Input((4, 4))
    model = keras.Model(x, keras.ops.linalg.cholesky(x))
    with pytest.raises(UnsupportedModel, match="can't convert"):
        from_keras(model)
    value = np.eye(4, dtype=np.float32)[None] * 4
    assert from_keras(model, granularity="layer").run(value).tolist() == (value / 2).tolist()


# files ------------------------------------------------------------------------------------------------------------


def keras_2(path: Path) -> None:
    """Make an .h5 file look as Keras 2 wrote it: its DepthwiseConv2D had an argument `groups`."""
    import h5py

    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        deep = 0
        pending = [config]
        while pending:
            item = pending.pop()
            if isinstance(item, dict):
                if item.get("class_name") == "DepthwiseConv2D":
                    item["config"]["groups"] = 1
                    deep += 1
                pending += item.values()
            elif isinstance(item, list):
                pending += item
        assert deep
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"


def save_h5(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls the format old
        model.save(path)
    return path


@pytest.mark.parametrize("granularity", ["operator", "layer"])
def test_an_h5_file_of_keras_2(keras: Any, granularity: Any, tmp_path: Path) -> None:
    x = keras.Input((8, 8, 3), name="picture")
    y = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", name="deep")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    model = settle(keras, keras.Model(x, keras.layers.ReLU(6.0, name="clip")(y), name="old"))
    keras_2(path := save_h5(model, tmp_path / "old.h5"))
    with pytest.raises(Exception, match="groups"):
        keras.saving.load_model(path, compile=False)  # Keras alone can't
    pipeline = from_keras(path, granularity=granularity)
    value = sample()["picture"]
    whole = exact_everywhere(pipeline, value)
    np.testing.assert_allclose(whole["only"], np.asarray(model(value)), rtol=1e-4, atol=1e-6)
    if granularity == "layer":
        assert [step.kind for step in pipeline.steps] == ["DepthwiseConv2D", "BatchNormalization", "ReLU"]
        saved_parts_compute_the_same(keras, pipeline, value, tmp_path)


def test_files_that_hold_code_are_not_loaded(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Lambda(lambda x: x * 2, name="code")(x))
    h5 = save_h5(model, tmp_path / "code.h5")
    model.save(tmp_path / "code.keras")
    with pytest.raises(UnsupportedModel, match="Lambda layer, which is code"):
        from_keras(h5)
    with pytest.raises(UnsupportedModel, match=r"can't load code\.keras"):
        from_keras(tmp_path / "code.keras")
    assert from_keras(model).run(np.ones((1, 3), np.float32)).tolist() == [[2, 2, 2]]


def test_other_files(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(x))
    model.save_weights(tmp_path / "only.weights.h5")
    (tmp_path / "short.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    (tmp_path / "m.tflite").write_bytes(from_keras(model).to_bytes())
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "m.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04" + bytes(40))
    (tmp_path / "folder").mkdir()
    for name, says in {
        "only.weights.h5": "weights only",
        "m.tflite": "use splitiot.load_model",
        "text.keras": "neither a .keras nor an .h5",
        "m.zip": "call it m.keras",
        "broken.keras": "can't load broken.keras",
        "folder": "SavedModel",
    }.items():
        with pytest.raises(UnsupportedModel, match=says):
            from_keras(tmp_path / name)
    with pytest.raises(MalformedModel, match=r"short.h5 is broken"):
        from_keras(tmp_path / "short.h5")
    with pytest.raises(FileNotFoundError):
        from_keras(tmp_path / "nothing.keras")


def test_layer_names_beside_steps(keras: Any) -> None:
    model = mixed(keras)
    by_layer = from_keras(model, granularity="layer")
    named = dict(zip([step.name for step in by_layer.steps], layer_names(by_layer), strict=True))
    assert named["block/conv@2"] == ("conv",) and named["shared"] == ("shared",)
    by_operator = from_keras(model)
    known = {name for names in layer_names(by_operator) for name in names}
    assert {"first", "block", "deep", "pool", "widen", "shared"} <= known
    assert known <= {layer.name for layer in model.layers}


def test_the_how_to_page_runs(keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "keras.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.S | re.M)
    assert len(blocks) == 5
    network = fomo(keras)
    network.save(tmp_path / "network.keras")
    pictures = np.random.default_rng(0).random((4, 96, 96, 3), np.float32)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.py").write_text("\n".join(blocks))
    names = runpy.run_path("page.py", {"network": network, "pictures": pictures})
    layers = names["layers"]
    close(layers.part(0, 7).run(layers.bind(pictures[:1])), names["values"])
    assert {"network.tflite", "head.tflite", "head.keras", "tail.keras"} <= {path.name for path in tmp_path.iterdir()}
