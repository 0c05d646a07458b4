"""OAuth2 where something comes late, or must not be kept: leases, answers, spent refresh tokens, what is no JSON."""

import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from proxy_middleware import Credential, RefreshFailed
from proxy_middleware.credentials._rounds import Pace
from proxy_middleware.stores.protocol import Tokens
from tests.credentials.oauth2 import CONNECTION, FailingStore, connected, provider, stored
from tests.credentials.test_oauth2_rounds import SOON, rejected, rounds, until
from tests.token_endpoint import TokenEndpoint

CANARY = "s3cret-canary"


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint of this test's own."""
    with TokenEndpoint() as running:
        yield running


class SlowStore(FailingStore):
    """A store that takes its time to grant a lease."""

    def acquire(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        time.sleep(0.3)
        return super().acquire(connection_id, owner, seconds)


class HeldTransport(httpx.HTTPTransport):
    """A transport that knows no time-out, and has its answer only when it is let go."""

    def __init__(self) -> None:
        super().__init__(trust_env=False)
        self.let_go = threading.Event()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {}
        response = super().handle_request(request)
        assert self.let_go.wait(SOON)
        return response


def test_late_lease(endpoint: TokenEndpoint) -> None:
    """Who could have the lease only when little time is left does not wait for it, and asks nothing."""
    store = FailingStore()
    oauth2 = connected(endpoint, store=store)
    assert store.acquire(CONNECTION.id, "another", 5)
    with pytest.raises(RefreshFailed, match="too long"):
        rounds(endpoint, store, Pace(round=SOON, waiting=0.2)).run(CONNECTION, rejected(oauth2))
    assert "token calls" not in endpoint.state()


def test_lease_of_a_slow_store(endpoint: TokenEndpoint) -> None:
    """Who got the lease late asks nothing, and gives it back."""
    store = SlowStore()
    oauth2 = connected(endpoint, store=store)
    with pytest.raises(RefreshFailed, match="too slow"):
        rounds(endpoint, store, Pace(round=SOON, waiting=0.1)).run(CONNECTION, rejected(oauth2))
    assert "token calls" not in endpoint.state()
    assert store.acquire(CONNECTION.id, "another", 1)


def test_late_answer(endpoint: TokenEndpoint) -> None:
    """A call that outlasts its round keeps the lease, and the tokens that it brings in the end are stored."""
    store = FailingStore()
    oauth2 = connected(endpoint, store=store)
    old = rejected(oauth2)
    with HeldTransport() as transport:
        with pytest.raises(RefreshFailed):
            rounds(endpoint, store, Pace(round=0.3, lease=60), transport).run(CONNECTION, old)
        assert not store.acquire(CONNECTION.id, "another", 1)
        assert rejected(oauth2) == old
        transport.let_go.set()
        until(lambda: rejected(oauth2) != old)
    assert endpoint.accepts(stored(oauth2).tokens.access_token or "")


def test_spent_token_that_is_stored_meanwhile(endpoint: TokenEndpoint) -> None:
    """Tokens that the store takes only while their refresh token is spent give way to those that come of it."""
    store = FailingStore()
    oauth2 = connected(endpoint, store=store)
    process = rounds(endpoint, store, Pace(save=0))
    store.down = {"save"}
    unsaved = process.run(CONNECTION, rejected(oauth2))
    endpoint.misbehave("late", times=1)
    with ThreadPoolExecutor(1) as threads:
        later = threads.submit(process.run, CONNECTION, unsaved)
        endpoint.wait_for("token answers", 2)
        store.down = set()
        until(lambda: rejected(oauth2) == unsaved)
        endpoint.release()
        newer = later.result(SOON)
    assert newer == rejected(oauth2) != unsaved
    assert process.run(CONNECTION, newer) == rejected(oauth2) != newer
    assert "reuses" not in endpoint.state()


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_members_that_are_no_json(endpoint: TokenEndpoint, number: str) -> None:
    """A number that JSON does not have becomes null where it is kept, and the tokens beside it are stored."""
    oauth2 = provider(endpoint)
    oauth2.store.put(CONNECTION.id, Tokens("old", "spent", extra={"quota": 1.5, "team": "a"}))
    body = f'{{"access_token": "new", "refresh_token": "next", "quota": {number}, "team": "b"}}'
    endpoint.misbehave("answer", times=1, status=200, body=body)
    assert oauth2.refresh(CONNECTION, rejected(oauth2)) == Credential.bearer("new")
    assert stored(oauth2).tokens == Tokens("new", "next", extra={"quota": None, "team": "b"})


@pytest.mark.parametrize(
    "wrong", [{"body": '{"error": "invalid_grant"}', "status": 400}, {"status": 500}], ids=["refused", "outage"]
)
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_no_secrets_in_frames(endpoint: TokenEndpoint, method: str, wrong: dict[str, Any]) -> None:
    """No variable of a frame that a failed refresh leaves behind shows a token, or what the client is known by."""
    oauth2 = provider(endpoint, secret=f"{CANARY}-client", client_auth=method)
    oauth2.store.put(CONNECTION.id, Tokens(f"{CANARY}-access", f"{CANARY}-refresh"))
    endpoint.misbehave("answer", **wrong)
    with pytest.raises(RefreshFailed) as caught:
        oauth2.refresh(CONNECTION, Credential.bearer(f"{CANARY}-access"))
    error = caught.value
    assert error.__traceback__ is not None
    # Without the first frame, which is this test's.
    shown = traceback.TracebackException(type(error), error, error.__traceback__.tb_next, capture_locals=True)
    text = "".join(shown.format())
    assert "deadline = " in text
    for secret in (CANARY, "Basic "):
        assert secret not in text
