"""Inputs from files, and outputs to files, for ``splitiot run``."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from splitiot.cli._arrays import read_arrays
from splitiot.cli._errors import UsageError
from splitiot.cli._target import Target, model_inputs
from splitiot.errors import MalformedModel, ModelError, ProfileError, StepError, UnsupportedModel
from splitiot.models._random_input import blame_random_input

__all__ = ["Inputs", "blaming_random_input", "flatten", "inputs_of", "read_inputs", "write_outputs"]

_COUNT = 20


@frozen
class Inputs:
    """What is to be run.

    Parameters
    ----------
    sample : object
        A typical one, to measure with.
    values : iterator
    count : int, optional
        How many of them, unless told otherwise; all if None.
    random : bool
        Nobody gave one: they are random numbers.
    source : iterator, optional
        What the target's `inputs` gave: it may hold something, a camera say, until `close`.
    """

    sample: Any
    values: Iterator[Any]
    count: int | None = _COUNT
    random: bool = False
    source: Iterator[Any] | None = None

    def close(self, wait_s: float = 2.0) -> bool:
        """Close what gives the values; False if a thread that waits in it for the next one stays there."""
        close = getattr(self.source, "close", None)
        until_s = time.monotonic() + wait_s
        while close is not None:
            try:
                close()
            except ValueError:  # "generator already executing"
                if time.monotonic() >= until_s:
                    return False
                time.sleep(0.02)
            else:
                return True
        return True


def inputs_of(paths: Sequence[str], target: Target, seed: int) -> Inputs:
    """Take files in turn, or what the target's `inputs` gives, or its sample again and again.

    Raises
    ------
    UsageError
        As `read_inputs`, `Target.inputs` and `Target.sample` do.
    """
    if paths:
        read = read_inputs(paths, target)
        return Inputs(read[0], itertools.cycle(read))
    values = target.inputs()
    if values is None:
        sample = target.sample(seed)
        return Inputs(sample, itertools.repeat(sample), random=target.draws_sample)
    if target.has_sample:
        return Inputs(target.sample(seed), values, None, source=values)
    for first in values:
        return Inputs(first, itertools.chain([first], values), None, source=values)
    raise UsageError(f"inputs of {target.text} gives none")


@contextlib.contextmanager
def blaming_random_input(random: bool) -> Iterator[None]:
    """Say of a step that fails on a random input that this may be the input's fault.

    Raises
    ------
    ProfileError
        A network or a function failed.
    """
    try:
        yield
    except (ModelError, StepError) as error:
        if not random or isinstance(error, UnsupportedModel | MalformedModel):
            raise
        raise ProfileError(blame_random_input(error)) from error


def read_inputs(paths: Sequence[str], target: Target) -> list[Any]:
    """Read what to run: arrays (.npy), arrays by input name (.npz), or pictures.

    A picture becomes the input tensor of a network that takes (1, height, width, 3), in colour, or in grey
    (1, height, width, 1); functions get it as it is, an array of uint8 of shape (height, width, 3).

    Raises
    ------
    UsageError
        A file can't be read, or is no input of this target.
    """
    return [_read(path, target) for path in paths]


def _read(path: str, target: Target) -> Any:
    if not os.path.lexists(path):
        raise UsageError(f"there is no file {path}")
    value: Any
    try:
        if path.endswith((".npy", ".npz")):
            value = read_arrays(path)
        else:
            value = _picture(path, target)
        target.pipeline.bind(value)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from error
    return value


def _picture(path: str, target: Target) -> Any:
    from splitiot.vision import load_picture, to_tensor

    inputs = model_inputs(target.pipeline)
    if inputs is None:
        return load_picture(path, **_own_size(path))
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        shapes = ", ".join(str(list(spec.shape)) for spec in inputs)
        raise UsageError(f"{path}: {target.name} takes no picture, but {shapes}: give a .npy or .npz file")
    (spec,) = inputs
    pixels = load_picture(path, height=shape[1], width=shape[2])
    channels: Any = shape[3]
    return to_tensor(pixels, channels=channels, dtype=spec.dtype, scale=spec.scale, zero_point=spec.zero_point)


def _own_size(path: str) -> dict[str, int]:
    from PIL import Image, ImageOps

    from splitiot.vision import read_picture

    with Image.open(io.BytesIO(read_picture(path))) as image:
        width, height = ImageOps.exif_transpose(image).size
    return {"width": width, "height": height}


def flatten(value: Any, number: int) -> dict[str, Any]:
    """Return a result as arrays by name, for a .npz file: ``"000001"``, or ``"000001.NAME"`` where it has names.

    Raises
    ------
    UsageError
        It is not made of numbers.

    Examples
    --------
    >>> flatten({"grid": np.zeros(2)}, 3)
    {'000003.grid': array([0., 0.])}
    """
    named = value if isinstance(value, Mapping) else {"": value}
    arrays = {}
    for name, leaf in named.items():
        try:
            array = np.asarray(leaf)
        except ValueError:  # lists of different lengths
            array = np.asarray(None)
        if array.dtype.hasobject:
            raise UsageError(f"--save keeps arrays, but the result is of type {type(leaf).__name__}")
        arrays[f"{number:06d}.{name}" if name != "" else f"{number:06d}"] = array
    return arrays


def write_outputs(path: str, outputs: Mapping[str, Any]) -> None:
    """Write arrays to a .npz file, by exactly that name."""
    with open(path, "wb") as file:
        # the stubs think that any keyword may be allow_pickle
        np.savez(file, **outputs)
