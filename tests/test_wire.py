"""The bytes on the wire: golden vectors that must not change, round trips, and hostile frames."""

from __future__ import annotations

import datetime
import enum
import hashlib
import math
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitiot import wire
from splitiot.codecs import DTYPES
from splitiot.edge import EdgeService
from splitiot.errors import LocalProtocolError, PayloadTooLarge, RemoteProtocolError
from splitiot.functions import tasks
from splitiot.observation import EdgeTimes, Observation
from splitiot.pipeline import MAX_DEPTH

BOOT, EDGE_BOOT = bytes(range(16)), bytes(range(16, 32))
RUNTIME = ("litert", "2.3.0", "default", "x86_64")
PIPELINE = wire.PipelineHello(digest=bytes(range(32)), n=27, parts=((0, 7), (7, 27)), runtime=RUNTIME)
SEEN = Observation(
    plan_id=3,
    cut=7,
    head_s=0.5,
    tail_s=0.25,
    edge=EdgeTimes(0.5, 0.25, 0.125, 0.0625, 1.0),
    round_trip_s=2.0,
    sent_bytes=100,
    received_bytes=10,
)
MESSAGES: dict[str, wire.Message] = {
    "hello": wire.Hello(boot=BOOT, sequence=1, pipelines=(PIPELINE,), want_profiles=(bytes(range(32)),)),
    "welcome": wire.Welcome(
        boot=BOOT, sequence=1, edge_boot=EDGE_BOOT, pipelines=(PIPELINE,), profiles=({"digest": "ab"},)
    ),
    "request": wire.Request(
        boot=BOOT,
        sequence=2,
        digest=bytes(range(32)),
        start=7,
        stop=27,
        fingerprint=bytes(range(8)),
        names=("t",),
        arrays=(("int8", (2, 2), 4),),
        deadline_s=0.5,
        plan_id=3,
        observations=(SEEN,),
        telemetry={"battery": 0.5},
        order=0,
        epoch=2,
        holder=EDGE_BOOT,
        runtime=bytes(range(8)),
    ),
    "reply": wire.Reply(
        boot=BOOT,
        sequence=2,
        edge_boot=EDGE_BOOT,
        times=EdgeTimes(0.5, 0.25, 0.125, 0.0625, 1.0),
        names=("t",),
        arrays=(("int8", (2, 2), 4),),
        next=wire.NextPlacement(plan_id=4, cuts=(7,), why="least latency_s"),
        runtime=bytes(range(8)),
    ),
    "busy": wire.Busy(boot=BOOT, sequence=2, edge_boot=EDGE_BOOT, retry_after_s=0.5),
    "failure": wire.Failure(boot=BOOT, sequence=2, edge_boot=EDGE_BOOT, code="late", message="no"),
    "probe": wire.Probe(boot=BOOT, sequence=2, echo_bytes=4),
    "echo": wire.Echo(boot=BOOT, sequence=2, edge_boot=EDGE_BOOT, residence_s=0.5),
}
TREE = wire.pack([{"box": (1, 2.5), "label": "cat"}, None, b"x", np.int8(7), np.array([[1, 2], [3, 4]], np.int8)])
MESSAGES["task_reply"] = wire.Reply(
    boot=BOOT, sequence=3, edge_boot=EDGE_BOOT, payload=TREE.payload, arrays=TREE.arrays, hello=True
)
BUFFERS: dict[str, list[Any]] = {
    "request": [np.array([[1, 2], [3, 4]], np.int8)],
    "reply": [b"\x01\x02\x03\x04"],
    "task_reply": list(TREE.buffers),
    "probe": [bytes(16)],
}
# A change of these bytes breaks devices in the field: only add fields behind the last one, and keep these readable.
GOLDEN = {
    "hello": (
        "534902018b000000000000000000000095c410000102030405060708090a0b0c0d0e0f019197c42000010203040506070809"
        "0a0b0c0d0e0f101112131415161718191a1b1c1d1e1f1ba6646576696365c29292000792071b94a66c6974657274a5322e33"
        "2e30a764656661756c74a67838365f3634c4009091c420000102030405060708090a0b0c0d0e0f101112131415161718191a"
        "1b1c1d1e1f0000000000"
    ),
    "welcome": (
        "534902028b000000000000000000000097c410000102030405060708090a0b0c0d0e0f01c410101112131415161718191a1b"
        "1c1d1e1f9197c420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f1ba6646576696365c292"
        "92000792071b94a66c6974657274a5322e332e30a764656661756c74a67838365f3634c4009181a6646967657374a2616290"
        "ce040000000000000000"
    ),
    "request": (
        "53490203100100001000000000000000dc0017c410000102030405060708090a0b0c0d0e0f02c42000010203040506070809"
        "0a0b0c0d0e0f101112131415161718191a1b1c1d1e1f071bc408000102030405060791a174c09193a4696e743892020204a3"
        "726177a6646576696365cb3fe000000000000003c2cb3ff000000000000091dc00110307cb3fe0000000000000cb3fd00000"
        "00000000c096cb3fe0000000000000cb3fd0000000000000cb3fc0000000000000cb3fb0000000000000cb3ff00000000000"
        "0090cb4000000000000000640ac2c2c29090cb0000000000000000cb0000000000000000c281a762617474657279cb3fe000"
        "0000000000000002c410101112131415161718191a1b1c1d1e1fc4080001020304050607c400010203040000000000000000"
        "00000000"
    ),
    "reply": (
        "534902049f00000010000000000000009bc410000102030405060708090a0b0c0d0e0f02c410101112131415161718191a1b"
        "1c1d1e1f96cb3fe0000000000000cb3fd0000000000000cb3fc0000000000000cb3fb0000000000000cb3ff0000000000000"
        "9091a174c09193a4696e743892020204a37261779704910791a3726177af6c65617374206c6174656e63795f73c2cb3ff000"
        "0000000000cb3ff0000000000000c2c40800010203040506070001020304000000000000000000000000"
    ),
    "busy": (
        "534902052f000000000000000000000094c410000102030405060708090a0b0c0d0e0f02c410101112131415161718191a1b"
        "1c1d1e1fcb3fe000000000000000"
    ),
    "failure": (
        "534902065d000000000000000000000096c410000102030405060708090a0b0c0d0e0f02c410101112131415161718191a1b"
        "1c1d1e1fa46c617465a26e6f96cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000cb"
        "000000000000000090000000"
    ),
    "probe": (
        "5349020715000000100000000000000093c410000102030405060708090a0b0c0d0e0f020400000000000000000000000000"
        "0000000000000000000000000000"
    ),
    "echo": (
        "534902082f000000000000000000000094c410000102030405060708090a0b0c0d0e0f02c410101112131415161718191a1b"
        "1c1d1e1fcb3fe000000000000000"
    ),
    "task_reply": (
        "53490204bb00000020000000000000009bc410000102030405060708090a0b0c0d0e0f03c410101112131415161718191a1b"
        "1c1d1e1f96cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000"
        "90c094c428050500000007020000000e02000000010100000001010000000201000000040100000003010000009401cb4004"
        "000000000000a3636174c092a3626f78a56c6162656c91c401789293a4696e7438900193a4696e743892020204a3726177c0"
        "c3c40000000000000700000000000000000000000000000001020304000000000000000000000000"
    ),
}


VERSION_1 = "534901080400000010000000000000009301020400000000000000000000000000000000000000000000000000000000"
"""A probe of a device that was not updated."""


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_bytes(name: str) -> None:
    frame = bytes.fromhex(GOLDEN[name])
    assert wire.encode(MESSAGES[name], BUFFERS.get(name, ())).hex() == GOLDEN[name]
    message, buffers = wire.decode(frame)
    assert message == MESSAGES[name]
    assert [bytes(b) for b in buffers] == [bytes(memoryview(b).cast("B")) for b in BUFFERS.get(name, ())]


def test_the_version_before_is_refused_in_words() -> None:
    words = "protocol version 1, this side speaks 2: update the older side"
    with pytest.raises(RemoteProtocolError, match=words):
        wire.decode(bytes.fromhex(VERSION_1))
    answer, _ = wire.decode(EdgeService([tasks([abs])]).handle(bytes.fromhex(VERSION_1), peer="old"))
    assert isinstance(answer, wire.Failure)
    assert (answer.code, answer.boot, answer.message) == ("bad-frame", wire.NOBODY, words)


@pytest.mark.parametrize("boot", [b"", bytes(15), bytes(17), 7, "x" * 16])
def test_a_boot_has_sixteen_bytes(boot: object) -> None:
    for message in MESSAGES.values():
        if not isinstance(message, wire.Request | wire.Reply):  # with arrays
            with pytest.raises(RemoteProtocolError, match="unreadable header"):
                wire.decode(rebuilt(message, lambda fields: [boot, *fields[1:]]))


def test_every_kind_has_a_golden_frame() -> None:
    assert {type(message) for message in MESSAGES.values()} == set(wire.KINDS)


def rebuilt(message: wire.Message, change: object) -> bytes:
    """The message's frame with another header: what a newer or an older side would send."""
    frame = wire.encode(message)
    length = int.from_bytes(frame[4:8], "little")
    fields = msgspec.msgpack.decode(frame[16 : 16 + length])
    header = msgspec.msgpack.encode(change(fields))  # type: ignore[operator]
    return frame[:4] + len(header).to_bytes(4, "little") + frame[8:16] + header + bytes(-len(header) % 16)


@pytest.mark.parametrize("name", [n for n in MESSAGES if n not in BUFFERS])
def test_fields_of_a_newer_version_are_ignored(name: str) -> None:
    message, _ = wire.decode(rebuilt(MESSAGES[name], lambda fields: [*fields, {"new": 1}, 7]))
    assert message == MESSAGES[name]


def test_fields_that_an_older_version_lacks_take_their_defaults() -> None:
    busy, _ = wire.decode(rebuilt(wire.Busy(boot=BOOT, sequence=2, edge_boot=EDGE_BOOT), lambda fields: fields[:3]))
    assert busy == wire.Busy(boot=BOOT, sequence=2, edge_boot=EDGE_BOOT, retry_after_s=0.1)


# What a later minor version may send: the fields for which places are reserved in docs/reference/protocol.md, and then
# others, and a trailer with the identifier of a key, a counter and a code. Today's readers take them for the same.
LATER: dict[str, list[Any]] = {
    "hello": [["raw", "zstd"], {"any": [1]}],
    "welcome": [["raw"], 7],
    "request": [b"\x00" * 24, 1.5, [[]]],
    "reply": [0.25, ["x"]],
    "task_reply": [0.25],
    "busy": [0.25, {"a": {"b": None}}],
    "failure": [0.25],
    "probe": [7],
    "echo": [7],
}
TRAILER = bytes(range(64))
LATER_DIGESTS = {
    "hello": "2d2021da4d96e8d9",
    "welcome": "12d5af3b45e4bc6d",
    "request": "8f9f8a26438a5c7d",
    "reply": "2d35be993002ce36",
    "busy": "ca777328b950e4de",
    "failure": "b427dd01ed8446d4",
    "probe": "656eccac49efa8cb",
    "echo": "5783088b51feb4ac",
    "task_reply": "95b2a3d15291e09c",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_later_minor_version_is_understood(name: str) -> None:
    frame = bytes.fromhex(GOLDEN[name])
    length = int.from_bytes(frame[4:8], "little")
    header = msgspec.msgpack.encode([*msgspec.msgpack.decode(frame[16 : 16 + length]), *LATER[name]])
    sizes = len(header).to_bytes(4, "little") + frame[8:12] + len(TRAILER).to_bytes(4, "little")
    later = frame[:4] + sizes + header + bytes(-len(header) % 16) + frame[16 + length + -length % 16 :] + TRAILER
    assert hashlib.sha256(later).hexdigest()[:16] == LATER_DIGESTS[name], "these are golden, too"
    assert wire.frame_length(later[:16]) == len(later)
    message, buffers = wire.decode(later)
    assert message == MESSAGES[name]
    assert [bytes(b) for b in buffers] == [bytes(memoryview(b).cast("B")) for b in BUFFERS.get(name, ())]


def test_the_trailer_is_bounded_and_whole() -> None:
    frame = bytearray.fromhex(GOLDEN["busy"])
    for told, there in ((64, 63), (64, 65), (8192, 8192), (2**32 - 1, 0)):
        frame[12:16] = told.to_bytes(4, "little")
        with pytest.raises(RemoteProtocolError, match="cut off or garbled"):
            wire.decode(frame + bytes(there))


ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
PAYLOADS = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    """Equal in type and value, NaN like NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        assert isinstance(b, np.ndarray | np.generic)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        assert isinstance(b, float)
        return a == b or (math.isnan(a) and math.isnan(b))
    return a == b


def crossed(payload: object, *, copy: bool = False) -> object:
    packed = wire.pack(payload)
    request = wire.Reply(
        boot=BOOT, sequence=1, edge_boot=EDGE_BOOT, names=packed.names, payload=packed.payload, arrays=packed.arrays
    )
    message, buffers = wire.decode(wire.encode(request, packed.buffers))
    assert isinstance(message, wire.Reply)
    return wire.unpack(message, buffers, copy=copy)


@given(PAYLOADS, st.booleans())
def test_payloads_cross_unchanged(payload: object, copy: bool) -> None:
    assert same(crossed(payload, copy=copy), payload)


def test_large_bytes_have_buffers_of_their_own() -> None:
    """In the header there is room for 1 MiB: a photograph has more."""
    picture, small = bytes(range(256)) * 12_000, b"thumbnail"
    one = np.arange(3.0)
    for payload in (
        picture,
        [picture, picture[:5000], small],
        {"picture": picture, "small": small, "rows": [one, picture[1:], np.float32(2.0)], "x": (small, picture, one)},
        (small, bytes(4096), bytes(4097)),
    ):
        assert same(crossed(payload), payload)
    packed = wire.pack({"picture": picture, "one": one})
    assert packed.nbytes == len(picture) + one.nbytes
    assert [array[0] for array in packed.arrays] == ["float64", "uint8"]


@pytest.mark.parametrize("payload", [["x" * 2**20, 1], {"x": [float(k) for k in range(200_000)]}, [bytes(4000)] * 300])
def test_what_fills_a_header_is_too_large(payload: object) -> None:
    with pytest.raises(PayloadTooLarge, match="too large to send"):
        crossed(payload)


def test_large_bytes_that_are_not_there_are_refused() -> None:
    packed = wire.pack([bytes(5000), bytes(5000)])
    views = [memoryview(bytes(5000))] * 2
    assert wire.unpack(packed, views) == [bytes(5000)] * 2
    for packed_, some in (
        (msgspec.structs.replace(packed, arrays=packed.arrays[:1]), views[:1]),
        (msgspec.structs.replace(packed, arrays=packed.arrays * 2), views * 2),
        (msgspec.structs.replace(packed, arrays=()), []),
    ):
        with pytest.raises(RemoteProtocolError):
            wire.unpack(packed_, some)


@pytest.mark.parametrize("order", "<>")
def test_numpy_scalars_views_and_both_byte_orders_cross(order: str) -> None:
    base = np.arange(12, dtype=order + "i4").reshape(3, 4)
    got = crossed({"scalar": np.float32(1.5), "view": base[:, ::2], "t": (np.int8(3),)})
    assert isinstance(got, dict)
    assert type(got["scalar"]) is np.float32 and got["scalar"] == 1.5
    assert got["view"].dtype == base.dtype and got["view"].tolist() == base[:, ::2].tolist()
    assert type(got["t"]) is tuple and type(got["t"][0]) is np.int8


def test_only_copies_can_be_written() -> None:
    array = np.zeros(4, np.float32)
    got, copied = crossed({"x": array}), crossed({"x": array}, copy=True)
    assert isinstance(got, dict) and isinstance(copied, dict)
    assert not got["x"].flags.writeable
    assert copied["x"].flags.writeable


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"a": [object()]}, r"\['a'\]\[0\]: a object can't cross"),
        ({1: 2}, "keys must be strings"),
        ({"s": {1, 2}}, "a set can't cross"),
        (np.array(["text"]), "can't cross"),
        ({"o": np.array([None])}, "can't cross"),
        (2**64, "64 bits"),
        (deep(40), "nested more than"),
    ],
)
def test_what_can_not_cross_is_refused_with_its_place(payload: object, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        wire.pack(payload)


def levels_of_lists(levels: int) -> wire.Tree:
    """The pieces of `deep`, written by hand: all but the innermost list hold one list."""
    return wire.Tree(b"\x05\1\0\0\0" * (levels - 1) + b"\x0d\1\0\0\0", values=(1,))


def test_the_deepest_payload_crosses_and_one_level_more_does_not() -> None:
    deepest = deep(MAX_DEPTH)
    packed = wire.pack(deepest)
    assert packed.payload == levels_of_lists(MAX_DEPTH)
    assert wire.unpack(packed, []) == deepest
    with pytest.raises(LocalProtocolError, match=f"more than {MAX_DEPTH} deep"):
        wire.pack(deep(MAX_DEPTH + 1))
    hostile = wire.Packed(None, levels_of_lists(MAX_DEPTH + 1), (), ())
    with pytest.raises(RemoteProtocolError, match=f"more than {MAX_DEPTH} deep"):
        wire.unpack(hostile, [])


@given(st.data())
def test_garbled_frames_give_typed_errors(data: st.DataObject) -> None:
    frame = bytearray.fromhex(GOLDEN[data.draw(st.sampled_from(sorted(GOLDEN)))])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    for bad in (bytes(frame), bytes(frame[:cut])):
        try:
            message, buffers = wire.decode(bad)
            if isinstance(message, wire.Request | wire.Reply):
                wire.unpack(message, buffers)
        except RemoteProtocolError:
            pass


@given(st.binary(max_size=200))
def test_noise_gives_typed_errors(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.decode(noise)
    framed = b"SI\x02\x03" + len(noise).to_bytes(4, "little") + bytes(8) + noise + bytes(-len(noise) % 16)
    with pytest.raises(RemoteProtocolError, match="unreadable header"):
        wire.decode(framed)


def test_a_million_levels_do_not_kill() -> None:
    header = b"\x91" * 900_000
    frame = b"SI\x02\x01" + len(header).to_bytes(4, "little") + bytes(8) + header + bytes(-len(header) % 16)
    with pytest.raises(RemoteProtocolError, match="unreadable header"):
        wire.decode(frame)


def test_lengths_are_checked_before_allocating() -> None:
    lie = wire.Reply(boot=BOOT, sequence=1, edge_boot=EDGE_BOOT, names=("x",), arrays=(("float32", (2**30, 2**10), 4),))
    message, buffers = wire.decode(wire.encode(lie, [bytes(4)]))
    assert isinstance(message, wire.Reply)
    with pytest.raises(RemoteProtocolError, match="takes 4398046511104 bytes, got 4"):
        wire.unpack(message, buffers)
    beyond = wire.Reply(boot=BOOT, sequence=1, edge_boot=EDGE_BOOT, names=("x",), arrays=(("int8", (99,), 99),))
    with pytest.raises(RemoteProtocolError, match="beyond the frame"):
        wire.decode(wire.encode(beyond, [bytes(4)]))
    with pytest.raises(RemoteProtocolError, match="at most 10"):
        wire.decode(bytes(11), max_frame_bytes=10)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_frame_of_exactly_the_maximum_is_accepted(name: str) -> None:
    frame = bytes.fromhex(GOLDEN[name])
    message, _ = wire.decode(frame, max_frame_bytes=len(frame))
    assert message == MESSAGES[name]
    with pytest.raises(RemoteProtocolError, match=f"at most {len(frame) - 1} are accepted"):
        wire.decode(frame, max_frame_bytes=len(frame) - 1)


def test_a_header_of_exactly_the_maximum_is_accepted() -> None:
    short = wire.Failure(boot=BOOT, sequence=1, edge_boot=BOOT, message="x" * 2**16)
    missing = wire.MAX_HEADER_BYTES - len(msgspec.msgpack.encode(short))
    message = msgspec.structs.replace(short, message=short.message + "x" * missing)
    assert wire.decode(wire.encode(message))[0] == message
    with pytest.raises(PayloadTooLarge, match="too large to send"):
        wire.encode(msgspec.structs.replace(message, message=message.message + "x"))


def test_messages_for_people_who_meet_something_else() -> None:
    with pytest.raises(RemoteProtocolError, match="no splitiot frame but something else, which begins 'HTTP"):
        wire.decode(b"HTTP/1.1 200 OK\r\n\r\n")
    frame = bytearray.fromhex(GOLDEN["busy"])
    frame[2] = 3
    with pytest.raises(RemoteProtocolError, match="update the older side"):
        wire.decode(frame)
    frame[2], frame[3] = 2, 99
    with pytest.raises(RemoteProtocolError, match="unknown kind"):
        wire.decode(frame)


def test_finite_drops_what_is_not() -> None:
    assert wire.finite({"a": 1.0, "b": math.nan, "c": math.inf}) == {"a": 1.0}


class Text(str):
    pass


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "payload", [Text("x"), Number.ONE, OrderedDict(a=1), {"a": [Text("x")]}, np.ma.array([1, 2], mask=[0, 1])]
)
def test_what_would_come_out_as_something_else_is_refused(payload: object) -> None:
    with pytest.raises(LocalProtocolError, match="can't cross"):
        wire.pack(payload)


@pytest.mark.parametrize("payload", ["\ud800", ("\ud800",), {"\ud800": 1}])
def test_text_that_is_no_unicode_is_refused(payload: object) -> None:
    with pytest.raises(LocalProtocolError, match="no Unicode"):
        crossed(payload)


@pytest.mark.parametrize("value", [datetime.datetime.now(datetime.UTC), msgspec.msgpack.Ext(9, b""), [], {}, b""])
def test_what_is_no_plain_value_does_not_get_in(value: object) -> None:
    tree = wire.Tree(wire.pack([1]).payload.pieces, (value,))  # type: ignore[arg-type, union-attr]
    with pytest.raises(RemoteProtocolError, match="unreadable header"):
        wire.decode(wire.encode(wire.Reply(boot=BOOT, sequence=1, edge_boot=EDGE_BOOT, payload=tree)))


def test_lengths_that_fit_no_machine_are_refused() -> None:
    for length in (2**63, 2**64 - 1):
        lie = wire.Reply(boot=BOOT, sequence=1, edge_boot=EDGE_BOOT, names=("x",), arrays=(("int8", (0, length), 0),))
        message, buffers = wire.decode(wire.encode(lie, [b""]))
        assert isinstance(message, wire.Reply)
        with pytest.raises(RemoteProtocolError):
            wire.unpack(message, buffers)
