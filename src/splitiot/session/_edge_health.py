"""What a device knows of its edge: whether it can be used, what it has, and how far away it is."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from splitiot import wire
from splitiot.errors import FrameTooLarge, Overloaded, ProfileError, TransportTimeout
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import Pipeline, RuntimeInfo
from splitiot.session._arrival import Arrival
from splitiot.session._breaker import CAP_S, LEASE_S, Breaker
from splitiot.session._effects import EdgeProfile, Send
from splitiot.session._profiles import find_profile
from splitiot.session._trouble import Trouble, trouble_of
from splitiot.topology import TierProfile

__all__ = ["EdgeHealth"]

_REFUSED_S = 10.0  # until an edge that was of no use is asked again: it may have been updated
_PAD_BYTES = (512, 4096, 16384)  # least, at first, most,
_LARGE_PAD_BYTES = 65536  # and most where that costs next to nothing: smaller ones tell nothing of a fast link
_PATIENT = 4  # intervals without a bare probe, until one is sent though it may disturb a request
_QUICK_S, _SHORT_S, _LONG_S = 0.005, 0.05, 0.25  # what a padded probe may take for the next one to carry more, or less
_PROCESSES = 64  # that are known of an edge: each may answer, and is greeted once


class _Trial(msgspec.Struct, eq=False):
    """A Hello or a Probe on its way, with a lease of its own: no request's fate decides it."""

    sequence: int
    sent_s: float
    nbytes: int

    @property
    def ends_s(self) -> float:
        return self.sent_s + LEASE_S


class EdgeHealth:
    """Greets the edge, notices when it fails, greets it again; and measures the link when nothing else does.

    The edge can be used while it is `welcome`. After failures only hellos are sent, with waits that double; the one
    that is answered ends that. So neither a dead edge nor a bad estimate stays for ever.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        boot: bytes,
        number: Callable[[], int],
        runtime: RuntimeInfo | None,
        profile: TierProfile | None,
        parts: Sequence[tuple[int, int]] | None,
        exact: bool,
        probe_interval_s: float,
    ) -> None:
        self._pipeline, self._boot, self._number = pipeline, boot, number
        self._digest = bytes.fromhex(pipeline.digest)
        self._runtime = None if runtime is None else (runtime.name, runtime.version, runtime.kernels, runtime.machine)
        self.runtime = b"" if runtime is None else bytes.fromhex(runtime.fingerprint)
        self.profile = profile
        self._parts = None if parts is None else tuple(parts)
        self._wants_exact, self._probe_interval_s = exact, probe_interval_s
        self.edge: wire.PipelineHello | None = None
        self.outages = 0
        self.refusal = ""
        self._away: Trouble | None = None  # why it can't be used
        self._noticed: Exception | None = None  # what came since the hello, and was no answer
        self._too_large: Trouble | None = None  # it can, but what it refused was too large
        self.max_frame_bytes = wire.MAX_FRAME_BYTES
        self._edge_boot: bytes | None = None  # who said welcome last
        self._edge_boots: deque[bytes] = deque(maxlen=_PROCESSES)  # all who answered
        self._hello: _Trial | None = None
        self._probe: _Trial | None = None
        self._padded = True
        self._pad_bytes, self._most_pad_bytes = _PAD_BYTES[1], _LARGE_PAD_BYTES
        self._exploring = True  # nothing is known of the link yet
        self._probe_s = self._bare_s = 0.0  # what the last padded one took, and the last bare one
        self._breaker = Breaker()
        self._free_until_s = math.inf
        self._crossed_s = self._bare_at_s = self._busy_until_s = -math.inf
        self._want_profile, self._edge_wants_profile, self._find_profile = True, False, False

    def up(self, now_s: float) -> bool:
        """Whether requests can be sent."""
        return self.edge is not None and not self.refusal and now_s >= self._busy_until_s

    @property
    def met(self) -> bool:
        """Whether an edge has ever answered."""
        return self._edge_boot is not None

    @property
    def trouble(self) -> Trouble | None:
        """Why it can't be used, or not for what would be best; None while nothing is known to be wrong."""
        return self._away or self._too_large

    @property
    def exact(self) -> bool:
        """Whether the edge's results agree bit for bit with the device's."""
        return self._runtime is not None and self.edge is not None and self.edge.runtime == self._runtime

    def exact_from(self, runtime: bytes) -> bool:
        """Whether a result does that was made with the runtime of this fingerprint: each answer says its own."""
        return self.runtime != b"" and runtime == self.runtime

    @property
    def settled(self) -> bool:
        """Whether nothing is left to wait for: welcome and measured, refused, or unreachable."""
        if self.edge is None:
            return self._hello is None and self._breaker.tried
        return self._hello is None and self._probe is None

    # what the session tells

    def tick(self, now_s: float, heard_s: float | None = None) -> list[Send]:
        """Time has passed; what had come by `heard_s` has been read. Only until then silence means anything."""
        heard_s = now_s if heard_s is None else heard_s
        for trial in (self._hello, self._probe):
            if trial is not None and heard_s >= trial.ends_s:
                self.lost(trial.sequence, now_s)
        if self.edge is None or self.refusal:
            return self.again(now_s) if now_s >= self._breaker.retry_s else []
        owes_profile = self._edge_wants_profile and not self._find_profile and self.profile is not None
        return self.again(now_s) if owes_profile else []

    def wake_s(self) -> float:
        """When `tick` has something to do next; inf for never."""
        times = [trial.ends_s for trial in (self._hello, self._probe) if trial is not None]
        if self._hello is None and (self.edge is None or self.refusal):
            times.append(self._breaker.retry_s)
        return min(times, default=math.inf)

    def rest(self, now_s: float, free_s: float = math.inf) -> list[Send]:
        """The link will be idle for so long: measure it, if that was long ago and can be done meanwhile."""
        if self._probe is not None or not self.up(now_s):
            return []
        self._free_until_s = now_s + free_s
        if not (self._stale(now_s) and free_s >= self._probe_s):
            # What the last one took may be a bad moment's, and of frames that crossed nobody knows how much was round
            # trip. A bare one tells, and delays next to nothing.
            if now_s - self._bare_at_s < _PATIENT * self._probe_interval_s:
                return []
            self._padded = True
        return [self._measure(now_s)]

    def _stale(self, now_s: float) -> bool:
        """Whether nothing has told of the bandwidth for long."""
        return now_s - self._crossed_s >= self._probe_interval_s

    def answered(self, now_s: float, nbytes: int) -> None:
        """An answer came to a frame of so many bytes."""
        self._breaker.succeeded()
        # smaller frames say less of the bandwidth than a probe, however many there are
        if nbytes >= max(self._pad_bytes, _PAD_BYTES[0]):
            self._crossed_s = max(self._crossed_s, now_s)

    def failed(self, now_s: float, error: Exception | None = None) -> None:
        """A request was not answered in time; or can't be, with the error by which the transport told it."""
        if self._breaker.failed(told=error is not None):
            self._found(error or _silence(), now_s)
            self._leave(now_s)

    def lost(self, sequence: int, now_s: float, error: Exception | None = None) -> bool:
        """A frame was lost, in silence or with an error; whether it was a hello or a probe."""
        if self._hello is not None and self._hello.sequence == sequence:
            since_s, self._hello = self._hello.sent_s, None
            self._found(error or self._noticed or _silence(), now_s)
            self._leave(now_s, since_s)
        elif self._probe is not None and self._probe.sequence == sequence:
            nbytes, self._probe = self._probe.nbytes, None
            if isinstance(error, FrameTooLarge):
                self.too_large(nbytes, error, now_s)
                self._pad_bytes = self._most_pad_bytes = max(0, min(self._pad_bytes // 2, self.max_frame_bytes - 64))
            elif self._breaker.failed(told=False):
                self._found(error or _silence(), now_s)
                self._leave(now_s)
        else:
            return False
        return True

    def broken(self, error: Exception, now_s: float) -> None:
        """The transport lost everything that was under way."""
        self._hello = self._probe = None
        self._found(error, now_s)
        self._leave(now_s)

    def noticed(self, error: Exception, now_s: float) -> None:
        """Something came that is no answer: that is why there is none, unless one comes yet."""
        if self.edge is None:
            self._noticed = error
            self._found(error, now_s)

    def too_large(self, nbytes: int, error: FrameTooLarge, now_s: float) -> None:
        """A frame of so many bytes was refused, which says nothing of smaller ones."""
        accepted = nbytes - 1 if error.limit is None else max(0, min(error.limit, nbytes - 1))
        self.max_frame_bytes = min(self.max_frame_bytes, accepted)
        since_s = now_s if self._too_large is None else self._too_large.since_s
        self._too_large = trouble_of(error, since_s)

    def busy(self, retry_after_s: float, now_s: float) -> None:
        """The edge said when to come back: not later than that an edge that fails is tried again."""
        self._busy_until_s = now_s + (min(retry_after_s, CAP_S) if retry_after_s > 0 else 0.0)  # NaN is 0

    def put_off(self, sequence: int, retry_after_s: float, now_s: float) -> bool:
        """The edge is too busy for a hello or a probe; whether it was one of these that it said so to."""
        if self._probe is not None and self._probe.sequence == sequence:
            self._probe, self._crossed_s = None, now_s  # it answers: that says nothing against it
            self._breaker.succeeded()
            return True
        if self._hello is None or self._hello.sequence != sequence:
            return False
        self.lost(sequence, now_s, Overloaded("it has no place for one more device now, or is greeted too often"))
        self._breaker.wait(now_s + (min(retry_after_s, _REFUSED_S) if retry_after_s > 0 else 0.0))
        return True

    def seen(self, edge_boot: bytes, now_s: float) -> list[Send]:
        """An answer bears this boot id: a new one may be another edge altogether, or another process of this one."""
        if not self._edge_boots or edge_boot in self._edge_boots or self._hello is not None:
            return []
        self._edge_boots.append(edge_boot)
        return self.again(now_s)

    def again(self, now_s: float) -> list[Send]:
        """Say hello, unless one is on its way."""
        return [] if self._hello is not None else [self.greet(now_s)]

    def greet(self, now_s: float) -> Send:
        """Say hello."""
        known, own = self._pipeline, self.profile if self._edge_wants_profile else None
        self._find_profile = own is not None
        hello = wire.Hello(
            boot=self._boot,
            sequence=self._number(),
            pipelines=(
                wire.PipelineHello(
                    digest=self._digest,
                    n=known.n,
                    sink=known.sink,
                    stateful=known.stateful,
                    parts=self._parts,
                    runtime=self._runtime,
                    implementation=known.implementation,
                ),
            ),
            profiles=() if own is None else (own.to_dict(),),
            want_profiles=(self._digest,) if self._want_profile else (),
        )
        frame = wire.encode(hello)
        self._hello, self._noticed = _Trial(hello.sequence, now_s, len(frame)), None
        return Send(frame)

    def welcomed(self, welcome: wire.Welcome, now_s: float) -> list[Send | EdgeProfile]:
        """The edge answered a hello."""
        if self._hello is None or welcome.sequence != self._hello.sequence:
            return []
        self._hello = None
        self._breaker.close()
        if welcome.edge_boot != self._edge_boot:  # what the one before refused, this one may take
            self._too_large, self.max_frame_bytes = None, wire.MAX_FRAME_BYTES
            self._most_pad_bytes = _LARGE_PAD_BYTES
        self._edge_boot = welcome.edge_boot
        if welcome.edge_boot not in self._edge_boots:
            self._edge_boots.append(welcome.edge_boot)
        self.max_frame_bytes = min(self.max_frame_bytes, welcome.max_frame_bytes)
        theirs = next((p for p in welcome.pipelines if p.digest == self._digest), None)
        self.edge = theirs or wire.PipelineHello(digest=self._digest, n=self._pipeline.n)
        since_s = now_s if self._away is None else self._away.since_s
        self.refusal, remedy = self._refused(theirs)
        self._away = None
        if self.refusal:
            self._away = Trouble(self.refusal, since_s, remedy, False)
            self._breaker.wait(now_s + _REFUSED_S)
        effects: list[Send | EdgeProfile] = []
        try:
            profile = find_profile(welcome.profiles, self._pipeline)
        except ProfileError:
            profile = None  # a broken one is none
        if profile is not None:
            self._want_profile = False
            effects.append(EdgeProfile(profile))
        if self._digest in welcome.want_profiles and not self._edge_wants_profile:
            self._edge_wants_profile = True
            if self.profile is not None:
                effects.append(self.greet(now_s))
        if not self.refusal and self._probe is None:
            effects.append(self._measure(now_s))
        return effects

    def _refused(self, theirs: wire.PipelineHello | None) -> tuple[str, str]:
        """Say why an edge is of no use although it answers, and what would mend that; empty where it is."""
        if theirs is None:
            words = f"the edge does not serve this pipeline (digest {self._pipeline.digest[:12]})"
            return words, "give both sides the same model file, tasks and version"
        if others := self._pipeline.differing(theirs.implementation):
            words = f"the edge has other code under the same names ({', '.join(others)})"
            return words, "give both sides the same files, or tell them apart with tasks(..., version=...)"
        if self._wants_exact and not self.exact:
            words = f"exact results were asked for; the edge runs {theirs.runtime}, the device {self._runtime}"
            return words, "give both sides the same runtime, version and kernels, or do without exact=True"
        return "", ""

    def echoed(
        self, echo: wire.Echo, nbytes: int, now_s: float, arrival: Arrival, *, idle: bool
    ) -> tuple[list[Send], Observation | None]:
        """The edge answered a probe; what was measured."""
        trial = self._probe
        if trial is None or echo.sequence != trial.sequence:
            return [], None
        self._probe = None
        _, took_s, upper_bound = arrival.since(trial.sent_s)
        self.answered(arrival.came_s, trial.nbytes)
        seen = Observation(
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
            return ([self._measure(now_s)] if idle and fits and self.up(now_s) else []), seen
        self._crossed_s = arrival.came_s
        if upper_bound:
            return [], seen
        before, self._pad_bytes, self._probe_s = self._pad_bytes, self._padding(took_s), took_s
        self._exploring = self._exploring and took_s < _QUICK_S and self._pad_bytes > before
        if not (self._exploring and idle and self.up(now_s)):
            return [], seen
        self._padded = False  # once more, at once: the first requests are to know
        return [self._measure(now_s)], seen

    def _padding(self, took_s: float) -> int:
        """How many bytes the next padded probe carries, where the last one took so long."""
        largest = self._most_pad_bytes
        least, _, most = (min(size, largest) for size in _PAD_BYTES)
        pad = self._pad_bytes
        bytes_s = took_s - self._bare_s  # far away is no reason to send less
        if bytes_s > _LONG_S or (pad > most and bytes_s > _SHORT_S):
            return max(least, pad // 2)
        if took_s < _QUICK_S:
            return min(pad * 4, max(pad, min(largest, self.max_frame_bytes // 4)))
        return max(pad, min(pad * 2, most)) if took_s < _SHORT_S else pad

    def _measure(self, now_s: float) -> Send:
        probe = wire.Probe(boot=self._boot, sequence=self._number())
        self._padded = not self._padded
        frame = wire.encode(probe, (bytes(self._pad_bytes),) if self._padded else ())
        self._probe = _Trial(probe.sequence, now_s, len(frame))
        if not self._padded:
            self._bare_at_s = now_s
        return Send(frame)

    def _found(self, error: Exception, now_s: float) -> None:
        """Note why it can't be used now. Since when, stays as long as it can't."""
        before = self._away
        self._away = trouble_of(error, now_s if before is None else before.since_s)

    def _leave(self, now_s: float, since_s: float | None = None) -> None:
        if self.edge is None and now_s < self._breaker.retry_s:
            return  # more of the same outage
        self.edge = None
        self.outages += 1
        self._breaker.open(now_s if since_s is None else since_s)


def _silence() -> TransportTimeout:
    return TransportTimeout("it does not answer")
