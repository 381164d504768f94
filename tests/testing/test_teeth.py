"""Each check catches what it is for, and says whose fault it is and what to do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from attrs import define, evolve, field, frozen

from splitiot.estimators import Belief, Ema, WaitEstimator
from splitiot.observation import Observation
from splitiot.policies import Best, Context, Decision, Fixed, Policy, PolicyMemory, Ranking
from splitiot.testing import estimator_checks, policy_checks, scalar_checks, wrapper_checks
from splitiot.testing import estimators as for_estimators
from splitiot.testing import policies as for_policies
from splitiot.testing import scalars as for_scalars
from splitiot.testing import wrappers as for_wrappers

# policies -----------------------------------------------------------------------------------------------------


class FirstRow(Policy):
    def decide(self, context: Context) -> Decision:
        return Decision(0, "the first")


class LastRow(Policy):
    def decide(self, context: Context) -> Decision:
        return Decision(-1, "the last")


class FastestOfAll(Policy):
    def decide(self, context: Context) -> Decision:
        return Decision(int(context.costs.latency_s.argmin()), "the fastest")


class AlwaysLocal(Policy):
    def decide(self, context: Context) -> Decision:
        return Decision(context.local_row, "local")  # type: ignore[arg-type]


class NeedsBattery(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best("energy_j" if context.telemetry["battery"] < 0.2 else None)


class NeedsBeliefs(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best(why=f"{context.beliefs.edge.samples} samples")  # type: ignore[union-attr]


class NoDecision(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best().row  # type: ignore[return-value]


class MasksWithInfinity(Policy):
    def decide(self, context: Context) -> Decision:
        return Decision(int(np.where(context.mask, context.costs.latency_s, np.inf).argmin()), "the fastest")


class IndexesTheAllowed(Policy):
    def decide(self, context: Context) -> Decision:
        return Decision(int(np.flatnonzero(context.mask)[0]), "the first allowed")


class NumpyRow(Policy):
    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), row=np.int64(context.best().row))


class NumpyProbe(Policy):
    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), probe=np.bool_(False))


class Never(Policy):
    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), propensity=0.0)


class NotANumber(Policy):
    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), propensity=float("nan"))


class Wordless(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best(why=" ")


class Aimless(Policy):
    def decide(self, context: Context) -> Decision:
        ranking = context.ranked()
        return evolve(ranking.decision(), ranking=Ranking(ranking.values, ranking.mask, "so", "money"))  # type: ignore[arg-type]


class Boasts(Policy):
    """Ranks by halves of what it says that it ranks by."""

    def rank(self, context: Context) -> Ranking:
        return Ranking(context.costs.latency_s / 2, context.mask, "twice as fast", "latency_s")


class RanksAnArray(Policy):
    def rank(self, context: Context) -> Ranking:
        return context.costs.latency_s  # type: ignore[return-value]


class RanksAll(Policy):
    def rank(self, context: Context) -> Ranking:
        return Ranking(context.costs.latency_s, np.ones(len(context.mask), np.bool_), "fast")

    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), ranking=self.rank(context))


class RanksSome(Policy):
    def decide(self, context: Context) -> Decision:
        best = context.best()
        return evolve(best, ranking=Ranking(context.costs.latency_s[:2], context.mask[:2], "two"))


class OutsideItsRanking(Policy):
    def decide(self, context: Context) -> Decision:
        best, rows = context.best(), np.arange(len(context.mask))
        mask = context.mask & (rows != best.row)
        return evolve(best, ranking=context.ranked(mask=mask) if mask.any() else best.ranking)


class RanksByAnInt(Policy):
    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), ranking=3)


class ChoosesNever(Policy):
    def decide(self, context: Context) -> Decision:
        return evolve(context.best(), ranking=Ranking(context.costs.latency_s * np.nan, context.mask, "never"))


class WritesMask(Policy):
    def decide(self, context: Context) -> Decision:
        context.mask[0] = True
        return context.best()


class ForcesMask(Policy):
    def decide(self, context: Context) -> Decision:
        decision = context.best()
        context.mask.flags.writeable = True
        context.mask[decision.row] = False
        return decision


class ForcesBeliefs(Policy):
    def decide(self, context: Context) -> Decision:
        decision = context.best()
        vector = context.costs.beliefs
        vector.flags.writeable = True
        vector[0] *= 2
        return decision


class OtherCosts(Policy):
    def decide(self, context: Context) -> Decision:
        decision = context.best()
        context.costs = context.costs.masked(context.costs.cuts == context.costs.cuts[decision.row])
        return decision


class OtherIncumbent(Policy):
    def decide(self, context: Context) -> Decision:
        context.incumbent = 1
        return context.best()


@define
class Counts(Policy):
    asked: int = 0

    def decide(self, context: Context) -> Decision:
        self.asked += 1
        return context.best(why=f"number {self.asked}")


@frozen
class Appends(Policy):
    """Frozen outside, not inside."""

    rows: list[int] = field(factory=list)

    def decide(self, context: Context) -> Decision:
        decision = context.best()
        self.rows.append(decision.row)
        return decision


class OwnGenerator(Policy):
    def __init__(self) -> None:
        self.chance = np.random.default_rng(0)

    def decide(self, context: Context) -> Decision:
        return context.best(why="heads" if self.chance.random() < 0.5 else "tails")


class CountsInTheClass(Policy):
    asked: ClassVar[int] = 0

    def decide(self, context: Context) -> Decision:
        CountsInTheClass.asked += 1
        return context.best(why=f"number {self.asked}")


class GlobalChance(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best(why="heads" if np.random.rand() < 0.5 else "tails")  # noqa: NPY002  (what a bad class does)


class PythonsChance(Policy):
    def decide(self, context: Context) -> Decision:
        random.random()
        return context.best()


class FreshChance(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best(why="heads" if np.random.default_rng().random() < 0.5 else "tails")


class KeepsTuples(Policy):
    def decide(self, context: Context) -> Decision:
        decision = context.best()
        context.memory["tuples"] = {"last": (decision.row,)}
        return decision


class KeepsIntKeys(Policy):
    def decide(self, context: Context) -> Decision:
        decision = context.best()
        context.memory.setdefault("rows", {})[decision.row] = 1
        return decision


class KeepsArrays(Policy):
    def decide(self, context: Context) -> Decision:
        context.memory["arrays"] = {"last": context.costs.latency_s}
        return context.best()


class Typed(PolicyMemory, frozen=True):
    rows: tuple[int, ...] = ()
    longest_s: float = 0.0


class KeepsTypes(Policy):
    """As it should be: JSON makes lists of tuples, and the types make tuples of them again."""

    def decide(self, context: Context) -> Decision:
        decision = context.best()
        before = Typed.of(context.memory) or Typed()
        Typed((*before.rows[-3:], decision.row)).keep(context.memory)
        return evolve(decision, why=f"after {before.rows}")


class KeepsTypedInfinity(Policy):
    def decide(self, context: Context) -> Decision:
        Typed(longest_s=float("inf")).keep(context.memory)
        return context.best()


class KeepsOtherTypes(Policy):
    def decide(self, context: Context) -> Decision:
        Typed(rows=[context.best().row]).keep(context.memory)  # type: ignore[arg-type]
        return context.best()


class KeepsNotes(Policy):
    """In a dict that it keeps itself: gone after a restart."""

    def __init__(self) -> None:
        self.notes: dict[int, int] = {}

    def decide(self, context: Context) -> Decision:
        decision = context.best()
        self.notes[decision.row] = self.notes.get(decision.row, 0) + 1
        return evolve(decision, why=f"time {self.notes[decision.row]}")


class MeansOfAll(Policy):
    """One NaN, and the mean is NaN for ever."""

    def decide(self, context: Context) -> Decision:
        return context.best()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        if observation.head_s is not None:
            memory["mean"] = 0.9 * memory.get("mean", 0.0) + 0.1 * observation.head_s


class WantsHeads(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        memory["head"] = observation.head_s > 0.1  # type: ignore[operator]


class WantsNotes(Policy):
    def decide(self, context: Context) -> Decision:
        context.memory.setdefault("notes", {"learnt": 0})
        return context.best()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        memory["notes"]["learnt"] += 1


class KeepsAll(Policy):
    def decide(self, context: Context) -> Decision:
        return context.best()

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        memory.setdefault("seen", []).append(observation.plan_id)


POLICIES: list[tuple[Callable[..., None], Callable[[], Policy], str]] = [
    (for_policies.check_chooses_only_allowed_rows, FirstRow, r"chose row 0 \(cut \d\), which is not allowed"),
    (for_policies.check_chooses_only_allowed_rows, LastRow, r"chose row -1 of 0 to 5"),
    (for_policies.check_chooses_only_allowed_rows, FastestOfAll, r"not allowed: with cuts .* Choose with context.best"),
    (for_policies.check_chooses_only_allowed_rows, NeedsBattery, r"raised KeyError\('battery'\) .*without telemetry"),
    (for_policies.check_chooses_only_allowed_rows, NeedsBeliefs, r"raised AttributeError.* no beliefs"),
    (for_policies.check_chooses_only_allowed_rows, NoDecision, "returned a int: return a Decision"),
    (for_policies.check_works_without_a_local_row, AlwaysLocal, "the last step is pinned to the edge"),
    (for_policies.check_says_infeasible, MasksWithInfinity, "chose row 0 where none is allowed"),
    (for_policies.check_says_infeasible, IndexesTheAllowed, r"raised IndexError.* where none is allowed"),
    (for_policies.check_decisions_make_sense, NumpyRow, "row is .*, a int64: make it an int"),
    (for_policies.check_decisions_make_sense, NumpyProbe, "probe is .* make it a bool"),
    (for_policies.check_decisions_make_sense, Never, r"propensity is 0\.0"),
    (for_policies.check_decisions_make_sense, NotANumber, "propensity is nan"),
    (for_policies.check_decisions_make_sense, Wordless, "why is ' ': say in words"),
    (for_policies.check_decisions_make_sense, Aimless, "has the objective 'money': no objective"),
    (for_policies.check_decisions_make_sense, Boasts, "other values than its objective gives"),
    (for_policies.check_decisions_make_sense, RanksAnArray, r"RanksAnArray.rank returned a ndarray: return context"),
    (for_policies.check_decisions_make_sense, RanksAll, r"permits row \d, which is not allowed"),
    (for_policies.check_decisions_make_sense, RanksSome, r"ranking has 2 rows of \d"),
    (for_policies.check_decisions_make_sense, OutsideItsRanking, "which its own ranking .* does not permit"),
    (for_policies.check_decisions_make_sense, RanksByAnInt, "ranking is 3: make one"),
    (for_policies.check_decisions_make_sense, ChoosesNever, r"ranking has (nan|inf) for its row \d"),
    (for_policies.check_changes_nothing_in_the_context, WritesMask, "read-only.* change nothing in it but memory"),
    (for_policies.check_changes_nothing_in_the_context, ForcesMask, "changed the mask of its context"),
    (for_policies.check_changes_nothing_in_the_context, ForcesBeliefs, "changed the costs of its context"),
    (for_policies.check_changes_nothing_in_the_context, OtherCosts, "gave the context other costs"),
    (for_policies.check_changes_nothing_in_the_context, OtherIncumbent, "changed the incumbent of its context"),
    (for_policies.check_does_not_change_itself, Counts, "changed itself .*keep what you remember in context.memory"),
    (for_policies.check_does_not_change_itself, Appends, "changed itself"),
    (for_policies.check_does_not_change_itself, OwnGenerator, "changed itself"),
    (for_policies.check_same_context_same_decision, Counts, "when it was asked again in the same context"),
    (for_policies.check_same_seed_same_decisions, CountsInTheClass, "decided twice differently under one seed"),
    (for_policies.check_uses_no_other_chance, GlobalChance, "drew from a global generator"),
    (for_policies.check_uses_no_other_chance, PythonsChance, "drew from a global generator"),
    (for_policies.check_uses_no_other_chance, FreshChance, "not decided by the planner's seed"),
    (for_policies.check_devices_share_nothing, Counts, "when it served another one in between: request 2"),
    (for_policies.check_memory_is_plain_data, KeepsTuples, r"context.memory\['tuples'\]\['last'\] is a tuple"),
    (for_policies.check_memory_is_plain_data, KeepsIntKeys, r"context.memory\['rows'\] has the key \d"),
    (for_policies.check_memory_is_plain_data, KeepsArrays, "is a numpy.ndarray, which JSON does not know"),
    (for_policies.check_memory_is_plain_data, KeepsTypedInfinity, "is a Typed that JSON does not bring back"),
    (for_policies.check_memory_is_plain_data, KeepsOtherTypes, "and comes back from JSON as Typed"),
    (for_policies.check_goes_on_after_a_restart, KeepsNotes, "after a restart behind request 1 .*: request"),
    (for_policies.check_survives_any_observation, MeansOfAll, "mean'] is (nan|inf|-inf)"),
    (for_policies.check_survives_any_observation, WantsHeads, "raised|TypeError.*while it learnt"),
    (for_policies.check_survives_any_observation, WantsNotes, r"KeyError\('notes'\).* nothing may have been decided"),
    (for_policies.check_memory_stays_bounded, KeepsAll, r"more and more in context.memory: .* Keep sums"),
    (for_policies.check_memory_stays_bounded, Appends, "more and more in itself"),
]


@pytest.mark.parametrize(("check", "bad", "words"), POLICIES)
def test_bad_policies_are_caught(check: Callable[..., None], bad: Callable[[], Policy], words: str) -> None:
    more = {"updates": 5000} if check is for_policies.check_memory_stays_bounded else {}
    with pytest.raises(AssertionError, match=rf"^{bad.__name__}\b.*({words})"):
        check(bad, **more)


# wrappers -----------------------------------------------------------------------------------------------------


@frozen
class Wrapper(Policy):
    policy: Policy

    def decide(self, context: Context) -> Decision:
        return self.policy.decide(context)

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory)


class HidesProbes(Wrapper):
    def decide(self, context: Context) -> Decision:
        return evolve(self.policy.decide(context), probe=False)


class OverrulesProbes(Wrapper):
    def decide(self, context: Context) -> Decision:
        self.policy.decide(context)
        return context.best()


class StaysWithTheLast(Wrapper):
    """A hysteresis that remembers what was executed last."""

    def decide(self, context: Context) -> Decision:
        inner, last = self.policy.decide(context), context.memory.get("last")
        if not inner.probe and last is not None and context.allows(last):
            values = context.costs.latency_s if inner.ranking is None else inner.ranking.values
            if values[last] <= 1.1 * values[inner.row]:
                inner = evolve(inner, row=last)
        context.memory["last"] = inner.row
        return inner


class Deaf(Wrapper):
    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        pass


class Echo(Wrapper):
    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory)
        self.policy.learn(observation, memory)


class TeachesElsewhere(Wrapper):
    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        self.policy.learn(observation, memory.setdefault("mine", {}))


class Silent(Wrapper):
    """Its decisions carry no ranking."""

    def decide(self, context: Context) -> Decision:
        return evolve(self.policy.decide(context), ranking=None)


class Curious(Wrapper):
    def decide(self, context: Context) -> Decision:
        row = int(np.flatnonzero(context.mask)[-1])
        return Decision(row, "curious", probe=True)


class Lax(Wrapper):
    def decide(self, context: Context) -> Decision:
        inner = self.policy.decide(context)
        return context.best(why="best") if inner.ranking is None else inner


class Impatient(Wrapper):
    """A hysteresis that compares by the planner's objective, whatever the policy inside wants."""

    def decide(self, context: Context) -> Decision:
        inner, stay, ranking = self.policy.decide(context), context.incumbent, None
        if inner.probe or stay is None or (ranking := inner.ranking) is None or not ranking.allows(stay):
            return inner
        values = context.costs.values(context.objective)
        return evolve(inner, row=stay, why="stay") if values[stay] <= values[inner.row] else inner


class Greedy(Wrapper):
    """Probes what would be the least of the planner's objective."""

    def decide(self, context: Context) -> Decision:
        inner = self.policy.decide(context)
        if inner.probe or inner.ranking is None:
            return inner
        return evolve(context.best(), why="fastest", probe=True)


class Escapes(Wrapper):
    """The same, with the ranking of the policy inside: that can't be written."""

    def decide(self, context: Context) -> Decision:
        inner = self.policy.decide(context)
        return evolve(inner, row=context.best().row, why="fastest", probe=True)


class AsksTwice(Wrapper):
    def decide(self, context: Context) -> Decision:
        self.policy.decide(context)
        return self.policy.decide(context)


class Forgets(Wrapper):
    def decide(self, context: Context) -> Decision:
        context.memory.clear()
        return self.policy.decide(context)


WRAPPERS: list[tuple[Callable[..., None], Callable[[Policy], Policy], str]] = [
    (for_wrappers.check_passes_probes_through, HidesProbes, r"\(probe=False, propensity 0.25\) of a probe"),
    (for_wrappers.check_passes_probes_through, OverrulesProbes, "return the wrapped policy's decision"),
    (for_wrappers.check_does_not_latch_onto_probes, StaysWithTheLast, "stays with a probe: .*context.incumbent"),
    (for_wrappers.check_passes_lessons_on, Deaf, "did not pass on"),
    (for_wrappers.check_passes_lessons_on, Echo, "passed on more than once"),
    (for_wrappers.check_passes_lessons_on, TeachesElsewhere, "another memory than it decides with"),
    (for_wrappers.check_keeps_to_the_ranking, Silent, r"did not hand on the wrapped policy's ranking"),
    (for_wrappers.check_keeps_to_the_ranking, Curious, r"chose row \d+ \(curious\), which the wrapped"),
    (for_wrappers.check_passes_decisions_without_ranking_on, Curious, "asked the wrapped policy 0 times in request 1"),
    (for_wrappers.check_passes_decisions_without_ranking_on, Lax, r"made cut \d \(best\) of a decision for cut \d"),
    (for_wrappers.check_keeps_the_aim, Impatient, r"around a Deadline has stayed at .* wants cut 5 .*compare by"),
    (for_wrappers.check_keeps_the_aim, Greedy, r"chose cut \d \(fastest\) in request \d+, which that does not permit"),
    (for_wrappers.check_keeps_the_aim, Escapes, r"CutError\(.*Escapes chose row \d \(fastest\), which its ranking"),
    (for_wrappers.check_keeps_the_aim, AsksTwice, "asked the wrapped policy 2 times in request 1"),
    (for_wrappers.check_leaves_the_inner_memory_alone, Forgets, "changed what the wrapped policy keeps"),
]


@pytest.mark.parametrize(("check", "bad", "words"), WRAPPERS)
def test_bad_wrappers_are_caught(check: Callable[..., None], bad: Callable[[Policy], Policy], words: str) -> None:
    with pytest.raises(AssertionError, match=rf"^{bad.__name__}\b.*({words})"):  # type: ignore[attr-defined]
        check(bad)


@pytest.mark.parametrize("check", wrapper_checks)
def test_a_wrapper_that_does_nothing_passes(check: Callable[..., None]) -> None:
    check(Wrapper)


# estimators of numbers ----------------------------------------------------------------------------------------


class PopsOnGet(Ema):
    def get(self) -> float:
        value = super().get()
        self._mean *= 0.999
        return value


class TakesAnything(Ema):
    def update(self, x: float) -> None:
        self.samples += 1
        self._mean = x if self.samples == 1 else self._mean + self.alpha * (x - self._mean)


class DoesNotCount(Ema):
    def update(self, x: float) -> None:
        before = self.refused
        super().update(x)
        self.refused = before


class Divides(Ema):
    def update(self, x: float) -> None:
        super().update(x)
        self.inverse = 1 / x if x == x and x >= 0 else 0.0


class Dithers(Ema):
    def update(self, x: float) -> None:
        super().update(x * (1 + 1e-3 * random.random()))


class Shared(Ema):
    seen: ClassVar[list[float]] = []

    def update(self, x: float) -> None:
        Shared.seen[:] = [*Shared.seen[-4:], x]
        super().update(x)

    def get(self) -> float:
        return sum(Shared.seen) / max(len(Shared.seen), 1)


class Amnesia(Ema):
    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state | {"deviation": 0.0, "far": 0})


class Window:
    """Of the last five; its snapshot is the window itself."""

    def __init__(self) -> None:
        self.last: list[float] = []
        self.refused = 0

    def update(self, x: float) -> None:
        if 0 <= x < float("inf"):
            self.last.append(x)
            del self.last[:-5]
        else:
            self.refused += 1

    def get(self) -> float:
        return sum(self.last) / max(len(self.last), 1)

    def snapshot(self) -> dict[str, Any]:
        return {"last": self.last, "refused": self.refused}

    def restore(self, state: dict[str, Any]) -> None:
        self.last, self.refused = list(state["last"]), state["refused"]


class TakesTheState(Window):
    def snapshot(self) -> dict[str, Any]:
        return {"last": list(self.last), "refused": self.refused}

    def restore(self, state: dict[str, Any]) -> None:
        self.last, self.refused = state["last"], state["refused"]


class Hoards(Ema):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[float] = []

    def update(self, x: float) -> None:
        super().update(x)
        self.all.append(x)


class HoardsInTheSnapshot(Hoards):
    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"all": self.all}


class Mute:
    def update(self, x: float) -> None:
        pass


SCALARS: list[tuple[Callable[..., None], Callable[[], Any], str]] = [
    (for_scalars.check_reading_changes_nothing, PopsOnGet, "two answers without an update between: get is"),
    (for_scalars.check_reading_changes_nothing, Mute, "can't be read"),
    (for_scalars.check_refuses_impossible_numbers, TakesAnything, "did not count in `refused` that it was given nan"),
    (for_scalars.check_refuses_impossible_numbers, DoesNotCount, "did not count in `refused`"),
    (
        for_scalars.check_survives_any_number,
        Divides,
        "raised ZeroDivisionError.* given -?0.0: refuse what you can't use",
    ),
    (for_scalars.check_same_numbers_same_estimates, Dithers, "two answers for the same input"),
    (for_scalars.check_instances_share_nothing, Shared, "differs when a second one is updated in between"),
    (for_scalars.check_goes_on_after_a_restart, Amnesia, "restored after 2 updates: spread is"),
    (for_scalars.check_keeps_no_alias, Window, "changed with .*its snapshot: get is"),
    (for_scalars.check_keeps_no_alias, TakesTheState, r"kept the state that restore\(\) was given"),
    (for_scalars.check_memory_stays_bounded, Hoards, "grows: its object had"),
    (for_scalars.check_memory_stays_bounded, HoardsInTheSnapshot, "grows: its snapshot had"),
]


@pytest.mark.parametrize(("check", "bad", "words"), SCALARS)
def test_bad_scalars_are_caught(check: Callable[..., None], bad: Callable[[], Any], words: str) -> None:
    more = {"updates": 5000} if check is for_scalars.check_memory_stays_bounded else {}
    with pytest.raises(AssertionError, match=rf"^{bad.__name__}\b.*({words})"):
        check(bad, **more)


# estimators of observations -----------------------------------------------------------------------------------


class HeadTimes:
    """The last seconds of a head: without a `refused`, and it can't be stored."""

    def __init__(self) -> None:
        self.last_s, self.at_s, self.samples = 0.1, 0.0, 0

    def update(self, observation: Observation, now_s: float) -> None:
        if observation.head_s is not None:
            self.last_s, self.at_s, self.samples = observation.head_s, now_s, self.samples + 1

    def belief(self, now_s: float) -> Belief:
        return Belief(self.last_s, 0.0, now_s - self.at_s, self.samples)


class Refusing(HeadTimes):
    def __init__(self) -> None:
        super().__init__()
        self.refused = 0


class Storable(Refusing):
    def snapshot(self) -> dict[str, Any]:
        return {"last_s": self.last_s, "at_s": self.at_s, "samples": self.samples, "refused": self.refused}

    def restore(self, state: dict[str, Any]) -> None:
        self.last_s, self.at_s = state["last_s"], state["at_s"]
        self.samples, self.refused = state["samples"], state["refused"]


class NaNBeforeTheFirst(Storable):
    def __init__(self) -> None:
        super().__init__()
        self.last_s = float("nan")


class CountsReads(Storable):
    def belief(self, now_s: float) -> Belief:
        self.samples += 1
        return super().belief(now_s)


class WantsTheEdge(Storable):
    def update(self, observation: Observation, now_s: float) -> None:
        self.last_s = observation.edge.compute_s  # type: ignore[union-attr]


class Squares(WaitEstimator):
    """Finite numbers, whose squares are not."""

    def update(self, observation: Observation, now_s: float) -> None:
        super().update(observation, now_s)
        times = observation.edge
        if times is not None and times.residence_s > 1 and times.residence_s < float("inf"):
            self._median = times.residence_s * times.residence_s


class Uncertain(WaitEstimator):
    def update(self, observation: Observation, now_s: float) -> None:
        super().update(observation, now_s)
        self._median *= 1 + 1e-3 * float(np.random.default_rng().random())


class OneForAll(WaitEstimator):
    windows: ClassVar[list[float]] = [0.0] * 5

    def update(self, observation: Observation, now_s: float) -> None:
        self._window = OneForAll.windows
        super().update(observation, now_s)
        OneForAll.windows = self._window


class ForgetsWhen(WaitEstimator):
    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"last_s": None}


class HandsOut(WaitEstimator):
    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"window": self._window}


class Vector(WaitEstimator):
    """What it hands out is what it reckons with."""

    def __init__(self) -> None:
        super().__init__()
        self.held = np.zeros(3)

    def vector(self, now_s: float) -> Any:
        return self.held


class KeepsEveryPlan(WaitEstimator):
    def __init__(self) -> None:
        super().__init__()
        self._plans: set[int] = set()

    def update(self, observation: Observation, now_s: float) -> None:
        self._plans.add(observation.plan_id)
        super().update(observation, now_s)


ESTIMATORS: list[tuple[Callable[..., None], Callable[[], Any], str]] = [
    (for_estimators.check_has_what_a_planner_needs, HeadTimes, "has no `refused`"),
    (for_estimators.check_has_what_a_planner_needs, Refusing, r"needs snapshot\(\) and restore\(state\)"),
    (for_estimators.check_has_what_a_planner_needs, NaNBeforeTheFirst, "belief.value is nan before the first"),
    (for_estimators.check_reading_changes_nothing, CountsReads, "two answers without an update between"),
    (for_estimators.check_refuses_impossible_numbers, Storable, "did not count in `refused` that it was given Observ"),
    (for_estimators.check_survives_any_observation, WantsTheEdge, "raised AttributeError.*refuse what you can't use"),
    (for_estimators.check_survives_any_observation, Squares, "get gives inf after absurd updates"),
    (for_estimators.check_survives_any_clock, Storable, r"belief.age_s is -\d+.*its age is inf"),
    (for_estimators.check_same_observations_same_beliefs, Uncertain, "two answers for the same input"),
    (for_estimators.check_instances_share_nothing, OneForAll, "differs when a second one is updated"),
    (for_estimators.check_goes_on_after_a_restart, ForgetsWhen, r"restored after \d updates: (get|belief) is"),
    (for_estimators.check_keeps_no_alias, HandsOut, "changed with .*its snapshot"),
    (for_estimators.check_keeps_no_alias, Vector, "changed with an array that it had handed out.*read-only arrays"),
    (for_estimators.check_memory_stays_bounded, KeepsEveryPlan, "grows: its object had"),
]


@pytest.mark.parametrize(("check", "bad", "words"), ESTIMATORS)
def test_bad_estimators_are_caught(check: Callable[..., None], bad: Callable[[], Any], words: str) -> None:
    more = {"updates": 5000} if check is for_estimators.check_memory_stays_bounded else {}
    with pytest.raises(AssertionError, match=rf"(?s)^{bad.__name__}\b.*({words})"):
        check(bad, **more)


# the kit itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checks", "teeth"),
    [
        (policy_checks, POLICIES),
        (wrapper_checks, WRAPPERS),
        (scalar_checks, SCALARS),
        (estimator_checks, ESTIMATORS),
    ],
    ids=["policies", "wrappers", "scalars", "estimators"],
)
def test_each_check_has_teeth(checks: tuple[Callable[..., None], ...], teeth: list[tuple[Any, Any, str]]) -> None:
    assert set(checks) == {check for check, _, _ in teeth}
    assert all(check.__name__.startswith("check_") and check.__doc__ for check in checks)


@pytest.mark.parametrize("check", policy_checks)
def test_a_policy_with_a_typed_memory_passes(check: Callable[..., None]) -> None:
    check(KeepsTypes)


@pytest.mark.parametrize("check", policy_checks)
def test_what_can_not_be_made_is_a_type_error(check: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=r"Fixed can't be made without arguments .* give lambda: Fixed"):
        check(Fixed)
    with pytest.raises(TypeError, match=r"got a Best: give lambda: Best\(...\)"):
        check(Best())


def test_one_object_for_all_is_a_type_error() -> None:
    one = Ema()
    with pytest.raises(TypeError, match="makes a new Ema each time"):
        for_scalars.check_instances_share_nothing(lambda: one)


def test_the_global_generators_are_left_as_they_were() -> None:
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002  (what a bad class does)
    wanted = random.random(), np.random.rand()  # noqa: NPY002  (what a bad class does)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002  (what a bad class does)
    for_policies.check_uses_no_other_chance(Best)
    for_scalars.check_same_numbers_same_estimates(Ema)
    assert (random.random(), np.random.rand()) == wanted  # noqa: NPY002  (what a bad class does)
