"""Frames that would freeze who reads them, or raise something else than what is promised; and where they are read."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from splitiot import wire
from splitiot.codecs import MAX_DIMENSIONS, array_bytes
from splitiot.edge import EdgeService
from splitiot.errors import LocalProtocolError, RemoteProtocolError
from splitiot.functions import tasks
from splitiot.planner import Planner
from splitiot.session import EdgeSession
from splitiot.session._handshake import Handshake
from splitiot.topology import Link, TierProfile, Topology
from tests.test_wire import BOOT, EDGE_BOOT, GOLDEN, MESSAGES

PIPELINE = tasks([abs])
DIGEST = bytes.fromhex(PIPELINE.digest)


def framed(message: wire.Message, body: bytes = b"", **fields: Any) -> bytes:
    """A frame of a message some of whose fields hold what its type forbids."""
    names = type(message).__struct_fields__
    raw = [fields.get(name, getattr(message, name)) for name in names] + fields.get("more", [])
    header = msgspec.msgpack.encode(raw)
    number = wire.KINDS.index(type(message)) + 1
    prefix = wire.MAGIC + bytes([wire.VERSION, number]) + len(header).to_bytes(4, "little")
    return prefix + len(body).to_bytes(4, "little") + bytes(4) + header + bytes(-len(header) % 16) + body


REQUEST = wire.Request(boot=BOOT, sequence=1, digest=DIGEST, start=0, stop=1, fingerprint=bytes(8))
REPLY = wire.Reply(boot=BOOT, sequence=1, edge_boot=EDGE_BOOT)
HELLO = wire.Hello(boot=BOOT, sequence=1)
WELCOME = wire.Welcome(boot=BOOT, sequence=1, edge_boot=EDGE_BOOT)
MANY = 90_000  # bytes, or so


def pieces(*each: tuple[int, int]) -> bytes:
    return b"".join(bytes([kind]) + size.to_bytes(4, "little") for kind, size in each)


def bombs() -> dict[str, bytes]:
    """About 100 kB each, made to be dear: each is refused, or costs what honest bytes cost."""
    lengths = [2**63 - 1] * (MANY // 9)
    empty: list[Any] = [[]] * MANY
    array = ["int8", [0], 0]
    numbers = {"digest": PIPELINE.digest, "heads_s": [0] * MANY}
    return {
        "a shape of ten thousand lengths": framed(REQUEST, names=["x"], arrays=[["int8", lengths, 0]]),
        "the same for the device": framed(REPLY, names=["x"], arrays=[["int8", lengths, 0]]),
        "empty lists as a payload": framed(REQUEST, payload=empty),
        "empty lists as its values": framed(REQUEST, payload=[b"", empty]),
        "empty lists as keys": framed(REQUEST, payload=[b"", [], empty]),
        "empty lists as arrays": framed(REQUEST, arrays=empty),
        "empty lists as names": framed(REQUEST, names=empty),
        "empty lists as observations": framed(REQUEST, observations=empty),
        "empty lists as pipelines": framed(HELLO, pipelines=empty),
        "empty lists in a profile": framed(HELLO, profiles=[{"heads_s": empty}]),
        "empty dicts as profiles": framed(HELLO, profiles=[{}] * MANY),
        "empty lists in the device's profile": framed(WELCOME, profiles=[{"heads_s": empty}]),
        "a profile of ninety thousand steps": framed(WELCOME, profiles=[numbers]),
        "empty lists in a field that is not known": framed(HELLO, more=[empty]),
        "lists in lists in a field that is not known": framed(HELLO)[:-1] + b"\x91" * 9,
        "ten thousand digests": framed(HELLO, want_profiles=[bytes(32)] * (MANY // 34)),
        "parts": framed(HELLO, pipelines=[[DIGEST, 1, "device", False, [[0, 0]] * (MANY // 3)]]),
        "arrays": framed(REQUEST, names=[""] * 16_000, arrays=[array] * 16_000),
        "as many arrays as may be": framed(
            REPLY, names=[str(n) for n in range(wire.MAX_ARRAYS)], arrays=[array] * wire.MAX_ARRAYS
        ),
        "numbers": framed(REPLY, payload=[pieces((13, MANY)), [1] * MANY]),
        "text": framed(REPLY, payload=[pieces((13, MANY)), [""] * MANY]),
        "as many pieces as may be": framed(
            REPLY, payload=[pieces((5, wire.MAX_PIECES - 1), *((15, 0),) * (wire.MAX_PIECES - 1))]
        ),
        "one piece more": framed(REPLY, payload=[pieces((5, wire.MAX_PIECES), *((15, 0),) * wire.MAX_PIECES)]),
        "a list of four thousand million": framed(REPLY, payload=[pieces((5, 2**32 - 1))]),
        "as many numbers": framed(REPLY, payload=[pieces((5, 2**32 - 1), (1, 2**32 - 1)), [1] * 9]),
        "deep": framed(REPLY, payload=[pieces(*((5, 1),) * 2000)]),
        "telemetry": framed(REQUEST, telemetry={str(n): 1 for n in range(9000)}),
        "a long name": framed(REQUEST, codec="x" * MANY),
        "cuts": framed(REPLY, next=[1, [1] * MANY]),
    }


BOMBS = bombs()


def read(frame: bytes) -> None:
    try:
        message, buffers = wire.decode(frame)
        if isinstance(message, wire.Request | wire.Reply):
            wire.unpack(message, buffers)
    except RemoteProtocolError:
        pass


def work(act: Callable[[], None]) -> tuple[int, int]:
    """How many calls it makes, and how much memory it takes at most."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    tracemalloc.start()
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return calls, peak


@pytest.mark.parametrize("name", BOMBS)
def test_no_frame_costs_more_than_its_bytes(name: str) -> None:
    """No time is asserted: calls are (of Python and C, begin and end), and memory, for objects are what is dear."""
    frame = BOMBS[name]
    calls, peak = work(lambda: read(frame))
    assert calls < 40_000, f"{len(frame)} bytes take {calls} calls"
    assert peak < 48 * max(len(frame), 50_000), f"{len(frame)} bytes take {peak} bytes of memory"


@pytest.mark.parametrize("name", BOMBS)
def test_no_frame_stops_an_edge(name: str) -> None:
    answer, _ = wire.decode(EdgeService([PIPELINE]).handle(BOMBS[name], peer="hostile"))
    assert isinstance(answer, wire.Failure | wire.Welcome)


def profile_of(length: int) -> dict[str, Any]:
    return {"format": 1, "digest": PIPELINE.digest, "heads_s": [0] * length, "tails_s": [0] * length}


LONG_PROFILES = [[profile_of(MANY // 2)], [profile_of(2)] * wire.MAX_PIPELINES]


@pytest.mark.parametrize("profiles", LONG_PROFILES)
def test_a_profile_costs_an_edge_no_more_than_its_pipeline(profiles: list[dict[str, Any]]) -> None:
    link = Link(rtt_s=0.01, up_bytes_per_s=1e6, down_bytes_per_s=1e6)
    session = EdgeSession(
        [PIPELINE],
        boot=EDGE_BOOT,
        runtimes={},
        profiles={PIPELINE.digest: TierProfile.from_steps(PIPELINE.digest, [0.1])},
        make_planner=lambda pipeline, device, edge: Planner(pipeline, Topology(tiers=[device, edge], links=[link])),
    )
    known = wire.PipelineHello(digest=DIGEST, n=1)
    hello = wire.Hello(boot=BOOT, sequence=1, pipelines=(known,) * 64, profiles=tuple(profiles))
    received = session.read(wire.encode(hello))
    calls, peak = work(lambda: session.handle(received, "device", 0.0) and None)
    assert calls < 5000 and peak < 200_000, (calls, peak)


@pytest.mark.parametrize("profiles", LONG_PROFILES)
def test_a_profile_costs_a_device_no_more_than_its_pipeline(profiles: list[dict[str, Any]]) -> None:
    handshake = Handshake(
        PIPELINE, boot=BOOT, number=lambda: 1, runtime=None, profile=None, parts=None, exact=False
    )
    handshake.hello()
    known = wire.PipelineHello(digest=DIGEST, n=1)
    told = wire.Welcome(boot=BOOT, sequence=1, edge_boot=EDGE_BOOT, pipelines=(known,), profiles=tuple(profiles))
    calls, peak = work(lambda: handshake.accept(told) and None)
    assert calls < 1500 and peak < 200_000, (calls, peak)


def test_what_is_wrong_is_told_by_name() -> None:
    words = "unreadable header of a Request: Expected `array` of length <= 32 - at `arrays"
    with pytest.raises(RemoteProtocolError, match=words):
        wire.decode(BOMBS["a shape of ten thousand lengths"])


def test_lengths_are_not_multiplied_into_endless_numbers() -> None:
    with pytest.raises(ValueError, match="an array of 33 dimensions can't cross: at most 32"):
        array_bytes("int8", (2**63,) * (MAX_DIMENSIONS + 1))
    assert array_bytes("int8", (1,) * MAX_DIMENSIONS) == 1


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ([np.float32(1)] * (wire.MAX_ARRAYS + 1), "at most 1024 arrays and numpy scalars: put them in one array"),
        ([[1, b"x"]] * wire.MAX_PIECES, "at most 2048 can cross: put numbers in arrays"),
        ({str(n): np.zeros(1) for n in range(wire.MAX_ARRAYS + 1)}, r"1024.* at most 1024 arrays"),
    ],
)
def test_what_is_refused_there_does_not_leave_here(payload: Any, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        wire.pack(payload)


def test_dimensions_that_an_older_numpy_lacks_do_not_leave_here() -> None:
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("this numpy has no array of so many dimensions")
    with pytest.raises(LocalProtocolError, match="arrays of 33 dimensions can't cross: at most 32"):
        wire.pack(np.zeros((1,) * (MAX_DIMENSIONS + 1)))


def test_more_telemetry_than_crosses_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="telemetry of 65 numbers can't cross: at most 64"):
        wire.finite({str(n): 1.0 for n in range(wire.MAX_TELEMETRY + 1)})


def test_what_is_within_all_bounds_crosses() -> None:
    payload: Any = [
        [float(n) for n in range(100_000)],
        [{"label": "cat", "box": (1, 2)} for _ in range(600)],
        {str(n): bytes([n]) for n in range(256)},
        [np.float32(n) for n in range(wire.MAX_ARRAYS)],
    ]
    packed = wire.pack(payload)
    message = msgspec.structs.replace(REPLY, payload=packed.payload, arrays=packed.arrays)
    reply, buffers = wire.decode(wire.encode(message, packed.buffers))
    assert isinstance(reply, wire.Reply)
    assert wire.unpack(reply, buffers) == payload


def changed(frame: bytes) -> Iterator[bytes]:
    """Each beginning of a frame, and the frame with each of its bits turned."""
    for size in range(len(frame)):
        yield frame[:size]
    for bit in range(8 * len(frame)):
        other = bytearray(frame)
        other[bit // 8] ^= 1 << bit % 8
        yield bytes(other)


@pytest.mark.parametrize("name", MESSAGES)
def test_each_bit_and_each_end_of_golden_frames(name: str) -> None:
    session = EdgeSession([PIPELINE], boot=EDGE_BOOT, runtimes={})
    for frame in changed(bytes.fromhex(GOLDEN[name])):
        read(frame)
        for effect in session.receive(frame, "device", 0.0):
            wire.decode(effect.frame)  # type: ignore[union-attr]


def test_random_frames_give_typed_errors_only() -> None:
    """`tools/fuzz_frames.py` does it ten million times."""
    from tests.frames import mutant

    chance, sources = random.Random(7), [*map(bytes.fromhex, GOLDEN.values())]
    for _ in range(5000):
        read(mutant(chance, sources))


def large(kind: str) -> bytes:
    if kind == "probe":
        return wire.encode(wire.Probe(boot=BOOT, sequence=1), (bytes(200_000),))
    packed = wire.pack([1.0] * 20_000)
    return wire.encode(msgspec.structs.replace(REQUEST, payload=packed.payload))


@pytest.mark.parametrize(("kind", "here"), [("request", False), ("probe", True), ("small", True)])
def test_large_frames_are_read_beside_the_event_loop(kind: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never under the service's lock: meanwhile it answers others."""
    frame = wire.encode(REQUEST) if kind == "small" else large(kind)
    threads: list[bool] = []
    decode = wire.decode

    def spied(data: Any, **more: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        assert not service._lock.locked()
        return decode(data, **more)

    with EdgeService([PIPELINE]) as service:
        monkeypatch.setattr(wire, "decode", spied)
        answer = asyncio.run(service.handle_async(frame, peer="a"))
        assert threads == [here]
        monkeypatch.undo()
    assert isinstance(wire.decode(answer)[0], wire.Echo if kind == "probe" else wire.Failure)


def test_large_frames_are_read_after_the_end_too() -> None:
    service = EdgeService([PIPELINE])
    service.close()
    assert isinstance(wire.decode(asyncio.run(service.handle_async(large("request"), peer="a")))[0], wire.Failure)
