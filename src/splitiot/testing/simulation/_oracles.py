"""What must be true whatever goes wrong: models beside the real thing that know the right answer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from splitiot import wire
from splitiot.errors import ProtocolError
from splitiot.estimators import JointEstimator, TierEstimator
from splitiot.estimators.link import LinkEstimator
from splitiot.limits import Limits
from splitiot.observation import Observation
from splitiot.pipeline import Tier
from splitiot.session import ForgetState, Job
from splitiot.session._answers import Key
from splitiot.testing.simulation._work import Memory, Work, flavoured, same, value_of
from splitiot.topology import Link, TierProfile

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = ["HOSTILE", "CountingEstimator", "EdgeMemory", "message_in", "short"]

HOSTILE = "hostile"
_HELLO, _REQUEST, _REPLY, _PROBE = 1, 3, 4, 8

Whose = tuple[str, bytes]
"""A name and a boot."""


@functools.lru_cache(maxsize=64)
def message_in(frame: bytes, kind: int) -> Any:
    """Return the message in a frame if it is of this kind, None otherwise."""
    if len(frame) < 16 or frame[3] != kind:
        return None
    try:
        return wire.decode(frame)[0]
    except ProtocolError:
        return None


class EdgeMemory:
    """Knows what one life of an edge was asked, has run and has answered; and what that must have given."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._works: dict[str, Work] = {}
        self.start(0, Limits())

    def start(self, flavour: int, limits: Limits) -> None:
        """Another edge, which knows nothing."""
        self.flavour = flavour
        self._max_answers = limits.max_answers
        self._ttl_s = limits.ttl_s
        self._heard_s: dict[Whose, float] = {}
        self._was_silent_s: dict[Whose, float] = {}  # before it was heard of last
        self._heard_expires_s: float | None = None
        self._heard_epoch = 0
        self._epochs: dict[Key, int] = {}
        self._expires_s: dict[Key, float | None] = {}
        self._answers: dict[Key, bytes] = {}
        self._completed: dict[Key, int] = {}
        self._counts: dict[Whose, int] = {}
        self._running: dict[tuple[str, Hashable], Key] = {}
        self._memories: dict[tuple[str, Whose], tuple[int, Memory]] = {}

    def serve(self, works: Sequence[Work]) -> None:
        """Know what is served."""
        self._works = {work.pipeline.digest: work for work in works}

    def heard(self, name: str, frame: bytes, now_s: float) -> None:
        """A frame came."""
        self._heard_expires_s, self._heard_epoch = None, 0
        self._note_heard(name, frame, now_s)
        request = message_in(frame, _REQUEST)
        if request is not None:
            self._heard_epoch = request.epoch
            if request.deadline_s is not None:
                self._heard_expires_s = now_s + request.deadline_s

    def _note_heard(self, name: str, frame: bytes, now_s: float) -> None:
        for kind in (_HELLO, _REQUEST, _PROBE):
            message = message_in(frame, kind)
            if message is None:
                continue
            whose = name, message.boot
            silent_s = now_s - self._heard_s.get(whose, -math.inf)
            self._was_silent_s[whose] = silent_s
            if silent_s > self._ttl_s:  # it is forgotten, and a probe changes nothing about that
                for key in [key for key in self._expires_s if key[:2] == whose]:
                    del self._expires_s[key]
            if silent_s <= self._ttl_s or kind != _PROBE:
                self._heard_s[whose] = now_s

    def accepted(self, job: Job, now_s: float) -> None:
        """The session wants a job to run."""
        key = job.key
        again = key in self._expires_s
        if again and (job.owner is not None or job.pipeline.sink == "edge" or not self._forgotten(key)):
            self._world.violated("executed twice", f"the edge runs {_id(key)} once more", key[0])
        self._expires_s[key] = self._heard_expires_s
        self._answers.pop(key, None)
        self._epochs[key] = self._heard_epoch
        if job.owner is not None:
            other = self._running.get((job.digest, job.key[:2]))
            if other is not None:
                self._world.violated("two at once", f"{_id(key)} runs beside {_id(other)} on one state", key[0])
            self._running[job.digest, job.key[:2]] = key

    def _forgotten(self, key: Key) -> bool:
        """Whether so many jobs of this boot have ended since that it had more than its share of the answers."""
        names = {name for name, _ in self._counts}
        boots = sum(name == key[0] for name, _ in self._counts)
        share: int = max(1, (self._max_answers + 1) // (len(names) * boots))
        count = self._counts.get(key[:2], 0)
        return count - self._completed.get(key, count) >= share - 1

    def ran(self, job: Job, now_s: float) -> None:
        """A job begins to run."""
        expires_s = self._expires_s.get(job.key)
        if expires_s is not None and now_s >= expires_s:
            self._world.violated("ran late", f"the edge runs {_id(job.key)}, whose deadline is over", job.key[0])

    def gave(self, job: Job, result: Any) -> None:
        """A job gave this."""
        work = self._works[job.digest]
        if not isinstance(job.payload, tuple) or job.key[0] == HOSTILE:
            return
        salt, number, trap = job.payload[:3]
        head = work.result(value_of(salt, number, trap), stop=job.start) if _plain_head(work, job.start) else None
        if head is not None and not same(head, job.payload):
            self._world.violated(
                "payload changed", f"another payload than {_id(job.key)}'s reached the edge", job.key[0]
            )
        if isinstance(result, Exception):
            return
        memory = None
        if work.memory_at is not None and job.start <= work.memory_at:
            if job.owner is None:
                self._world.violated("no owner", f"nobody's state was used for {_id(job.key)}", job.key[0])
                return
            where, epoch = (job.digest, job.key[:2]), self._epochs[job.key]
            known, memory = self._memories.get(where, (-1, None))
            if memory is None or epoch > known:
                memory = Memory()
            self._memories[where] = epoch, memory
        expected = work.result(job.payload, memory, start=job.start)
        expected = flavoured(expected, self.flavour if job.stop > job.start else 0)
        if not same(expected, result):
            self._world.violated("wrong on the edge", f"{_id(job.key)} gave {result!r:.60}", job.key[0])
        flavour = self.flavour if job.stop > job.start else 0
        self._world.given.setdefault(job.key[1:], []).append((expected, flavour, memory))

    def answered(self, frame: bytes, name: str) -> None:
        """The session answers."""
        reply = message_in(frame, _REPLY)
        if reply is None:
            return
        key = (name, reply.boot, reply.sequence)
        if self._answers.setdefault(key, frame) != frame:
            self._world.violated("two answers", f"{_id(key)} is answered in two ways", name)

    def completed(self, job: Job) -> None:
        """A job has ended."""
        count = self._counts[job.key[:2]] = self._counts.get(job.key[:2], 0) + 1
        self._completed[job.key] = count
        if job.owner is not None:
            self._running.pop((job.digest, job.key[:2]), None)

    def forgot(self, effect: ForgetState, now_s: float) -> None:
        """The session wants a state to be dropped."""
        owner: Any = effect.owner
        whose = owner[0], owner[1]
        self._memories.pop((effect.digest, whose), None)
        silent_s = now_s - self._heard_s.get(whose, -math.inf)
        if max(silent_s, self._was_silent_s.get(whose, math.inf)) <= self._ttl_s:
            detail = f"the state of {owner[0]} is dropped, which was heard of {silent_s:.3f} s ago"
            self._world.violated("forgotten too early", detail, owner[0])


def _plain_head(work: Work, cut: int) -> bool:
    return work.memory_at is None or work.memory_at >= cut


def _id(key: Key) -> str:
    name, boot, sequence = key
    return f"request {sequence} of {name} (boot {short(boot)})"


def short(boot: bytes) -> int:
    """A boot in a few digits."""
    return int.from_bytes(boot, "little") % 10000


class _CountedTier(TierEstimator):
    __slots__ = ("tell",)
    tell: Callable[[Observation], None]

    def update(self, observation: Observation, now_s: float) -> None:
        self.tell(observation)
        super().update(observation, now_s)


class _CountedLink(LinkEstimator):
    __slots__ = ("tell",)
    tell: Callable[[Observation], None]

    def update(self, observation: Observation, now_s: float, *more: Any) -> None:
        self.tell(observation)
        super().update(observation, now_s, *more)


class CountingEstimator(JointEstimator):
    """Estimators that notice when a measurement is counted twice.

    Parameters
    ----------
    world : World
    whose : str
    profiles, link
        See `JointEstimator`.
    """

    __slots__ = ("_taken", "_whose", "_world")

    def __init__(self, world: World, whose: str, profiles: Sequence[TierProfile], link: Link) -> None:
        super().__init__(profiles, link)
        self._world, self._whose = world, whose
        self._taken: set[tuple[str, int]] = set()
        device, edge = _CountedTier(profiles[0], Tier.DEVICE), _CountedTier(profiles[1], Tier.EDGE)
        counted = _CountedLink(link)
        device.tell, edge.tell, counted.tell = self._own, self._tail, self._exchange
        self.device, self.edge, self.link = device, edge, counted

    def _own(self, observation: Observation) -> None:
        if observation.head_s is not None:
            self._take("head", observation)
        if observation.local_s is not None:
            self._take("local finish", observation)

    def _tail(self, observation: Observation) -> None:
        self._take("tail", observation)

    def _exchange(self, observation: Observation) -> None:
        if not observation.probe:
            self._take("bound" if observation.censored else "exchange", observation)

    def _take(self, what: str, observation: Observation) -> None:
        key = (what, observation.plan_id)
        if key in self._taken:
            detail = f"the {what} of plan {observation.plan_id}, by {self._whose}"
            self._world.violated("counted twice", detail, self._whose)
        self._taken.add(key)

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        taken = {1: "head", 2: "tail", 4: "local finish", 16: "exchange", 32: "bound"}
        for plan_id, kinds in state["deduplicator"]["seen"]:
            self._taken |= {(kind, plan_id) for bit, kind in taken.items() if kinds & bit}
