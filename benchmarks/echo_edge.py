"""An edge process with two routes more, to compare with.

``/echo`` reads the body, and returns as many bytes as its first four say. ``/infer`` runs the network between, on
the body's last bytes, in one bare interpreter; the reply begins with the seconds that this took.
"""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np
import uvicorn
from baselines import bare
from starlette.routing import Route

from splitiot import EdgeService, Model, load_model
from splitiot.adapters.http import asgi
from splitiot.samples import fomo


class Echo:
    """Bare ASGI, as the library's own endpoint is."""

    def answer(self, body: bytes) -> bytes:
        return bytes(struct.unpack_from("<I", body)[0])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        answer = self.answer(body)
        headers = [
            (b"content-type", b"application/vnd.splitiot"),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Infer(Echo):
    """The plainest server of a network."""

    def __init__(self, model: Model) -> None:
        (self._spec,) = model.inputs
        self._run = bare(model.to_bytes())

    def answer(self, body: bytes) -> bytes:
        array = np.frombuffer(body, self._spec.dtype, offset=len(body) - self._spec.nbytes).reshape(self._spec.shape)
        began = time.monotonic()
        result = self._run(array)
        seconds = time.monotonic() - began
        answer = struct.pack("<d", seconds) + result.tobytes()
        return answer.ljust(struct.unpack_from("<I", body)[0], b"\0")


def main() -> None:
    model = load_model(fomo("int8"))
    app = asgi(EdgeService([model]))
    app.router.routes += [Route("/echo", endpoint=Echo()), Route("/infer", endpoint=Infer(model))]
    # the settings of splitiot.adapters.http.serve
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, ws="none", lifespan="off")

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)

    Server(config).run()


if __name__ == "__main__":
    main()
