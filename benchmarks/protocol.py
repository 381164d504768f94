"""Rows about what crosses, and about deciding where to cut."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from baselines import guide_choice
from children import Child
from measure import Row, compared, in_turns, times_in_turns
from numpy.typing import NDArray

from splitiot import (
    Device,
    EdgeTimes,
    Fixed,
    HttpTransport,
    LeastLatency,
    Link,
    Observation,
    Planner,
    TierProfile,
    Topology,
    load_model,
    task,
    tasks,
    wire,
)
from splitiot.codecs import RAW
from splitiot.samples import fomo

FLOATS = 96 * 96 * 2  # 73,728 bytes: what crosses at cut 3 of the float32 network
STEPS = 59  # Keras layers of SCIoT's network


def _messages() -> Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Make the function that takes a payload to the other side, as the sessions do."""
    digest, fingerprint = bytes(32), bytes(8)
    numbers = itertools.count(1)

    def across(payload: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        packed = wire.pack(payload, RAW)
        request = wire.Request(
            boot=bytes(range(16)),
            sequence=next(numbers),
            digest=digest,
            start=3,
            stop=25,
            fingerprint=fingerprint,
            names=packed.names,
            payload=packed.payload,
            arrays=packed.arrays,
            deadline_s=5.0,
            plan_id=1,
        )
        frame = wire.encode(request, packed.buffers)
        message, buffers = wire.decode(frame)
        assert isinstance(message, wire.Request)
        result: dict[str, NDArray[Any]] = wire.unpack(message, buffers, RAW)
        return result

    return across


def wire_copies(other: str, buffers: int) -> Row:
    """Encode and decode 74 kB against copying them.

    With one buffer everything stays in the caches; with many, each turn meets a payload and a target that were used
    long ago, as a network's activations are.
    """
    across = _messages()
    random = np.random.default_rng(0)
    sources = [random.random((1, 96, 96, 2), np.float32) for _ in range(buffers)]
    payloads = [{"block_1_project_BN/FusedBatchNormV3": source} for source in sources]
    (name,) = payloads[0]
    if not np.array_equal(across(payloads[0])[name], sources[0]):
        raise AssertionError("the payload did not cross")
    targets = [np.zeros_like(source) for source in sources]  # written to below before anything is timed
    for target in targets:
        target.fill(1.0)
    turns, copies = itertools.cycle(payloads), itertools.cycle(list(zip(targets, sources, strict=True)))

    def ours() -> None:
        across(next(turns))

    def theirs() -> None:
        target, source = next(copies)
        if other == "copyto":
            np.copyto(target, source)
        else:
            source.tobytes()

    pair = in_turns(ours, theirs, rounds=25, calls=20, repeat=20, warm=2)
    warmth = "hot" if buffers == 1 else "cold"
    words = "np.copyto" if other == "copyto" else "bytes(x)"
    return compared(
        f"wire-{warmth}-{other}",
        f"encode + decode {FLOATS * 4 / 1e3:.0f} kB / {words}, {warmth}",
        pair,
        at_most=4.0 if other == "copyto" else None,
    )


def http(inferring: bool) -> Row:
    """A request over HTTP, without inference, against an echo of the same bytes by the same client and server.

    Or against an echo that runs the network in a bare interpreter, likewise without inference: while the server
    computes, the client sleeps, and waking up costs more the longer it slept.
    """
    model = load_model(fomo("int8"))
    (spec,) = model.inputs
    array = np.random.default_rng(0).integers(-128, 128, spec.shape).astype(np.int8)
    clock = time.perf_counter
    # the policy is fixed, so the profile's numbers change nothing
    profile = TierProfile.from_steps(model.digest, [1e-5] * model.n)
    with Child("echo_edge.py") as child:
        url = f"http://127.0.0.1:{int(child.line())}"
        echo = HttpTransport(f"{url}/{'infer' if inferring else 'echo'}")
        with Device(model, HttpTransport(url), policy=Fixed(0), profile=profile) as device:
            seen = device.run(array).observation
            assert seen is not None and seen.edge is not None
            padding = bytes(seen.sent_bytes - 4 - array.nbytes)
            frame = struct.pack("<I", seen.received_bytes) + padding + array.tobytes()

            def ours() -> float:
                began = clock()
                outcome = device.run(array)
                seconds = clock() - began
                seen = outcome.observation
                if outcome.source != "edge" or seen is None or seen.edge is None:
                    raise AssertionError(f"the edge did not answer: {outcome}")
                return seconds - (seen.head_s or 0.0) - seen.edge.compute_s

            def theirs() -> float:
                began = clock()
                echo.send(frame, timeout_s=5.0)
                reply = echo.receive(timeout_s=5.0)
                seconds = clock() - began
                assert reply is not None
                return seconds - (struct.unpack_from("<d", reply)[0] if inferring else 0.0)

            pair = times_in_turns(ours, theirs, rounds=15, calls=40, warm=100)
        echo.close()
    return compared(
        "http-infer" if inferring else "http",
        f"Device.run without inference, {seen.sent_bytes} B up, {seen.received_bytes} B down / "
        + ("bare inference behind an echo, without inference" if inferring else "echo"),
        pair,
        at_most=None if inferring else 1.4,
    )


def decide(learn: bool) -> Row:
    """One decision over 59 steps against the guide's loop."""
    random = np.random.default_rng(0)
    device_s = (random.random(STEPS) * 0.01).tolist()
    edge_s = (random.random(STEPS) * 0.001).tolist()
    pipeline = tasks([task(lambda x: x, name=f"layer_{i}") for i in range(STEPS)])
    sent = [*(random.random(STEPS) * 1e5).tolist(), 0.0]
    sizes = {"sent_bytes": sent, "returned_bytes": [100.0] * STEPS + [0.0]}
    tiers = [TierProfile.from_steps(pipeline.digest, seconds, **sizes) for seconds in (device_s, edge_s)]
    link = Link.from_mbit_per_s(10, rtt_s=0.02)
    # what the loop does: the default policy weighs probes as well, see decision_cost.py
    planner = Planner(pipeline, Topology(tiers=tiers, links=[link]), LeastLatency())
    now_s = 0.0
    planner.decide(now_s)

    def once() -> None:
        nonlocal now_s
        now_s += 0.1
        planner.decide(now_s)

    def learning() -> None:
        nonlocal now_s
        now_s += 0.1
        plan = planner.decide(now_s)
        edge = EdgeTimes(compute_s=0.01, residence_s=0.011)
        planner.observe(
            Observation(
                plan_id=plan.id,
                cut=plan.cut,
                head_s=0.05,
                tail_s=0.01,
                edge=edge,
                round_trip_s=0.05 + 0.001 * (plan.id % 5),
                sent_bytes=20_000,
                received_bytes=100,
            ),
            now_s=now_s,
        )

    pair = in_turns(
        learning if learn else once, lambda: guide_choice(device_s, edge_s, 0.02), rounds=25, calls=20, repeat=20
    )
    return compared(
        "decide-observe" if learn else "decide",
        f"the guide's O(n^2) loop, {STEPS} steps / Planner.decide{' + observe' if learn else ''}",
        pair,
        at_least=None if learn else 3.0,
        faster=True,
    )
