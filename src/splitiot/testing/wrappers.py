"""What policies that hold another one must do besides, as checks to run over your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.cost import Costs
from splitiot.observation import Observation
from splitiot.policies import Context, Decision, Policy
from splitiot.testing._life import Life
from splitiot.testing._make import name_of
from splitiot.testing._world import context, shown, worlds

__all__ = [
    "Wrap",
    "check_does_not_latch_onto_probes",
    "check_leaves_the_inner_memory_alone",
    "check_passes_lessons_on",
    "check_passes_probes_through",
    "wrapper_checks",
]

Wrap: TypeAlias = Callable[[Policy], Policy]
"""A wrapper's class, or a function that puts one around a policy: ``lambda policy: Hysteresis(policy, 0.1)``."""

_CONTEXTS: Final = 60  # in each world
_REQUESTS: Final = 120
_EVERY: Final = 4  # requests, of which one is a probe


def check_passes_probes_through(wrap: Wrap) -> None:
    """What the wrapped policy chose as a probe is chosen, as a probe, with the same propensity."""
    policy = wrap(_Prober())
    for world in worlds():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            wanted = _Prober().decide(context(world, i, {}))
            got = _decide(policy, context(world, i, memory))
            if (got.row, got.probe, got.propensity) != (wanted.row, True, wanted.propensity):
                raise AssertionError(
                    f"{name_of(policy)} made row {got.row} (probe={got.probe}, propensity {got.propensity:g}) of a "
                    f"probe of row {wanted.row} (propensity {wanted.propensity:g}): return the wrapped policy's "
                    f"decision as it is where decision.probe ({shown(context(world, i))})"
                )


def check_passes_lessons_on(wrap: Wrap) -> None:
    """What the wrapper learns, the wrapped policy learns once, and finds in its memory when it decides next."""
    pupil = _Pupil()
    policy = wrap(pupil)
    world, memory = worlds()[0], dict[str, Any]()
    for i in range(_CONTEXTS):
        _decide(policy, context(world, i, memory))
        policy.learn(Observation(plan_id=i, cut=1, head_s=0.1), memory)
        if pupil.taught != list(range(i + 1)):
            how = "did not pass on" if pupil.taught[-1:] != [i] else "passed on more than once"
            raise AssertionError(
                f"{name_of(policy)} {how} what it learnt: let learn() call the wrapped policy's learn(), once"
            )
        before = len(pupil.found)
        _decide(policy, context(world, i, memory))
        if len(pupil.found) > before and pupil.found[-1] != i + 1:
            raise AssertionError(
                f"{name_of(policy)} let the wrapped policy learn into another memory than it decides with: "
                "pass on the memory that learn() is given"
            )


def check_leaves_the_inner_memory_alone(wrap: Wrap) -> None:
    """The wrapped policy's notes are as it left them: each policy has a key of its own."""
    pupil = _Pupil()
    policy = wrap(pupil)
    for world in worlds():
        memory: dict[str, Any] = {}
        asked = len(pupil.found)
        for i in range(_CONTEXTS):
            _decide(policy, context(world, i, memory))
        decided = len(pupil.found) - asked
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
            world = worlds()[0]
            policy = wrap(_Settled(home, None, flat))
            without = Life(world, policy, seed=0).requests(_REQUESTS)
            with_probes = Life(world, wrap(_Settled(home, probe, flat)), seed=0).requests(_REQUESTS)
            usual = {told.cut for told in without if not told.probe}
            for i, told in enumerate(with_probes, 1):
                if told.cut == probe and not told.probe and probe not in usual:
                    raise AssertionError(
                        f"{name_of(policy)} stays with a probe: the wrapped policy wants cut {home} and only probed "
                        f"cut {probe}, which request {i} got as no probe ({told.why}). Stay with "
                        "context.incumbent, not with the row that was executed last"
                    )


def check_permits_no_more_than_the_inner(wrap: Wrap) -> None:
    """Neither its choices nor what it permits go beyond what the wrapped policy permits: that may be private."""
    picky = _Picky()
    policy = wrap(picky)
    for world in worlds():
        memory: dict[str, Any] = {}
        for i in range(_CONTEXTS):
            now = context(world, i, memory)
            permitted = picky.permits(now)
            more = np.flatnonzero(policy.permits(now) & ~permitted)
            if len(more):
                raise AssertionError(
                    f"{name_of(policy)} permits row {more[0]}, which the wrapped policy does not: let permits() return "
                    f"the wrapped policy's ({shown(now)})"
                )
            got = _decide(policy, now)
            if not permitted[got.row]:
                raise AssertionError(
                    f"{name_of(policy)} chose row {got.row} ({got.why}), which the wrapped policy does not permit: "
                    f"choose among self.policy.permits(context) ({shown(now)})"
                )


wrapper_checks: Final[tuple[Callable[[Wrap], None], ...]] = (
    check_passes_probes_through,
    check_does_not_latch_onto_probes,
    check_passes_lessons_on,
    check_leaves_the_inner_memory_alone,
    check_permits_no_more_than_the_inner,
)
"""All of them, to parametrize a test with. Run `policy_checks` too: ``check(lambda: Mine(si.Best()))``."""


@frozen
class _Prober(Policy):
    """Probes always."""

    def decide(self, context: Context) -> Decision:
        rows = np.flatnonzero(context.mask)
        return Decision(int(rows[len(rows) // 2]), "look", probe=True, propensity=0.25)


@frozen
class _Picky(Policy):
    """Wants every second row only."""

    def decide(self, context: Context) -> Decision:
        return Decision(context.costs.masked(self.permits(context)).best(), "picky")

    def permits(self, context: Context) -> NDArray[np.bool_]:
        permitted = np.zeros(len(context.mask), dtype=np.bool_)
        permitted[np.flatnonzero(context.mask)[::2]] = True
        return permitted


@frozen(eq=False)
class _Pupil(Policy):
    """Counts in its memory, and here what it was taught and what it found there."""

    taught: list[int] = field(factory=list)
    found: list[int] = field(factory=list)
    counts: list[int] = field(factory=list)

    def decide(self, context: Context) -> Decision:
        notes = context.memory.setdefault("_pupil", {"decided": 0, "learnt": 0})
        notes["decided"] += 1
        self.counts.append(notes["decided"])
        self.found.append(notes["learnt"])
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
        objective = _equal if self.flat else None
        for cut, probe in ((self.probe, True), (self.home, False)):
            if cut is None or (probe and notes["requests"] % _EVERY):
                continue
            row = context.at_cut(cut)
            if context.allows(row):
                return Decision(row, "look" if probe else "settled", probe, objective=objective)
        best = context.best()  # the edge is down
        return Decision(best.row, "the rest", probe=True)


def _decide(policy: Policy, seen: Context) -> Decision:
    try:
        return policy.decide(seen)
    except Exception as error:
        raise AssertionError(f"{name_of(policy)} raised {error!r} {shown(seen)}") from error
