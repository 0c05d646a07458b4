"""WSGI and ASGI middleware through which an application's users call third-party APIs with stored credentials."""

from typing import TYPE_CHECKING

from proxy_middleware._credential import Credential
from proxy_middleware._lazy import lazily
from proxy_middleware.access import anyone, bearer_tokens, host_user
from proxy_middleware.credentials.static import StaticCredentials
from proxy_middleware.errors import AccessDenied, AmbiguousSelector, ConnectionNotFound, ProxyError, RefreshFailed
from proxy_middleware.models import (
    BrowserPolicy,
    Connection,
    EgressPolicy,
    Event,
    Limits,
    ProxyRequest,
    Replay,
    ResponseHead,
    Timeouts,
    UpstreamRequest,
)
from proxy_middleware.protocols import Authenticator, ConnectionResolver, CredentialProvider, Observer, nonblocking
from proxy_middleware.resolvers import StaticResolver

if TYPE_CHECKING:
    from proxy_middleware._entry_points import load_credentials, load_resolver
    from proxy_middleware.asgi import ASGIProxyMiddleware
    from proxy_middleware.proxy import Proxy
    from proxy_middleware.wsgi import WSGIProxyMiddleware

__all__ = [
    "ASGIProxyMiddleware",
    "AccessDenied",
    "AmbiguousSelector",
    "Authenticator",
    "BrowserPolicy",
    "Connection",
    "ConnectionNotFound",
    "ConnectionResolver",
    "Credential",
    "CredentialProvider",
    "EgressPolicy",
    "Event",
    "Limits",
    "Observer",
    "Proxy",
    "ProxyError",
    "ProxyRequest",
    "RefreshFailed",
    "Replay",
    "ResponseHead",
    "StaticCredentials",
    "StaticResolver",
    "Timeouts",
    "UpstreamRequest",
    "WSGIProxyMiddleware",
    "anyone",
    "bearer_tokens",
    "host_user",
    "load_credentials",
    "load_resolver",
    "nonblocking",
]

# What needs asyncio, sockets or TLS is imported when it is first asked for, so that importing the package stays cheap.
__getattr__ = lazily(
    __name__,
    {
        "ASGIProxyMiddleware": "proxy_middleware.asgi",
        "Proxy": "proxy_middleware.proxy",
        "WSGIProxyMiddleware": "proxy_middleware.wsgi",
        "load_credentials": "proxy_middleware._entry_points",
        "load_resolver": "proxy_middleware._entry_points",
    },
)
