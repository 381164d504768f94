"""Where the requests of ``splitiot run`` are executed: with an edge, or all of them here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from splitiot.cli._console import Console
from splitiot.cli._target import Target, legal_cut

if TYPE_CHECKING:
    from splitiot.device import Device
    from splitiot.pipeline import Runtime
    from splitiot.plan import Outcome
    from splitiot.session import Trouble

__all__ = ["Executor", "RunAll", "execute_here", "execute_with_edge", "paced"]

RunAll: TypeAlias = Callable[[Iterator[Any]], Iterator["Outcome"]]
"""Takes inputs, gives how each ended, in order."""


@frozen
class Executor:
    """What runs requests.

    Parameters
    ----------
    run_all : callable
        See `RunAll`.
    why_unused : callable
        Tells why the edge was never there; an empty string if it was.
    """

    run_all: RunAll
    why_unused: Callable[[], str]


def paced(values: Iterator[Any], period_s: float) -> Iterator[Any]:
    """Take a value each period and hand it on; one that is late is not made up for."""
    due_s = time.monotonic()
    while True:
        rest_s = due_s - time.monotonic()
        if rest_s > 0:
            time.sleep(rest_s)
        due_s = max(due_s, time.monotonic()) + period_s if rest_s < 0 else due_s + period_s
        try:
            value = next(values)
        except StopIteration:
            return
        yield value


@contextlib.contextmanager
def execute_with_edge(
    device: Device, target: Target, url: str, run_all: RunAll, console: Console
) -> Iterator[Executor]:
    """Run requests through a device, once it has looked for the edge; closes the device in the end."""
    up = False

    def outcomes(values: Iterator[Any]) -> Iterator[Outcome]:
        nonlocal up
        for outcome in run_all(values):
            up = up or outcome.source == "edge" or device.edge_up
            yield outcome

    with console.log("splitiot"), contextlib.closing(device):
        with console.status(f"looking for the edge, and measuring {target.name} here unless that is known"):
            up = device.connect()
        yield Executor(outcomes, lambda: "" if up else _why_unused(url, device.trouble))


def _why_unused(url: str, trouble: Trouble | None) -> str:
    if trouble is None:
        return f"the edge at {url} could never be used (it refused, or did not answer): everything ran here"
    remedy = f". To mend it: {trouble.remedy}" if trouble.remedy else ""
    return f"the edge at {url} could never be used ({trouble.reason}): everything ran here{remedy}"


@contextlib.contextmanager
def execute_here(target: Target, runtime: Runtime) -> Iterator[Executor]:
    """Run requests without an edge.

    Raises
    ------
    UsageError
        All local is not legal.
    """
    from splitiot.errors import Dropped, SplitiotError, StepError
    from splitiot.observation import Observation
    from splitiot.pipeline import DROP
    from splitiot.plan import Outcome
    from splitiot.runner import Runner

    pipeline = target.pipeline
    n = legal_cut(target, pipeline.n)
    with Runner(pipeline, runtime=runtime) as runner:

        def once(value: Any) -> Outcome:
            began_s = time.monotonic()
            try:
                result, seconds = runner.run(0, n, pipeline.bind(value))
                if result is DROP:
                    return Outcome(error=Dropped("a task dropped it"), latency_s=time.monotonic() - began_s)
                sent, own = pipeline.divide(n, result)
                value = pipeline.join(own, sent)
            except SplitiotError as error:
                return Outcome(error=error, latency_s=time.monotonic() - began_s)
            except Exception as error:  # whatever a step raises ends its request, not the run
                return Outcome(error=StepError(f"a step raised {error!r}"), latency_s=time.monotonic() - began_s)
            observation = Observation(plan_id=0, cut=n, head_s=seconds)
            latency_s = time.monotonic() - began_s
            return Outcome(value=value, source="local", exact=True, observation=observation, latency_s=latency_s)

        yield Executor(lambda values: map(once, values), str)
