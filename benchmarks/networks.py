"""Rows about networks: what it costs to cut one, and to run it in parts."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from baselines import bare, interpreter_per_step, step_files
from measure import Pair, Row, compared, in_turns
from numpy.typing import NDArray

from splitiot import Model, Runner, load_model
from splitiot.samples import Precision, fomo

ZOO = "SPLITIOT_TEST_MODELS"


def _network(precision: Precision) -> tuple[Model, NDArray[Any]]:
    model = load_model(fomo(precision))
    (spec,) = model.inputs
    random = np.random.default_rng(0)
    if precision == "int8":
        return model, random.integers(-128, 128, spec.shape).astype(np.int8)
    return model, random.random(spec.shape, np.float32)


def _in_two(model: Model, runner: Runner, array: NDArray[Any], cut: int, *, rounds: int, calls: int) -> Pair:
    whole = bare(model.to_bytes())
    payload = model.bind(array)
    (result,) = (spec.name for spec in model.outputs)

    def ours() -> Any:
        head, _ = runner.run(0, cut, payload)
        tail, _ = runner.run(cut, model.n, head)
        return tail

    if not np.array_equal(ours()[result], whole(array)):
        raise AssertionError(f"head and tail at cut {cut} differ from the whole network")
    return in_turns(ours, lambda: whole(array), rounds=rounds, calls=calls)


def head_tail(precision: Precision) -> Row:
    """Head and tail at the middle cut against the whole network."""
    model, array = _network(precision)
    cut = model.n // 2
    with Runner(model) as runner:
        pair = _in_two(model, runner, array, cut, rounds=25, calls=30)
    return compared(
        f"head-tail-{precision}",
        f"head + tail at cut {cut} / whole set + invoke + get",
        pair,
        at_most=1.10,
    )


def every_cut(precision: Precision) -> Row:
    """Head and tail at every cut that has both; the row's ratios are those of the cuts."""
    model, array = _network(precision)
    cuts = [cut for cut in model.cuts if 0 < cut < model.n]
    pairs = {}
    with Runner(model) as runner:
        for cut in cuts:
            pairs[cut] = _in_two(model, runner, array, cut, rounds=7, calls=12)
    ratios = {cut: statistics.median(pair.quotients) for cut, pair in pairs.items()}
    worst = max(ratios, key=ratios.__getitem__)
    return compared(
        f"every-cut-{precision}",
        f"the same at each of {len(cuts)} cuts, median",
        Pair(
            tuple(statistics.median(pair.ours) for pair in pairs.values()),
            tuple(statistics.median(pair.ours) / ratios[cut] for cut, pair in pairs.items()),
        ),
        at_most=1.10,
        note=f"worst {ratios[worst]:.2f} at cut {worst}",
    )


def all_local(precision: Precision) -> Row:
    """The whole network through Runner."""
    model, array = _network(precision)
    whole = bare(model.to_bytes())
    payload = model.bind(array)
    with Runner(model) as runner:
        pair = in_turns(lambda: runner.run(0, model.n, payload), lambda: whole(array), rounds=25, calls=30)
    return compared(
        f"all-local-{precision}",
        "all local through Runner / whole set + invoke + get",
        pair,
        at_most=1.05,
    )


def new_interpreters(precision: Precision, at_least: float) -> Row:
    """All local against a new interpreter for each operator."""
    model, array = _network(precision)
    files = step_files(model)
    payload = model.bind(array)
    (result,) = (spec.name for spec in model.outputs)
    with Runner(model) as runner:
        ours, _ = runner.run(0, model.n, payload)
        theirs = interpreter_per_step(files, payload)
        if not np.array_equal(ours[result], theirs[result]):
            raise AssertionError("the baseline does not compute the network")
        pair = in_turns(
            lambda: runner.run(0, model.n, payload),
            lambda: interpreter_per_step(files, payload),
            rounds=11,
            calls=20,  # enough that the first ones, on caches that the baseline emptied, do not count
        )
    return compared(
        f"new-interpreters-{precision}",
        f"{model.n} new interpreters, one an operator / all local",
        pair,
        at_least=at_least,
    )


def cut_file() -> Row:
    """Read a small network, cut it in the middle, write both files."""
    zoo = os.environ.get(ZOO)
    path = Path(zoo) / "kws_ref_model.tflite" if zoo else fomo("int8")
    data = path.read_bytes()

    def ours() -> tuple[bytes, bytes]:
        model = load_model(data)
        head, tail = model.split(model.n // 2)
        return head.to_bytes(), tail.to_bytes()

    pair = in_turns(ours, lambda: bytes(bytearray(data)), rounds=9, calls=9)
    return Row(
        name="cut-file",
        what=f"read + cut + write {path.stem} ({len(data) / 1e3:.0f} kB)",
        measured=statistics.median(pair.ours),
        reference=None,
        limit_s=0.010,
    )
