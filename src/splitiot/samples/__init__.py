"""A small real network and pictures for it: handwritten digits found on photographs (FOMO, 96 x 96).

The files are made by ``tools/train_fomo.py``; how good the network is stands in ``fomo.json``, where
everything comes from in ``ATTRIBUTION.md``, both beside the models. Nothing is read before it is asked for.

>>> fomo("float32").name
'fomo_float32.tflite'
>>> len(pictures())
6
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import msgspec

Precision = Literal["float32", "int8"]

__all__ = ["Picture", "fomo", "pictures", "threshold"]


@attrs.frozen
class Picture:
    """A test picture: 96 x 96 pixels, cut from a photograph that the network never saw in training.

    Attributes
    ----------
    name : str
        The photograph's name and a number.
    path : pathlib.Path
        A PNG file.
    centroids : tuple of (float, float)
        Where its digits are: (x, y) in pixels from the upper left corner.
    """

    name: str
    path: Path
    centroids: tuple[tuple[float, float], ...]


def fomo(precision: Precision = "int8") -> Path:
    """Path of the network's ``.tflite`` file.

    Parameters
    ----------
    precision : {"int8", "float32"}
        int8: input and output are int8 as well (``pixel - 128``); float32: input ``pixel / 255``. Both take
        (1, 96, 96, 3) and give (1, 12, 12, 2): scores of background and digit.

    Raises
    ------
    ValueError
        There is no such precision.
    FileNotFoundError
        The file is not there as a file (a damaged or a zipped installation).
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be 'int8' or 'float32', got {precision!r}")
    return _file(f"fomo_{precision}.tflite")


def pictures() -> tuple[Picture, ...]:
    """The pictures that come with the network, two from each held-out photograph.

    They are chosen among those that the network reads rightly, to show how it is used; how good it is stands
    in ``fomo.json``.
    """
    return tuple(
        Picture(
            name=row["name"],
            path=_file("pictures", row["file"]),
            centroids=tuple((float(x), float(y)) for x, y in row["centroids"]),
        )
        for row in _read("pictures", "labels.json")["pictures"]
    )


def threshold() -> float:
    """The least score of a detection: the one that did best on the validation pictures."""
    return float(_read("fomo.json")["threshold"])


def _file(*parts: str) -> Path:
    path = Path(__file__).parent.joinpath(*parts)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: splitiot must be installed unzipped, and completely")
    return path


def _read(*parts: str) -> Any:
    return msgspec.json.decode(_file(*parts).read_bytes())
