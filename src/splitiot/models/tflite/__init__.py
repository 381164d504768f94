"""The .tflite format: tables, networks, and where they can be cut."""

from __future__ import annotations

__all__: list[str] = []
