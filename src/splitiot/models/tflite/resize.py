"""Other shapes for a network's inputs: what follows for all tensors is asked from an interpreter, in a child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from splitiot.errors import UnsupportedModel
from splitiot.models.tflite.anatomy import Anatomy
from splitiot.models.tflite.graph import MAX_RANK
from splitiot.models.tflite.writer import write_model

__all__ = ["resized"]


def resized(anatomy: Anatomy, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """Write the network again, with other shapes of its inputs, fixed for good.

    What the data decides stays open. Both sides of a split must ask for the same shapes: the file, and so
    the digest, is another one.

    Parameters
    ----------
    anatomy : Anatomy
        Of the subgraph whose inputs they are.
    shapes : mapping of str to sequence of int
        By the input's name.

    Raises
    ------
    UnsupportedModel
        There is no such input, its fixed sizes are others, or an interpreter does not run it like that.
    MissingDependencyError
        There is no interpreter to ask.
    """
    graph = anatomy.graph
    wanted: dict[int, tuple[int, ...]] = {}
    by_name = {anatomy.names[index]: index for index in graph.inputs}
    for name, asked in shapes.items():
        if name not in by_name:
            raise UnsupportedModel(f"the model has no input {name!r} to resize; it has {', '.join(by_name)}")
        shape = tuple(int(size) for size in asked)
        tensor = graph.tensors[by_name[name]]
        signature = tensor.signature or tensor.shape
        fits = len(shape) == len(signature) and all(s in (-1, d) for s, d in zip(signature, shape, strict=True))
        # a file that says nothing of its rank takes any
        if (signature and not fits) or min(shape, default=1) < 1 or len(shape) > MAX_RANK:
            raise UnsupportedModel(
                f"input {name!r} has the sizes {list(signature)}, where -1 is open: it can't be {list(shape)}"
            )
        wanted[by_name[name]] = shape
    table, tensors = anatomy.part_table(0, anatomy.n, graph.inputs, anatomy.liveness.results, baked=False)
    known = anatomy.ask_shapes(write_model(table), {tensors[index]: shape for index, shape in wanted.items()})
    model = anatomy.network.table
    changed = list(graph.table["tensors"])
    for index, new in tensors.items():
        tensor = graph.tensors[index]
        if new not in known or tensor.constant or tensor.variable or index in anatomy.shapes.varying:
            continue
        changed[index] = tensor.table.replace(shape=np.array(known[new], np.int32), shape_signature=None)
    graphs = list(model["subgraphs"])
    graphs[graph.index] = graph.table.replace(tensors=changed)
    return write_model(model.replace(subgraphs=graphs))
