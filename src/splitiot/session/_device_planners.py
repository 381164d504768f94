"""The planners that an edge keeps for its devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from splitiot import wire
from splitiot.errors import SplitiotError
from splitiot.observation import Observation
from splitiot.pipeline import Pipeline
from splitiot.planner import Planner
from splitiot.session._counters import EdgeCounters
from splitiot.session._peers import Peer
from splitiot.session._profiles import find_profile
from splitiot.session._served import ServedPipelines
from splitiot.topology import TierProfile

__all__ = ["DevicePlanners", "MakePlanner"]

MakePlanner: TypeAlias = Callable[[Pipeline, TierProfile, TierProfile], Planner]
"""Makes a device's planner from the pipeline, the device's profile and the edge's."""


class DevicePlanners:
    """Plans for devices: one planner, and so one state, for each device and pipeline. It stands in the peer.

    Parameters
    ----------
    make : callable, optional
        Without it nothing is planned here.
    served : ServedPipelines
    profiles : mapping of str to TierProfile
        By digest: what each pipeline costs here.
    counters : EdgeCounters
    """

    def __init__(
        self,
        make: MakePlanner | None,
        served: ServedPipelines,
        profiles: Mapping[str, TierProfile],
        counters: EdgeCounters,
    ) -> None:
        self._make, self._served, self._profiles, self._counters = make, served, profiles, counters

    @property
    def planning(self) -> bool:
        """Whether anything is planned here."""
        return self._make is not None

    def add(
        self, peer: Peer, theirs: wire.PipelineHello, pipeline: Pipeline, profiles: Iterable[wire.ProfileData]
    ) -> bool:
        """Make a device's planner, unless it has one; whether its profile is wanted for that."""
        digest = pipeline.digest
        profile = self._profiles.get(digest)
        if self._make is None or profile is None or digest in peer.planners:
            return False
        try:
            own = find_profile(profiles, pipeline)
            if own is None:
                return True
            planner = self._make(self._served.with_sink(pipeline, theirs.sink) or pipeline, own, profile)
            if theirs.parts is not None:
                planner.restrict({0, *(stop for start, stop in theirs.parts if start == 0)})
        except (SplitiotError, ValueError, OverflowError):
            self._counters.bad_frames += 1
            return False
        peer.planners[digest] = planner
        return False

    def learn(self, peer: Peer, request: wire.Request, now_s: float) -> None:
        """Take the observations that a request carries."""
        planner = peer.planners.get(request.digest.hex())
        if planner is None or not request.observations:
            return
        sound = [o for o in request.observations if _is_sound(o)]
        self._counters.dropped_observations += len(request.observations) - len(sound)
        try:
            planner.observe(*sound, now_s=now_s)
        except Exception:  # a policy's bug is not the request's
            self._counters.planner_errors += 1

    def propose(self, peer: Peer | None, request: wire.Request, now_s: float) -> wire.NextPlacement | None:
        """Return where the device's next request should be cut, if that is planned here."""
        planner = None if peer is None else peer.planners.get(request.digest.hex())
        if planner is None:
            return None
        try:
            planner.number_behind(request.plan_id)
            if planner.pipeline.stateful:  # it is bound where the device has cut, until that resets
                if request.order == 0:
                    planner.reset()
                planner.adopt(now_s, request.start, plan_id=request.plan_id, why="the device's planner")
            plan = planner.decide(now_s, deadline_s=request.deadline_s, telemetry=wire.finite(request.telemetry))
        except Exception:  # nothing is allowed, or a policy's bug: the result goes out all the same
            self._counters.planner_errors += 1
            return None
        return wire.NextPlacement(
            plan_id=plan.id,
            cuts=plan.placement.cuts,
            codecs=plan.placement.codecs,
            why=plan.why,
            probe=plan.probe,
            propensity=plan.propensity,
        )


def _is_sound(o: Observation) -> bool:
    seconds = [o.head_s, o.tail_s, o.local_s, o.round_trip_s]
    if o.edge is not None:
        seconds += [o.edge.queue_s, o.edge.compute_s, o.edge.residence_s]
    return all(x is None or 0 <= x < float("inf") for x in seconds) and min(o.sent_bytes, o.received_bytes) >= 0
