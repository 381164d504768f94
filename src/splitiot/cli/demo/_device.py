"""The demonstration's device process.

It runs on a fast machine and plays a slow one: after each part it waits until a device of the speed asked for would
be ready.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from splitiot._child import Parent
from splitiot.adapters.http import HttpTransport
from splitiot.cli.demo._messages import Order, ProcessUsage, Ready, RequestResult, Setting
from splitiot.cli.demo._pipeline import build
from splitiot.device import Device
from splitiot.pipeline import Payload, Pipeline
from splitiot.plan import Outcome
from splitiot.policies import Fixed, Policy
from splitiot.runner import Runner
from splitiot.topology import TierProfile

__all__ = ["main"]


class SlowRunner(Runner):
    """Takes as long as a machine would that is `factor` times slower: real results, played seconds.

    What this machine needs is read from the profile, not from each run: else a hiccup of a tenth of a millisecond
    here would be one of tens of milliseconds there. 3 % of noise are added.
    """

    _own: TierProfile | None = None

    def play(self, own: TierProfile, factor: float, seed: int) -> None:
        """Say how slow."""
        self._own, self._factor, self._random = own, factor, random.Random(seed)

    def run_timed(
        self, start: int, stop: int, payload: Payload, owner: Hashable = None
    ) -> tuple[Payload, float, tuple[float, ...]]:
        """Run, then wait."""
        result, seconds, _ = super().run_timed(start, stop, payload, owner)
        if self._own is None:
            return result, seconds, ()
        played_s = self._own.part_s(start, stop) * self._factor * self._random.gauss(1.0, 0.03)
        time.sleep(max(0.0, played_s - seconds))
        return result, max(played_s, seconds), ()


def main(arguments: Sequence[str]) -> None:
    """Carry out orders and tell what happened, until the parent ends or an order is empty."""
    parent = Parent()

    def tell(message: msgspec.Struct) -> None:
        parent.send(msgspec.json.encode(message))

    setting = msgspec.json.decode(parent.receive()[0], type=Setting)
    pipeline, _ = build(*arguments)
    own = TierProfile.from_dict(setting.profile)
    factor = max(1.0, setting.whole_s / own.whole_s)
    runner = SlowRunner(pipeline)
    expected = [_whole(pipeline, runner, frame) for frame in setting.frames]
    runner.play(own, factor, setting.seed)
    middle = min(pipeline.cuts, key=lambda cut: abs(cut - pipeline.n // 2))
    policies: dict[str, Policy | None] = {
        "splitiot": None,
        "all local": Fixed(pipeline.n),
        "all edge": Fixed(0),
        "fixed middle": Fixed(middle),
    }
    devices = {
        name: Device(
            pipeline,
            HttpTransport(setting.url),
            policy=policy,
            profile=own.scaled(factor),
            runner=runner,
            deadline_s=max(1.0, 6 * setting.whole_s),
        )
        for name, policy in policies.items()
    }
    welcome = devices["splitiot"].connect()
    tell(
        Ready(
            steps=[f"{step.kind} {step.name}" for step in pipeline.steps],
            whole_s=own.whole_s * factor,
            factor=factor,
            middle=middle,
            welcome=welcome,
        )
    )
    number = 0
    while (order := msgspec.json.decode(parent.receive()[0], type=Order)).requests:
        device = devices[order.policy]
        for _ in range(order.requests):
            picture = number % len(setting.frames)
            number += 1
            outcome = device.run(setting.frames[picture])
            tell(_ran(order, number, picture, outcome, expected[picture], device, pipeline))
    for device in devices.values():
        device.close()
    runner.close()
    tell(ProcessUsage(peak_bytes=_peak_bytes()))


def _peak_bytes() -> int:
    """The most memory that this process held; `ru_maxrss` would begin with the parent's."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    import resource

    # in kilobytes on most systems, in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _whole(pipeline: Pipeline, runner: Runner, frame: bytes) -> Any:
    result, _ = runner.run(0, pipeline.n, pipeline.bind(frame))
    sent, kept = pipeline.divide(pipeline.n, result)
    return pipeline.join(kept, sent)


def _ran(
    order: Order, number: int, picture: int, outcome: Outcome, expected: Any, device: Device, pipeline: Pipeline
) -> RequestResult:
    observation, plan = outcome.observation, outcome.plan
    return RequestResult(
        phase=order.phase,
        policy=order.policy,
        number=number,
        picture=picture,
        cut=pipeline.n if plan is None else plan.cut,
        sent_bytes=0 if observation is None else observation.sent_bytes,
        device_s=0.0 if observation is None else (observation.head_s or 0.0) + (observation.local_s or 0.0),
        network_s=None if observation is None else observation.network_s,
        edge_s=None if observation is None or observation.edge is None else observation.edge.residence_s,
        total_s=outcome.latency_s,
        source=outcome.source,
        right=outcome.ok and outcome.value == expected,
        why="" if plan is None else plan.why,
        believed_mbit=device.planner.link.up_bytes_per_s / 125e3,
        value=outcome.value,
        error="" if outcome.error is None else str(outcome.error),
    )

