"""A client of the proxy, for scripts and services that call APIs through somebody's application."""

from proxy_middleware.client.calls import Options
from proxy_middleware.client.clients import (
    AsyncCalls,
    AsyncClientConnection,
    AsyncProxyClient,
    Calls,
    ClientConnection,
    ProxyClient,
)
from proxy_middleware.client.errors import (
    AccessDenied,
    AmbiguousSelector,
    ConnectionNotFound,
    CredentialUnavailable,
    InternalError,
    InvalidRequest,
    NotAuthenticated,
    PayloadTooLarge,
    PoolExhausted,
    ProxyFailed,
    TooManyRequests,
    UpstreamError,
    UpstreamTimeout,
)
from proxy_middleware.client.response import Response

__all__ = [
    "AccessDenied",
    "AmbiguousSelector",
    "AsyncCalls",
    "AsyncClientConnection",
    "AsyncProxyClient",
    "Calls",
    "ClientConnection",
    "ConnectionNotFound",
    "CredentialUnavailable",
    "InternalError",
    "InvalidRequest",
    "NotAuthenticated",
    "Options",
    "PayloadTooLarge",
    "PoolExhausted",
    "ProxyClient",
    "ProxyFailed",
    "Response",
    "TooManyRequests",
    "UpstreamError",
    "UpstreamTimeout",
]
