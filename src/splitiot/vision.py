"""Helpers around a vision network: picture -> input tensor, output grid -> centroids.

numpy only; reading and drawing pictures needs Pillow (the extra ``vision``), loaded when first used.

>>> import numpy as np
>>> grid = np.zeros((1, 12, 12, 2), dtype=np.float32)      # FOMO on 96 x 96: cells of 8 pixels
>>> grid[0, 3, 4, 1], grid[0, 3, 5, 1] = 0.75, 0.75
>>> centroids(grid)
[Detection(x=40.0, y=28.0, score=0.75, label=1)]
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from splitiot._files import read_bounded
from splitiot.errors import MissingDependencyError

if TYPE_CHECKING:
    from PIL import Image

ByteOrder = Literal["big", "little"]
Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

__all__ = [
    "Detection", "centroids", "dequantize", "draw", "load_picture", "rgb565_to_rgb888", "rgb888_to_rgb565",
    "to_tensor",
]  # fmt: skip

# Pillow's own limit of 89 Mpixel only warns; a 96 x 96 input has no use for more than this.
_MAX_PIXELS = 89_000_000
_MOST_BYTES = 1 << 28
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"})


@attrs.frozen
class Detection:
    """One thing that a grid shows.

    Attributes
    ----------
    x, y : float
        Centroid in pixels of the network's input; (0, 0) is the upper left corner of the picture.
    score : float
        The highest score among the merged cells, 0..1.
    label : int or str
        The class: its channel in the grid, or its name where names were given.
    """

    x: float
    y: float
    score: float
    label: int | str


def read_picture(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a picture's file; ValueError where it is no file, or too large."""
    return read_bounded(path, most_bytes=_MOST_BYTES, what="a picture", error=ValueError)


def load_picture(path: str | os.PathLike[str], *, width: int = 96, height: int = 96) -> Pixels:
    """Read a picture file, crop its middle to the wanted aspect ratio and scale it.

    Parameters
    ----------
    path : path
        PNG, JPEG or what else Pillow reads, 8 bits a channel. A turned-camera flag (EXIF) is obeyed,
        transparency dropped.
    width, height : int
        Wanted size in pixels.

    Returns
    -------
    array of uint8, shape (height, width, 3)
        RGB. A picture that has the wanted size already comes out unchanged.

    Raises
    ------
    MissingDependencyError, FileNotFoundError
        Pillow is not installed; no such file.
    ValueError
        Not a picture, too large, or not 8 bits a channel.
    """
    _size(width, height)
    name = os.fspath(path)
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise MissingDependencyError("Pillow", "vision") from error
    data = read_picture(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
            if size[0] * size[1] > _MAX_PIXELS:
                raise ValueError(f"{name!r}: {size} is over {_MAX_PIXELS} pixels: scale it down first")
            if image.mode not in _EIGHT_BIT_MODES:
                raise ValueError(f"{name!r}: mode {image.mode!r} is not 8 bits a channel: convert it first")
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{name!r} is not a picture that can be read: {error}") from error
    shrink = min(upright.width / width, upright.height / height)
    wide, high = max(1, round(width * shrink)), max(1, round(height * shrink))
    left, top = (upright.width - wide) // 2, (upright.height - high) // 2
    # Cropped first: resize(box=...) would let pixels from outside the box bleed in.
    middle = upright.crop((left, top, left + wide, top + high))
    return np.array(middle.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)


def rgb565_to_rgb888(
    data: bytes | bytearray | memoryview | Array, *, width: int, height: int, byte_order: ByteOrder
) -> Pixels:
    r"""Expand 16-bit pixels, as camera modules send them, to 24 bits.

    The high bits are repeated in the low ones, so 0 becomes 0 and the largest value 255:
    ``r8 = r5 << 3 | r5 >> 2``, ``g8 = g6 << 2 | g6 >> 4``.

    Parameters
    ----------
    data : bytes-like or array of uint8
        ``width * height * 2`` bytes, rows from the top, red in the high 5 bits, then green (6), blue (5).
    width, height : int
        In pixels.
    byte_order : {"big", "little"}
        Order of the two bytes of a pixel. It is not in the data and must be known: an OV2640's frame buffer
        is big-endian.

    Returns
    -------
    array of uint8, shape (height, width, 3)

    Raises
    ------
    TypeError, ValueError
        An array that is not uint8 (wider items have a byte order of their own); a wrong number of bytes.

    Examples
    --------
    >>> rgb565_to_rgb888(b"\xf8\x00", width=1, height=1, byte_order="big").tolist()
    [[[255, 0, 0]]]
    """
    _size(width, height)
    order = _order(byte_order)
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8:
            raise TypeError(f"RGB565 data is bytes or an array of uint8, not {data.dtype}: .view(np.uint8)")
        raw = np.ascontiguousarray(data).reshape(-1)
    else:
        raw = np.frombuffer(data, dtype=np.uint8)
    if raw.nbytes != width * height * 2:
        raise ValueError(f"{width} x {height} RGB565 pixels are {width * height * 2} bytes, got {raw.nbytes}")
    packed = raw.view(order).reshape(height, width)
    red, green, blue = packed >> 11, packed >> 5 & 0x3F, packed & 0x1F
    out = np.empty((height, width, 3), dtype=np.uint8)
    out[..., 0] = red << 3 | red >> 2
    out[..., 1] = green << 2 | green >> 4
    out[..., 2] = blue << 3 | blue >> 2
    return out


def rgb888_to_rgb565(picture: Array, *, byte_order: ByteOrder) -> bytes:
    """Pack 24-bit pixels into 16 bits, dropping the low bits as cameras do.

    It undoes `rgb565_to_rgb888` exactly; the other way round, red and blue lose up to 7, green up to 3.

    Parameters
    ----------
    picture : array of uint8, shape (height, width, 3)
    byte_order : {"big", "little"}

    Returns
    -------
    bytes
        ``height * width * 2`` of them.

    Raises
    ------
    TypeError, ValueError
        Not a picture, or an unknown byte order.

    Examples
    --------
    >>> rgb888_to_rgb565(np.array([[[255, 0, 0]]], dtype=np.uint8), byte_order="little").hex()
    '00f8'
    """
    order = _order(byte_order)
    wide = _picture(picture).astype(np.uint16)
    packed = (wide[..., 0] >> 3) << 11 | (wide[..., 1] >> 2) << 5 | wide[..., 2] >> 3
    return packed.astype(order).tobytes()


def to_tensor(
    picture: Array,
    *,
    channels: Literal[1, 3] | None = None,
    dtype: npt.DTypeLike = "float32",
    scale: float | None = None,
    zero_point: int | None = None,
) -> Array:
    """Turn a picture into a network's input tensor, for networks that take ``pixel / 255``.

    Parameters
    ----------
    picture : array of uint8, shape (height, width, 3), (height, width, 1) or (height, width)
        In colour, or grey.
    channels : {1, 3}, optional
        Of the tensor: 1 makes a coloured picture grey, 3 repeats a grey one. As the picture has, unless given.
    dtype : dtype
        "float32", or the integer type of a quantised input.
    scale, zero_point : float and int, optional
        The input tensor's quantisation: ``real = (stored - zero_point) * scale``. If both are left out, 1/255
        with -128 (int8) or 0 (uint8); other integer types need them.

    Returns
    -------
    array of `dtype`, shape (1, height, width, channels)
        float32: ``pixel / 255``. Integers: ``round(pixel / 255 / scale) + zero_point``, halves rounded up,
        clipped to what the type can hold.

    Raises
    ------
    TypeError, ValueError
        Not a picture, a type that can't be served, or a quantisation that makes no sense.

    Notes
    -----
    Grey is the luma of ITU-R BT.601, ``0.299 red + 0.587 green + 0.114 blue``, not rounded to whole levels: what Edge
    Impulse's libraries give to networks with one channel.

    Examples
    --------
    >>> white = np.full((1, 1, 3), 255, dtype=np.uint8)
    >>> to_tensor(white).tolist(), to_tensor(white, dtype="int8").tolist()
    ([[[[1.0, 1.0, 1.0]]]], [[[[127, 127, 127]]]])
    >>> red = np.array([[[255, 0, 0]]], dtype=np.uint8)
    >>> to_tensor(red, channels=1).shape, to_tensor(red, channels=1, dtype="int8").tolist()
    ((1, 1, 1, 1), [[[[-52]]]])
    """
    picture = _picture(picture[..., None] if getattr(picture, "ndim", 0) == 2 else picture, grey=True)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}")
    if channels == 3 and picture.shape[2] == 1:
        picture = picture.repeat(3, axis=2)
    mixes = channels == 1 and picture.shape[2] == 3
    wanted = np.dtype(dtype)
    levels = np.arange(256, dtype=np.float64) / 255
    if wanted == np.float32:
        if scale is not None or zero_point is not None:
            raise ValueError("a float32 tensor has no scale and no zero point: ask for an integer dtype")
        real: Array = (_luma(picture) / 255).astype(np.float32) if mixes else levels.astype(np.float32).take(picture)
        return real[None]
    if wanted.kind not in "iu" or wanted.itemsize > 2:
        raise TypeError(f"dtype must be float32, int8, uint8, int16 or uint16, not {wanted}")
    if scale is None and zero_point is None and wanted.itemsize == 1:
        scale, zero_point = 1 / 255, int(np.iinfo(wanted).min)
    scale, zero_point = _quantisation(scale, zero_point, f"a tensor of {wanted}")
    limits = np.iinfo(wanted)

    def quantised(real: npt.NDArray[np.float64]) -> Array:
        stored: Array = np.clip(np.floor(real / scale + 0.5) + zero_point, limits.min, limits.max).astype(wanted)
        return stored

    if mixes:
        return quantised(_luma(picture) / 255)[None]
    # A picture has 256 levels: quantising them once is exact and much cheaper than quantising each pixel.
    tensor: Array = quantised(levels).take(picture)[None]
    return tensor


def _luma(picture: Pixels) -> npt.NDArray[np.float64]:
    red, green, blue = (picture[..., k : k + 1].astype(np.float64) for k in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def dequantize(array: Array, scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Real values of a quantised tensor: ``(stored - zero_point) * scale``.

    Parameters
    ----------
    array : array of integers, any shape
    scale, zero_point : float and int
        The tensor's quantisation (one for the whole tensor).

    Returns
    -------
    array of float32, same shape

    Raises
    ------
    TypeError, ValueError
        Not integers, or a quantisation that makes no sense.

    Examples
    --------
    >>> dequantize(np.array([-128, 0, 127], dtype=np.int8), 1 / 256, -128).tolist()
    [0.0, 0.5, 0.99609375]
    """
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise TypeError(f"only integers can be dequantized, got {array.dtype}")
    scale, zero_point = _quantisation(scale, zero_point, "dequantize")
    return ((array.astype(np.float64) - zero_point) * scale).astype(np.float32)


def centroids(
    grid: Array,
    *,
    threshold: float = 0.5,
    cell_px: float = 8,
    scale: float | None = None,
    zero_point: int | None = None,
    labels: Sequence[str] | None = None,
) -> list[Detection]:
    """Read the detections out of a FOMO-style grid of class scores.

    Cells of one class that reach the threshold and touch, also at a corner, are one detection; its place is
    the mean of the cells' centres weighted by their scores, its score the highest of theirs.

    Parameters
    ----------
    grid : array, shape (h, w, c) or (1, h, w, c)
        Scores 0..1, channel 0 is the background; or their quantised form.
    threshold : float
        Least score, in (0, 1].
    cell_px : float
        Size of a cell in pixels of the network's input.
    scale, zero_point : float and int, optional
        The output tensor's quantisation; needed for integers, refused for floats.
    labels : sequence of str, optional
        A name for each channel, the background's included.

    Returns
    -------
    list of Detection
        The best score first; equal scores from top to bottom, left to right.

    Raises
    ------
    TypeError, ValueError
        A wrong shape or type, NaN, or arguments that don't fit each other.

    Examples
    --------
    >>> grid = np.full((12, 12, 2), -128, dtype=np.int8)
    >>> grid[0, 0, 1] = 64
    >>> centroids(grid, scale=1 / 256, zero_point=-128, labels=["background", "digit"])
    [Detection(x=4.0, y=4.0, score=0.75, label='digit')]
    """
    grid = np.asarray(grid)
    if grid.ndim == 4 and grid.shape[0] == 1:
        grid = grid[0]
    if grid.ndim != 3 or grid.shape[2] < 2:
        raise ValueError(f"a grid has shape (h, w, c) or (1, h, w, c) with c >= 2, got {grid.shape}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    if not (np.isfinite(cell_px) and cell_px > 0):
        raise ValueError(f"cell_px must be positive, got {cell_px}")
    if labels is not None and len(labels) != grid.shape[2]:
        raise ValueError(f"the grid has {grid.shape[2]} channels (background included), got {len(labels)} labels")
    if grid.dtype.kind in "iu":
        scores = dequantize(grid, *_quantisation(scale, zero_point, f"a grid of {grid.dtype}"))
    elif grid.dtype.kind == "f":
        if scale is not None or zero_point is not None:
            raise ValueError("a grid of floats has no scale and no zero point: leave them out")
        scores = grid.astype(np.float32, copy=False)
    else:
        raise TypeError(f"a grid holds floats or integers, not {grid.dtype}")
    if not np.isfinite(scores).all():
        raise ValueError("the grid holds NaN or infinity: the network or its input is broken")

    detections: list[Detection] = []
    for channel in range(1, scores.shape[2]):
        plane = scores[..., channel]
        label: int | str = channel if labels is None else labels[channel]
        for cells in _components(plane >= np.float32(threshold)):
            weights = np.array([plane[cell] for cell in cells], dtype=np.float64)
            row, column = (np.array(cells, dtype=np.float64) + 0.5).T @ weights / weights.sum() * cell_px
            detections.append(Detection(float(column), float(row), float(weights.max()), label))
    return sorted(detections, key=lambda d: (-d.score, d.y, d.x))


def draw(picture: Array, detections: Iterable[Detection], *, zoom: int = 4) -> Image.Image:
    """Draw detections on an enlarged picture: a circle and the score, with the label if it has a name.

    Parameters
    ----------
    picture : array of uint8, shape (height, width, 3)
        What the network saw.
    detections : iterable of Detection
    zoom : int
        Factor of enlargement, 1..32.

    Returns
    -------
    PIL.Image.Image
        RGB, ``zoom`` times as large.

    Raises
    ------
    MissingDependencyError, TypeError, ValueError
        Pillow is not installed; not a picture; a wrong zoom.
    """
    try:
        from PIL import Image, ImageDraw
    except ModuleNotFoundError as error:
        raise MissingDependencyError("Pillow", "vision") from error
    picture = _picture(picture)
    if not 1 <= zoom <= 32:
        raise ValueError(f"zoom must be in 1..32, got {zoom}")
    height, width = picture.shape[:2]
    canvas = Image.fromarray(picture).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    radius = 8 * zoom
    for d in detections:
        x, y = d.x * zoom, d.y * zoom
        box = (x - radius, y - radius, x + radius, y + radius)
        # Dark below light: visible on any background.
        pen.ellipse(box, outline=(0, 0, 0), width=max(3, zoom))
        pen.ellipse(box, outline=(0, 255, 128), width=max(1, zoom // 2))
        text = f"{d.score:.2f}" if isinstance(d.label, int) else f"{d.label} {d.score:.2f}"
        left, _, right, bottom = pen.textbbox((0, 0), text)
        text_x = min(max(x - (right - left) / 2, 1), width * zoom - (right - left) - 1)
        above, below = y - radius - bottom - 1, min(y + radius + 1, height * zoom - bottom - 1)
        text_y = above if above >= 0 else below
        pen.text((text_x, text_y), text, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return canvas


def _components(mask: npt.NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Cells of a mask (h, w) grouped by 8-connection."""
    left = {(int(r), int(c)): None for r, c in zip(*np.nonzero(mask), strict=True)}
    groups = []
    while left:
        group = [left.popitem()[0]]
        for row, column in group:  # grows while it is walked
            near = [(row + dr, column + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)]
            group += [cell for cell in near if left.pop(cell, cell) is None]  # None: it was there
        groups.append(group)
    return groups


def _order(byte_order: str) -> str:
    if byte_order not in ("big", "little"):
        raise ValueError(f"byte_order must be 'big' or 'little', got {byte_order!r}")
    return ">u2" if byte_order == "big" else "<u2"


def _picture(picture: Array, *, grey: bool = False) -> Pixels:
    if not isinstance(picture, np.ndarray):
        raise TypeError(f"a picture is a numpy array, not {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture holds uint8, not {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] not in ((1, 3) if grey else (3,)) or not picture.size:
        also = ", or (height, width, 1) in grey" if grey else ""
        raise ValueError(f"a picture has shape (height, width, 3){also}, got {picture.shape}")
    return picture


def _size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"width and height must be at least 1, got {width} x {height}")


def _quantisation(scale: float | None, zero_point: int | None, where: str) -> tuple[float, int]:
    if scale is None or zero_point is None:
        raise ValueError(f"{where} needs both scale and zero_point")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"{where}: scale must be finite and positive, got {scale}")
    return float(scale), int(zero_point)
