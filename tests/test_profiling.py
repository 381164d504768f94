from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.cost import costs
from splitiot.edge import EdgeService
from splitiot.errors import Dropped, ProfileError
from splitiot.functions import TaskPipeline, task, tasks
from splitiot.pipeline import DROP, Boundary, Executable, Part, Payload, Pipeline, Runtime
from splitiot.profiling import NOISY, payload_bytes, profile
from splitiot.profiling._curves import Joints, curve, fit_joints, never_falling
from splitiot.profiling._times import Times
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
    assert len({run for run in pipeline.runs if run[0] == 0 and run[1] > 1}) <= 8


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
    st.integers(1, 8),
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


class Moody(TimedPipeline):
    """On a machine whose speed changes."""

    def __init__(self, clock: Clock, seconds: list[float], mood: Callable[[], float], **more: Any) -> None:
        super().__init__(clock, seconds, **more)
        self.mood = mood

    def true_s(self, start: int, stop: int) -> float:
        return super().true_s(start, stop) * self.mood()


def steps(n: int) -> list[float]:
    return np.random.default_rng(n).uniform(0.01, 0.05, n).tolist()


def test_a_quiet_machine_is_measured_once_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = TimedPipeline(Clock(), steps(4), noise=0.02)
    found = measured(pipeline, repeats=15)
    assert pipeline.runs.count((0, 4)) == 1 + 15 * 2
    assert 0 < found.noise < NOISY
    assert not caplog.records


def test_a_noisy_machine_is_measured_again_within_the_budget_and_told(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    pipeline = Moody(Clock(), steps(4), lambda: float(rng.lognormal(0, 0.8)))
    began_s = pipeline.clock.now_s
    found = profile(pipeline, pipeline.sample(), clock=pipeline.clock, budget_s=100.0, repeats=15)
    assert pipeline.runs.count((0, 4)) > 1 + 15 * 2
    assert found.noise > NOISY
    assert pipeline.clock.now_s - began_s < 5 * 11 + 25 + 100 + 10  # cold starts, walks, the budget, one round
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("splitiot", "WARNING")
    assert f"{100 * found.noise:.0f} %" in record.getMessage()


def test_no_budget_to_measure_again() -> None:
    rng = np.random.default_rng(0)
    pipeline = Moody(Clock(), [1.0] * 4, lambda: float(rng.lognormal(0, 0.8)))
    found = profile(pipeline, pipeline.sample(), clock=pipeline.clock, budget_s=0.1)
    assert pipeline.runs.count((0, 4)) == 1 + 3 * 2
    assert found.noise > NOISY


def test_a_bad_moment_passes(caplog: pytest.LogCaptureFixture) -> None:
    """Twice as slow in the second half of the first attempt: the next one is quiet, and counts."""
    pipeline = Moody(Clock(), steps(4), lambda: 2.0 if 1 + 2 * 7 < pipeline.runs.count((0, 4)) < 2 * 15 else 1.0)
    found = measured(pipeline, repeats=15)
    assert pipeline.runs.count((0, 4)) == 1 + 30 * 2
    assert found.noise < NOISY
    assert found.whole_s == pytest.approx(sum(steps(4)), rel=0.01)
    assert not caplog.records


def test_slow_rounds_are_set_right() -> None:
    """Two speeds by chance: the parts' ratios stay, and it is noticed."""
    rng = np.random.default_rng(3)
    rounds: dict[tuple[int, int], list[list[float]]] = {(0, 1): [], (0, 2): [], (1, 2): []}
    for _ in range(15):
        speed = float(rng.choice([1.0, 2.0]))
        for part, seconds in (((0, 1), 1.0), ((0, 2), 3.0), ((1, 2), 2.5)):
            rounds[part].append([seconds * speed])
    times = Times(rounds)
    assert times.seconds((0, 2)) / times.seconds((0, 1)) == pytest.approx(3)
    assert times.startup_s((0, 2)) / times.seconds((0, 2)) == pytest.approx(0.5 / 3)
    assert times.noise > NOISY


def test_interrupted_runs_do_not_count() -> None:
    """Every seventh run of steps of 10 us is interrupted for 5 ms: a visit does not end with that one alone."""

    class Interrupted(TimedPipeline):
        def true_s(self, start: int, stop: int) -> float:
            return super().true_s(start, stop) + (0.005 if len(self.runs) % 7 == 3 else 0.0)

    pipeline = Interrupted(Clock(), [1e-5] * 20)
    found = measured(pipeline)
    assert found.heads_s == pytest.approx(np.arange(21) * 1e-5, rel=1e-6)
    assert found.steps_s == pytest.approx(1e-5)


@given(st.lists(st.floats(0.001, 1), min_size=4, max_size=12), st.data())
def test_a_curve_stays_between_its_neighbours(pieces: list[float], data: st.DataObject) -> None:
    model = np.cumsum(pieces)
    n = len(pieces)
    at = sorted({*data.draw(st.sets(st.integers(1, n))), n})
    seconds = np.sort(data.draw(st.lists(st.floats(0.001, 10), min_size=len(at), max_size=len(at))))
    found = curve(model, dict(zip(at, seconds.tolist(), strict=True)), float(seconds[-1]))
    assert found[[k - 1 for k in at]].tolist() == seconds.tolist()
    assert (np.diff(found) >= 0).all()
    assert found[0] > 0


def test_steps_are_kept() -> None:
    pipeline = TimedPipeline(Clock(), [0.1, 0.2, 0.4, 0.3], startup_s=0.01, refused={2: "because"})
    found = measured(pipeline)
    assert found.steps_s is not None
    assert found.steps_s == pytest.approx([0.11, 0.305, 0.305, 0.31])  # a group shares its seconds
    again = TierProfile.from_dict(found.to_dict())
    assert again.to_dict() == found.to_dict()
    half = found.scaled(0.5).steps_s
    assert half is not None
    assert half == pytest.approx(found.steps_s / 2)


class Copying(TimedPipeline):
    """Parts copy what goes in and out, as networks do: alone, steps cost far more than together."""

    copy_s_per_byte = 1e-5

    def true_s(self, start: int, stop: int) -> float:
        return super().true_s(start, stop) + self.copy_s_per_byte * (self.sizes[start] + self.sizes[stop])

    @property
    def sizes(self) -> list[int]:
        return self._sizes

    @sizes.setter
    def sizes(self, sizes: list[int]) -> None:
        self._sizes = self.nbytes = tuple(sizes)  # type: ignore[assignment]


def test_start_ups_and_copies_at_the_joints_are_known() -> None:
    rng = np.random.default_rng(4)
    pipeline = Copying(Clock(), rng.uniform(0.01, 0.02, 40).tolist(), startup_s=0.01)
    pipeline.sizes = rng.integers(1, 2000, 41).tolist()
    found = measured(pipeline)
    assert np.median(errors(pipeline, found)) < 0.02
    naive = np.cumsum(found.steps_s if found.steps_s is not None else [])
    assert naive[-1] / found.whole_s > 2


@given(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=20),
    st.floats(0.3, 1),
    st.floats(0, 0.004),
    st.data(),
)
def test_joints_are_found(pieces: list[float], factor: float, joint_s: float, data: st.DataObject) -> None:
    n = len(pieces)
    sizes = data.draw(st.lists(st.integers(0, 1000), min_size=n - 1, max_size=n - 1))
    truth = Joints(factor, joint_s, 1e-6)
    heads = truth.heads_s(pieces, sizes)
    tails = truth.heads_s(pieces[::-1], sizes[::-1])
    parts = {(0, k): float(heads[k - 1]) for k in range(1, n + 1)} | {
        (n - k, n): float(tails[k - 1]) for k in range(2, n)
    }
    found = fit_joints(pieces, sizes, parts)
    assert found.heads_s(pieces, sizes)[1:] == pytest.approx(heads[1:], rel=0.02)


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


def pinned_tasks(clock: Clock, pins: str, runs: Counter[int], absent: str = "") -> TaskPipeline:
    """Steps of 1, 2, 4... seconds; "d" and "e" are pinned, those of a tier that is `absent` raise."""

    def step(index: int) -> Callable[[Any], Any]:
        def run(value: int) -> int:
            runs[index] += 1
            if pins[index] == absent:
                raise OSError(f"step {index} is not here")
            clock.now_s += 2.0**index
            return value

        return run

    tiers = {"d": "device", "e": "edge", "-": None}
    return tasks([task(step(i), name=f"step {i}", tier=tiers[pin]) for i, pin in enumerate(pins)])


@pytest.mark.parametrize(
    "pins", ["--", "d-", "-e", "d-e", "d--ee", "dd--e", "d---e", "-d-e-", "e-", "-d", "de", "ddee"]
)
def test_each_tier_measures_what_it_may_run(pins: str) -> None:
    n, seconds = len(pins), [2.0**i for i in range(len(pins))]
    cuts = pinned_tasks(Clock(), pins, Counter()).cuts
    for tier, absent in (("device", "e"), ("edge", "")):
        runs, clock = Counter[int](), Clock()
        pipeline = pinned_tasks(clock, pins, runs, absent)
        found = profile(pipeline, 7, budget_s=0.0, clock=clock, tier=tier)
        mine = found.heads_s if tier == "device" else found.tails_s
        for cut in cuts:
            wanted = sum(seconds[:cut] if tier == "device" else seconds[cut:])
            if wanted:
                assert mine[cut] == pytest.approx(wanted)
        assert found.steps_s is not None
        assert (found.steps_s > 0).all()  # else a factor could never tell what they take
        sent = found.sent_bytes
        assert (sent is None) == (cuts == (n,))
        assert sent is None or {sent[cut] for cut in cuts if cut < n} == {9.0}
        others = [runs[i] for i, pin in enumerate(pins) if pin not in ("-", tier[0])]
        assert max(others, default=0) <= (0 if tier == "device" else 1)
        costs(pipeline, Topology([found, found], [Link(0, 1, 1)]))


class PartialPipeline(TimedPipeline):
    """Has some parts only, as a bundle may."""

    parts: tuple[tuple[int, int], ...] | None = ()

    def part(self, start: int, stop: int) -> Part:
        assert self.parts is not None and (start, stop) in self.parts
        return super().part(start, stop)


def test_the_parts_that_are_here_are_measured() -> None:
    pipeline = PartialPipeline(Clock(), [1.0, 2.0, 4.0, 8.0, 16.0], startup_s=0.5)
    pipeline.parts = ((0, 1), (0, 3), (0, 4), (1, 5), (3, 5))
    found = measured(pipeline)
    for cut in (1, 3, 4):
        assert found.heads_s[cut] == pytest.approx(pipeline.true_s(0, cut))
    for cut in (1, 3):
        assert found.tails_s[cut] == pytest.approx(pipeline.true_s(cut, 5))
    # as if the steps went on like this would be 15.5 * 5 / 4, but no whole is shorter than its tail
    assert found.whole_s == pytest.approx(30.5)
    assert found.heads_s[1] < found.heads_s[2] < found.heads_s[3] and found.tails_s[5] == 0
    assert (found.steps_s, found.startup_s) == (None, 0.0)
    pipeline.parts = (*pipeline.parts, (0, 5))
    whole = measured(pipeline)
    assert whole.whole_s == pytest.approx(31.5) and whole.startup_s == pytest.approx(0.5)
    assert set(pipeline.runs) == set(pipeline.parts)
    pipeline.parts = ((0, 2),)
    assert measured(pipeline).tails_s.tolist() == sorted(measured(pipeline).tails_s, reverse=True)


def test_a_noisy_machine_is_noticed_with_some_parts_too(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = PartialPipeline(Clock(), [1.0, 2.0, 4.0], noise=0.5)
    pipeline.parts = ((0, 2),)
    assert measured(pipeline).noise > NOISY
    assert "this machine is noisy" in caplog.text


def test_an_edge_without_a_camera_can_t_measure() -> None:
    pipeline = pinned_tasks(Clock(), "d-e", Counter(), "d")
    with pytest.raises(ProfileError, match=r"do not run here: OSError\('step 0 is not here'\)"):
        profile(pipeline, 1, tier="edge")
    with EdgeService([pipeline]) as edge, pytest.raises(ProfileError, match="step 0 is not here"):
        edge.measure(1)
    with pytest.raises(OSError, match="step 2"):
        profile(pinned_tasks(Clock(), "d-e", Counter(), "e"), 1)
    with pytest.raises(ValueError, match="moon"):
        profile(pipeline, 1, tier="moon")
    dropping = tasks([task(lambda x: DROP, name="drop", tier="device"), abs])
    with pytest.raises(Dropped, match="give one that passes"):
        profile(dropping, 1, tier="edge")


def test_a_broken_clock_and_wrong_numbers() -> None:
    pipeline = tasks([abs])
    backwards = iter(range(10**6, 0, -1))
    with pytest.raises(ProfileError, match="clock"):
        profile(pipeline, 1, clock=lambda: float(next(backwards)))
    for wrong in ({"heads": 0}, {"repeats": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            profile(pipeline, 1, **wrong)
    with pytest.raises(ValueError, match="at most 8 heads"):
        profile(pipeline, 1, heads=9)


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
    fitted = never_falling(values)
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
