"""What goes wrong with machines: they crash, are slow, have little, forget, are somebody else's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from attrs import frozen

from splitiot.errors import TransportError
from splitiot.testing.simulation._fault import Fault, episodes, moments
from splitiot.testing.simulation._heap import Chance
from splitiot.testing.simulation._hostile import Hostile
from splitiot.testing.simulation._network import Passage

if TYPE_CHECKING:
    from splitiot.testing.simulation._device import DeviceMachine
    from splitiot.testing.simulation._edge import EdgeMachine
    from splitiot.testing.simulation._world import World

__all__ = [
    "Bursts",
    "ClockSteps",
    "DeviceReboot",
    "EdgeCrash",
    "FailingSteps",
    "FullDisk",
    "HostileDevice",
    "OtherRuntime",
    "ScarceEdge",
    "SharedNames",
    "SlowDevice",
    "SlowEdge",
    "SlowSampling",
    "StatefulParts",
    "TornWrite",
]


@frozen
class EdgeCrash(Fault):
    """The edge dies with all that it knows, and another one starts in its place after a while.

    Parameters
    ----------
    signalled : bool
        Devices are told at once that nobody listens; else they hear nothing.
    """

    kind = "edge-crash"
    on_wire = True
    signalled: bool = True

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.hit(0.5), spans=moments(chance, heal_s, chance.pick((0.05, 0.5, 3.0))))

    def begin(self, world: World, chance: Chance) -> None:
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, self._crash, world)
            world.heap.at(end_s, world.restart_edge)

    def _crash(self, world: World) -> None:
        world.bit(self)
        world.crash_edge()

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if passage.up and self.signalled:
            passage.error = TransportError("nobody listens there", frame=passage.frame)


@frozen
class OtherRuntime(Fault):
    """Meanwhile the edge is one with another runtime, whose results are nearly the same: it restarts at both ends."""

    kind = "other-runtime"

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(spans=moments(chance, heal_s, heal_s / 2))

    def begin(self, world: World, chance: Chance) -> None:
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, self._restart, world, chance.whole(1, 1000))
            world.heap.at(end_s, self._restart, world, 0)

    def _restart(self, world: World, flavour: int) -> None:
        world.bit(self)
        world.flavour = flavour
        world.crash_edge()
        world.restart_edge()


@frozen
class DeviceReboot(Fault):
    """A device dies with all that it has under way, and starts again: with what it had stored of its planner, or not.

    Parameters
    ----------
    keeps : bool
        Whether its planner's state was stored.
    """

    kind = "device-reboot"
    keeps: bool = True

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.hit(0.5), spans=moments(chance, heal_s, 1.0))

    def begin(self, world: World, chance: Chance) -> None:
        for begin_s, end_s in self.spans:
            device = chance.pick(world.devices)
            world.heap.at(begin_s, self._crash, world, device)
            world.heap.at(end_s, device.start, self.keeps)

    def _crash(self, world: World, device: DeviceMachine) -> None:
        world.bit(self)
        device.crash()


@frozen
class SlowEdge(Fault):
    """The edge takes longer than it says.

    Parameters
    ----------
    factor : float
    """

    kind = "slow-edge"
    factor: float = 10.0

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.pick((3.0, 10.0, 50.0, 1000.0)), spans=moments(chance, heal_s, heal_s / 2))

    def begin(self, world: World, chance: Chance) -> None:
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, self._set, world, self.factor)
            world.heap.at(end_s, self._set, world, 1.0)

    def _set(self, world: World, factor: float) -> None:
        world.edge_slower = factor
        if factor > 1:
            world.bit(self)


@frozen
class SlowDevice(Fault):
    """Devices take longer than they believe.

    Parameters
    ----------
    factor : float
    """

    kind = "slow-device"
    factor: float = 3.0

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(1.5, 8.0), spans=moments(chance, heal_s, heal_s / 2))

    def begin(self, world: World, chance: Chance) -> None:
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, self._set, world, self.factor)
            world.heap.at(end_s, self._set, world, 1.0)

    def _set(self, world: World, factor: float) -> None:
        world.devices_slower = factor
        if factor > 1:
            world.bit(self)


@frozen
class ClockSteps(Fault):
    """All clocks differ by up to a minute, and the wall clocks step by an hour now and then.

    Monotonic clocks go on. So plans are the same, to the last byte, as without it.
    """

    kind = "clock-steps"

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(spans=moments(chance, heal_s, 1.0))

    def begin(self, world: World, chance: Chance) -> None:
        machines: list[DeviceMachine | EdgeMachine] = [*world.devices, world.edge]
        for machine in machines:
            machine.skew_s = float(chance.whole(-60, 60))
            world.bit(self)
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, self._step, world, chance.pick((-3600.0, 3600.0)))
            world.heap.at(end_s, self._step, world, chance.pick((-3600.0, 3600.0)))

    def _step(self, world: World, by_s: float) -> None:
        world.wall_s += by_s
        world.bit(self)


@frozen
class Bursts(Fault):
    """Many requests come at once.

    Parameters
    ----------
    size : int
    """

    kind = "bursts"
    size: int = 8

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.whole(4, 12), spans=moments(chance, heal_s, 1.0))

    def begin(self, world: World, chance: Chance) -> None:
        quick = [device for device in world.devices if device.role.listens]  # another one has had enough with one
        for begin_s, _ in self.spans:
            world.heap.at(begin_s, self._burst, world, chance.pick(quick))

    def _burst(self, world: World, device: DeviceMachine) -> None:
        world.bit(self)
        for _ in range(self.size):
            device.arrive()


@frozen
class FailingSteps(Fault):
    """Steps raise, or drop the frame, on either side.

    Parameters
    ----------
    rate : float
        Of requests.
    """

    kind = "failing-steps"
    rate: float = 0.2

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.05, 0.4), spans=episodes(chance, heal_s))

    def begin(self, world: World, chance: Chance) -> None:
        for device in world.devices:
            device.traps = functools.partial(self._trap, world, chance.child())

    def _trap(self, world: World, chance: Chance, n: int) -> int:
        if not self.on(world.heap.now_s) or not chance.hit(self.rate):
            return 0
        world.bit(self)
        return chance.whole(1, n) * (1 if chance.hit(0.5) else -1)


@frozen
class TornWrite(Fault):
    """The power goes while a device writes a file, or so soon behind that the disk has only said that it had written.

    Parameters
    ----------
    lies : bool
        Whether disks say that too early.
    """

    kind = "torn-write"
    lies: bool = False

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.hit(0.4), spans=episodes(chance, heal_s - 0.5))

    def begin(self, world: World, chance: Chance) -> None:
        for device in world.devices:
            device.files.tears = self._tears(world, device, chance.child())

    def _tears(self, world: World, device: DeviceMachine, chance: Chance) -> Callable[[int], int | None]:
        def tears(size: int) -> int | None:
            if not self.on(world.heap.now_s) or not chance.hit(0.15):
                return None
            world.bit(self)
            if self.lies:
                device.files.spoil(chance.below)
            return chance.below(size)

        return tears


@frozen
class FullDisk(Fault):
    """Devices can't write."""

    kind = "full-disk"

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(spans=moments(chance, heal_s, heal_s / 2))

    def begin(self, world: World, chance: Chance) -> None:
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, self._set, world, True)
            world.heap.at(end_s, self._set, world, False)

    def _set(self, world: World, full: bool) -> None:
        for device in world.devices:
            device.files.full = full
        if full:
            world.bit(self)


# who takes part ---------------------------------------------------------------------------------------------


@frozen
class ScarceEdge(Fault):
    """The edge's tables are small: it says Busy, forgets answers, devices that are silent for a moment, and states.

    Parameters
    ----------
    in_flight, peers, answers, owners : int
    ttl_s : float
    """

    kind = "scarce-edge"
    in_flight: int = 2
    peers: int = 3
    answers: int = 8
    owners: int = 1
    ttl_s: float = 0.5

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        sizes = chance.whole(1, 4), chance.whole(3, 6), chance.whole(1, 16), chance.whole(1, 2)
        return cls(*sizes, chance.pick((0.2, 0.5, 1.0)))


@frozen
class StatefulParts(Fault):
    """A device takes part whose pipeline remembers: as a whole, or only its tail on the edge.

    Parameters
    ----------
    work : str
        ``"stateful"`` or ``"remembering"``.
    """

    kind = "stateful-parts"
    work: str = "stateful"

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.pick(("stateful", "remembering")))


@frozen
class HostileDevice(Fault):
    """A device takes part that breaks the rules: garbage, NaN, huge numbers, lies, other devices' frames as its own.

    Parameters
    ----------
    every_s : float
        How often it sends something.
    """

    kind = "hostile-device"
    every_s: float = 0.1

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.pick((0.03, 0.1, 0.3)), spans=episodes(chance, heal_s))

    def begin(self, world: World, chance: Chance) -> None:
        hostile = Hostile(world, chance, lambda: world.bit(self))
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, hostile.go_on, end_s, self.every_s)


@frozen
class SlowSampling(Fault):
    """A device takes part that has one thread, takes a frame every few seconds, and computes for long.

    What the edge says meanwhile waits until somebody reads it: it is neither silent nor slow.

    Parameters
    ----------
    every_s : float
        From one frame to the next.
    slower : float
        How many times longer its steps take than another device's.
    tells : bool
        Whether its transport tells when frames came.
    """

    kind = "slow-sampling"
    every_s: float = 2.5
    slower: float = 8.0
    tells: bool = True

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.pick((2.5, 2.5, 3.0, 4.5)), chance.between(3.0, 10.0), chance.hit(0.5))

    def begin(self, world: World, chance: Chance) -> None:
        for device in world.devices:
            if device.role.listens:
                continue
            at_s = chance.between(0.3, 1.0)
            while at_s < world.over_s:
                world.heap.at(at_s, device.arrive)
                at_s += self.every_s * chance.between(0.95, 1.05)


@frozen
class SharedNames(Fault):
    """All devices have one name: a proxy is in front of them, or they were given the same token.

    Parameters
    ----------
    more : int
        Devices that take part beside the others.
    """

    kind = "shared-names"
    more: int = 2

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.pick((1, 3, 9, 18)))

    def begin(self, world: World, chance: Chance) -> None:
        for device in world.devices:
            device.line.name = "everybody"
            world.bit(self)
