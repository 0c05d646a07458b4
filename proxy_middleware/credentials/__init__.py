"""Credential providers."""

from proxy_middleware.credentials.static import StaticCredentials

__all__ = ["StaticCredentials"]
