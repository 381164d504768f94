"""Transports and servers over real protocols, each behind an extra. The core never imports them."""

from __future__ import annotations

__all__: list[str] = []
