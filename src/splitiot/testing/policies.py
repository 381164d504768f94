"""What every policy must do, as checks to run over your own."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np

from splitiot.errors import Infeasible
from splitiot.observation import EdgeTimes, Observation
from splitiot.policies import Context, Decision, Policy, Ranking
from splitiot.testing._create import create, name_of
from splitiot.testing._deployments import (
    Deployment,
    deployments,
    described,
    random_beliefs,
    random_context,
    random_vectors,
)
from splitiot.testing._life import Life, difference
from splitiot.testing._observations import Truth, odd, ordinary
from splitiot.testing._plain import json_size, not_plain, size_of, taken_apart, through_json

__all__ = [
    "MakePolicy",
    "check_changes_nothing_in_the_context",
    "check_chooses_only_allowed_rows",
    "check_decisions_make_sense",
    "check_devices_share_nothing",
    "check_does_not_change_itself",
    "check_goes_on_after_a_restart",
    "check_memory_is_plain_data",
    "check_memory_stays_bounded",
    "check_same_context_same_decision",
    "check_same_seed_same_decisions",
    "check_says_infeasible",
    "check_survives_any_observation",
    "check_uses_no_other_chance",
    "check_works_without_a_local_row",
    "policy_checks",
]

MakePolicy: TypeAlias = Callable[[], Policy]
"""A policy's class, or a function without arguments that makes one."""

_CONTEXTS: Final = 60  # in each deployment
_REQUESTS: Final = 80


def check_chooses_only_allowed_rows(make: MakePolicy) -> None:
    """It chooses a row of ``context.mask``: local only, edge only, one row, with and without anything else."""
    policy = create(make)
    for _, context, decision in _decisions(policy):
        row = decision.row
        if not 0 <= row < len(context.mask):
            rows = f"0 to {len(context.mask) - 1}"
            raise AssertionError(f"{name_of(policy)} chose row {row} of {rows}: {described(context)}")
        if not context.mask[row]:
            cut = context.costs.cuts[row]
            raise AssertionError(
                f"{name_of(policy)} chose row {row} (cut {cut}), which is not allowed: {described(context)}. "
                "Choose with context.best(), or look at context.mask"
            )


def check_works_without_a_local_row(make: MakePolicy) -> None:
    """It decides where the pipeline can't end on the device, or its results are wanted on the edge."""
    policy = create(make)
    for deployment in deployments():
        local = deployment.table.local_row
        if local is not None and not deployment.table.exchanges[local]:
            continue
        Life(deployment, policy, seed=1).requests(_REQUESTS)
        for i in range(_CONTEXTS):
            context = random_context(deployment, i)
            row = _decide(policy, context).row
            if not context.allows(row):
                raise AssertionError(f"{name_of(policy)}, {deployment.name}, chose row {row}: {described(context)}")


def check_decisions_make_sense(make: MakePolicy) -> None:
    """Its decisions have an int for a row, words, a bool, a probability above 0, and a ranking that fits them."""
    policy = create(make)
    for _, context, decision in _decisions(policy):
        p = decision.propensity
        wrong = None
        if type(decision.row) is not int:
            wrong = f"row is {decision.row!r}, a {type(decision.row).__name__}: make it an int"
        elif type(decision.probe) is not bool:
            wrong = f"probe is {decision.probe!r}, a {type(decision.probe).__name__}: make it a bool"
        elif not isinstance(p, float | int) or not 0 < p <= 1:
            wrong = f"propensity is {p!r}: it is the probability of this choice, above 0 and at most 1"
        elif not isinstance(decision.why, str) or not decision.why.strip():
            wrong = f"why is {decision.why!r}: say in words why this row"
        elif decision.ranking is not None:
            wrong = _wrong(decision.ranking, decision, context)
        if wrong:
            raise AssertionError(f"{name_of(policy)}: a decision's {wrong} ({described(context)})")


def _wrong(ranking: Any, decision: Decision, context: Context) -> str | None:
    """Say what is wrong with a ranking, None for nothing."""
    if not isinstance(ranking, Ranking):
        return f"ranking is {ranking!r}: make one with context.ranked(), or Ranking(values, mask, why)"
    if len(ranking.mask) != len(context.mask):
        return f"ranking has {len(ranking.mask)} rows of {len(context.mask)}: rank all, a mask never renumbers"
    if (more := np.flatnonzero(ranking.mask & ~context.mask)).size:
        return f"ranking permits row {more[0]}, which is not allowed: use context.ranked(mask=...), or & context.mask"
    if not ranking.allows(decision.row):
        return f"row is {decision.row} ({decision.why}), which its own ranking ({ranking.why}) does not permit"
    if math.isnan(ranking.values[decision.row]) or ranking.values[decision.row] == math.inf:
        return f"ranking has {ranking.values[decision.row]} for its row {decision.row}, and that means never"
    if ranking.objective is not None:
        try:
            values = context.costs.values(ranking.objective)
        except ValueError as error:
            return f"ranking has the objective {ranking.objective!r}: {error}"
        if not np.array_equal(values[ranking.mask], ranking.values[ranking.mask], equal_nan=True):
            return "ranking has other values than its objective gives: leave the objective out"
    return None


def check_changes_nothing_in_the_context(make: MakePolicy) -> None:
    """It only reads costs, mask, telemetry and beliefs; memory and generator are its own."""
    policy = create(make)
    for deployment in deployments():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            context, twin = random_context(deployment, i, memory), random_context(deployment, i)
            given = context.costs
            _decide(policy, context)
            if context.memory is not memory or context.costs is not given:
                which = "memory" if context.costs is given else "costs"
                raise AssertionError(
                    f"{name_of(policy)} gave the context other {which}, which wrappers around it would see: "
                    f"use a variable of your own ({described(twin)})"
                )
            for what, read in _READ.items():
                if taken_apart(read(context)) != taken_apart(read(twin)):
                    raise AssertionError(
                        f"{name_of(policy)} changed the {what} of its context, which is only to be read: "
                        f"copy what you change ({described(twin)})"
                    )


_READ: Final[dict[str, Callable[[Context], Any]]] = {
    "mask": lambda c: c.costs.mask,
    "costs": lambda c: (c.costs.terms, c.costs.beliefs, c.costs.cuts, c.costs.latency_s, c.costs.best()),
    "beliefs": lambda c: c.beliefs,
    "telemetry": lambda c: c.telemetry,
    "deadline": lambda c: c.deadline_s,
    "incumbent": lambda c: c.incumbent,
    "objective": lambda c: c.objective,
    "time": lambda c: c.now_s,
}


def check_does_not_change_itself(make: MakePolicy) -> None:
    """Deciding and learning leave the policy as it was: one object serves many devices."""
    policy = create(make)
    before = taken_apart(policy)
    for deployment in deployments():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            decision = _decide(policy, random_context(deployment, i, memory))
            _learn(policy, _observation(deployment, decision, i), memory)
            if taken_apart(policy) != before:
                raise AssertionError(
                    f"{name_of(policy)} changed itself while it decided or learnt (request {i + 1}): one object serves "
                    "many devices, so keep what you remember in context.memory, under a key of your own"
                )


def check_same_context_same_decision(make: MakePolicy) -> None:
    """The same context, memory and generator give the same decision, whoever asked before."""
    policy = create(make)
    for deployment in deployments():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            kept = copy.deepcopy(memory)
            first = _decide(policy, random_context(deployment, i, memory))
            again = _decide(policy, random_context(deployment, i, copy.deepcopy(kept)))
            other = _decide(create(make), random_context(deployment, i, kept))
            for decision, whose in ((again, "it was asked again"), (other, "another object was asked")):
                if _comparable(first) != _comparable(decision):
                    raise AssertionError(
                        f"{name_of(policy)} decided for row {first.row} ({first.why}), and for row {decision.row} "
                        f"({decision.why}) when {whose} in the same context: only context.memory and context.random "
                        f"may make a difference ({described(random_context(deployment, i))})"
                    )
            _learn(policy, _observation(deployment, first, i), memory)


def check_same_seed_same_decisions(make: MakePolicy) -> None:
    """A planner with the same seed, the same requests and the same observations decides the same."""
    for seed, deployment in enumerate(deployments()):
        first = Life(deployment, create(make), seed).requests(_REQUESTS)
        policy = create(make)
        if where := difference(first, Life(deployment, policy, seed).requests(_REQUESTS)):
            raise AssertionError(
                f"{name_of(policy)} decided twice differently under one seed ({deployment.name}): {where}. "
                "Let all chance come from context.random, all memory from context.memory"
            )


def check_goes_on_after_a_restart(make: MakePolicy) -> None:
    """A planner that was stored as JSON in between, and restored with a new policy object, decides the same."""
    for seed, deployment in enumerate(deployments()):
        for stop in (1, 40):
            first = Life(deployment, create(make), seed).requests(_REQUESTS)
            policy = create(make)
            life = Life(deployment, policy, seed)
            second = life.requests(stop)
            life.restart(create(make))
            second += life.requests(_REQUESTS - stop)
            if where := difference(first, second):
                raise AssertionError(
                    f"{name_of(policy)} decided differently after a restart behind request {stop} ({deployment.name}): "
                    f"{where}. Keep what it remembers in context.memory, as plain data that JSON does not change"
                )


def check_uses_no_other_chance(make: MakePolicy) -> None:
    """It leaves Python's and numpy's global generators alone, and does not depend on them or on fresh ones."""
    policy = create(make)
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002  (the global one is what must not be touched)
    try:
        lives = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  (the global one is what must not be touched)
            before = _global_chance()
            lives.append(Life(deployments()[0], create(make), seed=5).requests(_REQUESTS))
            if _global_chance() != before:
                raise AssertionError(
                    f"{name_of(policy)} drew from a global generator (random or numpy.random): "
                    "use context.random, which is part of the planner's state"
                )
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002  (the global one is what must not be touched)
    if where := difference(*lives):
        raise AssertionError(
            f"{name_of(policy)} is not decided by the planner's seed: {where}. "
            "Use context.random, and no generator of your own"
        )


def check_devices_share_nothing(make: MakePolicy) -> None:
    """One policy object that serves two devices in turn decides for each as if it were alone."""
    first, second, *_ = deployments()
    alone = [
        Life(first, create(make), seed=3).requests(_REQUESTS),
        Life(second, create(make), seed=4).requests(_REQUESTS),
    ]
    policy = create(make)
    lives = Life(first, policy, seed=3), Life(second, policy, seed=4)
    turns = [[life.request() for life in lives] for _ in range(_REQUESTS)]
    for one, together in zip(alone, zip(*turns, strict=True), strict=True):
        if where := difference(one, list(together)):
            raise AssertionError(
                f"{name_of(policy)} decided differently for a device when it served another one in between: {where}. "
                "Keep what you remember in context.memory: it is the device's own"
            )


def check_memory_is_plain_data(make: MakePolicy) -> None:
    """What it keeps in ``context.memory`` comes back from JSON as it was, and is still of use then."""
    policy = create(make)
    for deployment in deployments():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            decision = _decide(policy, random_context(deployment, i, memory))
            _learn(policy, _observation(deployment, decision, i), memory)
            if problem := not_plain(memory, "context.memory"):
                raise AssertionError(
                    f"{name_of(policy)}: {problem}. Keep a PolicyMemory, or dicts of str keys, lists, str, int, bool, "
                    "None, finite floats"
                )
            memory = through_json(memory)


def check_memory_stays_bounded(make: MakePolicy, *, updates: int = 100_000) -> None:
    """What it keeps does not grow from the first half of many decisions and observations to the second.

    Parameters
    ----------
    make : class or function
    updates : int
        How many. With fewer than 10,000 a window that is still filling may be taken for a leak.
    """
    policy, deployment = create(make), deployments()[0]
    rng = np.random.default_rng(0)
    beliefs = [random_beliefs(rng, vector) for vector in random_vectors(rng, 64).tolist()]
    memory: dict[str, Any] = {}
    sizes: list[tuple[int, int]] = []
    generator, incumbent = np.random.default_rng(0), None
    for half in (updates // 2, updates - updates // 2):
        vectors = random_vectors(rng, half)
        numbers = rng.exponential(0.1, (half, 4)).tolist()
        for i in range(half):
            now_s = 0.1 * (i + half * len(sizes))
            context = Context(
                deployment.table.with_beliefs(vectors[i]),
                random=lambda: generator,
                now_s=now_s,
                telemetry={"battery": numbers[i][0]},
                incumbent=incumbent,
                memory=memory,
                beliefs=lambda _, of=beliefs[i // 50 % 64]: of,  # type: ignore[misc]  # mypy: a default in a lambda
            )
            decision = policy.decide(context)
            incumbent = incumbent if decision.probe else decision.row
            head_s, compute_s, wait_s, round_trip_s = numbers[i]
            times = EdgeTimes(compute_s=compute_s, residence_s=compute_s + wait_s)
            observation = Observation(
                plan_id=i + half * len(sizes) + 1,
                cut=deployment.table.placements[decision.row].cut,
                head_s=head_s,
                edge=times,
                round_trip_s=times.residence_s + round_trip_s,
                sent_bytes=1000 + i,
                received_bytes=100,
            )
            policy.learn(observation, memory)
        sizes.append((json_size(memory), size_of(policy)))
    for what, early, late in zip(("context.memory", "itself"), *sizes, strict=True):
        if late > 1.1 * early + 256:
            unit = "characters of JSON" if what == "context.memory" else "bytes"
            raise AssertionError(
                f"{name_of(policy)} keeps more and more in {what}: {early:,} {unit} after {updates // 2:,} requests, "
                f"{late:,} after {updates:,}. Keep sums, or the last few"
            )


def check_survives_any_observation(make: MakePolicy) -> None:
    """Missing, late, repeated, censored and absurd observations leave it deciding, with plain data in its memory."""
    policy = create(make)
    for seed, deployment in enumerate(deployments()):
        life = Life(deployment, policy, seed, absurd=True)
        life.requests(_REQUESTS)
        life.restart(policy)
        life.absurd = False
        life.requests(_REQUESTS // 2)
        memory: dict[str, Any] = {}
        rng = np.random.default_rng(seed)
        for i in range(_CONTEXTS):  # without a planner, which refuses some; and before anything was decided
            _learn(policy, odd(i, int(rng.integers(6)), rng), memory)
            if i < 3:
                continue
            context = random_context(deployment, i, memory)
            row = _decide(policy, context).row
            if not context.allows(row):
                raise AssertionError(
                    f"{name_of(policy)} chose row {row} after absurd observations: {described(context)}"
                )
            if problem := not_plain(memory, "context.memory"):
                raise AssertionError(f"{name_of(policy)}, after absurd observations: {problem}. Leave such numbers out")


def check_says_infeasible(make: MakePolicy) -> None:
    """Where no row is allowed it raises Infeasible and nothing else, and decides again when one is."""
    policy = create(make)
    for deployment in deployments():
        for i in range(12):
            context = random_context(deployment, i)
            nothing = Context(
                context.costs.masked(np.zeros(len(context.costs), np.bool_)),
                random=lambda of=context: of.random,  # type: ignore[misc]  # mypy: a default in a lambda
                now_s=context.now_s,
                objective=context.objective,
                deadline_s=context.deadline_s,
                telemetry=context.telemetry,
                incumbent=context.incumbent,
                beliefs=lambda _, of=context: of.beliefs,  # type: ignore[misc]  # mypy: a default in a lambda
            )
            try:
                decision = policy.decide(nothing)
            except Infeasible:
                continue
            except Exception as error:
                raise AssertionError(
                    f"{name_of(policy)} raised {error!r} where none is allowed: let context.best() raise Infeasible"
                ) from error
            raise AssertionError(
                f"{name_of(policy)} chose row {decision.row} where none is allowed: let context.best() raise Infeasible"
            )
    _after_infeasible(policy)


def _after_infeasible(policy: Policy) -> None:
    life = Life(deployments()[0], policy, seed=0)
    life.planner.restrict([0])
    try:
        life.planner.decide(0.0, edge_up=False)
    except Infeasible:
        life.planner.restrict(None)
    else:
        raise AssertionError("a planner decided where nothing is allowed")
    life.requests(10)


policy_checks: Final[tuple[Callable[[MakePolicy], None], ...]] = (
    check_chooses_only_allowed_rows,
    check_works_without_a_local_row,
    check_says_infeasible,
    check_decisions_make_sense,
    check_changes_nothing_in_the_context,
    check_does_not_change_itself,
    check_same_context_same_decision,
    check_same_seed_same_decisions,
    check_uses_no_other_chance,
    check_devices_share_nothing,
    check_memory_is_plain_data,
    check_goes_on_after_a_restart,
    check_survives_any_observation,
    check_memory_stays_bounded,
)
"""All of them, to parametrize a test with."""


def _decisions(policy: Policy) -> Iterator[tuple[Deployment, Context, Decision]]:
    """Decide in many contexts, one after the other with one memory in each deployment."""
    for deployment in deployments():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            context = random_context(deployment, i, memory)
            decision = _decide(policy, context)
            yield deployment, context, decision
            if 0 <= decision.row < len(context.mask):
                _learn(policy, _observation(deployment, decision, i), memory)


def _decide(policy: Policy, context: Context) -> Decision:
    try:
        decision = policy.decide(context)
    except Exception as error:
        raise AssertionError(
            f"{name_of(policy)} raised {error!r} {described(context)}. It must decide in each context, without "
            "telemetry, deadline, incumbent or beliefs too, and change nothing in it but memory"
        ) from error
    if not isinstance(decision, Decision):
        kind = type(decision).__name__
        raise AssertionError(f"{name_of(policy)} returned a {kind}: return a Decision ({described(context)})")
    if not isinstance(decision.row, int | np.integer):
        raise AssertionError(f"{name_of(policy)} chose row {decision.row!r}: choose an int ({described(context)})")
    return decision


def _learn(policy: Policy, observation: Observation, memory: dict[str, Any]) -> None:
    try:
        policy.learn(observation, memory)
    except Exception as error:
        raise AssertionError(
            f"{name_of(policy)} raised {error!r} while it learnt from {observation}: any field may be missing, "
            "repeated, late or absurd, and nothing may have been decided before"
        ) from error


def _observation(deployment: Deployment, decision: Decision, i: int) -> Observation:
    rng = np.random.default_rng([i, 19])
    return ordinary(deployment, Truth.drawn(rng), deployment.table.placements[decision.row].cut, i + 1, rng)


def _comparable(decision: Decision) -> tuple[int, str, bool, float]:
    p = decision.propensity
    return decision.row, decision.why, decision.probe, -1.0 if math.isnan(p) else p


def _global_chance() -> Any:
    return taken_apart((random.getstate(), np.random.get_state()))  # noqa: NPY002  (the global one is what must not be touched)
