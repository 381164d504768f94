"""A request on the device, from when it was sent until it is forgotten."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import msgspec

from splitiot import wire
from splitiot.errors import SplitiotError
from splitiot.observation import Observation
from splitiot.pipeline import Payload
from splitiot.plan import Plan
from splitiot.session._states import Event, State

__all__ = ["NO_CONTENT", "PendingRequest", "RequestContent"]


class RequestContent(msgspec.Struct, frozen=True, eq=False):
    """What a request needs until it has ended: to be sent again, or to be finished here.

    Parameters
    ----------
    message : Request
    buffers : tuple
    payload : object
        What the rest of the pipeline takes.
    kept : object
        What stays here, and joins the result.
    observations : tuple of Observation
        Of earlier requests, which it carries.
    """

    message: wire.Request
    buffers: tuple[Any, ...]
    payload: Payload
    kept: Payload
    observations: tuple[Observation, ...]


NO_CONTENT: Final = RequestContent(
    wire.Request(boot=wire.NOBODY, sequence=0, digest=b"", start=0, stop=0, fingerprint=b""), (), None, None, ()
)
"""That of a request which has ended."""


class PendingRequest(msgspec.Struct, eq=False, kw_only=True):
    """What is fixed when a request is sent, and what becomes of it."""

    sequence: int
    plan: Plan
    begun_s: float
    sent_s: float
    deadline_s: float
    can_finish: bool
    nbytes: int
    head_s: float | None
    head_steps_s: tuple[float, ...]
    behind: bool
    """Others were on their way when it was sent."""

    content: RequestContent
    hedge_s: float
    """When a local finish must begin."""
    state: State = State.WAITING
    local: Literal["", "hedge", "fallback"] = ""
    again_s: float = math.inf
    """When it is sent again: after a pause, or since the edge is silent."""
    attempts: int = 0
    error: SplitiotError | None = None
    """Why it is paused."""
    answered: bool = False

    @property
    def wake_s(self) -> float:
        """When something is due: never while it is finished here, which ends by itself."""
        return math.inf if self.local else min(self.deadline_s, self.again_s, self.hedge_s)

    def due(self, now_s: float, heard_s: float) -> Event | None:
        """Return what has become due, where all that had come by `heard_s` was read."""
        if self.local:
            return None
        if now_s >= self.deadline_s:
            return Event.DEADLINE
        if now_s >= self.hedge_s:
            return Event.HEDGE
        if self.state is State.WAITING:
            return Event.SILENT if heard_s >= self.again_s else None
        return Event.AGAIN if now_s >= self.again_s else None
