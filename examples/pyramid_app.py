"""A Pyramid application through which GitHub is called.

CALLER_TOKEN=alice-token GITHUB_TOKEN=... waitress-serve --port 8000 examples.pyramid_app:app
curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/connections/github/proxy/rate_limit

The proxy is put around the application, outside of its tweens, and so sees a path before Pyramid decodes it.
"""

import os

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from proxy_middleware import (
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
    bearer_tokens,
)


def hello(_: Request) -> Response:
    """A view of the application."""
    return Response("hello\n", content_type="text/plain")


with Configurator() as config:
    config.add_route("hello", "/hello")
    config.add_view(hello, route_name="hello")

app = WSGIProxyMiddleware(
    config.make_wsgi_app(),
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=bearer_tokens({os.environ.get("CALLER_TOKEN", "alice-token"): "alice"}),
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)
