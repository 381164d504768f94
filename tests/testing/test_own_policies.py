"""Our own policies keep the promises that others' are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define

from splitiot import policies
from splitiot.cost import AtMost, StepsOnDevice, most_local
from splitiot.policies import (
    Best,
    Context,
    Deadline,
    Fixed,
    Hysteresis,
    LeastEnergy,
    LeastLatency,
    LinearBandit,
    LocalMode,
    Policy,
    Ranking,
    RetestOnDrift,
    StaleProbe,
    ThroughputTarget,
    Wrapper,
    adaptive,
)
from splitiot.testing import policy_checks, wrapper_checks
from splitiot.testing.policies import check_memory_stays_bounded
from tests.share import FULL


@define
class KeepBattery(Policy):
    """The one in the documentation: not even frozen."""

    floor: float = 0.2

    def rank(self, context: Context) -> Ranking:
        if context.telemetry.get("battery", 1.0) < self.floor:
            return context.ranked("energy_j", why="battery low")
        return context.ranked()


SINGLE: dict[str, Callable[[], Policy]] = {
    "Best": Best,
    "Best constrained": lambda: Best(most_local, subject_to=[AtMost("latency_s", 0.2), StepsOnDevice(2)]),
    "Deadline": Deadline,
    "Fixed": lambda: Fixed(2),
    "KeepBattery": KeepBattery,
    "LeastEnergy": LeastEnergy,
    "LeastLatency": LeastLatency,
    "LinearBandit": LinearBandit,
    "ThroughputTarget": lambda: ThroughputTarget(5),
    "ThroughputTarget constrained": lambda: ThroughputTarget(20, window=1, subject_to=AtMost("latency_s", 0.2)),
    "Wrapper": lambda: Wrapper(LeastLatency()),
    "adaptive": adaptive,
}
COMPOSED: dict[str, Callable[[], Policy]] = {
    "Hysteresis(adaptive)": lambda: Hysteresis(adaptive("energy_j")),
    "Hysteresis(Best)": lambda: Hysteresis(Best(), 0.5),
    "LocalMode(Best)": lambda: LocalMode(Best(), 0.3),
    "LocalMode(StaleProbe(LinearBandit))": lambda: LocalMode(StaleProbe(LinearBandit())),
    "RetestOnDrift(LocalMode(Deadline))": lambda: RetestOnDrift(LocalMode(Deadline(deadline_s=0.1), 0.5), tests=3),
    "StaleProbe(Hysteresis(Best))": lambda: StaleProbe(Hysteresis(Best())),
    "RetestOnDrift(StaleProbe(ThroughputTarget))": lambda: RetestOnDrift(StaleProbe(ThroughputTarget(8, margin=0.2))),
    "Hysteresis(ThroughputTarget)": lambda: Hysteresis(ThroughputTarget(2, patience=2)),
    "StaleProbe(RetestOnDrift(Fixed))": lambda: StaleProbe(RetestOnDrift(Fixed(3)), lasts_s=10),
}
WRAPPERS: dict[str, Callable[[Policy], Policy]] = {
    "Hysteresis": Hysteresis,
    "Hysteresis 50 %": lambda policy: Hysteresis(policy, 0.5),
    "LocalMode": LocalMode,
    "LocalMode always": lambda policy: LocalMode(policy, 1.0),
    "RetestOnDrift": RetestOnDrift,
    "StaleProbe": StaleProbe,
    "RetestOnDrift(StaleProbe)": lambda policy: RetestOnDrift(StaleProbe(policy)),
    "Wrapper": Wrapper,
    "all": lambda policy: Hysteresis(RetestOnDrift(StaleProbe(LocalMode(policy)))),
}


def test_none_of_our_policies_is_left_out() -> None:
    names = " ".join([*SINGLE, *COMPOSED])
    classes = [c for c in vars(policies).values() if isinstance(c, type) and issubclass(c, Policy) and c is not Policy]
    assert [c.__name__ for c in classes if c.__name__ not in names] == []


LONGEST = {"Best", "LinearBandit", "adaptive"}
"""Those with notes of each kind, and one without, take the full number of updates; others are made of their parts."""


@pytest.mark.parametrize("check", policy_checks)
@pytest.mark.parametrize("name", [*SINGLE, *COMPOSED])
def test_policies(check: Callable[..., None], name: str) -> None:
    few = check is check_memory_stays_bounded and not (FULL and name in LONGEST)
    more: dict[str, Any] = {"updates": 10_000} if few else {}
    check((SINGLE | COMPOSED)[name], **more)


@pytest.mark.parametrize("check", wrapper_checks)
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(check: Callable[..., None], name: str) -> None:
    check(WRAPPERS[name])
