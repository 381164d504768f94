"""What is asked of a child process: one request, as bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["WHOLE", "Arrays", "pack_request", "read_request"]

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

WHOLE = -1
"""Stands for a cut in the answers: the uncut model."""

_HEAD = struct.Struct("<Q")


def pack_request(header: dict[str, Any], model: bytes, payloads: Sequence[Arrays]) -> bytes:
    """Make the bytes that the child reads: a length, JSON, the model, the arrays."""
    arrays = [[[name, a.dtype.str, list(a.shape)] for name, a in payload.items()] for payload in payloads]
    head = json.dumps(header | {"model_bytes": len(model), "arrays": arrays}).encode()
    raw = [a.tobytes() for payload in payloads for a in payload.values()]
    return b"".join([_HEAD.pack(len(head)), head, model, *raw])


def read_request(stream: IO[bytes]) -> tuple[dict[str, Any], bytes, list[Arrays]]:
    """Undo `pack_request`: the header, the model and the payloads."""
    (length,) = _HEAD.unpack(stream.read(_HEAD.size))
    header: dict[str, Any] = json.loads(stream.read(length))
    model = stream.read(header["model_bytes"])
    payloads: list[Arrays] = []
    for tensors in header["arrays"]:
        payload: Arrays = {}
        for name, text, shape in tensors:
            dtype = np.dtype(text)
            count = int(np.prod(shape, dtype=np.int64))
            payload[name] = np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(shape)
        payloads.append(payload)
    return header, model, payloads
