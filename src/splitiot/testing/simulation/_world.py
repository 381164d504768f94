"""One simulated run: the cast, the chaos, the healing, and what is checked at the end."""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from splitiot.device._core import Core
from splitiot.errors import TransportError
from splitiot.limits import Limits
from splitiot.plan import Plan
from splitiot.policies import Fixed, Policy, adaptive
from splitiot.testing.simulation._device import DeviceMachine
from splitiot.testing.simulation._edge import EdgeMachine
from splitiot.testing.simulation._faults import (
    CALM,
    FAULTS,
    WORLDS,
    Fault,
    ScarceEdge,
    SharedNames,
    SlowSampling,
    StatefulParts,
)
from splitiot.testing.simulation._heap import Chance, Heap
from splitiot.testing.simulation._network import Line, Network
from splitiot.testing.simulation._report import Report, Violation
from splitiot.testing.simulation._role import Role
from splitiot.testing.simulation._work import Work, works
from splitiot.transports import Transport

__all__ = ["World", "simulate"]

_CHAOS_S: Final = 12.0
_BREAKER_CAP_S: Final = 2.0  # the longest wait between two greetings of an edge that does not answer
_RESUMES_S: Final = _BREAKER_CAP_S + 2.0
_AFTER_S: Final = _RESUMES_S + 0.5  # how long requests go on after the healing
_PATIENT_S: Final = 12.0  # until then each request must have ended
_INSISTS_S: Final = 120.0
_LEAST_KINDS: Final = 3
_MOST_KINDS: Final = 8
_VIOLATIONS: Final = 20
_OTHER: Final = 0x33BE  # makes another stream of chance of a seed; so chosen that seeds in tests stay as they are
_WORLD, _UNHARMED = 0.12, 0.3
_TRIED: Final = 3  # who tried less often may have had deadlines that nothing could meet

Wrap = Callable[[Transport], Transport]


class World:
    """Everything in one run. Faults of your own use what has no underscore.

    Attributes
    ----------
    heap : Heap
        The clock, and what happens when.
    devices : list of DeviceMachine
    edge : EdgeMachine
    network : Network
    heal_s, resumes_s, over_s : float
        When everything is well again, when devices should have values from the edge again, and when the last requests
        are made.
    calm : bool
        Nothing harms the link or the edge, at any time.
    """

    def __init__(
        self,
        seed: int,
        policy: Policy | None,
        faults: Iterable[type[Fault] | Fault] | None,
        requests: int,
        wrap: Wrap | None,
        tracing: bool,
    ) -> None:
        chance = Chance(seed)
        self.seed, self.wrap = seed, wrap
        self.heap = Heap()
        self.heal_s = _CHAOS_S
        self.resumes_s = _CHAOS_S + _RESUMES_S
        self.over_s = _CHAOS_S + _AFTER_S
        self.violations: list[Violation] = []
        self.bites: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.later: dict[str, str] = {}
        self.lines: list[str] | None = [] if tracing else None
        self._digest, self._plans = hashlib.sha256(), hashlib.sha256()
        self.edge_slower = self.devices_slower = 1.0
        self.flavour = 0
        self.wall_s = 1.7e9
        self.telemetry: Mapping[str, float] = {"battery": 0.5}
        self.overheard: list[bytes] = []
        # by edges: what, by which runtime, and out of which memory
        self.given: dict[tuple[bytes, int], list[tuple[Any, int, Any]]] = {}
        self._rest_faults(chance, faults)
        self.network = Network(self, chance.child())
        self.served = list(works().values())
        self._cast(chance.child(), adaptive() if policy is None else policy)
        self._schedule(chance.child(), requests)
        for fault, own in self._faults:
            fault.begin(self, own)

    # before

    def _rest_faults(self, chance: Chance, faults: Iterable[type[Fault] | Fault] | None) -> None:
        kinds = [kind for kind in FAULTS if kind not in WORLDS]
        swarm, drawn = chance.child(), {kind: chance.child() for kind in kinds}
        world = Chance(self.seed ^ _OTHER)
        drawn |= {kind: world.child() for kind in WORLDS}
        if faults is None:
            chosen = swarm.some(kinds, swarm.whole(_LEAST_KINDS, _MOST_KINDS))
            more = [kind for kind in WORLDS if world.hit(_WORLD)]
            if more and world.hit(_UNHARMED):
                chosen = [kind for kind in kinds if kind in CALM]
            faults = [*chosen, *more]
        self._faults: list[tuple[Fault, Chance]] = []
        for fault in faults:
            kind = fault if isinstance(fault, type) else type(fault)
            own = drawn.get(kind) or Chance(self.seed)
            drawn_fault = kind.draw(own, self.heal_s)
            self._faults.append((drawn_fault if isinstance(fault, type) else fault, own.child()))
        self.faults = tuple(fault for fault, _ in self._faults)
        self._kinds = {type(fault) for fault in self.faults}
        self.calm = self._kinds <= {*CALM}
        self.on_wire = [(fault, own) for fault, own in self._faults if fault.on_wire]

    def _cast(self, chance: Chance, policy: Policy) -> None:
        limits = Limits(max_peers=64, max_owners=64)
        for fault in self.faults:
            if isinstance(fault, ScarceEdge):
                limits = Limits(
                    max_in_flight=fault.in_flight,
                    max_peers=fault.peers,
                    max_answers=fault.answers,
                    max_owners=fault.owners,
                    ttl_s=fault.ttl_s,
                )
        plans = chance.hit(0.4)
        self.edge = EdgeMachine(
            self,
            chance.child(),
            self.served,
            workers=chance.whole(1, 3),
            speed=chance.between(0.03, 0.1),
            plans=policy if plans else None,
            limits=limits,
        )
        self.devices: list[DeviceMachine] = []
        for role in self._roles(chance, policy, plans):
            line = Line(
                role.name,
                chance.between(0.002, 0.025),
                chance.between(3e5, 2e6),
                chance.between(3e5, 2e6),
            )
            self.network.lines.append(line)
            self.devices.append(DeviceMachine(self, role, line, chance.child()))

    def _roles(self, chance: Chance, policy: Policy, plans: bool) -> Iterator[Role]:
        known = works()
        twin = known[chance.pick(("numbers", "numbers", "arrays"))]
        special: list[tuple[Work, tuple[tuple[int, int], ...] | None]] = [
            (known["numbers"], ((0, 2), (2, 2))),
            (known["arrays"], None),
            (known["collecting"], None),
        ]
        cast: list[tuple[Work, tuple[tuple[int, int], ...] | None]] = [(twin, None), (twin, None)]
        stateful = [known[fault.work] for fault in self.faults if isinstance(fault, StatefulParts)]
        if stateful:
            cast += [(stateful[0], None)]
        elif chance.hit(0.6):
            cast += [chance.pick(special)]
        for fault in self.faults:
            if isinstance(fault, SharedNames):
                cast += [(known["stateful" if k % 2 == 0 else "numbers"], None) for k in range(fault.more)]
        for index, (work, parts) in enumerate(cast):
            deadlines = chance.pick(((None,), (0.3,), (0.2, 0.5), (None, 0.15, 0.4), (0.08, 0.3, 1.0)))
            yield Role(
                name=f"device {index + 1}",
                salt=1000 + 17 * index + chance.below(10),
                work=work,
                policy=policy,
                window=chance.whole(1, 4),
                deadlines_s=deadlines,
                patience_s=chance.pick((0.5, 1.0, 2.0)),
                parts=parts,
                exact=chance.hit(0.15),
                follow=plans and chance.hit(0.6),
            )
        for fault in self.faults:
            if isinstance(fault, SlowSampling):
                work = known[chance.pick(("numbers", "arrays"))]
                cut = chance.pick((None, 2, 3, work.pipeline.n))
                yield Role(
                    name=f"device {len(cast) + 1}",
                    salt=1000 + 17 * len(cast) + chance.below(10),
                    work=work,
                    policy=policy if cut is None else Fixed(cut),
                    deadlines_s=chance.pick(((None,), (None, 0.4), (4.0,))),
                    patience_s=chance.pick((0.5, 1.0, 2.0)),
                    follow=plans and chance.hit(0.6),
                    listens=False,
                    tells=fault.tells,
                    slower=fault.slower,
                    stays_away=cut == work.pipeline.n,
                )

    def _schedule(self, chance: Chance, requests: int) -> None:
        self.edge.start()
        for device in self.devices:
            self.heap.at(chance.between(0.0, 0.3), device.start)
        over_s = self.over_s
        often = [device for device in self.devices if device.role.listens]
        each = -(-requests // len(often))
        for device in often:
            together = chance.whole(1, 3)
            gaps = [chance.between(0.5, 1.5) for _ in range(-(-each // together))]
            period_s = (over_s - 0.3) / sum(gaps)
            at_s = 0.3
            for number in range(each):
                if number % together == 0:
                    at_s += period_s * gaps[number // together]
                self.heap.at(at_s - period_s * 0.4, device.arrive)
        self.heap.at(self.heal_s, self._heal)

    # meanwhile

    def bit(self, fault: Fault) -> None:
        """Count that a fault had an effect."""
        self.bites[fault.kind] += 1

    def refused_as_busy(self, line: Line) -> None:
        """The edge did not take a request that came on a line."""
        self._bit_by(ScarceEdge)
        for device in self.devices:
            if device.line is line and self.heap.now_s >= self.heal_s:
                device.told_busy = True

    def left_unread(self) -> None:
        """A frame came to a device at which nobody listens."""
        self._bit_by(SlowSampling)

    def ran_on_a_state(self) -> None:
        """The edge took a request that needs what it remembers."""
        self._bit_by(StatefulParts)

    def _bit_by(self, kind: type[Fault]) -> None:
        if kind in self._kinds:
            self.bites[kind.kind] += 1

    def violated(self, promise: str, detail: str, whose: str) -> None:
        """Note that a promise was broken."""
        violation = Violation(promise, detail, self.heap.now_s, whose)
        self.say(whose, f"VIOLATION: {promise}", f": {detail}")
        if len(self.violations) < _VIOLATIONS:
            self.violations.append(violation)

    def say(self, who: str, message: str, more: str = "") -> None:
        """Note what happens: for the digest, and with `more`, which may differ between Pythons, for the trace."""
        line = f"{self.heap.now_s:.6f} {who}: {message}"
        self._digest.update(line.encode())
        if self.lines is not None:
            self.lines.append(line + more)

    def planned(self, who: str, plan: Plan) -> None:
        """Note a plan, with what was believed."""
        self._plans.update(f"{who} {plan.id} {plan.cut} {plan.probe} {plan.propensity!r} {plan.why}".encode())
        self._plans.update(plan.costs.beliefs.tobytes())

    def overhear(self, frame: bytes) -> None:
        """Let the hostile device hear it."""
        if len(self.overheard) < 20:
            self.overheard.append(frame)

    def chance_of_work(self, chance: Chance) -> Work:
        """Any of what is served."""
        return chance.pick(self.served)

    def device_hears(self, line: Line, frame: bytes) -> None:
        """A frame arrives at a device."""
        for device in self.devices:
            if device.line is line:
                device.hears(frame)

    def device_told(self, line: Line, error: TransportError) -> None:
        """A device's transport learns of a loss."""
        for device in self.devices:
            if device.line is line:
                device.hears(error)

    def edge_hears(self, line: Line, frame: bytes) -> None:
        """A frame arrives at the edge."""
        self.edge.hears(line, frame)

    def crash_edge(self) -> None:
        """The edge dies."""
        self.edge.crash()

    def restart_edge(self) -> None:
        """Another edge starts in its place."""
        self.edge.start()

    def bounds_of_device(self, core: Core, window: int) -> Iterator[tuple[str, int, int]]:
        """What a device may remember: a name, how much there is, how much there may be."""
        session: Any = core.session
        yield "pending requests", session.pending, window + 1
        yield "ended requests that are remembered", len(session._requests.ended), 2 * session._requests.most
        yield "observations to tell", len(session.outbox), 128
        yield "outcomes nobody took", len(core.done), window + 1
        yield "local finishes", len(core.finishes), window + 1

    def _bounds_of_edge(self) -> Iterator[tuple[str, int, int]]:
        session: Any = self.edge.session
        limits = self.edge.limits
        if session is None:
            return
        yield "jobs in flight", session.in_flight, limits.max_in_flight
        yield "remembered answers", len(session._answers), limits.max_answers
        yield "peers", len(session._peers), limits.max_peers
        yield "duplicates that wait", max((len(f.waiting) for f in session._flights.values()), default=0), 17

    def _look(self) -> None:
        for what, size, most in self._bounds_of_edge():
            if size > most:
                self.violated("unbounded", f"{what}: {size}, more than {most}", "edge")
        self.heap.at(self.heap.now_s + 0.25, self._look)

    def _heal(self) -> None:
        self.say("world", "everything is well again")
        self.edge_slower = self.devices_slower = 1.0

    # the run

    def run(self, resumes: bool) -> None:
        """Let it all happen, and check the end."""
        self._look()
        over_s = self.over_s
        end_s = over_s + _PATIENT_S
        try:
            while self.heap.step(over_s):
                pass
            while not all(device.idle for device in self.devices) and self.heap.step(end_s):
                pass
        except Exception as error:  # whatever escapes from a session or a core is a bug
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename.rpartition('splitiot')[2].lstrip('/')}:{where.name}"
            self.violated("raised", f"{type(error).__name__}: {error} in {place}", "world")
            return
        self._check_end(resumes)

    def _check_end(self, resumes: bool) -> None:
        for device in self.devices:
            device.check_retries()
            if self.calm:
                device.check_beliefs()
            if device.core is not None and (bug := device.core.reporter.bug_message):
                self.violated("raised", bug, device.role.name)  # by a transport of somebody's own
                resumes = False
            if not device.idle:
                self.violated("never ended", "requests are still under way", device.role.name)
                resumes = False
        if not resumes:
            return
        wanted = [device for device in self.devices if not device.role.stays_away]
        late = {device: self._reason(device) for device in wanted if not self._in_time(device)}
        self._insist([device for device, reason in late.items() if reason])
        for device, reason in late.items():
            detail = "no value came from the edge"
            if device.resumed_s is not None:
                detail = f"the first value from the edge came after {device.resumed_s - self.heal_s:.3f} s"
            if reason and device.resumed_s is not None:
                self.later[device.role.name] = reason
            elif reason:
                detail += f", not even when it had asked {device.insisted} times more: it {reason}"
                self.violated("does not resume", detail, device.role.name)
            else:
                self.violated("does not resume", f"{detail}; at most {_RESUMES_S:g} s", device.role.name)

    def _in_time(self, device: DeviceMachine) -> bool:
        return device.resumed_s is not None and device.resumed_s <= self.resumes_s

    def _reason(self, device: DeviceMachine) -> str:
        """Why a device may not yet have a value from the edge; empty if it should have one."""
        core = device.core
        assert core is not None
        if core.session.refusal:
            return "was refused"  # an edge that was of no use is asked again after ten seconds only
        if device.told_busy:
            return "was told that the edge is busy"
        if not device.role.listens:
            return "hears what the edge says only when it takes a frame"
        if core.session.edge_up(device.now_s):
            if device.tried == 0:
                return "did not want the edge"  # what it measured of it is as bad as it was, and not old yet
            if device.tried < _TRIED:
                return "tried too rarely"
            if device.role.work.pipeline.stateful:
                return "is bound to where it began"
        return ""

    def _insist(self, devices: Iterable[DeviceMachine]) -> None:
        """Let them ask on until they are at the edge again."""
        asking = list(devices)
        for device in asking:
            device.insist()
        end_s = self.heap.now_s + _INSISTS_S
        while any(device.insisting for device in asking) and self.heap.step(end_s):
            pass

    def report(self, again: Callable[[tuple[Fault, ...], bool], tuple[Report, list[str]]]) -> Report:
        """Return what was found."""
        resumed_s = {d.role.name: d.resumed_s - self.heal_s for d in self.devices if d.resumed_s is not None}
        return Report(
            seed=self.seed,
            faults=self.faults,
            violations=tuple(self.violations),
            requests=sum(device.requests for device in self.devices),
            bites=dict(self.bites),
            counts=dict(self.counts),
            later=self.later,
            resumed_s=resumed_s,
            digest=self._digest.hexdigest(),
            plans=self._plans.hexdigest(),
            again=again,
        )


def simulate(
    policy: Policy | Callable[[], Policy] | None = None,
    seed: int = 0,
    *,
    faults: Iterable[type[Fault] | Fault] | None = None,
    requests: int = 105,
    transport: Wrap | None = None,
    resumes: bool = True,
) -> Report:
    """Run devices and an edge on a virtual clock while things go wrong, and say which promises were broken.

    Parameters
    ----------
    policy : Policy or callable, optional
        An object, or what makes one; `adaptive()` unless given.
    seed : int
        Decides everything: the same seed gives the same run.
    faults : iterable of Fault, or of their classes, optional
        What goes wrong. Of a class one is drawn. Three to eight kinds are chosen by the seed, unless given.
    requests : int
        About how many all devices make together.
    transport : callable, optional
        Takes a simulated transport and returns the one that devices use: yours, around it.
    resumes : bool
        Check that devices have values from the edge again soon after everything is well: not for policies that do not
        want the edge although it is ten times faster.

    Examples
    --------
    >>> from splitiot.testing import simulate
    >>> report = simulate(seed=1)
    >>> report.ok, report.requests >= 100, len(report.faults) >= 3
    (True, True, True)
    """
    own_policy = policy if policy is None or isinstance(policy, Policy) else policy()

    def run(chosen: tuple[type[Fault] | Fault, ...] | None, tracing: bool) -> tuple[Report, list[str]]:
        world = World(seed, own_policy, chosen, requests, transport, tracing)
        world.run(resumes)
        return world.report(run), world.lines or []

    return run(None if faults is None else tuple(faults), False)[0]
