"""The benchmark of policies measures what it says: its worlds, its oracle, and the rules that it compares with."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Any:
    """The three modules of the benchmark, as its own command imports them."""
    sys.path.insert(0, str(FOLDER))
    try:
        return [importlib.import_module(name) for name in ("regimes", "agents", "control")]
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("apart", [False, True])
def test_the_oracle_pays_the_least_of_all_who_do_not_know_the_noise(bench: Any, apart: bool) -> None:
    regimes, _, _ = bench
    world = regimes.World("resnet50", "edge", 3, regimes.Scenario(requests=1200, every=100, apart=apart))
    cuts, paid = world.oracle
    noiseless = np.ones_like(world.noise)
    world.noise = noiseless
    for number in range(0, 1200, 37):
        every = [sum(world.seconds(number, cut)) for cut in range(world.n + 1)]
        assert cuts[number] == int(np.argmin(every))
    assert len(paid) == 1200
    assert len(set(cuts.tolist())) > 1
    moments = [np.flatnonzero(np.diff(world.regime[:, i])) for i in range(3)]
    together = all(np.array_equal(moments[0], other) for other in moments[1:])
    assert together != apart


def test_the_oracle_pays_the_same_noise(bench: Any) -> None:
    regimes, _, _ = bench
    world = regimes.World("vgg16", "cloud", 1, regimes.Scenario(requests=400))
    cuts, paid = world.oracle
    assert paid[17] == pytest.approx(sum(world.seconds(17, int(cuts[17]))))
    assert world.noise.std() > 0.04
    assert 0.5 < (world.noise > 1.5).any(axis=1).sum() / (0.02 * 400) < 2.0


def test_parts_are_sums_of_their_steps(bench: Any) -> None:
    regimes, _, _ = bench
    world = regimes.World("mobilenet", "edge", 0, regimes.Scenario(requests=800))
    for number, cut in ((0, 0), (399, 40), (400, world.n), (799, 91)):
        head, tail = world.steps(number, cut)
        device_s, server_s, network_s = world.seconds(number, cut)
        assert sum(head) == pytest.approx(device_s)
        assert sum(tail) == pytest.approx(server_s)
        assert (network_s == 0.0) == (cut == world.n)


def test_sciots_rule_is_the_loop(bench: Any) -> None:
    """Against all sums by brute force; all on the edge is not among its candidates."""
    regimes, agents, _ = bench
    world = regimes.World("xception", "edge", 0, regimes.Scenario(requests=100))
    plain, added = agents.SciotRule(world, local=0.0), agents.SciotRule(world, local=0.0, all_edge=True)
    chance = np.random.default_rng(0)
    for number in range(60):
        for agent in (plain, added):
            agent.device = chance.lognormal(-3, 1, world.n).tolist()
            agent.edge = chance.lognormal(-5, 1, world.n).tolist()
            agent.speed = float(chance.lognormal(13, 2))
            sums = {
                cut: sum(agent.device[:cut]) + agent.sizes[cut] / agent.speed + sum(agent.edge[cut:])
                for cut in range(0 if agent is added else 1, world.n + 1)
            }
            assert agent.choose(0.0) == min(sums, key=lambda cut: (sums[cut], -cut))
            agent.learn(number, 5, world.seconds(number, 5), 0.0)
            assert agent.speed == pytest.approx(world.sent[5] / world.seconds(number, 5)[2])


def test_a_short_run_is_told_right(bench: Any) -> None:
    """The default is near the oracle, SCIoT's rule far from it, and the figures add up."""
    regimes, _, control = bench
    scenario = regimes.Scenario(requests=1200, every=200)
    runs = [control.run((name, "resnet101", "edge", 1, scenario)) for name in ("splitiot's default", "SCIoT's rule")]
    ours, theirs = (one.seconds / one.oracle_s for one in runs)
    assert 1.0 <= ours < 1.1 < theirs
    assert runs[0] == control.run(("splitiot's default", "resnet101", "edge", 1, scenario))
    text = "\n".join(control.table(runs, ["splitiot's default", "SCIoT's rule"], "title"))
    assert f"{ours:.3f}" in text
    assert f"{theirs:.3f}" in text
    assert len(control.targets(runs)) == 3


def test_what_is_held_out_shares_nothing_and_does_not_depend_on_the_number_of_seeds(bench: Any) -> None:
    regimes, _, _ = bench
    assert set(regimes.networks()) > regimes.TUNING
    others = set(regimes.networks()) - regimes.TUNING
    assert len(others) == len(regimes.TUNING) == 9
    for count in (1, 12, 100):
        tuned, rest = ({s for name in side for s in regimes.seeds_of(name, count)} for side in (regimes.TUNING, others))
        assert len(tuned) == len(rest) == count
        assert not tuned & rest
        assert set(regimes.seeds_of("vgg16", 1)) <= rest


def test_families_of_networks_are_on_one_side(bench: Any) -> None:
    regimes, _, _ = bench
    families = ("vgg", "resnet", "inception", "mobilenet", "densenet", "nasnet")
    for family in families:
        own = {name in regimes.TUNING for name in regimes.networks() if name.startswith(family)}
        assert len(own) == 1, family
    known = [name for name in regimes.networks() if name.startswith(families)]
    assert set(regimes.networks()) - set(known) == {"xception"}  # which is an Inception
    assert ("xception" in regimes.TUNING) == ("inception_v3" in regimes.TUNING)


def test_what_is_believed_of_the_link_at_first_is_wrong(bench: Any) -> None:
    regimes, _, _ = bench
    worlds = [regimes.World("vgg16", "edge", seed, regimes.Scenario(requests=10)) for seed in range(50)]
    rates, rtts = np.array([(w.topology.links[0].up_bytes_per_s, w.topology.links[0].rtt_s) for w in worlds]).T
    for values, middle in ((rates, 5 * 125e3), (rtts, 0.02)):
        assert 1 / 4 <= min(values) / middle < 1 / 2 < 2 < max(values) / middle <= 4
    assert worlds[3].topology.links == regimes.World("vgg16", "edge", 3, regimes.Scenario(requests=10)).topology.links


def test_a_picture_comes_out(bench: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib (the extra 'plot') is not installed")
    regimes, _, control = bench
    runs = [
        control.run(("LeastLatency", name, server, 0, regimes.Scenario(requests=50)))
        for name in ("vgg16", "vgg19")
        for server in ("edge", "cloud")
    ]
    control.plot(runs, ["LeastLatency"], tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


# devices that meet an edge for the first time


@pytest.fixture(scope="module")
def first(bench: Any) -> Any:
    """The module of these worlds, which the benchmark has imported."""
    return sys.modules["first_contact"]


def scenes_of(first: Any, *words: str) -> list[Any]:
    return [scene for scene in first.scenes() if all(word in scene.name for word in words)]


@pytest.mark.parametrize("place", ["large input, fast LAN", "camera, Wi-Fi", "camera, LTE", "sensor, fast LAN"])
@pytest.mark.parametrize("seed", [0, 5])
def test_after_fifty_requests_the_default_is_near_the_oracle(first: Any, place: str, seed: int) -> None:
    """On a fast LAN it took 5 to 12 times as long, where requests of 2 kB had told a bandwidth of 1.5 to 4 MB/s."""
    scenes = scenes_of(first, place)
    assert len(scenes) == 12
    for scene in scenes:
        assert first.ratio(scene, seed) <= first.WORST, scene.name


def test_without_what_is_unsure_it_is_not(first: Any) -> None:
    """Who only takes what is believed to be best stays where a guess or the first moment put it."""
    import splitiot as si

    scenes = scenes_of(first, "sensor", "back to back", "edge not measured")
    assert max(first.ratio(scene, seed, si.LeastLatency()) for scene in scenes for seed in (0, 1)) > 2


def test_the_oracle_of_a_first_contact_pays_the_least(first: Any) -> None:
    (scene,) = scenes_of(first, "camera, LTE, back to back, edge measured, slow first requests")
    meeting = first.Meeting(scene, 3)
    meeting.noise[:] = 1.0
    for number in (0, 7, 60, 499):
        every = [sum(meeting.seconds(number, cut)) for cut in range(meeting.n + 1)]
        assert meeting.expected(number).tolist() == pytest.approx(every)
        assert meeting.oracle_s[number] == pytest.approx(min(every))
    assert meeting.oracle_s[0] > 1.1 * meeting.oracle_s[499]


def test_the_table_of_first_contacts_says_what_was_missed(first: Any) -> None:
    good, bad = first.scenes()[:2]
    lines = first.table([(good, 1.0), (good, 1.1), (bad, 1.0), (bad, 1.25)])
    assert lines[-1].startswith(f"MISSED: {bad.name}: median 1.125, worst 1.250")
    assert first.table([(good, 1.0)])[-1].startswith("met: in each of 1 worlds")
