"""Observations that wait to be sent to the edge."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from splitiot.observation import Observation

__all__ = ["ObservationOutbox"]

_AT_MOST: Final = 32
"""In one request."""
_FRESH_S: Final = 30.0
"""Later nothing is told of what the link was like, nor of the edge's queue: the edge would take it for what is now."""
_MAGIC: Final = b"SIO\x01"
_DECODER: Final = msgspec.msgpack.Decoder(list[Observation])


class ObservationOutbox:
    """Observations for an edge that plans: they go out with later requests.

    It is bounded: when it is full the oldest gives way, and is counted.

    Parameters
    ----------
    digest : bytes
        Of the pipeline: what `dump` gives fits no other one.
    most : int
    """

    def __init__(self, digest: bytes = bytes(32), most: int = 4 * _AT_MOST) -> None:
        self._digest, self._most = digest, most
        self._ring: deque[tuple[Observation, float]] = deque()  # and when
        self.dropped = 0
        self.changes = 0
        """Grows with each change: whoever keeps a copy sees whether it is still good."""

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, observation: Observation, now_s: float) -> None:
        """Something was measured."""
        self._ring.append((observation, now_s))
        self._trim()

    def take(self, now_s: float) -> tuple[Observation, ...]:
        """Take the oldest ones, for one request: of what is old only what machines took, which changes slowly."""
        taken: list[Observation] = []
        self.changes += len(self._ring) > 0
        while self._ring and len(taken) < _AT_MOST:
            observation, at_s = self._ring.popleft()
            if now_s - at_s <= _FRESH_S:
                taken.append(observation)
            elif not observation.probe:
                taken.append(msgspec.structs.replace(observation, edge=None, round_trip_s=None, censored=False))
        return tuple(taken)

    def put_back(self, observations: Iterable[Observation], taken_s: float) -> None:
        """Nobody knows whether the edge heard these; of each plan it takes them only once."""
        self._ring.extendleft((o, taken_s) for o in reversed(list(observations)) if not o.probe)
        self._trim()

    def dump(self, extra: Iterable[Observation] = ()) -> bytes:
        """Return all of it, and `extra` before it, as bytes with a checksum."""
        body = msgspec.msgpack.encode([*(o for o in extra if not o.probe), *(o for o, _ in self._ring)])
        return _MAGIC + self._digest + zlib.crc32(body).to_bytes(4, "little") + body

    def load(self, data: bytes) -> int:
        """Take what `dump` returned, as the oldest. Bytes that are torn, or of another pipeline, are nothing.

        How long ago that was nobody knows: it counts as old.

        Returns
        -------
        int
            The largest plan's id among them, 0 if there are none: a device that starts anew must number behind it.
        """
        start = len(_MAGIC) + len(self._digest)
        checksum, body = data[start : start + 4], data[start + 4 :]
        if data[:start] != _MAGIC + self._digest or zlib.crc32(body).to_bytes(4, "little") != checksum:
            return 0
        try:
            kept = _DECODER.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return 0
        self._ring.extendleft((o, -math.inf) for o in reversed(kept))
        self._trim()
        return max((o.plan_id for o in kept), default=0)

    def _trim(self) -> None:
        self.changes += 1
        while len(self._ring) > self._most:
            self._ring.popleft()
            self.dropped += 1
