"""Bad networks on demand; logs of what planners did, and what other policies would have done."""

from __future__ import annotations

from splitiot.sim.replaying import Score, replay
from splitiot.sim.shaped_link import ShapedLink
from splitiot.sim.trace import Trace
from splitiot.sim.trace_reader import load_trace
from splitiot.sim.trace_writer import TraceWriter

__all__ = ["Score", "ShapedLink", "Trace", "TraceWriter", "load_trace", "replay"]
