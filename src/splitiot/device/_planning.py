"""A device's planner: made once there is a profile, asked for each request, told what was measured."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from splitiot._log import logger
from splitiot.device._options import Options
from splitiot.errors import ProfileError
from splitiot.observation import Observation
from splitiot.pipeline import Tier
from splitiot.plan import Plan
from splitiot.planner import Planner
from splitiot.profiling import profile as measure
from splitiot.runner import Runner
from splitiot.session import DeviceSession
from splitiot.topology import TierProfile, Topology
from splitiot.wire import NextPlacement

__all__ = ["Planning"]

_GUESS: Final = 2.0  # the noise of a profile that was not measured
_EARLY: Final = 16
_NO_PROPOSAL: Final = (None, 0.0)


class Planning:
    """Chooses where each request is cut, within what the session knows of the edge.

    Parameters
    ----------
    options : Options
    session : DeviceSession
    planner : Planner, optional
        The user's own. Else one is made by `begin`.
    first_id : int
        Plans get ids behind this one.
    seed : int
    """

    def __init__(
        self, options: Options, session: DeviceSession, planner: Planner | None, *, first_id: int = 0, seed: int = 0
    ) -> None:
        self._options, self._session = options, session
        self._first_id, self._seed = first_id, seed
        self._limits: tuple[int, frozenset[int]] = (session.max_frame_bytes, frozenset())
        self._proposed: tuple[NextPlacement | None, float] = _NO_PROPOSAL
        # observations that came before there was a planner
        self._edge_profile: TierProfile | None = None
        self._early: deque[Observation] = deque(maxlen=_EARLY)
        self.planner = planner
        if planner is not None:
            self._restrict(planner)
            planner.number_behind(first_id)

    def own_profile(self, sample: Any, runner: Runner) -> TierProfile:
        """Return what the pipeline costs here: given, kept from before, or measured now, which takes a while."""
        options = self._options
        profile = self._session.profile or options.cache.load(options.pipeline, options.info)
        if profile is None:
            logger.info("measuring what the pipeline costs here")
            profile = measure(options.pipeline, sample, runner=runner, tier=Tier.DEVICE)
            options.cache.save(profile, options.pipeline, options.info)
        return profile

    def begin(self, own: TierProfile) -> None:
        """Make the planner."""
        options = self._options
        self._session.profile = own
        # until the edge sends its profile, assume that it is as fast as the device, and mark this as a guess
        topology = Topology(tiers=[own, evolve(own, noise=_GUESS)], links=[options.link])
        planner = Planner(
            options.pipeline,
            topology,
            options.policy,
            seed=self._seed,
            recorder=options.recorder,
            subject_to=options.subject_to,
        )
        self._restrict(planner)
        planner.number_behind(self._first_id)
        self._use_edge_profile(planner)
        planner.observe(*self._early, now_s=options.clock())
        self._early.clear()
        self.planner = planner

    def decide(self, now_s: float, deadline_s: float | None, telemetry: Mapping[str, float] | None) -> Plan:
        """Choose a placement.

        Raises
        ------
        Infeasible
        """
        planner, session = self.planner, self._session
        assert planner is not None
        up = session.edge_up(now_s)
        limits = (session.max_frame_bytes, session.too_large(now_s))
        if limits != self._limits:
            self._limits = limits
            planner.exclude(limits[1], sent_bytes=limits[0])
        if self._options.follow:
            self._proposed = session.take_next() or self._proposed
        proposal, until_s = self._proposed
        if up and proposal is not None and now_s < until_s:
            if proposal.probe:
                self._proposed = _NO_PROPOSAL  # it is to be tried once
            return planner.adopt(
                now_s,
                proposal.cuts[0],
                plan_id=proposal.plan_id,
                why=proposal.why,
                probe=proposal.probe,
                propensity=proposal.propensity,
                deadline_s=deadline_s,
                telemetry=telemetry,
            )
        plan = planner.decide(now_s, deadline_s=deadline_s, telemetry=telemetry, edge_up=up)
        why = self._why_local(plan) if up else self._why_down()
        return evolve(plan, decision=evolve(plan.decision, why=f"{plan.why}; {why}")) if why else plan

    def finish_s(self, cut: int) -> float | None:
        """How long the part behind a cut takes here, at worst; None where it can't be run here."""
        options = self._options
        if self.planner is None or not options.has_rest(cut):
            return None
        if not options.pipeline.runs_on(Tier.DEVICE, cut, options.pipeline.n):
            return None
        return self.planner.finish_s(cut)

    def observe(self, observation: Observation) -> None:
        """Learn from what was measured."""
        if self.planner is None:
            self._early.append(observation)
        else:
            self.planner.observe(observation, now_s=self._options.clock())

    def use_edge_profile(self, profile: TierProfile) -> None:
        """Learn what the pipeline costs on the edge."""
        self._edge_profile = profile
        if self.planner is not None:
            self._use_edge_profile(self.planner)

    def reset(self) -> None:
        """A stateful pipeline was reset: the cut may move."""
        self._session.take_next()
        self._proposed = _NO_PROPOSAL  # it kept to the old cut
        if self.planner is not None:
            self.planner.reset()

    def _why_local(self, plan: Plan) -> str:
        """Say why a plan had no choice although the edge is up; empty where it had one."""
        trouble = self._session.trouble
        if trouble is None or (plan.costs.mask & plan.costs.exchanges).any():
            return ""
        return f"all that could be sent is too large: {trouble.reason}"

    def _why_down(self) -> str:
        trouble = self._session.trouble
        return f"the edge can't be used: {self._session.why_down if trouble is None else trouble.reason}"

    def _restrict(self, planner: Planner) -> None:
        """Forbid what can't be run here; a planner of the user's may know the pipeline as it is with other kernels."""
        parts, legal = self._options.parts, self._options.pipeline.cuts
        cuts = set(planner.pipeline.cuts)
        if parts is not None:
            cuts &= {0, *(stop for start, stop in parts if start == 0)}
        if parts is not None or not cuts.issubset(legal):
            planner.restrict(cuts.intersection(legal))

    def _use_edge_profile(self, planner: Planner) -> None:
        if self._edge_profile is not None:
            with contextlib.suppress(ProfileError):
                planner.set_profile(1, self._edge_profile)
