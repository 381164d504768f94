"""HTTP servers of the standard library that answer as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

TYPE = "application/vnd.splitiot"

Answer: TypeAlias = tuple[int, str, bytes]
"""Status, content type, body."""


class HttpServer:
    """Answers each POST with what a function gives for its body and headers.

    A request with a longer body than `limit` is answered with 413: before its body is read, as nginx and uvicorn do
    it, or behind it. `uploads` are the lengths of all bodies that were begun.
    """

    def __init__(
        self,
        answer: Callable[[bytes, dict[str, str]], Answer],
        *,
        port: int = 0,
        limit: int | None = None,
        reads: bool = False,
    ) -> None:
        self.uploads: list[int] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *words: object) -> None:
                pass

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                owner.uploads.append(length)
                if limit is not None and length > limit:
                    if reads:
                        self.rfile.read(length)
                    self.close_connection = not reads
                    self._say(413, "text/plain", b"request entity too large")
                    return
                self._say(*answer(self.rfile.read(length), dict(self.headers)))

            def _say(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if self.close_connection:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def process_request(self, request, client_address):  # type: ignore[no-untyped-def]
                owner._open.append(request)
                super().process_request(request, client_address)

            def handle_error(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
                """Clients may hang up."""

        self._open: list[object] = []
        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Die, with all connections."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._open:
            self._server.shutdown_request(connection)  # type: ignore[arg-type]
        self._thread.join()


@contextmanager
def http_server(
    answer: Callable[[bytes, dict[str, str]], Answer],
    *,
    port: int = 0,
    limit: int | None = None,
    reads: bool = False,
) -> Iterator[HttpServer]:
    """Serve until the block ends."""
    server = HttpServer(answer, port=port, limit=limit, reads=reads)
    try:
        yield server
    finally:
        server.close()
