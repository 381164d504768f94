"""Whether a device can use its edge."""

from __future__ import annotations

import math

from splitiot import wire
from splitiot.errors import FrameTooLarge, Overloaded, TransportTimeout
from splitiot.observation import Observation
from splitiot.session._arrival import Arrival
from splitiot.session._breaker import CAP_S, Breaker
from splitiot.session._effects import EdgeProfile, Send
from splitiot.session._handshake import Handshake
from splitiot.session._link_prober import LinkProber
from splitiot.session._trial import Trial
from splitiot.session._trouble import Trouble, trouble_of

__all__ = ["EdgeHealth"]

_REFUSED_S = 10.0  # until an edge that was of no use is asked again: it may have been updated


class EdgeHealth:
    """Greets the edge, notices when it fails, and greets it again.

    The edge can be used while it is `welcome`. After failures only hellos are sent, with waits that double; the one
    that is answered ends that. So neither a dead edge nor a bad estimate stays for ever.
    """

    def __init__(self, handshake: Handshake, prober: LinkProber) -> None:
        self._handshake, self._prober = handshake, prober
        self.outages = 0
        self._unusable: Trouble | None = None  # why it can't be used
        self._noticed: Exception | None = None  # what came since the hello, and was no answer
        self._too_large: Trouble | None = None  # it can, but what it refused was too large
        self.max_frame_bytes = wire.MAX_FRAME_BYTES
        self._hello: Trial | None = None
        self._breaker = Breaker()
        self._busy_until_s = -math.inf

    def up(self, now_s: float) -> bool:
        """Whether requests can be sent."""
        return self._handshake.welcome and now_s >= self._busy_until_s

    @property
    def trouble(self) -> Trouble | None:
        """Why it can't be used, or not for what would be best; None while nothing is known to be wrong."""
        return self._unusable or self._too_large

    @property
    def settled(self) -> bool:
        """Whether nothing is left to wait for: welcome and measured, refused, or unreachable."""
        if self._handshake.edge is None:
            return self._hello is None and self._breaker.tried
        return self._hello is None and self._prober.trial is None

    # what the session tells

    def tick(self, now_s: float, heard_s: float | None = None) -> list[Send]:
        """Time has passed; what had come by `heard_s` has been read. Only until then silence means anything."""
        heard_s = now_s if heard_s is None else heard_s
        for trial in (self._hello, self._prober.trial):
            if trial is not None and heard_s >= trial.ends_s:
                self.lost(trial.sequence, now_s)
        if not self._handshake.welcome:
            return self.again(now_s) if now_s >= self._breaker.retry_s else []
        return self.again(now_s) if self._handshake.owes_profile else []

    def wake_s(self) -> float:
        """When `tick` has something to do next; inf for never."""
        times = [trial.ends_s for trial in (self._hello, self._prober.trial) if trial is not None]
        if self._hello is None and not self._handshake.welcome:
            times.append(self._breaker.retry_s)
        return min(times, default=math.inf)

    def rest(self, now_s: float, free_s: float = math.inf) -> list[Send]:
        """The link will be idle for so long: measure it, if that was long ago and can be done meanwhile."""
        if self._prober.trial is not None or not self.up(now_s) or not self._prober.is_due(now_s, free_s):
            return []
        return [self._prober.send(now_s)]

    def answered(self, now_s: float, nbytes: int) -> None:
        """An answer came to a frame of so many bytes."""
        self._breaker.succeeded()
        self._prober.crossed(nbytes, now_s)

    def failed(self, now_s: float, error: Exception | None = None) -> None:
        """A request was not answered in time; or can't be, with the error by which the transport reported it."""
        if self._breaker.failed(reported=error is not None):
            self._note_trouble(error or _silence(), now_s)
            self._leave(now_s)

    def lost(self, sequence: int, now_s: float, error: Exception | None = None) -> bool:
        """A frame was lost, in silence or with an error; whether it was a hello or a probe."""
        if self._hello is not None and self._hello.sequence == sequence:
            since_s, self._hello = self._hello.sent_s, None
            self._note_trouble(error or self._noticed or _silence(), now_s)
            self._leave(now_s, since_s)
        elif (probe := self._prober.trial) is not None and probe.sequence == sequence:
            self._prober.trial = None
            if isinstance(error, FrameTooLarge):
                self.too_large(probe.nbytes, error, now_s)
                self._prober.shrink(self.max_frame_bytes)
            elif self._breaker.failed(reported=False):
                self._note_trouble(error or _silence(), now_s)
                self._leave(now_s)
        else:
            return False
        return True

    def broken(self, error: Exception, now_s: float) -> None:
        """The transport lost everything that was under way."""
        self._hello = self._prober.trial = None
        self._note_trouble(error, now_s)
        self._leave(now_s)

    def noticed(self, error: Exception, now_s: float) -> None:
        """Something came that is no answer: that is why there is none, unless one comes yet."""
        if self._handshake.edge is None:
            self._noticed = error
            self._note_trouble(error, now_s)

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
        if (probe := self._prober.trial) is not None and probe.sequence == sequence:
            self._prober.put_off(now_s)  # it answers: that says nothing against it
            self._breaker.succeeded()
            return True
        if self._hello is None or self._hello.sequence != sequence:
            return False
        self.lost(sequence, now_s, Overloaded("it has no place for one more device now, or is greeted too often"))
        self._breaker.wait(now_s + (min(retry_after_s, _REFUSED_S) if retry_after_s > 0 else 0.0))
        return True

    def greet_if_new(self, edge_boot: bytes, now_s: float) -> list[Send]:
        """An answer bears this boot id: say hello if it is a new one."""
        return [self.greet(now_s)] if self._hello is None and self._handshake.meet(edge_boot) else []

    def again(self, now_s: float) -> list[Send]:
        """Say hello, unless one is on its way."""
        return [] if self._hello is not None else [self.greet(now_s)]

    def greet(self, now_s: float) -> Send:
        """Say hello."""
        hello = self._handshake.hello()
        frame = wire.encode(hello)
        self._hello, self._noticed = Trial(hello.sequence, now_s, len(frame)), None
        return Send(frame)

    def welcomed(self, welcome: wire.Welcome, now_s: float) -> list[Send | EdgeProfile]:
        """The edge answered a hello."""
        if self._hello is None or welcome.sequence != self._hello.sequence:
            return []
        self._hello = None
        self._breaker.close()
        handshake, prober = self._handshake, self._prober
        if not handshake.said_welcome(welcome.edge_boot):  # what the one before refused, this one may take
            self._too_large, self.max_frame_bytes = None, wire.MAX_FRAME_BYTES
            prober.grow()
        self.max_frame_bytes = min(self.max_frame_bytes, welcome.max_frame_bytes)
        wanted_profile = handshake.edge_wants_profile
        profile = handshake.accept(welcome)
        since_s = now_s if self._unusable is None else self._unusable.since_s
        self._unusable = None
        if handshake.refusal:
            self._unusable = Trouble(handshake.refusal, since_s, handshake.remedy, False)
            self._breaker.wait(now_s + _REFUSED_S)
        effects: list[Send | EdgeProfile] = [] if profile is None else [EdgeProfile(profile)]
        if handshake.edge_wants_profile and not wanted_profile and handshake.profile is not None:
            effects.append(self.greet(now_s))
        if not handshake.refusal and prober.trial is None:
            effects.append(prober.send(now_s))
        return effects

    def echoed(
        self, echo: wire.Echo, nbytes: int, now_s: float, arrival: Arrival, *, idle: bool
    ) -> tuple[list[Send], Observation | None]:
        """The edge answered a probe; what was measured."""
        sends, observation = self._prober.echoed(
            echo, nbytes, now_s, arrival, may_send=idle and self.up(now_s), max_frame_bytes=self.max_frame_bytes
        )
        if observation is not None:
            self._breaker.succeeded()
        return sends, observation

    def _note_trouble(self, error: Exception, now_s: float) -> None:
        """Note why it can't be used now. Since when, stays as long as it can't."""
        before = self._unusable
        self._unusable = trouble_of(error, now_s if before is None else before.since_s)

    def _leave(self, now_s: float, since_s: float | None = None) -> None:
        if self._handshake.edge is None and now_s < self._breaker.retry_s:
            return  # more of the same outage
        self._handshake.forget()
        self.outages += 1
        self._breaker.open(now_s if since_s is None else since_s)


def _silence() -> TransportTimeout:
    return TransportTimeout("it does not answer")
