"""What becomes of a device's requests: the only place where one is moved from state to state."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from splitiot import wire
from splitiot.errors import DeadlineExceeded, Dropped, Overloaded, SplitiotError, StepError, with_notes
from splitiot.observation import Observation
from splitiot.pipeline import DROP, Payload, Pipeline
from splitiot.plan import Outcome
from splitiot.session._budget import RetryBudget
from splitiot.session._counters import DeviceCounters
from splitiot.session._edge_health import EdgeHealth
from splitiot.session._effects import DeviceEffect, RequestDone, RunLocal, Send
from splitiot.session._measurements import Measurements
from splitiot.session._pending import NO_CONTENT, PendingRequest
from splitiot.session._states import TRANSITIONS, Event, State

__all__ = ["PendingRequests"]

_PAUSE_S: Final = 0.05  # the first pause may be as long; it doubles
_PAUSE_CAP_S: Final = 1.0
_SILENCE_S: Final = 0.1  # what an answer may take beyond twice what answers take


class PendingRequests:
    """The requests that have no outcome yet, and the last ones that have: a late answer still teaches.

    Parameters
    ----------
    pipeline : Pipeline
    health : EdgeHealth
    measurements : Measurements
    counters : DeviceCounters
    most : int
        How many may be pending.
    lossy : bool
        Send a request again when its answer is late.
    chance : callable
        Gives numbers in [0, 1).
    """

    def __init__(
        self,
        pipeline: Pipeline,
        health: EdgeHealth,
        measurements: Measurements,
        counters: DeviceCounters,
        *,
        most: int,
        lossy: bool,
        chance: Callable[[], float],
    ) -> None:
        self._pipeline, self._health, self._measurements = pipeline, health, measurements
        self._counters, self.most, self._lossy, self._chance = counters, most, lossy, chance
        self.pending: dict[int, PendingRequest] = {}
        self.ended: OrderedDict[int, PendingRequest] = OrderedDict()
        self.budget = RetryBudget()
        self._heard_s = -math.inf

    @property
    def full(self) -> bool:
        """Whether as many are pending as may be."""
        return len(self.pending) >= self.most

    def wake_s(self) -> float:
        """When `tick` has something to do next; inf for never."""
        return min((request.wake_s for request in self.pending.values()), default=math.inf)

    def add(self, request: PendingRequest) -> None:
        """A request has begun."""
        self.pending[request.sequence] = request
        self._counters.requests += 1

    def send(self, request: PendingRequest, frame: bytes, now_s: float) -> list[DeviceEffect]:
        """Send it for the first time."""
        self._counters.offloaded += 1
        request.again_s = now_s + self._patience_s(request)
        return [Send(frame)]

    def find(self, sequence: int) -> PendingRequest | None:
        """Return the request that an answer is for, also if it has ended: that once."""
        return self.pending.get(sequence) or self.ended.pop(sequence, None)

    def tick(self, now_s: float, heard_s: float) -> list[DeviceEffect]:
        """Time has passed; what had come by `heard_s` has been read."""
        self._heard_s = heard_s
        effects: list[DeviceEffect] = []
        for request in list(self.pending.values()):
            event = request.due(now_s, heard_s)
            if event is not None:
                effects += self.transition(request, event, now_s)
        return effects

    def transition(
        self, request: PendingRequest, event: Event, now_s: float, error: SplitiotError | None = None
    ) -> list[DeviceEffect]:
        """Go where `TRANSITIONS` says: to the first state there that is possible."""
        choices = TRANSITIONS.get((request.state, event), ())
        state = next((state for state in choices if self._is_possible(state, request, now_s)), None)
        if state is None:
            if event is Event.SILENT:
                request.again_s = math.inf  # it may not be sent again
            return []
        effects: list[DeviceEffect] = []
        if event in (Event.HEDGE, Event.DEADLINE):
            effects += self._note_silence(request, now_s)
        if state is State.LOCAL:
            hedge = event is Event.HEDGE
            self._counters.hedges += hedge
            self._counters.fallbacks += not hedge
            request.state, request.local = state, "hedge" if hedge else "fallback"
            return [*effects, RunLocal(request.sequence, request.plan.cut, self._pipeline.n, request.content.payload)]
        if state is State.PAUSED:
            request.state, request.error, request.again_s = state, error, now_s + self._pause_s(request, error)
            return effects
        if state is State.WAITING:
            return effects + self._send_again(request, event, now_s)
        if event is Event.DEADLINE and (error := request.error) is None:
            error = DeadlineExceeded(f"no answer in {now_s - request.begun_s:.3f} s, and no time to finish locally")
        return effects + self.end(request, None, error or request.error, "none", now_s)

    def local_done(
        self, sequence: int, result: Payload | Exception, seconds: float, now_s: float, steps_s: tuple[float, ...]
    ) -> list[DeviceEffect]:
        """A `RunLocal` ended, with what the part gave (maybe `DROP`) or what it raised."""
        request = self.pending.get(sequence)
        if request is None or not request.local:
            return []  # the edge was faster
        if result is DROP:
            result = Dropped("a task on the device dropped the frame")
        if isinstance(result, Dropped):
            self._counters.dropped += 1
            return self.end(request, None, result, request.local, now_s)
        if isinstance(result, Exception):
            error = result
            if not isinstance(error, SplitiotError):
                error = StepError(with_notes(f"the local finish raised {result!r}", result))
                error.__cause__ = result
            return self.end(request, None, error, request.local, now_s)
        observation = self._measurements.of_device(request, seconds, steps_s)
        if now_s > request.deadline_s:
            late = DeadlineExceeded(f"finished locally {now_s - request.deadline_s:.3f} s after the deadline")
            return self.end(request, None, late, request.local, now_s, observation)
        value = self._pipeline.join(request.content.kept, result)
        return self.end(request, value, None, request.local, now_s, observation)

    def end(
        self,
        request: PendingRequest,
        value: Any,
        error: SplitiotError | None,
        source: Literal["edge", "hedge", "fallback", "none"],
        now_s: float,
        observation: Observation | None = None,
        *,
        exact: bool = True,
    ) -> list[DeviceEffect]:
        """Give a request its one outcome."""
        self._retire(request)
        if observation is None:
            observation = self._measurements.of_device(request)
        outcome = Outcome(
            value=value,
            error=error,
            source=source,
            exact=error is None and exact,
            plan=request.plan,
            observation=observation,
            latency_s=now_s - request.begun_s,
        )
        return [self._measurements.publish(observation, now_s), RequestDone(request.sequence, outcome)]

    def abandon(self) -> None:
        """Nobody waits for any of them."""
        for request in list(self.pending.values()):
            self._retire(request)

    def _retire(self, request: PendingRequest) -> None:
        """Forget what a request needed; remember what a late answer teaches."""
        del self.pending[request.sequence]
        self.ended[request.sequence] = request
        request.state = State.ENDED
        if len(self.ended) > 2 * self.most:
            self.ended.popitem(last=False)
        if not request.answered:  # nobody knows whether the edge heard it; of each plan it takes it only once
            self._measurements.outbox.put_back(request.content.observations, request.sent_s)
        request.content = NO_CONTENT

    def _is_possible(self, state: State, request: PendingRequest, now_s: float) -> bool:
        if state is State.LOCAL:
            return request.can_finish
        if state is State.PAUSED:
            return self.budget.left and now_s < request.deadline_s
        return state is State.ENDED or self.budget.left

    def _pause_s(self, request: PendingRequest, error: SplitiotError | None) -> float:
        """How long to wait before it is sent again: drawn evenly up to a bound that doubles."""
        least_s = min(error.retry_after_s, _PAUSE_CAP_S) if isinstance(error, Overloaded) else 0.0
        bound_s = min(_PAUSE_S * float(2**request.attempts), _PAUSE_CAP_S)
        return max(0.0, least_s) + bound_s * self._chance()

    def _patience_s(self, request: PendingRequest) -> float:
        """How long an answer may take before it is thought lost."""
        if not self._lossy:
            return math.inf
        expected_s = self._measurements.expected_s(request)
        return (2 * expected_s + _SILENCE_S) * float(2**request.attempts) * (1 + self._chance())

    def _send_again(self, request: PendingRequest, event: Event, now_s: float) -> list[DeviceEffect]:
        if not self._health.up(now_s):
            wait_s = self._pause_s(request, None) if event is Event.AGAIN else self._patience_s(request)
            request.again_s = now_s + wait_s
            return []
        self.budget.take()
        self._counters.retries += 1
        request.attempts += 1
        request.error = None
        request.state, request.again_s = State.WAITING, now_s + self._patience_s(request)
        left_s = None if request.deadline_s == math.inf else max(0.0, request.deadline_s - now_s)
        content = request.content
        message = msgspec.structs.replace(content.message, attempt=request.attempts, deadline_s=left_s)
        return [Send(wire.encode(message, content.buffers))]

    def _note_silence(self, request: PendingRequest, now_s: float) -> list[DeviceEffect]:
        """No answer yet, and no time to wait longer."""
        silent_s = min(self._heard_s, now_s) - request.sent_s
        if silent_s <= 0:
            return []  # nobody has looked since it was sent
        # else it had less time than it was expected to need
        if silent_s + (request.head_s or 0.0) >= request.plan.latency_s:
            self._health.failed(now_s)
        return [self._measurements.publish(self._measurements.of_silence(request, silent_s), now_s)]
