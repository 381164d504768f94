"""Networks: reading, cutting and running .tflite files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitiot.models.interpreters import available, open_interpreter
    from splitiot.models.model import Model, load_model
    from splitiot.models.part import ModelPart
    from splitiot.models.verify import VerifyReport, verify_model

__all__ = [
    "Model",
    "ModelPart",
    "VerifyReport",
    "available",
    "load_model",
    "open_interpreter",
    "verify_model",
]

_WHERE = {
    "Model": "model",
    "ModelPart": "part",
    "VerifyReport": "verify",
    "available": "interpreters",
    "load_model": "model",
    "open_interpreter": "interpreters",
    "verify_model": "verify",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
