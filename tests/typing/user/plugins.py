"""Plugins of one's own, in both colours, of each protocol."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import assert_type

from proxy_middleware import (
    AccessDenied,
    Authenticator,
    Connection,
    ConnectionNotFound,
    ConnectionResolver,
    Credential,
    CredentialProvider,
    EgressPolicy,
    Event,
    Observer,
    Proxy,
    ProxyRequest,
    RefreshFailed,
    ResponseHead,
    StaticCredentials,
    load_credentials,
    load_resolver,
    nonblocking,
)
from proxy_middleware.resolvers import CachedResolver, StaticResolver


@dataclass(frozen=True)
class User:
    """A caller of one's own kind."""

    name: str
    tenant: str


class Resolver:
    """Blocks."""

    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        if not isinstance(request.caller, User):
            raise AccessDenied("Nobody's")
        return Connection(selector, "https://api.example.com", attributes={"tenant": request.caller.tenant})


class AsyncResolver:
    """Awaits."""

    async def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        if request.header("x-tenant") is None:
            raise ConnectionNotFound
        return Connection(selector, "https://api.example.com", methods={"GET"}, paths=["/v1/**"], revision=7)


class InheritedResolver(ConnectionResolver):
    """Says which protocol it is."""

    @nonblocking
    def resolve(self, selector: str, request: ProxyRequest, /) -> Connection:
        return Connection(selector, "https://api.example.com")


class OneMethod:
    """A provider without the optional methods."""

    def obtain(self, connection: Connection) -> Credential:
        return Credential.bearer(f"token-of-{connection.id}", expires_at=None)


class Provider:
    """A provider with all of them."""

    policy: EgressPolicy | None = None

    async def obtain(self, connection: Connection) -> Credential:
        return Credential.basic(connection.id, "password")

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        if rejected.expires_at is None:
            raise RefreshFailed("Connect the account again")
        return Credential.header("x-api-key", connection.id, expires_at=rejected.expires_at + 3600)

    def is_rejected(self, connection: Connection, response: ResponseHead) -> bool:
        return response.status == 401 or response.header("x-token-state") == "expired"

    def use_egress(self, policy: EgressPolicy) -> None:
        self.policy = policy


class InheritedProvider(CredentialProvider):
    """Says which protocol it is."""

    def obtain(self, connection: Connection, /) -> Credential | Awaitable[Credential]:
        return Credential.combine(Credential.query("key", connection.id), Credential.cookie("session", "s1"))


def authenticate(request: ProxyRequest) -> User | None:
    """Blocks."""
    name = request.header("x-user")
    return None if name is None else User(name, "acme")


async def authenticate_async(request: ProxyRequest) -> User | None:
    """Awaits."""
    return authenticate(request)


class Authenticating:
    """Is an object."""

    def __call__(self, request: ProxyRequest) -> User | None:
        return authenticate(request)


class Counter:
    """An observer that is an object."""

    count = 0

    def __call__(self, event: Event) -> None:
        if event.kind == "finished":
            self.count += event.sent


def observe(event: Event) -> None:
    """An observer that is a function."""
    assert_type(event.connection_id, str | None)
    assert_type(event.timings.get("total"), float | None)


def key(selector: str, request: ProxyRequest) -> tuple[str, str] | None:
    """By what a CachedResolver keeps."""
    return (request.caller.tenant, selector) if isinstance(request.caller, User) else None


cached = CachedResolver(AsyncResolver(), 60, key, capacity=100)
static = StaticCredentials({"crm": Credential.bearer("token"), "mail": OneMethod(), "chat": Provider()})

RESOLVERS: list[ConnectionResolver] = [
    Resolver(),
    AsyncResolver(),
    InheritedResolver(),
    StaticResolver([Connection("crm", "https://api.example.com")]),
    cached,
]
PROVIDERS: list[CredentialProvider] = [OneMethod(), Provider(), InheritedProvider(), static]
AUTHENTICATORS: list[Authenticator] = [authenticate, authenticate_async, Authenticating(), lambda request: request]
OBSERVERS: list[Observer] = [observe, Counter(), lambda event: None]


def make(resolver: ConnectionResolver, credentials: CredentialProvider, authenticator: Authenticator) -> Proxy:
    """Takes whatever is a plugin."""
    return Proxy(resolver=resolver, credentials=credentials, authenticate=authenticator, observers=OBSERVERS)


def installed() -> Proxy:
    """Made of what other packages bring."""
    resolver = load_resolver("tenant-sql", url="sqlite:///connections.db")
    assert_type(resolver, ConnectionResolver)
    credentials = load_credentials("vault-file", directory="/run/secrets")
    assert_type(credentials, CredentialProvider)
    return make(CachedResolver(resolver, 30, key), credentials, authenticate_async)


async def decorated(request: ProxyRequest) -> Connection:
    """The mark of `nonblocking` hides nothing of what it marks."""
    assert_type(InheritedResolver().resolve("crm", request), Connection)
    assert_type(StaticResolver([]).resolve("crm", request), Connection)
    return await AsyncResolver().resolve("crm", request)
