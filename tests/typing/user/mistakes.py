"""What a type checker has to complain of. A comment that has nothing to ignore is an error, too."""

from collections.abc import Mapping
from typing import Any

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    Event,
    Limits,
    Proxy,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
    UpstreamRequest,
    WSGIProxyMiddleware,
    anyone,
)
from proxy_middleware.client import ProxyClient
from proxy_middleware.credentials import OAuth2
from proxy_middleware.resolvers import CachedResolver
from proxy_middleware.stores import MemoryStore, Tokens
from proxy_middleware.testing import Reply

resolver = StaticResolver([])
credentials = StaticCredentials({})


class WithoutRequest:
    """Its resolve takes the selector alone."""

    def resolve(self, selector: str) -> Connection:
        return Connection(selector, "https://api.example.com")


class Optional:
    """Its resolve gives None where it should raise."""

    async def resolve(self, selector: str, request: ProxyRequest) -> Connection | None:
        return None


class GivesText:
    """Its obtain gives the token, and no Credential."""

    def obtain(self, connection: Connection) -> str:
        return connection.id


def authenticate(environ: dict[str, Any]) -> str | None:
    """Wants an environ."""
    return str(environ)


async def observe(event: Event) -> int:
    """An observer that nobody awaits."""
    return event.sent


def sign(request: UpstreamRequest) -> Mapping[str, str]:
    """Gives a mapping, and no pairs."""
    return {"x-signature": request.url}


def by_selector(selector: str) -> str:
    """A key without the request."""
    return selector


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """A host application."""


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    """Another one."""
    return []


# Plugins.
Proxy(resolver=WithoutRequest(), credentials=credentials, authenticate=anyone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=Optional(), credentials=credentials, authenticate=anyone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=by_selector, credentials=credentials, authenticate=anyone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=resolver, credentials=GivesText(), authenticate=anyone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=resolver, credentials={"crm": Credential.bearer("token")}, authenticate=anyone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=resolver, credentials=credentials, authenticate=authenticate)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=resolver, credentials=credentials, authenticate="token")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=resolver, credentials=credentials, authenticate=anyone, observers=[observe])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
CachedResolver(resolver, 60, by_selector)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
StaticCredentials({"crm": "token"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]

# Doors and settings.
ASGIProxyMiddleware(asgi_app, resolver=resolver, credentials=credentials)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
WSGIProxyMiddleware(wsgi_app, resolver=resolver, credentials=credentials)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ASGIProxyMiddleware(wsgi_app, resolver=resolver, credentials=credentials, authenticate=anyone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WSGIProxyMiddleware(asgi_app, resolver=resolver, credentials=credentials, authenticate=anyone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WSGIProxyMiddleware(wsgi_app, resolver=resolver, credentials=credentials, authenticate=anyone, timeout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Proxy(resolver=resolver, credentials=credentials, authenticate=anyone, spool_unframed="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Proxy(resolver=resolver, credentials=credentials, authenticate=anyone, timeouts=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Limits(credential_ttl=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Values.
Connection("crm")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Connection("crm", "https://api.example.com", "hubspot")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Connection("crm", "https://api.example.com", timeouts=600)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Connection("crm", "https://api.example.com").base_url = "https://elsewhere.example.com"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
Credential.bearer(b"token")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Credential.bearer("token", 3600)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Credential.basic("user")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Credential.signed(sign)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Credential.bearer("token").token()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
Event("ended", 0, 1, "GET", "crm")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# The rest.
OAuth2("https://auth.example.com/token", "id", grant="password")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
OAuth2("https://auth.example.com/token", "id", store={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
MemoryStore().put("crm", {"access_token": "a"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Tokens(access="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ProxyClient("https://app.example.com").connection("crm").proxy.get("/x", body=b"x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ProxyClient("https://app.example.com").get("/x")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
Reply("200")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
