"""Pages of another origin: the host's own CORS middleware answers what browsers ask, around the middleware's door."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from flask import Flask

from proxy_middleware import (
    ASGIProxyMiddleware,
    BrowserPolicy,
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
)
from proxy_middleware.access import jwt_bearer
from tests.callers import RawResponse, call, request
from tests.host_plugins import UPSTREAM_SECRET
from tests.integration.node.sdks import WORKSPACE_SECRET, token
from tests.servers import serve_asgi, serve_wsgi
from tests.upstreams import ScriptedUpstream, response
from tests.wire import Address

PAGE, STRANGE = "https://app.example", "https://evil.example"
# Listed for CORS, but not in the browser policy.
READER = "https://reader.example"
METHODS = ["DELETE", "GET", "PATCH", "POST", "PUT"]
# What the SDKs send that a browser asks for before.
FIELDS = ["authorization", "content-type", "membrane-api-version"]
CROSS = (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty"))
TARGET = "/connections/crm/proxy/x"


class WSGICors:
    """A host's own CORS middleware, as a WSGI application has it."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers preflights, and says in other answers who may read them."""
        origin = environ.get("HTTP_ORIGIN")
        if origin not in (PAGE, READER):
            return self._app(environ, start_response)
        allowed = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            allowed += [
                ("Access-Control-Allow-Methods", ", ".join(METHODS)),
                ("Access-Control-Allow-Headers", ", ".join(FIELDS)),
            ]
            start_response("204 No Content", allowed)
            return []

        def start(status: str, fields: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*fields, *allowed], *more)

        return self._app(environ, start)


@pytest.fixture(scope="module")
def hosts(_session_upstream: ScriptedUpstream) -> Iterator[dict[str, Address]]:
    """A host application of each kind: CORS outside, then the proxy, then the application."""
    keywords: dict[str, Any] = {
        "resolver": StaticResolver([Connection("crm", _session_upstream.url)]),
        "credentials": StaticCredentials({"crm": Credential.bearer(UPSTREAM_SECRET)}),
        "authenticate": jwt_bearer(secret=WORKSPACE_SECRET),
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
        "browser": BrowserPolicy(allowed_origins=[PAGE]),
    }
    fastapi, flask = FastAPI(), Flask(__name__)
    fastapi.add_middleware(ASGIProxyMiddleware, **keywords)
    # Added last, and so outermost.
    fastapi.add_middleware(CORSMiddleware, allow_origins=[PAGE, READER], allow_methods=METHODS, allow_headers=FIELDS)
    door = WSGIProxyMiddleware(flask.wsgi_app, **keywords)
    flask.wsgi_app = WSGICors(door)  # type: ignore[method-assign]
    with ExitStack() as stack:
        stack.callback(door.proxy.close)
        yield {"asgi": stack.enter_context(serve_asgi(fastapi)), "wsgi": stack.enter_context(serve_wsgi(flask))}


@pytest.fixture(params=["asgi", "wsgi"])
def host(request: pytest.FixtureRequest, hosts: dict[str, Address], shared_upstream: ScriptedUpstream) -> Address:
    """Each of them, with `shared_upstream` behind it."""
    return hosts[request.param]


def listed(answer: RawResponse, name: bytes) -> list[bytes]:
    """The members of a field that is a list, in lower case."""
    members = b",".join(answer.values(name)).lower().split(b",")
    return [member.strip() for member in members if member.strip()]


def cross(method: str, origin: str, body: bytes | None = None) -> bytes:
    """The request of an SDK in a page of this origin."""
    own = [("Authorization", f"Bearer {token()}"), ("Content-Type", "application/json"), (FIELDS[2], "2025-10-21")]
    return request(method, TARGET, [("Origin", origin), *CROSS, *own], body)


@pytest.mark.parametrize("method", METHODS)
def test_preflight(host: Address, shared_upstream: ScriptedUpstream, method: str) -> None:
    """The question before a request, which carries no token, is answered by the host alone."""
    asks = [("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", ",".join(FIELDS))]
    answer = call(host, request("OPTIONS", TARGET, [("Origin", PAGE), *CROSS, *asks]))
    assert answer.status in (200, 204)
    assert answer.values(b"access-control-allow-origin") == [PAGE.encode()]
    assert method.lower().encode() in listed(answer, b"access-control-allow-methods")
    assert {name.encode() for name in FIELDS} <= set(listed(answer, b"access-control-allow-headers"))
    assert shared_upstream.requests == []


UPSTREAM_CORS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Credentials", b"true"),
    (b"Access-Control-Expose-Headers", b"X-Thing"),
    (b"Vary", b"Accept-Encoding"),
    (b"X-Thing", b"one"),
)


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"{}"), ("DELETE", None)])
def test_request(host: Address, shared_upstream: ScriptedUpstream, method: str, body: bytes | None) -> None:
    """The request passes; what the API says of CORS is withheld, and what the host says is there once."""
    shared_upstream.answer(response(201, UPSTREAM_CORS, b"made", reason=b"Created"))
    answer = call(host, cross(method, PAGE, body))
    assert (answer.status, answer.body) == (201, b"made")
    assert answer.values(b"access-control-allow-origin") == [PAGE.encode()]
    names = [name.lower() for name, _ in answer.fields]
    assert [name for name in names if name.startswith(b"access-control-")] == [b"access-control-allow-origin"]
    assert answer.values(b"x-thing") == [b"one"]
    assert {b"accept-encoding", b"origin", b"sec-fetch-site"} <= set(listed(answer, b"vary"))
    (seen,) = shared_upstream.requests
    assert (seen.method, seen.body) == (method.encode(), body or b"")


def test_own_errors_can_be_read(host: Address) -> None:
    """A page may read the middleware's own answers, too."""
    answer = call(host, request("GET", TARGET, [("Origin", PAGE), *CROSS]))
    assert answer.status == 401
    assert answer.values(b"access-control-allow-origin") == [PAGE.encode()]


@pytest.mark.parametrize("origin", [READER, STRANGE, "null"])
def test_origin_that_is_not_listed(host: Address, shared_upstream: ScriptedUpstream, origin: str) -> None:
    """An origin that the browser policy does not list is refused, whatever the host's CORS rules say."""
    assert call(host, cross("POST", origin, b"{}")).status == 403
    assert shared_upstream.requests == []
