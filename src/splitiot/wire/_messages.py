"""The messages. Their fields stand on the wire in this order, and new ones are only added behind the last.

Each length in them is bounded, or paid for with bytes of the header: so what reading one costs is linear in its bytes.
Nothing in them is of just any type, since a byte can make an object of 60.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from splitiot.codecs import MAX_DIMENSIONS
from splitiot.observation import EdgeTimes, Observation

__all__ = [
    "BOOT_BYTES",
    "KINDS",
    "MAX_ARRAYS",
    "MAX_FRAME_BYTES",
    "MAX_OBSERVATIONS",
    "MAX_PIECES",
    "MAX_PIPELINES",
    "MAX_TELEMETRY",
    "NOBODY",
    "PIECE_BYTES",
    "Array",
    "Boot",
    "Busy",
    "Echo",
    "ErrorCode",
    "Failure",
    "Hello",
    "Message",
    "NextPlacement",
    "PipelineHello",
    "Probe",
    "ProfileData",
    "Reply",
    "Request",
    "Tree",
    "Welcome",
]

MAX_FRAME_BYTES: Final = 64 * 2**20
"""The largest frame that is accepted unless told otherwise."""

MAX_ARRAYS: Final = 1024
"""Of one payload, numpy scalars included."""

MAX_PIECES: Final = 2048
"""Of one payload's tree."""

MAX_OBSERVATIONS: Final = 64
"""In one request."""

MAX_PIPELINES: Final = 64
"""In one hello or welcome; and profiles."""

MAX_TELEMETRY: Final = 64
"""Numbers in one request."""

PIECE_BYTES: Final = 5
BOOT_BYTES: Final = 16
_MAX_PROFILE_ENTRIES: Final = 64
_MAX_CUTS: Final = 16
_MAX_PARTS: Final = 4096

Boot: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=BOOT_BYTES, max_length=BOOT_BYTES)]
"""128 random bits, drawn anew by each process of a device or an edge. A device without a token is known by them alone:
who does not know them can't ask in its place, nor get its answers. So they stand in no log and no error message."""

NOBODY: Final = bytes(BOOT_BYTES)
"""The boot in an answer to bytes that could not be read."""

_Word: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]
_Digest: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=32)]

Array: TypeAlias = tuple[_Word, Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)], int]
"""Type, shape, and bytes of the packed buffer."""

_Arrays: TypeAlias = Annotated[tuple[Array, ...], msgspec.Meta(max_length=MAX_ARRAYS)]
_Names: TypeAlias = Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_ARRAYS)]

ProfileData: TypeAlias = Annotated[
    dict[_Word, bool | int | float | str | list[float | str] | None], msgspec.Meta(max_length=_MAX_PROFILE_ENTRIES)
]
"""What `TierProfile.to_dict` gives."""

_Profiles: TypeAlias = Annotated[tuple[ProfileData, ...], msgspec.Meta(max_length=MAX_PIPELINES)]
_Digests: TypeAlias = Annotated[tuple[_Digest, ...], msgspec.Meta(max_length=MAX_PIPELINES)]


class Tree(msgspec.Struct, frozen=True, array_like=True):
    """A payload that is not just a dict of arrays: the values in it, in order, and how they hang together.

    Parameters
    ----------
    pieces : bytes
        5 for each: its kind (1 byte) and a number (4, little-endian). 1 to 4 are the next so many plain values, bytes,
        arrays, arrays as numpy scalars; 5 to 7 are a list, a tuple, a dict of so many items, whose pieces follow; 13 to
        15 the same of the next so many plain values; 8 is bytes of their own buffers, the last ones.
    values : tuple
        None, bool, int, float, str.
    keys : tuple of str
        Of the dicts, in order.
    blobs : tuple of bytes
    """

    pieces: Annotated[bytes, msgspec.Meta(max_length=PIECE_BYTES * MAX_PIECES)]
    values: tuple[bool | int | float | str | None, ...] = ()
    keys: tuple[str, ...] = ()
    blobs: tuple[bytes, ...] = ()


class ErrorCode:
    """Why the edge could not compute: the codes that stand in a `Failure`."""

    UNKNOWN_PIPELINE: Final = "unknown-pipeline"
    BAD_PART: Final = "bad-part"
    BAD_BOUNDARY: Final = "bad-boundary"
    BAD_PAYLOAD: Final = "bad-payload"
    BAD_CODEC: Final = "bad-codec"
    BAD_FRAME: Final = "bad-frame"
    BAD_ORDER: Final = "bad-order"
    INEXACT: Final = "inexact"
    STATE_LOST: Final = "state-lost"
    DUPLICATE_ID: Final = "duplicate-id"
    FORGOTTEN: Final = "forgotten"
    LATE: Final = "late"
    FAILED: Final = "failed"
    DROPPED: Final = "dropped"
    OTHER_CODE: Final = "other-code"


class PipelineHello(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What one side has of a pipeline.

    Parameters
    ----------
    digest : bytes
        32 bytes.
    n : int
        The number of steps.
    sink : str
    stateful : bool
    parts : tuple of (int, int), optional
        The parts [start, stop) present; None where any can be made.
    runtime : tuple of str, optional
        Name, version, kernels, machine of `splitiot.RuntimeInfo`.
    implementation : bytes
        `Pipeline.implementation`.
    """

    digest: _Digest
    n: int
    sink: _Word = "device"
    stateful: bool = False
    parts: Annotated[tuple[tuple[int, int], ...], msgspec.Meta(max_length=_MAX_PARTS)] | None = None
    runtime: tuple[str, str, str, str] | None = None
    implementation: bytes = b""


_Pipelines: TypeAlias = Annotated[tuple[PipelineHello, ...], msgspec.Meta(max_length=MAX_PIPELINES)]


class Hello(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Device to edge: who I am and what I have.

    Parameters
    ----------
    boot : bytes
        Random, new at each start of the device.
    sequence : int
    pipelines : tuple of PipelineHello
    profiles : tuple of dict
        The device's own, where the edge asked for them.
    want_profiles : tuple of bytes
        Digests of the pipelines whose edge profiles are wanted.
    """

    boot: Boot
    sequence: int
    pipelines: _Pipelines = ()
    profiles: _Profiles = ()
    want_profiles: _Digests = ()


class Welcome(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Edge to device: the answer to a Hello. `boot` and `sequence` are those of the Hello."""

    boot: Boot
    sequence: int
    edge_boot: Boot
    pipelines: _Pipelines = ()
    profiles: _Profiles = ()
    want_profiles: _Digests = ()
    max_frame_bytes: int = MAX_FRAME_BYTES


class Request(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Device to edge: run [start, stop) on this payload.

    Parameters
    ----------
    boot : bytes
    sequence : int
        Together with the peer's identity the request's id. The same id is executed once. Another request with the id of
        one that is remembered is refused: but for `attempt` and `deadline_s` they must be the same, byte for byte.
    digest : bytes
    start, stop : int
    fingerprint : bytes
        8 bytes: `Boundary.fingerprint` at `start`.
    names : tuple of str, optional
        Of a payload that is a dict of arrays: their names, in the order of `arrays`.
    payload : Tree, optional
        Of any other payload; None where that is None.
    arrays : tuple of (str, tuple of int, int)
        Type, shape and packed bytes of each.
    codec : str
    sink : str
    deadline_s : float, optional
        What is left of it when this is sent.
    plan_id : int
    probe : bool
    propensity : float
    observations : tuple of Observation
        Of earlier requests; may be repeated.
    telemetry : dict of str to float
    attempt : int
        0, then 1, 2, ... for retransmissions.
    order : int, optional
        Of stateful parts: 0, 1, 2, ... in each epoch.
    epoch : int
        Of parts that remember: how often the device has reset. What an earlier one left behind is forgotten.
    holder : bytes
        Of parts that remember: the boot of the edge that holds what they remember. Empty while none has said that it
        does; then this request may be the first.
    runtime : bytes
        Refuse unless run with this, the fingerprint of a `splitiot.RuntimeInfo`; empty for whatever is there.
    implementation : bytes
        `Pipeline.implementation`: refuse where it is known to be another one.
    """

    boot: Boot
    sequence: int
    digest: _Digest
    start: int
    stop: int
    fingerprint: _Digest
    names: _Names | None = None
    payload: Tree | None = None
    arrays: _Arrays = ()
    codec: _Word = "raw"
    sink: _Word = "device"
    deadline_s: float | None = None
    plan_id: int = 0
    probe: bool = False
    propensity: float = 1.0
    observations: Annotated[tuple[Observation, ...], msgspec.Meta(max_length=MAX_OBSERVATIONS)] = ()
    telemetry: Annotated[dict[str, float], msgspec.Meta(max_length=MAX_TELEMETRY)] = {}
    attempt: int = 0
    order: int | None = None
    epoch: int = 0
    holder: Annotated[bytes, msgspec.Meta(max_length=BOOT_BYTES)] = b""
    runtime: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    implementation: bytes = b""


class NextPlacement(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What the edge's planner chose for the device's next request."""

    plan_id: int
    cuts: Annotated[tuple[int, ...], msgspec.Meta(max_length=_MAX_CUTS)]
    codecs: Annotated[tuple[_Word, ...], msgspec.Meta(max_length=_MAX_CUTS)] = ("raw",)
    why: str = ""
    probe: bool = False
    propensity: float = 1.0
    valid_s: float = 1.0


class Reply(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Edge to device: what the tail gave.

    `hello` asks for a Hello when convenient: the edge plans, and does not know this boot of the device. `runtime` is
    the fingerprint of what it was run with: several processes may answer at one address, and each says it of itself.
    """

    boot: Boot
    sequence: int
    edge_boot: Boot
    times: EdgeTimes = EdgeTimes()
    names: _Names | None = None
    payload: Tree | None = None
    arrays: _Arrays = ()
    codec: _Word = "raw"
    next: NextPlacement | None = None
    hello: bool = False
    runtime: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


class Busy(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Edge to device: not now; come back after `retry_after_s`. Nothing was executed.

    A Hello is answered so, too, where the edge knows as many devices as it may.
    """

    boot: Boot
    sequence: int
    edge_boot: Boot
    retry_after_s: float = 0.1


class Failure(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Edge to device: it could not be computed. `boot` is `NOBODY` and `sequence` 0 where it was unreadable."""

    boot: Boot
    sequence: int
    edge_boot: Boot
    code: str = ErrorCode.FAILED
    message: str = ""
    times: EdgeTimes = EdgeTimes()


class Probe(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Device to edge: measure the link. The frame's buffers are padding; `echo_bytes` of padding come back."""

    boot: Boot
    sequence: int
    echo_bytes: int = 0


class Echo(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Edge to device: the answer to a Probe."""

    boot: Boot
    sequence: int
    edge_boot: Boot
    residence_s: float = 0.0


Message: TypeAlias = Hello | Welcome | Request | Reply | Busy | Failure | Probe | Echo

KINDS: Final[tuple[type[Message], ...]] = (Hello, Welcome, Request, Reply, Busy, Failure, Probe, Echo)
"""In the order of their numbers on the wire, from 1. Only ever longer."""
