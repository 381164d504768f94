"""The .tflite format, as pipelines of models use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splitiot.errors import MalformedModel, UnsupportedModel
from splitiot.models._format import AskShapes, Format
from splitiot.models.tflite.anatomy import Anatomy
from splitiot.models.tflite.compiled import refuse_compiled
from splitiot.models.tflite.graph import Network, decode
from splitiot.models.tflite.reader import IDENTIFIER, read_model
from splitiot.models.tflite.resize import resized
from splitiot.models.tflite.slice import METADATA
from splitiot.models.tflite.validate import validate

__all__ = ["TFLite"]


class TFLite(Format):
    """Files of TensorFlow Lite, which is LiteRT now."""

    def recognises(self, data: bytes) -> bool:
        return data[4:8] == IDENTIFIER

    def read(
        self,
        data: bytes,
        *,
        signature: str | None,
        ask_shapes: AskShapes,
        resize_input: Mapping[str, Sequence[int]] | None = None,
    ) -> tuple[bytes, Anatomy]:
        network = _network(data)
        key, index = _choose(network, signature)
        unchosen = signature is None
        anatomy = Anatomy(network, index, ask_shapes=ask_shapes, signature=key, unchosen=unchosen)
        if resize_input:
            data = resized(anatomy, resize_input)
            anatomy = Anatomy(_network(data), index, ask_shapes=ask_shapes, signature=key, unchosen=unchosen)
        return data, anatomy

    def read_part(self, data: bytes, *, ask_shapes: AskShapes) -> tuple[Anatomy, bytes]:
        network = decode(read_model(data))
        validate(network)
        for entry in network.table["metadata"] or ():
            if entry["name"] == METADATA:
                description = network.table["buffers"][entry["buffer"]]["data"]
                return Anatomy(network, 0, ask_shapes=ask_shapes), b"" if description is None else description.tobytes()
        raise MalformedModel("this .tflite file is no part of a model: cut one with Model.split and save it")


def _network(data: bytes) -> Network:
    network = decode(read_model(data))
    refuse_compiled(network)
    validate(network)
    return network


def _choose(network: Network, signature: str | None) -> tuple[str | None, int]:
    """The signature's key, and its subgraph."""
    if signature is None:
        return next((s.key for s in network.signatures if s.subgraph == 0), None), 0
    for candidate in network.signatures:
        if candidate.key == signature:
            return signature, candidate.subgraph
    names = ", ".join(repr(s.key) for s in network.signatures) or "none"
    raise UnsupportedModel(f"the model has no signature {signature!r}; it has {names}")
