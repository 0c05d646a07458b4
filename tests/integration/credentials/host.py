"""The host application that several processes run here: it answers with its process id, and has the proxy around it.

`HOST` in the environment is a JSON object: `endpoints` has the URLs of token endpoints (their `/api` is the upstream)
by connection id, `store` and `key` say where the tokens are, `limits` are those of the proxy, `steps` (where there are
any) and `folder` those of `Stepping`.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    EgressPolicy,
    Limits,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
    anyone,
    stores,
)
from proxy_middleware.credentials import OAuth2

_HOST = json.loads(os.environ["HOST"])
_LOOPBACK = EgressPolicy(allow=["127.0.0.0/8"])


def _store() -> Any:
    # Only the libraries that are needed are imported: there are many processes.
    url, keys = _HOST["store"], [_HOST["key"]]
    if url.startswith("redis"):
        return stores.RedisStore(url, keys)
    if not _HOST["steps"]:
        return stores.SQLStore(url, keys)
    from tests.integration.credentials.stepping import Stepping

    return Stepping(url, keys, _HOST["steps"], Path(_HOST["folder"]))


def _keywords() -> dict[str, Any]:
    endpoints, store = _HOST["endpoints"], _store()
    providers = {
        name: OAuth2(f"{url}/token", "client", "secret", store=store, egress=_LOOPBACK)
        for name, url in endpoints.items()
    }
    return {
        "resolver": StaticResolver([Connection(name, f"{url}/api") for name, url in endpoints.items()]),
        "credentials": StaticCredentials(providers),
        "authenticate": anyone,
        "egress": _LOOPBACK,
        "limits": Limits(**_HOST["limits"]),
    }


async def host_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers every request with the process id."""
    assert scope["type"] == "http"  # There is no lifespan.
    pid = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(pid))]})
    await send({"type": "http.response.body", "body": pid})


def host_wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The same."""
    pid = b"%d" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(pid)))])
    return [pid]


asgi_app = ASGIProxyMiddleware(host_asgi, **_keywords())
wsgi_app = WSGIProxyMiddleware(host_wsgi, **_keywords())
