"""Beliefs, costs and a policy: chooses a placement for every request, and learns from what it took."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import numpy as np
from attrs import evolve

from splitiot._expect import expect
from splitiot.cost import (
    AtMost,
    Constraint,
    Costs,
    Objective,
    Power,
    StepsOnDevice,
    as_constraints,
    costs,
    met,
)
from splitiot.errors import Infeasible, ProfileError
from splitiot.estimators import Beliefs, JointEstimator
from splitiot.estimators.deduplicator import MAX_ID
from splitiot.observation import Observation
from splitiot.pipeline import Pipeline
from splitiot.plan import Plan
from splitiot.policies import Context, Decision, Policy, adaptive
from splitiot.policies._base import asked, checked, checked_objective
from splitiot.policies._memory import plain_memory
from splitiot.recorder import GuardedRecorder, Recorder
from splitiot.topology import Link, TierProfile, Topology

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Estimators", "Planner", "PlannerState"]

Estimators: TypeAlias = Callable[[Sequence[TierProfile], Link], JointEstimator]
"""Makes what learns, from the profiles of device and edge and the prior link."""

_VERSION: Final = 4
_NO_TELEMETRY: Final[Mapping[str, float]] = MappingProxyType({})
_P99: Final = 2.3263478740408408  # 99 % quantile of the standard normal distribution


class PlannerState(msgspec.Struct, kw_only=True):
    """All that a planner knows of one device, as plain versioned data.

    Parameters
    ----------
    version : int
    digest : str
        Of the pipeline.
    next_id : int
        The next plan's id.
    incumbent, fixed : list of int, optional
        Cuts of the last placement that was no probe, and of the one that a stateful pipeline is bound to.
    memory : dict
        The policies' notes.
    random : dict, optional
        State of the generator, None while unused.
    seed : int
    now_s : float
    estimators : dict
        See `JointEstimator.snapshot`.
    """

    digest: str
    next_id: int
    seed: int
    now_s: float
    estimators: dict[str, Any]
    memory: dict[str, Any]
    incumbent: list[int] | None = None
    fixed: list[int] | None = None
    random: dict[str, Any] | None = None
    version: int = _VERSION


class Planner:
    """Chooses placements for one device's requests, and learns from observations.

    It lives on the device or on the edge, owns no clock and no thread, and is not thread-safe.

    Parameters
    ----------
    pipeline : Pipeline
    topology : Topology
        Device and edge; its link is believed until there are samples.
    policy : Policy, optional
        `adaptive(objective)` unless given: the best placement, and now and then a measurement of what is in doubt.
    objective : Objective
    seed : int
        Of the generator that policies may use.
    parts : iterable of (start, stop), optional
        The parts that the device has; all unless given.
    power : Power, optional
        For ``energy_j``.
    subject_to : constraint, or iterable of them
        `AtMost`, `StepsOnDevice`, or a callable that takes the `Costs` and gives one bool a row: no placement without
        them is ever chosen, and no policy sees one. (The wishes of `Best` give way where nothing meets them.)
    estimators : callable
        Makes what learns, from the tiers' profiles and the prior link: `JointEstimator`, or one with other settings:
        ``functools.partial(JointEstimator, alpha=0.1, detector=VarianceDetector)``.
    recorder : Recorder, optional
        Is told each plan and each observation, for a log.

    Raises
    ------
    ProfileError, ValueError
        See `costs`.
    TypeError
        `policy` is a class, or no policy.

    Examples
    --------
    >>> from splitiot import tasks
    >>> def double(x): return 2 * x
    >>> pipeline = tasks([double])
    >>> profile = TierProfile.from_steps(pipeline.digest, [0.5], sent_bytes=[1000, 0], returned_bytes=[0, 0])
    >>> link = Link.from_mbit_per_s(1, rtt_s=0.01)
    >>> planner = Planner(pipeline, Topology(tiers=[profile, profile.scaled(0.1)], links=[link]))
    >>> planner.decide(now_s=0.0).cut
    0
    >>> slow = Observation(plan_id=0, cut=0, probe=True, round_trip_s=2.0, sent_bytes=1000)
    >>> planner.observe(slow, now_s=2.0)
    >>> planner.decide(now_s=2.0).cut
    1
    """

    def __init__(
        self,
        pipeline: Pipeline,
        topology: Topology,
        policy: Policy | None = None,
        *,
        objective: Objective = "latency_s",
        seed: int = 0,
        parts: Iterable[tuple[int, int]] | None = None,
        power: Power | None = None,
        subject_to: Iterable[Constraint] | Constraint = (),
        estimators: Estimators = JointEstimator,
        recorder: Recorder | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.topology = topology
        expect(topology, Topology, "topology", "Topology(tiers=[device, edge], links=[link])")
        self.objective: Objective = checked_objective(objective)
        self.policy: Policy = adaptive(objective) if policy is None else checked(policy)
        self._power = power
        self._parts = None if parts is None else tuple(parts)
        self._cuts: frozenset[int] | None = None
        self._excluded: tuple[frozenset[int], float] = frozenset(), math.inf
        self._subject_to = as_constraints(subject_to)
        self._steady = all(map(_steady, self._subject_to))
        self._make_estimators = estimators
        self._estimators = estimators(topology.tiers, topology.links[0])
        self._seed = seed
        self._generator: Generator | None = None
        self._next_id = 1
        self._incumbent: int | None = None
        self._fixed: int | None = None
        self._memory: dict[str, Any] = {}
        self._now_s = -math.inf
        self._rebuild()
        self._recorder = None if recorder is None else GuardedRecorder(recorder)
        if self._recorder is not None:
            self._recorder.began(self)

    def _rebuild(self) -> None:
        self._table = costs(self.pipeline, self.topology, parts=self._parts, power=self._power)
        self._allowed: dict[bool, Costs] = {}

    # deciding -----------------------------------------------------------------------------------------------

    def decide(
        self,
        now_s: float,
        *,
        deadline_s: float | None = None,
        telemetry: Mapping[str, float] | None = None,
        edge_up: bool = True,
    ) -> Plan:
        """Choose a placement for one request.

        Parameters
        ----------
        now_s : float
            On the caller's monotonic clock.
        deadline_s : float, optional
            Seconds from now; policies may look at it.
        telemetry : mapping of str to float, optional
        edge_up : bool
            False masks every placement that needs the edge.

        Raises
        ------
        Infeasible
            No placement is allowed.
        CutError
            By `Fixed`: that cut is not legal. Or the policy chose, or ranked, what is not allowed now.
        TypeError
            The policy's answer is no decision.
        """
        self._now_s = now_s = float(now_s)
        allowed = self._rows(edge_up, now_s)
        context = Context(
            allowed,
            random=self._random,
            now_s=now_s,
            objective=self.objective,
            deadline_s=deadline_s,
            telemetry=_NO_TELEMETRY if telemetry is None else MappingProxyType(telemetry),
            incumbent=self._incumbent,
            memory=self._memory,
            beliefs=self._estimators.beliefs,
            staleness=self._estimators.staleness,
        )
        decision = asked(self.policy, context)
        self._note(decision)
        plan_id = self._next_id
        self._next_id = plan_id + 1
        ranking = decision.ranking
        objective = self.objective if ranking is None or ranking.objective is None else ranking.objective
        plan = Plan(plan_id, decision, allowed, objective, self._steady)
        if self._recorder is not None:
            self._recorder.planned(plan, now_s, deadline_s=deadline_s, telemetry=telemetry, edge_up=edge_up)
        return plan

    def _rows(self, edge_up: bool, now_s: float) -> Costs:
        """Return what is allowed, under what is believed now."""
        allowed = self._allowed.get(edge_up)
        rows = self._believed(self._mask(edge_up) if allowed is None else allowed, now_s)
        if not self._subject_to:
            return rows
        mask = met(self._subject_to, rows)
        if not mask.any():
            wanted = " and ".join(map(str, self._subject_to))
            raise Infeasible(f"of {int(rows.mask.sum())} placements that are allowed now none has {wanted}")
        return rows.masked(mask)

    def _believed(self, rows: Costs, now_s: float) -> Costs:
        heads_s, tails_s = self._estimators.curves
        device, edge = self.topology.tiers
        if heads_s is not device.heads_s or tails_s is not edge.tails_s:  # steps were timed singly
            rows = rows.with_curves(heads_s, tails_s)
        return rows.with_beliefs(self._estimators.vector(now_s))

    def adopt(
        self,
        now_s: float,
        cut: int,
        *,
        plan_id: int,
        why: str = "the edge's planner",
        probe: bool = False,
        propensity: float = 1.0,
        deadline_s: float | None = None,
        telemetry: Mapping[str, float] | None = None,
    ) -> Plan:
        """Take a decision that another planner made, on the edge for example, under this one's beliefs.

        Where that cut is not legal or not allowed here, this planner's own policy decides.

        Parameters
        ----------
        now_s : float
        cut : int
        plan_id : int
            The other planner's; this one's own ids go on behind it. Where this planner has used it already (a proposal
            that is followed twice, or that came late), the plan gets an id of its own: of each plan an observation
            counts only once.
        why, probe, propensity
            See `Decision`.
        deadline_s, telemetry
            For a decision of its own; see `decide`.
        """
        now_s = float(now_s)
        row = self._table.row_of(cut)
        allowed = self._rows(True, now_s)
        if row is None or not allowed.mask[row]:
            return self.decide(now_s, deadline_s=deadline_s, telemetry=telemetry)
        self._now_s = now_s
        if not self._next_id <= plan_id < MAX_ID:
            plan_id = self._next_id
        self.number_behind(plan_id)
        decision = Decision(row, why, probe, propensity)
        self._note(decision)
        plan = Plan(plan_id, decision, allowed, self.objective, self._steady)
        if self._recorder is not None:
            self._recorder.planned(plan, now_s, deadline_s=deadline_s, telemetry=telemetry)
        return plan

    def _note(self, decision: Decision) -> None:
        if not decision.probe:
            self._incumbent = decision.row
        if self._fixed is None and self.pipeline.stateful:
            self._fixed = decision.row
            self._allowed.clear()

    def number_behind(self, plan_id: int) -> None:
        """Number the next plans behind one of another planner, as Lamport's clocks do: so ids hardly ever clash."""
        if self._next_id <= plan_id < MAX_ID:
            self._next_id = plan_id + 1

    def reset(self) -> None:
        """Let a stateful pipeline be cut elsewhere: its state is forgotten on both sides."""
        self._fixed = None
        self._allowed.clear()

    def restrict(self, cuts: Iterable[int] | None) -> None:
        """Allow only these cuts (those whose parts the device has); None allows all legal ones again.

        Raises
        ------
        CutError
            A cut is not in 0..n.
        """
        self._cuts = None if cuts is None else frozenset(self.pipeline.check_cut(cut) for cut in cuts)
        self._allowed.clear()

    def exclude(self, cuts: Iterable[int] = (), *, sent_bytes: float = math.inf) -> None:
        """Leave out these cuts, and placements that send more bytes, where anything else is allowed; until told anew.

        A device excludes what the edge, or something on the way, does not take.

        Raises
        ------
        CutError
            A cut is not in 0..n.
        """
        self._excluded = frozenset(self.pipeline.check_cut(cut) for cut in cuts), sent_bytes
        self._allowed.clear()

    def _mask(self, edge_up: bool) -> Costs:
        table = self._table
        mask = table.mask.copy()
        reasons = [] if self._parts is None else ["the device does not have all parts"]
        if self._cuts is not None:
            mask &= np.isin(table.cuts, list(self._cuts))
            reasons.append(f"only cuts {sorted(self._cuts)} are there")
        if self._fixed is not None:
            mask &= np.arange(len(mask)) == self._fixed
            reasons.append(f"the pipeline's state is bound to cut {table.cuts[self._fixed]} until reset()")
        if not edge_up:
            mask &= ~table.exchanges
            reasons.append("the edge is down")
        if not mask.any():
            raise Infeasible(f"no placement is allowed: {', '.join(reasons)}")
        excluded, most_bytes = self._excluded
        rest = mask & ~np.isin(table.cuts, list(excluded)) & (table.sent_bytes <= most_bytes)
        if rest.any():
            mask = rest
        allowed = self._allowed[edge_up] = table.masked(mask)
        return allowed

    def _random(self) -> Generator:
        if self._generator is None:
            self._generator = np.random.default_rng(self._seed)
        return self._generator

    # learning -----------------------------------------------------------------------------------------------

    def observe(self, *observations: Observation, now_s: float) -> None:
        """Learn from what runs took. Late, repeated, partial ones in any order are welcome.

        Each kind of number (head, tail, local, exchange, lower bound) of a plan is taken once; unknown plans
        teach as well. Probes of the link have no plan: all of them are taken.
        """
        now_s = float(now_s)
        for observation in observations:
            if self._estimators.update(observation, now_s):
                self.policy.learn(observation, self._memory)
                if not observation.probe:
                    self.number_behind(observation.plan_id)
            if self._recorder is not None:
                self._recorder.observed(observation, now_s)
        self._now_s = max(self._now_s, now_s)

    def set_profile(self, tier_index: int, profile: TierProfile) -> None:
        """Take a better profile of a tier (0 is the device, 1 the edge); its factor starts again at 1.

        Raises
        ------
        ProfileError
            It is of another pipeline.
        """
        tiers = list(self.topology.tiers)
        tiers[tier_index] = profile
        before, self.topology = self.topology, evolve(self.topology, tiers=tiers)
        try:
            self._rebuild()
        except ProfileError:
            self.topology = before
            self._rebuild()
            raise
        self._estimators.set_profile(tier_index, profile)
        if self._recorder is not None:
            self._recorder.profiled(tier_index, profile)

    # what is believed ---------------------------------------------------------------------------------------

    @property
    def link(self) -> Link:
        """The link as it is believed to be."""
        return self._estimators.link.get()

    @property
    def factors(self) -> tuple[float, float]:
        """How many times slower than their profiles device and edge are."""
        return self._estimators.device.get(), self._estimators.edge.get()

    @property
    def refused(self) -> int:
        """How many observed numbers were refused: not finite, negative, impossible, or retransmitted."""
        return self._estimators.refused

    @property
    def repeated(self) -> int:
        """How many observations told nothing new."""
        return self._estimators.deduplicator.repeated

    @property
    def costs(self) -> Costs:
        """All placements under what is believed now; masked by missing parts only."""
        return self._believed(self._table, self._now_s)

    def beliefs(self, now_s: float) -> Beliefs:
        """Return all beliefs with their spreads, ages and numbers of samples."""
        return self._estimators.beliefs(now_s)

    def finish_s(self, cut: int) -> float:
        """Return the p99 of the seconds that the device needs for [cut, n) alone."""
        device = self._estimators.device
        seconds = float(device.tails_s[self.pipeline.check_cut(cut)])
        return seconds * device.get() * (1 + _P99 * device.spread)

    def predicted_s(self, plan: Plan) -> float:
        """Return the latency of a plan's placement as it is believed now (`Plan.latency_s` says what was)."""
        return float(self.costs.latency_s[plan.row])

    # state --------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return all that was learnt as plain data that JSON can hold; see `PlannerState`."""
        state = PlannerState(
            digest=self.pipeline.digest,
            next_id=self._next_id,
            seed=self._seed,
            now_s=self._now_s if math.isfinite(self._now_s) else 0.0,
            estimators=self._estimators.snapshot(),
            memory=plain_memory(self._memory),
            incumbent=self._cuts_of(self._incumbent),
            fixed=self._cuts_of(self._fixed),
            random=None if self._generator is None else _plain_random(self._generator),
        )
        plain: dict[str, Any] = msgspec.to_builtins(state)
        return plain

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take what `snapshot` returned. Nothing changes if it can't be taken.

        Raises
        ------
        ProfileError
            It is of another pipeline or version, or broken.
        """
        try:
            state = msgspec.convert(msgspec.to_builtins(dict(data)), PlannerState)
            if state.version != _VERSION:
                raise ProfileError(f"this state has version {state.version}, this splitiot reads {_VERSION}")
            if state.digest != self.pipeline.digest:
                raise ProfileError(f"this state is of pipeline {state.digest[:12]}, not of {self.pipeline.digest[:12]}")
            estimators = self._make_estimators(self.topology.tiers, self.topology.links[0])
            estimators.restore(state.estimators)
            incumbent = None if state.incumbent is None else self._table.at_cut(state.incumbent[0])
            fixed = None if state.fixed is None else self._table.at_cut(state.fixed[0])
            generator = None if state.random is None else _live_random(state.random)
        except (msgspec.ValidationError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise ProfileError(f"not a planner's state: {error!r}") from error
        self._estimators = estimators
        self._seed, self._generator = state.seed, generator
        self._next_id, self._incumbent, self._fixed = state.next_id, incumbent, fixed
        self._memory = state.memory
        self._now_s = state.now_s
        self._allowed.clear()
        if self._recorder is not None:
            self._recorder.began(self)

    def renew(self, *, seed: int) -> None:
        """Forget all that was learnt, and draw other numbers: in a process that was forked, for example.

        A device does that in a child. Another thread may have been learning at the moment of the fork, and two
        processes that draw the same numbers do the same at the same time. Plans are numbered on.

        Parameters
        ----------
        seed : int
        """
        self._estimators = self._make_estimators(self.topology.tiers, self.topology.links[0])
        self._seed, self._generator = seed, None
        self._incumbent = self._fixed = None
        self._memory = {}
        self._rebuild()
        if self._recorder is not None:
            self._recorder.began(self)

    def _cuts_of(self, row: int | None) -> list[int] | None:
        return None if row is None else list(self._table.placements[row].cuts)


def _steady(constraint: Constraint) -> bool:
    """Whether the bandwidth towards the edge surely does not change what a constraint permits."""
    if isinstance(constraint, AtMost):
        return constraint.column not in ("latency_s", "period_s", "energy_j", "up_s")
    return isinstance(constraint, StepsOnDevice)


def _plain_random(generator: Generator) -> dict[str, Any]:
    state: Any = generator.bit_generator.state
    return {
        "kind": state["bit_generator"],
        "state": hex(state["state"]["state"]),  # 128 bits: more than JSON's readers agree on
        "inc": hex(state["state"]["inc"]),
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }


def _live_random(plain: Mapping[str, Any]) -> Generator:
    generator = np.random.default_rng(0)
    generator.bit_generator.state = {
        "bit_generator": plain["kind"],
        "state": {"state": int(plain["state"], 16), "inc": int(plain["inc"], 16)},
        "has_uint32": plain["has_uint32"],
        "uinteger": plain["uinteger"],
    }
    return generator
