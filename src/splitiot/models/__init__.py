"""Networks: reading, cutting and running .tflite files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitiot.models._array_pipeline import CuttablePipeline
    from splitiot.models.bundle import Bundle, load_bundle, save_bundle
    from splitiot.models.interpreters import available, open_interpreter
    from splitiot.models.keras import LayerPart, LayerPipeline, from_keras
    from splitiot.models.model import Model, load_model
    from splitiot.models.part import ModelPart
    from splitiot.models.verify import VerifyReport, verify_model

__all__ = [
    "Bundle",
    "CuttablePipeline",
    "LayerPart",
    "LayerPipeline",
    "Model",
    "ModelPart",
    "VerifyReport",
    "available",
    "from_keras",
    "load_bundle",
    "load_model",
    "open_interpreter",
    "save_bundle",
    "verify_model",
]

_WHERE = {
    "Bundle": "bundle",
    "CuttablePipeline": "_array_pipeline",
    "LayerPart": "keras",
    "LayerPipeline": "keras",
    "Model": "model",
    "ModelPart": "part",
    "VerifyReport": "verify",
    "available": "interpreters",
    "from_keras": "keras",
    "load_bundle": "bundle",
    "load_model": "model",
    "open_interpreter": "interpreters",
    "save_bundle": "bundle",
    "verify_model": "verify",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
