"""The real Core of a device, on virtual clocks, files and runners."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from splitiot.device._core import Core
from splitiot.device._options import Options
from splitiot.device._profile_cache import ProfileCache
from splitiot.device._spool import Spool
from splitiot.plan import Outcome
from splitiot.planner import Planner
from splitiot.session import DeviceSession, RunLocal
from splitiot.testing.simulation._edge import RUNTIME, VirtualRunner
from splitiot.testing.simulation._oracles import CountingEstimator
from splitiot.topology import Link, Topology
from splitiot.transports import Transport

if TYPE_CHECKING:
    from splitiot.testing.simulation._device import DeviceMachine

__all__ = ["virtual_core"]


def virtual_core(device: DeviceMachine, transport: Transport, boot: bytes, stored: bytes | None) -> Core:
    """Make a device's core: it tells the device how requests end, and which it is to finish.

    Parameters
    ----------
    device : DeviceMachine
    transport : Transport
    boot : bytes
    stored : bytes, optional
        What its planner knew.
    """
    world, role, pipeline = device.world, device.role, device.role.work.pipeline
    profile = role.work.profile.scaled(role.slower)
    session = DeviceSession(
        pipeline,
        boot=boot,
        runtime=RUNTIME,
        profile=profile,
        parts=role.parts,
        exact=role.exact,
        max_pending=8,
        chance=device.session_chance,
    )
    seconds = tuple(role.slower * second for second in role.work.seconds)
    runner = VirtualRunner(pipeline, lambda start, stop: device.pace(seconds[start:stop]))
    link = Link.from_mbit_per_s(10, rtt_s=0.02)
    planner = Planner(
        pipeline,
        Topology(tiers=[profile, profile], links=[link]),
        role.policy,
        estimators=lambda profiles, link: CountingEstimator(world, role.name, profiles, link),
    )
    if stored is not None:
        planner.restore(msgspec.json.decode(stored))
    options = Options(
        pipeline=pipeline,
        info=RUNTIME,
        link=link,
        parts=None if role.parts is None else frozenset(role.parts),
        patience_s=role.patience_s,
        follow=role.follow,
        cache=ProfileCache(False),
        clock=lambda: device.now_s,
    )
    spool = Spool(device.files, "observations", interval_s=0.5)
    core = Core(options, transport, session, runner, planner, spool=spool)
    core.done, core.finishes = _Outcomes(device.request_done), _Finishes(device.finish_wanted)
    return core


class _Outcomes(dict[int, Outcome]):
    """Where a core puts outcomes: tells of each."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell = tell

    def __setitem__(self, sequence: int, outcome: Outcome) -> None:
        self._tell(sequence)
        super().__setitem__(sequence, outcome)


class _Finishes(deque[RunLocal]):
    """Where a core puts local finishes: tells of each."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, effect: RunLocal) -> None:
        self._tell(effect.sequence)
        super().append(effect)
