"""What stays as it is for a device's whole life, its copies in forked processes included."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen

from splitiot.cost import Constraint
from splitiot.device._profile_cache import ProfileCache
from splitiot.pipeline import Pipeline, RuntimeInfo
from splitiot.policies import Policy
from splitiot.recorder import Recorder
from splitiot.topology import DEFAULT_LINK, Link

__all__ = ["Options"]


@frozen(kw_only=True)
class Options:
    """What a device was told, checked: see `splitiot.Device`.

    Parameters
    ----------
    pipeline : Pipeline
        With the cuts that are legal with its runtime.
    info : RuntimeInfo
        What it is really run with here.
    cache : ProfileCache
    policy : Policy, optional
    link : Link
    subject_to : tuple of Constraint
    parts : frozenset of (int, int), optional
        The only ones that are here; None where all are.
    recorder : Recorder, optional
    patience_s : float
    follow : bool
    clock : callable
    """

    pipeline: Pipeline
    info: RuntimeInfo
    cache: ProfileCache
    policy: Policy | None = None
    link: Link = DEFAULT_LINK
    subject_to: tuple[Constraint, ...] = ()
    parts: frozenset[tuple[int, int]] | None = None
    recorder: Recorder | None = None
    patience_s: float = 5.0
    follow: bool = False
    clock: Callable[[], float] = time.monotonic

    @property
    def real_time(self) -> bool:
        """Whether its clock is the real one: on another, a simulated one, no real time passes in a transport."""
        return self.clock is time.monotonic

    def has_rest(self, cut: int) -> bool:
        """Whether the part behind a cut is here."""
        return self.parts is None or (cut, self.pipeline.n) in self.parts

    def runs_alone(self, cut: int) -> bool:
        """Whether a request that is cut here needs no edge."""
        return cut == self.pipeline.n and self.pipeline.sink == "device"
