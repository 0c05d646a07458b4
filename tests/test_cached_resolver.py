"""`CachedResolver`: what is kept, for whom and for how long, and what it is like in both doors."""

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import anyio
import pytest

import proxy_middleware.resolvers
from proxy_middleware import (
    AccessDenied,
    AmbiguousSelector,
    Connection,
    ConnectionNotFound,
    Credential,
    Proxy,
    ProxyRequest,
    StaticResolver,
    bearer_tokens,
)
from proxy_middleware._plugins import asettled, for_asgi, settled
from proxy_middleware.resolvers import CachedResolver
from tests.callers import call, request
from tests.in_process import host, proxy_to
from tests.plugins import COLOURS, KINDS, Function
from tests.servers import serve_asgi, serve_wsgi
from tests.test_single_flight import Clock
from tests.upstreams import ScriptedUpstream
from tests.wire import Address

TTL = 30.0


class Records:
    """A resolver over records by tenant and selector, which counts how often it is asked."""

    def __init__(self, *names: tuple[str, str]) -> None:
        self.records = {name: Connection(f"{name[0]}-{name[1]}", "https://api.example.com") for name in names}
        self.calls = 0

    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The record."""
        self.calls += 1
        try:
            return self.records[request.caller, selector]
        except KeyError:
            raise ConnectionNotFound from None


class Calling:
    """A resolver made of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.resolve = function


def by_tenant(selector: str, request: ProxyRequest) -> tuple[str, str]:
    """The key that belongs to these records."""
    return request.caller, selector


def asked(caller: str = "acme", colour: str = "wsgi") -> ProxyRequest:
    """A caller's request, as it is in the door of this colour."""
    door: dict[str, Any] = {"environ": {}} if colour == "wsgi" else {"scope": {}}
    return ProxyRequest("GET", "crm", b"/", (), caller=caller, **door)


def find(cached: CachedResolver, caller: str = "acme", selector: str = "crm", *, colour: str = "wsgi") -> Any:
    """What is found in this colour."""

    async def main() -> Any:
        return await asettled(cached.resolve(selector, asked(caller, colour)))

    if colour == "wsgi":
        return settled(cached.resolve(selector, asked(caller)))
    return anyio.run(main, backend=colour)


# What is kept


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", KINDS)
def test_asked_once(kind: Callable[[Function], Function], colour: str) -> None:
    """A resolver of any kind is asked once; from then on the connection is given at once, and is the same object."""
    records = Records(("acme", "crm"))
    cached = CachedResolver(Calling(kind(records.resolve)), TTL, by_tenant)
    found = find(cached, colour=colour)
    assert found is records.records["acme", "crm"]
    assert cached.resolve("crm", asked(colour=colour)) is found
    assert records.calls == 1


@pytest.mark.parametrize("colour", COLOURS)
def test_tenants_are_apart(colour: str) -> None:
    """With the caller in the key, the same selector leads each tenant to their own connection, or to none."""
    cached = CachedResolver(Records(("acme", "crm"), ("umbrella", "crm")), TTL, by_tenant)
    for _ in range(2):
        assert [find(cached, tenant, colour=colour).id for tenant in ("acme", "umbrella")] == [
            "acme-crm",
            "umbrella-crm",
        ]
        with pytest.raises(ConnectionNotFound):
            find(cached, "initech", colour=colour)


def test_kept_for_so_many_seconds() -> None:
    """A connection counts for `ttl` seconds from when it was asked for, and then the resolver is asked again."""
    clock, records = Clock(100.0), Records(("acme", "crm"))

    def slowly(selector: str, request: ProxyRequest) -> Connection:
        clock.time += 10
        return records.resolve(selector, request)

    cached = CachedResolver(Calling(slowly), TTL, by_tenant, clock=clock)
    find(cached)
    for time, calls in [(129.9, 1), (130.0, 2), (169.9, 3)]:
        clock.time = time
        find(cached)
        assert records.calls == calls


@pytest.mark.parametrize("colour", COLOURS)
def test_no_key(colour: str) -> None:
    """What has None for a key is not kept."""
    records = Records(("acme", "crm"))
    cached = CachedResolver(records, TTL, lambda selector, request: None)
    assert [find(cached, colour=colour).id for _ in range(3)] == ["acme-crm"] * 3
    assert records.calls == 3


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("error", [ConnectionNotFound, AmbiguousSelector, AccessDenied, OSError])
def test_errors_are_not_kept(error: type[Exception], colour: str) -> None:
    """Whatever the resolver raises is raised, and asked for again: a new connection is found at once."""
    connection = Connection("new", "https://api.example.com")
    answers: list[Connection | Exception] = [error(), error(), connection]

    def resolve(selector: str, request: ProxyRequest) -> Connection:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cached = CachedResolver(Calling(resolve), TTL, by_tenant)
    for _ in range(2):
        with pytest.raises(error):
            find(cached, colour=colour)
    assert [find(cached, colour=colour) for _ in range(2)] == [connection] * 2


def test_least_recently_used_goes_first() -> None:
    """Of more keys than there is room for, the one that was not asked for the longest is dropped."""
    records = Records(("acme", "a"), ("acme", "b"), ("acme", "c"))
    cached = CachedResolver(records, TTL, by_tenant, capacity=2)
    for selector in ("a", "b", "a", "c"):  # b goes
        find(cached, selector=selector)
    assert records.calls == 3
    for selector in ("a", "c"):
        find(cached, selector=selector)
    assert records.calls == 3
    find(cached, selector="b")
    assert records.calls == 4


def test_forget() -> None:
    """A key that is forgotten is asked for again, and no other; a key that is not there may be forgotten."""
    records = Records(("acme", "crm"), ("umbrella", "crm"))
    cached = CachedResolver(records, TTL, by_tenant)
    for tenant in ("acme", "umbrella"):
        find(cached, tenant)
    records.records["acme", "crm"] = moved = Connection("acme-crm", "https://moved.example.com")
    cached.forget(("acme", "crm"))
    cached.forget("nothing")
    assert find(cached) is moved
    find(cached, "umbrella")
    assert records.calls == 3


def test_clear() -> None:
    """All of it can be forgotten."""
    records = Records(("acme", "crm"), ("umbrella", "crm"))
    cached = CachedResolver(records, TTL, by_tenant)
    for _ in range(2):
        for tenant in ("acme", "umbrella"):
            find(cached, tenant)
        cached.clear()
    assert records.calls == 4


def test_one_around_another() -> None:
    """A cached resolver is a resolver, which may be cached."""
    records = Records(("acme", "crm"))
    cached = CachedResolver(CachedResolver(records, TTL, by_tenant), TTL, by_tenant)
    for colour in COLOURS:
        assert find(cached, colour=colour).id == "acme-crm"
        cached.clear()
    assert records.calls == 1


# Mistakes


@pytest.mark.parametrize("colour", COLOURS)
def test_key_that_is_not_hashable(colour: str) -> None:
    """A key that cannot be one is a TypeError that says so, and does not show it."""
    cached = CachedResolver(Records(), TTL, lambda selector, request: ["s3cret"])  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="key gave a list, which is not hashable") as caught:
        find(cached, colour=colour)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("colour", COLOURS)
def test_resolver_that_gives_something_else(colour: str) -> None:
    """What is no Connection is a TypeError, and not kept."""
    answers: list[Any] = [None, Connection("c", "https://api.example.com")]
    cached = CachedResolver(Calling(lambda selector, request: answers.pop(0)), TTL, by_tenant)
    with pytest.raises(TypeError, match="NoneType, not Connection"):
        find(cached, colour=colour)
    assert find(cached, colour=colour).id == "c"


async def later(selector: str, request: ProxyRequest) -> str:
    """A key function that cannot be used."""
    return selector


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"resolver": object()}, TypeError, "`resolve`"),
        ({"key": None}, TypeError, "includes the caller"),
        ({"key": later}, TypeError, "plain function"),
        ({"ttl": 0}, ValueError, "ttl"),
        ({"ttl": -1}, ValueError, "ttl"),
        ({"ttl": float("nan")}, ValueError, "ttl"),
        ({"capacity": 0}, ValueError, "capacity"),
    ],
)
def test_arguments_are_checked(given: dict[str, Any], error: type[Exception], match: str) -> None:
    """What cannot work is an error at construction."""
    usual: dict[str, Any] = {"resolver": Records(), "ttl": TTL, "key": by_tenant}
    with pytest.raises(error, match=match):
        CachedResolver(**usual | given)


def test_key_is_required() -> None:
    """There is no default for the key: it is the caller's tenancy."""
    with pytest.raises(TypeError, match="key"):
        CachedResolver(Records(), TTL)  # type: ignore[call-arg]


def test_module_has_no_other_names() -> None:
    """A name that the module of resolvers does not have is an AttributeError."""
    with pytest.raises(AttributeError, match="Cached"):
        proxy_middleware.resolvers.Cached  # noqa: B018


# In the doors


def test_needs_no_thread() -> None:
    """The ASGI door calls it in place, whatever the resolver, and a resolver that blocks in a worker thread."""
    threads: list[int] = []

    def resolve(selector: str, request: ProxyRequest) -> Connection:
        threads.append(threading.get_ident())
        return Connection("c", "https://api.example.com")

    for resolver, apart in ((Calling(resolve), True), (Calling(KINDS[2](resolve)), False)):
        for key in (by_tenant, lambda selector, request: None):
            cached = CachedResolver(resolver, TTL, key)
            assert for_asgi(cached.resolve) == cached.resolve
            find(cached, colour="asyncio")
            assert (threads.pop() != threading.get_ident()) is apart


def test_request_without_a_door() -> None:
    """A request that belongs to no door is resolved on the loop that runs, or, where none does, in the thread."""
    threads: list[int] = []

    async def resolve(selector: str, request: ProxyRequest) -> Connection:
        threads.append(threading.get_ident())
        return Connection("c", "https://api.example.com")

    async def main() -> Any:
        return await asettled(cached.resolve("crm", bare))

    bare, cached = ProxyRequest("GET", "crm", b"/", (), caller="acme"), CachedResolver(Calling(resolve), TTL, by_tenant)
    assert anyio.run(main).id == "c"
    assert threads == [threading.get_ident()]
    cached.clear()
    assert isinstance(cached.resolve("crm", bare), Connection)


Serve = Callable[[Proxy], AbstractContextManager[Address]]


@pytest.mark.parametrize(
    "serve",
    [lambda proxy: serve_asgi(proxy.asgi(host)), lambda proxy: serve_wsgi(proxy.wsgi(lambda *_: []))],
    ids=["asgi", "wsgi"],
)
@pytest.mark.parametrize("kind", KINDS[:3])
def test_behind_a_door(kind: Callable[[Function], Function], serve: Serve, upstream: ScriptedUpstream) -> None:
    """Requests that come over a socket are forwarded with what is known, each tenant's with their own credential."""
    records, credential = Records(), Credential.bearer("secret")
    records.records = {(tenant, "crm"): Connection(f"{tenant}-crm", f"{upstream.url}/{tenant}") for tenant in "ab"}
    callers = bearer_tokens({f"{tenant}-token": tenant for tenant in "abc"})
    cached = CachedResolver(Calling(kind(records.resolve)), TTL, by_tenant)

    class Provider:
        def obtain(self, connection: Connection) -> Credential:
            return credential

    proxy = proxy_to(upstream, resolver=cached, credentials=Provider(), authenticate=callers)
    with serve(proxy) as address:

        def get(tenant: str) -> int:
            token = [("Authorization", f"Bearer {tenant}-token")]
            return call(address, request("GET", "/connections/crm/proxy/x", token)).status

        assert [get(tenant) for tenant in "abcabc"] == [200, 200, 404] * 2
    proxy.close()
    assert [seen.target for seen in upstream.requests] == [b"/a/x", b"/b/x"] * 2
    assert records.calls == 4


def test_static_resolver_may_be_cached() -> None:
    """One that needs no cache is no worse for it."""
    connection = Connection("crm", "https://api.example.com")
    cached = CachedResolver(StaticResolver([connection]), float("inf"), lambda selector, request: selector)
    assert [find(cached, colour=colour) for colour in COLOURS] == [connection] * 3


def test_trio_that_is_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread resolves while another one is in the middle of importing trio."""
    for name in ("trio", "trio.lowlevel"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    kept = CachedResolver(StaticResolver([Connection("crm", "https://api.example.com")]), TTL, lambda name, _: name)
    assert settled(kept.resolve("crm", ProxyRequest("GET", "crm", b"", [], None, "alice"))).id == "crm"
