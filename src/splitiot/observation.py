"""What one run measured. These values travel as they are."""

from __future__ import annotations

import msgspec

__all__ = ["EdgeTimes", "Observation"]


class EdgeTimes(msgspec.Struct, frozen=True, array_like=True):
    """Where the time went on the edge, all on its own clock.

    Parameters
    ----------
    queue_s : float
        From the last byte of the request until it ran.
    decode_s, compute_s, encode_s : float
    residence_s : float
        From the last byte of the request until the reply was handed over; more than the sum of the others.
    steps_s : tuple of float
        Compute seconds of each step, where they run one by one (tasks do, a network does not); else empty.
    """

    queue_s: float = 0.0
    decode_s: float = 0.0
    compute_s: float = 0.0
    encode_s: float = 0.0
    residence_s: float = 0.0
    steps_s: tuple[float, ...] = ()


class Observation(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What one run of a plan measured. All of it may be late, partial or repeated.

    Parameters
    ----------
    plan_id : int
    cut : int
    head_s : float, optional
        Compute seconds of [0, cut) on the device.
    tail_s : float, optional
        Compute seconds of [cut, n) on the edge.
    local_s : float, optional
        Compute seconds of [cut, n) on the device, where it finished alone.
    edge : EdgeTimes, optional
    round_trip_s : float, optional
        On the device's monotonic clock, from handing the request to the link until the reply was there: until its
        last byte had come, not until somebody read it.
    sent_bytes, received_bytes : int
        Frame sizes.
    censored : bool
        The reply had not come when this was noted: `round_trip_s` is a lower bound.
    retransmitted : bool
        It is not known which of several sent frames was answered: teaches nothing about the link (Karn's rule).
    probe : bool
        A measurement of the link alone; `cut` and `plan_id` mean nothing.
    queued_s : float
        Of the round trip, what this request waited on the link behind others.
    held_s : float
        Of the edge's residence, what it waited there behind others of the same device.
    upper_bound : bool
        The reply was read later than it may have come: `round_trip_s` is an upper bound.
    head_steps_s, local_steps_s : tuple of float
        Of the seconds in `head_s` and `local_s` those of each step, where they run one by one; else empty.

    Examples
    --------
    >>> seen = Observation(plan_id=1, cut=3, round_trip_s=0.05, edge=EdgeTimes(residence_s=0.02))
    >>> round(seen.network_s, 6)
    0.03
    """

    plan_id: int
    cut: int
    head_s: float | None = None
    tail_s: float | None = None
    local_s: float | None = None
    edge: EdgeTimes | None = None
    round_trip_s: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    censored: bool = False
    retransmitted: bool = False
    probe: bool = False
    head_steps_s: tuple[float, ...] = ()
    local_steps_s: tuple[float, ...] = ()
    queued_s: float = 0.0
    held_s: float = 0.0
    upper_bound: bool = False

    @property
    def network_s(self) -> float | None:
        """Seconds on the link: the round trip less the edge's residence and `queued_s`. None where it is unknown."""
        if self.round_trip_s is None or self.edge is None:
            return None
        return self.round_trip_s - self.edge.residence_s - self.queued_s
