"""Proof on the user's own model and machine: every cut gives what the uncut model gives, bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import asdict, frozen

from splitiot._escape import escaped
from splitiot.errors import ModelError
from splitiot.models._array_pipeline import CuttablePipeline
from splitiot.models._check import CutChecker, open_steps
from splitiot.models._child import ChildLost, answers
from splitiot.models._custom_ops import for_child
from splitiot.models._random_input import blame_random_input, random_payload
from splitiot.models._request import Arrays, Check, Cut, Failed, Info, Running, Whole
from splitiot.pipeline import Runtime, RuntimeInfo

if TYPE_CHECKING:
    from splitiot.models.model import Model

__all__ = ["CutCheck", "VerifyReport", "verify_layers", "verify_model"]


@frozen
class CutCheck:
    """What came out at one cut.

    Parameters
    ----------
    cut : int
    nbytes : int or None
        What crosses there.
    ok : bool
        Head, bytes and tail gave what the uncut model gives, bit for bit; of layers, what all steps together give.
    max_abs_difference : float or None
        0.0 where ok; None where there is no such number (it did not run, or NaN stands against a number).
    detail : str
        What was wrong, if anything was.
    """

    cut: int
    nbytes: int | None
    ok: bool
    max_abs_difference: float | None
    detail: str = ""


@frozen
class VerifyReport:
    """What `verify_model` or `verify_layers` found.

    It holds for `info` only: other versions, kernels, machines need their own.

    Parameters
    ----------
    digest : str
        Of the model.
    lines : tuple of CutCheck
        One for each legal cut, ascending; () when the uncut model did not run.
    refused : mapping of int to str
        The cuts that are not legal, with the reason.
    info : RuntimeInfo
    samples : int
        How many inputs each cut was run with.
    ran : bool
        Whether the uncut model runs here at all.
    detail : str
        Why there is nothing to compare with, if so.
    warnings : tuple of str
        The model's own.
    """

    digest: str
    lines: tuple[CutCheck, ...]
    refused: Mapping[int, str]
    info: RuntimeInfo
    samples: int
    ran: bool
    detail: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the model runs here and every legal cut is exact."""
        return self.ran and not self.detail and all(line.ok for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, fit for JSON."""
        refused = {str(cut): why for cut, why in self.refused.items()}
        lines, warnings = [asdict(line) for line in self.lines], [*self.warnings]
        return {"ok": self.ok, **asdict(self), "lines": lines, "refused": refused, "warnings": warnings}

    def __str__(self) -> str:
        info = self.info
        runs = f"{self.samples} sample{'s' * (self.samples != 1)}"
        rows = [f"{runs}, {info.name} {info.version}, {info.kernels} kernels, {info.machine}"]
        rows += [f"warning: {text}" for text in self.warnings]
        if self.detail:
            rows.append(self.detail if self.ran else f"can't run here: {self.detail}")
        rows.append(f"{'cut':>5} {'bytes':>11}  result")
        table = {cut: f"{cut:>5} {'':>11}  refused: {why}" for cut, why in self.refused.items()}
        for line in self.lines:
            size = "?" if line.nbytes is None else f"{line.nbytes:,}"
            gap = "" if not line.max_abs_difference else f" (by up to {line.max_abs_difference:.3g})"
            result = "exact" if line.ok else f"FAILED: {line.detail}{gap}"
            table[line.cut] = f"{line.cut:>5} {size:>11}  {result}"
        rows += [table[cut] for cut in sorted(table)]
        exact = sum(line.ok for line in self.lines)
        rows.append(f"{exact} of {len(self.lines)} cuts exact: {'ok' if self.ok else 'NOT OK'}")
        return escaped("\n".join(rows))


def verify_model(
    model: Model,
    samples: int = 2,
    sample: Any = None,
    runtime: Runtime | None = None,
    seed: int = 0,
    timeout_s: float = 120.0,
    on_line: Callable[[CutCheck], None] | None = None,
) -> VerifyReport:
    """Check every legal cut of a model against the uncut model, in a child process.

    At each cut the head runs, what crosses goes through raw bytes, the tail runs, and names, types, shapes
    and every bit of the results must be those of the uncut file. A crash or an endless loop takes only the
    child with it; the report says what was being run.

    Parameters
    ----------
    model : Model
    samples : int
        How many random inputs; a stateful model takes them one after another, and at least three.
    sample : optional
        An input of your own, in place of random ones; what `Pipeline.run` takes.
    runtime : Runtime, optional
        The default unless given. Which cuts are legal depends on its kernels: see `splitiot.Pipeline.with_runtime`.
    seed : int
        Of the random inputs.
    timeout_s : float
        For each cut, in seconds.
    on_line : callable, optional
        Called with each line as soon as it is known: for a progress bar.

    Raises
    ------
    MissingDependencyError
        No interpreter, or not the one that was asked for.
    ModelError
        The child process could not be started, or could not read the model.
    """
    _positive(samples)
    runtime = runtime or Runtime()
    model = model.with_runtime(runtime)
    count = max(samples, 3) if model.stateful else samples  # one run shows nothing of state
    verification = _Verification(model, runtime, timeout_s, on_line, random_inputs=sample is None)
    payloads: Sequence[Arrays] = []
    texts = [t.name for t in model.inputs if t.dtype == "bytes"]
    if texts:
        verification.detail = f"input {texts[0]!r} is of type STRING, which can't be handed to the child process"
    else:
        payloads = _payloads(model, count, sample, seed)
    pending = list(model.cuts) if payloads else []
    while pending:
        pending = verification.check(pending, payloads)
    return VerifyReport(
        model.digest,
        tuple(verification.lines),
        dict(model.refused),
        verification.info or RuntimeInfo(runtime.name, "?", runtime.kernels, "?"),
        len(payloads),
        verification.ran,
        verification.detail,
        model.warnings,
    )


def verify_layers(
    pipeline: CuttablePipeline[Any],
    samples: int = 2,
    sample: Any = None,
    runtime: Runtime | None = None,
    seed: int = 0,
    on_line: Callable[[CutCheck], None] | None = None,
) -> VerifyReport:
    """Check every legal cut of a pipeline of Keras layers against all its steps together, in this process.

    At each cut the head runs, what crosses goes through raw bytes, the tail runs, and names, types, shapes and every
    bit of the results must be those of all steps. Keras' own result for the whole model is no part of it: that may
    differ by float rounding. No child process: a model in memory may hold Python code, which none could be given.

    Parameters
    ----------
    pipeline : LayerPipeline, or another that runs in this process
    samples : int
        How many random inputs.
    sample : optional
        An input of your own, in place of random ones; what `Pipeline.run` takes.
    runtime : Runtime, optional
        TensorFlow as it is; there is no other.
    seed : int
        Of the random inputs.
    on_line : callable, optional
        Called with each line as soon as it is known: for a progress bar.

    Raises
    ------
    UnsupportedModel
        `runtime` names an interpreter or kernels.
    """
    _positive(samples)
    info = pipeline.runtime_info(runtime)
    payloads = _payloads(pipeline, samples, sample, seed)
    runtime = runtime or Runtime()
    checker = CutChecker(pipeline, runtime, payloads, lambda: open_steps(pipeline, runtime))
    ran, lines = False, []
    try:
        detail = checker.whole()
        ran = True
    except Exception as error:  # a layer may be anybody's Python
        detail = str(error) if sample is not None else blame_random_input(error)
    for cut in pipeline.cuts if ran and not detail else ():
        try:
            why, largest = checker.cut(cut)
        except Exception as error:
            why, largest = f"{type(error).__name__}: {error}", None
        line = CutCheck(cut, pipeline.boundary(cut).nbytes, not why, largest, why)
        lines.append(line)
        if on_line is not None:
            on_line(line)
    return VerifyReport(
        pipeline.digest, tuple(lines), dict(pipeline.refused), info, len(payloads), ran, detail, pipeline.warnings
    )


def _positive(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")


def _payloads(pipeline: CuttablePipeline[Any], count: int, sample: Any, seed: int) -> list[Arrays]:
    if sample is not None:
        return [dict(pipeline.bind(sample))] * (count if pipeline.stateful else 1)
    random = np.random.default_rng(seed)
    return [random_payload(pipeline.inputs, random, pipeline.index_limits) for _ in range(count)]


class _Verification:
    """What is known of the cuts so far: it starts child processes, and gathers what they answer."""

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        timeout_s: float,
        on_line: Callable[[CutCheck], None] | None,
        *,
        random_inputs: bool,
    ) -> None:
        self.random_inputs = random_inputs
        self.model, self.runtime, self.timeout_s, self.on_line = model, runtime, timeout_s, on_line
        self.lines: list[CutCheck] = []
        self.info: RuntimeInfo | None = None
        self.ran = False
        self.detail = ""

    def check(self, cuts: list[int], payloads: Sequence[Arrays]) -> list[int]:
        """Check `cuts` in one child; return those that a crash left unchecked."""
        model = self.model
        request = Check(for_child(self.runtime), model.signature, model.sink, model.digest, cuts)
        begun, at = False, None
        try:
            with contextlib.closing(answers(request, model.to_bytes(), payloads, self.timeout_s)) as stream:
                for answer in stream:
                    if isinstance(answer, Running):
                        begun, at = True, answer.cut
                    elif isinstance(answer, Info):
                        self.info = RuntimeInfo(*answer.fields)
                    elif isinstance(answer, Failed):
                        raise ModelError(f"the model could not be checked: {answer.reason}")
                    elif isinstance(answer, Whole):
                        self.ran = answer.ran
                        if answer.reason:
                            refused = self.random_inputs and not self.ran
                            self.detail = blame_random_input(answer.reason) if refused else answer.reason
                            return []
                    elif isinstance(answer, Cut):
                        self._add(answer.cut, answer.reason, answer.largest)
                        if answer.cut == cuts[-1]:
                            return []
        except ChildLost as death:
            if not begun:
                raise ModelError(f"the child process that checks a model did not start: {death}") from None
            if at is None:
                self.detail = f"{death} while running the uncut model"
                self.ran = bool(self.lines)
                return []
            self._add(at, f"{death} while running head and tail", None)
            return cuts[cuts.index(at) + 1 :]
        raise AssertionError("the answers never end")

    def _add(self, cut: int, why: str, largest: float | None) -> None:
        line = CutCheck(cut, self.model.boundary(cut).nbytes, not why, largest, why)
        self.lines.append(line)
        if self.on_line is not None:
            self.on_line(line)
