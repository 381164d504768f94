"""What a session asks its owner to do."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeAlias

import msgspec

from splitiot.errors import DeadlineExceeded, SplitiotError
from splitiot.observation import Observation
from splitiot.pipeline import Payload, Pipeline
from splitiot.plan import Outcome
from splitiot.topology import TierProfile

__all__ = [
    "DeviceEffect",
    "EdgeEffect",
    "EdgeProfile",
    "ForgetState",
    "Job",
    "NewObservation",
    "RequestDone",
    "RunLocal",
    "RunPart",
    "Send",
]


class Send(msgspec.Struct, frozen=True, eq=False):
    """Hand these bytes to the transport.

    `reply_to` is what the edge's owner gave to `receive` with the frame that this one answers.
    """

    frame: bytes
    peer: str = ""
    reply_to: Any = None


class RunLocal(msgspec.Struct, frozen=True, eq=False):
    """Run [start, stop) here and tell `local_done`."""

    sequence: int
    start: int
    stop: int
    payload: Payload


class RequestDone(msgspec.Struct, frozen=True, eq=False):
    """A request ended; nothing else will be said of it."""

    sequence: int
    outcome: Outcome


class NewObservation(msgspec.Struct, frozen=True, eq=False):
    """Something was measured: give it to the planner."""

    observation: Observation


class EdgeProfile(msgspec.Struct, frozen=True, eq=False):
    """The edge's profile of the pipeline arrived."""

    profile: TierProfile


DeviceEffect: TypeAlias = Send | RunLocal | RequestDone | NewObservation | EdgeProfile
"""What a `DeviceSession` asks for."""


class Job(msgspec.Struct, frozen=True, eq=False):
    """A part to run on the edge, on a payload that was checked.

    Parameters
    ----------
    key : tuple of (str, bytes, int)
        Peer, boot and sequence.
    digest : str
    pipeline : Pipeline
        With its results wanted where the request says.
    start, stop : int
    payload : object
    owner : hashable, optional
        Of pipelines that remember: whose state it is.
    reset : bool
        Forget the owner's state before running.
    received_s : float
    expires_s : float, optional
        When nobody will want the result any more; both on the edge's clock.
    """

    key: tuple[str, bytes, int]
    digest: str
    pipeline: Pipeline
    start: int
    stop: int
    payload: Payload
    owner: Hashable
    reset: bool
    received_s: float
    expires_s: float | None

    def late(self, now_s: float) -> SplitiotError | None:
        """The error that ends a job that is not worth running any more."""
        if self.expires_s is None or now_s < self.expires_s:
            return None
        return DeadlineExceeded(f"the request waited {now_s - self.received_s:.3f} s, longer than its deadline")


class RunPart(msgspec.Struct, frozen=True, eq=False):
    """Run this job and tell `complete`."""

    job: Job


class ForgetState(msgspec.Struct, frozen=True, eq=False):
    """Drop the state kept for this owner."""

    digest: str
    owner: Hashable


EdgeEffect: TypeAlias = Send | RunPart | ForgetState
"""What an `EdgeSession` asks for."""
