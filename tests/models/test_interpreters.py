"""One protocol over three packages: which is chosen, what it says, and what happens where there is none."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from splitiot.errors import MissingDependencyError, UnsupportedModel
from splitiot.models import interpreters, load_model
from splitiot.models.interpreters import _TINY, available, known_shapes, open_interpreter, pick, runtime_info
from splitiot.models.probe import probe_model
from splitiot.models.tflite.table import Table
from splitiot.pipeline import Runtime, TensorSpec
from tests import networks
from tests.networks import Net

MODULES = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow",
}
KERNELS = ("default", "no-delegate", "reference")


@pytest.fixture
def probes() -> Iterator[None]:
    """What was found out about the packages is forgotten before and after."""
    interpreters._probe.cache_clear()
    yield
    interpreters._probe.cache_clear()


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, MODULES[name], None)


def any_backend() -> None:
    """Skip where there is no interpreter at all."""
    try:
        pick()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("kernels", KERNELS)
def test_every_package_that_is_here_runs_a_model(name: str, kernels: Any) -> None:
    try:
        pick(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interpreter = open_interpreter(_TINY, Runtime(name, kernels, threads=2))
    assert interpreter.inputs == (TensorSpec("x", "float32", (1,)),)
    assert interpreter.outputs == (TensorSpec("y", "float32", (1,)),)
    assert (interpreter.info.name, interpreter.info.kernels) == (name, kernels)
    assert interpreter.info == runtime_info(Runtime(name, kernels))
    assert interpreter.info.machine == platform.machine()
    assert interpreter.info.version[0].isdigit()
    interpreter.set(0, np.float32([3]))
    interpreter.invoke()
    first = interpreter.get(0)
    interpreter.set(0, np.float32([-3]))
    interpreter.invoke()
    assert (first.tolist(), interpreter.get(0).tolist()) == ([3.0], [0.0]), "results own their memory"
    assert interpreter.nbytes >= len(_TINY)
    interpreter.close()
    with pytest.raises(RuntimeError, match="closed"):
        interpreter.invoke()


def test_the_first_that_works_is_chosen(monkeypatch: pytest.MonkeyPatch, probes: None) -> None:
    asked = []

    def made(name: str, answer: float) -> Any:
        class Fake:
            def __init__(self, **options: Any) -> None:
                asked.append(name)

            def allocate_tensors(self) -> None:
                pass

            set_tensor = invoke = lambda *args: None

            def get_input_details(self) -> list[dict[str, int]]:
                return [{"index": 0}]

            get_output_details = get_input_details

            def get_tensor(self, index: int) -> Any:
                return np.float32([answer])

        resolver = SimpleNamespace(BUILTIN=1, BUILTIN_WITHOUT_DEFAULT_DELEGATES=3, BUILTIN_REF=2)
        return lambda: (Fake, resolver, f"{answer}")

    monkeypatch.setitem(interpreters._PACKAGES, "litert", ("ai-edge-litert", "litert", made("litert", 9.0)))
    monkeypatch.setitem(
        interpreters._PACKAGES, "tflite-runtime", ("tflite-runtime", "tflite", made("tflite-runtime", 2.0))
    )
    monkeypatch.setitem(interpreters._PACKAGES, "tensorflow", ("tensorflow", "tensorflow", made("tensorflow", 2.0)))
    assert pick().name == "tflite-runtime", "an interpreter that answers wrongly is none"
    assert pick() is pick()
    assert asked == ["litert", "tflite-runtime"], "each is probed once, and TensorFlow not at all"
    assert available() == ("tflite-runtime", "tensorflow")
    with pytest.raises(MissingDependencyError) as caught:
        pick("litert")
    assert "answered" in caught.value.__notes__[0]


def test_no_interpreter_at_all(monkeypatch: pytest.MonkeyPatch, probes: None) -> None:
    hide(monkeypatch, *MODULES)
    assert available() == ()
    for ask in (pick, runtime_info, lambda: open_interpreter(_TINY), lambda: known_shapes(_TINY)):
        with pytest.raises(MissingDependencyError, match=r'pip install "splitiot\[litert\]"'):
            ask()


@pytest.mark.parametrize(
    ("name", "extra"), [("litert", "litert"), ("tflite-runtime", "tflite"), ("tensorflow", "tensorflow")]
)
def test_the_one_that_was_asked_for_is_missing(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch, probes: None
) -> None:
    hide(monkeypatch, name)
    with pytest.raises(MissingDependencyError, match=rf"splitiot\[{extra}\]") as caught:
        pick(name)
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_package_that_imports_but_does_not_work_is_passed_over(monkeypatch: pytest.MonkeyPatch, probes: None) -> None:
    def broken(**options: object) -> None:
        raise SystemError("initialization of _interpreter failed")  # tflite-runtime beside numpy 2

    resolver = SimpleNamespace(BUILTIN=1, BUILTIN_WITHOUT_DEFAULT_DELEGATES=3, BUILTIN_REF=2)
    hide(monkeypatch, "litert", "tensorflow")
    monkeypatch.setitem(
        interpreters._PACKAGES,
        "tflite-runtime",
        ("tflite-runtime", "tflite", lambda: (broken, resolver, "2.14.0")),
    )
    assert available() == ()
    for name in ("tflite-runtime", "auto"):
        with pytest.raises(MissingDependencyError) as caught:
            pick(name)
        assert caught.value.__notes__ == [
            "tflite-runtime is there but does not work: initialization of _interpreter failed"
        ]


def test_an_unknown_name_or_setting() -> None:
    with pytest.raises(ValueError, match="choose from auto, litert, tflite-runtime, tensorflow"):
        pick("onnx")
    any_backend()
    with pytest.raises(ValueError, match="there are no kernels 'fast'"):
        open_interpreter(_TINY, Runtime(kernels="fast"))  # type: ignore[arg-type]
    for threads in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="threads"):
            open_interpreter(_TINY, Runtime(threads=threads))  # type: ignore[arg-type]


def test_what_registers_custom_operators_reaches_the_interpreter() -> None:
    """The wheels bring no headers to build a real one with: bad ones show that they arrive."""
    any_backend()
    given: list[int] = []
    runtime = Runtime(custom_ops=[given.append])
    assert open_interpreter(_TINY, runtime).info.version == f"{pick().version}+append"
    assert given and all(type(pointer) is int and pointer for pointer in given)
    assert runtime_info(runtime) != runtime_info(), "results of other operators are not known to be the same"
    with pytest.raises(UnsupportedModel, match="NoSuchSymbol"):
        open_interpreter(_TINY, Runtime(custom_ops=("NoSuchSymbol",)))
    with pytest.raises(UnsupportedModel, match=r"no-such\.so can't be loaded"):
        open_interpreter(_TINY, Runtime(custom_ops=("no-such.so:RegisterIt",)))


def test_what_registers_custom_operators_reaches_child_processes() -> None:
    any_backend()
    model = load_model(networks.chain())
    with pytest.raises(UnsupportedModel, match=r"NoSuchSymbol"):
        probe_model(model, Runtime(custom_ops=("NoSuchSymbol",)))
    assert "NoSuchSymbol" in model.verify(runtime=Runtime(custom_ops=("NoSuchSymbol",))).detail
    for ask in (probe_model, lambda model, runtime: model.verify(runtime=runtime)):
        with pytest.raises(UnsupportedModel, match="can't be given functions"):
            ask(model, Runtime(custom_ops=(print,)))


@pytest.mark.parametrize("wrong", ["RegisterIt", [3], 3])
def test_no_registerers(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"custom_ops|iterable"):
        Runtime(custom_ops=wrong)


def test_a_model_that_the_interpreter_refuses() -> None:
    any_backend()
    with pytest.raises(UnsupportedModel, match=r"with default kernels can't run this model: \S"):
        open_interpreter(b"GAAAAFRG not a model")


@pytest.mark.extra("litert")
def test_a_delegate_that_looks_up_what_is_not_there() -> None:
    """LiteRT 2.3 lets C++'s out_of_range through where a RESHAPE wants 12 dimensions: that was an IndexError."""
    net = Net()
    x = net.op("RESHAPE", [net.input((1, 8)), net.constant([1] * 12, "INT32")], (1, 8))
    y = net.op("FULLY_CONNECTED", [x, net.weights(2, 8), -1], (1, 2), options=Table("FullyConnectedOptions"))
    with pytest.raises(UnsupportedModel, match="with default kernels can't run this model"):
        open_interpreter(net.write(y), Runtime("litert"))


def test_shapes() -> None:
    any_backend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known_shapes(_TINY) == known_shapes(_TINY, invoke=True) == {0: (1,), 1: (1,)}


def test_probing_gives_stderr_back(probes: None, capfd: pytest.CaptureFixture[str]) -> None:
    any_backend()
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_a_closed_stderr_does_no_harm(monkeypatch: pytest.MonkeyPatch, probes: None) -> None:
    any_backend()
    interpreters._probe.cache_clear()

    def closed(descriptor: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    pick()
