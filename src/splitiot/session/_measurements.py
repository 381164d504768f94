"""What a device learns from the answers to its requests and probes, and from their absence."""

from __future__ import annotations

from collections import deque
from typing import Final

from splitiot.observation import EdgeTimes, Observation
from splitiot.session._arrival import Arrival
from splitiot.session._effects import NewObservation
from splitiot.session._outbox import ObservationOutbox
from splitiot.session._pending import PendingRequest
from splitiot.session._queueing import QueueingEstimator

__all__ = ["Measurements"]

_ROUND_TRIPS: Final = 3


class Measurements:
    """Makes observations: for the planner here, and by the outbox for one on the edge.

    Parameters
    ----------
    digest : bytes
        Of the pipeline.
    """

    def __init__(self, digest: bytes) -> None:
        self.outbox = ObservationOutbox(digest)
        self._queueing = QueueingEstimator()
        self._round_trips: deque[float] = deque(maxlen=_ROUND_TRIPS)

    def publish(self, observation: Observation, now_s: float) -> NewObservation:
        """Give an observation to both planners."""
        self.outbox.add(observation, now_s)
        return NewObservation(observation)

    def expected_s(self, request: PendingRequest) -> float:
        """How long an answer is expected to take: as planned, or as the longest of the last took."""
        return max(request.plan.latency_s - (request.head_s or 0.0), *self._round_trips, 0.0)

    def of_probe(self, observation: Observation, arrival: Arrival, *, behind: bool) -> None:
        """Learn what the link is like without a queue from a probe of it."""
        took_s, edge = observation.round_trip_s, observation.edge
        if took_s is None or edge is None or observation.upper_bound:
            return
        nbytes, came_s = observation.sent_bytes + observation.received_bytes, arrival.came_s
        self._queueing.update(came_s - took_s, came_s, edge.residence_s, nbytes=nbytes, behind=behind)

    def of_answer(self, request: PendingRequest, arrival: Arrival, times: EdgeTimes, nbytes: int) -> Observation:
        """Return what an answer of so many bytes tells."""
        sent_s, took_s, upper_bound = arrival.since(request.sent_s)
        queued_s = held_s = 0.0
        if not upper_bound:
            queued_s, held_s = self._queueing.update(
                sent_s,
                arrival.came_s,
                times.residence_s,
                nbytes=request.nbytes + nbytes,
                behind=request.behind,
                queue_s=times.queue_s,
            )
            if not request.attempts:
                self._round_trips.append(max(0.0, arrival.came_s - request.sent_s))
        return Observation(
            plan_id=request.plan.id,
            cut=request.plan.cut,
            head_s=request.head_s,
            head_steps_s=request.head_steps_s,
            tail_s=times.compute_s,
            edge=times,
            round_trip_s=took_s,
            sent_bytes=request.nbytes,
            received_bytes=nbytes,
            retransmitted=request.attempts > 0,
            queued_s=queued_s,
            held_s=held_s,
            upper_bound=upper_bound,
        )

    def of_device(
        self, request: PendingRequest, local_s: float | None = None, local_steps_s: tuple[float, ...] = ()
    ) -> Observation:
        """Return what the device knows alone: what the head took, and a local finish."""
        return Observation(
            plan_id=request.plan.id,
            cut=request.plan.cut,
            head_s=request.head_s,
            head_steps_s=request.head_steps_s,
            local_s=local_s,
            local_steps_s=local_steps_s,
            sent_bytes=request.nbytes,
            retransmitted=request.attempts > 0,
        )

    def of_silence(self, request: PendingRequest, silent_s: float) -> Observation:
        """Return what it tells that no answer came in this time: a lower bound."""
        return Observation(
            plan_id=request.plan.id,
            cut=request.plan.cut,
            round_trip_s=silent_s,
            sent_bytes=request.nbytes,
            censored=True,
        )
