from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.cost import costs
from splitiot.errors import ProfileError
from splitiot.functions import task, tasks
from splitiot.pipeline import Boundary, Executable, Part, Payload, Pipeline, Runtime
from splitiot.profiling import _never_falling, payload_bytes, profile
from splitiot.runner import Runner
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline


class Clock:
    """Stands still unless something takes time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class TimedPipeline(SizedPipeline):
    """Each step takes its seconds, a run of a part its start-up; times the machine's mood."""

    def __init__(
        self,
        clock: Clock,
        seconds: list[float],
        *,
        startup_s: float = 0.0,
        noise: float = 0.0,
        fused: float = 1.0,
        **more: Any,
    ) -> None:
        super().__init__([64] * (len(seconds) + 1), **more)
        self.clock, self.seconds, self.startup_s = clock, seconds, startup_s
        self.noise, self.fused = noise, fused
        self.rng = np.random.default_rng(0)
        self.opened: list[tuple[int, int]] = []
        self.runs: list[tuple[int, int]] = []

    def true_s(self, start: int, stop: int) -> float:
        """Steps cost less together than alone, by `fused`."""
        if start == stop:
            return 0.0
        alone = 1.0 if stop == start + 1 else self.fused
        return self.startup_s + alone * sum(self.seconds[start:stop])

    def part(self, start: int, stop: int) -> Part:
        return _TimedPart(self, super().part(start, stop))


class _TimedPart(Part):
    def __init__(self, pipeline: TimedPipeline, inner: Part) -> None:
        self.start, self.stop = inner.start, inner.stop
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self._pipeline, self._inner = pipeline, inner

    def open(self, runtime: Runtime | None = None) -> Executable:
        self._pipeline.opened.append((self.start, self.stop))
        return _TimedExecutable(self._pipeline, self.start, self.stop, self._inner.open(runtime))


class _TimedExecutable:
    nbytes = 1

    def __init__(self, pipeline: TimedPipeline, start: int, stop: int, inner: Executable) -> None:
        self._pipeline, self._start, self._stop, self._inner = pipeline, start, stop, inner
        self._cold = True

    def __call__(self, payload: Payload, /) -> Payload:
        p = self._pipeline
        p.runs.append((self._start, self._stop))
        seconds = p.true_s(self._start, self._stop)
        if p.noise:
            seconds *= float(p.rng.lognormal(0, p.noise))
        p.clock.now_s += seconds + (5.0 if self._cold else 0.0)
        self._cold = False
        return self._inner(payload)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def measured(pipeline: TimedPipeline, **options: Any) -> TierProfile:
    return profile(pipeline, pipeline.sample(), clock=pipeline.clock, budget_s=1e9, **options)


def errors(pipeline: TimedPipeline, found: TierProfile) -> list[float]:
    n = pipeline.n
    heads = [abs(found.heads_s[c] / pipeline.true_s(0, c) - 1) for c in pipeline.cuts if c > 0]
    tails = [abs(found.tails_s[c] / pipeline.true_s(c, n) - 1) for c in pipeline.cuts if c < n]
    return [*heads, *tails]


def test_few_heads_give_every_head_and_tail() -> None:
    rng = np.random.default_rng(1)
    pipeline = TimedPipeline(Clock(), rng.uniform(0.001, 0.1, 40).tolist(), startup_s=0.002)
    found = measured(pipeline)
    assert max(errors(pipeline, found)) < 0.02
    assert found.startup_s == pytest.approx(0.002, rel=0.01)
    assert found.whole_s == pytest.approx(pipeline.true_s(0, 40))
    assert found.digest == pipeline.digest
    assert found.spread == pytest.approx(0, abs=1e-9)
    assert len({run for run in pipeline.runs if run[0] == 0 and run[1] > 1}) <= 6


def test_fused_steps_are_not_summed_up() -> None:
    rng = np.random.default_rng(2)
    pipeline = TimedPipeline(Clock(), rng.uniform(0.01, 0.1, 30).tolist(), fused=0.35)
    found = measured(pipeline, heads=8)
    interior = [
        abs(found.heads_s[c] / pipeline.true_s(0, c) - 1) for c in range(5, 30)
    ]  # a head of one step is not fused, which bends the curve there
    assert max(interior) < 0.05
    assert sum(pipeline.seconds) / found.whole_s > 2.8


def test_noise_and_cold_starts() -> None:
    rng = np.random.default_rng(3)
    pipeline = TimedPipeline(Clock(), rng.uniform(0.01, 0.1, 30).tolist(), startup_s=0.001, noise=0.1)
    found = measured(pipeline, repeats=31)
    assert np.median(errors(pipeline, found)) < 0.05
    assert found.spread == pytest.approx(0.1, rel=0.5)
    assert found.whole_s == pytest.approx(pipeline.true_s(0, 30), rel=0.1)


@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.1]), min_size=1, max_size=12),
    st.floats(0, 0.01),
    st.sampled_from([0.0, 0.5]),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sets(st.integers(0, 12)),
)
def test_it_is_always_a_profile(
    seconds: list[float], startup_s: float, noise: float, heads: int, repeats: int, refused: set[int]
) -> None:
    n = len(seconds)
    pipeline = TimedPipeline(
        Clock(),
        seconds,
        startup_s=startup_s,
        noise=noise,
        refused={c: "because" for c in refused if c <= n},
    )
    found = measured(pipeline, heads=heads, repeats=repeats)  # TierProfile checks the curves
    assert found.n == n
    if pipeline.cuts:
        costs(pipeline, Topology([found, found], [Link(0, 1, 1)]))


def test_the_budget_ends_it_after_three_rounds() -> None:
    pipeline = TimedPipeline(Clock(), [1.0] * 4)
    profile(pipeline, pipeline.sample(), clock=pipeline.clock, budget_s=0.1, repeats=50)
    assert pipeline.runs.count((0, 4)) == 1 + 3 * 2
    again = TimedPipeline(Clock(), [1.0] * 4)
    profile(again, again.sample(), clock=again.clock, budget_s=1e9, repeats=5)
    assert again.runs.count((0, 4)) == 1 + 5 * 2


def test_rounds_are_interleaved() -> None:
    pipeline = TimedPipeline(Clock(), [1.0] * 4)
    measured(pipeline, repeats=4)
    rounds = pipeline.runs[-4 * 7 * 2 :: 2]
    assert rounds == pipeline.runs[1 - 4 * 7 * 2 :: 2]
    assert rounds[:7] == rounds[7:14] == rounds[21:]
    assert len(set(rounds[:7])) == 7


def test_progress() -> None:
    told: list[float] = []
    pipeline = TimedPipeline(Clock(), [1.0] * 4)
    measured(pipeline, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert 0 < told[0] < 0.3


def test_a_given_runner_lends_its_runtime_and_stays_as_it_is() -> None:
    asked: list[Runtime | None] = []

    class Asking(TimedPipeline):
        def runtime_info(self, runtime: Runtime | None = None) -> Any:
            asked.append(runtime)
            return super().runtime_info(runtime)

    pipeline = Asking(Clock(), [1.0, 1.0], stateful=True)
    runtime = Runtime(kernels="reference")
    with Runner(pipeline, runtime=runtime, clock=pipeline.clock) as runner:
        payload, _ = runner.run(0, 1, pipeline.sample(), "a device")
        found = measured(pipeline, runner=runner)
        runner.run(0, 1, pipeline.sample(), "a device")
        assert runner.opened == 1
    assert asked == [runtime]
    assert found.heads_s.tolist() == [0, 1, 2]
    assert payload.keys() == {"t1"}


def test_bytes_between_functions_are_measured() -> None:
    def scale(x: Any) -> Any:
        return np.asarray(x, np.float32)

    def boxes(x: Any) -> Any:
        return [int(x.sum()), "cat"]

    pipeline = tasks([scale, boxes])
    found = profile(pipeline, np.zeros((4, 5), np.uint8), budget_s=0.0)
    assert found.sent_bytes is not None
    assert found.returned_bytes is not None
    assert found.sent_bytes.tolist() == [20, 80, 0]
    assert found.returned_bytes.tolist() == [13, 13, 0]
    at_the_edge = pipeline.with_sink("edge")
    found = profile(at_the_edge, np.zeros((4, 5), np.uint8), budget_s=0.0)
    assert found.sent_bytes is not None
    assert found.sent_bytes.tolist() == [20, 80, 13]
    table = costs(at_the_edge, Topology([found, found], [Link(0, 1, 1)]))
    assert table.sent_bytes.tolist() == [20, 80, 13]
    assert table.returned_bytes.tolist() == [0, 0, 0]


def test_functions_around_sized_steps() -> None:
    def twice(x: Any) -> Any:
        return {"t0": np.repeat(x, 2)}

    def count(x: Any) -> Any:
        return len(x["t2"])

    pipeline: Pipeline = tasks([twice]) + SizedPipeline([64, 1000, 10]) + tasks([count])
    found = profile(pipeline, np.zeros(32, np.uint8), budget_s=0.0)
    assert found.sent_bytes is not None
    assert found.sent_bytes.tolist() == [32, 64, 1000, 13, 0]
    assert pipeline.boundary(1) == Boundary((SizedPipeline([64, 1000, 10]).tensor(0),))
    costs(pipeline, Topology([found, found], [Link(0, 1, 1)]))


def test_models_need_no_measured_bytes() -> None:
    found = measured(TimedPipeline(Clock(), [0.1, 0.1]))
    assert found.sent_bytes is None
    assert found.returned_bytes is None


def test_pins_and_illegal_cuts() -> None:
    pipeline = tasks([task(abs, tier="device"), task(float), task(round, tier="edge")])
    found = profile(pipeline, -3, budget_s=0.0)
    assert found.n == 3
    costs(pipeline, Topology([found, found], [Link(0, 1, 1)]))


def test_a_broken_clock_and_wrong_numbers() -> None:
    pipeline = tasks([abs])
    backwards = iter(range(10**6, 0, -1))
    with pytest.raises(ProfileError, match="clock"):
        profile(pipeline, 1, clock=lambda: float(next(backwards)))
    for wrong in ({"heads": 0}, {"repeats": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            profile(pipeline, 1, **wrong)


def test_a_profile_of_real_seconds() -> None:
    def work(x: Any) -> Any:
        return x @ x

    pipeline = tasks([task(work, name=f"work{i}") for i in range(4)])
    found = profile(pipeline, np.eye(64), budget_s=0.05)
    assert 0 < found.heads_s[1] <= found.whole_s
    assert found.runtime is not None
    assert found.runtime.name == "python"
    assert found.machine


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_pooling_adjacent_violators(values: list[float]) -> None:
    fitted = _never_falling(values)
    assert (np.diff(fitted) >= 0).all()
    assert fitted.sum() == pytest.approx(sum(values), abs=1e-6)
    if sorted(values) == values:
        assert fitted.tolist() == values


def test_payload_bytes() -> None:
    assert payload_bytes(np.zeros((3, 4), np.float64)) == 96
    assert payload_bytes(np.float32(1)) == 4
    assert payload_bytes(b"abc") == payload_bytes(memoryview(b"abc")) == 3
    assert payload_bytes(None) == payload_bytes(True) == 1
    assert payload_bytes("é") == 3
    assert payload_bytes({"a": [1, 2.0], "b": (np.zeros(3, np.int8), {})}) == 2 + 18 + 2 + 3
    assert payload_bytes(object()) > 0
