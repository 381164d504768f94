"""What is believed about tiers and links."""

from __future__ import annotations

from splitiot.estimators._base import Belief, Beliefs, Scalar
from splitiot.estimators.ema import Ema
from splitiot.estimators.joint import JointEstimator
from splitiot.estimators.link import LinkEstimator
from splitiot.estimators.tier import TierEstimator, WaitEstimator

__all__ = ["Belief", "Beliefs", "Ema", "JointEstimator", "LinkEstimator", "Scalar", "TierEstimator", "WaitEstimator"]
