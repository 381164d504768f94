"""An ASGI application served to tests over a real socket."""

from __future__ import annotations

import threading
from typing import Any

WAIT_S = 30.0


class Served:
    """uvicorn in a thread, on a port of its own choice; counts connections."""

    def __init__(self, app: Any, **options: Any) -> None:
        import uvicorn

        self.clients: set[tuple[str, int]] = set()
        started = threading.Event()

        async def counting(scope: Any, receive: Any, send: Any) -> None:
            self.clients.add(tuple(scope["client"]))
            await app(scope, receive, send)

        class Server(uvicorn.Server):
            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets=sockets)
                started.set()

        more: dict[str, Any] = {"log_config": None, "access_log": False, "ws": "none", "lifespan": "off"}
        self._server = Server(uvicorn.Config(counting, **({"port": 0} | more | options)))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert started.wait(WAIT_S)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
