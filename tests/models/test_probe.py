"""What is tried or asked in a child process: unknown models, shapes, other sizes of inputs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitiot.errors import MissingDependencyError, ModelError, UnsupportedModel
from splitiot.models import _child, load_model, probe
from splitiot.models._request import Answer, Failed, Running
from splitiot.models.probe import child_shapes, probe_model
from splitiot.models.tflite.reader import read_model
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.writer import write_model
from splitiot.pipeline import Runtime
from tests import networks
from tests.networks import Net

needs_litert = pytest.mark.extra("litert")
START = "import os, splitiot.models._child_main as c; "


def change_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run `code` in each child before it begins; `c` is the module that works there."""
    monkeypatch.setattr(_child, "CODE", START + f"exec({code!r}); c.main()")


@needs_litert
@pytest.mark.parametrize("make", [networks.chain, networks.random, networks.string_input, networks.svdf])
def test_what_runs_is_taken(make: Any) -> None:
    assert load_model(make(), probe=True).n > 0


@needs_litert
@pytest.mark.models
def test_what_kills_the_interpreter_is_refused(models_dir: Path) -> None:
    """It passes every check, and no check is known that would not refuse good models."""
    file = models_dir / "keyword_scrambled_8bit.tflite"
    assert load_model(file).n == 15
    with pytest.raises(UnsupportedModel, match=r"tried in a child process: killed by SIG[A-Z]+ while running it"):
        load_model(file, probe=True)


@needs_litert
def test_what_the_interpreter_refuses() -> None:
    with pytest.raises(UnsupportedModel, match=r"model can't run here: litert .*Wobble"):
        load_model(networks.custom(), probe=True)


def endless() -> bytes:
    """2**31 - 1 rounds: valid, and of no use."""
    table = read_model(networks.loop())
    (limit,) = [b for b in table["buffers"] if b["data"] is not None and b["data"].tobytes() == b"\5\0\0\0"]
    limit.fields["data"] = np.frombuffer(b"\xff\xff\xff\x7f", np.uint8)
    return write_model(table)


@needs_litert
@pytest.mark.parametrize("kernels", ["default", "no-delegate", "reference"])
def test_an_endless_loop(kernels: Any) -> None:
    model = load_model(endless())
    with pytest.raises(UnsupportedModel, match="no answer within 2 s while running it"):
        probe_model(model, Runtime(kernels=kernels), timeout_s=2.0)


WATCHED = """
file, run = open(os.environ["SPLITIOT_TEST_ALIVE"], "w"), c.CutChecker.whole
def whole(self):
    print("runs", file=file, flush=True)
    return run(self)
c.CutChecker.whole = whole
"""


@needs_litert
@pytest.mark.skipif(sys.platform == "win32", reason="this system has no FIFOs")
def test_an_endless_loop_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(endless())
    os.mkfifo(tmp_path / "alive")
    child = START + f"exec({WATCHED!r}); c.main()"
    code = f"from splitiot.models import _child, load_model; _child.CODE = {child!r}\n"
    code += "load_model('model.tflite', probe=True)"
    settings = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SPLITIOT_TEST_ALIVE": str(tmp_path / "alive")}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **settings}) as parent:
        try:
            with (tmp_path / "alive").open() as alive:
                assert alive.readline() == "runs\n"
                parent.kill()
                assert alive.read() == ""  # the child has ended
        finally:
            parent.kill()


@needs_litert
def test_a_crash_names_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    change_child(monkeypatch, "c.CutChecker.whole = lambda self: os.abort()")
    with pytest.raises(UnsupportedModel, match="killed by SIGABRT while running it"):
        load_model(networks.chain(), probe=True)
    change_child(monkeypatch, "c.known_shapes = lambda *_, **__: os.abort()")
    with pytest.raises(UnsupportedModel, match="killed by SIGABRT while asking for its shapes"):
        child_shapes(networks.chain())


@needs_litert
def test_a_crash_while_shapes_are_asked_refuses_the_cut_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that kills the interpreter must not kill the process that only wants to know where to cut."""
    change_child(monkeypatch, "c.known_shapes = lambda *_, **__: os.abort()")
    model = load_model(networks.open_input())
    assert model.cuts == (0, 3)
    assert "killed by SIGABRT" in model.refused[1]


@needs_litert
def test_shapes_are_never_asked_in_this_process() -> None:
    code = (
        "import sys; from splitiot.models import load_model\n"
        "m = load_model(sys.stdin.buffer.read()); assert m.cuts == (0, 1, 2, 3), m.refused\n"
        "heavy = 'ai_edge_litert', 'tflite_runtime', 'tensorflow'\n"
        "sys.exit(', '.join(h for h in heavy if h in sys.modules) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=networks.open_input(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_an_interpreter() -> None:
    from splitiot.models.interpreters import pick

    try:
        pick()
    except MissingDependencyError:
        with pytest.raises(MissingDependencyError, match="litert"):
            load_model(networks.chain(), probe=True)
        with pytest.raises(MissingDependencyError, match="litert"):
            child_shapes(networks.chain())
    with pytest.raises(MissingDependencyError, match=r"splitiot\[tflite\]"):
        load_model(networks.chain(), probe=True, runtime=Runtime("tflite-runtime"))


def test_a_child_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", os.path.join(os.sep, "nowhere", "python"))
    with pytest.raises(ModelError, match="no child process can be started"):
        load_model(networks.chain(), probe=True)


def test_what_the_child_says_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(*_: Any) -> Iterator[Answer]:
        yield from (Running(), Failed("ValueError: no"))

    monkeypatch.setattr(probe, "answers", answers)
    with pytest.raises(UnsupportedModel, match="ValueError: no while running it"):
        load_model(networks.chain(), probe=True)


# other sizes of inputs


@needs_litert
def test_resized_inputs() -> None:
    model = load_model(networks.open_input(), resize_input={"in0": (1, 12, 20, 2)})
    assert model.warnings == ()
    assert model.inputs[0].shape == (1, 12, 20, 2)
    assert model.boundary(1).tensors[0].shape == (1, 6, 10, 2)  # type: ignore[index]
    assert model.outputs[0].shape == (1, 6, 10, 2)
    assert model.cuts == (0, 1, 2, 3)
    again = load_model(networks.open_input(), resize_input={"in0": [1, 12, 20, 2]})
    assert again.digest == model.digest != load_model(networks.open_input()).digest
    report = model.verify()
    assert report.ok, str(report)


@needs_litert
def test_a_batch_can_be_chosen() -> None:
    """Whatever is in the network: every tensor gets the shape that the interpreter makes of it."""
    model = load_model(networks.batch(), resize_input={"in0": (3, *load_model(networks.batch()).inputs[0].shape[1:])})
    assert model.inputs[0].shape[0] == 3
    report = model.verify()
    assert report.ok, str(report)


@needs_litert
def test_what_the_data_decides_stays_open() -> None:
    net = Net()
    x = net.input((16,), shape_signature=np.array([-1], np.int32))
    mask = net.op(
        "GREATER", [x, net.constant(0.1)], (16,), "BOOL", options=Table("GreaterOptions"),
        shape_signature=np.array([-1], np.int32),
    )  # fmt: skip
    found = net.op(
        "WHERE", [mask], (1, 1), "INT64", options=Table("WhereOptions"), shape_signature=np.array([-1, 1], np.int32)
    )
    total = net.op("SUM", [found, net.constant([0], "INT32")], (1,), "INT64", options=Table("ReducerOptions"))
    model = load_model(net.write(total), resize_input={"in0": (8,)})
    assert model.boundary(1).tensors[0].shape == (8,)  # type: ignore[index]
    assert "depends on the data" in model.refused[2]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"image": (1, 6, 6, 2)}, "no input 'image' to resize; it has in0"),
        ({"in0": (1, 6, 6, 3)}, r"has the sizes \[1, -1, -1, 2\], where -1 is open: it can't be \[1, 6, 6, 3\]"),
        ({"in0": (1, 6, 6)}, r"can't be \[1, 6, 6\]"),
        ({"in0": (1, 0, 6, 2)}, r"can't be \[1, 0, 6, 2\]"),
        ({"in0": (1, -1, 6, 2)}, r"can't be \[1, -1, 6, 2\]"),
    ],
)
def test_sizes_that_can_not_be(asked: Any, words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        load_model(networks.open_input(), resize_input=asked)


@needs_litert
def test_sizes_that_the_network_does_not_take() -> None:
    net = Net()
    x = net.input((1, 8), shape_signature=np.array([1, -1], np.int32))
    y = net.op("RESHAPE", [x, net.constant([2, 4], "INT32")], (2, 4), options=Table("ReshapeOptions"))
    with pytest.raises(UnsupportedModel, match="other shapes of its inputs"):
        load_model(net.write(y), resize_input={"in0": (1, 9)})
