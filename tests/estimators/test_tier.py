from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from attrs import evolve

from splitiot.estimators import JointEstimator, TierEstimator, WaitEstimator
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import Tier
from splitiot.topology import Link, TierProfile

PROFILE = TierProfile.from_steps("ab", [0.1, 0.2, 0.3, 0.4])


def device() -> TierEstimator:
    return TierEstimator(PROFILE, Tier.DEVICE)


def head(cut: int, factor: float) -> Observation:
    return Observation(plan_id=1, cut=cut, head_s=float(PROFILE.heads_s[cut]) * factor)


def test_each_tier_takes_its_own_seconds() -> None:
    seen = Observation(plan_id=1, cut=1, head_s=0.12, tail_s=0.9 * 1.3, local_s=None)
    d, e = device(), TierEstimator(PROFILE, Tier.EDGE)
    d.update(seen, 0.0)
    e.update(seen, 0.0)
    assert (d.get(), e.get()) == (pytest.approx(1.2), pytest.approx(1.3))
    local = device()
    local.update(Observation(plan_id=1, cut=1, local_s=0.9 * 1.4), 0.0)
    assert local.get() == pytest.approx(1.4)
    times = TierEstimator(PROFILE, Tier.EDGE)
    times.update(Observation(plan_id=1, cut=1, edge=EdgeTimes(compute_s=0.9 * 0.8)), 0.0)
    assert times.get() == pytest.approx(0.8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5, 40.0])
def test_it_converges_under_noise_at_whatever_cut(factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    estimator, late = device(), []
    for i in range(200):
        estimator.update(head(int(rng.integers(0, 5)), factor * float(rng.lognormal(0, 0.1))), float(i))
        if i > 20:
            late.append(estimator.get() / factor)
    assert np.median(late) == pytest.approx(1, abs=0.05)
    assert max(late) < 1.3
    assert min(late) > 0.75
    assert estimator.spread == pytest.approx(0.1, rel=0.8)


@pytest.mark.parametrize("seed", range(10))
def test_spikes_of_single_runs_hardly_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    estimator, worst = device(), 0.0
    for i in range(500):
        spike = float(rng.uniform(2, 6)) if rng.random() < 0.02 else 1.0
        estimator.update(head(2, spike * float(rng.lognormal(0, 0.05))), float(i))
        worst = max(worst, abs(math.log(estimator.get())))
    # two spikes in a row (4 in 10,000) may be believed, for a while
    assert abs(math.log(estimator.get())) < 0.2
    assert worst < math.log(6)


def test_a_real_change_is_followed_after_two_runs() -> None:
    estimator = device()
    for i in range(20):
        estimator.update(head(3, 1.0), float(i))
    estimator.update(head(3, 4.0), 20.0)
    assert estimator.get() == pytest.approx(1.0)
    estimator.update(head(3, 4.4), 21.0)
    assert estimator.get() == pytest.approx(4.0)
    estimator.update(head(3, 1.0), 22.0)
    estimator.update(head(3, 1.1), 23.0)
    assert estimator.get() == pytest.approx(1.1)


def test_far_off_on_both_sides_in_turn_confirms_nothing() -> None:
    estimator = device()
    for i in range(10):
        estimator.update(head(3, 5.0 if i % 2 else 0.2), float(i))
    assert estimator.get() == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0, 1e12, 1e-12])
def test_impossible_numbers_are_refused(bad: float) -> None:
    estimator = device()
    estimator.update(Observation(plan_id=1, cut=2, head_s=bad), 0.0)
    estimator.update(Observation(plan_id=1, cut=2, head_s=bad), 0.0)
    assert (estimator.get(), estimator.samples, estimator.refused) == (1.0, 0, 2)


def test_what_says_nothing_is_no_error() -> None:
    estimator = device()
    estimator.update(Observation(plan_id=1, cut=0, head_s=0.0), 0.0)  # an empty head
    estimator.update(Observation(plan_id=1, cut=4, local_s=1e-6), 0.0)  # an empty tail
    estimator.update(Observation(plan_id=1, cut=2), 0.0)
    estimator.update(Observation(plan_id=1, cut=99, head_s=1.0, probe=True), 0.0)
    assert (estimator.samples, estimator.refused) == (0, 0)
    for cut in (-1, 5):
        estimator.update(Observation(plan_id=1, cut=cut, head_s=0.1), 0.0)
    assert (estimator.samples, estimator.refused) == (0, 2)


def test_belief_and_profile() -> None:
    estimator = TierEstimator(TierProfile.from_steps("ab", [1.0], spread=0.3), Tier.DEVICE)
    assert estimator.belief(5.0).age_s == math.inf
    estimator.update(Observation(plan_id=1, cut=1, head_s=1.2), 3.0)
    belief = estimator.belief(5.0)
    assert (belief.age_s, belief.samples, belief.spread) == (2.0, 1, 0.3)
    assert estimator.belief(1.0).age_s == math.inf  # another clock
    estimator.set_profile(PROFILE)
    assert (estimator.get(), estimator.samples) == (1.0, 0)


def test_state_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(0)
    one, two = device(), device()
    for i in range(30):
        one.update(head(3, float(rng.lognormal(0, 0.5))), float(i))
    two.restore(json.loads(json.dumps(one.snapshot(), allow_nan=False)))
    for i in range(30, 60):
        seen = head(3, float(rng.lognormal(0, 0.5)))
        one.update(seen, float(i))
        two.update(seen, float(i))
    assert two.snapshot() == one.snapshot()
    assert two.belief(60.0) == one.belief(60.0)


def waiting(seconds: float) -> Observation:
    return Observation(plan_id=1, cut=0, edge=EdgeTimes(compute_s=0.1, residence_s=0.1 + seconds))


def test_waits() -> None:
    wait = WaitEstimator(half_life_s=10)
    wait.update(waiting(2.0), 0.0)
    assert wait.get(0.0) == 0.0  # one cold start
    for i in range(2):
        wait.update(waiting(0.2), float(i))
    assert wait.get(1.0) == pytest.approx(0.2, rel=0.1)
    assert wait.get(11.0) == pytest.approx(wait.get(1.0) / 2)
    # what has faded stays faded when news come
    wait.update(waiting(0.0), 101.0)
    assert wait.get(101.0) < 0.001
    wait.update(waiting(-0.05), 102.0)
    wait.update(waiting(math.nan), 102.0)
    assert wait.refused == 2
    again = WaitEstimator(half_life_s=10)
    again.restore(json.loads(json.dumps(wait.snapshot())))
    assert again.belief(105.0) == wait.belief(105.0)
    assert again.get(0.0) == 0.0  # the clock of another boot


def test_what_a_request_waits_for_others_of_its_device_is_no_wait() -> None:
    """Else every cut would seem as slow as one whose tail keeps the edge busy."""
    wait = WaitEstimator()
    for _ in range(5):
        wait.update(msgspec.structs.replace(waiting(0.3), held_s=0.25), 0.0)
    assert wait.get(0.0) == pytest.approx(0.05)


# steps that are timed one by one


def timed(start: int, stop: int, steps: list[float], **more: object) -> Observation:
    """What a part took, with each of its steps."""
    if start == 0:
        return Observation(plan_id=1, cut=stop, head_s=sum(steps), head_steps_s=tuple(steps), **more)  # type: ignore[arg-type]
    return Observation(plan_id=1, cut=start, local_s=sum(steps), local_steps_s=tuple(steps), **more)  # type: ignore[arg-type]


TRUE = [0.15, 0.1, 0.6, 0.3]  # factors 1.5, 0.5, 2, 0.75 of the profile


def test_steps_refine_the_profile_wherever_they_ran() -> None:
    estimator = device()
    for i in range(12):
        cut = (4, 2, 3)[i % 3]
        estimator.update(timed(0, cut, TRUE[:cut]), float(i))
    got = estimator.heads_s * estimator.get()
    assert got == pytest.approx([0, *np.cumsum(TRUE)], rel=0.05)
    assert estimator.tails_s * estimator.get() == pytest.approx([*np.cumsum(TRUE[::-1])[::-1], 0], rel=0.05)
    plain = device()
    for i in range(12):
        plain.update(timed(0, (4, 2, 3)[i % 3], TRUE[: (4, 2, 3)[i % 3]]), float(i))
    before = estimator.heads_s
    estimator.update(Observation(plan_id=1, cut=4, head_s=sum(TRUE)), 20.0)  # not step by step: only the factor
    assert estimator.heads_s is before


def test_a_slow_down_of_all_is_the_factor_and_not_the_steps() -> None:
    estimator = device()
    for i in range(10):
        estimator.update(timed(0, 4, TRUE), float(i))
    shares = estimator.heads_s / estimator.heads_s[-1]
    for i in range(10):
        estimator.update(timed(0, 4, [3 * s for s in TRUE]), 10.0 + i)
    assert estimator.heads_s / estimator.heads_s[-1] == pytest.approx(shares)
    assert (estimator.heads_s * estimator.get())[-1] == pytest.approx(3 * sum(TRUE), rel=0.02)


def test_a_spike_of_one_run_does_not_refine() -> None:
    estimator = device()
    for i in range(10):
        estimator.update(timed(0, 4, TRUE), float(i))
    before = estimator.heads_s.tolist()
    estimator.update(timed(0, 4, [0.15, 0.1, 9.0, 0.3]), 11.0)
    assert estimator.heads_s.tolist() == before


@pytest.mark.parametrize("steps", [(0.1,), (0.1, math.nan, 0.3, 0.4), (0.1, -1.0, 0.3, 0.4), (0.1, 0.0, 0.3, 0.4)])
def test_impossible_steps_are_refused_and_the_whole_is_taken(steps: tuple[float, ...]) -> None:
    estimator = device()
    estimator.update(Observation(plan_id=1, cut=4, head_s=1.2, head_steps_s=steps), 0.0)
    assert (estimator.refused, estimator.samples) == (1, 1)
    assert estimator.heads_s is PROFILE.heads_s


def test_the_edges_steps() -> None:
    edge = TierEstimator(PROFILE, Tier.EDGE)
    for i in range(5):
        edge.update(Observation(plan_id=i, cut=2, edge=EdgeTimes(compute_s=0.9, steps_s=(0.6, 0.3))), float(i))
    assert (edge.tails_s * edge.get())[2:] == pytest.approx([0.9, 0.3, 0.0])


def test_steps_that_the_profile_takes_for_nothing() -> None:
    estimator = TierEstimator(TierProfile.from_steps("ab", [0.1, 0.0, 0.3]), Tier.DEVICE)
    for i in range(5):
        estimator.update(Observation(plan_id=i, cut=3, head_s=0.5, head_steps_s=(0.1, 0.1, 0.3)), float(i))
    assert np.isfinite(estimator.heads_s).all()


def test_curves_stay_curves() -> None:
    """Tails hold start-ups and copies that no step has: what is taken off them never makes them negative."""
    profile = TierProfile("ab", [0, 0.1, 0.2], [0.05, 0.01, 0.0])
    estimator = TierEstimator(profile, Tier.DEVICE)
    for i in range(20):
        estimator.update(Observation(plan_id=i, cut=2, head_s=0.2, head_steps_s=(0.01, 0.19)), float(i))
    for curve in (estimator.heads_s, estimator.tails_s[::-1]):
        assert (curve >= 0).all()
        assert (np.diff(curve) >= 0).all()


def test_refined_state_goes_on_where_it_was() -> None:
    one, other = device(), device()
    for i in range(7):
        one.update(timed(0, 3, TRUE[:3]), float(i))
    other.restore(json.loads(json.dumps(one.snapshot())))
    assert other.heads_s.tolist() == one.heads_s.tolist()
    for estimator in (one, other):
        estimator.update(timed(2, 4, TRUE[2:]), 9.0)
    assert other.snapshot() == one.snapshot()
    assert other.tails_s.tolist() == one.tails_s.tolist()


def test_another_profile_forgets_the_steps() -> None:
    estimator = device()
    estimator.update(timed(0, 4, TRUE), 0.0)
    estimator.set_profile(PROFILE.scaled(2))
    assert estimator.heads_s.tolist() == PROFILE.scaled(2).heads_s.tolist()


def test_a_belief_has_its_drifts_and_its_baseline() -> None:
    estimator = device()
    for i in range(20):
        estimator.update(head(3, 1.0), float(i))
    estimator.update(head(3, 3.0), 20.0)
    assert estimator.belief(20.0).awaiting_confirmation
    assert not estimator.drift_detected
    estimator.update(head(3, 3.0), 21.0)
    belief = estimator.belief(21.0)
    assert estimator.drift_detected
    assert (belief.drifts, belief.samples, belief.awaiting_confirmation) == (1, 2, False)
    assert belief.value == pytest.approx(3.0, rel=0.05)
    assert belief.baseline == pytest.approx(1.0, rel=0.05)


def test_absurd_steps_are_no_warning() -> None:
    estimator = device()
    for i in range(3):
        seen = Observation(plan_id=i, cut=2, head_s=0.3, head_steps_s=(1.7e308, 0.2))
        estimator.update(seen, float(i))
    assert np.isfinite(estimator.heads_s).all()


def test_what_it_hands_out_can_not_be_changed() -> None:
    estimator = device()
    for i in range(3):
        estimator.update(Observation(plan_id=i, cut=2, head_s=0.4, head_steps_s=(0.1, 0.3)), float(i))
    joint = JointEstimator((PROFILE, PROFILE), Link(0.01, 1e6, 1e6))
    for array in (estimator.heads_s, estimator.tails_s, joint.vector(0.0), *joint.curves):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0


def test_after_a_drift_the_steps_are_learnt_as_quickly_as_at_first() -> None:
    """What 40 runs said of the steps before counts no more than the first run behind it."""

    def learnt(runs: int) -> list[float]:
        estimator = device()
        for i in range(40):
            estimator.update(timed(0, 4, [0.1, 0.2, 0.3, 0.4]), float(i))
        slow = [s * 3 for s in TRUE]
        for i in range(runs):
            estimator.update(timed(0, 4, slow), 40.0 + i)
        return [float(h) for h in estimator.heads_s * estimator.get() / np.cumsum([0, *slow]).clip(1e-9)]

    # the first is only a surprise; the second makes half of the way in logarithms, the third two thirds, ...
    shares = learnt(5)[1:]
    assert max(abs(np.log(shares))) < 0.5 * max(abs(np.log(learnt(2)[1:])))


def test_steps_that_the_profile_takes_for_nothing_are_learnt_and_the_factor_stays() -> None:
    """Heads that are measured with noise can be flat where steps are short: what lies there is refined as well."""
    estimator = TierEstimator(TierProfile.from_steps("ab", [0.003, 0.0, 0.0, 0.001]), Tier.DEVICE)
    steps = [0.003, 0.002, 0.004, 0.001]
    for number in range(60):
        estimator.update(timed(0, 4, steps), float(number))
    assert np.diff(estimator.heads_s * estimator.get()) == pytest.approx(steps, rel=0.01)
    assert estimator.get() == pytest.approx(2.5, rel=0.05)
    slower = [0.003, 0.008, 0.016, 0.004]
    for number in range(60, 120):
        estimator.update(timed(0, 4, slower), float(number))
    assert estimator.heads_s[4] * estimator.get() == pytest.approx(sum(slower), rel=0.02)
    assert estimator.get() < 20


def test_a_guess_is_unsure_until_it_was_measured_and_a_few_samples_are_not_sure_of_a_bad_moment() -> None:
    guess = TierEstimator(evolve(PROFILE, noise=2.0), Tier.DEVICE)
    assert guess.freshness(0.0).unsure == 1.0
    assert guess.freshness(0.0).width > 1.0
    for number in range(10):
        guess.update(head(2, 0.1), float(number))
    assert (guess.freshness(10.0).unsure, guess.freshness(10.0).width) == (0.0, 0.0)
    known = device()
    assert (known.freshness(0.0).unsure, known.freshness(0.0).width) == (0.0, 0.0)
    for number in range(3):
        known.update(head(2, 30.0), float(number))
        assert known.get() > 1.0 or number == 0
    assert known.baseline == 1.0
    assert known.freshness(3.0).unsure == pytest.approx(1 / 8)  # the profile says otherwise
    for number in range(3, 12):
        known.update(head(2, 30.0), float(number))
    assert known.freshness(12.0).unsure == 0.0
    again = device()
    again.restore(json.loads(json.dumps(known.snapshot())))
    assert again.freshness(12.0) == known.freshness(12.0)
    assert (again.baseline, again.awaiting_confirmation) == (known.baseline, known.awaiting_confirmation)
