"""`StaticResolver` and `StaticCredentials`."""

import asyncio
import time

import pytest

from proxy_middleware import (
    AmbiguousSelector,
    Connection,
    ConnectionNotFound,
    Credential,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
)
from proxy_middleware._plugins import for_asgi
from proxy_middleware.errors import CredentialUnavailable
from tests.in_process import Call, proxy_to
from tests.upstreams import ScriptedUpstream, response

REQUEST = ProxyRequest("GET", "c", b"/", ())


def connection(name: str, key: str | None = None, integration_id: str | None = None) -> Connection:
    """A connection of this id, key and integration id."""
    return Connection(name, "https://api.example.com", integration_key=key, integration_id=integration_id)


def found(resolver: StaticResolver, selector: str) -> str:
    """The id of the connection that a selector names."""
    return resolver.resolve(selector, REQUEST).id


def test_selectors() -> None:
    """A selector is an id, or an integration key or id that exactly one connection has."""
    resolver = StaticResolver([connection("a", "hubspot", "int-1"), connection("b", "slack", "int-2"), connection("c")])
    assert [found(resolver, selector) for selector in ("a", "hubspot", "int-1")] == ["a", "a", "a"]
    assert [found(resolver, selector) for selector in ("b", "slack", "int-2", "c")] == ["b", "b", "b", "c"]


def test_the_very_connection_is_returned() -> None:
    """What is found is the object that was handed in."""
    one = connection("a")
    assert StaticResolver([one]).resolve("a", REQUEST) is one


def test_id_comes_first() -> None:
    """An id beats the integration keys that are spelled like it."""
    resolver = StaticResolver([connection("a", "b"), connection("b", "b"), connection("c", "a")])
    assert (found(resolver, "a"), found(resolver, "b")) == ("a", "b")


@pytest.mark.parametrize("selector", ["x", "", "A", "None", "hubspot "])
def test_unknown_selector(selector: str) -> None:
    """What names nothing is not found; a missing key is no key."""
    with pytest.raises(ConnectionNotFound):
        StaticResolver([connection("a", "hubspot"), connection("b")]).resolve(selector, REQUEST)


@pytest.mark.parametrize(
    "pair",
    [
        [connection("a", "dup"), connection("b", "dup")],
        [connection("a", None, "dup"), connection("b", None, "dup")],
        [connection("a", "dup"), connection("b", None, "dup")],
    ],
)
def test_ambiguous_selector(pair: list[Connection]) -> None:
    """A key or integration id of more than one connection is ambiguous, ids are not."""
    resolver = StaticResolver(pair)
    with pytest.raises(AmbiguousSelector):
        resolver.resolve("dup", REQUEST)
    assert (found(resolver, "a"), found(resolver, "b")) == ("a", "b")


def test_key_and_integration_id_may_be_the_same() -> None:
    """One connection with the same key and integration id is not ambiguous with itself."""
    assert found(StaticResolver([connection("a", "same", "same")]), "same") == "a"


def test_ids_are_unique() -> None:
    """Two connections with one id are a mistake, seen at construction."""
    with pytest.raises(ValueError, match="'a'"):
        StaticResolver([connection("a"), connection("b"), connection("a")])


def test_resolver_takes_any_iterable_and_needs_no_thread() -> None:
    """Connections may come from a generator; looking them up never blocks."""
    resolver = StaticResolver(connection(name) for name in "ab")
    assert found(resolver, "b") == "b"
    assert for_asgi(resolver.resolve) == resolver.resolve


def test_many_connections() -> None:
    """100,000 connections are looked up as fast as ten; a scan would take a thousand times as long."""
    many = StaticResolver(connection(f"id-{number}", f"key-{number}") for number in range(100_000))
    few = StaticResolver(connection(f"id-{number}", f"key-{number}") for number in range(10))
    assert seconds_for_look_ups(many, 99_990) < 20 * seconds_for_look_ups(few, 0) + 0.05


def seconds_for_look_ups(resolver: StaticResolver, start: int) -> float:
    """How long 1,000 look-ups by id and by key take, at best."""
    selectors = [f"{kind}-{start + number}" for number in range(10) for kind in ("id", "key")]
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(50):
            for selector in selectors:
                resolver.resolve(selector, REQUEST)
        best = min(best, time.perf_counter() - started)
    return best


# StaticCredentials


class Provider:
    """A provider that is empty in the eyes of `bool()`, as one derived from dict may be."""

    def obtain(self, connection: Connection) -> Credential:
        """A token made of the connection's id."""
        return Credential.bearer(connection.id)

    def __len__(self) -> int:
        return 0


def test_credentials_by_id_then_key() -> None:
    """The entry of the id beats that of the integration key."""
    by_id, by_key = Credential.bearer("id"), Credential.bearer("key")
    credentials = StaticCredentials({"a": by_id, "hubspot": by_key})
    assert credentials.obtain(connection("a", "hubspot")) is by_id
    assert credentials.obtain(connection("b", "hubspot")) is by_key


@pytest.mark.parametrize("other", [connection("b"), connection("b", "slack"), connection("b", None, "hubspot")])
def test_no_credential(other: Connection) -> None:
    """A connection without an entry has no usable credential."""
    with pytest.raises(CredentialUnavailable):
        StaticCredentials({"a": Credential.bearer("t"), "hubspot": Credential.bearer("u")}).obtain(other)


def test_entry_may_be_a_provider() -> None:
    """A provider among the entries is asked, whatever its truth value."""
    assert StaticCredentials({"a": Provider()}).obtain(connection("a")) == Credential.bearer("a")


def test_entries_are_checked() -> None:
    """What is neither a credential nor a provider is a TypeError that does not show it."""
    with pytest.raises(TypeError, match="'a'") as caught:
        StaticCredentials({"a": "s3cret"})  # type: ignore[dict-item]
    assert "s3cret" not in str(caught.value)


class Renewing:
    """A provider whose first token is rejected."""

    def obtain(self, connection: Connection) -> Credential:
        """The old token."""
        return Credential.bearer("old")

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The new token."""
        return Credential.bearer("new")


class Derived(StaticCredentials):
    """A class of the application's own."""


@pytest.mark.parametrize(
    "credentials",
    [
        StaticCredentials({"crm": Renewing()}),
        StaticCredentials({"crm": StaticCredentials({"crm": Renewing()})}),
        Derived({"crm": Renewing()}),
        Derived({"crm": StaticCredentials({"crm": Derived({"crm": Renewing()})})}),
    ],
    ids=["plain", "nested", "derived", "both"],
)
def test_providers_among_the_entries_refresh(credentials: StaticCredentials, upstream: ScriptedUpstream) -> None:
    """A provider is refreshed through however many StaticCredentials, and classes derived from it."""
    upstream.answer(response(401), response(200))

    async def main() -> list[int]:
        proxy = proxy_to(upstream, credentials=credentials)
        call = await Call().through(proxy)
        await proxy.aclose()
        return call.statuses

    assert asyncio.run(main()) == [200]
    assert [each.header(b"authorization") for each in upstream.requests] == [b"Bearer old", b"Bearer new"]
