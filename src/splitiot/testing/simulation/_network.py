"""The links between devices and edge, on the heap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from splitiot.errors import TransportError
from splitiot.testing.simulation._heap import Chance

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = ["Line", "Network", "Passage"]


class Line(msgspec.Struct, eq=False):
    """What lies between one device and the edge.

    Parameters
    ----------
    name : str
        Of the device, as its credential tells it to the edge.
    rtt_s, up_bytes_per_s, down_bytes_per_s : float
    raw : bool
        Without a checksum: garbled frames arrive. Only the hostile device's is.
    """

    name: str
    rtt_s: float
    up_bytes_per_s: float
    down_bytes_per_s: float
    raw: bool = False
    up_free_s: float = 0.0
    down_free_s: float = 0.0


class Passage(msgspec.Struct, eq=False):
    """One frame on its way: what faults may change.

    Parameters
    ----------
    line : Line
    up : bool
        Towards the edge.
    frame : bytes
    delays_s : list of float
        What is added for each copy: none for a lost frame.
    held_s : float
        What is added, for this and all behind it.
    error : TransportError, optional
        What the device's transport raises for it, instead of carrying it.
    error_after_s : float, optional
        So much later the device's transport tells that it was lost.
    strays : list of bytes
        Frames that arrive beside it.
    """

    line: Line
    up: bool
    frame: bytes
    delays_s: list[float]
    held_s: float = 0.0
    error: TransportError | None = None
    error_after_s: float | None = None
    strays: list[bytes] = []


class Network:
    """Carries frames between devices and edge, and does to them what the faults say."""

    def __init__(self, world: World, chance: Chance) -> None:
        self._world, self._chance = world, chance
        self.lines: list[Line] = []

    def up(self, line: Line, frame: bytes) -> None:
        """A device sends.

        Raises
        ------
        TransportError
            A fault says that the device is told at once.
        """
        world = self._world
        passage = self._meddled(Passage(line, True, frame, [0.0]))
        if passage.error is not None:
            raise passage.error
        if passage.error_after_s is not None:
            lost = TransportError("the connection was lost", frame=frame)
            world.heap.at(world.heap.now_s + passage.error_after_s, world.device_told, line, lost)
        over_s = max(world.heap.now_s, line.up_free_s) + len(frame) / line.up_bytes_per_s + passage.held_s
        line.up_free_s = over_s
        for stray in passage.strays:
            world.heap.at(over_s + line.rtt_s / 2, world.edge_hears, line, stray)
        for delay_s in passage.delays_s:
            world.heap.at(over_s + line.rtt_s / 2 + delay_s, world.edge_hears, passage.line, passage.frame)

    def down(self, line: Line, frame: bytes) -> None:
        """The edge answers a device."""
        world = self._world
        passage = self._meddled(Passage(line, False, frame, [0.0]))
        over_s = max(world.heap.now_s, line.down_free_s) + len(frame) / line.down_bytes_per_s + passage.held_s
        passage.line.down_free_s = over_s
        for stray in passage.strays:
            world.heap.at(over_s + line.rtt_s / 2, world.device_hears, line, stray)
        for delay_s in passage.delays_s:
            world.heap.at(over_s + line.rtt_s / 2 + delay_s, world.device_hears, passage.line, passage.frame)

    def other_line(self, line: Line, chance: Chance) -> Line:
        """Another device's, if there is one; not the hostile one's, which could forge answers: frames have no seal."""
        others = [other for other in self.lines if other is not line and not other.raw]
        return chance.pick(others) if others and not line.raw else line

    def _meddled(self, passage: Passage) -> Passage:
        now_s = self._world.heap.now_s
        for fault, chance in self._world.on_wire:
            if fault.on(now_s):
                fault.meddle(self._world, passage, chance)
        return passage
