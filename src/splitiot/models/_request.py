"""What is asked of a child process that tries models, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from splitiot._child import Message
from splitiot.pipeline import Sink

__all__ = [
    "Answer",
    "Arrays",
    "Check",
    "Cut",
    "Failed",
    "GetShapes",
    "Info",
    "Missing",
    "Probe",
    "Refused",
    "Request",
    "Running",
    "Shapes",
    "Whole",
    "read_request",
    "request_pieces",
]

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class GetShapes(msgspec.Struct, frozen=True, tag=True):
    """Asks for the shapes of the first subgraph's tensors. `runtime` is what ``Runtime(*runtime)`` takes."""

    runtime: Sequence[Any]
    inputs: Mapping[int, Sequence[int]]


class Probe(msgspec.Struct, frozen=True, tag=True):
    """Asks to run the uncut model."""

    runtime: Sequence[Any]
    signature: str | None
    sink: Sink
    digest: str


class Check(Probe, frozen=True, tag=True):
    """Asks to run the uncut model, and each cut against it."""

    cuts: Sequence[int]


Request: TypeAlias = GetShapes | Probe | Check


class Running(msgspec.Struct, frozen=True, tag=True):
    """From now on head and tail of this cut are run, or the uncut model."""

    cut: int | None = None


class Info(msgspec.Struct, frozen=True, tag=True):
    """What it runs on: the fields of a RuntimeInfo."""

    fields: tuple[str, str, str, str]


class Missing(msgspec.Struct, frozen=True, tag=True):
    """There is no such interpreter: what a MissingDependencyError says."""

    package: str
    extra: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The interpreter does not take the model."""

    reason: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Something else was raised."""

    reason: str


class Shapes(msgspec.Struct, frozen=True, tag=True):
    """By the tensor's index."""

    shapes: dict[int, tuple[int, ...]]


class Whole(msgspec.Struct, frozen=True, tag=True):
    """How the uncut model ran: not at all, not reproducibly (there is a reason then), or well."""

    ran: bool
    reason: str = ""


class Cut(msgspec.Struct, frozen=True, tag=True):
    """What is wrong at a cut, "" if nothing is, and the largest difference."""

    cut: int
    reason: str
    largest: float | None


Answer: TypeAlias = Running | Info | Missing | Refused | Failed | Shapes | Whole | Cut

_DECODER: Final = msgspec.msgpack.Decoder(tuple[Request, list[list[tuple[str, str, tuple[int, ...]]]]])


def request_pieces(request: Request, model: bytes, payloads: Sequence[Arrays]) -> list[Any]:
    """Make the message that asks: the request and what the arrays are, the model, the arrays."""
    described = [[(name, a.dtype.str, a.shape) for name, a in payload.items()] for payload in payloads]
    header = msgspec.msgpack.encode((request, described))
    return [header, model, *(np.asarray(a) for payload in payloads for a in payload.values())]


def read_request(message: Message) -> tuple[Request, bytes, list[Arrays]]:
    """Undo `request_pieces`: the request, the model and the payloads."""
    request, described = _DECODER.decode(message[0])
    buffers = iter(message[2:])
    payloads = [
        {name: np.frombuffer(next(buffers), dtype).reshape(shape) for name, dtype, shape in payload}
        for payload in described
    ]
    return request, bytes(message[1]), payloads
