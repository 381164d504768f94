"""The device's half of the protocol."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from splitiot import wire
from splitiot.codecs import RAW
from splitiot.errors import (
    DeadlineExceeded,
    Dropped,
    EdgeUnavailable,
    FrameTooLarge,
    LocalProtocolError,
    Overloaded,
    PayloadTooLarge,
    ProtocolError,
    RemoteError,
    RemoteProtocolError,
    SplitiotError,
    StepError,
    TransportError,
    with_notes,
)
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import DROP, Payload, Pipeline, RuntimeInfo
from splitiot.plan import Outcome, Plan
from splitiot.session._arrival import Arrival
from splitiot.session._budget import RetryBudget
from splitiot.session._edge_health import EdgeHealth
from splitiot.session._effects import EdgeProfile, NewObservation, RequestDone, RunLocal, Send
from splitiot.session._outbox import ObservationOutbox
from splitiot.session._queueing import QueueingEstimator
from splitiot.session._states import TRANSITIONS, Event, State
from splitiot.session._trouble import Trouble, trouble_of
from splitiot.topology import TierProfile

__all__ = ["DeviceEffect", "DeviceSession"]

DeviceEffect: TypeAlias = Send | RunLocal | RequestDone | NewObservation | EdgeProfile

_PAUSE_S: Final = 0.05  # the first pause may be as long; it doubles
_PAUSE_CAP_S: Final = 1.0
_SILENCE_S: Final = 0.1  # what an answer may take beyond twice what answers take
_ROUNDS: Final = 3
_PASSING: Final = frozenset(  # what says nothing of the next request
    {wire.ErrorCode.LATE, wire.ErrorCode.STATE_LOST, wire.ErrorCode.BAD_ORDER, wire.ErrorCode.FORGOTTEN}
)
_TOO_LARGE_S: Final = 60.0  # payloads of tasks differ in size: the next ones may be smaller


class _Pending(msgspec.Struct, eq=False):
    sequence: int
    plan: Plan
    payload: Payload
    kept: Payload
    message: wire.Request
    buffers: tuple[Any, ...]
    begun_s: float
    sent_s: float
    deadline_s: float
    hedge_s: float | None
    can_finish: bool
    head_s: float | None
    nbytes: int
    state: State = State.WAITING
    local: Literal["", "hedge", "fallback"] = ""
    again_s: float = math.inf
    """When it is sent again: after a pause, or since the edge is silent."""
    attempts: int = 0
    """The edge asked for a hello before."""
    error: SplitiotError | None = None
    """Why it is paused."""
    head_steps_s: tuple[float, ...] = ()
    told: tuple[Observation, ...] = ()
    answered: bool = False
    behind: bool = False
    """Others were on their way when it was sent."""


class DeviceCounters(msgspec.Struct, eq=False):
    """What a session counted: `dropped` by tasks that filter, `skipped` since newer frames came before they began."""

    requests: int = 0
    offloaded: int = 0
    hedges: int = 0
    fallbacks: int = 0
    retries: int = 0
    late_replies: int = 0
    bad_frames: int = 0
    dropped: int = 0
    skipped: int = 0


class DeviceSession:
    """One device's conversation with one edge about one pipeline, without input or output.

    Methods take `now_s` (the device's monotonic clock) and return effects for the caller to carry out, in order.
    A request ends in exactly one `RequestDone`. Where the device has the remaining part, it finishes from the payload
    that it kept: at once when the edge refuses or can't be reached, and early enough before the deadline when it stays
    silent.

    Parameters
    ----------
    pipeline : Pipeline
    boot : bytes
        `splitiot.wire.BOOT_BYTES` random ones, new at each start. Who knows them can ask in this device's place.
    runtime : RuntimeInfo, optional
        What this device runs the pipeline with; tells which results are exact.
    profile : TierProfile, optional
        The device's own, given to an edge that plans.
    parts : sequence of (int, int), optional
        The parts that this device has; None where it has all.
    exact : bool
        Use the edge only where its results agree bit for bit with the device's.
    margin_s : float
        How much earlier than its latest possible start a local finish begins.
    probe_interval_s : float
        The link is measured by itself when nothing has crossed for so long.
    max_pending : int
        More requests at once raise Overloaded.
    lossy : bool
        Frames may be lost without a word: a request is sent again when its answer is late. Where the transport tells of
        each loss that would only be work.
    chance : callable
        Gives numbers in [0, 1): how long to pause before a request is sent again is drawn, so that devices which failed
        together do not come back together.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        boot: bytes,
        runtime: RuntimeInfo | None = None,
        profile: TierProfile | None = None,
        parts: Sequence[tuple[int, int]] | None = None,
        exact: bool = False,
        margin_s: float = 0.005,
        probe_interval_s: float = 1.0,
        max_pending: int = 64,
        lossy: bool = True,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self._pipeline, self._boot, self._margin_s, self._max_pending = pipeline, boot, margin_s, max_pending
        self._exact = exact
        self._digest = bytes.fromhex(pipeline.digest)
        self._fingerprints = {
            cut: bytes.fromhex(pipeline.boundary(cut).fingerprint)
            for cut in pipeline.cuts
            if cut < pipeline.n or pipeline.sink == "edge"
        }
        self._number = itertools.count(1).__next__
        self._health = EdgeHealth(
            pipeline,
            boot=boot,
            number=self._number,
            runtime=runtime,
            profile=profile,
            parts=parts,
            exact=exact,
            probe_interval_s=probe_interval_s,
        )
        self._queueing = QueueingEstimator()
        self._pending: dict[int, _Pending] = {}
        self._ended: OrderedDict[int, _Pending] = OrderedDict()
        self.outbox = ObservationOutbox(self._digest)
        self._budget, self._chance, self._lossy = RetryBudget(), chance, lossy
        self._rounds: deque[float] = deque(maxlen=_ROUNDS)
        self._next_placement: tuple[wire.NextPlacement, float] | None = None
        self._heard_s = -math.inf
        # of what remembers: how often it was reset, how many requests there were since, and which edge holds it
        self._epoch = self._order = 0
        self._holder = b""
        self._complaint: Trouble | None = None  # why the edge could not compute what it was asked last
        self._large: dict[int, float] = {}  # cuts whose payloads were too large, and until when they are left out
        self._large_cuts: frozenset[int] = frozenset()
        self.counters = DeviceCounters()

    # what the owner asks

    def edge_up(self, now_s: float) -> bool:
        """Whether requests can be sent: the edge said welcome, has the pipeline, and is not failing or busy."""
        return self._health.up(now_s)

    @property
    def edge(self) -> wire.PipelineHello | None:
        """What the edge has of this pipeline; None while that is unknown."""
        return self._health.edge

    @property
    def refusal(self) -> str:
        """Why the edge is of no use although it answers; empty where it is."""
        return self._health.refusal

    @property
    def trouble(self) -> Trouble | None:
        """What keeps requests from the edge; None while nothing is known to be wrong, or it is only busy."""
        return self._health.trouble or self._complaint

    @property
    def met(self) -> bool:
        """Whether an edge has ever answered."""
        return self._health.met

    @property
    def reached(self) -> bool:
        """Whether the edge is there and of use, though it may be busy."""
        return self._health.edge is not None and not self._health.refusal

    @property
    def why_down(self) -> str:
        """Why no requests can be sent, in words, where `edge_up` says so."""
        if self.reached:
            return "it is busy"
        trouble = self._health.trouble
        return "it has not answered yet" if trouble is None else str(trouble)

    @property
    def max_frame_bytes(self) -> int:
        """The largest frame that gets through, as far as that is known."""
        return self._health.max_frame_bytes

    def too_large(self, now_s: float) -> frozenset[int]:
        """The cuts at which a payload was too large to be sent not long ago."""
        if self._large and now_s >= min(self._large.values()):
            self._large = {cut: until_s for cut, until_s in self._large.items() if now_s < until_s}
            self._large_cuts = frozenset(self._large)
        return self._large_cuts

    @property
    def exact(self) -> bool:
        """Whether the edge's results agree bit for bit with the device's: the same runtime, version and kernels."""
        return self._health.exact

    @property
    def profile(self) -> TierProfile | None:
        """The device's own, for an edge that plans."""
        return self._health.profile

    @profile.setter
    def profile(self, profile: TierProfile) -> None:
        self._health.profile = profile

    @property
    def pending(self) -> int:
        """Requests that have not ended."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether one more request would be refused: as many are pending as may be."""
        return len(self._pending) >= self._max_pending

    def waits_for(self, sequence: int) -> bool:
        """Whether a request has not ended."""
        return sequence in self._pending

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to wait for at the start: welcomed and measured, refused, or unreachable."""
        return self._health.settled

    @property
    def outages(self) -> int:
        """How often the edge was found to be gone, hellos that were lost included."""
        return self._health.outages

    def take_next(self) -> tuple[wire.NextPlacement, float] | None:
        """Take the newest placement that the edge's planner proposed, once, and until when it is valid."""
        taken, self._next_placement = self._next_placement, None
        return taken

    def ran_alone(self, seen: Observation, now_s: float) -> list[DeviceEffect]:
        """A request ran locally as planned; an edge that plans will be told."""
        self.counters.requests += 1
        return self._observe(seen, now_s)

    def wake_s(self) -> float | None:
        """When `tick` has something to do next; None when nothing waits."""
        waiting = [p for p in self._pending.values() if not p.local]  # a local finish ends its request itself
        times = [min(p.deadline_s, p.again_s, math.inf if p.hedge_s is None else p.hedge_s) for p in waiting]
        wake_s = min([*times, self._health.wake_s()])
        return None if wake_s == math.inf else wake_s

    def dump(self) -> bytes:
        """Return what the edge may not have heard as bytes, for `ObservationOutbox.load` at the next start."""
        return self.outbox.dump(seen for pending in self._pending.values() for seen in pending.told)

    def reset(self) -> None:
        """Tell the edge with the next request to forget the state of this device."""
        self._epoch += 1  # a request from before must not be taken for one behind it
        self._order, self._holder = 0, b""

    def abandon(self) -> None:
        """Nobody waits for the pending requests any more: they end without a RequestDone. Late answers still teach."""
        for pending in list(self._pending.values()):
            self._retire(pending)
        if self._pipeline.stateful:
            self._order += 1  # whether the edge took the last one is unknown: it will say so

    # what happens

    def tick(self, now_s: float, heard_s: float | None = None) -> list[DeviceEffect]:
        """Time has passed.

        Parameters
        ----------
        now_s : float
        heard_s : float, optional
            All that had come by then has been given to `receive`; now, unless given. What the edge did not say since
            may only not have been read: that counts as no silence.
        """
        self._heard_s = now_s if heard_s is None else min(heard_s, now_s)
        effects: list[DeviceEffect] = [*self._health.tick(now_s, self._heard_s)]
        for pending in list(self._pending.values()):
            if pending.local:
                continue
            if now_s >= pending.deadline_s:
                effects += self._transition(pending, Event.DEADLINE, now_s)
            elif pending.hedge_s is not None and now_s >= pending.hedge_s:
                effects += self._transition(pending, Event.HEDGE, now_s)
            elif pending.state is State.WAITING:
                if self._heard_s >= pending.again_s:
                    effects += self._transition(pending, Event.SILENT, now_s)
            elif now_s >= pending.again_s:
                effects += self._transition(pending, Event.AGAIN, now_s)
        return effects

    def rest(self, now_s: float, free_s: float = math.inf) -> list[DeviceEffect]:
        """The owner will need the link again in `free_s` at the earliest: a good moment to measure it."""
        return [] if self._pending else [*self._health.rest(now_s, free_s)]

    def submit(
        self,
        plan: Plan,
        payload: Payload,
        *,
        now_s: float,
        deadline_s: float,
        begun_s: float | None = None,
        head_s: float | None = None,
        head_steps_s: tuple[float, ...] = (),
        finish_s: float | None = None,
        patience_s: float = math.inf,
        telemetry: Mapping[str, float] | None = None,
    ) -> tuple[int, list[DeviceEffect]]:
        """Ask the edge for the rest of a request.

        Parameters
        ----------
        plan : Plan
        payload : object
            What the head gave. It is kept until the request ends.
        now_s, deadline_s, begun_s : float
            Clock readings; `begun_s` is when the request began (the head ran in between). `deadline_s` may be inf.
        head_s : float, optional
            Compute seconds of the head.
        head_steps_s : tuple of float
            Those of its steps, where they run one by one.
        finish_s : float, optional
            What the remaining part would take here, at worst; None where the device does not have it.
        patience_s : float
            How long the edge may take before this device begins to finish, or where it can't, gives up.
        telemetry : mapping of str to float, optional

        Returns
        -------
        sequence : int
            The request's number, which its `RequestDone` will bear.
        effects : list

        Raises
        ------
        Overloaded
            Too many requests are pending.
        LocalProtocolError
            The payload can't cross: something in it is no plain data.
        """
        stateful, order = self._pipeline.stateful, self._order
        if stateful:
            self._order += 1  # the head has run: whatever goes wrong from here on, the edge must notice the gap
        self._budget.earn()
        if self.full:
            raise Overloaded(f"{len(self._pending)} requests are pending; wait for some to end", retry_after_s=0.05)
        pipeline, cut = self._pipeline, plan.cut
        if cut not in self._fingerprints:
            raise LocalProtocolError(f"nothing crosses at cut {cut}")
        hedge_s = None
        can_finish = finish_s is not None and not pipeline.remembers_from(cut) and pipeline.sink == "device"
        if finish_s is None or not can_finish:
            deadline_s = min(deadline_s, now_s + patience_s)
        elif deadline_s - finish_s - self._margin_s > now_s:
            hedge_s = min(deadline_s - finish_s - self._margin_s, now_s + patience_s)
        sent, kept = pipeline.divide(cut, payload)
        unsendable: PayloadTooLarge | None = None
        try:
            packed = wire.pack(sent, RAW)
        except PayloadTooLarge as error:
            packed, unsendable = _NO_PAYLOAD, error
        remembers = pipeline.remembers_from(cut)
        sequence = self._number()
        told = self.outbox.take(now_s)
        message = wire.Request(
            boot=self._boot,
            sequence=sequence,
            digest=self._digest,
            start=cut,
            stop=pipeline.n,
            fingerprint=self._fingerprints[cut],
            names=packed.names,
            payload=packed.payload,
            arrays=packed.arrays,
            codec=plan.codec,
            sink=pipeline.sink,
            deadline_s=None if deadline_s == math.inf else max(0.0, deadline_s - now_s),
            plan_id=plan.id,
            probe=plan.probe,
            propensity=plan.propensity,
            observations=told,
            telemetry={} if telemetry is None else wire.finite(telemetry),
            order=order if stateful else None,
            epoch=self._epoch if remembers else 0,
            holder=self._holder if remembers else b"",
            runtime=self._health.runtime if self._exact else b"",
            implementation=pipeline.implementation,
        )
        try:
            frame = wire.encode(message, packed.buffers)
        except PayloadTooLarge as error:
            frame, unsendable = b"", error
        pending = _Pending(
            sequence=sequence,
            plan=plan,
            payload=sent,
            kept=kept,
            message=message,
            buffers=packed.buffers,
            begun_s=now_s if begun_s is None else begun_s,
            sent_s=now_s,
            deadline_s=deadline_s,
            hedge_s=hedge_s,
            can_finish=can_finish,
            head_s=head_s,
            head_steps_s=head_steps_s,
            nbytes=len(frame),
            told=told,
            behind=bool(self._pending),
        )
        self._pending[sequence] = pending
        self.counters.requests += 1
        if now_s >= deadline_s:
            late = DeadlineExceeded(f"the deadline passed {now_s - deadline_s:.3f} s before the request could be sent")
            return sequence, self._end(pending, None, late, "none", now_s)
        if unsendable is not None:
            self._complain(unsendable, now_s)
            return sequence, self._was_too_large(pending, unsendable, now_s)
        limit = self._health.max_frame_bytes
        if len(frame) > limit:
            large = FrameTooLarge(f"the payload takes {len(frame)} bytes; the edge accepts {limit}", limit=limit)
            return sequence, self._was_too_large(pending, large, now_s)
        if not self.edge_up(now_s):
            why = EdgeUnavailable(self.why_down)
            return sequence, self._transition(pending, Event.LOST, now_s, why)
        self.counters.offloaded += 1
        pending.again_s = now_s + self._patience_s(pending)
        return sequence, [Send(frame)]

    def receive(self, frame: bytes, now_s: float, arrival: Arrival | None = None) -> list[DeviceEffect]:
        """A frame came from the edge. Bytes that break the protocol are counted and dropped.

        Parameters
        ----------
        frame : bytes
        now_s : float
            Decides what is too late.
        arrival : Arrival, optional
            When it was here: that is measured, and from then on counts what it says. Now, unless given.
        """
        arrival = Arrival(now_s) if arrival is None else arrival
        try:
            message, buffers = wire.decode(frame)
        except RemoteProtocolError as garbled:
            return self._unreadable(garbled, now_s)
        if isinstance(message, wire.Hello | wire.Request | wire.Probe):
            whose = "this device's own frame came back" if message.boot == self._boot else "a device's frame came"
            return self._unreadable(RemoteProtocolError(f"{whose} as an answer: that is an echo, no edge"), now_s)
        if message.boot != self._boot and not (isinstance(message, wire.Failure) and message.boot == wire.NOBODY):
            self.counters.bad_frames += 1  # an answer to somebody else, or to this device before it started anew
            return []
        if isinstance(message, wire.Welcome):
            before = self._health.max_frame_bytes
            effects: list[DeviceEffect] = [*self._health.welcomed(message, now_s)]
            if self._health.max_frame_bytes > before:  # another edge: it takes more
                self._large, self._large_cuts = {}, frozenset()
            return effects
        if isinstance(message, wire.Echo):
            sends, seen = self._health.echoed(message, len(frame), now_s, arrival, idle=not self._pending)
            if seen is not None and seen.round_trip_s is not None and not seen.upper_bound:
                nbytes, came_s = seen.sent_bytes + seen.received_bytes, arrival.came_s
                sent_s, behind = came_s - seen.round_trip_s, bool(self._pending)
                self._queueing.update(sent_s, came_s, message.residence_s, nbytes=nbytes, behind=behind)
            return [*sends, *([] if seen is None else self._observe(seen, now_s))]
        if isinstance(message, wire.Failure) and message.boot == wire.NOBODY and not self._lossy:
            return self.broken(RemoteProtocolError(f"the edge can't read what is sent: {message.message}"), now_s)
        effects = [*self._health.seen(message.edge_boot, now_s)]
        if isinstance(message, wire.Busy) and self._health.put_off(message.sequence, message.retry_after_s, now_s):
            return effects
        pending = self._pending.get(message.sequence)
        if isinstance(message, wire.Reply):
            if message.next is not None and len(message.next.cuts) == 1:
                self._next_placement = (message.next, arrival.came_s + message.next.valid_s)
            if message.hello:
                effects += self._health.again(now_s)
            return effects + self._replied(message, buffers, len(frame), pending, now_s, arrival)
        if pending is None:
            self.counters.late_replies += 1
            return effects
        if isinstance(message, wire.Busy):
            self._health.busy(message.retry_after_s, arrival.came_s)
            busy = Overloaded("the edge is busy", retry_after_s=message.retry_after_s)
            return effects + self._transition(pending, Event.BUSY, now_s, busy)
        if message.code in (wire.ErrorCode.DROPPED, wire.ErrorCode.FAILED):
            self._ran(pending, message.edge_boot)
        if message.code == wire.ErrorCode.DROPPED:
            return effects + self._dropped(message, pending, now_s)
        error = RemoteError(message.message or message.code, code=message.code)
        if message.code not in _PASSING:
            self._complain(error, now_s)
        return effects + self._transition(pending, Event.REFUSED, now_s, error)

    def failed(self, frame: bytes, error: Exception, now_s: float) -> list[DeviceEffect]:
        """The transport could not carry a frame, or lost the answer to it."""
        try:
            message, _ = wire.decode(frame)
        except RemoteProtocolError:
            return self.broken(error, now_s)
        if self._health.lost(message.sequence, now_s, error):
            return []
        pending = self._pending.get(message.sequence)
        if isinstance(error, FrameTooLarge):  # that concerns this frame, and all that are as large
            self._health.too_large(len(frame), error, now_s)
            return [] if pending is None else self._was_too_large(pending, error, now_s)
        if pending is None:
            return []  # that it was not answered is known already
        self._health.failed(now_s, error)
        heals = not isinstance(error, TransportError) or error.heals  # else it would fail again, sent once more
        return self._transition(pending, Event.LOST if heals else Event.REFUSED, now_s, _unreachable(error))

    def broken(self, error: Exception, now_s: float) -> list[DeviceEffect]:
        """The transport lost everything that was under way."""
        self._health.broken(error, now_s)
        effects: list[DeviceEffect] = []
        for pending in list(self._pending.values()):
            effects += self._transition(pending, Event.LOST, now_s, _unreachable(error))
        return effects

    def local_done(
        self,
        sequence: int,
        result: Payload | Exception,
        seconds: float,
        now_s: float,
        steps_s: tuple[float, ...] = (),
    ) -> list[DeviceEffect]:
        """A `RunLocal` ended, with what the part gave (maybe `DROP`) or what it raised."""
        pending = self._pending.get(sequence)
        if pending is None or not pending.local:
            return []  # the edge was faster
        if result is DROP:
            result = Dropped("a task on the device dropped the frame")
        if isinstance(result, Dropped):
            self.counters.dropped += 1
            return self._end(pending, None, result, pending.local, now_s)
        if isinstance(result, Exception):
            error = result
            if not isinstance(error, SplitiotError):
                error = StepError(with_notes(f"the local finish raised {result!r}", result))
                error.__cause__ = result
            return self._end(pending, None, error, pending.local, now_s)
        if now_s > pending.deadline_s:
            late = DeadlineExceeded(f"finished locally {now_s - pending.deadline_s:.3f} s after the deadline")
            return self._end(pending, None, late, pending.local, now_s, local_s=seconds, steps_s=steps_s)
        value = self._pipeline.join(pending.kept, result)
        return self._end(pending, value, None, pending.local, now_s, local_s=seconds, steps_s=steps_s)

    def _unreadable(self, error: RemoteProtocolError, now_s: float) -> list[DeviceEffect]:
        """What came is no answer of an edge: to which frame it was to be one, nobody knows."""
        self.counters.bad_frames += 1
        if not self._lossy:
            return self.broken(error, now_s)
        self._health.noticed(error, now_s)  # it may be noise: the answer may come yet
        return []

    def _complain(self, error: SplitiotError, now_s: float) -> None:
        """The edge answers, but not with what it was asked for: the device finishes, and nobody would hear of it."""
        self._complaint = trouble_of(error, now_s if self._complaint is None else self._complaint.since_s)

    def _was_too_large(
        self, pending: _Pending, error: FrameTooLarge | PayloadTooLarge, now_s: float
    ) -> list[DeviceEffect]:
        self._large[pending.plan.cut] = now_s + _TOO_LARGE_S
        self._large_cuts = frozenset(self._large)
        return self._transition(pending, Event.REFUSED, now_s, error)

    # what becomes of a request

    def _transition(
        self, pending: _Pending, event: Event, now_s: float, error: SplitiotError | None = None
    ) -> list[DeviceEffect]:
        """Go where `TRANSITIONS` says: to the first state there that is possible."""
        choices = TRANSITIONS.get((pending.state, event), ())
        state = next((state for state in choices if self._possible(state, pending, event, now_s)), None)
        if state is None:
            if event is Event.SILENT:
                pending.again_s = math.inf  # it may not be sent again
            return []
        effects: list[DeviceEffect] = []
        if event in (Event.HEDGE, Event.DEADLINE):
            effects += self._silent(pending, now_s)
        if state is State.LOCAL:
            hedge = event is Event.HEDGE
            self.counters.hedges += hedge
            self.counters.fallbacks += not hedge
            pending.state, pending.local = state, "hedge" if hedge else "fallback"
            return [*effects, RunLocal(pending.sequence, pending.plan.cut, self._pipeline.n, pending.payload)]
        if state is State.PAUSED:
            pending.state, pending.error, pending.again_s = state, error, now_s + self._pause_s(pending, error)
            return effects
        if state is State.WAITING:
            return effects + self._send_again(pending, event, now_s)
        if event is Event.DEADLINE and (error := pending.error) is None:
            error = DeadlineExceeded(f"no answer in {now_s - pending.begun_s:.3f} s, and no time to finish locally")
        return effects + self._end(pending, None, error or pending.error, "none", now_s)

    def _possible(self, state: State, pending: _Pending, event: Event, now_s: float) -> bool:
        if state is State.LOCAL:
            return pending.can_finish
        if state is State.PAUSED:
            return self._budget.left and now_s < pending.deadline_s
        return state is State.ENDED or self._budget.left

    def _pause_s(self, pending: _Pending, error: SplitiotError | None) -> float:
        """How long to wait before it is sent again: drawn evenly up to a bound that doubles."""
        least_s = min(error.retry_after_s, _PAUSE_CAP_S) if isinstance(error, Overloaded) else 0.0
        bound_s = min(_PAUSE_S * float(2**pending.attempts), _PAUSE_CAP_S)
        return max(0.0, least_s) + bound_s * self._chance()

    def _patience_s(self, pending: _Pending) -> float:
        """How long an answer may take before it is thought lost: by what was expected, and the longest of the last."""
        if not self._lossy:
            return math.inf
        expected_s = max(pending.plan.latency_s - (pending.head_s or 0.0), *self._rounds, 0.0)
        return (2 * expected_s + _SILENCE_S) * float(2**pending.attempts) * (1 + self._chance())

    def _send_again(self, pending: _Pending, event: Event, now_s: float) -> list[DeviceEffect]:
        if not self.edge_up(now_s):
            wait_s = self._pause_s(pending, None) if event is Event.AGAIN else self._patience_s(pending)
            pending.again_s = now_s + wait_s
            return []
        self._budget.take()
        self.counters.retries += 1
        pending.attempts += 1
        pending.error = None
        pending.state, pending.again_s = State.WAITING, now_s + self._patience_s(pending)
        left_s = None if pending.deadline_s == math.inf else max(0.0, pending.deadline_s - now_s)
        pending.message = msgspec.structs.replace(pending.message, attempt=pending.attempts, deadline_s=left_s)
        return [Send(wire.encode(pending.message, pending.buffers))]

    def _replied(
        self,
        reply: wire.Reply,
        buffers: list[memoryview],
        nbytes: int,
        pending: _Pending | None,
        now_s: float,
        arrival: Arrival,
    ) -> list[DeviceEffect]:
        known = self._ended.pop(reply.sequence, None) if pending is None else pending
        if known is None or known.answered:
            self.counters.late_replies += 1
            return []
        known.answered = True
        if pending is not None:
            self._ran(pending, reply.edge_boot)
        self._health.answered(arrival.came_s, known.nbytes)
        seen = self._measured(known, arrival, times=reply.times, nbytes=nbytes)
        if not known.attempts and not seen.upper_bound:
            self._rounds.append(max(0.0, arrival.came_s - known.sent_s))
        if pending is None:
            self.counters.late_replies += 1
            return self._observe(seen, now_s)
        if now_s > pending.deadline_s:
            self.counters.late_replies += 1
            late = DeadlineExceeded(f"the answer came {now_s - pending.deadline_s:.3f} s after the deadline")
            return self._end(pending, None, late, "none", now_s, seen=seen)
        try:
            value = self._value(reply, buffers, pending)
        except ProtocolError as error:
            self.counters.bad_frames += 1
            self._complain(error, now_s)
            return self._transition(pending, Event.REFUSED, now_s, error)
        self._complaint = None
        exact = self._health.exact_from(reply.runtime)
        return self._end(pending, value, None, "edge", now_s, seen=seen, exact=exact)

    def _dropped(self, failure: wire.Failure, pending: _Pending, now_s: float) -> list[DeviceEffect]:
        """A task on the edge dropped the frame: that is an answer, though of a tail that did not run to its end."""
        pending.answered = True
        self.counters.dropped += 1
        self._health.answered(now_s, 0)
        return self._end(pending, None, Dropped(failure.message), "none", now_s)

    def _ran(self, pending: _Pending, edge_boot: bytes) -> None:
        """An edge has run a request: what the pipeline remembers of it is there, and nowhere else."""
        if pending.message.epoch == self._epoch and self._pipeline.remembers_from(pending.plan.cut):
            self._holder = edge_boot

    def _value(self, reply: wire.Reply, buffers: list[memoryview], pending: _Pending) -> Any:
        if self._pipeline.sink == "edge":
            return None
        if reply.codec != RAW.name:
            raise RemoteProtocolError(f"the edge answered with the codec {reply.codec!r}, which was not asked for")
        returned = wire.unpack(reply, buffers, RAW, copy=True)
        wrong = self._pipeline.returned(pending.plan.cut).mismatch(returned)
        if wrong:
            raise RemoteProtocolError(f"the edge's result does not fit: {wrong}")
        return self._pipeline.join(pending.kept, returned)

    def _end(
        self,
        pending: _Pending,
        value: Any,
        error: SplitiotError | None,
        source: Literal["edge", "hedge", "fallback", "none"],
        now_s: float,
        *,
        seen: Observation | None = None,
        local_s: float | None = None,
        steps_s: tuple[float, ...] = (),
        exact: bool = True,
    ) -> list[DeviceEffect]:
        self._retire(pending)
        if seen is None:
            seen = self._measured(pending, local_s=local_s, steps_s=steps_s)
        outcome = Outcome(
            value=value,
            error=error,
            source=source,
            exact=error is None and exact,
            plan=pending.plan,
            observation=seen,
            latency_s=now_s - pending.begun_s,
        )
        return [*self._observe(seen, now_s), RequestDone(pending.sequence, outcome)]

    def _retire(self, pending: _Pending) -> None:
        """Forget what a request needed; remember what a late answer teaches."""
        del self._pending[pending.sequence]
        self._ended[pending.sequence] = pending
        pending.state = State.ENDED
        if len(self._ended) > 2 * self._max_pending:
            self._ended.popitem(last=False)
        if not pending.answered:  # nobody knows whether the edge heard it; of each plan it takes it only once
            self.outbox.put_back(pending.told, pending.sent_s)
        pending.payload = pending.kept = None
        pending.message, pending.buffers, pending.told = _NO_MESSAGE, (), ()

    def _measured(
        self,
        pending: _Pending,
        arrival: Arrival | None = None,
        *,
        times: EdgeTimes | None = None,
        nbytes: int = 0,
        local_s: float | None = None,
        steps_s: tuple[float, ...] = (),
    ) -> Observation:
        seen = Observation(
            plan_id=pending.plan.id,
            cut=pending.plan.cut,
            head_s=pending.head_s,
            head_steps_s=pending.head_steps_s,
            local_s=local_s,
            local_steps_s=steps_s,
            sent_bytes=pending.nbytes,
            retransmitted=pending.attempts > 0,
        )
        if times is None or arrival is None:
            return seen
        sent_s, took_s, upper_bound = arrival.since(pending.sent_s)
        queued_s = held_s = 0.0
        if not upper_bound:
            queued_s, held_s = self._queueing.update(
                sent_s,
                arrival.came_s,
                times.residence_s,
                nbytes=seen.sent_bytes + nbytes,
                behind=pending.behind,
                queue_s=times.queue_s,
            )
        return Observation(
            plan_id=seen.plan_id,
            cut=seen.cut,
            head_s=seen.head_s,
            head_steps_s=seen.head_steps_s,
            tail_s=times.compute_s,
            edge=times,
            round_trip_s=took_s,
            sent_bytes=seen.sent_bytes,
            received_bytes=nbytes,
            retransmitted=pending.attempts > 0,
            queued_s=queued_s,
            held_s=held_s,
            upper_bound=upper_bound,
        )

    def _silent(self, pending: _Pending, now_s: float) -> list[DeviceEffect]:
        """No answer yet, and no time to wait longer."""
        silent_s = min(self._heard_s, now_s) - pending.sent_s
        if silent_s <= 0:
            return []  # nobody has looked since it was sent
        # else it had less time than it was expected to need
        if silent_s + (pending.head_s or 0.0) >= pending.plan.latency_s:
            self._health.failed(now_s)
        return self._observe(
            Observation(
                plan_id=pending.plan.id,
                cut=pending.plan.cut,
                round_trip_s=silent_s,
                sent_bytes=pending.nbytes,
                censored=True,
            ),
            now_s,
        )

    def _observe(self, seen: Observation, now_s: float) -> list[DeviceEffect]:
        self.outbox.add(seen, now_s)
        return [NewObservation(seen)]


_NO_PAYLOAD: Final = wire.pack(None)
_NO_MESSAGE: Final = wire.Request(boot=wire.NOBODY, sequence=0, digest=b"", start=0, stop=0, fingerprint=b"")


def _unreachable(error: Exception) -> EdgeUnavailable:
    lost = EdgeUnavailable(f"the edge can't be reached: {error}")
    lost.__cause__ = error
    return lost
