"""OAuth2 with many callers: threads, providers that stand for processes, leases, and a store that fails."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from proxy_middleware import Credential, RefreshFailed
from proxy_middleware.credentials import _token_endpoint
from proxy_middleware.credentials._client_auth import client_authentication, token_request
from proxy_middleware.credentials._rounds import Pace, Rounds
from proxy_middleware.credentials._vault import Vault
from proxy_middleware.credentials.oauth2 import OAuth2
from proxy_middleware.errors import StoreUnavailable
from proxy_middleware.models import Connection
from proxy_middleware.stores.protocol import Stored, Tokens
from tests.credentials.oauth2 import CONNECTION, LOOPBACK, FailingStore, connect, connected, provider, stored
from tests.token_endpoint import TokenEndpoint

SOON = 20.0


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint of this test's own."""
    with TokenEndpoint() as running:
        yield running


@pytest.fixture
def store() -> FailingStore:
    """A store that works until it is told otherwise."""
    return FailingStore()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for callers."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


def rounds(
    endpoint: TokenEndpoint, store: FailingStore, pace: Pace, transport: httpx.BaseTransport | None = None
) -> Rounds:
    """The rounds of a provider that is in a hurry."""
    egress = LOOPBACK if transport is None else None
    there = _token_endpoint.TokenEndpoint(endpoint.token_url, egress, None, transport)
    client = client_authentication(None, "client", "secret", None, endpoint.token_url)

    def prepare(_: Connection, tokens: Tokens) -> tuple[dict[str, str], str]:
        return token_request("refresh_token", there.url, {}, {"refresh_token": tokens.refresh_token}, client)

    return Rounds(Vault(store), there, prepare, spends=True, pace=pace)


def rejected(oauth2: OAuth2) -> Credential:
    """What the API has just rejected: the stored access token."""
    return Credential.bearer(stored(oauth2).tokens.access_token or "")


def until(condition: Callable[[], object]) -> None:
    """Waits for something that no event tells."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Many at once.


def test_many_callers_one_refresh(endpoint: TokenEndpoint, store: FailingStore, threads: ThreadPoolExecutor) -> None:
    """Callers in several processes that are rejected together cause one call, round after round."""
    processes = [provider(endpoint, store=store) for _ in range(4)]
    connect(endpoint, processes[0])
    for number in range(1, 6):
        old, start = rejected(processes[0]), threading.Barrier(16)

        def refresh(index: int, old: Credential = old, start: threading.Barrier = start) -> Credential:
            start.wait(SOON)
            return processes[index % 4].refresh(CONNECTION, old)

        given = list(threads.map(refresh, range(16)))
        assert given == [rejected(processes[0])] * 16
        assert old not in given
        assert endpoint.state()["token calls"] == number
    assert "reuses" not in endpoint.state()


def test_first_token_for_many(endpoint: TokenEndpoint, store: FailingStore, threads: ThreadPoolExecutor) -> None:
    """Callers who all miss the first token of a grant without a user cause one call."""
    processes = [provider(endpoint, store=store, grant="client_credentials") for _ in range(2)]
    given = list(threads.map(lambda index: processes[index % 2].obtain(CONNECTION), range(16)))
    assert given == [rejected(processes[0])] * 16
    assert endpoint.state()["token calls"] == 1


def test_connections_do_not_wait_for_each_other(endpoint: TokenEndpoint, threads: ThreadPoolExecutor) -> None:
    """A refresh that takes long holds up its own connection only."""
    oauth2, other = connected(endpoint), Connection("other", CONNECTION.base_url)
    given = endpoint.connect()
    oauth2.store.put(other.id, Tokens(given["access_token"], given["refresh_token"]))
    endpoint.misbehave("hold", times=1)
    slow = threads.submit(oauth2.refresh, CONNECTION, rejected(oauth2))
    endpoint.wait_for("token calls")
    old = Credential.bearer(given["access_token"])
    assert oauth2.refresh(other, old) != old
    assert not slow.done()
    endpoint.release()
    slow.result(SOON)


def held_by(endpoint: TokenEndpoint, holder: OAuth2, threads: ThreadPoolExecutor) -> Future[Credential]:
    """A refresh of another process, which waits for the endpoint."""
    endpoint.misbehave("hold", times=1)
    first = threads.submit(holder.refresh, CONNECTION, rejected(holder))
    endpoint.wait_for("token calls")
    return first


def test_waiting_for_another_process(endpoint: TokenEndpoint, store: FailingStore, threads: ThreadPoolExecutor) -> None:
    """Who finds the lease taken uses what its holder stores."""
    holder, waiter = (connected(endpoint, store=store) for _ in range(2))
    first = held_by(endpoint, holder, threads)
    second = threads.submit(waiter.refresh, CONNECTION, rejected(holder))
    until(lambda: store.calls.count("acquire") >= 3)
    endpoint.release()
    assert first.result(SOON) == second.result(SOON) == rejected(holder)
    assert endpoint.state()["token calls"] == 1


def test_grant_that_dies_meanwhile(endpoint: TokenEndpoint, store: FailingStore, threads: ThreadPoolExecutor) -> None:
    """Who waits for the lease asks no more once its holder has found the grant dead."""
    holder, waiter = (connected(endpoint, store=store) for _ in range(2))
    first = held_by(endpoint, holder, threads)
    second = threads.submit(waiter.refresh, CONNECTION, rejected(holder))
    until(lambda: store.calls.count("acquire") >= 3)
    endpoint.revoke()
    endpoint.release()
    for failed in (first, second):
        with pytest.raises(RefreshFailed, match="connected again"):
            failed.result(SOON)
    assert endpoint.state()["token calls"] == 1


def test_reconnected_meanwhile(endpoint: TokenEndpoint, threads: ThreadPoolExecutor) -> None:
    """Tokens that the host has put while the old ones were refreshed stay, and are given."""
    oauth2 = connected(endpoint)
    first = held_by(endpoint, oauth2, threads)
    mine = connect(endpoint, oauth2)
    endpoint.release()
    assert first.result(SOON) == Credential.bearer(mine.access_token or "")
    assert stored(oauth2).tokens == mine


# Leases.


def test_killed_holder(endpoint: TokenEndpoint, store: FailingStore) -> None:
    """A holder that was killed holds the others up only until its lease ends."""
    oauth2 = connected(endpoint, store=store)
    old = rejected(oauth2)
    assert store.acquire(CONNECTION.id, "killed", 0.3)
    assert oauth2.refresh(CONNECTION, old) != old
    assert endpoint.state()["token calls"] == 1


def test_holder_that_takes_too_long(endpoint: TokenEndpoint, store: FailingStore) -> None:
    """Who waits for the lease gives up at the deadline, without a call."""
    oauth2 = connected(endpoint, store=store)
    assert store.acquire(CONNECTION.id, "stuck", 60)
    with pytest.raises(RefreshFailed, match="too long"):
        rounds(endpoint, store, Pace(round=0.3)).run(CONNECTION, rejected(oauth2))
    assert "token calls" not in endpoint.state()
    assert not store.acquire(CONNECTION.id, "another", 1)


def test_slow_call_keeps_its_lease(endpoint: TokenEndpoint, store: FailingStore, threads: ThreadPoolExecutor) -> None:
    """The lease is renewed for as long as the call takes, and given back then."""
    oauth2 = connected(endpoint, store=store)
    old = rejected(oauth2)
    endpoint.misbehave("hold")
    slow = threads.submit(rounds(endpoint, store, Pace(lease=0.5, renewal=0.05)).run, CONNECTION, old)
    until(lambda: store.calls.count("renew") >= 15)
    assert not store.acquire(CONNECTION.id, "another", 1)
    endpoint.release()
    assert slow.result(SOON) == rejected(oauth2) != old
    assert store.acquire(CONNECTION.id, "another", 1)


def test_lost_lease(
    endpoint: TokenEndpoint, store: FailingStore, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease that is lost, or cannot be renewed, during the call is logged; the version decides on the result."""
    oauth2 = connected(endpoint, store=store)
    endpoint.misbehave("hold")
    slow = threads.submit(rounds(endpoint, store, Pace(lease=0.01, renewal=0.1)).run, CONNECTION, rejected(oauth2))
    until(lambda: "was lost" in caplog.text)
    store.down = {"renew"}
    until(lambda: "could not be renewed: StoreUnavailable" in caplog.text)
    endpoint.release()
    assert slow.result(SOON) == rejected(oauth2)


def test_silent_endpoint(endpoint: TokenEndpoint, store: FailingStore, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that never answers fails the refresh at the deadline; the lease is given back, nothing is dead."""
    oauth2 = connected(endpoint, store=store)
    endpoint.misbehave("hold")
    with pytest.raises(RefreshFailed):
        rounds(endpoint, store, Pace(round=0.4)).run(CONNECTION, rejected(oauth2))
    assert "no answer" in caplog.text
    assert not stored(oauth2).dead
    assert store.acquire(CONNECTION.id, "another", 1)


def test_lost_answer(endpoint: TokenEndpoint) -> None:
    """Where a rotated refresh token was lost on its way, the grant is found dead, and no reuse goes on for ever."""
    oauth2 = connected(endpoint)
    endpoint.misbehave("lose", times=1)
    for _ in range(4):
        with pytest.raises(RefreshFailed):
            oauth2.refresh(CONNECTION, rejected(oauth2))
    assert endpoint.state()["token calls"] == 2
    assert endpoint.state()["reuses"] == 1


# A store that fails.


def test_stored_before_it_is_used(endpoint: TokenEndpoint, store: FailingStore) -> None:
    """The record is looked at again under the lease, and the new tokens are saved before they are given."""
    oauth2 = connected(endpoint, store=store)
    old = rejected(oauth2)
    store.calls.clear()
    oauth2.refresh(CONNECTION, old)
    assert store.calls == ["load", "acquire", "load", "save", "release"]


@pytest.mark.parametrize("name", ["*", "load", "acquire"])
def test_store_down_before_the_call(endpoint: TokenEndpoint, store: FailingStore, name: str) -> None:
    """Without the store nothing is asked."""
    oauth2 = connected(endpoint, store=store)
    old = rejected(oauth2)
    store.down = {name}
    with pytest.raises(StoreUnavailable):
        oauth2.refresh(CONNECTION, old)
    assert "token calls" not in endpoint.state()


def test_store_that_fails_briefly(endpoint: TokenEndpoint, store: FailingStore, threads: ThreadPoolExecutor) -> None:
    """A store that fails after the call is asked again, and the refresh ends well."""
    oauth2 = connected(endpoint, store=store)
    store.down = {"save"}
    later = threads.submit(oauth2.refresh, CONNECTION, rejected(oauth2))
    until(lambda: store.calls.count("save") >= 2)
    assert not later.done()
    store.down = set()
    assert later.result(SOON) == rejected(oauth2)


def test_save_that_only_seems_to_fail(endpoint: TokenEndpoint, store: FailingStore) -> None:
    """A store that has saved but could not say so is found to hold the new tokens."""
    oauth2 = connected(endpoint, store=store)
    old, store.forgetful, store.down = rejected(oauth2), True, {"save"}
    threading.Timer(0.3, store.down.clear).start()
    newer = oauth2.refresh(CONNECTION, old)
    assert newer == rejected(oauth2) != old


def test_store_down_after_the_call(
    endpoint: TokenEndpoint, store: FailingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """New tokens that the store does not take are used from memory, and stored by themselves once it is back."""
    caplog.set_level(logging.DEBUG)
    oauth2 = connected(endpoint, store=store)
    old = rejected(oauth2)
    store.down = {"save"}
    newer = oauth2.refresh(CONNECTION, old)
    assert rejected(oauth2) == old != newer
    assert "could not be stored (StoreUnavailable)" in caplog.text
    store.down = {"*"}
    assert oauth2.obtain(CONNECTION) == oauth2.refresh(CONNECTION, old) == newer
    with pytest.raises(StoreUnavailable):
        oauth2.refresh(CONNECTION, newer)
    assert endpoint.state()["token calls"] == 1
    store.down = set()
    until(lambda: rejected(oauth2) == newer)
    assert oauth2.refresh(CONNECTION, newer) == rejected(oauth2) != newer
    assert "reuses" not in endpoint.state()
    assert "access-" not in caplog.text
    assert "refresh-" not in caplog.text


NEW = Tokens("new", "next")


@pytest.fixture
def vault(store: FailingStore) -> Vault:
    """Has tokens that its store would not take."""
    store.put(CONNECTION.id, Tokens("old", "spent"))
    store.down = {"save"}
    keeping = Vault(store)
    assert keeping.save(CONNECTION.id, NEW, 1, until=0)
    kept = keeping.load(CONNECTION.id)
    assert kept is not None
    assert kept.tokens == NEW
    return keeping


def test_kept_tokens_are_stored_at_the_next_chance(vault: Vault, store: FailingStore) -> None:
    """The next look stores what is kept before it does anything else."""
    store.down = set()
    assert vault.load(CONNECTION.id) == store.load(CONNECTION.id)
    assert store.load(CONNECTION.id) == Stored(NEW, 2)


def test_kept_tokens_are_stored_by_themselves(vault: Vault, store: FailingStore) -> None:
    """What is kept is stored without anybody asking."""
    store.down = set()
    until(lambda: store.load(CONNECTION.id) == Stored(NEW, 2))


def test_kept_tokens_give_way(vault: Vault, store: FailingStore, caplog: pytest.LogCaptureFixture) -> None:
    """What the host has stored meanwhile counts more than what is kept."""
    store.put(CONNECTION.id, Tokens("mine"))
    store.down = set()
    assert vault.load(CONNECTION.id) == store.load(CONNECTION.id) == Stored(Tokens("mine"), 2)
    assert "are outdated" in caplog.text


def test_kept_tokens_of_a_deleted_connection(vault: Vault, store: FailingStore) -> None:
    """A connection that the host has deleted meanwhile stays deleted."""
    store.delete(CONNECTION.id)
    store.down = set()
    assert vault.load(CONNECTION.id) is None


def test_kept_tokens_revive_a_dead_grant(vault: Vault, store: FailingStore) -> None:
    """A grant that another process found dead, with the spent refresh token, lives again."""
    store.mark_dead(CONNECTION.id, 1)
    store.down = set()
    assert vault.load(CONNECTION.id) == Stored(NEW, 2, dead=False)


def test_lease_that_cannot_be_released(
    endpoint: TokenEndpoint, store: FailingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease that cannot be given back is logged, and changes nothing about the result."""
    oauth2 = connected(endpoint, store=store)
    store.down = {"release"}
    assert oauth2.refresh(CONNECTION, rejected(oauth2)) == rejected(oauth2)
    assert "could not be released: StoreUnavailable" in caplog.text
