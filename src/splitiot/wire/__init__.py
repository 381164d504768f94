"""Messages and their bytes.

A frame is a prefix of 16 bytes, a header in MessagePack, and the arrays' buffers, each starting at a multiple of 16:

    0   2  b"SI"
    2   1  version of the protocol
    3   1  kind of message
    4   4  bytes of the header, little-endian
    8   4  bytes behind the header's padding
    12  4  bytes of the trailer (at most 4096), 0 for none
    16     header, then zeros to a multiple of 16, then buffers, each with zeros to a multiple of 16, then the trailer

A reader skips a trailer that it does not know; none is written as yet. A header is an array in the order of the
message's fields. Fields are only ever added behind the last one: readers ignore what they do not know, and take the
default of what is missing. Only durations stand on the wire, no clocks.

`decode` and `unpack` take time that is linear in a frame's bytes, below 2 ms for 100 kB, whatever stands in it: lengths
are bounded before anything is made of them, and a frame that breaks a rule is refused with a `RemoteProtocolError`.
"""

from __future__ import annotations

from splitiot.wire._frame import MAGIC, MAX_HEADER_BYTES, VERSION, decode, encode, frame_length, no_frame
from splitiot.wire._messages import (
    BOOT_BYTES,
    KINDS,
    MAX_ARRAYS,
    MAX_FRAME_BYTES,
    MAX_OBSERVATIONS,
    MAX_PIECES,
    MAX_PIPELINES,
    MAX_TELEMETRY,
    NOBODY,
    Boot,
    Busy,
    Echo,
    ErrorCode,
    Failure,
    Hello,
    Message,
    NextPlacement,
    PipelineHello,
    Probe,
    ProfileData,
    Reply,
    Request,
    Tree,
    Welcome,
)
from splitiot.wire._payload import Packed, finite, pack, unpack

__all__ = [
    "BOOT_BYTES",
    "KINDS",
    "MAGIC",
    "MAX_ARRAYS",
    "MAX_FRAME_BYTES",
    "MAX_HEADER_BYTES",
    "MAX_OBSERVATIONS",
    "MAX_PIECES",
    "MAX_PIPELINES",
    "MAX_TELEMETRY",
    "NOBODY",
    "VERSION",
    "Boot",
    "Busy",
    "Echo",
    "ErrorCode",
    "Failure",
    "Hello",
    "Message",
    "NextPlacement",
    "Packed",
    "PipelineHello",
    "Probe",
    "ProfileData",
    "Reply",
    "Request",
    "Tree",
    "Welcome",
    "decode",
    "encode",
    "finite",
    "frame_length",
    "no_frame",
    "pack",
    "unpack",
]
