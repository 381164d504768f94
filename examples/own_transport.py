"""A transport of one's own: frames over plain TCP, each with its length in front. Both sides in one process."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading

import splitiot as si

LENGTH = struct.Struct("<I")


class Tcp(si.RoundTrip):
    """The device's side. Connections could be kept; this one is short instead."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._address = host, port

    def exchange(self, request: bytes, *, timeout_s: float) -> bytes:
        with socket.create_connection(self._address, timeout_s) as connection:
            connection.sendall(LENGTH.pack(len(request)) + request)
            return read_frame(connection)


def read_frame(connection: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(read(connection, LENGTH.size))
    if length > 2**20:
        raise si.errors.TransportError(f"a frame of {length} bytes")
    return read(connection, length)


def read(connection: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        piece = connection.recv(count - len(taken))
        if not piece:
            raise si.errors.TransportError("the connection ended early")
        taken += piece
    return taken


def double(x: float) -> float:
    return 2 * x


def increment(x: float) -> float:
    return x + 1


def main() -> None:
    pipeline = si.tasks([double, increment])
    service = si.EdgeService([pipeline])

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            # whoever can connect is served: a real protocol would know who this is
            answer = service.handle(read_frame(self.request), peer=self.client_address[0])
            self.request.sendall(LENGTH.pack(len(answer)) + answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with si.Device(pipeline, Tcp("127.0.0.1", server.server_address[1]), policy=si.Fixed(1), sample=1.0) as device:
            outcome = device.run(20.0)
            print(outcome.unwrap(), "from the", outcome.source)
        server.shutdown()
    service.close()


if __name__ == "__main__":
    main()
