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
from splitiot.testing._life import Life, difference
from splitiot.testing._make import made, name_of
from splitiot.testing._observations import Truth, odd, ordinary
from splitiot.testing._plain import json_size, not_plain, size_of, taken_apart, through_json
from splitiot.testing._world import World, context, random_beliefs, random_vectors, shown, worlds

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

_CONTEXTS: Final = 60  # in each world
_REQUESTS: Final = 80


def check_chooses_only_allowed_rows(make: MakePolicy) -> None:
    """It chooses a row of ``context.mask``: local only, edge only, one row, with and without anything else."""
    policy = made(make)
    for _, seen, decision in _decisions(policy):
        row = decision.row
        if not 0 <= row < len(seen.mask):
            raise AssertionError(f"{name_of(policy)} chose row {row} of 0 to {len(seen.mask) - 1}: {shown(seen)}")
        if not seen.mask[row]:
            cut = seen.costs.cuts[row]
            raise AssertionError(
                f"{name_of(policy)} chose row {row} (cut {cut}), which is not allowed: {shown(seen)}. "
                "Choose with context.best(), or look at context.mask"
            )


def check_works_without_a_local_row(make: MakePolicy) -> None:
    """It decides where the pipeline can't end on the device, or its results are wanted on the edge."""
    policy = made(make)
    for world in worlds():
        local = world.table.local_row
        if local is not None and not world.table.exchanges[local]:
            continue
        Life(world, policy, seed=1).requests(_REQUESTS)
        for i in range(_CONTEXTS):
            seen = context(world, i)
            row = _decide(policy, seen).row
            if not seen.allows(row):
                raise AssertionError(f"{name_of(policy)}, {world.name}, chose row {row}: {shown(seen)}")


def check_decisions_make_sense(make: MakePolicy) -> None:
    """Its decisions have an int for a row, words, a bool, a probability above 0, and a ranking that fits them."""
    policy = made(make)
    for _, seen, decision in _decisions(policy):
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
            wrong = _wrong(decision.ranking, decision, seen)
        if wrong:
            raise AssertionError(f"{name_of(policy)}: a decision's {wrong} ({shown(seen)})")


def _wrong(ranking: Any, decision: Decision, seen: Context) -> str | None:
    """Say what is wrong with a ranking, None for nothing."""
    if not isinstance(ranking, Ranking):
        return f"ranking is {ranking!r}: make one with context.ranked(), or Ranking(values, mask, why)"
    if len(ranking.mask) != len(seen.mask):
        return f"ranking has {len(ranking.mask)} rows of {len(seen.mask)}: rank all, a mask never renumbers"
    if (more := np.flatnonzero(ranking.mask & ~seen.mask)).size:
        return f"ranking permits row {more[0]}, which is not allowed: use context.ranked(mask=...), or & context.mask"
    if not ranking.allows(decision.row):
        return f"row is {decision.row} ({decision.why}), which its own ranking ({ranking.why}) does not permit"
    if math.isnan(ranking.values[decision.row]) or ranking.values[decision.row] == math.inf:
        return f"ranking has {ranking.values[decision.row]} for its row {decision.row}, and that means never"
    if ranking.objective is not None:
        try:
            values = seen.costs.values(ranking.objective)
        except ValueError as error:
            return f"ranking has the objective {ranking.objective!r}: {error}"
        if not np.array_equal(values[ranking.mask], ranking.values[ranking.mask], equal_nan=True):
            return "ranking has other values than its objective gives: leave the objective out"
    return None


def check_changes_nothing_in_the_context(make: MakePolicy) -> None:
    """It only reads costs, mask, telemetry and beliefs; memory and generator are its own."""
    policy = made(make)
    for world in worlds():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            seen, twin = context(world, i, memory), context(world, i)
            given = seen.costs
            _decide(policy, seen)
            if seen.memory is not memory or seen.costs is not given:
                which = "memory" if seen.costs is given else "costs"
                raise AssertionError(
                    f"{name_of(policy)} gave the context other {which}, which wrappers around it would see: "
                    f"use a variable of your own ({shown(twin)})"
                )
            for what, read in _READ.items():
                if taken_apart(read(seen)) != taken_apart(read(twin)):
                    raise AssertionError(
                        f"{name_of(policy)} changed the {what} of its context, which is only to be read: "
                        f"copy what you change ({shown(twin)})"
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
    policy = made(make)
    before = taken_apart(policy)
    for world in worlds():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            decision = _decide(policy, context(world, i, memory))
            _learn(policy, _observation(world, decision, i), memory)
            if taken_apart(policy) != before:
                raise AssertionError(
                    f"{name_of(policy)} changed itself while it decided or learnt (request {i + 1}): one object serves "
                    "many devices, so keep what you remember in context.memory, under a key of your own"
                )


def check_same_context_same_decision(make: MakePolicy) -> None:
    """The same context, memory and generator give the same decision, whoever asked before."""
    policy = made(make)
    for world in worlds():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            kept = copy.deepcopy(memory)
            first = _decide(policy, context(world, i, memory))
            again = _decide(policy, context(world, i, copy.deepcopy(kept)))
            other = _decide(made(make), context(world, i, kept))
            for decision, whose in ((again, "it was asked again"), (other, "another object was asked")):
                if _told(first) != _told(decision):
                    raise AssertionError(
                        f"{name_of(policy)} decided for row {first.row} ({first.why}), and for row {decision.row} "
                        f"({decision.why}) when {whose} in the same context: only context.memory and context.random "
                        f"may make a difference ({shown(context(world, i))})"
                    )
            _learn(policy, _observation(world, first, i), memory)


def check_same_seed_same_decisions(make: MakePolicy) -> None:
    """A planner with the same seed, the same requests and the same observations decides the same."""
    for seed, world in enumerate(worlds()):
        first = Life(world, made(make), seed).requests(_REQUESTS)
        policy = made(make)
        if where := difference(first, Life(world, policy, seed).requests(_REQUESTS)):
            raise AssertionError(
                f"{name_of(policy)} decided twice differently under one seed ({world.name}): {where}. "
                "Let all chance come from context.random, all memory from context.memory"
            )


def check_goes_on_after_a_restart(make: MakePolicy) -> None:
    """A planner that was stored as JSON in between, and restored with a new policy object, decides the same."""
    for seed, world in enumerate(worlds()):
        for stop in (1, 40):
            first = Life(world, made(make), seed).requests(_REQUESTS)
            policy = made(make)
            life = Life(world, policy, seed)
            second = life.requests(stop)
            life.restart(made(make))
            second += life.requests(_REQUESTS - stop)
            if where := difference(first, second):
                raise AssertionError(
                    f"{name_of(policy)} decided differently after a restart behind request {stop} ({world.name}): "
                    f"{where}. Keep what it remembers in context.memory, as plain data that JSON does not change"
                )


def check_uses_no_other_chance(make: MakePolicy) -> None:
    """It leaves Python's and numpy's global generators alone, and does not depend on them or on fresh ones."""
    policy = made(make)
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002  (the global one is what must not be touched)
    try:
        lives = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  (the global one is what must not be touched)
            before = _global_chance()
            lives.append(Life(worlds()[0], made(make), seed=5).requests(_REQUESTS))
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
    first, second, *_ = worlds()
    alone = [Life(first, made(make), seed=3).requests(_REQUESTS), Life(second, made(make), seed=4).requests(_REQUESTS)]
    policy = made(make)
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
    policy = made(make)
    for world in worlds():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            decision = _decide(policy, context(world, i, memory))
            _learn(policy, _observation(world, decision, i), memory)
            if found := not_plain(memory, "context.memory"):
                raise AssertionError(
                    f"{name_of(policy)}: {found}. Keep a PolicyMemory, or dicts of str keys, lists, str, int, bool, "
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
    policy, world = made(make), worlds()[0]
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
            seen = Context(
                world.table.with_beliefs(vectors[i]),
                random=lambda: generator,
                now_s=now_s,
                telemetry={"battery": numbers[i][0]},
                incumbent=incumbent,
                memory=memory,
                beliefs=lambda _, of=beliefs[i // 50 % 64]: of,  # type: ignore[misc]
            )
            decision = policy.decide(seen)
            incumbent = incumbent if decision.probe else decision.row
            head_s, compute_s, wait_s, round_trip_s = numbers[i]
            times = EdgeTimes(compute_s=compute_s, residence_s=compute_s + wait_s)
            observation = Observation(
                plan_id=i + half * len(sizes) + 1,
                cut=world.table.placements[decision.row].cut,
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
    policy = made(make)
    for seed, world in enumerate(worlds()):
        life = Life(world, policy, seed, absurd=True)
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
            seen = context(world, i, memory)
            row = _decide(policy, seen).row
            if not seen.allows(row):
                raise AssertionError(f"{name_of(policy)} chose row {row} after absurd observations: {shown(seen)}")
            if found := not_plain(memory, "context.memory"):
                raise AssertionError(f"{name_of(policy)}, after absurd observations: {found}. Leave such numbers out")


def check_says_infeasible(make: MakePolicy) -> None:
    """Where no row is allowed it raises Infeasible and nothing else, and decides again when one is."""
    policy = made(make)
    for world in worlds():
        for i in range(12):
            seen = context(world, i)
            nothing = Context(
                seen.costs.masked(np.zeros(len(seen.costs), np.bool_)),
                random=lambda of=seen: of.random,  # type: ignore[misc]
                now_s=seen.now_s,
                objective=seen.objective,
                deadline_s=seen.deadline_s,
                telemetry=seen.telemetry,
                incumbent=seen.incumbent,
                beliefs=lambda _, of=seen: of.beliefs,  # type: ignore[misc]
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
    life = Life(worlds()[0], policy, seed=0)
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


def _decisions(policy: Policy) -> Iterator[tuple[World, Context, Decision]]:
    """Decide in many contexts, one after the other with one memory in each world."""
    for world in worlds():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            seen = context(world, i, memory)
            decision = _decide(policy, seen)
            yield world, seen, decision
            if 0 <= decision.row < len(seen.mask):
                _learn(policy, _observation(world, decision, i), memory)


def _decide(policy: Policy, seen: Context) -> Decision:
    try:
        decision = policy.decide(seen)
    except Exception as error:
        raise AssertionError(
            f"{name_of(policy)} raised {error!r} {shown(seen)}. It must decide in each context, without telemetry, "
            "deadline, incumbent or beliefs too, and change nothing in it but memory"
        ) from error
    if not isinstance(decision, Decision):
        kind = type(decision).__name__
        raise AssertionError(f"{name_of(policy)} returned a {kind}: return a Decision ({shown(seen)})")
    if not isinstance(decision.row, int | np.integer):
        raise AssertionError(f"{name_of(policy)} chose row {decision.row!r}: choose an int ({shown(seen)})")
    return decision


def _learn(policy: Policy, observation: Observation, memory: dict[str, Any]) -> None:
    try:
        policy.learn(observation, memory)
    except Exception as error:
        raise AssertionError(
            f"{name_of(policy)} raised {error!r} while it learnt from {observation}: any field may be missing, "
            "repeated, late or absurd, and nothing may have been decided before"
        ) from error


def _observation(world: World, decision: Decision, i: int) -> Observation:
    rng = np.random.default_rng([i, 19])
    return ordinary(world, Truth.drawn(rng), world.table.placements[decision.row].cut, i + 1, rng)


def _told(decision: Decision) -> tuple[int, str, bool, float]:
    p = decision.propensity
    return decision.row, decision.why, decision.probe, -1.0 if math.isnan(p) else p


def _global_chance() -> Any:
    return taken_apart((random.getstate(), np.random.get_state()))  # noqa: NPY002  (the global one is what must not be touched)
