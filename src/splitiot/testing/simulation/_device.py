"""A device: the real Core over a simulated transport, with one compute lane, as `Device.map` has it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from splitiot.device._core import Core, PlannedRequest, RequestEnded
from splitiot.errors import RemoteError, StepError, TransportError
from splitiot.plan import Outcome
from splitiot.runner import TimedResult
from splitiot.session import RunLocal
from splitiot.testing.simulation._core import virtual_core
from splitiot.testing.simulation._files import PowerCut, SimulatedFiles
from splitiot.testing.simulation._heap import TICK_S, Chance
from splitiot.testing.simulation._network import Line
from splitiot.testing.simulation._oracles import message_in, short
from splitiot.testing.simulation._requests import Request, RequestOracle
from splitiot.testing.simulation._role import Role
from splitiot.testing.simulation._transport import SimulatedTransport
from splitiot.testing.simulation._work import Memory, value_of

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = ["DEVICE_BASE_S", "DeviceMachine"]

DEVICE_BASE_S = 1000.0
_BOOT_S = 0.25
_POLL_S = 0.5  # an idle owner looks in so often
_ANSWER_S = 0.25  # what was sent later need not be answered in time
_INSISTS, _INSISTS_EVERY_S = 300, 0.05  # StaleProbe asks the edge once in 250 requests, whatever it believes of it
_SOME_BYTES = 2000
_FAR_OFF = 4.0
_REQUEST = 3


class DeviceMachine:
    """Where a device lives, and who owns it: takes requests, uses its one lane, and checks how each request ends."""

    def __init__(self, world: World, role: Role, line: Line, chance: Chance) -> None:
        self.world, self.role, self.line, self._chance = world, role, line, chance
        own = chance.child()
        self.session_chance = lambda: own.between(0.0, 1.0)
        self.files = SimulatedFiles()
        self.skew_s = 0.0
        self.traps: Callable[[int], int] = lambda n: 0
        self.life = 0
        self.alive = False
        self.core: Core | None = None
        self.resumed_s: float | None = None
        self.tried = 0  # how often it asked the edge before that, in the time in which it should be there again
        self.told_busy = False  # by then
        self.insisted = 0  # requests of `insist`
        self.requests = 0
        self._number = self._owed = 0
        self._stored: bytes | None = None
        self._empty()

    def _empty(self) -> None:
        self._source: deque[Request] = deque()
        self._waiting: deque[Request] = deque()
        self._pending: dict[int, Request] = {}
        self._done: set[int] = set()
        self._ids: set[tuple[bytes, int]] = set()
        self._lane: object | None = None
        self._held: Callable[[], None] | None = None
        self._wake_s = math.inf
        self._taken = self._ended = self._begun = 0
        self._needs_reset = False
        self._memory = Memory()
        self._oracle = RequestOracle(self.world, self.role)
        self._submitted = self._resent = 0

    @property
    def now_s(self) -> float:
        """On its own monotonic clock."""
        return self.world.heap.now_s + DEVICE_BASE_S + self.skew_s

    # life

    def start(self, keeps: bool = False) -> None:
        """Come up, with what was stored of the planner, or without."""
        if self.alive:
            return
        world, role = self.world, self.role
        self.alive = True
        self.life += 1
        self._empty()
        boot = self._chance.boot()
        self.inner = SimulatedTransport(self._sent, lambda: self.now_s, tells=role.tells)
        transport = self.inner if world.wrap is None else world.wrap(self.inner)
        self._boot = boot
        self.core = virtual_core(self, transport, boot, self._stored if keeps else None)
        world.say(role.name, f"starts (boot {short(boot)})")
        self._poll(self.life)
        owed, self._owed = self._owed, 0
        for _ in range(owed):
            self.arrive()

    def crash(self) -> None:
        """Go down with all that is under way."""
        if not self.alive:
            return
        assert self.core is not None
        self.world.say(self.role.name, f"dies with {len(self._pending) + len(self._waiting)} requests")
        self.check_retries()
        self.alive = False
        self.life += 1
        if self.core.planner is not None:
            self._stored = msgspec.json.encode(self.core.planner.snapshot())

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self.alive or not (self._pending or self._waiting or self._source or self._lane)

    def _poll(self, life: int) -> None:
        if life != self.life:
            return
        self._turn()
        assert self.core is not None
        self._check_bounds()
        try:
            self.core.save(self.core.unsaved())
        except PowerCut:
            self.world.say(self.role.name, "loses power while it writes")
            self.crash()
            self.world.heap.at(self.world.heap.now_s + _BOOT_S, self.start)
            return
        self.world.heap.at(self.world.heap.now_s + _POLL_S, self._poll, life)

    def check_retries(self) -> None:
        """Look whether it sent requests again too often in this life."""
        most = 3 + 0.2 * self._submitted
        if self._resent > most:
            detail = f"{self._resent} requests were sent again, more than 3 + 20 % of {self._submitted}"
            self.world.violated("too many retries", detail, self.role.name)

    def check_beliefs(self) -> None:
        """Look what it thinks of a link and an edge that nothing has harmed."""
        core, line = self.core, self.line
        assert core is not None and core.planner is not None
        if self.role.listens:  # may have had deadlines that nothing could meet, and so an edge that seems silent
            return
        if core.session.outages or not core.session.edge_up(self.now_s):
            detail = f"{core.session.outages} outages of an edge that was well all the time"
            self.world.violated("edge doubted", detail, self.role.name)
        link, prior = core.planner.link, core.planner.topology.links[0]
        believed_s = link.rtt_s + _SOME_BYTES / link.up_bytes_per_s
        true_s = line.rtt_s + _SOME_BYTES / line.up_bytes_per_s
        prior_s = prior.rtt_s + _SOME_BYTES / prior.up_bytes_per_s
        if believed_s > _FAR_OFF * max(true_s, prior_s):
            detail = f"{_SOME_BYTES} bytes take {true_s:.4f} s, and are believed to take {believed_s:.4f}"
            self.world.violated("link doubted", detail, self.role.name)

    # the source

    def insist(self) -> None:
        """Ask on, one request after another, until a value comes from the edge; what is stateful begins anew each time.

        So policies and pipelines that had a reason to stay here must leave in the end.
        """
        if not self.insisting:
            return
        if self.alive and self.idle:
            self.insisted += 1
            if self.role.work.pipeline.stateful:
                self._reset()
            self.arrive(in_time=False)
        self.world.heap.at(self.world.heap.now_s + _INSISTS_EVERY_S, self.insist)

    @property
    def insisting(self) -> bool:
        """Whether more of that is to be done."""
        return self.resumed_s is None and self.insisted < _INSISTS

    def arrive(self, in_time: bool = True) -> None:
        """Somebody wants something, mostly by a deadline."""
        if not self.alive:
            self._owed += 1  # whoever wants it waits
            return
        self._number += 1
        self.requests += 1
        n = self.role.work.pipeline.n
        trap = 0 if self.role.work.memory_at is not None else self.traps(n)
        value = value_of(self.role.salt, self._number, trap)
        deadline_s = self._chance.pick(self.role.deadlines_s) if in_time else None
        self._source.append(Request(self._number, value, 0.0, deadline_s))
        self._feed()

    def _feed(self) -> None:
        while self._source and self._taken - self._ended < self.role.window and not self._needs_reset:
            request = self._source.popleft()
            request.begun_s = self.world.heap.now_s
            self._taken += 1
            self._waiting.append(request)
        self._work()

    # the lane

    def _work(self) -> None:
        while self._lane is None and self.alive:
            core = self.core
            assert core is not None
            if finish := core.next_finish():
                self._finish(finish)
            elif self._waiting and self._begun - self._ended < self.role.window:
                self._begun += 1
                self._begin(self._waiting.popleft())
            else:
                if self._needs_reset and self._taken == self._ended:
                    self._reset()
                return

    def _reset(self) -> None:
        assert self.core is not None
        self._needs_reset = False
        self.world.say(self.role.name, "resets")
        self.core.reset()
        self._memory = Memory()
        self._oracle.start_anew()
        self._feed()

    def _finish(self, effect: RunLocal) -> None:
        core, heap = self.core, self.world.heap
        assert core is not None
        request = self._pending.get(effect.sequence)
        if request is not None and request.asked_s is not None:
            request.waited_s = heap.now_s - request.asked_s
        rest = core.finish(effect)
        self._lane = effect

        def over(life: int) -> None:
            if life != self.life:
                return
            self._lane = None
            if request is not None:
                request.finished_s = heap.now_s
            if not self.role.listens:
                core.listen(0.0)
            core.pump(core.finished(effect, rest))
            self._turn()

        heap.at(heap.now_s + rest.seconds, over, self.life)

    def _begin(self, request: Request) -> None:
        core, heap, work = self.core, self.world.heap, self.role.work
        assert core is not None
        if not self.role.listens:
            core.listen(0.0)
        offset_s = self.now_s - heap.now_s
        try:
            begun = core.begin(
                work.pipeline.bind(request.value), request.begun_s + offset_s, request.deadline_s, self.world.telemetry
            )
        except RequestEnded as ended:
            self.world.say(self.role.name, f"request {request.number} can't begin")
            self._ends(request, ended.outcome)
            return
        self.world.planned(self.role.name, begun.plan)
        self.world.say(self.role.name, f"request {request.number} at cut {begun.cut}", f": {begun.plan.why}")
        head = core.head(begun)
        if work.memory_at is not None:
            if work.pipeline.stateful:
                request.expected = work.result(request.value, self._memory)
        elif request.expected is None:
            request.expected = self._expected(request)
        if begun.cut == work.pipeline.n and work.pipeline.sink == "device":
            self._oracle.foresee(core, request, begun, 0, 0.0)
        self._lane = request

        def over(life: int) -> None:
            if life == self.life:
                self._submit(request, begun, head)

        heap.at(heap.now_s + (0.0 if isinstance(head, Exception) else head.seconds), over, self.life)

    def _expected(self, request: Request) -> Any:
        try:
            return self.role.work.result(request.value)
        except Exception:  # the step that was told to
            return StepError

    def _submit(self, request: Request, begun: PlannedRequest, head: TimedResult | Exception) -> None:
        core = self.core
        assert core is not None
        if core.pipeline.remembers_from(begun.cut) and self._pending:  # the edge takes one at a time, in order
            self._held = lambda: self._submit(request, begun, head)
            return
        planner = core.planner
        assert planner is not None
        queued_head_s = 0.0
        if self.role.window > 1:
            queued_head_s = planner.finish_s(0) - planner.finish_s(begun.cut)
        if begun.cut < core.pipeline.n:
            self._oracle.foresee(core, request, begun, begun.cut, queued_head_s)
        self._lane = None
        request.boot = self._boot
        self._submitted += 1
        try:
            number = core.submit(begun, head, queued_head_s)
        except RequestEnded as ended:
            self._ends(request, ended.outcome)
        else:
            request.sequence = number
            self._pending[number] = request
            if any(effect.sequence == number for effect in core.finishes):
                request.asked_s = self.world.heap.now_s
        self._turn()

    # the link

    def _sent(self, frame: bytes) -> None:
        request = message_in(frame, _REQUEST)
        if request is not None:
            key = (request.boot, request.sequence)
            if key in self._ids:
                self._resent += 1
            self._ids.add(key)
            self.world.say(self.role.name, f"sends {request.sequence}, attempt {request.attempt}")
            self.world.overhear(frame)
            in_time = self.world.heal_s <= self.world.heap.now_s <= self.world.resumes_s - _ANSWER_S
            self.tried += self.resumed_s is None and in_time
        self.world.network.up(self.line, frame)

    def hears(self, frame: bytes | TransportError) -> None:
        """Something came, or news of a loss."""
        if not self.alive:
            return
        core, listens = self.core, self._listening
        assert core is not None
        if listens and (received := core.receive(0.0)) is not None:  # until now somebody has waited
            core.handle_all(received)
        self.inner.came(frame)
        if listens:
            self._turn()
        else:
            self.world.left_unread()

    @property
    def _listening(self) -> bool:
        return self.role.listens or (self._lane is None and bool(self._pending))

    def _turn(self) -> None:
        """Look after what is due, and what has ended."""
        core, heap = self.core, self.world.heap
        if not self.alive:
            return
        assert core is not None
        if self._listening:
            core.listen(0.0)
        for number in [number for number in core.done if number in self._pending]:
            self._ends(self._pending.pop(number), core.take(number))
        if self._held is not None and not self._pending:
            held, self._held = self._held, None
            held()
            return
        wake_s = core.session.wake_s() if self._listening else None
        if wake_s is not None:
            due_s = heap.now_s + max(0.0, wake_s - self.now_s) + TICK_S
            if not heap.now_s < self._wake_s <= due_s:
                self._wake_s = due_s
                heap.at(due_s, self._woken, self.life)
        self._feed()

    def _woken(self, life: int) -> None:
        if life == self.life:
            self._turn()

    # what the effects say

    def request_done(self, sequence: int) -> None:
        """A request has ended in the session."""
        if sequence in self._done:
            self.world.violated("two outcomes", f"request {sequence} ended twice", self.role.name)
        self._done.add(sequence)

    def finish_wanted(self, sequence: int) -> None:
        """The session wants a local finish."""
        request = self._pending.get(sequence)
        self.world.say(self.role.name, f"is to finish {sequence} here")
        if request is not None:
            request.asked_s = self.world.heap.now_s

    # the end of a request

    def _ends(self, request: Request, outcome: Outcome) -> None:
        world, heap = self.world, self.world.heap
        latency_s = heap.now_s - request.begun_s
        self._ended += 1
        if request.over:
            world.violated("two outcomes", f"request {request.number} ended twice", self.role.name)
        request.over = True
        result = "a value" if outcome.ok else type(outcome.error).__name__
        message = f"request {request.number} ({request.sequence}) ends: {outcome.source}, {result}"
        world.say(self.role.name, message, "" if outcome.ok else f": {outcome.error}")
        world.counts[outcome.source if outcome.ok else type(outcome.error).__name__] += 1
        self._oracle.check(request, outcome, latency_s)
        if outcome.ok and outcome.source == "edge" and self.resumed_s is None and heap.now_s >= world.heal_s:
            self.resumed_s = heap.now_s
        if not outcome.ok and self.role.work.pipeline.remembers and outcome.source == "none":
            self._needs_reset = self._needs_reset or self._wants_reset(outcome)

    def _wants_reset(self, outcome: Outcome) -> bool:
        lost = isinstance(outcome.error, RemoteError) and outcome.error.code in ("state-lost", "bad-order")
        return lost or (self.role.work.pipeline.stateful and self._chance.hit(0.5))

    def _check_bounds(self) -> None:
        core, name = self.core, self.role.name
        assert core is not None
        for what, size, most in self.world.bounds_of_device(core, self.role.window):
            if size > most:
                self.world.violated("unbounded", f"{what}: {size}, more than {most}", name)

    def pace(self, seconds: tuple[float, ...]) -> list[float]:
        """Return what steps of these lengths take this time."""
        chance, factor = self._chance, self.world.devices_slower
        return [second * factor * chance.between(0.92, 1.08) for second in seconds]
