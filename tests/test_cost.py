from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.cost import Costs, Power, costs
from splitiot.errors import CutError, Infeasible, ProfileError
from splitiot.functions import task, tasks
from splitiot.pipeline import Tier
from splitiot.topology import Link, TierProfile, Topology
from tests.pipelines import SizedPipeline

FOMO = json.loads((Path(__file__).parent / "data" / "fomo_esp32s3.json").read_text())


def fomo(mbit_per_s: float, **options: object) -> tuple[SizedPipeline, Topology]:
    pipeline = SizedPipeline(FOMO["boundary_bytes"], returned_nbytes=0, **options)  # type: ignore[arg-type]
    tiers = [TierProfile.from_steps(pipeline.digest, FOMO[name]) for name in ("device_s", "edge_s")]
    return pipeline, Topology(tiers=tiers, links=[Link.from_mbit_per_s(mbit_per_s, rtt_s=0.01)])


@pytest.mark.parametrize(
    ("mbit_per_s", "cut", "latency_ms"),
    [(0.01, 59, 5089.8), (0.05, 0, 2977.1), (0.1, 0, 1502.5), (1, 0, 175.4), (20, 0, 35.3)],
)
def test_fomo_on_an_esp32s3(mbit_per_s: float, cut: int, latency_ms: float) -> None:
    table = costs(*fomo(mbit_per_s))
    row = table.best()
    assert table.cuts[row] == cut
    assert round(table.latency_s[row] * 1e3, 1) == latency_ms


@pytest.mark.parametrize(("mbit_per_s", "cut", "latency_ms"), [(0.05, 34, 5252.7), (0.1, 16, 4229.7), (1, 1, 1854.1)])
def test_fomo_when_the_raw_input_must_not_leave(mbit_per_s: float, cut: int, latency_ms: float) -> None:
    # these figures count the result's bytes at cut 59 too: it is wanted on the edge
    table = costs(*fomo(mbit_per_s, pins={0: Tier.DEVICE}, sink="edge"))
    row = table.best()
    assert table.cuts[row] == cut
    assert round(table.latency_s[row] * 1e3, 1) == latency_ms
    assert table.cuts[0] == 1


def test_fomo_raw_input_kept_and_result_wanted_on_the_device() -> None:
    table = costs(*fomo(0.05, pins={0: Tier.DEVICE}))
    assert table.cuts[table.best()] == 59


@pytest.mark.parametrize("sink", ["device", "edge"])
def test_only_strict_running_minima_of_bytes_can_win(sink: str) -> None:
    # true where the device is no faster than the edge at any step
    pipeline, topology = fomo(1, pins={0: Tier.DEVICE}, sink=sink)
    table = costs(pipeline, topology)
    winners = set()
    for mbit_per_s in np.geomspace(1e-4, 1e4, 4000):
        link = Link.from_mbit_per_s(mbit_per_s, rtt_s=0.01)
        winners.add(int(table.cuts[table.at(link=link).best()]))
    assert winners <= {1, 7, 16, 34, 58, 59}
    free = costs(*fomo(1, sink=sink))
    winners = {
        int(free.cuts[free.at(link=Link.from_mbit_per_s(m, rtt_s=0.01)).best()]) for m in np.geomspace(1e-4, 1e4, 4000)
    }
    assert winners <= {0, 34, 58, 59}
    assert {0, 59} <= winners or sink == "edge"


def test_exchange_terms_are_exact() -> None:
    pipeline = SizedPipeline([1000, 4000, 250])
    device = TierProfile.from_steps(pipeline.digest, [0.25, 0.5])
    edge = TierProfile.from_steps(pipeline.digest, [0.0625, 0.125])
    link = Link(rtt_s=0.5, up_bytes_per_s=1000, down_bytes_per_s=500)
    table = costs(pipeline, Topology(tiers=[device, edge], links=[link]), wait_s=0.25)
    assert table.sent_bytes.tolist() == [1000, 4000, 0]
    assert table.returned_bytes.tolist() == [250, 250, 0]
    assert table.exchanges.tolist() == [True, True, False]
    assert table.latency_s.tolist() == [
        1 + 0.1875 + 0.5 + 0.5 + 0.25,
        0.25 + 4 + 0.125 + 0.5 + 0.5 + 0.25,
        0.75,
    ]
    assert table.period_s.tolist() == [1.0, 4.0, 0.75]
    assert np.isnan(table.energy_j).all()
    assert table.sent_bytes.flags.writeable is False


def test_sink_edge_sends_the_result_of_a_local_run() -> None:
    pipeline = SizedPipeline([1000, 4000, 250], sink="edge")
    profile = TierProfile.from_steps(pipeline.digest, [0.25, 0.5])
    table = costs(pipeline, Topology([profile, profile], [Link(0.5, 1000, 500)]))
    assert table.sent_bytes.tolist() == [1000, 4000, 250]
    assert table.returned_bytes.tolist() == [0, 0, 0]
    assert table.exchanges.all()
    assert table.latency_s[2] == 0.75 + 0.25 + 0.5


def test_energy() -> None:
    pipeline = SizedPipeline([1000, 4000, 250])
    profile = TierProfile.from_steps(pipeline.digest, [0.25, 0.5])
    topology = Topology([profile, profile], [Link(0.5, 1000, 500)])
    table = costs(pipeline, topology, power=Power(busy_w=2, send_w=3, receive_w=5, idle_w=7))
    assert table.energy_j.tolist() == pytest.approx(
        [3 * 1 + 5 * 0.5 + 7 * (0.5 + 0.75), 2 * 0.25 + 3 * 4 + 5 * 0.5 + 7 * (0.5 + 0.5), 1.5]
    )
    assert table.best("energy_j") == 2
    with pytest.raises(ValueError, match="watts"):
        costs(pipeline, topology).values("energy_j")
    with pytest.raises(ValueError, match="watts"):
        Power(busy_w=math.nan)


def chains() -> st.SearchStrategy[tuple[SizedPipeline, Topology, tuple[float, float]]]:
    @st.composite
    def make(draw: st.DrawFn) -> tuple[SizedPipeline, Topology, tuple[float, float]]:
        n = draw(st.integers(1, 12))
        sizes = draw(st.lists(st.integers(0, 10**6), min_size=n + 1, max_size=n + 1))
        refused = draw(st.dictionaries(st.integers(0, n), st.just("because"), max_size=n))
        pins = {}
        if draw(st.booleans()):
            pins[0] = Tier.DEVICE
        if n > 1 and draw(st.booleans()):
            pins[n - 1] = Tier.EDGE
        pipeline = SizedPipeline(
            sizes,
            sink=draw(st.sampled_from(["device", "edge"])),
            refused=refused,
            pins=pins,
            returned_nbytes=draw(st.none() | st.integers(0, 10**5)),
        )
        seconds = st.lists(st.floats(0, 10), min_size=n, max_size=n)
        tiers = [TierProfile.from_steps(pipeline.digest, draw(seconds)) for _ in range(2)]
        rate = st.floats(1, 1e9) | st.just(math.inf)
        link = Link(draw(st.floats(0, 5)), draw(rate), draw(rate))
        factors = draw(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)))
        return pipeline, Topology(tiers, [link]), factors

    return make()


def slow_latency(p: SizedPipeline, topology: Topology, factors: tuple[float, float], cut: int) -> float:
    """The same, written as one would on paper, step by step."""
    device, edge = topology.tiers
    link = topology.links[0]
    seconds = 0.0
    for step in range(p.n):
        tier, factor = (device, factors[0]) if step < cut else (edge, factors[1])
        seconds += (tier.heads_s[step + 1] - tier.heads_s[step]) * factor
    if cut < p.n:
        seconds += link.rtt_s + p.nbytes[cut] / link.up_bytes_per_s
        if p.sink == "device":
            back = p.nbytes[p.n] if p.returned_nbytes is None else p.returned_nbytes
            seconds += back / link.down_bytes_per_s
    elif p.sink == "edge":
        seconds += link.rtt_s + p.nbytes[cut] / link.up_bytes_per_s
    return float(seconds)


@given(chains())
def test_every_row_equals_the_slow_formula(
    drawn: tuple[SizedPipeline, Topology, tuple[float, float]],
) -> None:
    pipeline, topology, factors = drawn
    legal = [cut for cut in range(pipeline.n + 1) if cut not in pipeline.refused]
    if not legal:
        with pytest.raises(Infeasible, match="no legal cut"):
            costs(pipeline, topology)
        return
    table = costs(pipeline, topology, factors=factors)
    slow = [slow_latency(pipeline, topology, factors, cut) for cut in legal]
    assert table.cuts.tolist() == legal
    assert table.latency_s.tolist() == pytest.approx(slow, rel=1e-9, abs=1e-9)
    best = table.best()
    assert table.latency_s[best] == pytest.approx(min(slow), rel=1e-9, abs=1e-9)
    # of equal rows the most local one
    assert best == max(np.flatnonzero(table.latency_s == table.latency_s[best]))
    for row, cut in enumerate(legal):
        lanes = [table.device_s[row], table.up_s[row], table.edge_s[row], table.down_s[row]]
        assert table.period_s[row] == max(lanes)
        assert table.at_cut(cut) == row


@given(chains(), st.data())
def test_a_mask_hides_rows_and_renumbers_none(
    drawn: tuple[SizedPipeline, Topology, tuple[float, float]], data: st.DataObject
) -> None:
    pipeline, topology, _ = drawn
    if not pipeline.cuts:
        return
    table = costs(pipeline, topology)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table))))
    masked = table.masked(mask)
    assert masked.latency_s.tolist() == table.latency_s.tolist()
    if not mask.any():
        with pytest.raises(Infeasible):
            masked.best()
        return
    best = masked.best()
    assert mask[best]
    assert table.latency_s[best] == table.latency_s[mask].min()
    assert masked.mask.flags.writeable is False


def simple() -> Costs:
    pipeline = SizedPipeline([100, 100, 100, 0], refused={2: "step 2 keeps state with step 1"})
    profile = TierProfile.from_steps(pipeline.digest, [0.5, 0.25, 0.125])
    return costs(pipeline, Topology([profile, profile.scaled(0.5)], [Link(0.01, 1e3, 1e3)]))


def test_other_beliefs_make_other_values_of_the_same_rows() -> None:
    table = simple()
    before = table.latency_s.tolist()
    other = table.at(factors=(2, 4), link=Link(0.02, 100, 100), wait_s=0.5)
    assert other.device_s.tolist() == (2 * table.device_s).tolist()
    assert other.edge_s.tolist() == (4 * table.edge_s).tolist()
    assert other.up_s.tolist() == [1, 1, 0]
    assert other.wait_s.tolist() == [0.5, 0.5, 0]
    assert table.latency_s.tolist() == before
    assert other.placements is table.placements
    for wrong in ({"factors": (0, 1)}, {"factors": (1, math.nan)}, {"wait_s": -1}, {"wait_s": math.inf}):
        with pytest.raises(ValueError, match="must be"):
            table.at(**wrong)  # type: ignore[arg-type]


def test_illegal_cuts_have_no_row_and_a_reason() -> None:
    table = simple()
    assert table.row_of(2) is None
    with pytest.raises(CutError, match="keeps state with step 1"):
        table.at_cut(2)
    with pytest.raises(CutError, match="not in"):
        table.at_cut(4)


def test_parts_that_the_device_lacks_are_masked() -> None:
    pipeline = SizedPipeline([100, 100, 100, 0])
    profile = TierProfile.from_steps(pipeline.digest, [0.5, 0.25, 0.125])
    topology = Topology([profile, profile], [Link(0.01, 1e3, 1e3)])
    table = costs(pipeline, topology, parts=[(0, 2), (1, 3)])
    assert table.cuts.tolist() == [0, 1, 2, 3]
    assert table.mask.tolist() == [True, False, True, False]


def test_callables_as_objectives() -> None:
    table = simple()
    assert table.cuts[table.best(lambda c: -c.device_s)] == 3
    assert table.cuts[table.best(lambda c: np.where(c.cuts == 1, 1.0, np.nan))] == 1
    with pytest.raises(Infeasible, match="finite on none"):
        table.best(lambda c: np.full(3, math.nan))
    with pytest.raises(ValueError, match="shape"):
        table.best(lambda c: np.zeros(2))
    with pytest.raises(ValueError, match="no objective"):
        table.best("speed")  # type: ignore[arg-type]


def test_bytes_that_only_a_run_can_tell() -> None:
    pipeline = tasks([abs, float])
    bare = TierProfile.from_steps(pipeline.digest, [0.5, 0.5])
    link = Link(0.01, 1e3, 1e3)
    with pytest.raises(ProfileError, match=r"profile\(pipeline, sample\)"):
        costs(pipeline, Topology([bare, bare], [link]))
    sizes = {"sent_bytes": [10, 20, 30], "returned_bytes": [5, 5, 5]}
    full = TierProfile.from_steps(pipeline.digest, [0.5, 0.5], **sizes)
    for tiers in ([full, bare], [bare, full]):
        table = costs(pipeline, Topology(tiers, [link]))
        assert table.sent_bytes.tolist() == [10, 20, 0]
        assert table.returned_bytes.tolist() == [5, 5, 0]


def test_profiles_of_another_pipeline_are_refused() -> None:
    pipeline = SizedPipeline([100, 100])
    other = TierProfile.from_steps("another", [0.5])
    with pytest.raises(ProfileError, match="profile this one"):
        costs(pipeline, Topology([other, other], [Link(0.01, 1e3, 1e3)]))
    mine = TierProfile.from_steps(pipeline.digest, [0.5])
    with pytest.raises(ValueError, match="two tiers"):
        costs(pipeline, Topology([mine, mine, mine], [Link(0.01, 1e3, 1e3)] * 2))


def test_bytes_that_one_tier_could_not_measure_are_the_other_one_s() -> None:
    pipeline = tasks([task(abs, tier="device"), float, task(round, tier="edge")])
    device = TierProfile.from_steps(pipeline.digest, [1, 1, 1], sent_bytes=[0, 9, 18, 0], returned_bytes=[0, 0, 0, 0])
    edge = TierProfile.from_steps(pipeline.digest, [1, 1, 1], sent_bytes=[0, 8, 8, 0], returned_bytes=[0, 5, 5, 0])
    found = costs(pipeline, Topology([device, edge], [Link(0, 1, 1)]))
    assert found.cuts.tolist() == [1, 2]
    assert found.sent_bytes.tolist() == [9, 18]
    assert found.returned_bytes.tolist() == [5, 5]
    assert costs(pipeline, Topology([device, device], [Link(0, 1, 1)])).returned_bytes.tolist() == [0, 0]
