"""How much one device may ask of an edge."""

from __future__ import annotations

import math

from attrs import field, frozen

__all__ = ["Bucket", "Quota"]


@frozen
class Quota:
    """What each device may ask for; more is answered with "busy".

    Parameters
    ----------
    rate_per_s : float
        Requests a second, in the long run; inf for no limit.
    burst : float
        Requests at once, after a pause.
    in_flight : float
        The share of the edge's ``max_in_flight`` that one device may have, 0..1: it must not fill the edge alone.
    boots : float
        The share of the edge's ``max_peers`` that the boots of one name may have, 0..1: all devices behind one address
        without tokens, or with one token, and their restarts.
    """

    rate_per_s: float = field(default=2000.0, converter=float)
    burst: float = field(default=2000.0, converter=float)
    in_flight: float = field(default=0.75, converter=float)
    boots: float = field(default=0.75, converter=float)

    def __attrs_post_init__(self) -> None:
        if not self.rate_per_s > 0:
            raise ValueError(f"rate_per_s must be a positive number, got {self.rate_per_s}")
        if not self.burst >= 1:
            raise ValueError(f"burst must be at least 1, got {self.burst}")
        for name in ("in_flight", "boots"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, above 0 and at most 1, got {getattr(self, name)}")


class Bucket:
    """A token bucket: it fills at a rate up to a limit, and a request takes one token.

    Examples
    --------
    >>> bucket = Bucket(Quota(rate_per_s=10, burst=1), now_s=0.0)
    >>> bucket.take(0.0), bucket.take(0.0), bucket.take(0.1)
    (0.0, 0.1, 0.0)
    """

    __slots__ = ("_filled_s", "_quota", "_tokens")

    def __init__(self, quota: Quota, now_s: float) -> None:
        self._quota, self._tokens, self._filled_s = quota, quota.burst, now_s

    def take(self, now_s: float) -> float:
        """Take a token and return 0, or return after how many seconds there will be one."""
        rate = self._quota.rate_per_s
        if rate == math.inf:
            return 0.0
        more = max(0.0, now_s - self._filled_s) * rate
        self._tokens, self._filled_s = min(self._quota.burst, self._tokens + more), now_s
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / rate
