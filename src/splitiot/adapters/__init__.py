"""Transports (`splitiot.transports.Transport`) and servers over real protocols, a folder each. A new one goes here.

The core never imports them; what needs a package has an extra.
"""

from __future__ import annotations

__all__: list[str] = []
