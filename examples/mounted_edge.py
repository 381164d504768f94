"""The edge inside a Starlette (or FastAPI) application that exists already.

$ uvicorn mounted_edge:app --app-dir examples --port 8765
$ SPLITIOT_TOKEN=secret-of-camera-7 splitiot run examples/digits/app.py:pipeline --edge http://127.0.0.1:8765
"""

from __future__ import annotations

import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import splitiot as si
from splitiot.adapters.http import PATH, asgi

sys.path.insert(0, str(Path(__file__).parent / "digits"))
from app import pipeline  # found by the line above

service = si.EdgeService([pipeline])
TOKENS = {"secret-of-camera-7": "camera-7"}  # read them from a safe place in earnest


async def health(request: Request) -> JSONResponse:
    """A route of one's own."""
    return JSONResponse({"requests": service.counters.requests})


app = Starlette(routes=[Route("/health", health), Mount(PATH, asgi(service, tokens=TOKENS, path="/"))])
