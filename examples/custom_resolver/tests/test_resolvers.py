"""Both resolvers: which connection a selector names, for whom."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tenant_connections import AsyncSQLResolver, Caller, SQLResolver

from proxy_middleware import AmbiguousSelector, Connection, ConnectionNotFound, ProxyRequest

Ask = Callable[[str, str], Connection]


def asked(selector: str, tenant: Any) -> ProxyRequest:
    """A request of somebody of this tenant."""
    return ProxyRequest("GET", selector, b"/", (), caller=Caller("somebody", tenant))


def blocking(path: Path) -> Ask:
    """Asks the resolver that blocks."""
    resolver = SQLResolver(f"sqlite:///{path}")
    return lambda selector, tenant: resolver.resolve(selector, asked(selector, tenant))


def on_loops(path: Path) -> Ask:
    """Asks the asynchronous resolver, each time on another event loop."""
    resolver = AsyncSQLResolver(f"sqlite+aiosqlite:///{path}")
    return lambda selector, tenant: asyncio.run(resolver.resolve(selector, asked(selector, tenant)))


@pytest.fixture(params=[blocking, on_loops])
def ask(request: pytest.FixtureRequest, database: Path) -> Ask:
    """Asks one of them."""
    chosen: Ask = request.param(database)
    return chosen


@pytest.mark.parametrize(
    ("selector", "tenant", "found"),
    [
        ("a-crm", "acme", "a-crm"),
        ("crm", "acme", "a-crm"),
        ("crm", "umbrella", "u-crm"),
        ("int-1", "umbrella", "u-crm"),
        ("int-1", "acme", "int-1"),  # also somebody's integration id, but an id comes first
    ],
)
def test_found(ask: Ask, selector: str, tenant: str, found: str) -> None:
    """An id comes first, then the key or integration id that one connection of the tenant has."""
    connection = ask(selector, tenant)
    assert (connection.id, connection.base_url, connection.revision) == (found, f"https://{found}.example.com", 1)


@pytest.mark.parametrize(
    ("selector", "tenant"),
    [
        ("a-crm", "umbrella"),
        ("u-crm", "acme"),
        ("mail", "umbrella"),
        ("nothing", "acme"),
        ("crm", "nobody"),
        ("%", "acme"),
    ],
)
def test_unknown_and_foreign(ask: Ask, selector: str, tenant: str) -> None:
    """What another tenant has is as unknown as what nobody has."""
    with pytest.raises(ConnectionNotFound) as caught:
        ask(selector, tenant)
    assert str(caught.value) == str(ConnectionNotFound())


@pytest.mark.parametrize("selector", ["mail", "int-2", "chat"])
def test_ambiguous(ask: Ask, selector: str) -> None:
    """A key, an integration id, or both together, that more than one connection of the tenant has."""
    with pytest.raises(AmbiguousSelector):
        ask(selector, "acme")


@pytest.mark.parametrize("tenant", ["", None, 7])
def test_caller_without_tenant(ask: Ask, tenant: Any) -> None:
    """A caller without a tenant is a mistake of the application, and finds nothing."""
    with pytest.raises(TypeError, match="without a tenant"):
        ask("crm", tenant)
