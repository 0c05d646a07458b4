"""Credential providers."""

from typing import TYPE_CHECKING

from proxy_middleware._lazy import lazily
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
__getattr__ = lazily(
    __name__,
    {
        "AWS": ".expiry",
        "GOOGLE_AI": ".expiry",
        "SLACK": ".expiry",
        "AWSSigV4": ".aws",
        "ExpiryRule": ".expiry",
        "JWTBearer": ".oauth2",
        "OAuth1": ".oauth1",
        "OAuth2": ".oauth2",
        "expired_when": ".expiry",
    },
)
