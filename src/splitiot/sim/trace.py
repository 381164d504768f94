"""What a planner decided and was told, as a `TraceWriter` wrote it down: plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.cost import Power
from splitiot.observation import Observation
from splitiot.topology import Link, TierProfile

__all__ = ["Event", "Header", "ObservationEvent", "PlanEvent", "ProfileEvent", "Trace", "total_s"]

Floats: TypeAlias = NDArray[np.float64]
Event: TypeAlias = "PlanEvent | ObservationEvent | ProfileEvent"


@frozen(eq=False)
class Header:
    """What the planner had when it began: a replay needs nothing else.

    Parameters
    ----------
    splitiot : str
        The version that wrote it.
    run : str
        16 hexadecimal digits: files of one run are one trace.
    digest : str
        Of the pipeline.
    n : int
        The number of steps.
    cuts : tuple of int
        The legal ones, one a row.
    sent_bytes, returned_bytes : tuple of int or None
        One a row; None where the profiles say it.
    sink : {"device", "edge"}
    stateful : bool
    tiers : (TierProfile, TierProfile)
        Device and edge.
    link : Link
        Believed until there are samples.
    objective : str
    power : Power, optional
    policy : str
        Words for people.
    state : dict
        See `PlannerState`.
    """

    splitiot: str
    run: str
    digest: str
    n: int
    cuts: tuple[int, ...]
    sent_bytes: tuple[int | None, ...]
    returned_bytes: tuple[int | None, ...]
    sink: Literal["device", "edge"]
    stateful: bool
    tiers: tuple[TierProfile, TierProfile] = field(repr=False)
    link: Link
    objective: str
    power: Power | None
    policy: str
    state: dict[str, Any] = field(repr=False)


@frozen(eq=False)
class PlanEvent:
    """One plan, and what had been asked.

    Parameters
    ----------
    id : int
    now_s : float
        On the planner's monotonic clock.
    row, cut : int
    why : str
    probe : bool
    propensity : float
    objective : str
        What was made small.
    latency_s : float
        What was expected.
    costs : array of float, shape (rows,)
        The objective's values of all rows, allowed or not, as they were believed.
    mask : array of bool, shape (rows,)
        Which rows were allowed.
    beliefs : array of float
        See `Costs.beliefs`.
    deadline_s : float, optional
    telemetry : dict, optional
    edge_up : bool
    """

    id: int
    now_s: float
    row: int
    cut: int
    why: str
    probe: bool
    propensity: float
    objective: str
    latency_s: float
    costs: Floats = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    beliefs: Floats = field(repr=False)
    deadline_s: float | None
    telemetry: dict[str, Any] | None
    edge_up: bool


@frozen
class ObservationEvent:
    """One observation, and when the planner was given it."""

    observation: Observation
    now_s: float


@frozen(eq=False)
class ProfileEvent:
    """Another profile of a tier (0 is the device, 1 the edge)."""

    tier_index: int
    profile: TierProfile


def _events(values: Iterable[Event]) -> tuple[Event, ...]:
    return tuple(values)


@frozen(eq=False)
class Trace:
    """A log of one planner.

    Parameters
    ----------
    header : Header
    events : tuple of PlanEvent, ObservationEvent and ProfileEvent
        In the order in which they happened.
    dropped : int
        Lines that a crash had torn.
    """

    header: Header
    events: tuple[Event, ...] = field(repr=False, converter=_events)
    dropped: int = 0

    @property
    def plans(self) -> tuple[PlanEvent, ...]:
        """All plans."""
        return tuple(e for e in self.events if isinstance(e, PlanEvent))

    @property
    def observations(self) -> tuple[ObservationEvent, ...]:
        """All observations, repeated ones and probes of the link too."""
        return tuple(e for e in self.events if isinstance(e, ObservationEvent))

    def measured(self) -> list[Observation | None]:
        """Return for each plan all that was observed of it as one observation, None where nothing was.

        Of each number the first one that came is taken, and a bound only while there is no round trip.
        """
        merged: list[Observation | None] = []
        latest: dict[int, int] = {}
        for event in self.events:
            if isinstance(event, PlanEvent):
                latest[event.id] = len(merged)
                merged.append(None)
            elif isinstance(event, ObservationEvent) and not event.observation.probe:
                at = latest.get(event.observation.plan_id)
                if at is not None:
                    merged[at] = _merged(merged[at], event.observation)
        return merged

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one plain dict a plan, for tables; None where nothing was measured.

        The keys are ``plan_id``, ``now_s``, ``cut``, ``why``, ``probe``, ``propensity``, ``edge_up``, ``deadline_s``,
        ``predicted_s``, ``head_s``, ``local_s``, ``tail_s``, ``network_s``, ``total_s``, ``sent_bytes`` and
        ``received_bytes``.
        """
        pairs = zip(self.plans, self.measured(), strict=True)
        return [_row(plan, observation, self.header) for plan, observation in pairs]


def total_s(observation: Observation | None, header: Header) -> float | None:
    """Return the seconds that a plan took, None where the observations don't tell.

    Head and round trip; or head, the time waited in vain as far as it is known, and the rest on the device, where the
    device finished alone.
    """
    if observation is None:
        return None
    head_s = observation.head_s if observation.cut else observation.head_s or 0.0
    if observation.cut == header.n and header.sink == "device":
        rest_s: float | None = 0.0
    elif observation.round_trip_s is not None and not observation.censored:
        rest_s = observation.round_trip_s
    else:
        rest_s = None if observation.local_s is None else observation.local_s + (observation.round_trip_s or 0.0)
    if head_s is None or rest_s is None:
        return None
    total = head_s + rest_s
    return total if math.isfinite(total) and head_s >= 0 and rest_s >= 0 else None


def _merged(before: Observation | None, new: Observation) -> Observation:
    if before is None:
        return new
    change: dict[str, Any] = {
        name: getattr(new, name)
        for name in ("head_s", "tail_s", "local_s")
        if getattr(before, name) is None and getattr(new, name) is not None
    }
    known = before.round_trip_s is not None
    if new.round_trip_s is not None and (not known or (before.censored and not new.censored)):
        names = ("edge", "round_trip_s", "sent_bytes", "received_bytes", "censored", "retransmitted")
        change |= {name: getattr(new, name) for name in (*names, "queued_s", "held_s", "upper_bound")}
    return msgspec.structs.replace(before, **change)


def _row(plan: PlanEvent, observation: Observation | None, header: Header) -> dict[str, Any]:
    return {
        "plan_id": plan.id,
        "now_s": plan.now_s,
        "cut": plan.cut,
        "why": plan.why,
        "probe": plan.probe,
        "propensity": plan.propensity,
        "edge_up": plan.edge_up,
        "deadline_s": plan.deadline_s,
        "predicted_s": plan.latency_s,
        "head_s": None if observation is None else observation.head_s,
        "local_s": None if observation is None else observation.local_s,
        "tail_s": None if observation is None else observation.tail_s,
        "network_s": None if observation is None else observation.network_s,
        "total_s": total_s(observation, header),
        "sent_bytes": None if observation is None else observation.sent_bytes,
        "received_bytes": None if observation is None else observation.received_bytes,
    }
