"""Credentials, their providers, and the stores that keep tokens."""

import hashlib
import time
from typing import assert_type

import httpx

from proxy_middleware import Connection, Credential, ResponseHead, StaticCredentials, UpstreamRequest
from proxy_middleware.credentials import (
    AWS,
    SLACK,
    AWSSigV4,
    ExpiryRule,
    JWTBearer,
    OAuth1,
    OAuth2,
    expired_when,
)
from proxy_middleware.errors import CredentialUnavailable
from proxy_middleware.stores import (
    MemoryStore,
    RedisStore,
    SQLStore,
    Stored,
    StoreUnavailable,
    Tokens,
    TokenStore,
    generate_key,
)


class OwnStore:
    """A store of one's own, of an incomplete kind: it keeps one record, and leases it to anybody."""

    stored: Stored | None = None

    def load(self, connection_id: str) -> Stored | None:
        return self.stored

    def save(self, connection_id: str, tokens: Tokens, expected: int) -> int | None:
        self.stored = Stored(tokens, expected + 1)
        return self.stored.version

    def put(self, connection_id: str, tokens: Tokens) -> int:
        self.stored = Stored(tokens, 1)
        return 1

    def delete(self, connection_id: str) -> None:
        self.stored = None

    def mark_dead(self, connection_id: str, expected: int) -> None:
        if self.stored is not None:
            self.stored = Stored(self.stored.tokens, expected, dead=True)

    def acquire(self, connection_id: str, owner: str, seconds: float) -> bool:
        return True

    def renew(self, connection_id: str, owner: str, seconds: float) -> bool:
        return True

    def release(self, connection_id: str, owner: str) -> None:
        return None


def stores() -> list[TokenStore]:
    """All of them are token stores."""
    keys: list[str | bytes] = [generate_key(), b"k" * 32]
    sql = SQLStore("sqlite:///tokens.db", keys=keys)
    sql.create()
    assert_type(sql.rotate(), int)
    return [sql, RedisStore("redis://localhost", keys, prefix="tokens:"), MemoryStore(), OwnStore()]


def sign(request: UpstreamRequest) -> list[tuple[str, str]]:
    """A signature over the body."""
    return [("x-signature", hashlib.sha256(request.body or b"").hexdigest())]


def take_away(request: UpstreamRequest) -> list[tuple[str, str | None]]:
    """A signer that takes a field away."""
    return [("x-signature", None), ("x-method", request.method)]


def authorize(request: httpx.Request) -> httpx.Request:
    """An `auth` of httpx."""
    request.headers["x-key"] = "k"
    return request


fixed: list[Credential] = [
    Credential.bearer("token", expires_at=time.time() + 3600),
    Credential.basic("user", "password"),
    Credential.signed(sign, needs_body=True),
    Credential.signed(take_away, lambda request: request.method == "POST", expires_at=0),
    Credential.from_httpx_auth(authorize),
    Credential.from_httpx_auth(httpx.BasicAuth("user", "password")),
]
both = Credential.combine(*fixed)


def is_rejected(connection: Connection, response: ResponseHead) -> bool:
    """A rule of one's own."""
    return response.status == 498 and connection.id != "x"


class Provider:
    """A provider that has a rule."""

    is_rejected = expired_when(status=[401, 403], json={"error.code": ["expired", 17]}) | SLACK

    def obtain(self, connection: Connection) -> Credential:
        raise CredentialUnavailable(f"Connect {connection.id} first")


def providers(store: TokenStore, key: dict[str, str], pem: str) -> StaticCredentials:
    """Each of them, with what it takes."""
    rule = expired_when(text="expired", headers={"www-authenticate": "invalid_token"}) | AWS
    assert_type(rule, ExpiryRule)
    return StaticCredentials(
        {
            "crm": OAuth2(
                "https://auth.example.com/token", "id", "secret", store=store, scope=["a", "b"], is_rejected=rule
            ),
            "own": OAuth2(
                "https://auth.example.com/token",
                "id",
                grant="client_credentials",
                client_auth="private_key_jwt",
                private_key=pem,
                params=lambda connection: {"audience": connection.base_url},
                is_rejected=is_rejected,
                transport=httpx.HTTPTransport(),
            ),
            "google": OAuth2(
                "https://oauth2.googleapis.com/token",
                grant=JWTBearer.from_service_account(key, scope="https://www.googleapis.com/auth/drive"),
            ),
            "reports": AWSSigV4("eu-central-1", "s3", "id", "secret", payload="unsigned"),
            "legacy": OAuth1("key", "secret", "token", "token-secret", signature_method="HMAC-SHA256"),
            "other": Provider(),
        }
    )


def connected(credentials: OAuth2, connection_id: str) -> Tokens | None:
    """What the authorization code flow gave, and what is there."""
    try:
        credentials.store.put(connection_id, Tokens("access", "refresh", time.time() + 60, extra={"url": "https://x"}))
        stored = credentials.store.load(connection_id)
    except StoreUnavailable as error:
        raise RuntimeError(error.detail) from None
    assert_type(stored, Stored | None)
    return None if stored is None else stored.tokens
