"""Train the detector that ships in ``splitiot.samples``: handwritten digits on photographs.

Requirements: an environment of its own (TensorFlow is large, and nothing else in the project needs it)::

    python -m venv .venv-train
    .venv-train/bin/pip install tensorflow ai-edge-litert scikit-image scikit-learn Pillow .
    .venv-train/bin/python tools/train_fomo.py --out src/splitiot/samples

(the last ``.`` is splitiot itself, from the root of the checkout: the figures are made with
``splitiot.vision``, so they hold for what the library does.) Nothing is downloaded: digits and photographs
are read from inside the installed packages. About eight minutes on two free cores.

The network
    FOMO as Edge Impulse describes it: MobileNetV2 (alpha 0.35), cut after ``block_6_expand_relu``, so that a
    96 x 96 x 3 picture becomes a 12 x 12 grid of cells of 8 pixels; then a 1 x 1 convolution to 32 (ReLU), a
    1 x 1 convolution to (background, digit) and a softmax. Weights start random. BatchNorm momentum 0.9.

The pictures
    scikit-learn's handwritten digits (8 x 8), enlarged to 11 - 27 pixels high, in random colours, on crops
    of photographs that ship in the wheels of scikit-image and scikit-learn and whose free licence is stated
    there (the others are left out: ``PHOTOS``). A digit differs from its surroundings by at least
    ``MIN_CONTRAST`` in luminance. Things that are no digits lie around as well: patches of colour, long
    lines, digits with their pixels shuffled. **Held out**: whole photographs, and whole digits (a contiguous
    range of scikit-learn's table, which keeps its writers together).

The measure
    A digit's place is the centre of its ink's bounding box. Detections come from
    ``splitiot.vision.centroids``. A detection may be matched to a digit if the Euclidean distance between
    them is at most one cell (8 pixels); pairs are taken nearest first, each detection and each digit at most
    once. Matched = true positive, detections left over = false positives, digits left over = false negatives,
    all summed over the pictures before precision, recall and F1 are taken. The threshold is chosen on the
    validation photographs; the test photographs are only measured.

Reproducible?
    Pictures, split, initial weights and order of the batches follow from ``--seed``, and TensorFlow is asked
    for deterministic kernels. On the same machine with the same versions and number of cores two runs give
    the same weights; another processor, TensorFlow or number of threads sums in another order, and the files
    then differ in their bytes and the figures slightly (by more than that, something is wrong).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # GPUs sum in yet another order

import attrs
import keras
import numpy as np
import numpy.typing as npt
import skimage
import sklearn.datasets
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw, ImageFilter
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from splitiot import vision

SIZE_PX = 96
CELL_PX = 8
GRID = SIZE_PX // CELL_PX
LABELS = ("background", "digit")
MAX_DIGITS = 5
MIN_CONTRAST = 0.25  # of the full range of luminance
MIN_APART_PX = 22.0  # between two digits' centres: nearer ones would share cells
BATCH = 32
POSITIVE_WEIGHT = 8.0  # one cell in a hundred holds a digit
MAX_FILE_BYTES = 150_000
MIN_F1 = 0.85
MAX_DROP = 0.02  # of F1, from float32 to int8


@attrs.frozen
class Photo:
    """A photograph inside an installed package.

    `package` is "skimage" or "sklearn", `file` the path under its data directory; `note` is what the package
    says about the rights.
    """

    package: str
    file: str
    split: str
    author: str
    licence: str
    source: str

    @property
    def name(self) -> str:
        """File name without suffix."""
        return Path(self.file).stem


CC0 = "CC0"
CC_BY_2 = "CC BY 2.0"
PUBLIC_DOMAIN = "public domain"
NO_KNOWN = "no known copyright restrictions"

# Left out for want of a stated licence: moon, motorcycle_*, lfw_subset; for the letters or digits in them:
# page, text; because they are drawings: logo, color, phantom, horse, chessboard_*; too small: microaneurysms.
PHOTOS = (
    Photo("skimage", "astronaut.png", "train", "NASA", PUBLIC_DOMAIN, "https://flic.kr/p/r9qvLn"),
    Photo("skimage", "brick.png", "train", "CC0Textures", CC0, "https://cc0textures.com/view.php?tex=Bricks25"),
    Photo("skimage", "cell.png", "train", "Paul Müller et al.", CC0, "https://doi.org/10.1364/OE.26.010729"),
    Photo(
        "skimage",
        "clock_motion.png",
        "train",
        "Stefan van der Walt",
        PUBLIC_DOMAIN,
        "scikit-image (skimage.data.clock)",
    ),
    Photo(
        "skimage",
        "coins.png",
        "train",
        "Brooklyn Museum",
        NO_KNOWN,
        "https://www.brooklynmuseum.org/opencollection/archives/image/51611",
    ),
    Photo("skimage", "gravel.png", "train", "CC0Textures", CC0, "https://cc0textures.com/view.php?tex=Gravel04"),
    Photo(
        "skimage",
        "hubble_deep_field.jpg",
        "train",
        "NASA",
        PUBLIC_DOMAIN,
        "http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
    ),
    Photo(
        "skimage",
        "ihc.png",
        "train",
        "Center for Microscopy and Molecular Imaging (CMMI)",
        NO_KNOWN,
        "scikit-image (skimage.data.immunohistochemistry)",
    ),
    Photo("skimage", "retina.jpg", "train", "Mikael Häggström", CC0, "https://doi.org/10.15347/wjm/2014.008"),
    Photo(
        "sklearn",
        "china.jpg",
        "train",
        "danielbuechele",
        CC_BY_2,
        "https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    Photo(
        "sklearn",
        "flower.jpg",
        "train",
        "vultilion",
        CC_BY_2,
        "https://www.flickr.com/photos/vultilion/6056698931/",
    ),
    Photo("skimage", "camera.png", "validation", "Lav Varshney", CC0, "scikit-image (skimage.data.camera)"),
    Photo(
        "skimage",
        "grass.png",
        "validation",
        "linolafett",
        CC0,
        "https://www.deviantart.com/linolafett/art/Grass-01-434853879",
    ),
    Photo("skimage", "chelsea.png", "test", "Stefan van der Walt", CC0, "scikit-image (skimage.data.chelsea)"),
    Photo("skimage", "coffee.png", "test", "Rachel Michetti", CC0, "scikit-image (skimage.data.coffee)"),
    Photo(
        "skimage",
        "rocket.jpg",
        "test",
        "SpaceX",
        PUBLIC_DOMAIN,
        "https://www.flickr.com/photos/spacexphotos/16511594820/",
    ),
)
DIGIT_RANGES = {"train": (0, 1200), "validation": (1200, 1450), "test": (1450, 1797)}

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Centroids = list[tuple[float, float]]


# ---------------------------------------------------------------- pictures


def read_photo(photo: Photo) -> Image.Image:
    """One photograph as RGB, from inside its package."""
    package = skimage if photo.package == "skimage" else sklearn.datasets
    folder = Path(package.__file__).parent / ("data" if photo.package == "skimage" else "images")
    path = folder / photo.file
    if not path.is_file():
        raise SystemExit(f"{path} is missing: this version of {photo.package} does not ship it")
    with Image.open(path) as image:
        return image.convert("RGB")


class Painter:
    """Makes pictures of one split, from its own photographs, digits and random generator."""

    def __init__(self, split: str, rng: np.random.Generator) -> None:
        self.split = split
        self.rng = rng
        self.photos = [(p.name, read_photo(p)) for p in PHOTOS if p.split == split]
        start, stop = DIGIT_RANGES[split]
        self.digits = sklearn.datasets.load_digits().images[start:stop].astype(np.float32) / 16

    def background(self) -> tuple[Image.Image, str]:
        """A random crop of a random photograph; for training also turned, tinted and mixed."""
        rng = self.rng
        name, photo = self.photos[rng.integers(len(self.photos))]
        longest = min(photo.size)
        side = int(np.exp(rng.uniform(np.log(64), np.log(longest))))
        x, y = (int(rng.integers(extent - side + 1)) for extent in photo.size)
        crop = photo.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC, (x, y, x + side, y + side), reducing_gap=3)
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return crop, name

    def varied_background(self) -> tuple[ByteArray, str]:
        """`background` with what makes eleven photographs look like more; plain for validation and test."""
        rng = self.rng
        crop, name = self.background()
        if self.split != "train":
            return np.array(crop), name
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose(int(rng.choice([2, 3, 4]))))  # by 90, 180, 270 degrees
        pixels = np.asarray(crop, dtype=np.float32)
        if rng.random() < 0.3:
            other = np.asarray(self.background()[0], dtype=np.float32)
            if rng.random() < 0.5:
                pixels = pixels + rng.uniform(0.2, 0.6) * (other - pixels)
            else:  # a straight edge between two photographs
                angle, shift = rng.uniform(0, 2 * np.pi), rng.uniform(-30, 30)
                yy, xx = np.mgrid[:SIZE_PX, :SIZE_PX] - SIZE_PX / 2
                pixels = np.where((xx * np.cos(angle) + yy * np.sin(angle) > shift)[..., None], pixels, other)
        if rng.random() < 0.4:
            pixels = pixels[..., rng.permutation(3)]
        if rng.random() < 0.15:
            pixels = 255 - pixels
        if rng.random() < 0.5:  # a tint, and a contrast
            pixels = (pixels - 128) * rng.uniform(0.5, 1.3) + 128 + rng.uniform(-40, 40, 3)
        return np.clip(pixels, 0, 255).astype(np.uint8), name

    def mask(self, glyph: FloatArray, height_px: int) -> FloatArray:
        """The ink of an 8 x 8 glyph, enlarged, turned a little; 0..1."""
        rng = self.rng
        width_px = max(8, round(height_px * rng.uniform(0.8, 1.1)))
        image = Image.fromarray(np.pad(glyph, 1)).resize((width_px, height_px), Image.Resampling.BICUBIC)
        image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
        edge = rng.uniform(0.3, 0.5)
        return np.clip((np.asarray(image) - edge + 0.15) / 0.3, 0, 1)

    def distractors(self, pixels: ByteArray) -> ByteArray:
        """Things that are no digits: patches, long lines, digits with their pixels shuffled."""
        rng = self.rng
        image = Image.fromarray(pixels)
        drawing = ImageDraw.Draw(image)
        for _ in range(rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.2, 0.1])):
            x, y = rng.uniform(0, SIZE_PX, 2)
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
            kind = rng.integers(3)
            if kind == 0:
                w, h = rng.uniform(10, 30, 2)
                box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                (drawing.rectangle if rng.random() < 0.5 else drawing.ellipse)(box, fill=colour)
            elif kind == 1:
                angle, reach = rng.uniform(0, np.pi), rng.uniform(40, 90)
                dx, dy = reach * np.cos(angle), reach * np.sin(angle)
                drawing.line((x - dx, y - dy, x + dx, y + dy), fill=colour, width=int(rng.integers(1, 5)))
            else:
                glyph = self.digits[rng.integers(len(self.digits))].reshape(-1)
                ink = self.mask(rng.permutation(glyph).reshape(8, 8), int(rng.integers(14, 28)))
                image.paste(colour, (int(x), int(y)), Image.fromarray((ink * 255).astype(np.uint8)))
        return np.array(image)

    def paint(self) -> tuple[ByteArray, Centroids, str]:
        """A picture (96, 96, 3) uint8, the centroids (x, y) of its digits, and its photograph's name."""
        rng = self.rng
        pixels, name = self.varied_background()
        pixels = self.distractors(pixels)
        centroids: Centroids = []
        for _ in range(rng.integers(0, MAX_DIGITS + 1)):
            ink = self.mask(self.digits[rng.integers(len(self.digits))], int(rng.integers(15, 31)))
            rows, columns = np.nonzero(ink.max(1) > 0.5)[0], np.nonzero(ink.max(0) > 0.5)[0]
            if not rows.size or not columns.size:
                continue
            ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            h, w = ink.shape
            for _ in range(10):  # tries to find a free place
                top, left = int(rng.integers(1, SIZE_PX - h)), int(rng.integers(1, SIZE_PX - w))
                x, y = left + w / 2, top + h / 2
                if all(math.dist((x, y), c) >= MIN_APART_PX for c in centroids):
                    break
            else:
                continue
            place = pixels[top : top + h, left : left + w].astype(np.float32)
            if rng.random() < 0.15:  # on a label of its own
                margin = 2
                here = np.s_[max(0, top - margin) : top + h + margin, max(0, left - margin) : left + w + margin]
                pixels[here] = rng.integers(0, 256, 3).astype(np.uint8)
                place = pixels[top : top + h, left : left + w].astype(np.float32)
            colour = self.colour(place)
            alpha = ink[..., None] * rng.uniform(0.85, 1)
            pixels[top : top + h, left : left + w] = np.clip(place + alpha * (colour - place), 0, 255).astype(np.uint8)
            centroids.append((x, y))
        image = Image.fromarray(pixels)
        if rng.random() < 0.3:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
        noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, rng.uniform(0, 6), pixels.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8), centroids, name

    def colour(self, place: FloatArray) -> FloatArray:
        """A colour whose luminance is at least `MIN_CONTRAST` off that of `place` (more on textures)."""
        weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
        luminance = place @ weights / 255
        least = MIN_CONTRAST + min(0.2, float(luminance.std()))
        for _ in range(50):
            colour = self.rng.integers(0, 256, 3).astype(np.float32)
            if abs(float(colour @ weights) / 255 - float(luminance.mean())) >= least:
                return colour
        return np.full(3, 255.0 if luminance.mean() < 0.5 else 0.0, dtype=np.float32)

    def many(self, count: int) -> tuple[ByteArray, list[Centroids], list[str]]:
        """`count` pictures (count, 96, 96, 3), their centroids, their photographs' names."""
        pictures = np.empty((count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        truths, names = [], []
        for i in range(count):
            pictures[i], centroids, name = self.paint()
            truths.append(centroids)
            names.append(name)
        return pictures, truths, names


def targets(truths: list[Centroids]) -> FloatArray:
    """Class and weight of every cell: (n, 12, 12, 2) float32, [..., 0] is 1 for a digit, [..., 1] the weight.

    The cell that holds a centroid is a digit; the other cells whose centre is within one cell of it have
    weight 0: which of them fires does not matter, `centroids` merges them.
    """
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) * CELL_PX
    out = np.zeros((len(truths), GRID, GRID, 2), dtype=np.float32)
    out[..., 1] = 1
    for cells, centroids in zip(out, truths, strict=True):
        for x, y in centroids:
            near = np.hypot(middle[None, :] - x, middle[:, None] - y) <= 1.25 * CELL_PX
            cells[near & (cells[..., 0] == 0), 1] = 0
        for x, y in centroids:
            cells[int(y // CELL_PX), int(x // CELL_PX)] = (1, POSITIVE_WEIGHT)
    return out


# ---------------------------------------------------------------- network


def build() -> keras.Model:
    """The untrained network: (n, 96, 96, 3) float32 in [0, 1] -> (n, 12, 12, 2) float32 scores."""
    trunk = keras.applications.MobileNetV2(
        input_shape=(SIZE_PX, SIZE_PX, 3), alpha=0.35, include_top=False, weights=None
    )
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.999, its default, would not settle in so short a training
    x = trunk.get_layer("block_6_expand_relu").output
    x = keras.layers.Conv2D(32, 1, activation="relu", name="head")(x)
    x = keras.layers.Conv2D(len(LABELS), 1, name="logits")(x)
    return keras.Model(trunk.input, keras.layers.Softmax(name="grid")(x))


def loss(target: Any, scores: Any) -> Any:
    """Weighted cross-entropy with a mild focus on what is still wrong (gamma 1)."""
    digit, weight = target[..., 0], target[..., 1]
    right = tf.where(digit > 0.5, scores[..., 1], scores[..., 0])
    right = tf.clip_by_value(right, 1e-6, 1.0)
    return -tf.reduce_mean(weight * (1.0 - right) * tf.math.log(right))


class Batches(keras.utils.PyDataset):
    """The training pictures in a seeded order, their light varied anew in each epoch."""

    def __init__(self, pictures: ByteArray, goals: FloatArray, seed: int) -> None:
        super().__init__()
        self.pictures, self.goals, self.seed = pictures, goals, seed
        self.epoch = 0
        self.order = np.random.default_rng([seed, 0]).permutation(len(pictures))

    def __len__(self) -> int:
        return len(self.pictures) // BATCH

    def __getitem__(self, index: int) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        x = self.pictures[rows].astype(np.float32) / 255
        gain = rng.uniform(0.75, 1.25, (BATCH, 1, 1, 3)).astype(np.float32)
        lift = rng.uniform(-0.12, 0.12, (BATCH, 1, 1, 1)).astype(np.float32)
        return np.clip(x * gain + lift, 0, 1), self.goals[rows]

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.pictures))


def train(model: keras.Model, pictures: ByteArray, truths: list[Centroids], epochs: int, seed: int) -> None:
    """Adam on a cosine with a short warm-up."""
    data = Batches(pictures, targets(truths), seed)
    steps = epochs * len(data)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-4, steps - steps // 20, alpha=0.005, warmup_target=4e-3, warmup_steps=steps // 20
    )
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(data, epochs=epochs, verbose=2, shuffle=False)


# ---------------------------------------------------------------- files


def export(model: keras.Model, pictures: ByteArray) -> dict[str, bytes]:
    """The network as two TFLite files of fixed shape [1, 96, 96, 3]; `pictures` calibrate the int8 one."""
    signature = [tf.TensorSpec((1, SIZE_PX, SIZE_PX, 3), tf.float32, name="image")]
    infer = tf.function(lambda image: model(image, training=False), input_signature=signature)
    # Variables become constants first: calibration can't read them.
    frozen = convert_variables_to_constants_v2(infer.get_concrete_function())
    serve = tf.function(lambda image: {"grid": frozen(image)[0]}, input_signature=signature)

    def representative() -> Any:
        # Black and white first: they make the input's range 0..1 exactly, hence scale 1/255, zero point -128.
        yield [np.zeros((1, SIZE_PX, SIZE_PX, 3), np.float32)]
        yield [np.ones((1, SIZE_PX, SIZE_PX, 3), np.float32)]
        for picture in pictures:
            yield [picture[None].astype(np.float32) / 255]

    files = {}
    with tempfile.TemporaryDirectory() as folder:
        signatures = {"serving_default": serve.get_concrete_function()}
        tf.saved_model.save(tf.Module(), folder, signatures=signatures)
        for precision in ("float32", "int8"):
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            if precision == "int8":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = representative
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = tf.int8
                converter.inference_output_type = tf.int8
            files[precision] = converter.convert()
    return files


# ---------------------------------------------------------------- figures


def grids(file: bytes, pictures: ByteArray) -> FloatArray:
    """The scores (n, 12, 12, 2) float32 that a TFLite file gives for pictures (n, 96, 96, 3) uint8."""
    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    [source], [sink] = interpreter.get_input_details(), interpreter.get_output_details()
    quantised = source["dtype"] == np.int8
    out = np.empty((len(pictures), GRID, GRID, len(LABELS)), dtype=np.float32)
    for i, picture in enumerate(pictures):
        if quantised:
            scale, zero_point = source["quantization"]
            tensor = vision.to_tensor(picture, dtype="int8", scale=scale, zero_point=zero_point)
        else:
            tensor = vision.to_tensor(picture)
        interpreter.set_tensor(source["index"], tensor)
        interpreter.invoke()
        grid = interpreter.get_tensor(sink["index"])
        out[i] = (vision.dequantize(grid, *sink["quantization"]) if quantised else grid)[0]
    return out


def match(found: list[vision.Detection], truth: Centroids) -> int:
    """True positives in one picture: nearest pairs first, one to one, at most one cell apart."""
    pairs = sorted(
        (distance, i, j)
        for i, d in enumerate(found)
        for j, t in enumerate(truth)
        if (distance := math.dist((d.x, d.y), t)) <= CELL_PX
    )
    used_found: set[int] = set()
    used_truth: set[int] = set()
    for _, i, j in pairs:
        if i not in used_found and j not in used_truth:
            used_found.add(i)
            used_truth.add(j)
    return len(used_truth)


def measure(scores: FloatArray, truths: list[Centroids], threshold: float) -> dict[str, float | int]:
    """Precision, recall and F1 over all pictures, with the counts behind them."""
    hits = n_found = n_true = 0
    for grid, truth in zip(scores, truths, strict=True):
        found = vision.centroids(grid, threshold=threshold, cell_px=CELL_PX)
        hits += match(found, truth)
        n_found += len(found)
        n_true += len(truth)
    precision, recall = hits / max(1, n_found), hits / max(1, n_true)
    return {
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f1": round(2 * hits / max(1, n_found + n_true), 4),
        "true_positives": hits,
        "false_positives": n_found - hits,
        "false_negatives": n_true - hits,
    }


def choose_threshold(scores: FloatArray, truths: list[Centroids]) -> float:
    """The threshold in 0.10, 0.15 ... 0.95 with the best F1."""
    candidates = [round(0.05 * k, 2) for k in range(2, 20)]
    return max(candidates, key=lambda threshold: measure(scores, truths, threshold)["f1"])


def pick_samples(names: list[str], truths: list[Centroids], right: list[bool]) -> list[int]:
    """Rows of six pictures to ship: of each test photograph the first two that both files read rightly.

    They show how to use the network and let a test notice that a file broke; how good it is, they do not
    show.
    """
    rows = []
    for photo in sorted(set(names)):
        mine = [i for i, name in enumerate(names) if name == photo and 2 <= len(truths[i]) <= 4 and right[i]]
        rows += mine[:2]
    return rows


def write(out: Path, files: dict[str, bytes], facts: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Everything that ships, below `out`."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for old in (out / "pictures").glob("*.png"):
        old.unlink()
    for precision, content in files.items():
        (out / f"fomo_{precision}.tflite").write_bytes(content)
    for sample in samples:
        Image.fromarray(sample.pop("pixels")).save(out / "pictures" / f"{sample['name']}.png", optimize=True)
    (out / "pictures" / "labels.json").write_text(json.dumps({"pictures": samples}, indent=2) + "\n")
    (out / "fomo.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "ATTRIBUTION.md").write_text(attribution(), encoding="utf-8")


def attribution() -> str:
    """ATTRIBUTION.md: who made what the network learned from and what the pictures show."""
    lines = [
        "# Where the sample network and its pictures come from",
        "",
        "Written by `tools/train_fomo.py`. The network was trained from scratch; its layers follow",
        "MobileNetV2 (Sandler et al., CVPR 2018) and Edge Impulse's FOMO. The photographs were cropped,",
        "scaled, mirrored and painted over with digits and shapes; for training also turned and recoloured.",
        "",
        "The six files in `pictures/` show crops of the photographs marked *test* only, with digits on them.",
        "",
        "## Digits",
        "",
        'E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning',
        "Repository, 1998, <https://doi.org/10.24432/C50P49>, CC BY 4.0",
        "(<https://creativecommons.org/licenses/by/4.0/>); the copy of its test set in scikit-learn",
        "(`sklearn.datasets.load_digits`). Changes: enlarged, turned, coloured; as distractors also with their",
        "pixels shuffled.",
        "",
        "## Photographs",
        "",
        "| photograph | used for | by | licence | source | taken from |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for p in PHOTOS:
        package = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[p.package]
        source = f"<{p.source}>" if p.source.startswith("http") else p.source
        lines.append(f"| {p.file} | {p.split} | {p.author} | {p.licence} | {source} | {package} |")
    lines += [
        "",
        "Licences as the packages' own documentation states them (docstrings of `skimage.data`;",
        "`images/README.txt` of scikit-learn, which names danielbuechele for both of its photographs while",
        "its link for flower.jpg leads to vultilion's page: the link is followed here).",
        "CC BY 2.0: <https://creativecommons.org/licenses/by/2.0/>.",
        "CC0: <https://creativecommons.org/publicdomain/zero/1.0/>.",
        "",
    ]
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """What the figures were made with."""
    packages = ("tensorflow", "keras", "ai-edge-litert", "numpy", "scikit-image", "scikit-learn", "Pillow")
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}


def main() -> None:
    """Paint, train, export, measure, write."""
    parser = argparse.ArgumentParser(description="Train splitiot's sample detector (digits on photographs).")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files (the package's samples folder)")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--images", type=int, default=9000, help="training pictures")
    parser.add_argument("--test-images", type=int, default=1000, help="test pictures; half as many for validation")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    began_s = time.monotonic()
    keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    streams = np.random.default_rng(options.seed).spawn(3)
    painters = {s: Painter(s, r) for s, r in zip(("train", "validation", "test"), streams, strict=True)}
    print(f"painting {options.images} training pictures ...", flush=True)
    x_train, y_train, _ = painters["train"].many(options.images)
    x_val, y_val, _ = painters["validation"].many(options.test_images // 2)
    x_test, y_test, names = painters["test"].many(options.test_images)
    print(f"  {time.monotonic() - began_s:.0f} s", flush=True)

    model = build()
    train(model, x_train, y_train, options.epochs, options.seed)
    files = export(model, x_train[:300])

    validation = {p: grids(f, x_val) for p, f in files.items()}
    threshold = choose_threshold(validation["float32"], y_val)
    test = {p: grids(f, x_test) for p, f in files.items()}
    figures = {p: measure(g, y_test, threshold) for p, g in test.items()}

    n_digits = sum(map(len, y_test))
    print(f"\nthreshold {threshold} (chosen on validation); test: {len(x_test)} pictures, {n_digits} digits")
    print(f"{'split':<11} {'precision':<10} {'P':>7} {'R':>7} {'F1':>7} {'bytes':>8}")
    for split, scores, truths in (("validation", validation, y_val), ("test", test, y_test)):
        for p, grid in scores.items():
            m = measure(grid, truths, threshold)
            row = f"{m['precision']:7.4f} {m['recall']:7.4f} {m['f1']:7.4f} {len(files[p]):8d}"
            print(f"{split:<11} {p:<10} {row}")
    for photo in sorted(set(names)):
        rows = [i for i, name in enumerate(names) if name == photo]
        m = measure(test["float32"][rows], [y_test[i] for i in rows], threshold)
        print(f"  of these, on {photo:<10} P {m['precision']:.4f} R {m['recall']:.4f} F1 {m['f1']:.4f}")

    right = []
    for i, truth in enumerate(y_test):
        found = [vision.centroids(g[i], threshold=threshold, cell_px=CELL_PX) for g in test.values()]
        right.append(all(len(d) == len(truth) == match(d, truth) for d in found))
    samples = []
    for k, i in enumerate(pick_samples(names, y_test, right)):
        name = f"{names[i]}_{k % 2 + 1}"
        samples.append({"name": name, "file": f"{name}.png", "centroids": y_test[i], "pixels": x_test[i]})

    facts = {
        "network": "FOMO: MobileNetV2 0.35 up to block_6_expand_relu, conv 1x1x32 ReLU, conv 1x1x2, softmax",
        "labels": LABELS,
        "input": {"shape": [1, SIZE_PX, SIZE_PX, 3], "float32": "pixel / 255", "int8": "pixel - 128"},
        "cell_px": CELL_PX,
        "threshold": threshold,
        "matching": "centroids at most 8 px (one cell) apart, nearest pairs first, one to one",
        "test": {"pictures": len(x_test), "digits": sum(map(len, y_test)), **figures},
        "validation": {
            "pictures": len(x_val),
            "digits": sum(map(len, y_val)),
            **{p: measure(g, y_val, threshold) for p, g in validation.items()},
        },
        "training": {
            "pictures": options.images,
            "epochs": options.epochs,
            "batch": BATCH,
            "seed": options.seed,
        },
        "photographs": {s: [p.file for p in PHOTOS if p.split == s] for s in DIGIT_RANGES},
        "digits": {s: f"sklearn.datasets.load_digits()[{a}:{b}]" for s, (a, b) in DIGIT_RANGES.items()},
        "files": {
            f"fomo_{p}.tflite": {"bytes": len(f), "sha256": hashlib.sha256(f).hexdigest()} for p, f in files.items()
        },
        "versions": versions(),
    }
    too_big = [p for p, f in files.items() if len(f) >= MAX_FILE_BYTES]
    drop = float(figures["float32"]["f1"]) - float(figures["int8"]["f1"])
    if too_big or min(m["f1"] for m in figures.values()) < MIN_F1 or drop > MAX_DROP or len(samples) < 6:
        raise SystemExit(f"not good enough, nothing written (too big: {too_big}; {len(samples)} samples)")
    write(options.out, files, facts, samples)
    print(f"wrote {options.out} after {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
