"""A Bottle application through which GitHub is called.

    CALLER_TOKEN=alice-token GITHUB_TOKEN=... gunicorn --threads 8 examples.bottle_app:app
    curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/connections/github/proxy/rate_limit

`bottle.run(app=app, server="gunicorn")` serves it, too; Bottle's default server, wsgiref, cannot break a transfer off.
"""

import os

from bottle import Bottle

from proxy_middleware import (
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
    bearer_tokens,
)

host = Bottle()


@host.get("/hello")  # type: ignore[untyped-decorator]
def hello() -> str:
    """A route of the application."""
    return "hello\n"


app = WSGIProxyMiddleware(
    host,
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=bearer_tokens({os.environ.get("CALLER_TOKEN", "alice-token"): "alice"}),
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)
