"""Conformance kits: what a policy or an estimator must do, as plain functions to run over your own.

Each check takes a class, or a function without arguments that makes an object, and raises AssertionError with a
sentence that says what is wrong, with what input, and what to do. They need no test framework; with pytest::

    @pytest.mark.parametrize("check", si.testing.policy_checks)
    def test_mine(check):
        check(KeepBattery)

`simulate` runs devices and an edge on a virtual clock while networks, machines and clocks fail, with a policy or around
a transport of yours; see `splitiot.testing.simulation`.

There are four tuples of them, since the objects differ:

- `policy_checks`: for everything that ranks or decides, wrapped or not: ``check(lambda: Hysteresis(Mine()))``;
- `wrapper_checks`: besides, for policies that hold another one: ``check(MyWrapper)``, called with the policy to wrap;
- `scalar_checks`: for estimators of one number and for drift detectors, ``update(x)``;
- `estimator_checks`: for those that learn from observations, ``update(observation, now_s)``.

Examples
--------
>>> from splitiot import LeastLatency
>>> for check in policy_checks[:3]:
...     check(LeastLatency)
>>> [check.__name__ for check in policy_checks[:3]]
['check_chooses_only_allowed_rows', 'check_works_without_a_local_row', 'check_says_infeasible']
"""

from __future__ import annotations

from splitiot.testing._deployments import topology
from splitiot.testing.estimators import estimator_checks
from splitiot.testing.policies import policy_checks
from splitiot.testing.scalars import scalar_checks
from splitiot.testing.simulation import Report, simulate
from splitiot.testing.wrappers import wrapper_checks

__all__ = [
    "Report",
    "estimator_checks",
    "policy_checks",
    "scalar_checks",
    "simulate",
    "topology",
    "wrapper_checks",
]
