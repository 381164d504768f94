"""The device's half of the protocol."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

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
    TransportError,
)
from splitiot.observation import Observation
from splitiot.pipeline import Payload, Pipeline, RuntimeInfo
from splitiot.plan import Plan
from splitiot.session._arrival import Arrival
from splitiot.session._composer import RequestComposer
from splitiot.session._counters import DeviceCounters
from splitiot.session._edge_health import EdgeHealth
from splitiot.session._effects import DeviceEffect
from splitiot.session._handshake import Handshake
from splitiot.session._link_prober import LinkProber
from splitiot.session._measurements import Measurements
from splitiot.session._outbox import ObservationOutbox
from splitiot.session._oversize import OversizedCuts
from splitiot.session._pending import PendingRequest
from splitiot.session._remote_state import RemoteState
from splitiot.session._requests import PendingRequests
from splitiot.session._states import Event, State
from splitiot.session._trouble import Trouble, trouble_of
from splitiot.topology import TierProfile

__all__ = ["DeviceSession"]

_PASSING: Final = frozenset(  # what says nothing of the next request
    {wire.ErrorCode.LATE, wire.ErrorCode.STATE_LOST, wire.ErrorCode.BAD_ORDER, wire.ErrorCode.FORGOTTEN}
)


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
        self._pipeline, self._boot, self._margin_s = pipeline, boot, margin_s
        self._lossy = lossy
        number = itertools.count(1).__next__
        self._handshake = Handshake(
            pipeline, boot=boot, number=number, runtime=runtime, profile=profile, parts=parts, exact=exact
        )
        self._health = EdgeHealth(self._handshake, LinkProber(boot, number, probe_interval_s))
        self.counters = DeviceCounters()
        self._measurements = Measurements(bytes.fromhex(pipeline.digest))
        self._requests = PendingRequests(
            pipeline,
            self._health,
            self._measurements,
            self.counters,
            most=max_pending,
            lossy=lossy,
            chance=chance,
        )
        self._remote_state = RemoteState(pipeline)
        self._composer = RequestComposer(
            pipeline,
            self._remote_state,
            self.outbox,
            boot=boot,
            number=number,
            runtime=self._handshake.runtime if exact else b"",
        )
        self._oversized = OversizedCuts()
        self._next_placement: tuple[wire.NextPlacement, float] | None = None
        self._complaint: Trouble | None = None  # why the edge could not compute what it was asked last

    # what the owner asks

    @property
    def outbox(self) -> ObservationOutbox:
        """What the edge has not been told yet."""
        return self._measurements.outbox

    def edge_up(self, now_s: float) -> bool:
        """Whether requests can be sent: the edge said welcome, has the pipeline, and is not failing or busy."""
        return self._health.up(now_s)

    @property
    def edge(self) -> wire.PipelineHello | None:
        """What the edge has of this pipeline; None while that is unknown."""
        return self._handshake.edge

    @property
    def refusal(self) -> str:
        """Why the edge is of no use although it answers; empty where it is."""
        return self._handshake.refusal

    @property
    def trouble(self) -> Trouble | None:
        """What keeps requests from the edge; None while nothing is known to be wrong, or it is only busy."""
        return self._health.trouble or self._complaint

    @property
    def met(self) -> bool:
        """Whether an edge has ever answered."""
        return self._handshake.met

    @property
    def reached(self) -> bool:
        """Whether the edge is there and of use, though it may be busy."""
        return self._handshake.welcome

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
        return self._oversized.at(now_s)

    @property
    def exact(self) -> bool:
        """Whether the edge's results agree bit for bit with the device's: the same runtime, version and kernels."""
        return self._handshake.exact

    @property
    def profile(self) -> TierProfile | None:
        """The device's own, for an edge that plans."""
        return self._handshake.profile

    @profile.setter
    def profile(self, profile: TierProfile) -> None:
        self._handshake.profile = profile

    @property
    def pending(self) -> int:
        """Requests that have not ended."""
        return len(self._requests.pending)

    @property
    def full(self) -> bool:
        """Whether one more request would be refused: as many are pending as may be."""
        return self._requests.full

    def waits_for(self, sequence: int) -> bool:
        """Whether a request has not ended."""
        return sequence in self._requests.pending

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

    def ran_alone(self, observation: Observation, now_s: float) -> list[DeviceEffect]:
        """A request ran locally as planned; an edge that plans will be told."""
        self.counters.requests += 1
        return [self._measurements.publish(observation, now_s)]

    def wake_s(self) -> float | None:
        """When `tick` has something to do next; None when nothing waits."""
        wake_s = min(self._requests.wake_s(), self._health.wake_s())
        return None if wake_s == math.inf else wake_s

    def dump(self) -> bytes:
        """Return what the edge may not have heard as bytes, for `ObservationOutbox.load` at the next start."""
        pending = self._requests.pending.values()
        return self.outbox.dump(observation for request in pending for observation in request.content.observations)

    def reset(self) -> None:
        """Tell the edge with the next request to forget the state of this device."""
        self._remote_state.reset()

    def abandon(self) -> None:
        """Nobody waits for the pending requests any more: they end without a RequestDone. Late answers still teach."""
        self._requests.abandon()
        self._remote_state.next_order()  # whether the edge took the last one is unknown: it will say so

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
        heard_s = now_s if heard_s is None else min(heard_s, now_s)
        return [*self._health.tick(now_s, heard_s), *self._requests.tick(now_s, heard_s)]

    def rest(self, now_s: float, free_s: float = math.inf) -> list[DeviceEffect]:
        """The owner will need the link again in `free_s` at the earliest: a good moment to measure it."""
        return [] if self._requests.pending else [*self._health.rest(now_s, free_s)]

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
        order = self._remote_state.next_order()  # the head has run: the edge must notice the gap if this is not sent
        self._requests.budget.earn()
        if self.full:
            raise Overloaded(f"{self.pending} requests are pending; wait for some to end", retry_after_s=0.05)
        pipeline, cut = self._pipeline, plan.cut
        if not self._composer.crosses(cut):
            raise LocalProtocolError(f"nothing crosses at cut {cut}")
        hedge_s = math.inf
        can_finish = finish_s is not None and not pipeline.remembers_from(cut) and pipeline.sink == "device"
        if finish_s is None or not can_finish:
            deadline_s = min(deadline_s, now_s + patience_s)
        elif deadline_s - finish_s - self._margin_s > now_s:
            hedge_s = min(deadline_s - finish_s - self._margin_s, now_s + patience_s)
        left_s = None if deadline_s == math.inf else max(0.0, deadline_s - now_s)
        content, frame, unsendable = self._composer.compose(plan, payload, order, left_s, telemetry, now_s)
        request = PendingRequest(
            sequence=content.message.sequence,
            plan=plan,
            begun_s=now_s if begun_s is None else begun_s,
            sent_s=now_s,
            deadline_s=deadline_s,
            can_finish=can_finish,
            nbytes=len(frame),
            head_s=head_s,
            head_steps_s=head_steps_s,
            behind=bool(self._requests.pending),
            content=content,
            hedge_s=hedge_s,
        )
        self._requests.add(request)
        return request.sequence, self._begin(request, frame, unsendable, now_s)

    def _begin(
        self, request: PendingRequest, frame: bytes, unsendable: PayloadTooLarge | None, now_s: float
    ) -> list[DeviceEffect]:
        """Send a request, where that is possible and of use."""
        if now_s >= request.deadline_s:
            late_s = now_s - request.deadline_s
            late = DeadlineExceeded(f"the deadline passed {late_s:.3f} s before the request could be sent")
            return self._requests.end(request, None, late, "none", now_s)
        if unsendable is not None:
            self._complain(unsendable, now_s)
            return self._was_too_large(request, unsendable, now_s)
        limit = self._health.max_frame_bytes
        if len(frame) > limit:
            large = FrameTooLarge(f"the payload takes {len(frame)} bytes; the edge accepts {limit}", limit=limit)
            return self._was_too_large(request, large, now_s)
        if not self.edge_up(now_s):
            return self._requests.transition(request, Event.LOST, now_s, EdgeUnavailable(self.why_down))
        return self._requests.send(request, frame, now_s)

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
            return self._on_welcome(message, now_s)
        if isinstance(message, wire.Echo):
            return self._on_echo(message, len(frame), now_s, arrival)
        if isinstance(message, wire.Failure) and message.boot == wire.NOBODY and not self._lossy:
            return self.broken(RemoteProtocolError(f"the edge can't read what is sent: {message.message}"), now_s)
        effects: list[DeviceEffect] = [*self._health.greet_if_new(message.edge_boot, now_s)]
        if isinstance(message, wire.Reply):
            return effects + self._on_reply(message, buffers, len(frame), now_s, arrival)
        if isinstance(message, wire.Busy):
            return effects + self._on_busy(message, now_s, arrival)
        return effects + self._on_failure(message, now_s)

    def failed(self, frame: bytes, error: Exception, now_s: float) -> list[DeviceEffect]:
        """The transport could not carry a frame, or lost the answer to it."""
        try:
            message, _ = wire.decode(frame)
        except RemoteProtocolError:
            return self.broken(error, now_s)
        if self._health.lost(message.sequence, now_s, error):
            return []
        request = self._requests.pending.get(message.sequence)
        if isinstance(error, FrameTooLarge):  # that concerns this frame, and all that are as large
            self._health.too_large(len(frame), error, now_s)
            return [] if request is None else self._was_too_large(request, error, now_s)
        if request is None:
            return []  # that it was not answered is known already
        self._health.failed(now_s, error)
        heals = not isinstance(error, TransportError) or error.heals  # else it would fail again, sent once more
        return self._requests.transition(request, Event.LOST if heals else Event.REFUSED, now_s, _unreachable(error))

    def broken(self, error: Exception, now_s: float) -> list[DeviceEffect]:
        """The transport lost everything that was under way."""
        self._health.broken(error, now_s)
        effects: list[DeviceEffect] = []
        for request in list(self._requests.pending.values()):
            effects += self._requests.transition(request, Event.LOST, now_s, _unreachable(error))
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
        return self._requests.local_done(sequence, result, seconds, now_s, steps_s)

    # what the edge says

    def _on_welcome(self, welcome: wire.Welcome, now_s: float) -> list[DeviceEffect]:
        before = self._health.max_frame_bytes
        effects: list[DeviceEffect] = [*self._health.welcomed(welcome, now_s)]
        if self._health.max_frame_bytes > before:  # another edge: it takes more
            self._oversized.clear()
        return effects

    def _on_echo(self, echo: wire.Echo, nbytes: int, now_s: float, arrival: Arrival) -> list[DeviceEffect]:
        behind = bool(self._requests.pending)
        sends, observation = self._health.echoed(echo, nbytes, now_s, arrival, idle=not behind)
        if observation is None:
            return [*sends]
        self._measurements.of_probe(observation, arrival, behind=behind)
        return [*sends, self._measurements.publish(observation, now_s)]

    def _on_reply(
        self, reply: wire.Reply, buffers: list[memoryview], nbytes: int, now_s: float, arrival: Arrival
    ) -> list[DeviceEffect]:
        effects: list[DeviceEffect] = []
        if reply.next is not None and len(reply.next.cuts) == 1:
            self._next_placement = (reply.next, arrival.came_s + reply.next.valid_s)
        if reply.hello:
            effects += self._health.again(now_s)
        request = self._requests.find(reply.sequence)
        if request is None or request.answered:
            self.counters.late_replies += 1
            return effects
        request.answered = True
        self._health.answered(arrival.came_s, request.nbytes)
        observation = self._measurements.of_answer(request, arrival, reply.times, nbytes)
        if request.state is State.ENDED:
            self.counters.late_replies += 1
            return [*effects, self._measurements.publish(observation, now_s)]
        self._note_holder(request, reply.edge_boot)
        if now_s > request.deadline_s:
            self.counters.late_replies += 1
            late = DeadlineExceeded(f"the answer came {now_s - request.deadline_s:.3f} s after the deadline")
            return effects + self._requests.end(request, None, late, "none", now_s, observation)
        try:
            value = self._read_value(reply, buffers, request)
        except ProtocolError as error:
            self.counters.bad_frames += 1
            self._complain(error, now_s)
            return effects + self._requests.transition(request, Event.REFUSED, now_s, error)
        self._complaint = None
        exact = self._handshake.exact_from(reply.runtime)
        return effects + self._requests.end(request, value, None, "edge", now_s, observation, exact=exact)

    def _on_busy(self, busy: wire.Busy, now_s: float, arrival: Arrival) -> list[DeviceEffect]:
        if self._health.put_off(busy.sequence, busy.retry_after_s, now_s):
            return []
        request = self._requests.pending.get(busy.sequence)
        if request is None:
            self.counters.late_replies += 1
            return []
        self._health.busy(busy.retry_after_s, arrival.came_s)
        overloaded = Overloaded("the edge is busy", retry_after_s=busy.retry_after_s)
        return self._requests.transition(request, Event.BUSY, now_s, overloaded)

    def _on_failure(self, failure: wire.Failure, now_s: float) -> list[DeviceEffect]:
        request = self._requests.pending.get(failure.sequence)
        if request is None:
            self.counters.late_replies += 1
            return []
        if failure.code in (wire.ErrorCode.DROPPED, wire.ErrorCode.FAILED):
            self._note_holder(request, failure.edge_boot)
        if failure.code == wire.ErrorCode.DROPPED:  # an answer, though of a tail that did not run to its end
            request.answered = True
            self.counters.dropped += 1
            self._health.answered(now_s, 0)
            return self._requests.end(request, None, Dropped(failure.message), "none", now_s)
        error = RemoteError(failure.message or failure.code, code=failure.code)
        if failure.code not in _PASSING:
            self._complain(error, now_s)
        return self._requests.transition(request, Event.REFUSED, now_s, error)

    def _unreadable(self, error: RemoteProtocolError, now_s: float) -> list[DeviceEffect]:
        """What came is no answer of an edge: to which frame it was to be one, nobody knows."""
        self.counters.bad_frames += 1
        if not self._lossy:
            return self.broken(error, now_s)
        self._health.noticed(error, now_s)  # it may be noise: the answer may come yet
        return []

    # what follows from it

    def _complain(self, error: SplitiotError, now_s: float) -> None:
        """The edge answers, but not with what it was asked for: the device finishes, and nobody would hear of it."""
        self._complaint = trouble_of(error, now_s if self._complaint is None else self._complaint.since_s)

    def _was_too_large(
        self, request: PendingRequest, error: FrameTooLarge | PayloadTooLarge, now_s: float
    ) -> list[DeviceEffect]:
        self._oversized.add(request.plan.cut, now_s)
        return self._requests.transition(request, Event.REFUSED, now_s, error)

    def _note_holder(self, request: PendingRequest, edge_boot: bytes) -> None:
        self._remote_state.ran(request.plan.cut, request.content.message.epoch, edge_boot)

    def _read_value(self, reply: wire.Reply, buffers: list[memoryview], request: PendingRequest) -> Any:
        if self._pipeline.sink == "edge":
            return None
        if reply.codec != RAW.name:
            raise RemoteProtocolError(f"the edge answered with the codec {reply.codec!r}, which was not asked for")
        returned = wire.unpack(reply, buffers, RAW, copy=True)
        if wrong := self._pipeline.returned(request.plan.cut).mismatch(returned):
            raise RemoteProtocolError(f"the edge's result does not fit: {wrong}")
        return self._pipeline.join(request.content.kept, returned)


def _unreachable(error: Exception) -> EdgeUnavailable:
    lost = EdgeUnavailable(f"the edge can't be reached: {error}")
    lost.__cause__ = error
    return lost
