"""What goes wrong in a simulation: frozen values, one class a kind."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeAlias

import msgspec
from attrs import field, frozen

from splitiot import wire
from splitiot.errors import ProtocolError, TransportError
from splitiot.testing.simulation._heap import Chance, on_grid
from splitiot.testing.simulation._hostile import Hostile
from splitiot.testing.simulation._network import Passage

if TYPE_CHECKING:
    from splitiot.testing.simulation._device import DeviceMachine
    from splitiot.testing.simulation._edge import EdgeMachine
    from splitiot.testing.simulation._world import World

__all__ = [
    "FAULTS",
    "BitFlips",
    "Bursts",
    "ClockSteps",
    "DeviceReboot",
    "Duplication",
    "EdgeCrash",
    "FailingSteps",
    "Fault",
    "FullDisk",
    "HostileDevice",
    "Jitter",
    "Loss",
    "Misrouting",
    "OtherRuntime",
    "Reordering",
    "ScarceEdge",
    "SignalledPartition",
    "SilentPartition",
    "SlowDevice",
    "SlowEdge",
    "Span",
    "StatefulParts",
    "TornWrite",
    "VersionSkew",
]

Span: TypeAlias = tuple[float, float]
"""From when to when it goes on, in seconds of virtual time."""

_ALWAYS: Final[tuple[Span, ...]] = ((0.0, float("inf")),)


@frozen
class Fault:
    """Something that goes wrong.

    A kind of your own is a subclass: `draw` makes one that fits a run, `begin` arranges what happens by itself, and
    `meddle` is shown each frame while the fault is on. Tell `World.bit` whenever it had an effect.

    Parameters
    ----------
    spans : tuple of (float, float)
        When it is on.
    """

    kind: ClassVar[str] = ""
    on_wire: ClassVar[bool] = False

    spans: tuple[Span, ...] = field(default=_ALWAYS, kw_only=True)

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        """Make one that ends before `heal_s`."""
        return cls(spans=_episodes(chance, heal_s))

    def on(self, now_s: float) -> bool:
        """Whether it goes on at this moment."""
        return any(begin_s <= now_s < end_s for begin_s, end_s in self.spans)

    def begin(self, world: World, chance: Chance) -> None:
        """Arrange what happens by itself; called once, before anything else happens."""

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        """Change what happens to a frame; called while it is on, where `on_wire` says so."""


def _episodes(chance: Chance, heal_s: float) -> tuple[Span, ...]:
    """The whole time now and then, else one to three times a while."""
    if chance.hit(0.25):
        return ((0.0, heal_s),)
    spans = []
    for _ in range(chance.whole(1, 3)):
        begin_s = chance.between(0.0, heal_s * 0.85)
        spans.append((on_grid(begin_s), on_grid(min(heal_s, begin_s + chance.between(0.3, heal_s / 2.5)))))
    return tuple(spans)


def _moments(chance: Chance, heal_s: float, longest_s: float) -> tuple[Span, ...]:
    """Some short spans, one after another, the last over well before the end."""
    spans: list[Span] = []
    at_s = chance.between(0.2, heal_s / 2)
    for _ in range(chance.whole(1, 4)):
        end_s = at_s + chance.between(0.01, longest_s)
        if end_s > heal_s:
            break
        spans.append((on_grid(at_s), on_grid(end_s)))
        at_s = end_s + chance.between(0.05, heal_s / 3)
    return tuple(spans) or ((heal_s / 2, heal_s / 2 + longest_s / 2),)


# on the wire ------------------------------------------------------------------------------------------------


@frozen
class Loss(Fault):
    """Frames vanish.

    Parameters
    ----------
    rate : float
        Which share of them.
    """

    kind = "loss"
    on_wire = True
    rate: float = 0.2

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.02, 0.5), spans=_episodes(chance, heal_s))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if chance.hit(self.rate):
            passage.delays_s.clear()
            world.bit(self)


@frozen
class Duplication(Fault):
    """Frames arrive twice or more often.

    Parameters
    ----------
    rate : float
    apart_s : float
        How much later at most.
    """

    kind = "duplication"
    on_wire = True
    rate: float = 0.2
    apart_s: float = 0.5

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.05, 0.6), chance.pick((0.0, 0.02, 0.3, 2.0)), spans=_episodes(chance, heal_s))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if passage.delays_s and chance.hit(self.rate):
            for _ in range(chance.whole(1, 3)):
                passage.delays_s.append(chance.between(0.0, self.apart_s))
            world.bit(self)


@frozen
class BitFlips(Fault):
    """Bits of frames turn over, or frames are cut short. The link's checksum drops what it finds.

    Parameters
    ----------
    rate : float
    """

    kind = "bit-flips"
    on_wire = True
    rate: float = 0.2

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.05, 0.4), spans=_episodes(chance, heal_s))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if not passage.frame or not chance.hit(self.rate):
            return
        garbled = bytearray(passage.frame)
        if chance.hit(0.2):
            del garbled[chance.below(len(garbled)) :]
        else:
            for _ in range(chance.whole(1, 8)):
                garbled[chance.below(len(garbled))] ^= 1 << chance.below(8)
        if passage.line.raw or zlib.crc32(garbled) == zlib.crc32(passage.frame):
            passage.frame = bytes(garbled)
        else:
            passage.delays_s.clear()
        world.bit(self)


@frozen
class Jitter(Fault):
    """The way takes longer for some frames, and so for all behind them.

    Parameters
    ----------
    rate, most_s : float
    """

    kind = "jitter"
    on_wire = True
    rate: float = 0.3
    most_s: float = 0.05

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.1, 0.8), chance.pick((0.01, 0.05, 0.2)), spans=_episodes(chance, heal_s))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if chance.hit(self.rate):
            passage.held_s += chance.between(0.0, self.most_s)
            world.bit(self)


@frozen
class Reordering(Fault):
    """Some frames are overtaken by those behind them.

    Parameters
    ----------
    rate, most_s : float
    """

    kind = "reordering"
    on_wire = True
    rate: float = 0.3
    most_s: float = 0.5

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.05, 0.5), chance.pick((0.05, 0.3, 1.5)), spans=_episodes(chance, heal_s))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if passage.delays_s and chance.hit(self.rate):
            passage.delays_s[0] += chance.between(0.0, self.most_s)
            world.bit(self)


@frozen
class SilentPartition(Fault):
    """Nothing gets through, and nobody is told.

    Parameters
    ----------
    ways : str
        ``"both"``, ``"up"`` or ``"down"``.
    """

    kind = "silent-partition"
    on_wire = True
    ways: str = "both"

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.pick(("both", "both", "up", "down")), spans=_moments(chance, heal_s, heal_s / 2))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if self.ways == "both" or (self.ways == "up") == passage.up:
            passage.delays_s.clear()
            world.bit(self)


@frozen
class SignalledPartition(Fault):
    """Nothing gets through, and devices are told: at once, later, or of all that is under way together.

    Parameters
    ----------
    told : str
        ``"at once"``, ``"later"`` or ``"broken"``.
    """

    kind = "signalled-partition"
    on_wire = True
    told: str = "at once"

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.pick(("at once", "later", "broken")), spans=_moments(chance, heal_s, heal_s / 3))

    def begin(self, world: World, chance: Chance) -> None:
        if self.told == "broken":
            for begin_s, _ in self.spans:
                world.heap.at(begin_s, self._break, world)

    def _break(self, world: World) -> None:
        world.bit(self)
        for line in world.network.lines:
            world.device_told(line, TransportError("the connection broke"))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        passage.delays_s.clear()
        world.bit(self)
        if passage.up and self.told == "later":
            passage.error_after_s = chance.between(0.0, 0.6)
        elif passage.up:
            passage.error = TransportError("there is no route", frame=passage.frame)


@frozen
class Misrouting(Fault):
    """Answers arrive at another device, requests under another device's name.

    Parameters
    ----------
    rate : float
    """

    kind = "misrouting"
    on_wire = True
    rate: float = 0.1

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.03, 0.3), spans=_episodes(chance, heal_s))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if chance.hit(self.rate):
            other = world.network.other_line(passage.line, chance)
            if other is not passage.line:
                passage.line = other
                world.bit(self)


@frozen
class VersionSkew(Fault):
    """The other side is newer or older: fields that are not known here, fields that are missing, and whole messages.

    Parameters
    ----------
    rate : float
    """

    kind = "version-skew"
    on_wire = True
    rate: float = 0.2

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.between(0.1, 0.6), spans=_episodes(chance, heal_s))

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        if len(passage.frame) < 16 or not chance.hit(self.rate):
            return
        way = chance.below(4)
        try:
            wire.decode(passage.frame)
            _header(passage.frame)
        except (ProtocolError, msgspec.DecodeError, UnicodeDecodeError):  # the hostile device's, or garbled
            return
        if way == 0:
            passage.frame = _newer(passage.frame)
        elif way == 1:
            passage.frame = _older(passage.frame)
        else:
            stray = bytearray(passage.frame)
            stray[2 if way == 2 else 3] = chance.whole(60, 250)  # version, or kind of message
            passage.strays = [bytes(stray)]
        world.bit(self)


def _newer(frame: bytes) -> bytes:
    """The same message with fields that nobody knows yet."""
    return _with_header(frame, [*_header(frame), {"new": 1}, 7])


def _older(frame: bytes) -> bytes:
    """The same message without the last fields, as far as they say what is taken for granted without them."""
    message, _ = wire.decode(frame)
    fields, names, defaults = _header(frame), message.__struct_fields__, message.__struct_defaults__
    required = len(names) - len(defaults)
    del fields[len(names) :]  # of a garbled frame that passes for a newer one
    while len(fields) > required:
        default = defaults[len(fields) - 1 - required]
        if isinstance(default, msgspec._core.Factory):
            default = default.factory()
        if getattr(message, names[len(fields) - 1]) != default:
            break
        fields.pop()
    return _with_header(frame, fields)


def _header(frame: bytes) -> list[Any]:
    fields: list[Any] = msgspec.msgpack.decode(frame[16 : 16 + int.from_bytes(frame[4:8], "little")])
    return fields


def _with_header(frame: bytes, fields: list[Any]) -> bytes:
    length = int.from_bytes(frame[4:8], "little")
    header = msgspec.msgpack.encode(fields)
    body = frame[16 + length + -length % 16 :]
    return frame[:4] + len(header).to_bytes(4, "little") + frame[8:16] + header + bytes(-len(header) % 16) + body


# machines ---------------------------------------------------------------------------------------------------


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
        return cls(chance.hit(0.5), spans=_moments(chance, heal_s, chance.pick((0.05, 0.5, 3.0))))

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
        return cls(spans=_moments(chance, heal_s, heal_s / 2))

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
        return cls(chance.hit(0.5), spans=_moments(chance, heal_s, 1.0))

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
        return cls(chance.pick((3.0, 10.0, 50.0, 1000.0)), spans=_moments(chance, heal_s, heal_s / 2))

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
        return cls(chance.between(1.5, 8.0), spans=_moments(chance, heal_s, heal_s / 2))

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
        return cls(spans=_moments(chance, heal_s, 1.0))

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
        return cls(chance.whole(4, 12), spans=_moments(chance, heal_s, 1.0))

    def begin(self, world: World, chance: Chance) -> None:
        for begin_s, _ in self.spans:
            world.heap.at(begin_s, self._burst, world, chance.pick(world.devices))

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
        return cls(chance.between(0.05, 0.4), spans=_episodes(chance, heal_s))

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
        return cls(chance.hit(0.4), spans=_episodes(chance, heal_s - 0.5))

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
        return cls(spans=_moments(chance, heal_s, heal_s / 2))

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
    """The edge's tables are small: it says Busy, forgets answers, devices and their states.

    Parameters
    ----------
    in_flight, peers, answers, owners : int
    """

    kind = "scarce-edge"
    in_flight: int = 2
    peers: int = 3
    answers: int = 8
    owners: int = 1

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        return cls(chance.whole(1, 4), chance.whole(3, 6), chance.whole(1, 16), chance.whole(1, 2))


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
        return cls(chance.pick((0.03, 0.1, 0.3)), spans=_episodes(chance, heal_s))

    def begin(self, world: World, chance: Chance) -> None:
        hostile = Hostile(world, chance, lambda: world.bit(self))
        for begin_s, end_s in self.spans:
            world.heap.at(begin_s, hostile.go_on, end_s, self.every_s)


FAULTS: Final[tuple[type[Fault], ...]] = (
    Loss,
    Duplication,
    BitFlips,
    Jitter,
    Reordering,
    SilentPartition,
    SignalledPartition,
    EdgeCrash,
    DeviceReboot,
    SlowEdge,
    SlowDevice,
    Bursts,
    Misrouting,
    ClockSteps,
    VersionSkew,
    OtherRuntime,
    StatefulParts,
    ScarceEdge,
    FailingSteps,
    HostileDevice,
    TornWrite,
    FullDisk,
)
"""All kinds. A seed's draws depend on their order: new ones come behind the last."""
