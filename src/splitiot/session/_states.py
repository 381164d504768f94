"""The states of a request on the device, and what may happen in each.

One table, which `tools/draw_states.py` draws for the documentation.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["TRANSITIONS", "Event", "State"]


class State(enum.StrEnum):
    """Where a request is."""

    WAITING = "waiting"
    """It was sent; the answer is to come."""
    PAUSED = "paused"
    """It will be sent again in a moment: the device can't finish it alone."""
    LOCAL = "local"
    """The device finishes it; an answer that is faster still wins."""
    ENDED = "ended"
    """It has its one outcome. A late answer only teaches."""


class Event(enum.StrEnum):
    """What happens to a request."""

    ANSWER = "answer"
    """The edge sent a result, or that a task dropped the frame."""
    BUSY = "busy"
    """The edge did not take it."""
    REFUSED = "refused"
    """The edge could not compute it, or sent what can't be used."""
    LOST = "lost"
    """The transport says that it, or the answer, did not get through; or it could not be sent at all."""
    SILENT = "silence"
    """No answer for much longer than answers take."""
    AGAIN = "pause over"
    """The pause is over, and the edge can be used."""
    HEDGE = "hedge"
    """A local finish must begin now to be in time, or patience has ended."""
    DEADLINE = "deadline"
    """No time is left."""
    FINISHED = "finished"
    """The local finish has ended, one way or the other."""


_W, _P, _L, _E = State.WAITING, State.PAUSED, State.LOCAL, State.ENDED

TRANSITIONS: Final[Mapping[tuple[State, Event], tuple[State, ...]]] = MappingProxyType(
    {
        (_W, Event.ANSWER): (_E,),
        (_W, Event.BUSY): (_L, _P, _E),
        (_W, Event.REFUSED): (_L, _E),
        (_W, Event.LOST): (_L, _P, _E),
        (_W, Event.SILENT): (_W,),
        (_W, Event.HEDGE): (_L,),
        (_W, Event.DEADLINE): (_E,),
        (_P, Event.ANSWER): (_E,),
        (_P, Event.REFUSED): (_E,),
        (_P, Event.AGAIN): (_W, _E),
        (_P, Event.DEADLINE): (_E,),
        (_L, Event.ANSWER): (_E,),
        (_L, Event.FINISHED): (_E,),
    }
)
"""What a request becomes: the first of these that is possible. To be local the device must be able to finish it; to be
sent again (waiting after an event, paused) there must be time, and a token of the retry budget. An event that has no
entry changes nothing."""
