"""Credential providers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxy_middleware.credentials.static import StaticCredentials

if TYPE_CHECKING:
    from proxy_middleware.credentials.aws import AWSSigV4
    from proxy_middleware.credentials.expiry import AWS, GOOGLE_AI, SLACK, ExpiryRule, expired_when
    from proxy_middleware.credentials.oauth1 import OAuth1
    from proxy_middleware.credentials.oauth2 import JWTBearer, OAuth2

__all__ = [
    "AWS",
    "GOOGLE_AI",
    "SLACK",
    "AWSSigV4",
    "ExpiryRule",
    "JWTBearer",
    "OAuth1",
    "OAuth2",
    "StaticCredentials",
    "expired_when",
]

# What needs an extra, or takes long to be imported, is when it is first asked for.
_LAZY = {
    "AWS": "expiry",
    "GOOGLE_AI": "expiry",
    "SLACK": "expiry",
    "AWSSigV4": "aws",
    "ExpiryRule": "expiry",
    "JWTBearer": "oauth2",
    "OAuth1": "oauth1",
    "OAuth2": "oauth2",
    "expired_when": "expiry",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"proxy_middleware.credentials.{_LAZY[name]}"), name)
