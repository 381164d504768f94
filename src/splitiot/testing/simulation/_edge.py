"""The edge: a session, its runners and its workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from splitiot import wire
from splitiot.limits import Limits
from splitiot.observation import EdgeTimes
from splitiot.pipeline import DROP, Payload, Pipeline, RuntimeInfo
from splitiot.planner import Planner
from splitiot.policies import Policy
from splitiot.runner import Runner
from splitiot.session import EdgeEffect, EdgeSession, ForgetState, Job, RunPart, Send
from splitiot.testing.simulation._heap import Chance
from splitiot.testing.simulation._network import Line
from splitiot.testing.simulation._oracles import CountingEstimator, EdgeMemory
from splitiot.testing.simulation._work import Work, flavoured
from splitiot.topology import Link, TierProfile, Topology

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = ["EDGE_BASE_S", "RUNTIME", "EdgeMachine", "VirtualRunner"]

RUNTIME = RuntimeInfo("simulated", "1", "default", "none")
EDGE_BASE_S = 5000.0
_BUSY = 5
_PACK_S = 0.0005


class VirtualRunner(Runner):
    """A runner whose runs take no time, and say that they took some.

    Parameters
    ----------
    pipeline : Pipeline
    pace : callable
        Takes (start, stop), gives the seconds of each step.
    """

    def __init__(self, pipeline: Pipeline, pace: Callable[[int, int], list[float]], *, max_owners: int = 1024) -> None:
        super().__init__(pipeline, clock=lambda: 0.0, max_owners=max_owners)
        self._pace = pace

    def run_timed(
        self, start: int, stop: int, payload: Payload, owner: Any = None
    ) -> tuple[Payload, float, tuple[float, ...]]:
        result, _, steps_s = super().run_timed(start, stop, payload, owner)
        every_s = self._pace(start, stop)
        if result is DROP:
            every_s = every_s[: len(steps_s)]
        return result, sum(every_s), tuple(every_s)


class EdgeMachine:
    """Where the edge lives: it owns what an `EdgeService` owns, and dies with it."""

    def __init__(
        self,
        world: World,
        chance: Chance,
        works: Sequence[Work],
        *,
        workers: int,
        speed: float,
        plans: Policy | None,
        limits: Limits,
    ) -> None:
        self._world, self._chance = world, chance
        self.works = {work.pipeline.digest: work for work in works}
        self._workers, self._speed, self._plans = workers, speed, plans
        self.limits = limits
        self.skew_s = 0.0
        self.life = 0
        self.session: EdgeSession | None = None
        self.runners: dict[tuple[str, str], VirtualRunner] = {}
        self.memory = EdgeMemory(world)
        self.memory.serve(works)
        self._queue: deque[Job] = deque()
        self._busy = 0

    @property
    def now_s(self) -> float:
        """On its own monotonic clock."""
        return self._world.heap.now_s + EDGE_BASE_S + self.skew_s

    def start(self) -> None:
        """Come up, knowing nothing."""
        self.life += 1
        flavour = self._world.flavour
        runtime = RUNTIME if flavour == 0 else RuntimeInfo("simulated", f"other {flavour}", "default", "none")
        self.session = EdgeSession(
            [work.pipeline for work in self.works.values()],
            boot=self._chance.boot(),
            runtimes=dict.fromkeys(self.works, runtime),
            profiles={digest: work.served for digest, work in self.works.items()},
            make_planner=None if self._plans is None else self._planner,
            limits=self.limits,
        )
        self.runners = {}
        self._queue.clear()
        self._busy = 0
        self.memory.start(flavour, self.limits)
        self._world.say("edge", f"starts with runtime {flavour}")

    def crash(self) -> None:
        """Go down."""
        if self.session is not None:
            self._world.say("edge", f"dies with {len(self._queue)} queued and {self._busy} at work")
        self.session = None
        self.life += 1

    def hears(self, line: Line, frame: bytes) -> None:
        """A frame has come."""
        if self.session is None:
            return
        self.memory.heard(line.name, frame, self.now_s)
        self._carry_out(self.session.receive(frame, line.name, self.now_s, line))

    def _planner(self, pipeline: Pipeline, device: TierProfile, edge: TierProfile) -> Planner:
        link = Link.from_mbit_per_s(10, rtt_s=0.02)
        return Planner(
            pipeline,
            Topology(tiers=[device, edge], links=[link]),
            self._plans,
            estimators=lambda profiles, link: CountingEstimator(self._world, "edge", profiles, link),
        )

    def _carry_out(self, effects: list[EdgeEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                line: Line = effect.reply_to
                self.memory.answered(effect.frame, line.name)
                if effect.frame[3] == _BUSY:
                    self._world.refused_as_busy(line)
                self._world.network.down(line, effect.frame)
            elif isinstance(effect, RunPart):
                self.memory.accepted(effect.job, self.now_s)
                if effect.job.owner is not None:
                    self._world.ran_on_a_state()
                self._queue.append(effect.job)
            elif isinstance(effect, ForgetState):
                self.memory.forgot(effect, self.now_s)
                for (digest, _), runner in self.runners.items():
                    if digest == effect.digest:
                        runner.reset(effect.owner)
        self._work()

    def _work(self) -> None:
        while self._queue and self._busy < self._workers:
            self._busy += 1
            self._run(self._queue.popleft())

    def _run(self, job: Job) -> None:
        began_s = self.now_s
        seconds = 0.0
        steps_s: tuple[float, ...] = ()
        result: Any = job.late(began_s)
        if result is None:
            self.memory.ran(job, began_s)
            try:
                runner = self._runner(job.pipeline)
                if job.reset:
                    runner.reset(job.owner)
                result, seconds, steps_s = runner.run_timed(job.start, job.stop, job.payload, job.owner)
                result = flavoured(result, self.memory.flavour if job.stop > job.start else 0)
            except Exception as error:  # what an edge's owner does: it ends the request, not the service
                result = error
            self.memory.gave(job, result)
        self._world.heap.at(
            self._world.heap.now_s + seconds, self._completed, self.life, job, result, began_s, seconds, steps_s
        )

    def _completed(
        self, life: int, job: Job, result: Any, began_s: float, seconds: float, steps_s: tuple[float, ...]
    ) -> None:
        if life != self.life or self.session is None:
            return
        self._busy -= 1
        self.memory.completed(job)
        if not isinstance(result, Exception) and result is not DROP:
            result = wire.pack(result if job.pipeline.sink == "device" else None)
        times = EdgeTimes(
            queue_s=began_s - job.received_s, compute_s=seconds, encode_s=0.0, decode_s=0.0, steps_s=steps_s
        )
        self._carry_out(self.session.complete(job, result, self.now_s, times))

    def _runner(self, pipeline: Pipeline) -> VirtualRunner:
        key = (pipeline.digest, pipeline.sink)
        runner = self.runners.get(key)
        if runner is None:
            seconds = self.works[pipeline.digest].seconds
            runner = self.runners[key] = VirtualRunner(
                pipeline,
                lambda start, stop: self._pace(seconds[start:stop]),
                max_owners=self.limits.max_owners,
            )
        return runner

    def _pace(self, seconds: tuple[float, ...]) -> list[float]:
        chance, world = self._chance, self._world
        factor = self._speed * world.edge_slower
        every_s = [second * factor * chance.between(0.9, 1.15) for second in seconds]
        left_s = world.heal_s - world.heap.now_s
        if world.edge_slower > 1 and sum(every_s) > left_s > 0:  # what it does then ends with the slowness
            every_s = [second * left_s / sum(every_s) for second in every_s]
        return every_s
