"""A policy around another one."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakSet

from attrs import field, frozen

from splitiot._log import logger
from splitiot.observation import Observation
from splitiot.policies._base import Context, Decision, Policy, Ranking, asked, checked

__all__ = ["Wrapper"]

_KNOWN: Final[WeakSet[type[Policy]]] = WeakSet()  # of these a warning was logged


@frozen
class Wrapper(Policy):
    """Ask another policy, and revise what it decides, within what it permits.

    Write `revise` and nothing else: probes and lessons are passed on, and so is each decision without a ranking, since
    nobody can tell what such a policy wants (a warning is logged once). A decision that leaves the ranking can't be
    made. Wrappers can be put around each other in any order.

    Parameters
    ----------
    policy : Policy
        It is asked each time, whatever the wrapper makes of it.

    Examples
    --------
    >>> from attrs import evolve, frozen
    >>> @frozen
    ... class AwayFromHome(Wrapper):
    ...     def revise(self, context, inner, ranking):
    ...         row = context.local_row
    ...         if context.telemetry.get("at_home", 1.0) or row is None or not ranking.allows(row):
    ...             return inner
    ...         return evolve(inner, row=row, why="no link out there")
    """

    policy: Policy = field(validator=lambda _, __, policy: checked(policy))

    def rank(self, context: Context) -> Ranking:
        """Return the ranking of the policy inside: it is this one's too."""
        return self.policy.rank(context)

    def decide(self, context: Context) -> Decision:
        inner = asked(self.policy, context)
        ranking = inner.ranking
        if ranking is None:
            if not inner.probe:
                self._warn(
                    "it only decides. Let it return a ranking, rank(self, context) -> context.ranked(...), "
                    "or context.best() from decide"
                )
            return inner
        revised = self.revise(context, inner, ranking)
        return inner if inner.probe else revised

    def revise(self, context: Context, inner: Decision, ranking: Ranking) -> Decision:
        """Return `inner`, or another decision that carries its ranking: ``attrs.evolve(inner, row=..., why=...)``.

        Of a probe it is told for its notes' sake: the probe is made, whatever it returns.

        Parameters
        ----------
        context : Context
        inner : Decision
        ranking : Ranking
            Of `inner`: what the policy inside wants, and which rows it permits.
        """
        return inner

    def learn(self, observation: Observation, memory: dict[str, Any]) -> None:
        """Pass it on. Who learns too calls this first: ``super().learn(observation, memory)``."""
        self.policy.learn(observation, memory)

    def _warn(self, why: str) -> None:
        """Say once of a kind of policy that nothing can be done for it."""
        kind = type(self.policy)
        if kind in _KNOWN or isinstance(self.policy, Wrapper):  # the inner one has said so
            return
        _KNOWN.add(kind)
        logger.warning(
            "%s passes the decisions of %s on as they are, and makes no probe beside them: %s",
            type(self).__name__,
            kind.__name__,
            why,
        )
