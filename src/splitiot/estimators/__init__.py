"""What is believed about tiers and links, and when it no longer holds."""

from __future__ import annotations

from splitiot.estimators._base import Baseline, Belief, Beliefs, Detector, Freshness, Scalar, Staleness
from splitiot.estimators.cascade import VarianceCascade
from splitiot.estimators.cusum import LogCusum
from splitiot.estimators.ema import Ema
from splitiot.estimators.joint import JointEstimator
from splitiot.estimators.link import LinkEstimator
from splitiot.estimators.tier import TierEstimator, WaitEstimator
from splitiot.estimators.variance import VarianceDetector

__all__ = [
    "Baseline",
    "Belief",
    "Beliefs",
    "Detector",
    "Ema",
    "Freshness",
    "JointEstimator",
    "LinkEstimator",
    "LogCusum",
    "Scalar",
    "Staleness",
    "TierEstimator",
    "VarianceCascade",
    "VarianceDetector",
    "WaitEstimator",
]
