"""A Quart application through which GitHub is called.

CALLER_TOKEN=alice-token GITHUB_TOKEN=... hypercorn examples.quart_app:app
curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/connections/github/proxy/rate_limit

`asgi_app` also sees Quart's websockets and its lifespan; the proxy passes them on.
"""

import os

from quart import Quart

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    bearer_tokens,
)

app = Quart(__name__)


@app.get("/hello")
async def hello() -> str:
    """A route of the application."""
    return "hello\n"


app.asgi_app = ASGIProxyMiddleware(  # type: ignore[assignment, method-assign]
    app.asgi_app,
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=bearer_tokens({os.environ.get("CALLER_TOKEN", "alice-token"): "alice"}),
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)
