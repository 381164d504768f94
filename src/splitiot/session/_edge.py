"""The edge's half of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from attrs import astuple

from splitiot import wire
from splitiot.errors import (
    DeadlineExceeded,
    Dropped,
    LocalProtocolError,
    StateLost,
    with_notes,
)
from splitiot.limits import Limits
from splitiot.observation import EdgeTimes
from splitiot.pipeline import DROP, Payload, Pipeline, RuntimeInfo
from splitiot.session._admission import Admission, Refused
from splitiot.session._answers import Answer, Answers, Key
from splitiot.session._counters import EdgeCounters
from splitiot.session._device_planners import DevicePlanners, MakePlanner
from splitiot.session._effects import EdgeEffect, ForgetState, Job, RunPart, Send
from splitiot.session._load import Load
from splitiot.session._peers import Peer, Peers
from splitiot.session._quota import Quota
from splitiot.session._received import QUICK_BYTES, Received, read_frame
from splitiot.session._served import ServedPipelines
from splitiot.topology import TierProfile
from splitiot.wire import ErrorCode

__all__ = ["EdgeSession"]

_WAITING: Final = 16  # duplicates that may wait for one job
_ECHO_BYTES: Final = 65536  # of padding that comes back at most
_PROBE: Final = bytes([wire.KINDS.index(wire.Probe) + 1])
_FULL_S: Final = 1.0  # until a device for which there is no place may ask again


class _Flight(msgspec.Struct, eq=False):
    """A job that runs, and who waits for it."""

    request: wire.Request
    fingerprint: int
    waiting: list[Any]
    nbytes: int
    digest: str
    remembers: bool


class EdgeSession:
    """The edge's conversations with all devices about some pipelines, without input or output.

    The owner gives frames with the identity that the credential proved (`peer`), runs what `RunPart` asks for, and
    tells `complete`. One request is executed once: a duplicate waits for the one in flight, or gets the same answer
    again; another request under the same id is refused. Nothing that one device sends changes another's state.

    Quotas are by name. All else is by name and boot, so devices that share a name do not disturb each other. Where no
    credential tells devices apart, who does not know a device's boot can't ask in its place.

    Parameters
    ----------
    pipelines : iterable of Pipeline
    boot : bytes
        `splitiot.wire.BOOT_BYTES` random ones, new at each start. State that a request goes on with is looked for only
        where it names this boot; else it is told as lost.
    runtimes : mapping of str to RuntimeInfo
        By digest: what each pipeline is run with.
    profiles : mapping of str to TierProfile, optional
        By digest: what each pipeline costs here.
    make_planner : callable, optional
        Plan for the devices: one planner, and so one state, for each device and pipeline.
    limits : Limits, optional
        Bounds. Frames of any kind that come too often, more jobs or bytes in flight, and more peers (each boot of a
        device is one) are answered with Busy. Of the remembered answers the oldest are dropped of the name that has
        most. A request with the id of a dropped answer is executed again only where that changes nothing: what it runs
        remembers nothing, and the result is the device's.
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline],
        *,
        boot: bytes,
        runtimes: Mapping[str, RuntimeInfo],
        profiles: Mapping[str, TierProfile] | None = None,
        make_planner: MakePlanner | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._served = ServedPipelines(pipelines, runtimes)
        self.profiles = dict(profiles or {})
        self._admission = Admission(self._served, boot)
        self._boot = boot
        self.limits = limits = limits or Limits()
        self._max_frame_bytes = min(
            limits.max_frame_bytes, limits.max_bytes_in_flight, limits.max_bytes_in_flight_per_name
        )
        self._peers = Peers(limits)
        self._requests = Quota(limits.requests_per_s, limits.burst_s, limits.max_peers)
        self._hellos = Quota(limits.hellos_per_s, limits.burst_s, limits.max_peers)
        self._probes = Quota(limits.probes_per_s, limits.burst_s, limits.max_peers)
        self._load = Load(limits)
        self._flights: dict[Key, _Flight] = {}
        self._answers = Answers(limits.max_answers, limits.max_answer_bytes)
        self._job_s = 0.01
        self.counters = EdgeCounters()
        self._planners = DevicePlanners(make_planner, self._served, self.profiles, self.counters)

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """Those that are served, by digest."""
        return self._served.by_digest

    @property
    def max_frame_bytes(self) -> int:
        """The largest frame that is accepted."""
        return self._max_frame_bytes

    @property
    def in_flight(self) -> int:
        """Jobs that were asked to run and have not completed."""
        return len(self._flights)

    def receive(self, frame: bytes | memoryview, peer: str, now_s: float, reply_to: Any = None) -> list[EdgeEffect]:
        """A frame came from a device: `read` it, and `handle` what stands in it."""
        return self.handle(self.read(frame), peer, now_s, reply_to)

    def read(self, frame: bytes | memoryview) -> Received:
        """Read a frame. No state is looked at, so no lock need be held; the time is linear in the frame's bytes."""
        return read_frame(frame, self._max_frame_bytes)

    @staticmethod
    def reads_quickly(frame: bytes | memoryview) -> bool:
        """Whether `read` takes about a millisecond at most: of a probe nearly all is padding, which nobody looks at."""
        return len(frame) <= QUICK_BYTES or frame[3:4] == _PROBE

    def handle(self, received: Received, peer: str, now_s: float, reply_to: Any = None) -> list[EdgeEffect]:
        """Do what a frame asks for.

        Parameters
        ----------
        received : Received
            What `read` gave.
        peer : str
            The device's identity, from its credential.
        now_s : float
            When the last byte was there.
        reply_to : object, optional
            Comes back in the `Send` that answers this frame.

        Returns
        -------
        list of Send, RunPart or ForgetState
            Nothing for a duplicate of a request in flight: `complete` answers all who wait.
        """
        message = received.message
        if message is None:
            return [self._unfit(peer, reply_to, wire.NOBODY, 0, received.refusal, now_s)]
        if isinstance(message, wire.Request):
            return self._on_request(message, received, peer, now_s, reply_to)
        if isinstance(message, wire.Hello):
            return self._on_hello(message, peer, reply_to, now_s)
        if isinstance(message, wire.Probe):
            return [self._on_probe(message, received.padding, peer, reply_to, now_s)]
        reason = f"a device does not send a {type(message).__name__}"
        return [self._unfit(peer, reply_to, message.boot, message.sequence, reason, now_s)]

    def complete(
        self,
        job: Job,
        result: wire.Packed | Payload | Exception,
        now_s: float,
        times: EdgeTimes | None = None,
        *,
        state_kept: bool = False,
    ) -> list[EdgeEffect]:
        """A `RunPart` ended: answer everybody who waits for it.

        Parameters
        ----------
        job : Job
        result : Packed, payload or Exception
            What the part gave (packed already, if the owner wants to time that; maybe `DROP`), or what it raised.
        now_s : float
        times : EdgeTimes, optional
            Where the time went; `residence_s` is filled in here.
        state_kept : bool
            It ran as far as it raised, and what the steps remember is sound: a stateful pipeline goes on.
        """
        if result is DROP:
            result = Dropped("a task on the edge dropped the frame")
        flight = self._flights.pop(job.key, None)
        if flight is None:
            return []
        name, boot, sequence = job.key
        self._load.remove(name, flight.nbytes)
        peer = self._peers.get(name, boot)
        effects: list[EdgeEffect] = []
        if peer is not None and job.owner in (None, peer.owner):
            peer.running.discard(job.digest)
            failed = isinstance(result, Exception) and not isinstance(result, Dropped)
            held = peer.held.get(job.digest)
            if held is not None and job.owner is not None:
                if not failed or state_kept:
                    held.begun = True
                elif job.pipeline.stateful:
                    held.order = None  # it may not have run: what follows must not be taken for the next one
        elif job.owner is not None:
            effects.append(ForgetState(job.digest, job.owner))
        times = times or EdgeTimes()
        self._job_s += 0.2 * (times.compute_s - self._job_s)
        residence_s = now_s - job.received_s
        stamped = msgspec.structs.replace(times, residence_s=residence_s)
        try:
            frame = self._reply_frame(job, flight.request, peer, result, now_s, stamped)
        except Exception as error:  # whatever it is, those who wait must hear of it
            frame = self._error_frame(boot, sequence, error, stamped)
        self._remember(job.key, flight.fingerprint, frame)
        return [*effects, *(Send(frame, name, reply_to) for reply_to in flight.waiting)]

    # inside

    def _reply_frame(
        self,
        job: Job,
        request: wire.Request,
        peer: Peer | None,
        result: wire.Packed | Payload | Exception,
        now_s: float,
        times: EdgeTimes,
    ) -> bytes:
        if isinstance(result, Exception):
            raise result
        packed = result if isinstance(result, wire.Packed) else None
        if packed is None:
            packed = wire.pack(result if job.pipeline.sink == "device" else None)
        if packed.nbytes > wire.MAX_FRAME_BYTES - 2**20:  # a header is at most 1 MiB
            raise LocalProtocolError(f"the result takes {packed.nbytes} bytes, too many for one frame")
        _, boot, sequence = job.key
        reply = wire.Reply(
            boot=boot,
            sequence=sequence,
            edge_boot=self._boot,
            times=times,
            names=packed.names,
            payload=packed.payload,
            arrays=packed.arrays,
            next=self._planners.propose(peer, request, now_s),
            hello=self._planners.planning and peer is not None and not peer.greeted,
            runtime=self._served.runtime(job.digest),
        )
        return wire.encode(reply, packed.buffers)

    def _error_frame(self, boot: bytes, sequence: int, error: Exception, times: EdgeTimes) -> bytes:
        if isinstance(error, Dropped):
            self.counters.dropped += 1
            return self._failure_frame(boot, sequence, ErrorCode.DROPPED, str(error), times)
        self.counters.failures += 1
        code = ErrorCode.FAILED
        if isinstance(error, DeadlineExceeded):
            code = ErrorCode.LATE
        elif isinstance(error, StateLost):
            code = ErrorCode.STATE_LOST
        reason = with_notes(f"{type(error).__name__}: {error}", error)
        return self._failure_frame(boot, sequence, code, reason, times)

    def _unfit(self, name: str, reply_to: Any, boot: bytes, sequence: int, reason: str, now_s: float) -> Send:
        """Something came that no device sends."""
        self.counters.bad_frames += 1
        if wait_s := self._requests.wait_s(name, now_s):
            return self._busy(boot, sequence, name, reply_to, wait_s)
        return self._failure(name, reply_to, boot, sequence, ErrorCode.BAD_FRAME, reason)

    def _on_probe(self, probe: wire.Probe, padding: int, name: str, reply_to: Any, now_s: float) -> Send:
        if wait_s := self._probes.wait_s(name, now_s):
            return self._busy(probe.boot, probe.sequence, name, reply_to, wait_s)
        self._peers.heard(name, probe.boot, now_s)
        # no more comes back than was sent: else who sends little in another's name could drown it
        pad = max(0, min(probe.echo_bytes, padding, _ECHO_BYTES))
        # the answer leaves at once: its residence is below what a clock reading here could tell
        echo = wire.Echo(boot=probe.boot, sequence=probe.sequence, edge_boot=self._boot)
        return Send(wire.encode(echo, (bytes(pad),) if pad else ()), name, reply_to)

    def _on_request(
        self, request: wire.Request, received: Received, name: str, now_s: float, reply_to: Any
    ) -> list[EdgeEffect]:
        self.counters.requests += 1
        if wait_s := self._requests.wait_s(name, now_s):
            return [self._busy(request.boot, request.sequence, name, reply_to, wait_s)]
        fingerprint, nbytes = received.fingerprint, received.nbytes
        key = (name, request.boot, request.sequence)
        known = self._answers.get(key) or self._flights.get(key)
        if known is not None:
            self._peers.heard(name, request.boot, now_s)
            self.counters.duplicates += 1
            if known.fingerprint != fingerprint:
                self.counters.failures += 1
                reason = (
                    "another request has this id: two processes act as one device, perhaps since one was forked; "
                    "each must make a Device of its own"
                )
                code = ErrorCode.DUPLICATE_ID
                return [self._failure(name, reply_to, request.boot, request.sequence, code, reason)]
            if isinstance(known, Answer):
                return [Send(known.frame, name, reply_to)]
            if len(known.waiting) >= _WAITING:
                return [self._busy(request.boot, request.sequence, name, reply_to)]
            known.waiting.append(reply_to)
            return []
        peer, effects = self._peers.at(name, request.boot, now_s)
        if peer is None:
            return [*effects, self._full(request, name, reply_to)]
        self._planners.learn(peer, request, now_s)
        digest = request.digest.hex()
        pipeline = self.pipelines.get(digest)
        full = not self._load.has_room(name, nbytes)
        if pipeline is not None and (full or self._runs(name, request.boot, digest, pipeline)):
            return [*effects, self._busy(request.boot, request.sequence, name, reply_to)]
        try:
            job = self._admission.job(request, received, key, peer, pipeline, now_s)
        except Refused as refused:
            self.counters.failures += 1
            failure = self._failure(name, reply_to, request.boot, request.sequence, refused.code, str(refused))
            return [*effects, failure]
        self._flights[key] = _Flight(request, fingerprint, [reply_to], nbytes, digest, job.owner is not None)
        self._load.add(name, nbytes)
        return [*effects, RunPart(job)]

    def _runs(self, name: str, boot: bytes, digest: str, pipeline: Pipeline | None) -> bool:
        """Whether a state of this device is in use; the peer may have been forgotten meanwhile, and be back."""
        if pipeline is None or not pipeline.remembers:
            return False
        return any(key[:2] == (name, boot) and f.digest == digest and f.remembers for key, f in self._flights.items())

    def _busy(self, boot: bytes, sequence: int, name: str, reply_to: Any, wait_s: float = 0.0) -> Send:
        self.counters.busy += 1
        retry_s = max(0.005, wait_s or self._job_s * len(self._flights))
        busy = wire.Busy(boot=boot, sequence=sequence, edge_boot=self._boot, retry_after_s=retry_s)
        return Send(wire.encode(busy), name, reply_to)

    def _full(self, message: wire.Request | wire.Hello, name: str, reply_to: Any) -> Send:
        """There is no place for one more device."""
        self.counters.full += 1
        return self._busy(message.boot, message.sequence, name, reply_to, _FULL_S)

    def _on_hello(self, hello: wire.Hello, name: str, reply_to: Any, now_s: float) -> list[EdgeEffect]:
        profiles = [self.profiles[digest] for digest in _each(hello.want_profiles) if digest in self.profiles]
        if wait_s := self._hellos.wait_s(name, now_s, 1 + len(profiles)):
            return [self._busy(hello.boot, hello.sequence, name, reply_to, wait_s)]
        peer, effects = self._peers.at(name, hello.boot, now_s)
        if peer is None:
            return [*effects, self._full(hello, name, reply_to)]
        peer.greeted = True
        ours: list[wire.PipelineHello] = []
        want: list[bytes] = []
        asked = {theirs.digest: theirs for theirs in hello.pipelines}  # each is told of once, however often it is named
        for theirs in asked.values():
            digest = theirs.digest.hex()
            pipeline = self.pipelines.get(digest)
            if pipeline is None:
                continue
            runtime = self._served.runtimes.get(digest)
            ours.append(
                wire.PipelineHello(
                    digest=theirs.digest,
                    n=pipeline.n,
                    sink=theirs.sink,
                    stateful=pipeline.stateful,
                    runtime=None if runtime is None else astuple(runtime),
                    implementation=pipeline.implementation,
                )
            )
            if self._planners.add(peer, theirs, pipeline, hello.profiles):
                want.append(theirs.digest)
        welcome = wire.Welcome(
            boot=hello.boot,
            sequence=hello.sequence,
            edge_boot=self._boot,
            pipelines=tuple(ours),
            profiles=tuple(profile.to_dict() for profile in profiles),
            want_profiles=tuple(want),
            max_frame_bytes=self._max_frame_bytes,
        )
        try:
            return [*effects, Send(wire.encode(welcome), name, reply_to)]
        except LocalProtocolError as error:
            reason = f"{len(ours)} pipelines and {len(profiles)} profiles do not fit in one answer: {error}"
            return [*effects, self._failure(name, reply_to, hello.boot, hello.sequence, ErrorCode.FAILED, reason)]

    def _remember(self, key: Key, fingerprint: int, frame: bytes) -> None:
        for name, boot, sequence in self._answers.add(key, Answer(fingerprint, frame)):
            peer = self._peers.get(name, boot)
            if peer is not None:
                peer.forgot = max(peer.forgot, sequence)

    def _failure_frame(
        self, boot: bytes, sequence: int, code: str, reason: str, times: EdgeTimes | None = None
    ) -> bytes:
        return wire.encode(
            wire.Failure(
                boot=boot,
                sequence=sequence,
                edge_boot=self._boot,
                code=code,
                message=reason[:1000].encode("utf-8", "backslashreplace").decode(),  # an error may hold any text
                times=times or EdgeTimes(),
            )
        )

    def _failure(self, peer: str, reply_to: Any, boot: bytes, sequence: int, code: str, reason: str) -> Send:
        return Send(self._failure_frame(boot, sequence, code, reason), peer, reply_to)


def _each(digests: Iterable[bytes]) -> Iterable[str]:
    """Each digest once, as this side writes it."""
    return dict.fromkeys(digest.hex() for digest in digests)
