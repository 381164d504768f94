"""A pipeline of two steps that sleep: how long each resource takes is known, and no processor is needed."""

from __future__ import annotations

import threading
import time

import splitiot as si
from splitiot.functions import TaskPipeline

RTT_S = 0.002


def pipeline(head_s: float, tail_s: float, nbytes: int) -> TaskPipeline:
    """Take `head_s`, make `nbytes` bytes; take `tail_s`, return the index."""

    def head(index: int) -> tuple[int, bytes]:
        time.sleep(head_s)
        return index, bytes(nbytes)

    def tail(index: int, data: bytes) -> int:
        time.sleep(tail_s)
        return index

    return si.tasks([head, tail], version=f"{head_s} {tail_s} {nbytes}")


def profiles(made: TaskPipeline, head_s: float, tail_s: float, nbytes: int) -> tuple[si.TierProfile, si.TierProfile]:
    """What it costs, on both sides alike."""
    sizes = {"sent_bytes": [20.0, float(nbytes), 0.0], "returned_bytes": [20.0, 20.0, 0.0]}
    one = si.TierProfile.from_steps(made.digest, [head_s, tail_s], **sizes)
    return one, one


class Uplink(si.RoundTrip):
    """Inside one process: an uplink that carries one byte after the other, and an edge that runs one request at a time.

    Parameters
    ----------
    service : EdgeService
    bytes_per_s : float
    """

    def __init__(self, service: si.EdgeService, bytes_per_s: float) -> None:
        super().__init__()
        self._service, self._bytes_per_s, self._free_s = service, bytes_per_s, 0.0
        self._link, self._edge = threading.Lock(), threading.Lock()

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        clock = time.monotonic
        with self._link:
            self._free_s = max(clock(), self._free_s) + len(request) / self._bytes_per_s
            arrives_s = self._free_s + RTT_S / 2
        time.sleep(max(0.0, arrives_s - clock()))
        arrived_s = clock()
        with self._edge:
            reply = self._service.handle(request, peer="bench", received_s=arrived_s)
        time.sleep(RTT_S / 2)
        return reply


def main(arguments: list[str]) -> None:
    """Serve it over HTTP, as an edge of its own."""
    from splitiot.adapters.http import serve

    head_s, tail_s, nbytes = float(arguments[0]), float(arguments[1]), int(arguments[2])
    made = pipeline(head_s, tail_s, nbytes)
    _, edge = profiles(made, head_s, tail_s, nbytes)
    with si.EdgeService([made], profiles=[edge], workers=1) as service:
        serve(service, port=0, ready=lambda port: print(port, flush=True))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
