"""Doors around the applications of frameworks, and around plain ones."""

import ssl
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, assert_type

import httpx
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware

from proxy_middleware import (
    ASGIProxyMiddleware,
    BrowserPolicy,
    Connection,
    Credential,
    EgressPolicy,
    Limits,
    Proxy,
    Replay,
    StaticCredentials,
    StaticResolver,
    Timeouts,
    WSGIProxyMiddleware,
    anyone,
    bearer_tokens,
    host_user,
)
from proxy_middleware.access import jwt_bearer
from proxy_middleware.observe import LoggingObserver, OpenTelemetryObserver, PrometheusObserver
from proxy_middleware.toml import TomlCredentials, TomlResolver

resolver = StaticResolver([Connection("crm", "https://api.example.com", timeouts=Timeouts(head=600, pool=None))])
credentials = StaticCredentials({"crm": Credential.bearer("token")})

fastapi_app = FastAPI()
fastapi_app.add_middleware(
    ASGIProxyMiddleware,
    resolver=resolver,
    credentials=credentials,
    authenticate=bearer_tokens({"token": {"name": "alice"}}),
)

starlette_app = Starlette(
    middleware=[
        Middleware(ASGIProxyMiddleware, resolver=resolver, credentials=credentials, authenticate=host_user),
    ]
)

flask_app = Flask(__name__)
flask_app.wsgi_app = WSGIProxyMiddleware(  # type: ignore[method-assign]
    flask_app.wsgi_app, resolver=resolver, credentials=credentials, authenticate=anyone
)

around_starlette = ASGIProxyMiddleware(starlette_app, resolver=resolver, credentials=credentials, authenticate=anyone)
around_flask = WSGIProxyMiddleware(flask_app, resolver=resolver, credentials=credentials, authenticate=anyone)
mounted = Starlette()
mounted.mount("/api", around_starlette)


async def plain_asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """An ASGI application without a framework."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def plain_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application without a framework."""
    start_response("204 No Content", [])
    return []


everything = Proxy(
    resolver=TomlResolver("connections.toml"),
    credentials=TomlCredentials("connections.toml"),
    authenticate=jwt_bearer(secret=b"s" * 32, audience=["proxy", "other"], issuer="https://id.example.com", leeway=10),
    prefix="/api",
    limits=Limits(request_body=1 << 20, rate="100/minute"),
    timeouts=Timeouts(idle=None),
    egress=EgressPolicy(allow=["10.0.0.0/8"], deny=("10.1.0.0/16",)),
    browser=BrowserPolicy(allowed_origins=["https://app.example.com"]),
    replay=Replay(memory=0),
    cache_guard=False,
    root_path="/mounted",
    spool_unframed="always",
    ssl_context=ssl.create_default_context(),
    upstream=httpx.HTTPTransport(),
    observers=(LoggingObserver(), OpenTelemetryObserver(), PrometheusObserver()),
)

assert_type(everything.asgi(plain_asgi), ASGIProxyMiddleware)
assert_type(everything.wsgi(plain_wsgi), WSGIProxyMiddleware)
assert_type(everything.asgi(fastapi_app).proxy, Proxy)
everything.wsgi(around_flask)
everything.forget("crm")


async def stop(proxy: Proxy) -> None:
    """Closes what is open."""
    proxy.close()
    await proxy.aclose()
