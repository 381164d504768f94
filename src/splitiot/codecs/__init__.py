"""How payloads are packed."""

from __future__ import annotations

from splitiot.codecs._base import MAX_DIMENSIONS, Codec, array_bytes
from splitiot.codecs.raw import Raw
from splitiot.pipeline import DTYPES

__all__ = ["DTYPES", "MAX_DIMENSIONS", "RAW", "Codec", "Raw", "array_bytes"]

RAW = Raw()
