"""Who is calling: authenticators for the usual cases. Anything callable with a `ProxyRequest` is another."""

import os
from collections.abc import Mapping
from typing import Any

from proxy_middleware.models import ProxyRequest
from proxy_middleware.protocols import Authenticator, nonblocking

__all__ = ["anyone", "bearer_tokens", "host_user"]


@nonblocking
def anyone(request: ProxyRequest) -> object:
    """Lets everyone in who reaches the host application: for hosts that are private, or guard the prefix themselves."""
    return "anyone"


@nonblocking
def host_user(request: ProxyRequest) -> object | None:
    """The user whom the host has already signed in.

    Under ASGI `scope["user"]`, as Starlette's AuthenticationMiddleware sets it outside of this one, if it is
    authenticated; under WSGI `REMOTE_USER`, as the server or a middleware sets it (RFC 3875 section 4.1.11).
    """
    if request.scope is not None:
        user = request.scope.get("user")
        return user if user is not None and getattr(user, "is_authenticated", True) else None
    return request.environ.get("REMOTE_USER") or None


def bearer_tokens(callers: Mapping[str, Any]) -> Authenticator:
    """An authenticator for `Authorization: Bearer {token}` (RFC 6750 section 2.1).

    Tokens are found by a keyed hash, so that the time it takes says nothing about them.

    Args:
        callers: The caller of each token; anything but None.

    Raises:
        ValueError: A token is empty or a caller is None.
    """
    from hashlib import blake2b  # Loads OpenSSL, which importing the package should not.

    key = os.urandom(32)

    if any(not token or caller is None for token, caller in callers.items()):
        raise ValueError("bearer_tokens: a token cannot be empty, nor a caller None")
    known = {
        blake2b(token.encode("utf-8"), key=key, digest_size=32).digest(): caller for token, caller in callers.items()
    }

    @nonblocking
    def authenticate(request: ProxyRequest) -> object | None:
        given = None
        for name, value in request.fields:
            if name == b"authorization":
                if given is not None:
                    return None
                given = value
        if given is None or given[:7].lower() != b"bearer ":
            return None
        return known.get(blake2b(given[7:].strip(b" "), key=key, digest_size=32).digest())

    return authenticate
