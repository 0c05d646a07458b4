"""A host application with one provider of each kind, for tests of credentials that expire.

A selector is "kind:name": the kind says which provider, and the name makes it a connection of one test alone. There are
two proxies around the host, with the same providers: below `/connections` with the usual limits, below `/hasty` with
short ones. The host itself takes `POST /put/{selector}` (a JSON object: stores these tokens for the connection),
`POST /forget/{selector}` (drops what is cached) and `POST /let-go` (ends what hangs).

The environment says where the upstream is: `UPSTREAM_URL`, its token endpoint at `/token`; and which port refuses
connections: `CLOSED_PORT`.
"""

import asyncio
import hmac
import json
import os
import threading
from collections.abc import Callable, Generator, Iterable
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import httpx2

from proxy_middleware import (
    Connection,
    ConnectionNotFound,
    Credential,
    CredentialProvider,
    EgressPolicy,
    Limits,
    Proxy,
    ProxyError,
    ProxyRequest,
    RefreshFailed,
    Replay,
    StaticCredentials,
    UpstreamRequest,
    bearer_tokens,
    nonblocking,
)
from proxy_middleware.credentials import SLACK, AWSSigV4, JWTBearer, OAuth1, OAuth2, expired_when
from proxy_middleware.errors import CredentialUnavailable, StoreUnavailable
from proxy_middleware.stores.protocol import Tokens
from tests.host_plugins import UPSTREAM_SECRET, FailingRefresh, NumberedTokens, NumberedTokensLater, SameToken
from tests.hosts import host_asgi, host_wsgi
from tests.integration.auth_calls import ACCESS_KEY, CALLERS, HASTY_BACKOFF, HASTY_TTL, ISSUER, PRIVATE_KEY, REGION

UPSTREAM = os.environ["UPSTREAM_URL"]
LET_GO = threading.Event()
LOOPBACK = EgressPolicy(allow=("127.0.0.0/8",))


class ByKind:
    """Knows every name of the kinds there are; what it resolves is made anew each time, as from a database."""

    @nonblocking
    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The connection, which belongs to who calls."""
        kind = selector.partition(":")[0]
        if kind not in PROVIDERS:
            raise ConnectionNotFound
        return Connection(selector, UPSTREAM, integration_key=kind, attributes={"tenant": request.caller})


class Raising(NumberedTokens):
    """A provider whose refresh raises this."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self._error = error

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Fails; what the proxy may show, it is not told."""
        raise self._error() if issubclass(self._error, ProxyError) else self._error(UPSTREAM_SECRET)


class RaisingLater(NumberedTokensLater):
    """The same, on an event loop."""

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Fails."""
        await anyio.lowlevel.checkpoint()
        raise asyncio.CancelledError(UPSTREAM_SECRET)


class Giving(NumberedTokens):
    """A provider whose refresh gives this, which is no credential."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self._given = given

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """No credential."""
        return self._given  # type: ignore[no-any-return]


class Hanging(NumberedTokens):
    """A provider whose refresh does not return, until the host has been told to let go, once and for all."""

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Waits to be let go."""
        LET_GO.wait(60)
        raise RefreshFailed


class HangingLater(NumberedTokensLater):
    """The same, on an event loop."""

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Waits to be let go."""
        await anyio.to_thread.run_sync(LET_GO.wait, 60, abandon_on_cancel=True)
        raise RefreshFailed


class Ruled(NumberedTokens):
    """A provider of an API that says in some other way that a token has expired."""

    def __init__(self, rule: Any) -> None:
        super().__init__()
        self.is_rejected = rule


class PerTenant:
    """A provider whose tokens say for whom, for which connection, how, and how often it was asked for that."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str, str], Any] = {}

    def obtain(self, connection: Connection) -> Credential:
        """Another token each time it is asked."""
        return self._next("obtained", connection)

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Another one."""
        return self._next("refreshed", connection)

    def _next(self, how: str, connection: Connection) -> Credential:
        key = (connection.attributes["tenant"], connection.id, how)
        number = next(self._numbers.setdefault(key, count(1)))
        return Credential.bearer("/".join([*key, str(number)]))


def signature(method: str, url: str, body: bytes) -> str:
    """A scheme of our own: HMAC-SHA256 of method, path with query, and body."""
    path = "/" + url.split("/", 3)[3]
    return hmac.digest(UPSTREAM_SECRET.encode(), f"{method} {path}\n".encode() + body, "sha256").hex()


def sign(request: UpstreamRequest) -> list[tuple[str, str]]:
    """The field of that scheme."""
    return [("X-Signature", signature(request.method, request.url, request.body or b""))]


def signing_auth(library: Any) -> Any:
    """An auth for this library that does the same."""

    class SigningAuth(library.Auth):  # type: ignore[misc]
        requires_request_body = True

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            url = f"{request.url.scheme}://{request.url.netloc.decode()}{request.url.raw_path.decode()}"
            request.headers["X-Signature"] = signature(request.method, url, request.content)
            yield request

    return SigningAuth()


def oauth2(client_id: str | None, secret: str | None = None, url: str = f"{UPSTREAM}/token", **options: Any) -> OAuth2:
    """A provider for the upstream's token endpoint."""
    return OAuth2(url, client_id, secret, egress=LOOPBACK, **options)


_CLIENT_CREDENTIALS: dict[str, Any] = {"grant": "client_credentials", "scope": ["read", "write"]}

PROVIDERS: dict[str, Credential | CredentialProvider] = {
    "static": Credential.bearer(UPSTREAM_SECRET),
    "numbered": NumberedTokens(),
    "numbered-later": NumberedTokensLater(),
    "tenants": PerTenant(),
    # Refreshes that come to nothing.
    "raises": FailingRefresh(),
    "raises-refresh-failed": Raising(RefreshFailed),
    "raises-unavailable": Raising(CredentialUnavailable),
    "raises-outage": Raising(StoreUnavailable),
    "raises-timeout": Raising(TimeoutError),
    "raises-stop": Raising(StopIteration),
    "raises-cancelled": RaisingLater(),
    "same": SameToken(),
    "gives-none": Giving(None),
    "gives-text": Giving("token"),
    "gives-class": Giving(Credential),
    "oauth2-refused": oauth2("basic", UPSTREAM_SECRET, f"http://127.0.0.1:{os.environ['CLOSED_PORT']}/token"),
    "hangs": Hanging(),
    "hangs-later": HangingLater(),
    # Other ways to say that a credential has expired.
    "slack": Ruled(SLACK),
    "text": Ruled(expired_when() | expired_when(status=200, text="token_expired")),
    "oauth2-slack": oauth2("basic", UPSTREAM_SECRET, is_rejected=SLACK),
    # Kinds of credentials.
    "oauth2": oauth2("basic", UPSTREAM_SECRET),
    "client-basic": oauth2("basic", UPSTREAM_SECRET, **_CLIENT_CREDENTIALS),
    "client-post": oauth2("post", UPSTREAM_SECRET, client_auth="client_secret_post", **_CLIENT_CREDENTIALS),
    "client-jwt": oauth2("signer", private_key=PRIVATE_KEY, algorithm="ES256", **_CLIENT_CREDENTIALS),
    "jwt-bearer": oauth2(None, grant=JWTBearer(ISSUER, f"{UPSTREAM}/token", PRIVATE_KEY, algorithm="ES256")),
    "aws-dynamodb": AWSSigV4(REGION, "dynamodb", ACCESS_KEY, UPSTREAM_SECRET),
    "aws-s3": AWSSigV4(REGION, "s3", ACCESS_KEY, UPSTREAM_SECRET, "session-token"),
    "oauth1": OAuth1("consumer", UPSTREAM_SECRET, "token", UPSTREAM_SECRET),
    "hmac": Credential.signed(sign, needs_body=True),
    "httpx": Credential.from_httpx_auth(signing_auth(httpx)),
    "httpx2": Credential.from_httpx_auth(signing_auth(httpx2)),
}


def _proxy(**settings: Any) -> Proxy:
    return Proxy(
        resolver=ByKind(),
        credentials=StaticCredentials(PROVIDERS),
        authenticate=bearer_tokens(CALLERS),
        egress=LOOPBACK,
        replay=Replay(disk=5 * 1024 * 1024),
        **settings,
    )


USUAL = _proxy()
HASTY = _proxy(prefix="/hasty", limits=Limits(credential_ttl=HASTY_TTL, refresh_backoff=HASTY_BACKOFF))


def _act(path: str, body: bytes) -> None:
    """Does what the host was asked to."""
    _, action, *selector = path.split("/")
    if action == "put":
        provider = PROVIDERS[selector[0].partition(":")[0]]
        assert isinstance(provider, OAuth2)
        provider.store.put(selector[0], Tokens(**json.loads(body)))
    elif action == "forget":
        USUAL.forget(selector[0])
    elif action == "let-go":
        LET_GO.set()


async def acting_asgi(scope: Any, receive: Any, send: Any) -> None:
    """The host application under ASGI."""
    if scope["type"] == "http" and scope["method"] == "POST":
        _act(scope["path"], (await receive()).get("body", b""))
    await host_asgi(scope, receive, send)


def acting_wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The same under WSGI."""
    if environ["REQUEST_METHOD"] == "POST":
        _act(environ["PATH_INFO"], environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    return host_wsgi(environ, start_response)


asgi_app = USUAL.asgi(HASTY.asgi(acting_asgi))
wsgi_app = USUAL.wsgi(HASTY.wsgi(acting_wsgi))
