"""What goes wrong on the way: with frames, and between versions."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Self

import msgspec
from attrs import frozen

from splitiot import wire
from splitiot.errors import ProtocolError, TransportError
from splitiot.testing.simulation._fault import Fault, episodes, moments
from splitiot.testing.simulation._heap import Chance
from splitiot.testing.simulation._network import Passage

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = [
    "BitFlips",
    "Duplication",
    "Jitter",
    "Loss",
    "Misrouting",
    "Reordering",
    "SignalledPartition",
    "SilentPartition",
    "VersionSkew",
]


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
        return cls(chance.between(0.02, 0.5), spans=episodes(chance, heal_s))

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
        return cls(chance.between(0.05, 0.6), chance.pick((0.0, 0.02, 0.3, 2.0)), spans=episodes(chance, heal_s))

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
        return cls(chance.between(0.05, 0.4), spans=episodes(chance, heal_s))

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
        return cls(chance.between(0.1, 0.8), chance.pick((0.01, 0.05, 0.2)), spans=episodes(chance, heal_s))

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
        return cls(chance.between(0.05, 0.5), chance.pick((0.05, 0.3, 1.5)), spans=episodes(chance, heal_s))

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
        return cls(chance.pick(("both", "both", "up", "down")), spans=moments(chance, heal_s, heal_s / 2))

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
        return cls(chance.pick(("at once", "later", "broken")), spans=moments(chance, heal_s, heal_s / 3))

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
        return cls(chance.between(0.03, 0.3), spans=episodes(chance, heal_s))

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
        return cls(chance.between(0.1, 0.6), spans=episodes(chance, heal_s))

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
