"""Bad networks on demand."""

from __future__ import annotations

from splitiot.sim.shaped_link import ShapedLink

__all__ = ["ShapedLink"]
