"""A device that breaks the rules."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from splitiot import wire
from splitiot.errors import TransportError
from splitiot.observation import EdgeTimes, Observation
from splitiot.testing.simulation._heap import Chance
from splitiot.testing.simulation._network import Line
from splitiot.testing.simulation._oracles import HOSTILE
from splitiot.testing.simulation._work import value_of

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = ["Hostile"]

_ODD = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300, 1e-300, 5.0)


class Hostile:
    """Sends what a bug or an attacker could send. It hears the others, and has no frame of theirs answered to them."""

    def __init__(self, world: World, chance: Chance, bit: Callable[[], None]) -> None:
        self._world, self._chance, self._bit = world, chance, bit
        self._line = Line(HOSTILE, 0.01, 1e7, 1e7, raw=True)
        world.network.lines.append(self._line)
        self._boot, self._sequence = chance.boot(), 0

    def go_on(self, until_s: float, every_s: float) -> None:
        """Send something, now and again until then."""
        if self._world.heap.now_s >= until_s:
            return
        self._bit()
        with contextlib.suppress(TransportError):
            self._world.network.up(self._line, self._frame())
        self._world.heap.at(self._world.heap.now_s + every_s, self.go_on, until_s, every_s)

    def _frame(self) -> bytes:
        chance = self._chance
        way = chance.below(7)
        if way == 0:
            return bytes(chance.below(256) for _ in range(chance.below(60)))
        if way == 1 and self._world.overheard:
            return self._world.overheard[chance.below(len(self._world.overheard))]
        if way == 2:
            return wire.encode(wire.Probe(boot=self._boot, sequence=self._next(), echo_bytes=chance.bits(40)))
        if way == 3:
            return self._hello()
        if way == 4 and self._world.overheard:
            frame = bytearray(self._world.overheard[chance.below(len(self._world.overheard))])
            for _ in range(chance.whole(1, 20)):
                frame[chance.below(len(frame))] = chance.below(256)
            return bytes(frame)
        return self._request()

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence if self._chance.hit(0.8) else self._chance.bits(62)

    def _hello(self) -> bytes:
        chance = self._chance
        if chance.hit(0.5):
            self._boot = chance.boot()
        work = chance.pick(self._world.served)
        odd = work.profile.to_dict()
        if chance.hit(0.7):
            odd["heads_s"] = [chance.pick(_ODD) for _ in odd["heads_s"]]
        return wire.encode(
            wire.Hello(
                boot=self._boot,
                sequence=self._next(),
                pipelines=tuple(
                    wire.PipelineHello(
                        digest=bytes.fromhex(each.pipeline.digest),
                        n=chance.below(9),
                        sink=chance.pick(("device", "edge", "nowhere")),
                        parts=((0, chance.below(9)),) if chance.hit(0.3) else None,
                    )
                    for each in self._world.served
                ),
                profiles=(odd,),
                want_profiles=(bytes(32), bytes.fromhex(work.pipeline.digest)),
            )
        )

    def _request(self) -> bytes:
        chance, work = self._chance, self._world.chance_of_work(self._chance)
        start = chance.pick(work.pipeline.cuts) if chance.hit(0.8) else chance.whole(-3, 12)
        legal = start in work.pipeline.cuts and (start < work.pipeline.n or work.pipeline.sink == "edge")
        fingerprint = work.pipeline.boundary(start).fingerprint if legal else "00" * 8
        payload = value_of(0, chance.bits(20)) if chance.hit(0.7) else chance.pick((None, 7, "x", math.nan))
        packed = wire.pack(payload)
        claims = ((0, b""), (0, b""), (1, b""), (2**62, b""), (-1, b"x"), (0, self._boot))
        return wire.encode(
            wire.Request(
                boot=self._boot if chance.hit(0.8) else chance.boot(),
                sequence=self._next(),
                digest=bytes.fromhex(work.pipeline.digest) if chance.hit(0.9) else bytes(32),
                start=start,
                stop=work.pipeline.n if chance.hit(0.9) else chance.whole(-3, 12),
                fingerprint=bytes.fromhex(fingerprint),
                names=packed.names,
                payload=packed.payload,
                arrays=packed.arrays,
                codec=chance.pick(("raw", "raw", "raw", "zip")),
                sink=chance.pick(("device", "device", "edge", "")),
                deadline_s=chance.pick((None, None, *_ODD)),
                plan_id=chance.pick((0, 1, 2**62, -1, chance.bits(8))),
                propensity=chance.pick(_ODD),
                observations=tuple(self._observation() for _ in range(chance.below(4))),
                telemetry={"battery": chance.pick(_ODD)},
                order=None if chance.hit(0.5) else chance.whole(-1, 3),
                **dict(zip(("epoch", "holder"), chance.pick(claims), strict=True)),  # type: ignore[arg-type]
            )
        )

    def _observation(self) -> Observation:
        odd = self._chance.pick
        return Observation(
            plan_id=odd((0, 1, 2, -5, 2**62, self._chance.bits(10))),
            cut=odd((0, 1, 2, 99, -1)),
            head_s=odd(_ODD),
            tail_s=odd(_ODD),
            edge=EdgeTimes(queue_s=odd(_ODD), compute_s=odd(_ODD), residence_s=odd(_ODD), steps_s=(odd(_ODD),) * 3),
            round_trip_s=odd(_ODD),
            sent_bytes=odd((0, -1, 2**40)),
            censored=self._chance.hit(0.2),
            probe=self._chance.hit(0.2),
            queued_s=odd(_ODD),
        )
