"""Cut a computation in two: run its head on an IoT device, its tail on a server, and keep choosing where to cut.

Names are imported when they are first used, so that `import splitiot` costs numpy and little more.

Examples
--------
>>> import splitiot as si
>>> def halve(x): return x / 2
>>> def square(x): return x * x
>>> pipeline = si.tasks([halve, square])
>>> measured = dict(sent_bytes=[8e3, 4e3, 0], returned_bytes=[8, 8, 0])
>>> device = si.TierProfile.from_steps(pipeline.digest, [0.010, 0.200], **measured)
>>> link = si.Link.from_mbit_per_s(1, rtt_s=0.01)
>>> plan = si.solve(pipeline, si.Topology(tiers=[device, device.scaled(0.1)], links=[link]))
>>> plan.cut
1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitiot import errors, samples, sim, testing, vision
    from splitiot.adapters.http import HttpTransport
    from splitiot.cost import AtMost, Costs, StepsOnDevice, costs
    from splitiot.device import Device
    from splitiot.edge import EdgeService
    from splitiot.errors import SplitiotError
    from splitiot.functions import task, tasks
    from splitiot.limits import Limits
    from splitiot.link_probe import fetch_profile, measure_link
    from splitiot.models import Bundle, Model, from_keras, load_bundle, load_model, save_bundle
    from splitiot.observation import EdgeTimes, Observation
    from splitiot.pipeline import DROP, Boundary, Drop, Pipeline, Placement, Runtime, Step, Tier
    from splitiot.plan import Outcome, Plan
    from splitiot.planner import Planner
    from splitiot.policies import (
        Best,
        Context,
        Deadline,
        Decision,
        Fixed,
        Hysteresis,
        LeastLatency,
        LocalMode,
        Policy,
        Ranking,
        RetestOnDrift,
        StaleProbe,
        ThroughputTarget,
        Wrapper,
        adaptive,
    )
    from splitiot.profiling import profile
    from splitiot.runner import Runner
    from splitiot.session import Trouble
    from splitiot.solver import solve
    from splitiot.telemetry import DeviceLoad
    from splitiot.topology import Link, TierProfile, Topology
    from splitiot.transports import InMemory, RoundTrip, Transport

__version__ = "0.1.0"

__all__ = [
    "DROP",
    "AtMost",
    "Best",
    "Boundary",
    "Bundle",
    "Context",
    "Costs",
    "Deadline",
    "Decision",
    "Device",
    "DeviceLoad",
    "Drop",
    "EdgeService",
    "EdgeTimes",
    "Fixed",
    "HttpTransport",
    "Hysteresis",
    "InMemory",
    "LeastLatency",
    "Limits",
    "Link",
    "LocalMode",
    "Model",
    "Observation",
    "Outcome",
    "Pipeline",
    "Placement",
    "Plan",
    "Planner",
    "Policy",
    "Ranking",
    "RetestOnDrift",
    "RoundTrip",
    "Runner",
    "Runtime",
    "SplitiotError",
    "StaleProbe",
    "Step",
    "StepsOnDevice",
    "ThroughputTarget",
    "Tier",
    "TierProfile",
    "Topology",
    "Transport",
    "Trouble",
    "Wrapper",
    "__version__",
    "adaptive",
    "costs",
    "errors",
    "fetch_profile",
    "from_keras",
    "load_bundle",
    "load_model",
    "measure_link",
    "profile",
    "samples",
    "save_bundle",
    "sim",
    "solve",
    "task",
    "tasks",
    "testing",
    "vision",
]

_HOMES = {
    "adapters.http": ("HttpTransport",),
    "cost": ("AtMost", "Costs", "StepsOnDevice", "costs"),
    "device": ("Device",),
    "edge": ("EdgeService",),
    "errors": ("SplitiotError",),
    "functions": ("task", "tasks"),
    "limits": ("Limits",),
    "link_probe": ("fetch_profile", "measure_link"),
    "models": ("Bundle", "Model", "from_keras", "load_bundle", "load_model", "save_bundle"),
    "observation": ("EdgeTimes", "Observation"),
    "pipeline": ("DROP", "Boundary", "Drop", "Pipeline", "Placement", "Runtime", "Step", "Tier"),
    "plan": ("Outcome", "Plan"),
    "planner": ("Planner",),
    "policies": (
        "Best",
        "Context",
        "Deadline",
        "Decision",
        "Fixed",
        "Hysteresis",
        "LeastLatency",
        "LocalMode",
        "Policy",
        "Ranking",
        "RetestOnDrift",
        "StaleProbe",
        "ThroughputTarget",
        "Wrapper",
        "adaptive",
    ),
    "profiling": ("profile",),
    "runner": ("Runner",),
    "session": ("Trouble",),
    "solver": ("solve",),
    "telemetry": ("DeviceLoad",),
    "topology": ("Link", "TierProfile", "Topology"),
    "transports": ("InMemory", "RoundTrip", "Transport"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("errors", "samples", "sim", "testing", "vision"):
        return import_module(f"splitiot.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'splitiot' has no attribute {name!r}")
    value = getattr(import_module(f"splitiot.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
