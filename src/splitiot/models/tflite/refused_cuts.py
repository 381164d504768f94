"""Why a network may not be cut at some places."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from splitiot.models.tflite.fusions import Fusion
from splitiot.models.tflite.graph import DTYPES
from splitiot.pipeline import Sink

if TYPE_CHECKING:
    from splitiot.models.tflite.anatomy import Anatomy

__all__ = ["refused_cuts", "run_as_one"]


def refused_cuts(anatomy: Anatomy, sink: Sink, *, fusing: bool) -> dict[int, str]:
    """Find the cuts that are not legal, with the reasons of each.

    Parameters
    ----------
    anatomy : Anatomy
    sink : {"device", "edge"}
    fusing : bool
        Whether the kernels run operators as one.
    """
    begins: dict[int, list[str]] = {}
    ends: dict[int, list[str]] = {}
    fused = ((f.first + 1, f.last, run_as_one(f)) for f in (anatomy.fusions if fusing else ()))
    for first, last, reason in itertools.chain(_problems(anatomy, sink), fused):
        if first <= last:
            begins.setdefault(first, []).append(reason)
            ends.setdefault(last + 1, []).append(reason)
    refused: dict[int, str] = {}
    active: Counter[str] = Counter()
    for cut in range(anatomy.n + 1):
        for reason in ends.get(cut, ()):
            active[reason] -= 1
            if not active[reason]:
                del active[reason]
        active.update(begins.get(cut, ()))
        if active:
            refused[cut] = "; ".join(itertools.islice(active, 3))
    return refused


def _problems(anatomy: Anatomy, sink: Sink) -> Iterable[tuple[int, int, str]]:
    """Reasons, each with the first and the last cut that it forbids."""
    born, last, results = anatomy.liveness.born, anatomy.liveness.last, set(anatomy.liveness.results)
    for index in born:
        # what is a result of the edge crosses from where it is made, what is one of the device's comes back
        if sink == "edge" and index in results:
            until = anatomy.n
        else:
            until = -1 if index in anatomy.liveness.constant_results else min(last.get(index, 0), anatomy.n - 1)
        first = born[index]
        kind = _type_problem(anatomy, index)
        if kind and sink == "device" and index in results:
            yield 0, first - 1, kind
            yield 0, 0, kind
        reason = kind or (_shape_problem(anatomy, index) if until >= first else None)
        if reason:
            yield first, until, reason
    for what, (begin, end, who) in _shared(anatomy).items():
        yield begin + 1, end, f"{who} use {what}, which would be on both sides: cut before or behind all of them"


def _type_problem(anatomy: Anatomy, index: int) -> str | None:
    tensor = anatomy.graph.tensors[index]
    if tensor.type in DTYPES:
        return None
    if tensor.type in ("RESOURCE", "VARIANT"):
        why = f"a {tensor.type} lives inside one interpreter and can't cross"
    else:
        why = f"{tensor.type} can't cross: it is no array of a numpy type"
    return f"{_origin(anatomy, index)}: {why}. Cut elsewhere"


def _shape_problem(anatomy: Anatomy, index: int) -> str | None:
    if index in anatomy.shapes.varying:
        return (
            f"{_origin(anatomy, index)}: its shape is not fixed, since {anatomy.shapes.varying[index]}. "
            "Cut before that operator, or behind one that gives a fixed shape"
        )
    if index in anatomy.shapes.unranked:
        return f"{_origin(anatomy, index)}: its shape is unknown, the file does not even tell its rank. Cut elsewhere"
    if index in anatomy.shapes.unknown and anatomy.shape(index) is None:
        answer = anatomy.answer
        text = answer if isinstance(answer, str) else "not even an interpreter knows its shape"
        return f"{_origin(anatomy, index)} needs an interpreter: {text}"
    return None


def _origin(anatomy: Anatomy, index: int) -> str:
    operator = anatomy.producer.get(index)
    what = f"tensor {index} {anatomy.names[index]!r}"
    return f"{operator} makes {what}" if operator else f"{what}, an input of the model"


def _shared(anatomy: Anatomy) -> dict[str, tuple[int, int, str]]:
    """What several steps share: the first and the last of them, and who they are."""
    users: dict[str, list[tuple[int, str]]] = {}
    for index, state in enumerate(anatomy.states):
        for what, who in state.shared.items():
            users.setdefault(what, []).append((index, who))
    return {
        what: (steps[0][0], steps[-1][0], " and ".join(dict.fromkeys((steps[0][1], steps[-1][1]))))
        for what, steps in users.items()
        if len(steps) > 1
    }


def run_as_one(fusion: Fusion) -> str:
    """Say that a cut between fused operators changes bits."""
    one, other = fusion.operators
    return (
        f"{one} and {other} are run as one by the default kernels (XNNPACK), and a cut between them gives other bits. "
        'Cut before or behind both, or run both sides with other kernels: Runtime(kernels="no-delegate")'
    )
