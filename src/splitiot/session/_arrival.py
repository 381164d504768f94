"""When a frame came, as well as that is known."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["Arrival"]

_UNSURE: Final = 0.25


class Arrival(msgspec.Struct, frozen=True):
    """When a frame came, on the device's clock: not when somebody came to read it.

    Parameters
    ----------
    came_s : float
        When it was here, at the latest.
    unsure_s : float
        It may have come so much earlier: nobody looked meanwhile, and the transport can't tell.
    queued_s : float
        How long the request that it answers had waited on this side before it was on its way.
    """

    came_s: float
    unsure_s: float = 0.0
    queued_s: float = 0.0

    def since(self, sent_s: float) -> tuple[float, float, bool]:
        """Return when what it answers was on its way, the seconds since, and whether these are only an upper bound.

        They are one where more than a quarter of them may be the time that it waited to be read.

        Examples
        --------
        >>> Arrival(10.5).since(10.0)
        (10.0, 0.5, False)
        >>> Arrival(10.5, unsure_s=0.4, queued_s=0.25).since(10.0)
        (10.25, 0.25, True)
        """
        sent_s = min(sent_s + max(0.0, self.queued_s), max(sent_s, self.came_s))
        took_s = max(0.0, self.came_s - sent_s)
        return sent_s, took_s, min(self.unsure_s, took_s) > _UNSURE * took_s
