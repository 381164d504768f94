"""A decision with its reasons, and how a request ended."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot._escape import escaped
from splitiot.cost import DEVICE, DOWN, EDGE, UP, Costs, Objective, name_of
from splitiot.errors import Dropped, SplitiotError
from splitiot.observation import Observation
from splitiot.pipeline import Placement
from splitiot.policies import Decision, Ranking

__all__ = ["BreakEven", "Outcome", "Plan", "Source"]

Source: TypeAlias = Literal["local", "edge", "hedge", "fallback", "none"]
"""Where an outcome's value comes from.

``"local"``: planned on the device. ``"edge"``. ``"hedge"``: the device's own run was faster than the edge.
``"fallback"``: the device's run, because the edge failed. ``"none"``: nowhere, there is an error.
"""


@frozen
class BreakEven:
    """A bandwidth at which another placement becomes the best.

    Parameters
    ----------
    up_bytes_per_s : float
        Towards the edge; everything else stays as it is. Inf: any finite bandwidth changes the answer.
    row : int
        What is best beyond it.
    placement : Placement
    faster : bool
        Whether that is so above this bandwidth; below it otherwise.
    """

    up_bytes_per_s: float
    row: int
    placement: Placement
    faster: bool


@frozen(eq=False)
class Plan:
    """A decision with its id and its reasons.

    It keeps what was believed when it was made, a few numbers; everything else is worked out when asked for.

    Parameters
    ----------
    id : int
        Ascending from 1; observations name it.
    decision : Decision
    costs : Costs
        Under what was believed then, with the mask of then.
    objective : Objective
        What the policy ranks by, where that is known; the planner's otherwise.
    steady : bool
        Whether another bandwidth would leave the same rows allowed: only then it is known where the answer changes.

    Attributes
    ----------
    cut : int
        The number of steps on the device.

    Notes
    -----
    What is best, the runner-up and the margin are the policy's: by its `Ranking`, and among the rows that it permits.
    Where it only decides, so that nothing is known of what it wants, they are those of the planner's objective.
    """

    id: int
    decision: Decision
    costs: Costs = field(repr=False)
    objective: Objective = "latency_s"
    steady: bool = field(default=True, repr=False)
    cut: int = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "cut", self.costs.placements[self.decision.row].cut)  # asked for a dozen times

    @property
    def row(self) -> int:
        """The row of `costs` that was chosen."""
        return self.decision.row

    @property
    def why(self) -> str:
        """The policy's words."""
        return self.decision.why

    @property
    def probe(self) -> bool:
        """Whether it was chosen to learn something."""
        return self.decision.probe

    @property
    def propensity(self) -> float:
        """The probability with which it was chosen."""
        return self.decision.propensity

    @property
    def placement(self) -> Placement:
        """Where the cuts are, and how the payloads cross."""
        return self.costs.placements[self.decision.row]

    @property
    def codec(self) -> str:
        """How the payload crosses."""
        return self.placement.codec

    @property
    def latency_s(self) -> float:
        """The latency that was expected."""
        return float(self.costs.latency_s[self.row])

    @property
    def ranking(self) -> Ranking | None:
        """How the policy ranks the rows, None where it only decides."""
        return self.decision.ranking

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which rows were allowed, and permitted by the policy."""
        return self.costs.mask if self.ranking is None else self.ranking.mask

    @property
    def values(self) -> NDArray[np.float64]:
        """What the policy ranks by, a number a row: less is better."""
        return self.costs.values(self.objective) if self.ranking is None else self.ranking.values

    @property
    def best_row(self) -> int:
        """The row that ranks best; `row`, unless that is a probe, or the policy wanted something else."""
        values, mask = self.values, self.mask
        best = _least(values, mask)
        if best is None:
            return self.row
        return self.row if mask[self.row] and values[self.row] <= values[best] else best

    @property
    def runner_up(self) -> int | None:
        """The best row besides the chosen one, None if there is none."""
        mask = self.mask.copy()
        mask[self.row] = False
        return _least(self.values, mask)

    @property
    def margin(self) -> float:
        """By how much the runner-up is worse, in the unit of `values`.

        Negative where the policy did not choose the best, inf where nothing else is permitted.
        """
        other = self.runner_up
        if other is None:
            return math.inf
        return float(self.values[other] - self.values[self.row])

    @property
    def margin_s(self) -> float:
        """`margin` where it is in seconds (``latency_s``, ``period_s``), NaN otherwise."""
        return self.margin if self._unit in ("latency_s", "period_s") else math.nan

    @property
    def break_evens(self) -> tuple[BreakEven, ...]:
        """The next bandwidths below and above the present one at which another placement becomes the best.

        At most one each way; exact. None where that is not known: the policy only decides or ranks by numbers of its
        own, which rows it permits may itself depend on the bandwidth, or the objective is a callable, of which only the
        present values are known.
        """
        return _break_evens(self.costs, self.objective, self.best_row) if self._predictable else ()

    @property
    def _unit(self) -> Objective | None:
        """What `values` are, None for numbers of the policy's own."""
        return self.objective if self.ranking is None else self.ranking.objective

    @property
    def _predictable(self) -> bool:
        """Whether it is known what the policy wants at other bandwidths."""
        ranking, costs = self.ranking, self.costs
        if ranking is None or not self.steady or ranking.mask is not costs.mask:
            return False  # which rows a policy permits may depend on the bandwidth
        if ranking.objective == "period_s":
            return not costs.serialized
        return ranking.objective in ("latency_s", "energy_j")

    def explain(self) -> str:
        """Say in a few lines what was chosen, what it should cost, and what would change the answer."""
        return escaped("\n".join(_explain(self)))

    def _repr_html_(self) -> str:
        from splitiot._html import plan_html

        return plan_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for logs and JSON."""
        costs, row, other = self.costs, self.row, self.runner_up
        return {
            "id": self.id,
            "cuts": list(self.placement.cuts),
            "codecs": list(self.placement.codecs),
            "why": self.why,
            "probe": self.probe,
            "propensity": self.propensity,
            "objective": name_of(self.objective),
            "latency_s": self.latency_s,
            "terms": {name: float(getattr(costs, name)[row]) for name in _TERMS},
            "runner_up": None if other is None else list(costs.placements[other].cuts),
            "margin": None if other is None else self.margin,
            "break_evens": [
                {
                    "up_bytes_per_s": b.up_bytes_per_s,
                    "cuts": list(b.placement.cuts),
                    "faster": b.faster,
                }
                for b in self.break_evens
            ],
        }


@frozen(eq=False)
class Outcome:
    """How a request ended.

    Parameters
    ----------
    value : object
        The result, None where there is none.
    error : SplitiotError, optional
        Why there is none.
    source : {"local", "edge", "hedge", "fallback", "none"}
    exact : bool
        Whether the value is, bit for bit, that of the uncut pipeline on this machine.
    plan : Plan, optional
    observation : Observation, optional
    latency_s : float
        From the call (in a stream: from when the frame was taken) until the value was there.
    index : int
        In a stream: which of its frames this was, from 0.
    """

    value: Any = None
    error: SplitiotError | None = None
    source: Source = "none"
    exact: bool = False
    plan: Plan | None = None
    observation: Observation | None = None
    latency_s: float = math.nan
    index: int = 0

    @property
    def dropped(self) -> bool:
        """Whether a task dropped the frame: no value, but nothing went wrong."""
        return isinstance(self.error, Dropped)

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None

    def unwrap(self) -> Any:
        """Return the value, or raise the error.

        Examples
        --------
        >>> Outcome(value=3, source="local").unwrap()
        3
        """
        if self.error is not None:
            raise self.error
        return self.value


_TERMS = ("device_s", "up_s", "edge_s", "down_s", "rtt_s", "wait_s", "sent_bytes", "returned_bytes")


def _break_evens(costs: Costs, objective: Objective, best: int) -> tuple[BreakEven, ...]:
    """Find where another row's value falls below the best one's when only the uplink changes.

    Over ``u = 1/up`` a row's latency and energy are straight lines, its period is the greater of a constant
    and a line through 0; so the crossings are known in closed form.
    """
    now = float(costs.beliefs[UP])
    vector = costs.beliefs.copy()
    vector[UP] = 0.0  # an uplink without end
    base, slope = costs.with_beliefs(vector), costs.sent_bytes
    if objective == "latency_s":
        fixed = base.latency_s
    elif objective == "energy_j" and costs.power is not None:
        fixed, slope = base.energy_j, slope * costs.power.send_w
    elif objective == "period_s" and not costs.serialized:
        fixed = base.period_s
    else:
        return ()
    with np.errstate(divide="ignore", invalid="ignore"):
        if objective == "period_s":
            slower = np.where(slope < slope[best], fixed / slope[best], np.inf)
            faster = np.where(fixed < fixed[best], fixed[best] / slope, 0.0)
        else:
            crossing = (fixed - fixed[best]) / (slope[best] - slope)
            slower = np.where(slope < slope[best], crossing, np.inf)
            faster = np.where(slope > slope[best], crossing, 0.0)
    faster = np.where(np.isfinite(faster) & costs.mask & (faster > 0), np.minimum(faster, now), 0.0)
    slower = np.where(np.isfinite(slower) & costs.mask, np.maximum(slower, now), np.inf)
    break_evens: list[BreakEven] = []
    if (u := float(slower.min())) < math.inf:  # of several that cross there, the flattest wins beyond
        break_evens.append(_at(costs, u, _last_least(np.where(slower <= u, slope, np.inf)), faster=False))
    if (u := float(faster.max())) > 0:
        rank = fixed if objective == "period_s" else -slope
        break_evens.append(_at(costs, u, _last_least(np.where(faster >= u, rank, np.inf)), faster=True))
    return tuple(break_evens)


def _at(costs: Costs, u: float, row: int, *, faster: bool) -> BreakEven:
    return BreakEven(1 / u if u > 0 else math.inf, row, costs.placements[row], faster)


def _least(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> int | None:
    """Return the row in the mask with the least finite value, of equals the last; None for none."""
    row = _last_least(np.where(mask & ~np.isnan(values), values, math.inf))
    return row if mask[row] and values[row] < math.inf else None


def _last_least(values: NDArray[np.float64]) -> int:
    return len(values) - 1 - int(values[::-1].argmin())


# explanation ------------------------------------------------------------------------------------------------


def _where(placement: Placement, n: int) -> str:
    if placement.cut == n:
        return "all local"
    return "all on the edge" if placement.cut == 0 else f"cut {placement.cut}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds >= 1e-2 else f"{seconds * 1e3:,.3f} ms"


def _rate(bytes_per_s: float) -> str:
    return "no limit" if bytes_per_s >= 1e12 else f"{bytes_per_s / 125e3:.4g} Mbit/s"


def _amount(objective: Objective | None, value: float) -> str:
    if objective in ("latency_s", "period_s"):
        return _ms(value)
    return f"{value:.4g} J" if objective == "energy_j" else f"{value:.4g}"


def _explain(plan: Plan) -> list[str]:
    costs, row, n = plan.costs, plan.row, plan.costs.pipeline.n
    unit, values, best = plan._unit, plan.values, plan.best_row
    device, edge, up, down = (float(costs.beliefs[place]) for place in (DEVICE, EDGE, UP, DOWN))
    sent, returned = float(costs.sent_bytes[row]), float(costs.returned_bytes[row])
    lines = [
        f"plan {plan.id}: {_where(plan.placement, n)} ({plan.cut} of {n} steps on the device)",
        f"  why         {plan.why}" + (" (a probe)" if plan.probe else ""),
    ]
    terms = [
        ("device", costs.device_s, "" if device == 1 else f"{device:.2f} x the profile"),
        ("up", costs.up_s, f"{sent:,.0f} bytes at {_rate(1 / max(up, 1e-300))}"),
        ("edge", costs.edge_s, "" if edge == 1 else f"{edge:.2f} x the profile"),
        ("down", costs.down_s, f"{returned:,.0f} bytes at {_rate(1 / max(down, 1e-300))}"),
        ("round trip", costs.rtt_s, ""),
        ("edge waits", costs.wait_s, ""),
    ]
    needs_edge = bool(costs.exchanges[row])
    for name, column, remark in terms:
        if name == "device" or (needs_edge and (name != "edge waits" or column[row] > 0)):
            lines.append(f"  {name:<11} {_ms(float(column[row])):>14}  {remark}".rstrip())
    lines.append(f"  latency     {_ms(plan.latency_s):>14}")
    if unit not in ("latency_s", None):
        lines.append(f"  {name_of(unit):<11} {_amount(unit, float(values[row])):>14}")
    other = plan.runner_up
    if other is None:
        whose = "nothing else is allowed" if costs.mask.sum() == 1 else "the policy permits nothing else"
        lines.append(f"  runner-up   none: {whose}")
    else:
        side = "better" if plan.margin < 0 else "worse"
        amount = _amount(unit, abs(plan.margin))
        share = f" ({abs(plan.margin) / values[row]:.0%})" if values[row] > 0 else ""
        lines.append(f"  runner-up   {_where(costs.placements[other], n)}, {amount}{share} {side}")
    if best != row:
        by = " " * 7 if plan.ranking is not None else f" by {name_of(plan.objective)}:"
        lines.append(f"  best{by} {_where(costs.placements[best], n)}, which the policy did not choose")
    for b in plan.break_evens:
        side = "above" if b.faster else "below"
        lines.append(f"  {side:<11} {_rate(b.up_bytes_per_s)} up: {_where(b.placement, n)} is best")
    if not plan.break_evens and plan._predictable:
        lines.append("  no other bandwidth towards the edge changes the answer")
    lines += _fastest(plan)
    if costs.placements[best].cut in (0, n) and (plan.ranking is not None or best == row):
        lines.append(f"  do not split: {_where(costs.placements[best], n)} is best")
    return lines


def _fastest(plan: Plan) -> list[str]:
    """Say what would take less time, where the policy wants something else than that."""
    latency_s = plan.costs.latency_s
    row = _least(latency_s, plan.costs.mask)
    if row is None or row in (plan.row, plan.best_row) or not latency_s[row] < latency_s[plan.row]:
        return []
    less = f"{_ms(float(latency_s[plan.row] - latency_s[row]))} less"
    permitted = "" if plan.mask[row] else ", which the policy does not permit"
    return [f"  fastest     {_where(plan.costs.placements[row], plan.costs.pipeline.n)}, {less}{permitted}"]
