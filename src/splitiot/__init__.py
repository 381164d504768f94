"""Cut a computation in two: run its head on an IoT device, its tail on a server, and keep choosing where to cut.

Names are imported when they are first used, so that `import splitiot` costs numpy and little more. Their one list is
``__init__.pyi``, which type checkers read too.

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

from splitiot._lazy import attach_stub

__version__ = "0.5.0"

__getattr__, __dir__, __all__ = attach_stub(__name__, "__version__")
