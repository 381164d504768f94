"""Bundles: a folder with parts of a model, and a manifest that lets a device run those that it has."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from splitiot._files import read_bounded, write_new
from splitiot.errors import CutError, MalformedModel, NotCuttable
from splitiot.models._array_pipeline import ArrayPipeline
from splitiot.models._format import FUSING
from splitiot.models._manifest import (
    MANIFEST,
    Cut,
    File,
    Manifest,
    boundary_of,
    read_manifest,
    sha256,
    spec_of,
    tensors_of,
    write_manifest,
)
from splitiot.models.model import Model
from splitiot.models.part import ModelPart
from splitiot.pipeline import Boundary, Executable, Part, Runtime, RuntimeInfo, Sink, Step

__all__ = ["Bundle", "load_bundle", "save_bundle"]


def save_bundle(model: Model, folder: str | os.PathLike[str], cuts: Iterable[int] | None = None) -> Path:
    """Write heads and tails of a model into a folder, with a manifest.

    The folder appears when everything is in it, or not at all. The same model and cuts give the same bytes. A device
    needs `manifest.json` and the parts that it shall run: copy those, and no others.

    Parameters
    ----------
    model : Model
    folder : path
        Must not exist, or be empty, or hold a bundle and nothing else: that is replaced.
    cuts : iterable of int, optional
        For each the head [0, cut) and the tail [cut, n) are written; all legal cuts unless given. The whole, [0, n),
        always is.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CutError
        There is no such cut.
    NotCuttable
        A cut is not legal.
    FileExistsError
        The folder holds something that is no bundle.

    Examples
    --------
    >>> import splitiot as si
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     bundle = load_bundle(save_bundle(si.load_model(si.samples.fomo()), f"{folder}/fomo", cuts=[6]))
    ...     bundle.cuts, bundle.parts
    ((0, 6, 25), ((0, 6), (0, 25), (6, 25)))
    """
    folder = Path(folder)
    n = model.n
    wanted = sorted({model.check_cut(cut) for cut in (model.cuts if cuts is None else cuts)})
    illegal = next((cut for cut in wanted if cut not in model.cuts), None)
    if illegal is not None:
        raise NotCuttable(f"{model.name} can't be cut at {illegal}: {model.refused[illegal]}")
    inner = [cut for cut in wanted if 0 < cut < n]
    _check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        ends = [(0, n), *((0, cut) for cut in inner), *((cut, n) for cut in inner)]
        files = tuple(_write(model.part(start, stop), temporary) for start, stop in sorted(ends))
        write_manifest(_describe(model, inner, files), temporary / MANIFEST)
        os.chmod(temporary, 0o777 & ~_umask())
        _move(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def load_bundle(folder: str | os.PathLike[str], *, runtime: Runtime | None = None) -> Bundle:
    """Read a bundle's manifest, and see which of its parts are there.

    The parts themselves are read, and compared with their SHA-256, when they are asked for.

    Parameters
    ----------
    folder : path
    runtime : Runtime, optional
        What parts are run with when nothing else is said; as for `load_model`, some cuts may be legal only with other
        kernels than the default ones.

    Raises
    ------
    MalformedModel
        It is no bundle, or its manifest is broken.
    """
    folder = Path(folder)
    return Bundle(folder, read_manifest(folder), runtime)


class Bundle(ArrayPipeline):
    """A model of which perhaps only some parts are here. Made by `load_bundle`.

    To an edge that has the whole model it is the same pipeline: it has its digest. A `splitiot.Device` uses the parts
    that are there, and nothing else: without a tail, a request that the edge does not answer ends in a typed error.

    Attributes
    ----------
    name : str
    inputs : tuple of TensorSpec
    cuts : tuple of int
        Those whose head is here, and 0.
    parts : tuple of (int, int)
        Those whose files are here, ascending.
    signature : str or None
    warnings : tuple of str
        What to know before running it: random and custom operators, open sizes.
    """

    parts: tuple[tuple[int, int], ...]

    def __init__(self, folder: Path, manifest: Manifest, runtime: Runtime | None = None) -> None:
        self._folder, self._manifest, self._runtime = folder, manifest, runtime
        self._describe(
            manifest.name,
            tuple(map(spec_of, manifest.inputs)),
            manifest.results,
            dict(manifest.input_names),
            dict(manifest.result_names),
        )
        self.steps = tuple(Step(name, kind) for name, kind in manifest.steps)
        self.digest, self.sink, self.stateful = manifest.digest, manifest.sink, manifest.stateful
        self.signature, self.warnings = manifest.signature, manifest.warnings
        self._files = {(p.start, p.stop): p for p in manifest.parts if (folder / p.file).is_file()}
        fusing = runtime is None or runtime.kernels in FUSING
        self._fused = {c.cut: c.fused for c in manifest.cuts if fusing and c.fused}
        illegal = dict(manifest.refused) | self._fused
        self.parts = tuple(ends for ends in sorted(self._files) if self._fused.keys().isdisjoint(ends))
        self._crossing = {c.cut: c for c in manifest.cuts if c.cut not in self._fused}
        self.cuts = tuple(cut for cut in self._crossing if cut == 0 or (0, cut) in self._files)
        legal = frozenset(self.cuts)
        self.refused = {
            cut: illegal.get(cut, "no head in this bundle") for cut in range(manifest.n + 1) if cut not in legal
        }
        self._boundaries: dict[int, Boundary] = {}
        self._returns: dict[int, Boundary] = {}

    @property
    def files(self) -> dict[tuple[int, int], Path]:
        """The files of `parts`."""
        return {ends: self._folder / self._files[ends].file for ends in self.parts}

    def _at(self, cut: int) -> Cut:
        """What the manifest says about a cut; its head need not be here."""
        cut = self.check_cut(cut)
        if cut not in self._crossing:
            raise NotCuttable(f"{self.name} can't be cut at {cut}: {self.refused[cut]}")
        return self._crossing[cut]

    def boundary(self, cut: int) -> Boundary:
        known = self._boundaries.get(cut)
        if known is None:
            known = self._boundaries[cut] = boundary_of(self._at(cut).sent)
        return known

    def returned(self, cut: int) -> Boundary:
        known = self._returns.get(cut)
        if known is None:
            known = self._returns[cut] = boundary_of(self._at(cut).returned)
        return known

    def part(self, start: int, stop: int) -> Part:
        """Steps [start, stop): a head, a tail or the whole, read from its file.

        Raises
        ------
        CutError
            There is no such part, or it is not here.
        NotCuttable
            One of its ends is legal only with other kernels.
        MalformedModel
            The file is not the one that the manifest tells of.
        """
        start, stop = self.check_cut(start), self.check_cut(stop)
        if start == stop:
            return _EmptyPart(start, self.boundary(start))
        entry = self._files.get((start, stop)) if (start, stop) in self.parts else None
        if entry is None:
            for cut in self._fused.keys() & {start, stop}:
                raise NotCuttable(f"{self.name} can't be cut at {cut}: {self._fused[cut]}")
            have = ", ".join(f"[{a}, {b})" for a, b in self.parts) or "none"
            raise CutError(f"part [{start}, {stop}) of {self.name} is not in this bundle; it has {have}")
        part = ModelPart.load(_contents(self._folder / entry.file, entry), runtime=self._runtime)
        m = self._manifest
        if (part.digest, part.start, part.stop, part.n, part.sink) != (m.digest, start, stop, m.n, m.sink) or (
            tensors_of(part.inputs),
            tensors_of(part.outputs),
        ) != (entry.inputs, entry.outputs):
            raise MalformedModel(
                f"{entry.file} holds {part}, not the part that {MANIFEST} tells of. Write the bundle again"
            )
        return part

    def division(self, cut: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.boundary(cut).names, self._at(cut).kept

    def with_sink(self, sink: Sink) -> Bundle:
        if sink != self.sink:
            raise CutError(
                f"the parts of this bundle were cut for results on the {self.sink}: write another one from "
                f"load_model(..., sink={sink!r})"
            )
        return self

    def with_runtime(self, runtime: Runtime | None) -> Bundle:
        if runtime is None or runtime == self._runtime:
            return self
        return Bundle(self._folder, self._manifest, runtime)

    def runtime_info(self, runtime: Runtime | None = None) -> RuntimeInfo:
        from splitiot.models.interpreters import runtime_info

        return runtime_info(runtime or self._runtime)

    def __repr__(self) -> str:
        return f"<Bundle {self.name!r}: {len(self.parts)} of {len(self._manifest.parts)} parts, {self.n} steps>"


class _EmptyPart(Part):
    """No steps: what goes in comes out."""

    stateful = False
    passthrough: tuple[str, ...]

    def __init__(self, cut: int, boundary: Boundary) -> None:
        self.start = self.stop = cut
        self.inputs = self.outputs = boundary
        self.passthrough = boundary.names

    def to_bytes(self) -> bytes:
        """There is no file for it."""
        raise CutError(f"part [{self.start}, {self.stop}) has no steps: there is no file for it")

    def open(self, runtime: Runtime | None = None) -> Executable:
        from splitiot.models.execute import open_part

        return open_part(self, runtime)


def _contents(path: Path, entry: File) -> bytes:
    """Read a part's file, once its size fits; its SHA-256 must."""
    what = "the part that was written, copied again"
    try:
        data = read_bounded(path, most_bytes=entry.bytes, what=what, error=MalformedModel)
    except FileNotFoundError as error:
        raise MalformedModel(f"{path} is there no more. Copy it again") from error
    if len(data) != entry.bytes or sha256(data) != entry.sha256:
        lacking = len(data) != entry.bytes
        problem = f"has {len(data)} bytes, not {entry.bytes}" if lacking else "has another SHA-256 than it should"
        raise MalformedModel(f"{path} {problem}: it was changed, or not copied whole. Copy it again")
    return data


def _write(part: ModelPart, folder: Path) -> File:
    start, stop = part.start, part.stop
    name = f"tail-{start}" if start else "whole" if stop == part.n else f"head-{stop}"
    data = part.to_bytes()
    write_new(folder / f"{name}.tflite", data)
    inputs, outputs = tensors_of(part.inputs), tensors_of(part.outputs)
    return File(f"{name}.tflite", start, stop, len(data), sha256(data), inputs or (), outputs or ())


def _describe(model: Model, inner: Iterable[int], files: tuple[File, ...]) -> Manifest:
    cuts = [cut for cut in (0, *inner, model.n) if cut in model.cuts]
    return Manifest.of(
        name=model.name,
        digest=model.digest,
        n=model.n,
        sink=model.sink,
        stateful=model.stateful,
        signature=model.signature,
        steps=tuple((step.name, step.kind) for step in model.steps),
        inputs=tensors_of(Boundary(model.inputs)) or (),
        results=tuple(spec.name for spec in model.outputs),
        cuts=tuple(
            Cut(
                cut,
                tensors_of(model.boundary(cut)),
                tensors_of(model.returned(cut)),
                model.division(cut)[1],
                model.fused(cut),
            )
            for cut in cuts
        ),
        refused=tuple(sorted(model.refused.items())),
        parts=files,
        warnings=tuple(model.warnings),
        input_names=tuple(model.input_names.items()),
        result_names=tuple(model.result_names.items()),
    )


def _check_free(folder: Path) -> None:
    """Refuse to write over what is no bundle."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise FileExistsError(f"{folder} is no folder: write the bundle elsewhere")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    try:
        foreign = names - {MANIFEST} - {part.file for part in read_manifest(folder).parts}
    except MalformedModel as error:
        raise FileExistsError(f"{folder} is there, and holds something that is no bundle: write elsewhere") from error
    if foreign:
        raise FileExistsError(f"{folder} holds {min(foreign)!r} besides a bundle: move that, or write elsewhere")


def _move(written: Path, folder: Path) -> None:
    """Put it in its place; what was there goes only when the new one stands."""
    if not folder.exists():
        os.rename(written, folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    os.rename(folder, old / "old")
    try:
        os.rename(written, folder)
    except BaseException:
        os.rename(old / "old", folder)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
