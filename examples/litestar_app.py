"""A Litestar application through which GitHub is called.

    CALLER_TOKEN=alice-token GITHUB_TOKEN=... uvicorn examples.litestar_app:app
    curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/connections/github/proxy/rate_limit

The proxy is put around the application. In its list of middleware it would never be asked: Litestar runs that list
behind its router, which answers 404 to a path that no handler has.
"""

import os

from litestar import Litestar, get

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    bearer_tokens,
)


@get("/hello")
async def hello() -> str:
    """A route of the application."""
    return "hello\n"


app = ASGIProxyMiddleware(
    Litestar([hello]),
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=bearer_tokens({os.environ.get("CALLER_TOKEN", "alice-token"): "alice"}),
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)
