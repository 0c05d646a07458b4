"""The credential cache as one caller sees it: what is kept, for how long, and for whom."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from types import MappingProxyType
from typing import Any

import pytest

from proxy_middleware import Connection, Credential
from proxy_middleware._single_flight import CredentialCache
from tests.script import CONNECTION, NEW, OLD


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, time: float) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time


class Provider:
    """Answers with what it is told to, and counts."""

    def __init__(self, answer: Any = OLD) -> None:
        self.answer = answer
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.answer


@pytest.fixture
def clock() -> Clock:
    """The monotonic clock."""
    return Clock(1000)


@pytest.fixture
def now() -> Clock:
    """Unix time."""
    return Clock(1_800_000_000)


@pytest.fixture
def cache(clock: Clock, now: Clock) -> CredentialCache:
    """A cache under these clocks."""
    return CredentialCache(clock=clock, now=now)


def numbered() -> Callable[[], Credential]:
    """A provider that never gives the same twice."""
    numbers = count()
    return lambda: Credential.bearer(str(next(numbers)))


def test_nothing_is_known_at_first(cache: CredentialCache) -> None:
    """What was never obtained is not there."""
    assert cache.get(CONNECTION) is None


def test_obtained_is_kept(cache: CredentialCache) -> None:
    """What was obtained is found by the same connection, and by an equal one."""
    assert cache.obtain(CONNECTION, Provider()) is OLD
    assert cache.get(CONNECTION) is OLD
    assert cache.get(replace(CONNECTION)) is OLD


def test_fresh_is_not_obtained_again(cache: CredentialCache) -> None:
    """Who asks although a fresh credential is there gets it without a call."""
    provider = Provider()
    assert [cache.obtain(CONNECTION, provider) for _ in range(3)] == [OLD, OLD, OLD]
    assert provider.calls == 1


def test_ttl(cache: CredentialCache, clock: Clock) -> None:
    """After 60 seconds the provider is asked again."""
    cache.obtain(CONNECTION, Provider())
    clock.time += 59.9
    assert cache.get(CONNECTION) is OLD
    clock.time += 0.1
    assert cache.get(CONNECTION) is None
    assert cache.obtain(CONNECTION, Provider(NEW)) is NEW


def test_about_to_expire_is_still_found(cache: CredentialCache, clock: Clock, now: Clock) -> None:
    """A credential is found, with its expiry, for as long as it lives, and not beyond."""
    credential = Credential.bearer("short", expires_at=now.time + 20)
    cache.obtain(CONNECTION, Provider(credential))
    for moving in (clock, now):
        moving.time += 19
    assert cache.get(CONNECTION) is credential
    for moving in (clock, now):
        moving.time += 1
    assert cache.get(CONNECTION) is None


def test_expired_is_kept_for_a_short_while(cache: CredentialCache, clock: Clock, now: Clock) -> None:
    """A provider that has nothing but an expired credential is not asked for every request."""
    expired = Credential.bearer("expired", expires_at=now.time - 1)
    assert cache.obtain(CONNECTION, Provider(expired)) is expired
    assert cache.get(CONNECTION) is expired
    clock.time += 5
    assert cache.get(CONNECTION) is None


def test_refreshed_is_kept(cache: CredentialCache, clock: Clock) -> None:
    """What a refresh gave replaces what was there, for as long as if it had been obtained."""
    cache.obtain(CONNECTION, Provider())
    clock.time += 59
    assert cache.refresh(CONNECTION, OLD, Provider(NEW)) is NEW
    clock.time += 59
    assert cache.get(CONNECTION) is NEW


def test_newer_than_the_rejected_is_used(cache: CredentialCache) -> None:
    """Who comes late with a rejected credential gets the newer one without a call."""
    provider = Provider(NEW)
    cache.obtain(CONNECTION, Provider())
    assert [cache.refresh(CONNECTION, OLD, provider) for _ in range(3)] == [NEW, NEW, NEW]
    assert provider.calls == 1


def test_other_than_the_rejected_but_expired(cache: CredentialCache, now: Clock) -> None:
    """What has expired is no answer to a rejection."""
    cache.obtain(CONNECTION, Provider(Credential.bearer("expired", expires_at=now.time - 1)))
    assert cache.refresh(CONNECTION, OLD, Provider(NEW)) is NEW


def test_refresh_of_what_was_never_cached(cache: CredentialCache) -> None:
    """A credential that the cache has never seen can be refreshed, and the newer one is kept."""
    assert cache.refresh(CONNECTION, OLD, Provider(NEW)) is NEW
    assert cache.get(CONNECTION) is NEW


def test_forget(cache: CredentialCache) -> None:
    """What is forgotten is obtained again; other connections stay."""
    other = Connection("d", CONNECTION.base_url)
    cache.obtain(CONNECTION, Provider())
    cache.obtain(other, Provider())
    cache.forget(CONNECTION.id)
    cache.forget("never seen")
    assert cache.get(CONNECTION) is None
    assert cache.get(other) is OLD


def test_capacity() -> None:
    """The connection learned first goes when there are too many; one refreshed since is none of the first."""

    class Small(CredentialCache):
        CAPACITY = 3

    cache = Small()
    connections = [Connection(str(number), CONNECTION.base_url) for number in range(4)]
    for connection in connections[:3]:
        cache.obtain(connection, Provider())
    cache.refresh(connections[0], OLD, Provider(NEW))
    cache.obtain(connections[3], Provider())
    assert [cache.get(connection) for connection in connections] == [NEW, None, OLD, OLD]
    assert CredentialCache.CAPACITY == 10_000


def test_failures_are_bounded_too() -> None:
    """Failures that are remembered count as connections."""

    class Small(CredentialCache):
        CAPACITY = 3

    cache = Small()
    for number in range(10):
        with pytest.raises(Exception, match="refreshed"):
            cache.refresh(Connection(str(number), CONNECTION.base_url), OLD, Provider(OLD))
    assert len(cache.by_id) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 2},
        {"attributes": {"tenant": "b"}},
        {"attributes": {}},
        {"base_url": "https://api.example.org"},
        {"integration_key": "crm"},
        {"integration_id": "7"},
    ],
    ids=str,
)
def test_other_facts(changes: dict[str, Any], cache: CredentialCache) -> None:
    """A connection of the same id that differs in what a credential depends on gets none of the other's."""
    connection = replace(CONNECTION, revision=1, attributes={"tenant": "a"})
    other = replace(connection, **changes)
    cache.obtain(connection, Provider())
    assert cache.get(other) is None
    assert cache.refresh(other, Credential.bearer("theirs"), Provider(NEW)) is NEW
    assert cache.get(connection) is None


def test_what_matters_to_the_request_alone(cache: CredentialCache) -> None:
    """Fields, restrictions and the like may differ; a credential does not depend on them."""
    cache.obtain(CONNECTION, Provider())
    assert cache.get(replace(CONNECTION, headers={"x-trace": "1"}, methods=["GET"], paths=["/a"])) is OLD


def test_attributes_of_any_mapping(cache: CredentialCache) -> None:
    """Attributes are compared by what they hold."""
    cache.obtain(replace(CONNECTION, attributes={"tenant": "a"}), Provider())
    assert cache.get(replace(CONNECTION, attributes=MappingProxyType({"tenant": "a"}))) is OLD


def test_attributes_that_are_changed_later(cache: CredentialCache) -> None:
    """A mapping that a resolver uses for one tenant after the other does not give one the other's credential."""
    shared = {"tenant": "a"}
    cache.obtain(replace(CONNECTION, attributes=shared), Provider())
    shared["tenant"] = "b"
    assert cache.get(replace(CONNECTION, attributes=shared)) is None


class Incomparable:
    """Refuses to be compared."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


def test_attributes_that_cannot_be_compared(cache: CredentialCache) -> None:
    """They are taken for different ones, and the connection itself still finds what was obtained for it."""
    connection = replace(CONNECTION, attributes={"array": Incomparable()})
    twin = replace(CONNECTION, attributes={"array": Incomparable()})
    provider = numbered()
    mine = cache.obtain(connection, provider)
    assert cache.get(connection) is mine
    assert cache.get(twin) is None
    theirs = cache.obtain(twin, provider)
    assert theirs != mine
    assert cache.get(connection) is None


def test_nothing_is_left_of_a_round(cache: CredentialCache) -> None:
    """Rounds vanish when they are done, however they ended."""
    cache.obtain(CONNECTION, Provider())
    cache.refresh(CONNECTION, OLD, Provider(NEW))
    with pytest.raises(Exception, match="refreshed"):
        cache.refresh(CONNECTION, NEW, Provider(NEW))
    assert cache._rounds == {}


@pytest.mark.parametrize(("life", "margin"), [(10, 5), (59, 29.5), (3600, 30), (0, -math.inf), (-60, -math.inf)])
def test_margin_of_a_refreshed_credential(life: float, margin: float, cache: CredentialCache, now: Clock) -> None:
    """What a refresh gave is not refreshed again before half of its life is over, or at once where it has none."""
    cache.refresh(CONNECTION, OLD, lambda: Credential.bearer("new", expires_at=now.time + life))
    assert cache.margin(CONNECTION, 30) == margin


def test_margin_of_an_obtained_credential(cache: CredentialCache, now: Clock) -> None:
    """How long an obtained credential has lived already is not known: the usual margin counts."""
    assert cache.margin(CONNECTION, 30) == 30
    cache.obtain(CONNECTION, lambda: Credential.bearer("old", expires_at=now.time + 10))
    assert cache.margin(CONNECTION, 30) == 30
