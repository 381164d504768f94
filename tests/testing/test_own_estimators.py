"""Our own estimators keep the promises that others' are asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from splitiot.estimators import (
    Ema,
    JointEstimator,
    LinkEstimator,
    LogCusum,
    TierEstimator,
    VarianceCascade,
    VarianceDetector,
    WaitEstimator,
)
from splitiot.pipeline import Tier
from splitiot.testing import estimator_checks, scalar_checks, topology
from splitiot.testing.estimators import check_memory_stays_bounded
from tests.share import FULL

DEVICE, EDGE = topology().tiers
(LINK,) = topology().links


class OneStep(VarianceCascade):
    """A cascade whose second step alone is measured."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(4)

    def update(self, x: float) -> None:  # type: ignore[override]
        super().update(1, x)


SCALARS: dict[str, Callable[[], Any]] = {
    "Ema": Ema,
    "Ema 1": partial(Ema, 1.0),
    "LogCusum": LogCusum,
    "VarianceDetector": VarianceDetector,
    "VarianceCascade": OneStep,
}
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "TierEstimator": lambda: TierEstimator(DEVICE, Tier.DEVICE),
    "TierEstimator edge": lambda: TierEstimator(EDGE, Tier.EDGE, alpha=1.0),
    "WaitEstimator": WaitEstimator,
    "LinkEstimator": lambda: LinkEstimator(LINK),
    "JointEstimator": lambda: JointEstimator((DEVICE, EDGE), LINK),
    "JointEstimator Ema": lambda: JointEstimator((DEVICE, EDGE), LINK, alpha=0.5, detector=Ema),
}


@pytest.mark.parametrize("check", scalar_checks)
@pytest.mark.parametrize("name", SCALARS)
def test_scalars(check: Callable[..., None], name: str) -> None:
    check(SCALARS[name])


@pytest.mark.parametrize("check", estimator_checks)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators(check: Callable[..., None], name: str) -> None:
    # its plain sister runs the full number
    few = check is check_memory_stays_bounded and (" " in name or not FULL)
    more: dict[str, Any] = {"updates": 10_000} if few else {}
    check(ESTIMATORS[name], **more)
