"""OAuth2 with one caller at a time: what is obtained, what a refresh does, what failures do."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxy_middleware import Connection, Credential, EgressPolicy, RefreshFailed
from proxy_middleware.credentials.oauth2 import OAuth2
from proxy_middleware.errors import CredentialUnavailable
from proxy_middleware.stores.protocol import Tokens
from tests.credentials.oauth2 import CONNECTION, connect, connected, provider, stored
from tests.token_endpoint import TokenEndpoint


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint of this test's own."""
    with TokenEndpoint() as running:
        yield running


def current(oauth2: OAuth2) -> Credential:
    """The stored access token as a credential."""
    access_token = stored(oauth2).tokens.access_token
    assert access_token is not None
    return Credential.bearer(access_token)


# Obtaining.


def test_nothing_stored(endpoint: TokenEndpoint) -> None:
    """An account that was never connected has no credential, and nobody is asked."""
    with pytest.raises(CredentialUnavailable, match="not been connected"):
        provider(endpoint).obtain(CONNECTION)
    with pytest.raises(RefreshFailed, match="not been connected"):
        provider(endpoint).refresh(CONNECTION, Credential.bearer("old"))
    assert endpoint.state() == {}


@pytest.mark.parametrize("life", [None, 3600, -10])
def test_stored_token(endpoint: TokenEndpoint, life: float | None) -> None:
    """A stored access token is given with its expiry, even when that has passed."""
    oauth2 = provider(endpoint)
    expires_at = None if life is None else time.time() + life
    oauth2.store.put(CONNECTION.id, Tokens("known", "refresh", expires_at))
    found = oauth2.obtain(CONNECTION)
    assert found == Credential.bearer("known")
    assert found.expires_at == expires_at
    assert endpoint.state() == {}


def test_only_a_refresh_token(endpoint: TokenEndpoint) -> None:
    """Where only a refresh token is stored, the first use asks for an access token."""
    oauth2 = provider(endpoint)
    oauth2.store.put(CONNECTION.id, Tokens(refresh_token=endpoint.connect()["refresh_token"]))
    assert oauth2.obtain(CONNECTION) == current(oauth2)
    assert endpoint.accepts(stored(oauth2).tokens.access_token or "")
    assert endpoint.state()["token calls"] == 1


def test_connections_are_kept_apart(endpoint: TokenEndpoint) -> None:
    """One provider serves several connections, each with its own tokens."""
    oauth2, other = provider(endpoint), Connection("other", CONNECTION.base_url)
    oauth2.store.put(CONNECTION.id, Tokens("first"))
    oauth2.store.put(other.id, Tokens("second"))
    assert oauth2.obtain(CONNECTION) == Credential.bearer("first")
    assert oauth2.obtain(other) == Credential.bearer("second")


# Refreshing.


def test_refresh_rotates(endpoint: TokenEndpoint) -> None:
    """A refresh stores both new tokens, and gives an access token that the API accepts."""
    oauth2 = connected(endpoint)
    old, began = stored(oauth2).tokens, time.time()
    newer = oauth2.refresh(CONNECTION, current(oauth2))
    new = stored(oauth2).tokens
    assert newer == current(oauth2)
    assert endpoint.accepts(new.access_token or "")
    assert new.access_token != old.access_token
    assert new.refresh_token != old.refresh_token
    assert newer.expires_at == new.expires_at is not None
    assert began + 3600 <= new.expires_at <= time.time() + 3600


def test_refresh_many_times(endpoint: TokenEndpoint) -> None:
    """The rotated refresh token is the one that the next refresh spends."""
    oauth2 = connected(endpoint)
    for _ in range(5):
        oauth2.refresh(CONNECTION, current(oauth2))
    assert endpoint.state()["refresh_token"] == 5
    assert "reuses" not in endpoint.state()


def test_newer_token_is_used(endpoint: TokenEndpoint) -> None:
    """A stored token that differs from the rejected one is given without a call."""
    oauth2 = connected(endpoint)
    assert oauth2.refresh(CONNECTION, Credential.bearer("older")) == current(oauth2)
    assert endpoint.state().get("token calls") is None


def test_newer_token_that_has_expired(endpoint: TokenEndpoint) -> None:
    """A stored token that differs from the rejected one but has expired is refreshed."""
    oauth2 = provider(endpoint)
    known = connect(endpoint, oauth2, expires_at=time.time() - 1)
    newer = oauth2.refresh(CONNECTION, Credential.bearer("older"))
    assert newer == current(oauth2) != Credential.bearer(known.access_token or "")


def test_refresh_token_that_stays(endpoint: TokenEndpoint) -> None:
    """An answer without a refresh token leaves the old one, the scope, and what the host has kept."""
    oauth2 = provider(endpoint)
    kept = {"instance_url": "https://eu1.example.com", "plan": "pro"}
    old = connect(endpoint, oauth2, scope="read", extra=kept)
    endpoint.settle(rotate=False, members={"instance_url": "https://eu2.example.com", "id_token": "unasked"})
    oauth2.refresh(CONNECTION, current(oauth2))
    new = stored(oauth2).tokens
    assert new.access_token != old.access_token
    assert (new.refresh_token, new.scope) == (old.refresh_token, "read")
    assert new.extra == {"instance_url": "https://eu2.example.com", "plan": "pro"}


def test_scope_that_was_granted(endpoint: TokenEndpoint) -> None:
    """The scope that the endpoint names is the one that is stored."""
    oauth2 = connected(endpoint)
    endpoint.settle(members={"scope": "read"})
    oauth2.refresh(CONNECTION, current(oauth2))
    assert stored(oauth2).tokens.scope == "read"


NONSENSE: list[Any] = ["soon", "", -1, 0, True, [60], {}, "inf", "NaN", 10**400, "1e999"]


@pytest.mark.parametrize(
    ("given", "life"),
    [(60, 60), ("60", 60), (60.5, 60.5), (None, None), *((nonsense, None) for nonsense in NONSENSE)],
    ids=lambda value: str(value)[:10],
)
def test_expires_in(endpoint: TokenEndpoint, given: Any, life: float | None) -> None:
    """A number of seconds, also as text, tells the expiry; without a positive one it is not known."""
    oauth2 = connected(endpoint)
    endpoint.settle(expires_in=given)
    began = time.time()
    expires_at = oauth2.refresh(CONNECTION, current(oauth2)).expires_at
    if life is None:
        assert expires_at is None
    else:
        assert began + life <= (expires_at or 0) <= time.time() + life


def test_same_token_again(endpoint: TokenEndpoint) -> None:
    """The same access token again is given as it is: the proxy takes it for a failure."""
    oauth2 = connected(endpoint)
    endpoint.misbehave("same")
    assert oauth2.refresh(CONNECTION, current(oauth2)) == current(oauth2)


@pytest.mark.parametrize("token_type", ["bearer", "BEARER", "", None, "bot", "user"])
def test_bearer_in_all_spellings(endpoint: TokenEndpoint, token_type: str | None) -> None:
    """A token type is told apart by its letters only, may be missing, and may be one of Slack's."""
    oauth2 = connected(endpoint)
    endpoint.settle(members={"token_type": token_type})
    rejected = current(oauth2)
    assert oauth2.refresh(CONNECTION, rejected) != rejected


@pytest.mark.parametrize("token_type", ["DPoP", "mac", 7])
def test_other_token_types(endpoint: TokenEndpoint, token_type: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A token that is no bearer token is not used, and the log says why."""
    oauth2 = connected(endpoint)
    endpoint.settle(members={"token_type": token_type})
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, current(oauth2))
    assert "token type other than bearer" in caplog.text


def test_no_refresh_token(endpoint: TokenEndpoint) -> None:
    """An access token without a refresh token cannot be refreshed, and nobody is asked."""
    oauth2 = provider(endpoint)
    oauth2.store.put(CONNECTION.id, Tokens("long-lived"))
    with pytest.raises(RefreshFailed, match="no refresh token"):
        oauth2.refresh(CONNECTION, Credential.bearer("long-lived"))
    assert endpoint.state() == {}


# Dead grants.


def test_dead_grant(endpoint: TokenEndpoint) -> None:
    """A refused grant is marked dead: nobody asks again, until the host stores new tokens."""
    oauth2 = connected(endpoint)
    endpoint.revoke()
    rejected = current(oauth2)
    for _ in range(3):
        with pytest.raises(RefreshFailed, match="connected again"):
            oauth2.refresh(CONNECTION, rejected)
    with pytest.raises(CredentialUnavailable, match="connected again"):
        oauth2.obtain(CONNECTION)
    assert stored(oauth2).dead
    assert endpoint.state()["token calls"] == 1
    connect(endpoint, oauth2)
    assert oauth2.obtain(CONNECTION) == current(oauth2)
    assert oauth2.refresh(CONNECTION, rejected) == current(oauth2)


@pytest.mark.parametrize("code", ["invalid_grant", "bad_refresh_token", "invalid_refresh_token"])
def test_dead_grant_with_status_200(endpoint: TokenEndpoint, code: str) -> None:
    """GitHub and Slack say with status 200, and in their own words, that a grant is dead."""
    oauth2 = connected(endpoint)
    endpoint.misbehave("answer", status=200, body=json.dumps({"ok": False, "error": code}))
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, current(oauth2))
    assert stored(oauth2).dead


def test_reconnected_while_asking(endpoint: TokenEndpoint) -> None:
    """A grant that the host replaced while the old one was refused is used, and not marked dead."""
    oauth2 = connected(endpoint)
    rejected = current(oauth2)

    def reconnect(connection: Connection) -> dict[str, str]:
        endpoint.revoke()
        connect(endpoint, again)
        return {}

    again = provider(endpoint, store=oauth2.store, params=reconnect)
    newer = again.refresh(CONNECTION, rejected)
    assert newer == current(oauth2) != rejected
    assert not stored(oauth2).dead
    assert endpoint.state()["token calls"] == 1


def test_disconnected_while_asking(endpoint: TokenEndpoint) -> None:
    """Tokens of a connection that the host deleted meanwhile are neither stored nor used."""

    def disconnect(connection: Connection) -> dict[str, str]:
        oauth2.store.delete(connection.id)
        return {}

    oauth2 = connected(endpoint, params=disconnect)
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, current(oauth2))
    assert oauth2.store.load(CONNECTION.id) is None


# Outages.

OUTAGES: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "503 with a dead grant": {"status": 503, "body": '{"error": "invalid_grant"}'},
    "429 with a dead grant": {"status": 429, "body": '{"error": "invalid_grant"}'},
    "400 without a code": {"status": 400, "body": "{}"},
    "garbage": {"status": 200, "body": "\x00\x01garbage"},
    "a web page": {"status": 200, "body": "<html>Sign in</html>"},
    "nothing": {"status": 200, "body": ""},
    "an array": {"status": 200, "body": "[]"},
    "deep nesting": {"status": 200, "body": "[" * 200_000},
    "no token": {"status": 200, "body": '{"token_type": "bearer"}'},
    "a number": {"status": 200, "body": '{"access_token": 7}'},
    "a line break": {"status": 200, "body": '{"access_token": "a\\r\\nx: y"}'},
    "not ASCII": {"status": 200, "body": '{"access_token": "\\u00e9"}'},
    "a form": {"status": 200, "body": "access_token=a&token_type=bearer"},
    "too long": {"status": 200, "body": '{"access_token": "a", "x": "' + "x" * 1024 * 1024 + '"}'},
    "another error": {"status": 400, "body": '{"error": "temporarily_unavailable"}'},
    "an error that is no text": {"status": 400, "body": '{"error": {"code": 400}}'},
}


@pytest.mark.parametrize("answer", OUTAGES.values(), ids=OUTAGES.keys())
def test_outage(endpoint: TokenEndpoint, answer: dict[str, Any]) -> None:
    """An answer that says nothing about the grant fails this refresh only; the next one finds all as it was."""
    oauth2 = connected(endpoint)
    before, rejected = stored(oauth2), current(oauth2)
    endpoint.misbehave("answer", times=1, **answer)
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, rejected)
    assert stored(oauth2) == before
    assert oauth2.refresh(CONNECTION, rejected) != rejected


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(endpoint: TokenEndpoint, status: int) -> None:
    """A redirect is not followed: it would carry the secrets elsewhere."""
    oauth2 = connected(endpoint)
    with TokenEndpoint() as elsewhere:
        endpoint.misbehave("answer", status=status, headers={"location": elsewhere.token_url})
        with pytest.raises(RefreshFailed):
            oauth2.refresh(CONNECTION, current(oauth2))
        assert elsewhere.state() == {}
    assert endpoint.state() == {"issued": 1, "token calls": 1}


def test_nobody_there(closed_port: int, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that cannot be reached fails the refresh, without marking anything."""
    oauth2 = OAuth2(f"http://127.0.0.1:{closed_port}/token", "client", egress=EgressPolicy(allow=["127.0.0.0/8"]))
    oauth2.store.put(CONNECTION.id, Tokens("old", "refresh"))
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, Credential.bearer("old"))
    assert not stored(oauth2).dead
    assert "ConnectError" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_address_that_is_refused(endpoint: TokenEndpoint, host: str, caplog: pytest.LogCaptureFixture) -> None:
    """The token endpoint obeys the egress policy, by default that of public addresses only, and the log says so."""
    oauth2 = OAuth2(endpoint.token_url.replace("127.0.0.1", host), "client", "secret")
    connect(endpoint, oauth2)
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, current(oauth2))
    assert f"the token endpoint {host} failed for connection 'acme': the egress policy" in caplog.text
    assert endpoint.state() == {"issued": 1}


# What is said.


def test_refusals_are_logged(endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is logged with the endpoint's host, the connection, the error code and the status."""
    oauth2 = connected(endpoint, secret="wrong")
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, current(oauth2))
    assert caplog.record_tuples == [
        (
            "proxy_middleware",
            logging.WARNING,
            "the token endpoint 127.0.0.1 refused to refresh connection 'acme': invalid_client (status 401)",
        )
    ]


def test_no_secret_is_said(endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    """Neither logs nor errors hold what was sent or answered, even if the endpoint echoes it as an error code."""
    caplog.set_level(logging.DEBUG)
    oauth2 = connected(endpoint)
    tokens = stored(oauth2).tokens
    told = ""
    for echo in (tokens.refresh_token, tokens.access_token, "bad\ncode", "secret words"):
        endpoint.misbehave("answer", status=400, body=json.dumps({"error": echo, "error_description": echo}))
        with pytest.raises(RefreshFailed) as failure:
            oauth2.refresh(CONNECTION, current(oauth2))
        told += repr(failure.value) + repr(failure.value.__context__) + caplog.text
    assert "unreadable (status 400)" in told
    for secret in (tokens.refresh_token, tokens.access_token, "secret", "bad"):
        assert (secret or "") not in told


def test_own_rule_of_rejection(endpoint: TokenEndpoint) -> None:
    """`is_rejected` is there only if it was given, so that else the proxy's own rule holds."""

    def never(*_: object) -> bool:
        return False

    assert not hasattr(provider(endpoint), "is_rejected")
    assert provider(endpoint, is_rejected=never).is_rejected is never
