"""What keeps a device from its edge."""

from __future__ import annotations

from typing import Final

import msgspec

from splitiot._escape import escaped
from splitiot.errors import PayloadTooLarge, RemoteError, RemoteProtocolError, TransportError

__all__ = ["Trouble", "trouble_of"]

_MOST_WORDS: Final = 400  # what the other side said may stand in a reason
_CHECK: Final = "see that the edge runs, and that address and network are right"
_NO_EDGE: Final = "connect to a splitiot edge of the same version"


class Trouble(msgspec.Struct, frozen=True):
    """What keeps a device from its edge: the edge can't be used at all, or not for what would be best.

    Parameters
    ----------
    reason : str
        What is wrong.
    since_s : float
        Since when, on the device's clock (`time.monotonic` unless one was given).
    remedy : str
        What would mend it.
    heals : bool
        Whether it may end by itself: a network comes back, an edge restarts. False: somebody must change something, a
        token or a version. The device tries again either way.

    Examples
    --------
    >>> print(Trouble("it answered 401 Unauthorized", 12.0, "give the device a token that the edge knows", False))
    it answered 401 Unauthorized (give the device a token that the edge knows)
    """

    reason: str
    since_s: float
    remedy: str = ""
    heals: bool = True

    def __str__(self) -> str:
        return escaped(f"{self.reason} ({self.remedy})" if self.remedy else self.reason)


def trouble_of(error: Exception, since_s: float) -> Trouble:
    """Return the trouble that an error means."""
    reason = str(error) or type(error).__name__
    if len(reason) > _MOST_WORDS:
        reason = reason[:_MOST_WORDS] + " ..."
    if isinstance(error, RemoteProtocolError):
        return Trouble(reason, since_s, _NO_EDGE, False)
    if isinstance(error, RemoteError):
        return Trouble(f"the edge could not compute: {reason}", since_s, "see what its log says", False)
    if isinstance(error, PayloadTooLarge):  # the message says what to do
        return Trouble(reason, since_s, heals=False)
    if isinstance(error, TransportError):
        return Trouble(reason, since_s, error.remedy or (_CHECK if error.heals else ""), error.heals)
    return Trouble(reason, since_s, _CHECK)
