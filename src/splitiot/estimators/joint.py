"""All that is believed of one device, its edge and the link between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from splitiot.estimators._base import Baseline, Beliefs, Detector, Staleness
from splitiot.estimators.cusum import LogCusum
from splitiot.estimators.deduplicator import Kind, ObservationDeduplicator
from splitiot.estimators.link import LinkEstimator
from splitiot.estimators.tier import TierEstimator, WaitEstimator
from splitiot.observation import Observation
from splitiot.pipeline import Tier
from splitiot.topology import Link, TierProfile

__all__ = ["JointEstimator"]


class JointEstimator:
    """Gives each part of an observation, once, to the estimator that it concerns.

    Parameters
    ----------
    profiles : (TierProfile, TierProfile)
        Of device and edge.
    link : Link
        Believed until there are samples.
    alpha : float
        Of both tiers; see `TierEstimator`.
    detector : callable
        Makes the drift detectors; see `Level`.

    Attributes
    ----------
    device, edge : TierEstimator
    wait : WaitEstimator
    link : LinkEstimator
    deduplicator : ObservationDeduplicator
    """

    __slots__ = ("_vector", "deduplicator", "device", "edge", "link", "wait")

    def __init__(
        self,
        profiles: Sequence[TierProfile],
        link: Link,
        *,
        alpha: float = 0.2,
        detector: Callable[[], Detector] = LogCusum,
    ) -> None:
        self.device = TierEstimator(profiles[0], Tier.DEVICE, alpha=alpha, detector=detector)
        self.edge = TierEstimator(profiles[1], Tier.EDGE, alpha=alpha, detector=detector)
        self.wait = WaitEstimator()
        self.link = LinkEstimator(link, detector=detector)
        self.deduplicator = ObservationDeduplicator()
        self._vector: NDArray[np.float64] | None = None

    def update(self, observation: Observation, now_s: float) -> bool:
        """Take an observation; say whether anything in it was new."""
        new = self.deduplicator.take(observation)
        if not new:
            return False
        if new & (Kind.HEAD | Kind.LOCAL):
            own = msgspec.structs.replace(
                observation,
                head_s=observation.head_s if new & Kind.HEAD else None,
                local_s=observation.local_s if new & Kind.LOCAL else None,
            )
            self.device.update(own, now_s)
        if new & Kind.TAIL:
            self.edge.update(observation, now_s)
        if new & Kind.WAIT:
            self.wait.update(observation, now_s)
        if new & (Kind.EXCHANGE | Kind.BOUND):
            edge_s = 0.0
            if new & Kind.BOUND and not observation.probe and 0 <= observation.cut <= self.edge.profile.n:
                edge_s = self.edge.get() * float(self.edge.profile.tails_s[observation.cut])
            self.link.update(observation, now_s, edge_s)
        self._vector = None
        return True

    def vector(self, now_s: float) -> NDArray[np.float64]:
        """Return device and edge factor, 1/up, 1/down, rtt_s, wait_s; read-only, a new array where they changed."""
        vector = self._vector
        wait_s = self.wait.get(now_s)
        if vector is None or vector[5] != wait_s:
            up, down, rtt_s = self.link.costs()
            vector = self._vector = np.array(
                (
                    self.device.get(),
                    self.edge.get(),
                    up,
                    down,
                    rtt_s,
                    wait_s,
                )
            )
            vector.flags.writeable = False  # plans keep it
        return vector

    @property
    def curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of heads on the device and of tails on the edge at factor 1, shape (n + 1,) each."""
        return self.device.heads_s, self.edge.tails_s

    def staleness(self, now_s: float) -> Staleness:
        """Return what says whether something should be measured again."""
        device, edge, link = self.device, self.edge, self.link
        return Staleness(
            device.freshness(now_s),
            edge.freshness(now_s),
            link.freshness(now_s),
            Baseline(device.baseline, edge.baseline, *link.baseline),
            device.awaiting_confirmation or edge.awaiting_confirmation or link.awaiting_confirmation,
        )

    def beliefs(self, now_s: float) -> Beliefs:
        """Return all beliefs with their spreads, ages and numbers of samples."""
        return Beliefs(
            device=self.device.belief(now_s),
            edge=self.edge.belief(now_s),
            rtt_s=self.link.rtt_belief(now_s),
            up_bytes_per_s=self.link.up_belief(now_s),
            down_bytes_per_s=self.link.down_belief(now_s),
            wait_s=self.wait.belief(now_s),
        )

    def set_profile(self, tier_index: int, profile: TierProfile) -> None:
        """Take another profile of a tier (0 is the device); its factor starts again at 1."""
        (self.device, self.edge)[tier_index].set_profile(profile)
        self._vector = None

    @property
    def refused(self) -> int:
        """How many numbers were refused: not finite, negative, impossible, or retransmitted."""
        return self.device.refused + self.edge.refused + self.wait.refused + self.link.refused

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "device": self.device.snapshot(),
            "edge": self.edge.snapshot(),
            "wait": self.wait.snapshot(),
            "link": self.link.snapshot(),
            "deduplicator": self.deduplicator.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `snapshot` returned."""
        self.device.restore(state["device"])
        self.edge.restore(state["edge"])
        self.wait.restore(state["wait"])
        self.link.restore(state["link"])
        self.deduplicator.restore(state["deduplicator"])
        self._vector = None
