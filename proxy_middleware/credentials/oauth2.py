"""OAuth 2.0: access tokens that are refreshed (RFC 6749), for one client at one token endpoint."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from proxy_middleware._credential import Credential
from proxy_middleware.credentials._client_auth import ClientAuthMethod, client_authentication, token_request
from proxy_middleware.credentials._jwt import JWTBearer, PrivateKey, SigningKey
from proxy_middleware.credentials._rounds import DEAD, NOT_CONNECTED, Rounds, bearer
from proxy_middleware.credentials._token_endpoint import TokenEndpoint
from proxy_middleware.credentials._vault import Vault
from proxy_middleware.errors import CredentialUnavailable
from proxy_middleware.models import Connection, EgressPolicy, ResponseHead
from proxy_middleware.stores.memory import MemoryStore
from proxy_middleware.stores.protocol import Tokens, TokenStore

__all__ = ["JWTBearer", "OAuth2"]

# RFC 7523 section 2.1.
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"

Parameters = Mapping[str, str]

# What the request says by itself.
_OWN = frozenset(
    {"grant_type", "refresh_token", "scope", "assertion", "client_assertion", "client_assertion_type"}
    | {"client_id", "client_secret"}
)


class OAuth2:
    """Bearer tokens from a token endpoint, by connection. One object serves all connections of an integration.

    The host application runs the authorization code flow itself and hands over what it gave:

        credentials.store.put(connection.id, Tokens(access_token, refresh_token, expires_at))

    From then on the tokens are refreshed when they expire or the upstream rejects them: once for all threads,
    processes and hosts that share the store. New tokens are stored before they are used. Where the store fails just
    then, they are used nonetheless, and kept in memory until it takes them. Grants without a user (client credentials,
    JWT bearer) need no `put`: the first use asks for a token.

    A refresh, with all waiting for others, takes no longer than 10 seconds. A grant that the endpoint refuses for good
    is marked dead in the store, and not asked for again until the host has put new tokens.

    Attributes:
        store: Where the tokens are.

    Args:
        token_url: The token endpoint. Redirects are not followed.
        client_id: As registered there; may be left out for a JWT bearer grant alone.
        client_secret: As registered there.
        store: Shared by all processes of an application; by default a `MemoryStore`, which is not.
        grant: `"refresh_token"`, `"client_credentials"`, or a `JWTBearer`.
        client_auth: How the client authenticates; by default `client_secret_basic` with a secret, `private_key_jwt`
            with a key, and else `none`.
        private_key: PEM or a JWK, for `private_key_jwt`.
        key_id: The key's `kid`.
        algorithm: RS256, PS256, ES256, or their kin with 384 or 512 bits.
        scope: What to ask for; a text separated by blanks, or a list. With refresh tokens mostly left out.
        params: Further parameters of the token request, such as `audience` or `resource`; or a function that gives
            those of a connection.
        is_rejected: Whether a response means that the access token is no longer accepted; by default a 401 does.
        egress: Which addresses may be dialled; by default those that the proxy's own `egress` allows. Needed where
            proxies with different policies share this object.
        ssl_context: None verifies against the system's authorities.
        transport: A blocking transport of httpx or httpx2 to use instead, such as one with an egress proxy; it decides
            itself on addresses and TLS, and stays open.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: Arguments are malformed, or do not go together.
    """

    is_rejected: Callable[[Connection, ResponseHead], bool]

    def __init__(
        self,
        token_url: str,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        store: TokenStore | None = None,
        grant: Literal["refresh_token", "client_credentials"] | JWTBearer = "refresh_token",
        client_auth: ClientAuthMethod | None = None,
        private_key: PrivateKey | None = None,
        key_id: str | None = None,
        algorithm: str = "RS256",
        scope: str | Sequence[str] | None = None,
        params: Parameters | Callable[[Connection], Parameters] | None = None,
        is_rejected: Callable[[Connection, ResponseHead], bool] | None = None,
        egress: EgressPolicy | None = None,
        ssl_context: ssl.SSLContext | None = None,
        transport: Any = None,
    ) -> None:
        if key_id is not None and private_key is None:
            raise ValueError("OAuth2: a key_id needs a private_key")
        self._endpoint = TokenEndpoint(token_url, egress, ssl_context, transport)
        signing = None if private_key is None else SigningKey(private_key, algorithm, key_id)
        self._client = client_authentication(client_auth, client_id, client_secret, signing, token_url)
        _check_grant(grant, client_id, anonymous=client_secret is None and signing is None)
        self._token_url = token_url
        self._grant = grant
        self._spends = grant == "refresh_token"
        self._scope = scope if scope is None or isinstance(scope, str) else " ".join(scope)
        self._params = params if callable(params) else _checked(params or {})
        self.store = _checked_store(MemoryStore() if store is None else store)
        self._vault = Vault(self.store)
        self._rounds = Rounds(self._vault, self._endpoint, self._prepare, spends=self._spends)
        # Only where there is one: the proxy's own default is cheaper.
        if is_rejected is not None:
            self.is_rejected = is_rejected

    def obtain(self, connection: Connection) -> Credential:
        """The stored access token, expired or not; a new one where none is stored yet.

        Raises:
            CredentialUnavailable: The account is not connected, or its grant is dead.
            RefreshFailed: There was none yet, and the token endpoint gave none.
            StoreUnavailable: The store cannot be reached.
        """
        stored = self._vault.load(connection.id)
        if self._spends:
            if stored is None:
                raise CredentialUnavailable(NOT_CONNECTED)
            if stored.dead:
                raise CredentialUnavailable(DEAD)
        credential = None if stored is None else bearer(stored.tokens)
        return credential or self._rounds.run(connection, None)

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """A newer access token than the rejected one: the stored one, if it differs, else one from the endpoint.

        Raises:
            RefreshFailed: There is none to be had.
            StoreUnavailable: The store cannot be reached, and nothing was asked.
        """
        return self._rounds.run(connection, rejected)

    def use_egress(self, policy: EgressPolicy) -> None:
        """Takes over the policy of a proxy, unless `egress` or `transport` was given.

        Raises:
            ValueError: Another proxy has said otherwise.
        """
        self._endpoint.use_egress(policy)

    def _prepare(self, connection: Connection, tokens: Tokens) -> tuple[dict[str, str], str]:
        params = _checked(self._params(connection)) if callable(self._params) else self._params
        grant, own = self._grant, {"scope": self._scope}
        if isinstance(grant, JWTBearer):
            grant_type, own["assertion"] = _JWT_BEARER, grant.assertion()
        else:
            grant_type, own["refresh_token"] = grant, tokens.refresh_token if self._spends else None
        return token_request(grant_type, self._token_url, params, own, self._client)


def _check_grant(grant: object, client_id: str | None, *, anonymous: bool) -> None:
    if isinstance(grant, JWTBearer):
        return
    if grant not in ("refresh_token", "client_credentials"):
        raise ValueError('OAuth2: grant is "refresh_token", "client_credentials" or a JWTBearer')
    if client_id is None:
        raise ValueError(f"OAuth2: the grant {grant} needs a client_id")
    if grant == "client_credentials" and anonymous:
        # RFC 6749 section 4.4.
        raise ValueError("OAuth2: the grant client_credentials needs a client_secret or a private_key")


def _checked(params: Parameters) -> Parameters:
    for name, value in params.items():
        if name in _OWN:
            raise ValueError(f"OAuth2: params cannot set {name}, which is the request's own")
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("OAuth2: params are text")
    return dict(params)


def _checked_store(store: TokenStore) -> TokenStore:
    if isinstance(store, type) or not callable(getattr(store, "acquire", None)):
        raise TypeError("OAuth2: store is a TokenStore, such as MemoryStore()")
    return store
