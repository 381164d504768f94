"""Would another policy have done better? It is asked again, at each place of a log."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import numpy as np
from attrs import asdict, field, frozen
from numpy.typing import NDArray

from splitiot.cost import Objective, name_of
from splitiot.errors import NotCuttable, ProfileError, TraceError
from splitiot.pipeline import Boundary, Part, Payload, Pipeline, Runtime, RuntimeInfo, Sink, Step, TensorSpec
from splitiot.planner import Planner
from splitiot.policies import Best, Policy
from splitiot.sim.trace import Header, ObservationEvent, PlanEvent, Trace, total_s
from splitiot.topology import Topology

__all__ = ["Score", "replay"]

_OBJECTIVES: Final = ("latency_s", "period_s", "energy_j")
Floats = NDArray[np.float64]


@frozen
class Score:
    """How a policy would have done on a log, as far as the log can tell.

    Costs are in the objective's unit, and are those of hindsight: what the planner believed some plans later, when it
    had seen what these took. Seconds are measured ones.

    Parameters
    ----------
    decisions : int
    judged : int
        Of them, those that chose what the log had chosen, and whose run was measured.
    objective : str
    mean_cost, oracle_cost : float
        What the decisions cost on average, and what the best ones in hindsight would have.
    regret : float
        ``mean_cost / oracle_cost - 1``.
    measured_s : float
        Mean of the judged ones' measured seconds; NaN where there are none. On these the log paid the same.
    weighted_s, weighted_samples : float
        An estimate of the mean seconds of all decisions: those of the log's runs that the policy would have chosen
        too, weighted by 1 / propensity (the self-normalised inverse propensity score); and how many equal weights are
        worth as much (Kish's effective sample size). Where policies leave something to chance, they are asked once
        more for this, with a chance of its own.
    switches : int
        How often the cut changed between decisions that were no probes.
    probes : int
    probes_cost : float
        What the probes cost more than the best rows, all together.
    log : Score, optional
        The log's own decisions, judged in the same way.

    References
    ----------
    Swaminathan and Joachims, "The Self-Normalized Estimator for Counterfactual Learning", NIPS 2015.
    """

    decisions: int
    judged: int
    objective: str
    mean_cost: float
    oracle_cost: float
    measured_s: float
    weighted_s: float
    weighted_samples: float
    switches: int
    probes: int
    probes_cost: float
    log: Score | None = field(default=None, repr=False)

    @property
    def coverage(self) -> float:
        """The share of the decisions that the log can judge by what it measured."""
        return self.judged / self.decisions

    @property
    def regret(self) -> float:
        """By how much more than the oracle's the decisions cost, as a share: 0.05 is 5 %."""
        return self.mean_cost / self.oracle_cost - 1 if self.oracle_cost > 0 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain = asdict(self, recurse=False)
        plain |= {"coverage": self.coverage, "regret": self.regret}
        plain["log"] = None if self.log is None else self.log.to_dict()
        return plain

    def __str__(self) -> str:
        in_s = self.objective.endswith("_s")

        def amount(value: float) -> str:
            return f"{value * 1e3:.4g} ms" if in_s else f"{value:.4g}"

        log = self.log
        lines = [
            f"{self.decisions} decisions, {self.judged} of them judged by what was measured ({self.coverage:.0%})",
            f"  cost      {amount(self.mean_cost)} on average, {self.regret:.1%} over the best in hindsight"
            + ("" if log is None else f" (the log: {amount(log.mean_cost)}, {log.regret:.1%})"),
            f"  measured  {self.measured_s * 1e3:.4g} ms where judged; weighted {self.weighted_s * 1e3:.4g} ms"
            f" ({self.weighted_samples:.1f} effective samples)"
            + ("" if log is None else f" (the log: {log.measured_s * 1e3:.4g} ms)"),
            f"  switches  {self.switches}" + ("" if log is None else f" (the log: {log.switches})"),
            f"  probes    {self.probes}, which cost {amount(self.probes_cost)} more than the best"
            + ("" if log is None else f" (the log: {log.probes}, {amount(log.probes_cost)})"),
        ]
        return "\n".join(lines)


def replay(
    trace: Trace,
    policy_factory: Callable[[], Policy],
    *,
    seed: int | None = None,
    objective: Objective | None = None,
    window: int = 3,
) -> Score:
    """Ask a policy again for each plan of a log, and say how good its decisions were.

    A planner like the logged one is given the logged observations in their order and at their times, and is asked at
    each logged plan's time, under the same mask, deadline and telemetry. The policy that wrote the log so decides as it
    did, unless an edge's planner had decided for it.

    What each decision would have cost is not known where it is another one than the log's. So all of them are judged in
    hindsight, by what the cost model says under the beliefs of `window` plans later; those that agree with the log also
    by what was measured.

    Parameters
    ----------
    trace : Trace
    policy_factory : callable
        Makes the policy: a class, or ``lambda: LocalMode(LeastLatency(), 0.05)``.
    seed : int, optional
        Of chance; it goes on from the log's own state unless given.
    objective : Objective, optional
        What planner and oracle make small; the log's, unless given.
    window : int
        Hindsight on a plan has seen what the planner was given until this many further plans were made, and just not
        the next one: its own observation, and about as many more. Estimators need two or three to believe a change.

    Raises
    ------
    TraceError
        There are no plans, or the planner of the log can't be made again: its objective was a function (give
        `objective`), or its state is of another version. Or ``energy_j`` is wanted and it had no watts.
    CutError, Infeasible
        By the policy.

    Notes
    -----
    The replayed policy learns from what the log's policy measured, not from what its own choices would have: one that
    explores finds nothing new here, and pays for it. A link and an edge that nobody tried look as they did when last
    tried, to the policy and to the oracle. For a policy that tries what the log did not, run it, or simulate.

    Of a stateful pipeline the log's cut binds all decisions but the first after each `reset`.

    Examples
    --------
    See the guide "Record and replay".
    """
    plans = trace.plans
    if not plans:
        raise TraceError("this trace has no plans: there is nothing to replay")
    if window < 0:
        raise ValueError(f"window must be >= 0, got {window}")
    objective = _objective(trace.header) if objective is None else objective
    if objective == "energy_j" and trace.header.power is None:
        raise TraceError("this trace has no watts: energy_j can be scored where the log's planner had power=")
    pipeline = _Outline(trace.header)
    asked = _Asked(_planner(trace.header, pipeline, policy_factory(), objective, seed))
    # weights need decisions that owe nothing to the log's own chance
    apart = _Asked(_planner(trace.header, pipeline, policy_factory(), objective, _other_seed(trace.header, seed)))
    hindsight = _Hindsight(_planner(trace.header, pipeline, Best(objective), objective, None), plans, window)
    for event in trace.events:
        if isinstance(event, PlanEvent):
            hindsight.look(asked.count)
            asked.decide(event)
            apart.decide(event)
            continue
        for planner in (asked.planner, apart.planner, hindsight.planner):
            if isinstance(event, ObservationEvent):
                planner.observe(event.observation, now_s=event.now_s)
            else:
                planner.set_profile(event.tier_index, event.profile)
    hindsight.look(len(plans) + window)
    measured = [total_s(observation, trace.header) for observation in trace.measured()]
    seconds = np.array([math.nan if s is None else s for s in measured])
    logged = [_Choice(p.row, p.probe) for p in plans]
    same = np.array([c.row == p.row for c, p in zip(apart.choices, plans, strict=True)])
    propensity = np.array([p.propensity if 0 < p.propensity <= 1 else math.inf for p in plans])
    name = name_of(objective)
    log = _score(name, logged, plans, hindsight.costs, seconds, np.ones(len(plans)), None)
    return _score(name, asked.choices, plans, hindsight.costs, seconds, same / propensity, log)


# deciding again ---------------------------------------------------------------------------------------------


@frozen
class _Choice:
    row: int
    probe: bool


class _Asked:
    """The planner whose policy is tried."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.choices: list[_Choice] = []
        self._allowed: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        return len(self.choices)

    def decide(self, plan: PlanEvent) -> None:
        allowed = tuple(np.asarray(self.planner.costs.cuts)[plan.mask].tolist())
        if allowed != self._allowed:
            self.planner.restrict(allowed)
            self._allowed = allowed
        choice = self.planner.decide(
            plan.now_s, deadline_s=plan.deadline_s, telemetry=plan.telemetry, edge_up=plan.edge_up
        )
        self.choices.append(_Choice(choice.row, choice.probe))


class _Hindsight:
    """What all rows of each plan are believed to have cost, some plans later; inf where a row was not allowed."""

    def __init__(self, planner: Planner, plans: Sequence[PlanEvent], window: int) -> None:
        self.planner = planner
        self.costs: list[Floats] = []
        self._plans, self._window = plans, window

    def look(self, planned: int) -> None:
        """So many plans have been made, and the next one has not: judge those that are `window` plans old."""
        due = min(planned - self._window, len(self._plans))
        if due <= len(self.costs):
            return
        values = self.planner.costs.values(self.planner.objective)
        values = np.where(np.isnan(values), math.inf, values)
        for plan in self._plans[len(self.costs) : due]:
            self.costs.append(np.where(plan.mask, values, math.inf))


def _score(
    objective: str,
    choices: Sequence[_Choice],
    plans: Sequence[PlanEvent],
    costs: Sequence[Floats],
    seconds: Floats,
    weights: Floats,
    log: Score | None,
) -> Score:
    rows = np.array([c.row for c in choices])
    probes = np.array([c.probe for c in choices])
    paid = np.array([cost[row] for cost, row in zip(costs, rows.tolist(), strict=True)])
    best = np.array([cost.min() for cost in costs])
    known = np.isfinite(best)
    measured = np.isfinite(seconds)
    judged = (rows == np.array([p.row for p in plans])) & measured
    weights = weights[measured]
    total = float(weights.sum())
    steady = rows[~probes]
    return Score(
        decisions=len(plans),
        judged=int(judged.sum()),
        objective=objective,
        mean_cost=_mean(paid[known]),
        oracle_cost=_mean(best[known]),
        measured_s=_mean(seconds[judged]),
        weighted_s=float(weights @ seconds[measured]) / total if total > 0 else math.nan,
        weighted_samples=total**2 / float(weights @ weights) if total > 0 else 0.0,
        switches=int((np.diff(steady) != 0).sum()),
        probes=int(probes.sum()),
        probes_cost=float((paid[known & probes] - best[known & probes]).sum()),
        log=log,
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


# the logged planner, made again -----------------------------------------------------------------------------


def _objective(header: Header) -> Objective:
    for known in _OBJECTIVES:
        if header.objective == known:
            return known
    raise TraceError(
        f"the log's planner made {header.objective!r} small, a function that a trace can't hold: "
        "give replay(..., objective=...)"
    )


def _other_seed(header: Header, seed: int | None) -> int:
    own = header.state.get("seed") if seed is None else seed
    return int(np.random.SeedSequence([own if isinstance(own, int) and own >= 0 else 0, 1]).generate_state(1)[0])


def _planner(header: Header, pipeline: Pipeline, policy: Policy, objective: Objective, seed: int | None) -> Planner:
    state = dict(header.state)
    if seed is not None:
        state |= {"seed": seed, "random": None}
    own = state.get("seed")
    topology = Topology(tiers=header.tiers, links=[header.link])
    planner = Planner(
        pipeline, topology, policy, objective=objective, seed=own if isinstance(own, int) else 0, power=header.power
    )
    # a fresh planner says the same of itself; nothing is bound yet: what the log's cut binds, its masks say
    if state | {"fixed": None} != planner.snapshot():
        try:
            planner.restore(state | {"fixed": None})
        except ProfileError as error:
            raise TraceError(f"the planner that this trace begins with can't be restored: {error}") from error
    return planner


class _Outline(Pipeline):
    """What costs need of a pipeline, and no more: it can't be run."""

    def __init__(self, header: Header) -> None:
        self.steps = tuple(Step(f"step {i}", "unknown") for i in range(header.n))
        self.digest, self.sink, self.cuts = header.digest, header.sink, header.cuts
        self.stateful = False
        legal = set(header.cuts)
        self.refused = {cut: "it was not legal in the log" for cut in range(header.n + 1) if cut not in legal}
        self._sent = dict(zip(header.cuts, header.sent_bytes, strict=True))
        self._returned = dict(zip(header.cuts, header.returned_bytes, strict=True))

    def boundary(self, cut: int) -> Boundary:
        return self._sized(cut, self._sent)

    def returned(self, cut: int) -> Boundary:
        return self._sized(cut, self._returned)

    def _sized(self, cut: int, sizes: dict[int, int | None]) -> Boundary:
        if self.check_cut(cut) not in sizes:
            raise NotCuttable(self.refused[cut])
        nbytes = sizes[cut]
        return Boundary(None if nbytes is None else (TensorSpec("payload", "uint8", (nbytes,)),))

    def part(self, start: int, stop: int) -> Part:
        _no_run()

    def bind(self, value: Any) -> Payload:
        _no_run()

    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        _no_run()

    def join(self, kept: Payload, returned: Payload) -> Any:
        _no_run()

    def with_sink(self, sink: Sink) -> Pipeline:
        _no_run()

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        _no_run()


def _no_run() -> NoReturn:
    raise TraceError("a trace has no code: its pipeline can be planned, not run")
