"""A host application as one that moves away from the original product has it: its callers show the same tokens.

`UPSTREAM_URL` and `CLOSED_PORT` in the environment are the upstreams.
"""

import os
from typing import Any

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    ConnectionNotFound,
    Credential,
    EgressPolicy,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
    Timeouts,
    WSGIProxyMiddleware,
    nonblocking,
)
from proxy_middleware.access import jwt_bearer
from tests.host_plugins import UPSTREAM_SECRET, FailingRefresh, NumberedTokens
from tests.hosts import host_asgi, host_wsgi
from tests.integration.node.sdks import WORKSPACE_KEY, WORKSPACE_SECRET

_UPSTREAM = os.environ["UPSTREAM_URL"]
_TENANTS = {
    "alice": [
        Connection("alice:crm", f"{_UPSTREAM}/base", integration_key="crm"),
        Connection("alice:root", _UPSTREAM, integration_key="root"),
        Connection("expiring", _UPSTREAM),
        Connection("refresh-fails", _UPSTREAM),
        Connection("no-credential", _UPSTREAM),
        Connection("reading", _UPSTREAM, methods=("GET",)),
        Connection("dup-1", _UPSTREAM, integration_key="dup"),
        Connection("dup-2", _UPSTREAM, integration_key="dup"),
        Connection("hasty", _UPSTREAM, timeouts=Timeouts(head=0.3)),
        Connection("closed", f"http://127.0.0.1:{os.environ['CLOSED_PORT']}"),
    ],
    "bob": [Connection("bob:crm", f"{_UPSTREAM}/bobs", integration_key="crm")],
}


class Tenants:
    """Every tenant has connections of its own, under the same names."""

    def __init__(self) -> None:
        self._of = {tenant: StaticResolver(connections) for tenant, connections in _TENANTS.items()}

    @nonblocking
    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The caller's own connection. Older tokens say `id` where later ones say `tenantKey`."""
        tenant = self._of.get(request.caller.get("tenantKey") or request.caller.get("id"))
        if tenant is None:
            raise ConnectionNotFound
        return tenant.resolve(selector, request)


@nonblocking
def of_the_workspace(request: ProxyRequest) -> object | None:
    """The claims of a token of this workspace, which older tokens name in `iss` and later ones in `workspaceKey`."""
    claims: Any = _signed(request)
    named = claims and (claims.get("workspaceKey") or claims.get("iss"))
    return claims if named == WORKSPACE_KEY else None


_signed = jwt_bearer(secret=WORKSPACE_SECRET)
_plain = ("alice:crm", "alice:root", "reading", "dup-1", "dup-2", "hasty", "closed")
_KEYWORDS: dict[str, Any] = {
    "resolver": Tenants(),
    "credentials": StaticCredentials(
        {
            **dict.fromkeys(_plain, Credential.bearer(UPSTREAM_SECRET)),
            "bob:crm": Credential.bearer(f"{UPSTREAM_SECRET}-of-bob"),
            "expiring": NumberedTokens(),
            "refresh-fails": FailingRefresh(),
        }
    ),
    "authenticate": of_the_workspace,
    "egress": EgressPolicy(allow=("127.0.0.0/8",)),
}

asgi_app = ASGIProxyMiddleware(host_asgi, **_KEYWORDS)
wsgi_app = WSGIProxyMiddleware(host_wsgi, **_KEYWORDS)
