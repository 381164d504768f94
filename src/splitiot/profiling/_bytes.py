"""What payloads weigh, and what crosses where no boundary knows it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from splitiot.pipeline import Payload, Pipeline

__all__ = ["crossing_bytes", "payload_bytes"]


def crossing_bytes(
    pipeline: Pipeline, sent_bytes: Mapping[int, int], result_bytes: int
) -> tuple[list[float] | None, list[float] | None]:
    """Return what crosses at each cut where no boundary knows it; None where all do."""
    sent: dict[int, int | None] = {cut: pipeline.boundary(cut).nbytes for cut in pipeline.cuts}
    returned: dict[int, int | None] = {cut: pipeline.returned(cut).nbytes for cut in pipeline.cuts}
    return (
        _filled(pipeline.n, sent, sent_bytes),
        _filled(pipeline.n, returned, dict.fromkeys(pipeline.cuts, result_bytes)),
    )


def _filled(n: int, known: Mapping[int, int | None], measured: Mapping[int, int]) -> list[float] | None:
    if all(size is not None for size in known.values()):
        return None
    cuts = sorted(known)
    sizes = [float(measured[c] if (size := known[c]) is None else size) for c in cuts]
    filled: list[float] = np.interp(np.arange(n + 1), cuts, sizes).tolist()  # cuts that are not legal never cross
    return filled


def payload_bytes(payload: Payload) -> int:
    """About the bytes that a payload takes on the wire: arrays by their contents, the rest roughly.

    Examples
    --------
    >>> payload_bytes({"image": np.zeros((2, 3), np.float32), "boxes": [1, 2.5, "ab"]})
    57
    """
    if payload is None or isinstance(payload, bool):
        return 1
    if isinstance(payload, np.ndarray | np.generic):
        return payload.nbytes
    if isinstance(payload, int | float):
        return 9
    if isinstance(payload, str):
        return 1 + len(payload.encode())
    if isinstance(payload, bytes | bytearray | memoryview):
        return memoryview(payload).nbytes
    if isinstance(payload, Mapping):
        return sum(payload_bytes(k) + payload_bytes(v) for k, v in payload.items())
    if isinstance(payload, list | tuple | set | frozenset):
        return sum(map(payload_bytes, payload))
    return sys.getsizeof(payload)
