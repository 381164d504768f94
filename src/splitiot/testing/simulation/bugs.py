"""Bugs to plant in the library, one at a time: they show that a simulation would notice.

None of them is in the code: each changes one method of it for as long as a ``with`` block lasts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from attrs import evolve, frozen

from splitiot import wire
from splitiot.device._core import Core
from splitiot.device._inbox import Inbox
from splitiot.device._planning import Planning
from splitiot.errors import EdgeUnavailable, ProtocolError
from splitiot.estimators.deduplicator import ObservationDeduplicator
from splitiot.pipeline import DROP, Pipeline
from splitiot.runner import Runner
from splitiot.session import Arrival, DeviceSession, EdgeSession, Job, RequestDone, RunLocal, Send
from splitiot.session import _breaker as breaker
from splitiot.session import _peers as peers
from splitiot.session._admission import Admission
from splitiot.session._answers import Answers
from splitiot.session._budget import RetryBudget
from splitiot.session._edge_health import EdgeHealth
from splitiot.session._handshake import Handshake
from splitiot.session._load import Load
from splitiot.session._peers import Peers
from splitiot.session._requests import PendingRequests
from splitiot.session._states import Event
from splitiot.session._trial import Trial

__all__ = ["BUGS", "Bug"]

Change = Callable[[Any], Any]


@frozen
class Bug:
    """A bug that can be planted.

    Parameters
    ----------
    name : str
    description : str
        What is wrong then.
    patches : tuple of (object, str, callable)
        Whose attribute is changed, and what makes the new one of the old one.
    """

    name: str
    description: str
    patches: tuple[tuple[Any, str, Change], ...]

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug within a ``with`` block."""
        before = [(owner, name, owner.__dict__[name]) for owner, name, _ in self.patches]
        try:
            for owner, name, change in self.patches:
                setattr(owner, name, change(owner.__dict__[name]))
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


def _constant(value: Any) -> Change:
    return lambda old: value


def _always(value: Any) -> Change:
    return lambda old: lambda *args, **kwargs: value


def _never(old: Any) -> property:
    return property(lambda self: math.inf)


# --- the device's half -------------------------------------------------------------------------------------


def _ends_twice(old: Any) -> Any:
    def end(self: PendingRequests, *args: Any, **kwargs: Any) -> Any:
        effects = old(self, *args, **kwargs)
        return [*effects, *(effect for effect in effects if isinstance(effect, RequestDone))]

    return end


def _late_answer_overwrites(old: Any) -> Any:
    def on_reply(self: Any, reply: Any, buffers: Any, nbytes: int, now_s: float, *more: Any) -> Any:
        known = self._requests.ended.get(reply.sequence)
        effects = old(self, reply, buffers, nbytes, now_s, *more)
        if known is not None:
            outcome = _outcome(known, now_s)
            effects = [*effects, RequestDone(reply.sequence, outcome)]
        return effects

    return on_reply


def _outcome(known: Any, now_s: float) -> Any:
    from splitiot.plan import Outcome

    return Outcome(value=None, error=None, source="edge", plan=known.plan, latency_s=now_s - known.begun_s)


def _ignoring(event: Event) -> Change:
    def change(old: Any) -> Any:
        def transition(self: Any, pending: Any, what: Event, *args: Any) -> Any:
            if what is event:
                pending.again_s = math.inf
                if event is Event.HEDGE:
                    pending.hedge_s = math.inf
                return []
            return old(self, pending, what, *args)

        return transition

    return change


def _gives_up(event: Event) -> Change:
    def change(old: Any) -> Any:
        def transition(self: Any, pending: Any, what: Event, now_s: float, error: Any = None) -> Any:
            if what is event and not pending.local:
                return self.end(pending, None, error or EdgeUnavailable("a planted bug"), "none", now_s)
            return old(self, pending, what, now_s, error)

        return transition

    return change


def _accepts_any_boot(old: Any) -> Any:
    def receive(self: Any, frame: bytes, *when: Any) -> Any:
        try:
            message, buffers = wire.decode(frame)
        except ProtocolError:
            return old(self, frame, *when)
        renamed = msgspec.structs.replace(message, boot=self._boot)
        return old(self, wire.encode(renamed, list(map(bytes, buffers))), *when)

    return receive


def _trusts_frames(old: Any) -> Any:
    def receive(self: Any, frame: bytes, *when: Any) -> Any:
        wire.decode(frame)
        return old(self, frame, *when)

    return receive


def _give(pending: Any, payload: Any) -> None:
    pending.content = msgspec.structs.replace(pending.content, payload=payload)


def _shares_payloads(old: Any) -> Any:
    def submit(self: Any, plan: Any, payload: Any, **kwargs: Any) -> Any:
        result = old(self, plan, payload, **kwargs)
        for pending in self._requests.pending.values():
            _give(pending, payload)
        return result

    return submit


def _drops_payloads(old: Any) -> Any:
    def submit(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = old(self, *args, **kwargs)
        for pending in self._requests.pending.values():
            if not pending.local:
                _give(pending, None)
        return result

    return submit


def _counts_from_sending(old: Any) -> Any:
    def submit(self: Any, *args: Any, now_s: float, deadline_s: float, begun_s: float, **kwargs: Any) -> Any:
        return old(self, *args, now_s=now_s, deadline_s=deadline_s + now_s - begun_s, begun_s=begun_s, **kwargs)

    return submit


def _forgets_the_head(old: Any) -> Any:
    def submit(self: Any, *args: Any, now_s: float, begun_s: float, **kwargs: Any) -> Any:
        return old(self, *args, now_s=now_s, begun_s=now_s, **kwargs)

    return submit


def _gives_late_values(old: Any) -> Any:
    def done(self: Any, sequence: int, *args: Any, **kwargs: Any) -> Any:
        if sequence in self._requests.pending:
            self._requests.pending[sequence].deadline_s = math.inf
        return old(self, sequence, *args, **kwargs)

    return done


def _remembers_all_ended(old: Any) -> Any:
    def retire(self: Any, pending: Any) -> Any:
        most, self.most = self.most, 10**9
        try:
            return old(self, pending)
        finally:
            self.most = most

    return retire


def _sends_twice(old: Any) -> Any:
    def again(self: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * old(self, *args, **kwargs)

    return again


def _with_new_id(old: Any) -> Any:
    def again(self: Any, pending: Any, *args: Any, **kwargs: Any) -> Any:
        effects = old(self, pending, *args, **kwargs)
        if not effects:
            return effects
        sequence = self._health._handshake._number()
        self.pending[sequence] = self.pending.pop(pending.sequence)
        pending.sequence = sequence
        message, _ = wire.decode(effects[0].frame)
        message = msgspec.structs.replace(message, sequence=sequence)
        pending.content = msgspec.structs.replace(pending.content, message=message)
        return [Send(wire.encode(message, pending.content.buffers)) for _ in effects]

    return again


def _half(old: Any) -> Any:
    def finish_s(self: Planning, cut: int) -> float | None:
        seconds = old(self, cut)
        return None if seconds is None else seconds / 2

    return finish_s


def _without_lane(old: Any) -> Any:
    return lambda self, request, head, queued_head_s=0.0: old(self, request, head)


def _drop_is_a_value(old: Any) -> Any:
    def finish(self: Core, effect: RunLocal) -> Any:
        rest = old(self, effect)
        return rest._replace(result=effect.payload) if rest.result is DROP else rest

    return finish


def _reset_not_told(old: Any) -> Any:
    def reset(self: Any) -> None:
        epoch = self._remote_state.epoch
        old(self)
        self._remote_state.epoch = epoch

    return reset


def _timed_when_read(old: Any) -> Any:
    def read(self: Inbox, timeout_s: float) -> Any:
        received = old(self, timeout_s)
        return None if received is None else evolve(received, arrival=Arrival(self._clock()))

    return read


def _judged_unread(old: Any) -> Any:
    def handle_all(self: Core, received: Any) -> None:
        self.pump(self.session.tick(self.clock()))
        old(self, received)

    return handle_all


# --- the edge's half ---------------------------------------------------------------------------------------


def _edge_trusts(old: Any) -> Any:
    def receive(self: Any, frame: bytes, *args: Any) -> Any:
        wire.decode(frame)
        return old(self, frame, *args)

    return receive


def _runs_duplicates(old: Any) -> Any:
    def on_request(self: Any, request: Any, received: Any, name: str, *args: Any) -> Any:
        self._flights.pop((name, request.boot, request.sequence), None)
        return old(self, request, received, name, *args)

    return on_request


def _busy_for_long(old: Any) -> Any:
    def busy(self: Any, retry_after_s: float, now_s: float) -> None:
        old(self, retry_after_s, now_s)
        if retry_after_s > 0:
            self._busy_until_s = now_s + min(retry_after_s, 60.0)

    return busy


def _begins_anew(old: Any) -> Any:
    def claimed(self: Any, request: Any, peer: Any, pipeline: Pipeline) -> Any:
        return old(self, msgspec.structs.replace(request, holder=b""), peer, pipeline)

    return claimed


def _pushes_out(old: Any) -> Any:
    def at(self: Peers, name: str, boot: bytes, now_s: float) -> Any:
        dropped = []
        while len(self._peers) >= self._most and (name, boot) not in self._peers:
            dropped += self._drop(*next(iter(self._peers)))
        peer, silent = old(self, name, boot, now_s)
        return peer, [*dropped, *silent]

    return at


def _as(**changes: Any) -> Change:
    def change(old: Any) -> Any:
        def job(self: Any, request: Any, *args: Any) -> Any:
            return msgspec.structs.replace(old(self, request, *args), **changes)

        return job

    return change


def _inexact_will_do(old: Any) -> Any:
    def on_request(self: Any, request: Any, *args: Any) -> Any:
        return old(self, msgspec.structs.replace(request, runtime=b""), *args)

    return on_request


def _one_step_short(old: Any) -> Any:
    def job(self: Any, request: Any, *args: Any) -> Job:
        right: Job = old(self, request, *args)
        return msgspec.structs.replace(right, start=right.start + 1) if right.start + 1 < right.stop else right

    return job


def _without_limit(name: str) -> Change:
    def change(old: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            most = getattr(self, name)
            setattr(self, name, 10**9)
            try:
                return old(self, *args, **kwargs)
            finally:
                setattr(self, name, most)

        return method

    return change


def _everyones_state(old: Any) -> Any:
    return lambda self, key, payload, owner: old(self, key, payload, "everyone")


def _one_for_all_boots(old: Any) -> Any:
    return lambda name, boot, number: old(name, b"", 0)


def _never_reset(old: Any) -> Any:
    return lambda self, owner=None: None


def _takes_again(old: Any) -> Any:
    def take(self: ObservationDeduplicator, observation: Any) -> int:
        self._taken.clear()
        return int(old(self, observation))

    return take


def _answers_the_last(old: Any) -> Any:
    def complete(self: Any, job: Job, *args: Any) -> Any:
        effects = old(self, job, *args)
        last = getattr(self, "_last_to", None)
        for effect in effects:
            if isinstance(effect, Send):
                self._last_to = effect.reply_to
        return [
            msgspec.structs.replace(e, reply_to=last) if isinstance(e, Send) and last is not None else e
            for e in effects
        ]

    return complete


def _mixes_answers(old: Any) -> Any:
    def remember(self: Any, key: Any, fingerprint: int, frame: bytes) -> None:
        old(self, key, fingerprint, frame)
        for (name, boot), kept in self._answers._answers.items():
            for sequence, other in kept.items():
                if (boot, sequence) == key[1:] or name != key[0]:
                    continue
                message, buffers = wire.decode(frame)
                mixed = wire.encode(
                    msgspec.structs.replace(message, boot=boot, sequence=sequence), list(map(bytes, buffers))
                )
                kept[sequence] = msgspec.structs.replace(other, frame=mixed)

    return remember


def _bug(
    name: str, description: str, owner: Any, attribute: str, change: Change, *more: tuple[Any, str, Change]
) -> Bug:
    return Bug(name, description, ((owner, attribute, change), *more))


BUGS: Final[tuple[Bug, ...]] = (
    _bug("ends-twice", "a request has two outcomes", PendingRequests, "end", _ends_twice),
    _bug(
        "late-overwrites",
        "a late answer takes the place of the outcome",
        DeviceSession,
        "_on_reply",
        _late_answer_overwrites,
    ),
    _bug("hedge-never", "no local finish before the deadline", PendingRequests, "transition", _ignoring(Event.HEDGE)),
    _bug("hedge-late", "a local finish is thought to take half as long", Planning, "finish_s", _half),
    _bug("lane-ignored", "the wait for the lane is not reckoned with", Core, "submit", _without_lane),
    _bug("busy-ends", "an edge that is busy ends the request", PendingRequests, "transition", _gives_up(Event.BUSY)),
    _bug("loss-ends", "a frame that was lost ends the request", PendingRequests, "transition", _gives_up(Event.LOST)),
    _bug("boot-ignored", "answers to another boot are taken", DeviceSession, "receive", _accepts_any_boot),
    _bug("frames-trusted", "garbage raises on the device", DeviceSession, "receive", _trusts_frames),
    _bug("edge-trusts", "garbage raises on the edge", EdgeSession, "receive", _edge_trusts),
    _bug("payload-shared", "a request takes over another's payload", DeviceSession, "submit", _shares_payloads),
    _bug("payload-dropped", "the payload is not kept", DeviceSession, "submit", _drops_payloads),
    _bug("deadline-moves", "the deadline counts from sending", DeviceSession, "submit", _counts_from_sending),
    _bug("latency-short", "the latency counts from sending", DeviceSession, "submit", _forgets_the_head),
    _bug("late-value", "a local finish is never too late", DeviceSession, "local_done", _gives_late_values),
    _bug("ended-unbounded", "all requests are remembered", PendingRequests, "_retire", _remembers_all_ended),
    _bug("exact-always", "all results are said to be exact", Handshake, "exact_from", _always(True)),
    _bug("retry-unbounded", "retries have no budget", RetryBudget, "left", lambda old: property(lambda self: True)),
    _bug("retry-twice", "each retry is sent twice", PendingRequests, "_send_again", _sends_twice),
    _bug("retry-new-id", "a retry is another request", PendingRequests, "_send_again", _with_new_id),
    _bug("lease-never-ends", "a hello without an answer is waited for", Trial, "ends_s", _never),
    _bug("breaker-cap", "the breaker's waits double up to a minute", breaker, "CAP_S", _constant(60.0)),
    _bug("breaker-stays", "the breaker stays open", EdgeHealth, "welcomed", _always([])),
    _bug("drop-is-a-value", "a dropped frame has a value", Core, "finish", _drop_is_a_value),
    _bug("reset-not-told", "the edge is not told of a reset", DeviceSession, "reset", _reset_not_told),
    _bug("stateful-hedged", "what remembers is finished here", Pipeline, "remembers_from", _always(False)),
    _bug("answers-forgotten", "answers are not remembered", EdgeSession, "_remember", _always(None)),
    _bug("answers-mixed", "remembered answers are another request's", EdgeSession, "_remember", _mixes_answers),
    _bug("answers-last", "an answer goes to who was answered before", EdgeSession, "complete", _answers_the_last),
    _bug("flights-doubled", "a duplicate of what runs is run, too", EdgeSession, "_on_request", _runs_duplicates),
    _bug("beside", "a state is used by two requests at once", EdgeSession, "_runs", _always(False)),
    _bug("order-unchecked", "requests that remember come in any order", Admission, "_check_order", _always(None)),
    _bug("reset-ignored", "the edge keeps the state at a reset", Admission, "job", _as(reset=False)),
    _bug("late-runs", "the edge runs what nobody waits for any more", Job, "late", _always(None)),
    _bug("inexact-will-do", "exact results are not insisted on", EdgeSession, "_on_request", _inexact_will_do),
    _bug("one-step-short", "the tail begins one step too late", Admission, "job", _one_step_short),
    _bug("answers-unbounded", "all answers are kept", Answers, "add", _without_limit("_most")),
    _bug("flights-unbounded", "the edge takes all", Load, "has_room", _always(True)),
    _bug("peers-unbounded", "all peers are kept", Peers, "at", _without_limit("_most")),
    _bug("peers-pushed", "a new device takes the place of another", Peers, "at", _pushes_out),
    _bug("holder-ignored", "a state that was lost begins anew", Admission, "_claimed", _begins_anew),
    _bug("state-shared", "all devices have one state", Runner, "_run_stateful", _everyones_state),
    _bug("boots-share", "all boots of a name share a state", peers, "Owner", _one_for_all_boots),
    _bug("never-reset", "runners keep the state at a reset", Runner, "reset", _never_reset),
    _bug("busy-long", "a busy edge is left alone for a minute", EdgeHealth, "busy", _busy_for_long),
    _bug("timed-when-read", "a frame's time is when it was read", Inbox, "_read", _timed_when_read),
    _bug("judged-unread", "time is judged before what waits is read", Core, "handle_all", _judged_unread),
    _bug("counted-twice", "observations are counted each time", ObservationDeduplicator, "take", _takes_again),
)
"""All bugs, told apart by name."""
