"""A Falcon application through which GitHub is called, for WSGI and for ASGI servers.

    CALLER_TOKEN=alice-token GITHUB_TOKEN=... gunicorn --threads 8 examples.falcon_app:wsgi_app
    CALLER_TOKEN=alice-token GITHUB_TOKEN=... uvicorn examples.falcon_app:asgi_app
    curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/connections/github/proxy/rate_limit

The proxy is put around the application: what Falcon calls middleware knows requests and responses of its own, which
cannot be streamed on byte for byte.
"""

import os

import falcon
import falcon.asgi

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


class Hello:
    """A resource of the application under WSGI."""

    def on_get(self, _: falcon.Request, resp: falcon.Response) -> None:
        """Answers a GET."""
        resp.text = "hello\n"


class AsyncHello:
    """The same under ASGI."""

    async def on_get(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answers a GET."""
        resp.text = "hello\n"


wsgi_host = falcon.App()
wsgi_host.add_route("/hello", Hello())
wsgi_app = proxy.wsgi(wsgi_host)

asgi_host = falcon.asgi.App()
asgi_host.add_route("/hello", AsyncHello())
asgi_app = proxy.asgi(asgi_host)
