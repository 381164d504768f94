"""What one device of a simulation is."""

from __future__ import annotations

from attrs import field, frozen

from splitiot.policies import Policy
from splitiot.testing.simulation._work import Work

__all__ = ["Role"]


@frozen(kw_only=True, eq=False)
class Role:
    """What one device of a simulation is.

    Parameters
    ----------
    name : str
    salt : int
        Stands in each of its values.
    work : Work
    window : int
        Requests at once.
    deadlines_s : tuple of float or None
        One of them is each request's.
    patience_s : float
    parts : tuple of (int, int), optional
        The only ones that it has.
    exact, follow : bool
        See `splitiot.Device`.
    policy : Policy
    listens : bool
        Somebody always waits for what comes, as in `Device.map`. Else only a request that waits for its answer does, as
        in `Device.run`: nobody while the lane is at work, and nobody between requests.
    tells : bool
        Whether its transport tells when frames came.
    slower : float
        How many times longer each step takes it.
    stays_away : bool
        It does not want the edge: it only greets it, and measures the link.
    """

    name: str
    salt: int
    work: Work
    policy: Policy = field(repr=False)
    window: int = 1
    deadlines_s: tuple[float | None, ...] = (None,)
    patience_s: float = 2.0
    parts: tuple[tuple[int, int], ...] | None = None
    exact: bool = False
    follow: bool = False
    listens: bool = True
    tells: bool = True
    slower: float = 1.0
    stays_away: bool = False
