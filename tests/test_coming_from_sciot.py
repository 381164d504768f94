"""The page for those who come from SCIoT: its expressions run, and mean what it says."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import splitiot as si
from splitiot import wire
from splitiot.cli._policy import load_policy
from splitiot.cost import StepsOnDevice, costs
from splitiot.estimators import Ema, JointEstimator, VarianceCascade, VarianceDetector
from tests.session.support import Clock, Scripted, numbers, planner_of, read
from tests.test_cost import FOMO, fomo
from tests.test_planner import make, run
from tests.test_readme import ROOT, python

PAGE: Final = (ROOT / "docs" / "coming-from-sciot.md").read_text("utf-8")
DEVICE, EDGE, BYTES = FOMO["device_s"], FOMO["edge_s"], FOMO["boundary_bytes"]
LAYERS: Final = 59


def snippets() -> list[str]:
    """What stands as code in the tables' second column, where it can be evaluated."""
    rows = re.findall(r"^\| (?!-)(.*) \|$", PAGE, flags=re.M)
    cells = [re.split(r"(?<=.)\|(?=.)", row)[1] for row in rows]
    found = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    return [code for code in found if "(" in code or code.startswith("pipeline")]


def test_every_expression_of_the_tables_runs(tmp_path: Path) -> None:
    found = snippets()
    assert len(found) > 25
    assert {"si.Fixed(L + 1)", "pipeline.n - 1", "Ema(alpha=0.2)"} <= set(found)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
    first, rest = blocks[0], blocks[1:]
    lines = [first, *rest, "device = si.Device(pipeline, transport, profile=profile, cache=False)"]
    own = "transport = si.InMemory(lambda frame: service.handle(frame, peer='device_01'))"  # each device has its own
    for code in found:
        lines += [own, f"made = {code}", "getattr(made, 'close', int)()"]
    lines += ["device.close()", "print('all of it')"]
    (tmp_path / "page.py").write_text("\n".join(lines))
    ran = python("page.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout, ran.stderr) == ("all of it\n", "")


def test_the_page_is_in_the_navigation() -> None:
    assert "coming-from-sciot.md" in (ROOT / "mkdocs.yml").read_text()


# cuts -----------------------------------------------------------------------------------------------------------------


def table(mbit_per_s: float, **options: Any) -> si.Costs:
    """FOMO on an ESP32-S3, with no round trip: SCIoT's formula has none."""
    pipeline, topology = fomo(mbit_per_s, **options)
    link = si.Link.from_mbit_per_s(mbit_per_s, rtt_s=0.0)
    return costs(pipeline, si.Topology(tiers=topology.tiers, links=[link]))


def formula(layer: int, mbit_per_s: float) -> float:
    """What offloading behind a layer costs, by SCIoT's formula; the last layer: everything, and the result is sent."""
    size = BYTES[layer + 1]  # what that layer gives
    speed = mbit_per_s * 125e3
    return sum(DEVICE[: layer + 1]) + size / speed + sum(EDGE[layer + 1 :])


@pytest.mark.parametrize("mbit_per_s", [0.01, 0.1, 1, 20])
def test_index_l_is_cut_l_plus_1(mbit_per_s: float) -> None:
    here = table(mbit_per_s)
    assert here.pipeline.n == LAYERS == len(DEVICE)
    for layer in range(LAYERS - 1):
        row = here.at_cut(layer + 1)
        assert here.latency_s[row] == pytest.approx(formula(layer, mbit_per_s), rel=1e-9), layer
    assert here.local_row is not None
    assert here.latency_s[here.local_row] == pytest.approx(sum(DEVICE))  # index -1
    assert here.cuts[here.local_row] == LAYERS
    there = table(mbit_per_s, sink="edge")
    assert there.latency_s[there.at_cut(LAYERS)] == pytest.approx(formula(LAYERS - 1, mbit_per_s))  # index 58


@pytest.mark.parametrize("mbit_per_s", [0.01, 0.05, 0.1, 0.3, 1, 3, 20, 1000])
def test_its_rule_is_the_best_with_one_step_on_the_device(mbit_per_s: float) -> None:
    layers = min(range(LAYERS - 1), key=lambda layer: formula(layer, mbit_per_s))
    wanted = layers + 1 if formula(layers, mbit_per_s) < sum(DEVICE) else LAYERS
    here = table(mbit_per_s)
    row = here.masked(StepsOnDevice(1)(here)).best()
    assert here.cuts[row] == wanted


def test_all_local_by_name() -> None:
    pipeline, topology = fomo(1)
    assert load_policy("local", n=pipeline.n) == si.Fixed(LAYERS)
    assert si.Planner(pipeline, topology, si.Fixed(pipeline.n)).decide(0.0).cut == LAYERS
    assert si.Planner(pipeline, topology, si.Fixed(0)).decide(0.0).latency_s < sum(DEVICE)


# learning -------------------------------------------------------------------------------------------------------------

never = functools.partial(VarianceDetector, threshold=1e9)


def local_runs(planner: si.Planner, *slow: float) -> si.Planner:
    for factor in slow:
        plan = planner.decide(0.0)
        planner.observe(run(planner, plan.id, 3, mbit_per_s=1, slow=factor), now_s=0.0)
    return planner


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5])
def test_alpha_is_the_weight_of_the_newest_run(alpha: float) -> None:
    estimators = functools.partial(JointEstimator, alpha=alpha, detector=never)
    planner = local_runs(make(estimators=estimators), *[1.0] * 30, 1.3)
    assert planner.factors[0] == pytest.approx(1.3**alpha)
    mean = Ema(alpha=alpha)
    for x in (4.0, 5.0):
        mean.update(x)
    assert mean.get() == pytest.approx(4.0 + alpha)  # the first as it is


def test_0_2_is_the_default() -> None:
    usual = local_runs(make(), 1.0, 1.1, 1.2, 1.0, 1.1)
    same = local_runs(make(estimators=functools.partial(JointEstimator, alpha=0.2)), 1.0, 1.1, 1.2, 1.0, 1.1)
    assert usual.snapshot() == same.snapshot()


@pytest.mark.parametrize(("threshold", "drifts"), [(0.15, True), (0.5, False)])
def test_the_variance_of_the_last_runs_tells_of_a_drift(threshold: float, drifts: bool) -> None:
    times = [1.0, 1.3, 0.9, 1.35, 0.9]
    assert np.std(times, ddof=1) / np.mean(times) > 0.15
    detector = functools.partial(VarianceDetector, window=10, threshold=threshold)
    planner = local_runs(make(estimators=functools.partial(JointEstimator, detector=detector)), *times)
    assert (planner.beliefs(0.0).device.drifts > 0) is drifts


@pytest.mark.parametrize(("cascade", "marked"), [("always", [False, True, True]), ("confirmed", [False, True, False])])
def test_both_readings_of_the_cascade(cascade: Any, marked: list[bool]) -> None:
    steps = VarianceCascade(3, window=10, threshold=0.15, cascade=cascade)
    for x in (1.0, 2.0, 1.0):
        for step, seconds in enumerate((1.0, x, 1.0)):
            steps.update(step, seconds)
    assert steps.flags.tolist() == marked


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_local_mode_is_as_frequent_as_it_says(probability: float) -> None:
    planner = make(si.LocalMode(si.LeastLatency(), probability), mbit_per_s=20, seed=7)
    count = 4000
    plans = [planner.decide(0.0) for _ in range(count)]
    local = sum(plan.cut == planner.pipeline.n for plan in plans)
    sigma = math.sqrt(count * probability * (1 - probability))
    assert abs(local - count * probability) <= 4 * sigma
    assert {plan.cut for plan in plans if not plan.probe} <= {0}


def test_its_whole_rule_never_sends_the_input() -> None:
    planner = make(si.LocalMode(si.Best(subject_to=StepsOnDevice(1)), 0.1), mbit_per_s=1e4)
    cuts = [planner.decide(0.0).cut for _ in range(200)]
    assert set(cuts) == {1, planner.pipeline.n}


def test_50_ms_are_believed_until_there_is_a_sample() -> None:
    link = si.Link(rtt_s=0.05, up_bytes_per_s=125e3, down_bytes_per_s=125e3)
    pipeline = numbers()
    assert planner_of(pipeline, link=link).link.rtt_s == 0.05


# who decides ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "after_s"), [({}, 5.0), ({"patience_s": 2.0}, 2.0)])
def test_after_5_s_of_silence_the_device_finishes(options: dict[str, float], after_s: float) -> None:
    clock, pipeline = Clock(0.0), numbers()
    service = si.EdgeService([pipeline], clock=clock)

    def answer(frame: bytes) -> list[tuple[float, bytes | Exception]]:
        return [] if isinstance(read(frame), wire.Request) else [(0.01, service.handle(frame, peer="device_01"))]

    planner = planner_of(pipeline, 1)
    with si.Device(
        pipeline,
        Scripted(clock, answer),
        planner=planner,
        clock=clock,
        cache=False,
        **options,  # type: ignore[arg-type]
    ) as device:
        outcome = device.run(20)
    assert (outcome.value, outcome.source) == (39, "hedge")
    assert outcome.latency_s == pytest.approx(after_s)


def test_the_estimators_reach_the_planners_on_both_sides() -> None:
    made: list[float] = []

    def estimators(profiles: Any, link: si.Link) -> JointEstimator:
        made.append(link.rtt_s)
        return JointEstimator(profiles, link, alpha=0.1)

    pipeline = numbers()
    own = planner_of(pipeline).topology.tiers[0]

    def make_planner(pipeline: si.Pipeline, device: si.TierProfile, edge: si.TierProfile) -> si.Planner:
        link = si.Link.from_mbit_per_s(1, rtt_s=0.07)
        return si.Planner(pipeline, si.Topology([device, edge], [link]), estimators=estimators)

    with si.EdgeService([pipeline], profiles=[own], make_planner=make_planner) as service:
        transport = si.InMemory(lambda frame: service.handle(frame, peer="device_01"))
        with si.Device(pipeline, transport, profile=own, policy=si.Fixed(1), follow=True, cache=False) as device:
            whys = [device.run(20).plan.why for _ in range(2)]  # type: ignore[union-attr]
    assert made == [0.07]
    assert whys[0] == "fixed at cut 1"
    assert whys[1] != whys[0]
    with pytest.raises(ValueError, match="leave policy and link out"):
        si.EdgeService([pipeline], make_planner=make_planner, policy=si.Best())
