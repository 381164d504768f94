"""The kit can be used by everybody: without extras, test frameworks or noise."""

from __future__ import annotations

import subprocess
import sys

import splitiot as si
from splitiot import testing


def test_it_is_reached_lazily_and_loads_no_test_framework() -> None:
    code = """
import sys, splitiot
before = "splitiot.testing" in sys.modules
checks = splitiot.testing.policy_checks
foreign = {name.partition(".")[0] for name in sys.modules} & {"pytest", "_pytest", "hypothesis", "unittest", "litert"}
print(before, len(checks) > 0, sorted(foreign))
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "False True []\n", ran.stderr


def test_names_are_readable_test_ids() -> None:
    for checks in (testing.policy_checks, testing.wrapper_checks, testing.scalar_checks, testing.estimator_checks):
        names = [check.__name__ for check in checks]
        assert len(names) == len(set(names))
        assert si.testing is testing


def test_observations_fit_the_topology() -> None:
    assert testing.topology() is testing.topology()
    assert {tier.n for tier in testing.topology().tiers} == {5}
