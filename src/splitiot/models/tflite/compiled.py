"""Files that were compiled for an accelerator: their operators are one block."""

from __future__ import annotations

from splitiot.errors import UnsupportedModel
from splitiot.models.tflite.graph import Network

__all__ = ["refuse_compiled"]

_COMPILED = {
    "edgetpu-custom-op": (
        "compiled for the Edge TPU: its operators are one opaque block that can't be cut. Load the int8 .tflite file "
        "that edgetpu_compiler was given, cut that, and compile the parts"
    ),
    "ethos-u": (
        "compiled by Vela for an Ethos-U: its operators are one opaque block that can't be cut. Load the int8 .tflite "
        "file that vela was given, cut that, and compile the parts"
    ),
}


def refuse_compiled(network: Network) -> None:
    """Raise for a file that was compiled for an accelerator.

    Raises
    ------
    UnsupportedModel
    """
    for graph in network.graphs:
        for operator in graph.operators:
            for name, what in _COMPILED.items():
                if operator.custom == name:
                    raise UnsupportedModel(f"the model has {operator} and is {what}")
