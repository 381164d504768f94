"""What policies that hold another one must do besides, as checks to run over your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from attrs import evolve, field, frozen

from splitiot.cost import AtMost, Costs, most_local
from splitiot.observation import Observation
from splitiot.planner import Planner
from splitiot.policies import (
    Best,
    Context,
    Deadline,
    Decision,
    Fixed,
    LeastEnergy,
    Policy,
    Ranking,
    ThroughputTarget,
)
from splitiot.testing._create import name_of
from splitiot.testing._deployments import POWER, Deployment, deployments, described, random_context
from splitiot.testing._life import Life
from splitiot.testing._observations import Truth, ordinary

__all__ = [
    "Wrap",
    "check_does_not_latch_onto_probes",
    "check_keeps_the_aim",
    "check_keeps_to_the_ranking",
    "check_leaves_the_inner_memory_alone",
    "check_passes_decisions_without_ranking_on",
    "check_passes_lessons_on",
    "check_passes_probes_through",
    "wrapper_checks",
]

Wrap: TypeAlias = Callable[[Policy], Policy]
"""A wrapper's class, or a function that puts one around a policy: ``lambda policy: Hysteresis(policy, 0.1)``."""

_CONTEXTS: Final = 60  # in each deployment
_REQUESTS: Final = 120
_EVERY: Final = 4  # requests, of which one is a probe


def check_passes_probes_through(wrap: Wrap) -> None:
    """What the wrapped policy chose as a probe is chosen, as a probe, with the same propensity."""
    policy = wrap(_Prober())
    for deployment in deployments():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            wanted = _Prober().decide(random_context(deployment, i, {}))
            got = _decide(policy, random_context(deployment, i, memory))
            if (got.row, got.probe, got.propensity) != (wanted.row, True, wanted.propensity):
                raise AssertionError(
                    f"{name_of(policy)} made row {got.row} (probe={got.probe}, propensity {got.propensity:g}) of a "
                    f"probe of row {wanted.row} (propensity {wanted.propensity:g}): return the wrapped policy's "
                    f"decision as it is where decision.probe ({described(random_context(deployment, i))})"
                )


def check_passes_lessons_on(wrap: Wrap) -> None:
    """What the wrapper learns, the wrapped policy learns once, and finds in its memory when it decides next."""
    pupil = _Pupil()
    policy = wrap(pupil)
    deployment, memory = deployments()[0], dict[str, Any]()
    for i in range(_CONTEXTS):
        _decide(policy, random_context(deployment, i, memory))
        policy.learn(Observation(plan_id=i, cut=1, head_s=0.1), memory)
        if pupil.taught != list(range(i + 1)):
            how = "did not pass on" if pupil.taught[-1:] != [i] else "passed on more than once"
            raise AssertionError(
                f"{name_of(policy)} {how} what it learnt: let learn() call the wrapped policy's learn(), once"
            )
        before = len(pupil.learnt)
        _decide(policy, random_context(deployment, i, memory))
        if len(pupil.learnt) > before and pupil.learnt[-1] != i + 1:
            raise AssertionError(
                f"{name_of(policy)} let the wrapped policy learn into another memory than it decides with: "
                "pass on the memory that learn() is given"
            )


def check_leaves_the_inner_memory_alone(wrap: Wrap) -> None:
    """The wrapped policy's notes are as it left them: each policy has a key of its own."""
    pupil = _Pupil()
    policy = wrap(pupil)
    for deployment in deployments():
        memory: dict[str, Any] = {}
        asked = len(pupil.learnt)
        for i in range(_CONTEXTS):
            _decide(policy, random_context(deployment, i, memory))
        decided = len(pupil.learnt) - asked
        if decided and pupil.counts[-1] != decided:
            raise AssertionError(
                f"{name_of(policy)} changed what the wrapped policy keeps in context.memory: it counted {decided} "
                f"decisions, its notes say {pupil.counts[-1]}. Use a key of your own, and no other"
            )


def check_does_not_latch_onto_probes(wrap: Wrap) -> None:
    """A row that was only probed does not become what the wrapper stays with: ``context.incumbent`` is that.

    A wrapper that remembers the row that was executed last stays with its probes.
    """
    for home, probe in ((1, 3), (3, 1), (2, 4), (4, 0)):
        for flat in (True, False):
            deployment = deployments()[0]
            policy = wrap(_Settled(home, None, flat))
            without = Life(deployment, policy, seed=0).requests(_REQUESTS)
            with_probes = Life(deployment, wrap(_Settled(home, probe, flat)), seed=0).requests(_REQUESTS)
            usual = {choice.cut for choice in without if not choice.probe}
            for i, choice in enumerate(with_probes, 1):
                if choice.cut == probe and not choice.probe and probe not in usual:
                    raise AssertionError(
                        f"{name_of(policy)} stays with a probe: the wrapped policy wants cut {home} and only probed "
                        f"cut {probe}, which request {i} got as no probe ({choice.why}). Stay with "
                        "context.incumbent, not with the row that was executed last"
                    )


def check_keeps_to_the_ranking(wrap: Wrap) -> None:
    """It chooses what the wrapped policy permits, which may be private, and hands on its ranking with each decision."""
    picky = _Picky()
    policy = wrap(picky)
    for deployment in deployments():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            now = random_context(deployment, i, memory)
            ranking = picky.rank(now)
            got = _decide(policy, now)
            if not ranking.allows(got.row):
                raise AssertionError(
                    f"{name_of(policy)} chose row {got.row} ({got.why}), which the wrapped policy does not permit: "
                    f"choose among the mask of its decision's ranking ({described(now)})"
                )
            if got.ranking is None or not _same(got.ranking, ranking):
                raise AssertionError(
                    f"{name_of(policy)} did not hand on the wrapped policy's ranking, so that wrappers around this one "
                    f"can't keep to it: return attrs.evolve(inner, row=..., why=...) ({described(now)})"
                )


def check_passes_decisions_without_ranking_on(wrap: Wrap) -> None:
    """Of a policy that only decides nobody knows what it wants: its decisions are made, and no probe beside them."""
    for seed in range(4):
        inner = _Spy(_Mute())
        policy = wrap(inner)
        life = Life(deployments()[0], policy, seed)
        for i in range(1, _REQUESTS + 1):
            choice = life.request()
            inner.asked_once(name_of(policy), i)
            wanted = deployments()[0].table.placements[inner.decisions[-1].row].cut
            if (choice.cut, choice.probe) != (wanted, False):
                raise AssertionError(
                    f"{name_of(policy)} made cut {choice.cut} ({choice.why}) of a decision for cut {wanted} that has "
                    f"no ranking, in request {i}: return the wrapped policy's decision where its ranking is None"
                )


def check_keeps_the_aim(wrap: Wrap) -> None:
    """What the wrapped policy wants is what happens, for 500 requests while all changes and comes back.

    With policies that want something else than the planner's objective: a deadline, a throughput, a cut, few bytes.
    Nothing that they forbid is chosen, be it as a probe. What is no probe is what they want, or not much worse by their
    own ranking; and when they go back to where they were before, so does the wrapper.
    """
    for name, aim in _aims().items():
        for bad in _BAD:
            inner = _Spy(aim)
            policy = wrap(inner)
            _live(policy, inner, f"{name_of(policy)} around {name}", bad)


def _live(policy: Policy, inner: _Spy, who: str, bad: Truth) -> None:
    deployment: Deployment = deployments()[0]
    late = 0
    planner = Planner(deployment.pipeline, deployment.topology, policy, power=POWER)
    rng = np.random.default_rng(1)
    for i in range(_LONG):
        truth = bad if _LONG // 4 <= i < _LONG // 2 else _USUAL
        try:
            plan = planner.decide(0.3 * i)
        except Exception as error:
            raise AssertionError(f"{who} in request {i + 1}: {error!r}") from error
        planner.observe(ordinary(deployment, truth, plan.cut, plan.id, rng), now_s=0.3 * i + 0.2)
        inner.asked_once(who, i + 1)
        wanted = inner.decisions[-1]
        ranking = wanted.ranking
        assert ranking is not None
        if not ranking.allows(plan.row):
            raise AssertionError(
                f"{who} chose cut {plan.cut} ({plan.why}) in request {i + 1}, which that does not permit "
                f"({ranking.why}): choose among the mask of its decision's ranking"
            )
        own, best = float(ranking.values[plan.row]), float(ranking.values[wanted.row])
        late = late + 1 if not (plan.probe or own <= best + _MUCH * abs(own) or plan.row == wanted.row) else 0
        if late >= _PATIENCE:
            better = deployment.table.placements[wanted.row].cut
            raise AssertionError(
                f"{who} has stayed at cut {plan.cut} ({plan.why}) for {late} requests, until number {i + 1}, while "
                f"that wants cut {better} ({wanted.why}): compare by ranking.values"
            )


wrapper_checks: Final[tuple[Callable[[Wrap], None], ...]] = (
    check_passes_probes_through,
    check_does_not_latch_onto_probes,
    check_passes_lessons_on,
    check_leaves_the_inner_memory_alone,
    check_keeps_to_the_ranking,
    check_passes_decisions_without_ranking_on,
    check_keeps_the_aim,
)
"""All of them, to parametrize a test with. Run `policy_checks` too: ``check(lambda: Mine(si.Best()))``."""

_LONG: Final = 500  # requests
_PATIENCE: Final = 30
_MUCH: Final = 0.6  # a share: more than that is worth a move to everybody
_USUAL: Final = Truth(1.0, 1.0, 1.0, 1.0)
_BAD: Final = (
    Truth(device=0.3, edge=1.0, rate=1.0, rtt=1.0),
    Truth(device=4.0, edge=1.0, rate=1.0, rtt=1.0),
    Truth(device=1.0, edge=40.0, rate=0.1, rtt=3.0),
)


def _aims() -> dict[str, Policy]:
    return {
        "a Deadline": Deadline(deadline_s=0.4),
        "a short Deadline": Deadline(deadline_s=0.12),
        "a Deadline that all meet": Deadline(deadline_s=60.0),
        "ThroughputTarget": ThroughputTarget(6),
        "Fixed": Fixed(4),
        "Best with a constraint": Best(most_local, subject_to=AtMost("sent_bytes", 10_000)),
        "LeastEnergy": LeastEnergy(),
        "a ranking of its own": _Own(),
    }


def _same(one: Ranking, other: Ranking) -> bool:
    return np.array_equal(one.mask, other.mask) and np.array_equal(one.values, other.values, equal_nan=True)


@frozen
class _Prober(Policy):
    """Probes always."""

    def decide(self, context: Context) -> Decision:
        rows = np.flatnonzero(context.mask)
        return evolve(context.best(), row=int(rows[len(rows) // 2]), why="look", probe=True, propensity=0.25)


@frozen
class _Picky(Policy):
    """Wants every second row only."""

    def rank(self, context: Context) -> Ranking:
        permitted = np.zeros(len(context.mask), dtype=np.bool_)
        permitted[np.flatnonzero(context.mask)[::2]] = True
        return context.ranked(mask=permitted, why="picky")


@frozen
class _Own(Policy):
    """Ranks by numbers that are no objective's."""

    def rank(self, context: Context) -> Ranking:
        return Ranking(np.abs(context.costs.cuts - 2), context.mask, "near cut 2")


@frozen
class _Mute(Policy):
    """Only decides."""

    def decide(self, context: Context) -> Decision:
        rows = np.flatnonzero(context.mask)
        return Decision(int(rows[int(context.now_s) % len(rows)]), "who knows")


@frozen(eq=False)
class _Spy(Policy):
    """Keeps what another policy decided."""

    policy: Policy
    decisions: list[Decision] = field(factory=list)

    def rank(self, context: Context) -> Ranking:
        return self.policy.rank(context)

    def decide(self, context: Context) -> Decision:
        self.decisions.append(self.policy.decide(context))
        return self.decisions[-1]

    def asked_once(self, who: str, request: int) -> None:
        if len(self.decisions) != request:
            times = len(self.decisions) - request + 1
            raise AssertionError(f"{who} asked the wrapped policy {times} times in request {request}: ask it once")

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory)


@frozen(eq=False)
class _Pupil(Policy):
    """Counts in its memory, and here what it was taught and what it found there."""

    taught: list[int] = field(factory=list)
    learnt: list[int] = field(factory=list)
    counts: list[int] = field(factory=list)

    def decide(self, context: Context) -> Decision:
        notes = context.memory.setdefault("_pupil", {"decided": 0, "learnt": 0})
        notes["decided"] += 1
        self.counts.append(notes["decided"])
        self.learnt.append(notes["learnt"])
        return context.best()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.taught.append(observation.plan_id)
        notes = memory.setdefault("_pupil", {"decided": 0, "learnt": 0})
        notes["learnt"] += 1


def _equal(costs: Costs) -> Any:
    return np.zeros(len(costs))


@frozen
class _Settled(Policy):
    """Wants one cut, and now and then probes another one."""

    home: int
    probe: int | None
    flat: bool

    def decide(self, context: Context) -> Decision:
        notes = context.memory.setdefault("_settled", {"requests": 0})
        notes["requests"] += 1
        best = context.best(_equal if self.flat else None)
        for cut, probe in ((self.probe, True), (self.home, False)):
            if cut is None or (probe and notes["requests"] % _EVERY):
                continue
            row = context.at_cut(cut)
            if context.allows(row):
                return evolve(best, row=row, why="look" if probe else "settled", probe=probe)
        return evolve(best, why="the rest", probe=True)  # the edge is down


def _decide(policy: Policy, context: Context) -> Decision:
    try:
        return policy.decide(context)
    except Exception as error:
        raise AssertionError(f"{name_of(policy)} raised {error!r} {described(context)}") from error
