"""Keras models: converted whole and then cut between operators, or cut between layers."""

from __future__ import annotations

from splitiot.models.keras._from_keras import from_keras
from splitiot.models.keras._pipeline import LayerPart, LayerPipeline

__all__ = ["LayerPart", "LayerPipeline", "from_keras"]
