"""Who is calling: authenticators for the usual cases. Anything callable with a `ProxyRequest` is another."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from proxy_middleware._lazy import lazily
from proxy_middleware.models import ProxyRequest
from proxy_middleware.protocols import Authenticator, nonblocking

if TYPE_CHECKING:
    from proxy_middleware.jwt import jwt_bearer

__all__ = ["anyone", "bearer_tokens", "host_user", "jwt_bearer"]

# It needs an extra.
__getattr__ = lazily(__name__, {"jwt_bearer": "proxy_middleware.jwt"})


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

    How long the look-up takes says nothing about the tokens: few are all compared in constant time, many are found by
    a keyed hash.

    Args:
        callers: The caller of each token; anything but None.

    Raises:
        ValueError: A token is empty or a caller is None.
    """
    if any(not token or caller is None for token, caller in callers.items()):
        raise ValueError("bearer_tokens: a token cannot be empty, nor a caller None")
    find: Callable[[bytes], object | None] = _compared(callers) if len(callers) <= 8 else _hashed(callers)

    @nonblocking
    def authenticate(request: ProxyRequest) -> object | None:
        token = bearer_token(request)
        return None if token is None else find(token)

    return authenticate


def bearer_token(request: ProxyRequest) -> bytes | None:
    """What follows `Bearer` in the only Authorization field (RFC 6750 section 2.1); None if there is no such field."""
    given = None
    for name, value in request.fields:
        if name == b"authorization":
            if given is not None:
                return None
            given = value
    if given is None or given[:7].lower() != b"bearer ":
        return None
    return given[7:].strip(b" ")


def _compared(callers: Mapping[str, Any]) -> Callable[[bytes], Any]:
    from hmac import compare_digest  # Loads OpenSSL, which importing the package should not.

    known = [(token.encode("utf-8"), caller) for token, caller in callers.items()]

    def find(token: bytes) -> Any:
        found = None
        for candidate, caller in known:
            if compare_digest(candidate, token):
                found = caller
        return found

    return find


def _hashed(callers: Mapping[str, Any]) -> Callable[[bytes], Any]:
    from hashlib import blake2b

    key = os.urandom(32)

    def digest(token: bytes) -> bytes:
        return blake2b(token, key=key, digest_size=32).digest()

    known = {digest(token.encode("utf-8")): caller for token, caller in callers.items()}
    return lambda token: known.get(digest(token))
