"""What an edge has taken on and not answered yet."""

from __future__ import annotations

from splitiot.limits import Limits

__all__ = ["Load"]


class Load:
    """Counts requests and the bytes of their frames, in all and of each name.

    Parameters
    ----------
    limits : Limits

    Examples
    --------
    >>> load = Load(Limits(max_in_flight=4, max_bytes_in_flight=100))
    >>> load.add("camera", 50)
    >>> load.has_room("camera", 1), load.has_room("door", 50), load.has_room("door", 51)
    (False, True, False)
    >>> load.remove("camera", 50)
    >>> load.requests, load.nbytes
    (0, 0)
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = self.nbytes = 0
        self._names: dict[str, tuple[int, int]] = {}

    def has_room(self, name: str, nbytes: int) -> bool:
        """Whether a request of so many bytes can be taken on."""
        limits = self._limits
        requests, held = self._names.get(name, (0, 0))
        return (
            self.requests < limits.max_in_flight
            and requests < limits.max_in_flight_per_name
            and self.nbytes + nbytes <= limits.max_bytes_in_flight
            and held + nbytes <= limits.max_bytes_in_flight_per_name
        )

    def add(self, name: str, nbytes: int) -> None:
        """A request was taken on."""
        self._change(name, 1, nbytes)

    def remove(self, name: str, nbytes: int) -> None:
        """It was answered."""
        self._change(name, -1, -nbytes)

    def _change(self, name: str, requests: int, nbytes: int) -> None:
        self.requests += requests
        self.nbytes += nbytes
        before = self._names.get(name, (0, 0))
        after = before[0] + requests, before[1] + nbytes
        if after[0]:
            self._names[name] = after
        else:
            del self._names[name]
