"""Middleware of Starlette around the proxy, and inside of it."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    anyone,
)
from proxy_middleware.proxy import Settings
from tests.callers import call, request
from tests.servers import serve_asgi
from tests.upstreams import Exchange, ScriptedUpstream

CALL = request("GET", "/connections/github/proxy/x")
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n5\r\n"
SIZED = b"Content-Length: 9\r\n\r\n"


class Passing(BaseHTTPMiddleware):
    """What `@app.middleware("http")` makes of a function: it hands requests on, and their responses back."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Does nothing else."""
        return await call_next(request)


def settings(upstream: ScriptedUpstream) -> Settings:
    """A proxy in front of this upstream, for anyone."""
    return {
        "resolver": StaticResolver([Connection("github", upstream.url)]),
        "credentials": StaticCredentials({"github": Credential.bearer("secret")}),
        "authenticate": anyone,
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
    }


def breaking_off(upstream: ScriptedUpstream, head: bytes) -> None:
    """Lets the upstream break every response off."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.read(None)
        exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"hello")
        exchange.close()


@pytest.mark.parametrize(
    ("around", "head", "status", "complete"),
    [
        (Passing, CHUNKED, 502, True),
        (Passing, SIZED, 200, False),
        (GZipMiddleware, CHUNKED, 200, False),
        (GZipMiddleware, SIZED, 200, False),
    ],
)
def test_middleware_around_the_proxy(
    upstream: ScriptedUpstream, around: Any, head: bytes, status: int, complete: bool
) -> None:
    """Where what stands around it would end a broken response cleanly, the proxy answers once it is whole, or not."""
    breaking_off(upstream, head)
    app = Starlette()
    app.add_middleware(ASGIProxyMiddleware, **settings(upstream))
    app.add_middleware(around)
    with serve_asgi(app) as address:
        answer = call(address, CALL)
    assert (answer.status, answer.complete) == (status, complete)


@pytest.mark.parametrize("head", [CHUNKED, SIZED])
def test_proxy_around_middleware(upstream: ScriptedUpstream, head: bytes) -> None:
    """Added last, the proxy is outside, and a broken response breaks."""
    breaking_off(upstream, head)
    app = Starlette()
    app.add_middleware(Passing)
    app.add_middleware(ASGIProxyMiddleware, **settings(upstream))
    with serve_asgi(app) as address:
        answer = call(address, CALL)
    assert (answer.status, answer.complete) == (200, False)
