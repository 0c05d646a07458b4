"""A Starlette application with the proxy below one of its mounts.

    CALLER_TOKEN=alice-token GITHUB_TOKEN=... uvicorn examples.starlette_mount_app:app
    curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/api/connections/github/proxy/rate_limit

Behind a front server that has a prefix of its own, `uvicorn --root-path /tools examples.starlette_mount_app:app`: both
prefixes are taken off before the path is matched. A FastAPI application mounts it in the same way, with `app.mount`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from proxy_middleware import (
    Connection,
    Credential,
    EgressPolicy,
    Proxy,
    StaticCredentials,
    StaticResolver,
    bearer_tokens,
)

proxy = Proxy(
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=bearer_tokens({os.environ.get("CALLER_TOKEN", "alice-token"): "alice"}),
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Closes the proxy's pool, since an application below a mount is told of no shutdown."""
    yield
    await proxy.aclose()


async def hello(request: Request) -> PlainTextResponse:
    """A route of either application."""
    return PlainTextResponse(f"hello from {request.url.path}\n")


api = Starlette(routes=[Route("/hello", hello)])
app = Starlette(routes=[Route("/hello", hello), Mount("/api", app=proxy.asgi(api))], lifespan=lifespan)
