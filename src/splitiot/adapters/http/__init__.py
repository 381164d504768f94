"""HTTP: a client of the standard library, and a server for ASGI (extra ``http``).

One POST carries one frame each way. Connections are kept. The bearer token says who the device is.
"""

from __future__ import annotations

from splitiot.adapters.http._address import PATH
from splitiot.adapters.http._client import HttpTransport
from splitiot.adapters.http._endpoint import asgi, lifespan
from splitiot.adapters.http._serve import serve

__all__ = ["PATH", "HttpTransport", "asgi", "lifespan", "serve"]
