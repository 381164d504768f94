"""A frame that came to the edge, read before any state is looked at."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

from splitiot import wire
from splitiot.codecs import RAW
from splitiot.errors import RemoteProtocolError
from splitiot.pipeline import Payload

__all__ = ["QUICK_BYTES", "Received", "read_frame"]

QUICK_BYTES: Final = 2**16
_ENCODER: Final = msgspec.msgpack.Encoder()


class Received(msgspec.Struct, frozen=True, eq=False):
    """A frame that was read, or why it could not be.

    Parameters
    ----------
    message : Message, optional
        None where the frame is refused.
    nbytes : int
        Of the frame.
    padding : int
        Of a probe.
    payload : object
        Of a request; its arrays are views of the frame.
    misfit : str
        Why a request has none.
    fingerprint : int
        Tells requests of the same id apart.
    refusal : str
        What is wrong with the frame.
    """

    message: wire.Message | None
    nbytes: int
    padding: int = 0
    payload: Payload = None
    misfit: str = ""
    fingerprint: int = 0
    refusal: str = ""


def read_frame(frame: bytes | memoryview, max_frame_bytes: int) -> Received:
    """Read a frame; the time is linear in its bytes."""
    nbytes = memoryview(frame).nbytes
    try:
        message, buffers = wire.decode(frame, max_frame_bytes=max_frame_bytes)
    except RemoteProtocolError as error:
        return Received(None, nbytes, refusal=str(error))
    if not isinstance(message, wire.Request):
        return Received(message, nbytes, padding=sum(buffer.nbytes for buffer in buffers))
    payload, misfit = None, ""
    try:
        payload = wire.unpack(message, buffers, RAW)  # steps do not write into what they are given
    except RemoteProtocolError as error:
        misfit = str(error)
    return Received(message, nbytes, payload=payload, misfit=misfit, fingerprint=_fingerprint(message, buffers))


def _fingerprint(request: wire.Request, buffers: list[memoryview]) -> int:
    """Tell requests of the same id apart; one that is sent again has another attempt and less time left."""
    header = _ENCODER.encode(msgspec.structs.replace(request, attempt=0, deadline_s=None))
    if sum(map(len, buffers)) <= QUICK_BYTES:
        return hash((header, b"".join(buffers)))
    digest = blake2b(header, digest_size=8)
    for buffer in buffers:  # without a copy, and other threads go on meanwhile
        digest.update(buffer)
    return int.from_bytes(digest.digest(), "big")
