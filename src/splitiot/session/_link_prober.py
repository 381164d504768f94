"""Frames that measure the link when no request does."""

from __future__ import annotations

import math
from collections.abc import Callable

from splitiot import wire
from splitiot.observation import EdgeTimes, Observation
from splitiot.session._arrival import Arrival
from splitiot.session._effects import Send
from splitiot.session._trial import Trial

__all__ = ["LinkProber"]

_PAD_BYTES = (512, 4096, 16384)  # least, at first, most,
_LARGE_PAD_BYTES = 65536  # and most where that costs next to nothing: smaller ones tell nothing of a fast link
_PATIENT = 4  # intervals without a bare probe, until one is sent though it may disturb a request
_QUICK_S, _SHORT_S, _LONG_S = 0.005, 0.05, 0.25  # what a padded probe may take for the next one to carry more, or less


class LinkProber:
    """Sends probes: a bare and a padded one together tell round trip and bandwidth.

    Parameters
    ----------
    boot : bytes
    number : callable
        Gives the next sequence number.
    interval_s : float
        The link is measured when nothing has crossed for so long.

    Attributes
    ----------
    trial : Trial or None
        The probe that is on its way.
    """

    def __init__(self, boot: bytes, number: Callable[[], int], interval_s: float) -> None:
        self._boot, self._number, self._interval_s = boot, number, interval_s
        self.trial: Trial | None = None
        self._padded = True
        self._pad_bytes, self._most_pad_bytes = _PAD_BYTES[1], _LARGE_PAD_BYTES
        self._exploring = True  # nothing is known of the link yet
        self._probe_s = self._bare_s = 0.0  # what the last padded one took, and the last bare one
        self._free_until_s = math.inf
        self._crossed_s = self._bare_at_s = -math.inf

    def is_due(self, now_s: float, free_s: float) -> bool:
        """Whether to measure a link that will be idle for so long."""
        self._free_until_s = now_s + free_s
        if not (self._stale(now_s) and free_s >= self._probe_s):
            # What the last one took may be a bad moment's, and of frames that crossed nobody knows how much was round
            # trip. A bare one tells, and delays next to nothing.
            if now_s - self._bare_at_s < _PATIENT * self._interval_s:
                return False
            self._padded = True
        return True

    def _stale(self, now_s: float) -> bool:
        """Whether nothing has told of the bandwidth for long."""
        return now_s - self._crossed_s >= self._interval_s

    def crossed(self, nbytes: int, now_s: float) -> None:
        """A frame of so many bytes has crossed, and was answered."""
        # smaller frames say less of the bandwidth than a probe, however many there are
        if nbytes >= max(self._pad_bytes, _PAD_BYTES[0]):
            self._crossed_s = max(self._crossed_s, now_s)

    def put_off(self, now_s: float) -> None:
        """The edge has no time for the probe on its way."""
        self.trial, self._crossed_s = None, now_s

    def shrink(self, max_frame_bytes: int) -> None:
        """A probe was too large."""
        self._pad_bytes = self._most_pad_bytes = max(0, min(self._pad_bytes // 2, max_frame_bytes - 64))

    def grow(self) -> None:
        """It is another edge: what was too large for the one before may not be for this one."""
        self._most_pad_bytes = _LARGE_PAD_BYTES

    def send(self, now_s: float) -> Send:
        """Send a probe: bare and padded ones in turns."""
        probe = wire.Probe(boot=self._boot, sequence=self._number())
        self._padded = not self._padded
        frame = wire.encode(probe, (bytes(self._pad_bytes),) if self._padded else ())
        self.trial = Trial(probe.sequence, now_s, len(frame))
        if not self._padded:
            self._bare_at_s = now_s
        return Send(frame)

    def echoed(
        self, echo: wire.Echo, nbytes: int, now_s: float, arrival: Arrival, *, may_send: bool, max_frame_bytes: int
    ) -> tuple[list[Send], Observation | None]:
        """The edge answered a probe; return the next one, if the moment is good, and what was measured."""
        trial = self.trial
        if trial is None or echo.sequence != trial.sequence:
            return [], None
        self.trial = None
        _, took_s, upper_bound = arrival.since(trial.sent_s)
        self.crossed(trial.nbytes, arrival.came_s)
        observation = Observation(
            plan_id=0,
            cut=0,
            edge=EdgeTimes(residence_s=echo.residence_s),
            round_trip_s=took_s,
            sent_bytes=trial.nbytes,
            received_bytes=nbytes,
            probe=True,
            upper_bound=upper_bound,
        )
        if not self._padded:  # a bare and a padded one together tell round trip and bandwidth
            if not upper_bound:
                if self._probe_s > 0:
                    self._probe_s = took_s + max(0.0, self._probe_s - self._bare_s)
                self._bare_s = took_s
            fits = now_s + self._probe_s <= self._free_until_s and self._stale(now_s)
            return ([self.send(now_s)] if may_send and fits else []), observation
        self._crossed_s = arrival.came_s
        if upper_bound:
            return [], observation
        before, self._pad_bytes, self._probe_s = self._pad_bytes, self._padding(took_s, max_frame_bytes), took_s
        self._exploring = self._exploring and took_s < _QUICK_S and self._pad_bytes > before
        if not (self._exploring and may_send):
            return [], observation
        self._padded = False  # once more, at once: the first requests are to know
        return [self.send(now_s)], observation

    def _padding(self, took_s: float, max_frame_bytes: int) -> int:
        """How many bytes the next padded probe carries, where the last one took so long."""
        largest = self._most_pad_bytes
        least, _, most = (min(size, largest) for size in _PAD_BYTES)
        pad = self._pad_bytes
        bytes_s = took_s - self._bare_s  # far away is no reason to send less
        if bytes_s > _LONG_S or (pad > most and bytes_s > _SHORT_S):
            return max(least, pad // 2)
        if took_s < _QUICK_S:
            return min(pad * 4, max(pad, min(largest, max_frame_bytes // 4)))
        return max(pad, min(pad * 2, most)) if took_s < _SHORT_S else pad
