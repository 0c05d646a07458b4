"""How a client says who it is at a token endpoint: Authlib's work, bound to our settings.

RFC 6749 section 2.3 (secrets), RFC 7523 section 2.2 (`private_key_jwt`).
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args
from urllib.parse import quote_plus

from proxy_middleware.credentials._jwt import LIFETIME, SigningKey

try:
    from authlib.common.urls import add_params_to_qs, url_encode  # type: ignore[import-untyped]
    from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]
    from authlib.oauth2.rfc6749.parameters import prepare_token_request  # type: ignore[import-untyped]
    from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError('OAuth2 needs the extra "oauth2": pip install "proxy_middleware[oauth2]"') from error

__all__ = ["ClientAuthMethod", "client_authentication", "token_request"]

ClientAuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]


class _PrivateKeyJWT(PrivateKeyJWT):  # type: ignore[misc]
    """Authlib's, with assertions that live shorter than its hour."""

    def __init__(self, token_url: str, signing: SigningKey) -> None:
        super().__init__(token_url)
        self._signing = signing

    def __call__(self, auth: ClientAuth, method: str, uri: str, headers: dict[str, str], body: str) -> Any:
        # Optional in RFC 7521 section 4.2, but some endpoints look for it.
        return super().__call__(auth, method, uri, headers, add_params_to_qs(body, [("client_id", auth.client_id)]))

    def sign(self, auth: ClientAuth, token_endpoint: str) -> Any:
        signing = self._signing
        return private_key_jwt_sign(
            signing.key, auth.client_id, token_endpoint, signing.algorithm, header=signing.header, expires_in=LIFETIME
        )


def client_authentication(
    method: ClientAuthMethod | None,
    client_id: str | None,
    client_secret: str | None,
    signing: SigningKey | None,
    token_url: str,
) -> ClientAuth | None:
    """Who the client is; its `prepare("POST", url, headers, form)` adds that to a request. None: it does not say.

    Args:
        method: None takes what the other arguments are made for.
        client_id: May be None only where there is nothing to authenticate with.
        client_secret: For `client_secret_basic` and `client_secret_post`.
        signing: For `private_key_jwt`.
        token_url: The audience of `private_key_jwt`.

    Raises:
        ValueError: The arguments do not go together.
    """
    method = method or _natural_method(client_secret, signing)
    _check(method, client_id, client_secret, signing)
    if client_id is None:
        return None
    if method == "client_secret_basic":
        # RFC 6749 section 2.3.1 has both form-encoded first, which Authlib leaves out.
        return ClientAuth(quote_plus(client_id), quote_plus(client_secret or ""), method)
    if signing is not None:
        return ClientAuth(client_id, None, _PrivateKeyJWT(token_url, signing))
    return ClientAuth(client_id, client_secret, method)


def _natural_method(client_secret: str | None, signing: SigningKey | None) -> ClientAuthMethod:
    if signing is not None:
        return "private_key_jwt"
    return "none" if client_secret is None else "client_secret_basic"


def _check(method: str, client_id: str | None, client_secret: str | None, signing: SigningKey | None) -> None:
    if method not in get_args(ClientAuthMethod):
        raise ValueError(f"OAuth2: client_auth is one of {', '.join(get_args(ClientAuthMethod))}, not {method!r}")
    if client_id is None and method != "none":
        raise ValueError(f"OAuth2: {method} needs a client_id")
    takes = {"private_key_jwt": "private_key", "none": None}.get(method, "client_secret")
    for name, given in (("client_secret", client_secret), ("private_key", signing)):
        if name == takes and not given:
            raise ValueError(f"OAuth2: {method} needs a {name}")
        if name != takes and given is not None:
            raise ValueError(f"OAuth2: {method} has no use for a {name}")


def token_request(
    grant_type: str, token_url: str, params: Mapping[str, str], own: Mapping[str, str | None], client: ClientAuth | None
) -> tuple[dict[str, str], str]:
    """Header fields and form of a token request.

    Args:
        grant_type: As it is called on the wire.
        token_url: Where it goes.
        params: Parameters that the developer adds.
        own: Those of the grant; None is left out.
        client: Who the client is, if it says so.
    """
    headers: dict[str, str] = {}
    form: str = prepare_token_request(grant_type, url_encode(params.items()), **own)
    if client is not None:
        _, headers, form = client.prepare("POST", token_url, headers, form)
    return headers, form
