"""Which Keras layers an operator was made of, as far as the names of its tensors tell."""

from __future__ import annotations

import re

from splitiot.pipeline import Chain, Pipeline

__all__ = ["layer_names", "layers_in"]

# what Keras calls a model that got no name
_UNNAMED = re.compile(r"(functional|sequential|model)(_\d+)*")


def layer_names(pipeline: Pipeline) -> tuple[tuple[str, ...], ...]:
    """Name the Keras layers behind each step; () where they are not known.

    Examples
    --------
    >>> import splitiot as si
    >>> layer_names(si.load_model(si.samples.fomo()))[0]
    ('Conv1_relu_1', 'bn_Conv1_1', 'Conv1_1')
    """
    if isinstance(pipeline, Chain):
        return tuple(names for link in pipeline.links for names in layer_names(link))
    if hasattr(pipeline, "layers"):  # of a LayerPipeline
        return tuple((name,) for name in pipeline.layers)
    model = str(getattr(pipeline, "name", ""))
    return tuple(() if step.kind == "task" else layers_in(step.name, model) for step in pipeline.steps)


def layers_in(name: str, model: str = "") -> tuple[str, ...]:
    """Read the layers from a tensor's name, the last one first, as converters write them.

    They are there where the converter was given a Keras model, as ``"model/layer/operation"``, joined by semicolons
    where operators were fused. `splitiot.models.from_keras` keeps the layers' own names; other files may have a number
    behind.

    Parameters
    ----------
    name : str
    model : str, optional
        The Keras model's name. Otherwise only names that Keras gives to models without one are taken for models.

    Examples
    --------
    >>> layers_in("functional_1/relu/Relu;functional_1/conv/BiasAdd;functional_1/conv/Conv2D")
    ('relu', 'conv')
    >>> layers_in("non_max_suppression/NonMaxSuppressionV3")
    ()
    """
    paths = [path.split("/") for path in name.split(";")]
    known = [p[1] for p in paths if len(p) > 2 and p[1] and (p[0] == model or _UNNAMED.fullmatch(p[0]))]
    return tuple(dict.fromkeys(known))
