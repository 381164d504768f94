"""Round-trip time and bandwidth of a link, apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from splitiot.estimators._base import UNKNOWN, Belief, Detector, Freshness, age, median, unsure, usable
from splitiot.estimators.cusum import LogCusum
from splitiot.estimators.level import JUMP, Level
from splitiot.observation import Observation
from splitiot.topology import Link

__all__ = ["LinkEstimator"]

_SMALL_BYTES: Final = 512  # both ways together; little more than headers
_RTTS: Final = 3
_RATES: Final = 3
_REQUESTS: Final = 3
_CROSSED: Final = 8
_LARGER: Final = 4.0  # a frame that many times larger says more of the bandwidth,
_FASTER: Final = 2.0  # where it was that many times faster
_CLEARLY: Final = 1.25  # a small frame must show that many times more to overrule what others showed
_DOMINATED: Final = 0.25  # bytes' time below that share of the round trip shows no bandwidth,
_FIXED_S: Final = 0.003  # nor does less than that: a request takes as much for connection, kernel and HTTP
_HORIZON_S: Final = 30.0
_SLOWEST: Final = 1.0  # bytes/s
_FASTEST: Final = 1e12
_JUMP: Final = math.exp(JUMP)
_TINY_S: Final = 1e-9


class LinkEstimator:
    """What a link is like, from what exchanges and probes took.

    A sample is a round trip less the edge's residence: ``rtt + sent/up + received/down``, and what connection, kernel
    and HTTP take. As BBR does, both unknowns come from samples that show them: the round-trip time is the least of the
    last three small ones (each less what its bytes took), the bandwidth is the median of the last three whose bytes
    took more than a quarter of the round trip, and more than 3 ms. The others can only raise the bandwidth: it is at
    least so much, and not *identified*. Nor does a small frame lower it where one four times larger went faster just
    before. What requests then take beyond the round trip of small frames counts as round trip. A censored one ("not
    yet back after 140 ms") can only lower it, and an upper bound ("back, when somebody looked after 450 ms") counts
    only where the link must be better than it is believed. So a change of bandwidth is followed after two exchanges,
    and one hiccup is ignored.

    Only sums of both ways are seen; up and down keep the prior's ratio. A drift detector watches the bandwidth: when
    it detects a change, samples before the last two no longer count.

    Parameters
    ----------
    prior : Link
        Believed until there are samples. An infinite rate is taken as 10**12 bytes/s.
    detector : callable
        Makes the drift detector; see `Level`.

    Attributes
    ----------
    refused : int
        Samples that were not finite, not positive, or retransmitted (Karn's rule). They change nothing.
    samples : int

    Notes
    -----
    With exchanges of one size alone, a longer round trip looks like less bandwidth: it is booked as
    the latter (right for that size) until a small exchange or a probe comes.

    References
    ----------
    Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016.
    Karn and Partridge, "Improving Round-Trip Time Estimates in Reliable Transport Protocols", SIGCOMM 1987.

    Examples
    --------
    >>> estimator = LinkEstimator(Link.from_mbit_per_s(1, rtt_s=0.1))
    >>> def probe(seconds, size):
    ...     return Observation(plan_id=0, cut=0, probe=True, round_trip_s=seconds, sent_bytes=size)
    >>> estimator.update(probe(0.02, 10), now_s=0.0)
    >>> estimator.update(probe(0.06, 5000), now_s=0.1)
    >>> link = estimator.get()
    >>> round(link.rtt_s, 3), round(link.up_bytes_per_s, -2)
    (0.02, 124800.0)
    """

    __slots__ = (
        "_awaiting_confirmation",
        "_crossed",
        "_crossed_s",
        "_down_weight",
        "_is_bound",
        "_level",
        "_link",
        "_overhead_s",
        "_quality",
        "_rate",
        "_rates",
        "_requests",
        "_rtt_level",
        "_rtt_s",
        "_rtts",
        "prior",
        "refused",
        "samples",
    )

    def __init__(self, prior: Link, *, detector: Callable[[], Detector] = LogCusum) -> None:
        self.prior = prior
        self.refused = 0
        self.samples = 0
        up = min(prior.up_bytes_per_s, _FASTEST)
        self._down_weight = up / min(prior.down_bytes_per_s, _FASTEST)  # one byte down is as many bytes up
        self._rate = up
        self._rtt_s = prior.rtt_s
        self._rtts: list[tuple[float, float, float]] = []  # when, seconds, bytes as if all went up
        self._rates: list[tuple[float, float, float, bool]] = []
        self._level = Level(detector=detector)  # of seconds a byte: for drifts, and for the baseline
        self._level.start(-math.log(up))
        self._rtt_level = Level(detector=detector)
        self._rtt_level.start(math.log(max(prior.rtt_s, _TINY_S)))
        self._requests: list[tuple[float, float, float]] = []  # whose bytes are hidden in the round trip
        self._overhead_s = 0.0  # what a request takes beyond a probe
        self._crossed: list[tuple[float, float, float]] = []  # when, bytes, and their rate at least
        self._is_bound = False  # the rate is a lower bound
        self._awaiting_confirmation = False  # the last sample showed less, a larger frame before it more
        self._crossed_s = -math.inf  # when bytes enough to show a rate crossed last
        self._begin()

    def _begin(self) -> None:
        self._link: Link | None = self.prior
        self._quality: tuple[bool, bool, float, float] | None = None

    def update(self, observation: Observation, now_s: float, edge_s: float = 0.0) -> None:
        """Take what an exchange or a probe took.

        Parameters
        ----------
        observation : Observation
        now_s : float
        edge_s : float
            For a censored observation: seconds that the edge is expected to need.
        """
        self._level.drift_detected = self._rtt_level.drift_detected = False
        if observation.round_trip_s is None:
            return
        seconds = observation.network_s
        if seconds is None:
            if observation.censored:
                seconds = observation.round_trip_s - edge_s
            elif observation.probe:  # an echo without a word on the edge's time
                seconds = observation.round_trip_s
            else:
                return
        seconds = float(seconds)  # numpy's would not go into a snapshot
        size = float(observation.sent_bytes + self._down_weight * observation.received_bytes)
        if observation.censored and seconds <= 0 and not observation.retransmitted:
            return  # a lower bound of nothing is no mistake
        whole = (observation.round_trip_s, 0.0 if observation.edge is None else observation.edge.residence_s)
        if observation.retransmitted or not all(map(usable, (seconds, size, *whole))):
            self.refused += 1
            return
        if observation.upper_bound:
            more_s = 0.0 if observation.probe else self._overhead_s
            if seconds >= max(self._rtt_s + more_s + size / self._rate, _TINY_S):
                return  # it may have taken as long as is believed: only less is news
        self.samples += not observation.censored
        if observation.censored:
            self._take_bound(seconds, size)
        elif observation.sent_bytes + observation.received_bytes <= _SMALL_BYTES:
            self._take_rtt(now_s, seconds, size)
        else:
            self._take_exchange(now_s, seconds, size, observation.probe)
        self._changed()

    def _changed(self) -> None:
        """What is read is worked out when it is read: most of it rarely is."""
        self._link = None
        self._quality = None

    def _judged(self) -> tuple[bool, bool, float, float]:
        """Whether the bandwidth is identified, and its last sample awaits confirmation; spreads of rate and rtt."""
        if self._quality is None:
            rtt_s = self._rtt_s
            spread = math.inf if self.samples else 0.0
            identified = self._shows_rate and not self._is_bound
            if identified:
                spread = _spread([size / max(s - rtt_s, _TINY_S) for _, s, size, _ in self._rates])
            self._quality = identified, self.awaiting_confirmation, spread, _spread([s for _, s, _ in self._rtts])
        return self._quality

    def _take_bound(self, seconds: float, size: float) -> None:
        over_s = seconds - self._rtt_s
        if over_s <= 0 or size <= 0 or size / over_s >= self._rate:
            return
        self._level.hold()
        self._rate = max(size / over_s, _SLOWEST)
        self._is_bound = False
        self._rates.clear()  # what was seen before no longer holds
        self._crossed.clear()

    def _take_rtt(self, now_s: float, seconds: float, size: float) -> None:
        if size > seconds * self._rate:  # the bytes took no longer than that: after a stall the way back up
            self._raise(min(size / max(seconds, _TINY_S), _FASTEST))
        _push(self._rtts, (now_s, seconds, size), _RTTS)
        self._settle_rtt()
        self._rtt_level.update(math.log(max(seconds, _TINY_S)))
        if self._rtt_level.drift_detected:
            del self._rtts[:-2]
            self._settle_rtt()
        self._settle_rate()

    def _take_exchange(self, now_s: float, seconds: float, size: float, probe: bool) -> None:
        if seconds < self._rtt_s:  # so the round trip has become shorter; the bytes took some of the time
            _push(self._rtts, (now_s, max(seconds - size / self._rate, 0.5 * seconds), 0.0), _RTTS)
            self._settle_rtt()
        self._crossed_s = now_s
        over_s = seconds - self._rtt_s
        # the bytes took no longer than that
        least = size / max(over_s, _DOMINATED * self._rtt_s, _TINY_S)
        more_s = 0.0 if probe else min(self._overhead_s, self._hidden_s)
        hidden = over_s - more_s < self._hidden_s or self._contradicted(now_s, size * _LARGER, least)
        awaiting = self._is_bound and not self._awaiting_confirmation and self._contradicted(now_s, size, least)
        self._awaiting_confirmation = not hidden and awaiting
        _push(self._crossed, (now_s, size, least), _CROSSED)
        if self._awaiting_confirmation:
            return
        if not hidden:
            _push(self._rates, (now_s, seconds, size, not probe), _RATES)
            if not probe:
                self._forget_explained()
            self._level.update(math.log(max(over_s, _TINY_S)) - math.log(max(size, 1.0)))
            if self._level.drift_detected:
                del self._rates[:-2], self._crossed[:-2]
            self._settle_rate()
            return
        self._overrule(size, over_s, probe)
        if not self._shows_rate and least > self._rate:
            self._raise(min(max(rate for _, _, rate in self._crossed), _FASTEST))
        if not probe:
            _push(self._requests, (now_s, seconds, size), _REQUESTS)
        self._settle_rate()
        if self._level.samples == 0:  # nothing better is known of the baseline
            self._level.start(-math.log(self._rate), held=True)

    @property
    def _hidden_s(self) -> float:
        """Bytes that take less than that are hidden by what else a request takes."""
        return max(_DOMINATED * self._rtt_s, _FIXED_S)

    @property
    def _shows_rate(self) -> bool:
        """Whether any sample shows the bandwidth."""
        return any(seconds - self._rtt_s >= self._hidden_s for _, seconds, *_ in self._rates)

    def _contradicted(self, now_s: float, size: float, rate: float) -> bool:
        """Whether a larger frame went much faster just before: then it may not be the bytes that took so long."""
        return any(
            size < other and rate * _FASTER <= faster and age(now_s, when) <= _HORIZON_S
            for when, other, faster in self._crossed
        )

    def _overrule(self, size: float, over_s: float, probe: bool) -> None:
        """A frame went so fast that its bytes are hidden: then what showed less was a hiccup, or is over."""
        if over_s < self._hidden_s:  # those that were as small can't have shown their bytes
            self._rates[:] = [sample for sample in self._rates if sample[2] > size]
        noise_s = min(self._hidden_s, self._rtt_s) if probe else self._hidden_s  # a probe has no time of a request
        if self._shows_rate and size / (max(over_s, 0.0) + noise_s) > self._rate * _CLEARLY:
            self._rates.clear()

    def _forget_explained(self) -> None:
        """Forget a request that seemed to take long for other reasons, once one shows that its bytes took it."""
        for i, (_, seconds, size) in enumerate(self._requests):
            if seconds - self._rtt_s - size / self._rate >= self._hidden_s:
                del self._requests[i]
                return

    def _raise(self, rate: float) -> None:
        self._rate, self._is_bound = rate, True
        self._rates.clear()

    def _settle_rtt(self) -> None:
        # bytes' time is taken off, but not more than half: the rate may be far too low by now
        self._rtt_s = min(max(s - size / self._rate, 0.5 * s) for _, s, size in self._rtts)

    def _settle_rate(self) -> None:
        rtt_s, hidden_s = self._rtt_s, self._hidden_s
        slow = []
        for _, seconds, size, request in self._rates:
            over_s = seconds - rtt_s
            if over_s >= hidden_s:
                slow.append(max(over_s - self._overhead_s * request, 0.5 * over_s) / size)
        if slow:
            self._rate, self._is_bound = 1 / min(max(median(slow), 1 / _FASTEST), 1 / _SLOWEST), False
        # what requests take beyond small frames and their bytes; a single one may have been a hiccup
        more = sorted(max(0.0, seconds - rtt_s - size / self._rate) for _, seconds, size in self._requests)
        if len(more) < _REQUESTS:
            more.insert(0, 0.0)
        self._overhead_s = more[(len(more) - 1) // 2]

    def get(self) -> Link:
        """Return the link as it is believed to be."""
        if self._link is None:
            up, down = self._rates_now()
            self._link = Link(self._rtt_s + self._overhead_s, up, down)
        return self._link

    def costs(self) -> tuple[float, float, float]:
        """Return seconds a byte up, seconds a byte down, and the round trip: what `Costs` takes."""
        if self._link is None:
            up, down = self._rates_now()
            return 1.0 / up, 1.0 / down, self._rtt_s + self._overhead_s
        return 1.0 / self._link.up_bytes_per_s, 1.0 / self._link.down_bytes_per_s, self._link.rtt_s

    def _rates_now(self) -> tuple[float, float]:
        up = min(max(self._rate, _SLOWEST), _FASTEST)
        return up, up / self._down_weight

    @property
    def identified(self) -> bool:
        """Whether some of the last samples show the bandwidth; else it is the prior, or a bound that some gave."""
        return self._judged()[0]

    @property
    def drift_detected(self) -> bool:
        """Whether the last update detected a drift, of the bandwidth or of the round trip."""
        return self._level.drift_detected or self._rtt_level.drift_detected

    @property
    def baseline(self) -> tuple[float, float, float]:
        """Seconds a byte up and down, and the round trip, around which they lie between drifts: as `costs` has them."""
        up = math.exp(self._level.baseline)
        return up, up * self._down_weight, math.exp(self._rtt_level.baseline)

    @property
    def awaiting_confirmation(self) -> bool:
        """Whether the last sample that shows a bandwidth shows quite another one."""
        if self._awaiting_confirmation or not self._rates:
            return self._awaiting_confirmation
        _, seconds, size, request = self._rates[-1]
        over_s = seconds - self._rtt_s
        if over_s < self._hidden_s:
            return False
        over_s = max(over_s - self._overhead_s * request, 0.5 * over_s)
        return not 1 / _JUMP < over_s * self._rate / max(size, 1.0) < _JUMP

    def freshness(self, now_s: float) -> Freshness:
        """Return how much the bandwidth still counts for."""
        level = self._level
        age_s, drifts = age(now_s, self._crossed_s), level.drifts + self._rtt_level.drifts
        if self._is_bound:
            return Freshness(age_s, drifts, 1.0, UNKNOWN)
        slower = -math.log(self._rate) - level.baseline > JUMP  # than what was believed before
        return Freshness(age_s, drifts, unsure(level.taken) if slower else 0.0)

    def rtt_belief(self, now_s: float) -> Belief:
        """Return the round-trip time in seconds."""
        level, rtts = self._rtt_level, self._rtts
        age_s = age(now_s, rtts[-1][0]) if rtts else math.inf
        rtt_s, spread, baseline = self._rtt_s + self._overhead_s, self._judged()[3], math.exp(level.baseline)
        return Belief(rtt_s, spread, age_s, len(rtts), level.drifts, baseline)

    def up_belief(self, now_s: float) -> Belief:
        """Return the bandwidth towards the edge in bytes/s; the other way has the same spread and age.

        Where the samples do not identify it there are 0, and the spread is inf.
        """
        return self._rate_belief(self.get().up_bytes_per_s, math.exp(-self._level.baseline), now_s)

    def down_belief(self, now_s: float) -> Belief:
        """Return the bandwidth from the edge in bytes/s."""
        baseline = math.exp(-self._level.baseline) / self._down_weight
        return self._rate_belief(self.get().down_bytes_per_s, baseline, now_s)

    def _rate_belief(self, rate: float, baseline: float, now_s: float) -> Belief:
        identified, awaiting, spread, _ = self._judged()
        count = len(self._rates) if identified else 0
        return Belief(rate, spread, age(now_s, self._crossed_s), count, self._level.drifts, baseline, awaiting)

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "rate": self._rate,
            "rtt_s": self._rtt_s,
            "rtts": [list(s) for s in self._rtts],
            "overhead_s": self._overhead_s,
            "requests": [list(s) for s in self._requests],
            "rates": [list(s) for s in self._rates],
            "crossed": [list(s) for s in self._crossed],
            "is_bound": self._is_bound,
            "awaiting_confirmation": self._awaiting_confirmation,
            "crossed_s": None if math.isinf(self._crossed_s) else self._crossed_s,
            "level": self._level.snapshot(),
            "rtt_level": self._rtt_level.snapshot(),
            "samples": self.samples,
            "refused": self.refused,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self._rate, self._rtt_s = float(state["rate"]), float(state["rtt_s"])
        self._rtts = [(float(t), float(s), float(b)) for t, s, b in state["rtts"]]
        self._overhead_s = float(state["overhead_s"])
        self._requests = [(float(t), float(s), float(b)) for t, s, b in state["requests"]]
        self._rates = [(float(t), float(s), float(b), bool(r)) for t, s, b, r in state["rates"]]
        self._crossed = [(float(t), float(b), float(r)) for t, b, r in state["crossed"]]
        self._is_bound, self._awaiting_confirmation = bool(state["is_bound"]), bool(state["awaiting_confirmation"])
        self._crossed_s = -math.inf if state["crossed_s"] is None else float(state["crossed_s"])
        self._level.restore(state["level"])
        self._rtt_level.restore(state["rtt_level"])
        self.samples, self.refused = int(state["samples"]), int(state["refused"])
        if self.samples or self._rate < self.prior.up_bytes_per_s:
            self._changed()
        else:
            self._begin()


_Sample = TypeVar("_Sample", tuple[float, float, float], tuple[float, float, float, bool])


def _push(window: list[_Sample], sample: _Sample, most: int) -> None:
    """Append, and drop what is too old (or from another clock) or too many."""
    now_s = sample[0]
    if window and not (now_s - _HORIZON_S <= window[0][0] and window[-1][0] <= now_s):
        window[:] = [s for s in window if age(now_s, s[0]) <= _HORIZON_S]
    window.append(sample)
    del window[:-most]


def _spread(values: Sequence[float]) -> float:
    """Half of the range over its middle: for up to three values."""
    most, least = max(values, default=0.0), min(values, default=0.0)
    return (most - least) / (most + least) if most > least else 0.0
