"""What the tests of OAuth2 share: a connection, providers for the stand-in, a store that fails when it is told to."""

from typing import Any

from proxy_middleware import Connection, EgressPolicy
from proxy_middleware.credentials.oauth2 import OAuth2
from proxy_middleware.errors import StoreUnavailable
from proxy_middleware.stores.memory import MemoryStore
from proxy_middleware.stores.protocol import Stored, Tokens
from tests.token_endpoint import TokenEndpoint

LOOPBACK = EgressPolicy(allow=["127.0.0.0/8"])
CONNECTION = Connection("acme", "https://api.example.com")


def provider(
    endpoint: TokenEndpoint, client_id: str | None = "client", secret: Any = "secret", **options: Any
) -> OAuth2:
    """A provider for the stand-in."""
    return OAuth2(endpoint.token_url, client_id, secret, **{"egress": LOOPBACK, **options})


def connect(endpoint: TokenEndpoint, oauth2: OAuth2, client_id: str = "client", **kept: Any) -> Tokens:
    """Does what a host application does once a user has consented; returns what it stored."""
    given = endpoint.connect(client_id)
    tokens = Tokens(given["access_token"], given["refresh_token"], **kept)
    oauth2.store.put(CONNECTION.id, tokens)
    return tokens


def connected(endpoint: TokenEndpoint, **options: Any) -> OAuth2:
    """A provider whose connection is connected."""
    oauth2 = provider(endpoint, **options)
    connect(endpoint, oauth2)
    return oauth2


def stored(oauth2: OAuth2) -> Stored:
    """The record of the connection."""
    record = oauth2.store.load(CONNECTION.id)
    assert record is not None
    return record


class FailingStore(MemoryStore):
    """A store whose methods fail for as long as their names are in `down`.

    Attributes:
        down: Names of methods, or "*" for all.
        calls: Names of the methods that were called, in order.
        forgetful: A failing save has saved all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()
        self.calls: list[str] = []
        self.forgetful = False

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.down & {name, "*"}:
            raise StoreUnavailable

    def load(self, connection_id: str, /) -> Stored | None:
        self._called("load")
        return super().load(connection_id)

    def save(self, connection_id: str, tokens: Tokens, expected: int, /) -> int | None:
        if self.forgetful:
            super().save(connection_id, tokens, expected)
        self._called("save")
        return super().save(connection_id, tokens, expected)

    def acquire(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        self._called("acquire")
        return super().acquire(connection_id, owner, seconds)

    def renew(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        self._called("renew")
        return super().renew(connection_id, owner, seconds)

    def release(self, connection_id: str, owner: str, /) -> None:
        self._called("release")
        super().release(connection_id, owner)
