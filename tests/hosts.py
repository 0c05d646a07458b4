"""The host applications that real servers import: two routes of their own, and the proxy around them.

The environment says how: `UPSTREAM_URL` (no slash at the end), `CLOSED_PORT`, and `PROXY_OPTIONS`, a JSON object of
keyword arguments for the middleware. In it `timeouts`, `limits`, `egress`, `browser` and `replay` are objects,
`connections` gives further arguments for single connections by their id, or further connections, and `ca_file` is
trusted for TLS.
"""

import json
import os
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from proxy_middleware import (
    ASGIProxyMiddleware,
    BrowserPolicy,
    Connection,
    Credential,
    CredentialProvider,
    EgressPolicy,
    Limits,
    Replay,
    StaticCredentials,
    StaticResolver,
    Timeouts,
    WSGIProxyMiddleware,
    bearer_tokens,
)
from tests.host_plugins import (
    CALLER_TOKEN,
    UPSTREAM_SECRET,
    FailingAuthenticator,
    FailingProvider,
    FailingRefresh,
    FailingResolver,
    Judge,
    NumberedTokens,
    NumberedTokensLater,
    SameToken,
)

_VALUES: dict[str, Callable[..., object]] = {
    "timeouts": Timeouts,
    "limits": Limits,
    "egress": EgressPolicy,
    "browser": BrowserPolicy,
    "replay": Replay,
}


async def host_asgi(scope: Any, receive: Any, send: Any) -> None:
    """The host application under ASGI: `/host` echoes, everything else is a 404 "host"."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4000})
    elif scope["path"] == "/host":
        await _answer(send, 200, _echo(scope["method"], scope["path"], await _body(receive)))
    else:
        await _answer(send, 404, b"host")


def host_wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The host application under WSGI: the same."""
    if environ["PATH_INFO"] == "/host":
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, answer = "200 OK", _echo(environ["REQUEST_METHOD"], environ["PATH_INFO"], body)
    else:
        status, answer = "404 Not Found", b"host"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def _echo(method: str, path: str, body: bytes) -> bytes:
    return f"{method} {path}\n".encode() + body


async def _lifespan(receive: Any, send: Any) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Any, status: int, body: bytes) -> None:
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _connections(further: dict[str, dict[str, Any]]) -> Iterable[Connection]:
    upstream = os.environ["UPSTREAM_URL"]
    closed = f"http://127.0.0.1:{os.environ.get('CLOSED_PORT', '1')}"
    named = {
        "crm": {"base_url": f"{upstream}/base", "integration_key": "crm-key"},
        "root": {"base_url": upstream},
        "dup-1": {"base_url": upstream, "integration_key": "dup"},
        "dup-2": {"base_url": upstream, "integration_key": "dup"},
        "private": {"base_url": "http://10.0.0.1"},
        "closed": {"base_url": closed},
        "nodns": {"base_url": "http://no-such-host.invalid"},
        "nocred": {"base_url": upstream},
        **{identifier: {"base_url": upstream} for identifier in _SPECIAL},
    }
    for identifier in {**named, **further}:
        arguments = {"base_url": upstream, **named.get(identifier, {}), **_built(further.get(identifier, {}))}
        yield Connection(identifier, **arguments)


# Connections whose credentials are not the usual bearer token.
_SPECIAL: dict[str, Credential | CredentialProvider] = {
    "expiring": NumberedTokens(),
    "expiring-later": NumberedTokensLater(),
    "judged": Judge(),
    "refresh-fails": FailingRefresh(),
    "refresh-same": SameToken(),
    "provider-fails": FailingProvider(),
    "basic": Credential.basic("user", UPSTREAM_SECRET),
    "header": Credential.header("X-Api-Key", UPSTREAM_SECRET),
    "query": Credential.query("key", UPSTREAM_SECRET),
    "cookie": Credential.cookie("session", UPSTREAM_SECRET),
}


def _credentials(connections: Iterable[Connection]) -> StaticCredentials:
    usual = dict.fromkeys((connection.id for connection in connections), Credential.bearer(UPSTREAM_SECRET))
    del usual["nocred"]
    return StaticCredentials({**usual, **_SPECIAL})


def _keywords() -> dict[str, Any]:
    options = json.loads(os.environ.get("PROXY_OPTIONS", "{}"))
    connections = list(_connections(options.pop("connections", {})))
    keywords = {
        "resolver": FailingResolver(StaticResolver(connections)),
        "credentials": _credentials(connections),
        "authenticate": FailingAuthenticator(bearer_tokens({CALLER_TOKEN: "alice"})),
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
    }
    if ca_file := options.pop("ca_file", None):
        keywords["ssl_context"] = ssl.create_default_context(cafile=ca_file)
    return keywords | _built(options)


def _built(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: _VALUES[name](**value) if name in _VALUES else value for name, value in arguments.items()}


asgi_app = ASGIProxyMiddleware(host_asgi, **_keywords())
wsgi_app = WSGIProxyMiddleware(host_wsgi, **_keywords())
