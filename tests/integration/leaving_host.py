"""A host application whose resolver asks over the network, and that tells what it has under way."""

import asyncio
import os

import anyio
import trio

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
    bearer_tokens,
)
from tests.host_plugins import CALLER_TOKEN
from tests.hosts import host_asgi, host_wsgi
from tests.servers import ASGIApp

UPSTREAM = os.environ["UPSTREAM_URL"]
CONNECTION = Connection("crm", UPSTREAM)


class RemoteResolver:
    """Knows "crm", and asks the upstream about "remote", which may take long."""

    async def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The one connection, once the answer is there."""
        if selector == "remote":
            host, _, port = UPSTREAM.removeprefix("http://").partition(":")
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(b"GET /lookup HTTP/1.1\r\nHost: directory.test\r\n\r\n")
                await stream.receive()
        return CONNECTION


def telling_tasks(app: ASGIApp) -> ASGIApp:
    """The same application with a route `/tasks`: how many tasks the event loop has."""

    async def tell(scope: object, receive: object, send: object) -> None:
        if isinstance(scope, dict) and scope["type"] == "http" and scope["path"] == "/tasks":
            scope = {**scope, "path": "/host", "method": str(_tasks())}
        await app(scope, receive, send)

    return tell


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


_CREDENTIALS = StaticCredentials({"crm": Credential.bearer("secret")})
_EGRESS = EgressPolicy(allow=("127.0.0.0/8",))
_CALLERS = bearer_tokens({CALLER_TOKEN: "alice"})

asgi_app = ASGIProxyMiddleware(
    telling_tasks(host_asgi),
    resolver=RemoteResolver(),
    credentials=_CREDENTIALS,
    authenticate=_CALLERS,
    egress=_EGRESS,
)
wsgi_app = WSGIProxyMiddleware(
    host_wsgi,
    resolver=StaticResolver([CONNECTION]),
    credentials=_CREDENTIALS,
    authenticate=_CALLERS,
    egress=_EGRESS,
)
