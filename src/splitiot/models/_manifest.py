"""What a bundle says about itself: a JSON file, read without trusting it."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Final

import msgspec

from splitiot._files import read_json, write_new
from splitiot.errors import MalformedModel
from splitiot.models._formats import ARRAY_TYPES, LARGEST_BYTES
from splitiot.pipeline import NOTHING, UNTYPED, Boundary, Sink, TensorSpec

__all__ = ["MANIFEST", "Cut", "File", "Manifest", "boundary_of", "read_manifest", "tensors_of", "write_manifest"]

MANIFEST: Final = "manifest.json"

_FORMAT: Final = 2  # 1 did not say at which cuts the default kernels are not exact
_KIND: Final = "splitiot bundle"
_MOST_BYTES: Final = 16 * 2**20  # of the manifest
_MOST_STEPS: Final = 1_000_000
_RANK: Final = 8
_FILE = re.compile(r"(?:head|tail)-\d{1,7}\.tflite|whole\.tflite")
_HEX = re.compile(r"[0-9a-f]{64}")
_TYPES = {*ARRAY_TYPES, "bytes", "void"}


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One array that crosses, or goes into or comes out of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part: its file, and what that takes and gives, in this order."""

    file: str
    start: int
    stop: int
    bytes: int
    sha256: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What crosses at a cut, up and back (None: only a run can tell), and which results stay on the device.

    `fused` says which operators the default kernels run as one there: such a cut is legal only with others.
    """

    cut: int
    sent: tuple[Tensor, ...] | None
    returned: tuple[Tensor, ...] | None
    kept: tuple[str, ...]
    fused: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model without its weights, and where its parts are."""

    kind: str
    format: int
    name: str
    digest: str
    n: int
    sink: Sink
    stateful: bool
    signature: str | None
    steps: tuple[tuple[str, str], ...]
    """Name and kind of each."""
    inputs: tuple[Tensor, ...]
    results: tuple[str, ...]
    cuts: tuple[Cut, ...]
    refused: tuple[tuple[int, str], ...]
    """Cuts that are not legal in the model, with the reasons."""
    parts: tuple[File, ...]
    warnings: tuple[str, ...] = ()
    input_names: tuple[tuple[str, str], ...] = ()
    """What the file's signature calls them, and their tensors."""
    result_names: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, **fields: object) -> Manifest:
        """Make one of the present format."""
        return cls(kind=_KIND, format=_FORMAT, **fields)  # type: ignore[arg-type]


def tensors_of(boundary: Boundary) -> tuple[Tensor, ...] | None:
    """Write a boundary down."""
    if boundary.tensors is None:
        return None
    return tuple(Tensor(t.name, t.dtype, t.shape, t.scale, t.zero_point) for t in boundary.tensors)


def boundary_of(tensors: tuple[Tensor, ...] | None) -> Boundary:
    """Undo `tensors_of`."""
    if tensors is None:
        return UNTYPED
    return Boundary(tuple(map(spec_of, tensors))) if tensors else NOTHING


def spec_of(tensor: Tensor) -> TensorSpec:
    """Make one tensor's description what pipelines use."""
    return TensorSpec(tensor.name, tensor.dtype, tensor.shape, tensor.scale, tensor.zero_point)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write it; the same manifest gives the same bytes.

    Raises
    ------
    MalformedModel
        A name in it is no Unicode.
    """
    try:
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    except UnicodeEncodeError as error:
        raise MalformedModel(f"a name in the model is not UTF-8, so it can't stand in {MANIFEST}: {error}") from error
    write_new(path, text + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read and check it; no file of a part is looked at.

    Raises
    ------
    MalformedModel
        It is not there, broken, of another version, or says what can't be.
    """
    path = folder / MANIFEST
    no_bundle = f"{folder} is no bundle: it has no {MANIFEST}. Make one with splitiot split MODEL --all --out DIR"
    if folder.exists() and not folder.is_dir():
        raise MalformedModel(no_bundle)
    try:
        manifest = read_json(
            path, kind=Manifest, most_bytes=_MOST_BYTES, what="a bundle's manifest", error=MalformedModel
        )
    except FileNotFoundError as error:
        raise MalformedModel(no_bundle) from error
    if manifest.kind != _KIND or manifest.format != _FORMAT:
        raise MalformedModel(
            f"{path} is a {manifest.kind!r} of format {manifest.format}, this version reads a {_KIND!r} of format "
            f"{_FORMAT}: write the bundle again with this version"
        )
    if why := _wrong(manifest):
        raise MalformedModel(f"{path}: {why}. Was it changed? Write the bundle again")
    return manifest


def _wrong(m: Manifest) -> str | None:
    """Say what can't be."""
    if not 0 < m.n <= _MOST_STEPS or len(m.steps) != m.n:
        return f"{len(m.steps)} steps in its table, but n is {m.n}"
    if not _HEX.fullmatch(m.digest):
        return "its digest is not 64 hexadecimal digits"
    cuts, refused = [c.cut for c in m.cuts], [cut for cut, _ in m.refused]
    for what, numbers in (("cuts", cuts), ("refused cuts", refused)):
        if sorted(set(numbers)) != numbers or not all(0 <= cut <= m.n for cut in numbers):
            return f"its {what} do not ascend within 0..{m.n}"
    if set(cuts) & set(refused):
        return f"cut {min(set(cuts) & set(refused))} is both legal and refused"
    ends = [(p.start, p.stop) for p in m.parts]
    if len(set(ends)) != len(ends) or len({p.file for p in m.parts}) != len(ends):
        return "two of its parts are the same"
    for part in m.parts:
        if why := _wrong_part(m, part):
            return f"part [{part.start}, {part.stop}): {why}"
    named: list[tuple[Tensor, ...] | None] = [m.inputs, *(c.sent for c in m.cuts), *(c.returned for c in m.cuts)]
    named += [tensors for part in m.parts for tensors in (part.inputs, part.outputs)]
    for tensors in named:
        if tensors is not None and (why := _wrong_tensors(tensors)):
            return why
    for cut in m.cuts:
        if not set(cut.kept) <= set(m.results):
            return f"what stays at cut {cut.cut} is no result"
    if not m.results or len(set(m.results)) != len(m.results):
        return "its results have no names, or the same one twice"
    return None


def _wrong_part(m: Manifest, part: File) -> str | None:
    if not _FILE.fullmatch(part.file):
        return f"{part.file!r} is no file name of a part"
    if not 0 <= part.start < part.stop <= m.n or (part.start > 0 and part.stop < m.n):
        return f"neither a head nor a tail of {m.n} steps"
    known = {0, m.n, *(c.cut for c in m.cuts)}
    if part.start not in known or part.stop not in known:
        return "one of its ends is no cut"
    if not 0 < part.bytes <= LARGEST_BYTES:
        return f"a file of {part.bytes} bytes"
    return None if _HEX.fullmatch(part.sha256) else "its SHA-256 is not 64 hexadecimal digits"


def _wrong_tensors(tensors: tuple[Tensor, ...]) -> str | None:
    if len({t.name for t in tensors}) != len(tensors):
        return "two tensors at one place have the same name"
    for t in tensors:
        if t.dtype not in _TYPES:
            return f"tensor {t.name!r} has type {t.dtype!r}"
        if len(t.shape) > _RANK or not all(0 <= size < 2**31 for size in t.shape) or math.prod(t.shape) >= 2**40:
            return f"tensor {t.name!r} has shape {t.shape}"
        if t.scale is not None and not math.isfinite(t.scale):
            return f"tensor {t.name!r} has scale {t.scale}"
    return None


def sha256(data: bytes) -> str:
    """Return 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
