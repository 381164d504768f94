"""Those who mean harm, in a process of their own: ``attackers.py KIND PORT`` attacks until it is killed.

It writes a line when the attack has begun. ``attackers.py burn SHARE`` touches nobody, and takes that share of a
processor.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import attacks_edge
import numpy as np

from splitiot import wire
from splitiot.adapters.http import PATH

MIB = 2**20
SILENT = 1200
_HOSTILE = ("secret-1", "secret-2")
_PAUSE_S = 0.005
_SLICE_S = 0.01


class Requests:
    """Frames of one device that ask for the second of two steps, each with a sequence of its own."""

    def __init__(self, payload: object) -> None:
        pipeline = attacks_edge.pipeline()
        packed = wire.pack(payload)
        self._buffers = packed.buffers
        self._fields = {
            "boot": os.urandom(wire.BOOT_BYTES),
            "digest": bytes.fromhex(pipeline.digest),
            "start": 1,
            "stop": pipeline.n,
            "fingerprint": bytes.fromhex(pipeline.boundary(1).fingerprint),
            "names": packed.names,
            "payload": packed.payload,
            "arrays": packed.arrays,
            "sink": pipeline.sink,
        }
        self._sequences = itertools.count(1)

    def next(self) -> bytes:
        """Return one more."""
        return wire.encode(wire.Request(sequence=next(self._sequences), **self._fields), self._buffers)


def _connect(port: int, address: int = 0) -> socket.socket:
    # only Linux has so many loopback addresses without being asked to
    source = (f"127.0.2.{1 + address}" if sys.platform == "linux" else "127.0.0.1", 0)
    return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=source)


def _head(token: str, nbytes: int) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "Host: edge", f"Authorization: Bearer {token}", f"Content-Length: {nbytes}"]
    return "\r\n".join([*lines, "", ""]).encode()


def _again(attack: Callable[[int], None], many: int) -> None:
    """Attack in so many threads, again whenever an attack ends."""

    def repeat(which: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                attack(which)
            time.sleep(_PAUSE_S)

    for which in range(many):
        threading.Thread(target=repeat, args=(which,), daemon=True).start()


def silent(port: int, addresses: int) -> None:
    """Connections that say nothing: 1,200 at once, then 500 new ones a second in place of the oldest."""
    held: deque[socket.socket] = deque()

    def connect() -> None:
        held.append(_connect(port, len(held) % addresses))

    def renew(_: int) -> None:
        while True:
            held.popleft().close()
            connect()
            time.sleep(0.002)

    for _ in range(SILENT):
        connect()
    _again(renew, 1)


def half_bodies(port: int) -> None:
    """16 bodies of which 62 of 64 MiB are sent; what is refused begins anew."""
    body = bytes(62 * MIB)

    def attack(which: int) -> None:
        with _connect(port, which) as raw:
            raw.sendall(_head(_HOSTILE[which % 2], 64 * MIB))
            raw.sendall(body)
            raw.recv(4096)

    _again(attack, 16)


def slow_bytes(port: int) -> None:
    """100 bodies that come with 10 bytes a second."""

    def attack(which: int) -> None:
        with _connect(port, which % 50) as raw:
            raw.sendall(_head(_HOSTILE[which % 2], MIB))
            while True:
                raw.sendall(b"x")
                time.sleep(0.1)

    _again(attack, 100)


def big_frames(port: int) -> None:
    """Two devices that send requests of 32 MiB, one after the other."""

    def attack(which: int) -> None:
        _ask_for_ever(port, which, Requests(np.zeros(8 * MIB, np.float32)))

    _again(attack, 2)


def big_answers(port: int) -> None:
    """Two devices that ask for answers of 32 MiB, one after the other."""
    _again(lambda which: _ask_for_ever(port, which, Requests(32 * MIB)), 2)


def _ask_for_ever(port: int, which: int, requests: Requests) -> None:
    """Ask, read the answer, and ask again; the answer is whole once less than a block comes."""
    with _connect(port, which) as raw, raw.makefile("rb", MIB) as answers:
        while True:
            frame = requests.next()
            raw.sendall(_head(_HOSTILE[which % 2], len(frame)))
            raw.sendall(frame)
            nbytes = 0
            while (line := answers.readline().lower()) != b"\r\n":
                if not line:
                    return
                if line.startswith(b"content-length:"):
                    nbytes = int(line.split(b":")[1])
            while nbytes > 0:
                nbytes -= len(answers.read(min(nbytes, MIB))) or nbytes


def unread_answers(port: int) -> None:
    """16 devices that ask for 64 answers of 1 MiB each, and read none."""

    def attack(which: int) -> None:
        requests = Requests(MIB)
        with _connect(port, which) as raw:
            for _ in range(64):
                frame = requests.next()
                raw.sendall(_head(_HOSTILE[which % 2], len(frame)) + frame)
            while raw.recv(1):  # until it is sent away
                time.sleep(1.0)

    _again(attack, 16)


def rejected_bodies(port: int) -> None:
    """4 bodies without end, with a token that nobody knows."""
    block = bytes(MIB)

    def attack(which: int) -> None:
        with _connect(port, which) as raw:
            raw.sendall(_head("unknown", 2**30))
            while True:
                raw.sendall(block)

    _again(attack, 4)


def flood(port: int, tokens: tuple[str, ...]) -> None:
    """8 connections, each with one request after the other."""

    def attack(which: int) -> None:
        requests = Requests(which)
        with _connect(port, which) as raw:
            while True:
                frame = requests.next()
                raw.sendall(_head(tokens[which % len(tokens)], len(frame)) + frame)
                if not raw.recv(65536):
                    return

    _again(attack, 8)


def redirect(port: int) -> None:
    """An edge that answers each request with a redirect and a body without end."""
    answer = f"HTTP/1.1 307 There\r\nLocation: {PATH}/elsewhere\r\n\r\n".encode()
    listening = socket.create_server(("127.0.0.1", port))

    def attack(_: int) -> None:
        with listening.accept()[0] as raw:
            raw.recv(65536)
            raw.sendall(answer)
            while True:
                raw.sendall(bytes(MIB))

    _again(attack, 8)


def burn(share: float) -> None:
    """Compute, and touch nobody."""
    while True:
        began_s, cpu_s = time.monotonic(), time.process_time()
        while time.process_time() - cpu_s < share * _SLICE_S:
            pass
        time.sleep(max(0.0, _SLICE_S - (time.monotonic() - began_s)))


KINDS: Mapping[str, Callable[[int], None]] = {
    "silent, 1 address": lambda port: silent(port, 1),
    "silent, 50 addresses": lambda port: silent(port, 50),
    "half bodies": half_bodies,
    "slow bytes": slow_bytes,
    "big frames": big_frames,
    "big answers": big_answers,
    "unread answers": unread_answers,
    "rejected bodies": rejected_bodies,
    "flood, no token": lambda port: flood(port, ("unknown",)),
    "flood, token": lambda port: flood(port, _HOSTILE),
}


def main(kind: str, argument: str) -> None:
    with contextlib.suppress(ImportError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if kind == "burn":
        print("begun", flush=True)
        burn(float(argument))
    (redirect if kind == "redirect" else KINDS[kind])(int(argument))
    print("begun", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
