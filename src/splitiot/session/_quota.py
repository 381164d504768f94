"""How often each name may ask something of an edge."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Bucket", "Quota"]


class Bucket:
    """A token bucket: it fills at a rate up to a limit, and what is asked takes a token, or several.

    Examples
    --------
    >>> bucket = Bucket(rate_per_s=10, burst=1, now_s=0.0)
    >>> bucket.take(0.0), bucket.take(0.0), bucket.take(0.1)
    (0.0, 0.1, 0.0)
    """

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "filled_s")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s, self._burst, self._tokens = rate_per_s, burst, burst
        self.filled_s = now_s
        """When the tokens were counted last."""

    def take(self, now_s: float, tokens: float = 1.0) -> float:
        """Take tokens and return 0, or return after how many seconds there will be enough.

        What takes more than there can be takes all.
        """
        more = max(0.0, now_s - self.filled_s) * self._rate_per_s
        self._tokens, self.filled_s = min(self._burst, self._tokens + more), now_s
        missing = min(tokens, self._burst) - self._tokens
        if missing > 0:
            return missing / self._rate_per_s
        self._tokens -= min(tokens, self._burst)
        return 0.0


class Quota:
    """A bucket for each name. The names that are silent long enough to have a full one again are forgotten.

    Parameters
    ----------
    rate_per_s : float
        What each name may ask for in the long run.
    burst_s : float
        What it may ask for at once, after a pause: as much as in so many seconds, and one at least.
    most : int
        How many names are known; one more takes the place of the one that was silent for longest.
    """

    def __init__(self, rate_per_s: float, burst_s: float, most: int) -> None:
        self._rate_per_s, self._most = rate_per_s, most
        self._burst = max(1.0, rate_per_s * burst_s)
        self._full_s = self._burst / rate_per_s
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()  # the one that was asked last behind

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, name: str, now_s: float, tokens: float = 1.0) -> float:
        """Take from a name's bucket and return 0, or return how long it must wait."""
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room(now_s)
            bucket = self._buckets[name] = Bucket(self._rate_per_s, self._burst, now_s)
        else:
            self._buckets.move_to_end(name)
        return bucket.take(now_s, tokens)

    def _make_room(self, now_s: float) -> None:
        while self._buckets:
            oldest = next(iter(self._buckets.values()))
            if len(self._buckets) < self._most and now_s - oldest.filled_s < self._full_s:
                return
            self._buckets.popitem(last=False)
