#!/usr/bin/env python3
"""Change frames at random, and see whether each is read or refused with a RemoteProtocolError, and what that costs.

Each frame is decoded and its payload unpacked, as a session does. Beside random ones, frames that are made to be dear
(those of tests/test_hostile_frames.py) are read, at several sizes where they have any. Seconds are CPU seconds of this
process, the least of a few readings; a frame below 100 kB counts as 100 kB. Exits with 1 if anything else was raised.

    python tools/fuzz_frames.py --frames 10000000 --seed 1
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from splitiot import wire  # noqa: E402
from splitiot.errors import RemoteProtocolError  # noqa: E402
from tests.frames import mutant  # noqa: E402

BATCH = 1000
PER_BYTES = 100_000
READINGS = 7


def read(frame: bytes) -> str:
    """Read a frame as a session does; what became of it."""
    try:
        message, buffers = wire.decode(frame)
        if isinstance(message, wire.Request | wire.Reply):
            wire.unpack(message, buffers)
    except RemoteProtocolError:
        return "refused"
    return "read"


def cost_s(frame: bytes) -> float:
    """CPU seconds for each 100 kB of a frame."""
    least_s = float("inf")
    for _ in range(READINGS):
        began_s = time.process_time()
        read(frame)
        least_s = min(least_s, time.process_time() - began_s)
    return least_s * min(1.0, PER_BYTES / len(frame))


def main() -> int:
    """Read the frames, print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200_000, help="how many random ones (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    from tests.test_hostile_frames import BOMBS, GOLDEN

    chance, sources = random.Random(arguments.seed), [*map(bytes.fromhex, GOLDEN.values())]
    found: Counter[str] = Counter()
    failed = 0
    worst_s, worst = 0.0, "none"
    began_s = time.monotonic()
    done = 0
    while done < arguments.frames:
        batch = [mutant(chance, sources) for _ in range(min(BATCH, arguments.frames - done))]
        done += len(batch)
        for frame in batch:
            try:
                began = time.process_time()
                found[read(frame)] += 1
                took_s = time.process_time() - began
            except Exception:
                failed += 1
                if failed <= 10:
                    print(f"NOT TYPED: {frame.hex()}")
                    traceback.print_exc(file=sys.stdout)
                continue
            if took_s > worst_s and (least_s := cost_s(frame)) > worst_s:
                worst_s, worst = least_s, f"random, {len(frame)} bytes"
        if done % 1_000_000 == 0:
            passed_s = time.monotonic() - began_s
            print(f"[{passed_s:5.0f} s] {done:,} frames: {dict(found)}, not typed {failed}", flush=True)
    print(f"{done:,} random frames (seed {arguments.seed}): {dict(found)}, not typed {failed}")
    print(f"dearest random frame: {worst_s * 1e3:.3f} ms ({worst})")
    gc.collect()
    costs = sorted(((cost_s(frame), name, len(frame)) for name, frame in BOMBS.items()), reverse=True)
    print("dearest crafted frames, CPU for each 100 kB:")
    for cost, name, size in costs[:6]:
        print(f"  {cost * 1e3:6.3f} ms  {name} ({size} bytes)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
