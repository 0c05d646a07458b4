"""The credential cache when the provider fails: back-off, outages, and what the caller and the log are told."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy_middleware import AccessDenied, Connection, Credential, ProxyError, RefreshFailed
from proxy_middleware._single_flight import CredentialCache, Round
from proxy_middleware.errors import (
    CredentialUnavailable,
    InternalError,
    RefreshPending,
    StoreCorrupted,
    StoreUnavailable,
    UpstreamTimeout,
)
from tests.script import CONNECTION, NEW, OLD
from tests.test_single_flight import Clock

SECRET = "s3cret-canary"
BACKOFF = 30.0


class Provider:
    """Raises what it is told to, or gives it, and counts."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Times:
    """Both clocks, moved together."""

    def __init__(self) -> None:
        self.clock = Clock(1000)
        self.now = Clock(1_800_000_000)

    def pass_by(self, seconds: float) -> None:
        """So many seconds later."""
        self.clock.time += seconds
        self.now.time += seconds


@pytest.fixture
def times() -> Times:
    """The clocks."""
    return Times()


@pytest.fixture
def cache(times: Times) -> CredentialCache:
    """A cache that knows OLD."""
    cache = CredentialCache(backoff=BACKOFF, clock=times.clock, now=times.now)
    cache.obtain(CONNECTION, lambda: OLD)
    return cache


def fails(cache: CredentialCache, outcome: Any, rejected: Credential = OLD, connection: Connection = CONNECTION) -> int:
    """Refreshes in vain; how many calls that took."""
    provider = Provider(outcome)
    with pytest.raises(RefreshFailed):
        cache.refresh(connection, rejected, provider)
    return provider.calls


FAILURES = [RefreshFailed("no"), AccessDenied("no"), ValueError(SECRET), TimeoutError(), OLD, None, "Bearer new"]
every_failure = pytest.mark.parametrize("outcome", FAILURES, ids=lambda outcome: type(outcome).__name__)


# Refreshing


@every_failure
def test_failed_refresh_is_not_tried_again(cache: CredentialCache, times: Times, outcome: object) -> None:
    """Whatever went wrong, the same credential among it, the provider is left alone for the back-off."""
    assert fails(cache, outcome) == 1
    times.pass_by(BACKOFF - 0.1)
    assert fails(cache, NEW) == 0
    times.pass_by(0.1)
    assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW


def test_refresh_that_was_not_asked_for_is_not_backed_off(cache: CredentialCache, times: Times) -> None:
    """Where another process refreshes, or the store is down, a refresh is tried again at once, or after 5 seconds."""
    assert [fails(cache, RefreshPending()) for _ in range(2)] == [1, 1]
    assert fails(cache, StoreUnavailable()) == 1
    times.pass_by(4.9)
    assert fails(cache, StoreUnavailable()) == 0
    times.pass_by(0.1)
    assert fails(cache, StoreUnavailable()) == 1


def test_credential_stays_during_the_back_off(cache: CredentialCache) -> None:
    """A credential that could not be refreshed is still the one to use."""
    fails(cache, RefreshFailed())
    assert cache.get(CONNECTION) is OLD


def test_same_credential_obtained_does_not_end_the_back_off(cache: CredentialCache, times: Times) -> None:
    """If nothing but the same credential is obtained, its refresh is still not tried again."""
    times.pass_by(59)
    fails(cache, RefreshFailed())
    times.pass_by(1)
    assert cache.get(CONNECTION) is None
    assert cache.obtain(CONNECTION, lambda: Credential.bearer("old")) == OLD
    assert fails(cache, NEW) == 0


def test_newer_credential_ends_the_back_off(cache: CredentialCache, times: Times) -> None:
    """A credential that was obtained since can be refreshed at once, and answers who still has the older one."""
    times.pass_by(59)
    fails(cache, RefreshFailed())
    times.pass_by(1)
    reconnected = Credential.bearer("reconnected")
    cache.obtain(CONNECTION, lambda: reconnected)
    assert cache.refresh(CONNECTION, OLD, Provider(None)) is reconnected
    assert cache.refresh(CONNECTION, reconnected, lambda: NEW) is NEW


def test_back_off_that_has_ended_stays_so(times: Times) -> None:
    """Once another credential was there, the first one may be tried again, should it come back."""
    cache = CredentialCache(ttl=1, clock=times.clock, now=times.now)
    cache.obtain(CONNECTION, lambda: OLD)
    fails(cache, RefreshFailed())
    for credential in (NEW, OLD):
        times.pass_by(1)
        cache.obtain(CONNECTION, Provider(credential))
    assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW


def test_changed_revision_ends_the_back_off(cache: CredentialCache) -> None:
    """A record that has changed is tried at once."""
    fails(cache, RefreshFailed())
    assert cache.refresh(replace(CONNECTION, revision=2), OLD, lambda: NEW) is NEW


def test_forget_ends_the_back_off(cache: CredentialCache) -> None:
    """What is forgotten is tried at once."""
    fails(cache, RefreshFailed())
    cache.forget(CONNECTION.id)
    assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW


def test_back_off_without_anything_cached(cache: CredentialCache) -> None:
    """A failure is remembered although there is no credential to remember it with."""
    cache.forget(CONNECTION.id)
    assert fails(cache, RefreshFailed()) == 1
    assert fails(cache, NEW) == 0
    assert cache.get(CONNECTION) is None
    assert cache.obtain(CONNECTION, lambda: OLD) is OLD
    assert fails(cache, NEW) == 0


# Obtaining


def test_failed_token_call_of_obtain_is_not_tried_again(times: Times) -> None:
    """RefreshFailed out of `obtain` is backed off like that of a refresh, and ends with it."""
    cache = CredentialCache(backoff=BACKOFF, clock=times.clock, now=times.now)
    provider = Provider(RefreshFailed("The token endpoint is down"))
    with pytest.raises(RefreshFailed, match="token endpoint"):
        cache.obtain(CONNECTION, provider)
    times.pass_by(BACKOFF - 0.1)
    with pytest.raises(RefreshFailed):
        cache.obtain(CONNECTION, provider)
    assert provider.calls == 1
    times.pass_by(0.1)
    assert cache.obtain(CONNECTION, lambda: NEW) is NEW


@pytest.mark.parametrize("error", [CredentialUnavailable(), StoreUnavailable(), ValueError(), AccessDenied()])
def test_other_failures_of_obtain_are_not_kept(error: Exception) -> None:
    """Who asks again has the provider asked again."""
    cache, provider = CredentialCache(), Provider(error)
    for _ in range(3):
        with pytest.raises(ProxyError):
            cache.obtain(CONNECTION, provider)
    assert provider.calls == 3
    assert cache.by_id == {}


OUTAGES = [StoreUnavailable(), RefreshFailed(), OSError(), InternalError(), UpstreamTimeout(), None]
every_outage = pytest.mark.parametrize("outcome", OUTAGES, ids=lambda outcome: type(outcome).__name__)


@every_outage
def test_running_credential_outlasts_an_outage(
    cache: CredentialCache, times: Times, outcome: object, caplog: pytest.LogCaptureFixture
) -> None:
    """If nothing can be obtained, what is known is used on, without asking for every request; the log says so."""
    times.pass_by(60)
    provider = Provider(outcome)
    assert cache.obtain(CONNECTION, provider) is OLD
    times.pass_by(4.9)
    assert cache.get(CONNECTION) is OLD
    times.pass_by(0.1)
    assert cache.get(CONNECTION) is None
    assert cache.obtain(CONNECTION, provider) is OLD
    assert provider.calls == 2
    assert len(caplog.records) == 2
    times.pass_by(5)
    assert cache.obtain(CONNECTION, lambda: NEW) is NEW


def test_expired_credential_does_not_outlast_an_outage(times: Times) -> None:
    """What has expired is not used on, not even for the short while."""
    cache = CredentialCache(clock=times.clock, now=times.now)
    cache.obtain(CONNECTION, lambda: Credential.bearer("hour", expires_at=times.now.time + 63))
    times.pass_by(60)
    assert cache.obtain(CONNECTION, Provider(StoreUnavailable())) == Credential.bearer("hour")
    times.pass_by(3)
    assert cache.get(CONNECTION) is None
    with pytest.raises(StoreUnavailable):
        cache.obtain(CONNECTION, Provider(StoreUnavailable()))


@pytest.mark.parametrize("error", [CredentialUnavailable("Disconnected"), AccessDenied(), StoreCorrupted()])
def test_verdict_on_the_credential_drops_it(cache: CredentialCache, times: Times, error: ProxyError) -> None:
    """Once the provider has said that there is none, the one that is known is used no more, in no outage either."""
    times.pass_by(60)
    for outcome in (error, StoreUnavailable()):
        with pytest.raises(type(outcome)):
            cache.obtain(CONNECTION, Provider(outcome))
    assert cache.get(CONNECTION) is None


def test_outage_of_a_changed_record(cache: CredentialCache) -> None:
    """What was obtained for another revision is not used on for this one."""
    with pytest.raises(StoreUnavailable):
        cache.obtain(replace(CONNECTION, revision=2), Provider(StoreUnavailable()))


# What is told


class Picky(AccessDenied):
    """A plugin's own error, whose constructor wants what nobody else knows."""

    def __init__(self, tenant: str, *, quota: int) -> None:
        super().__init__(f"No access for {tenant}")
        self.quota = quota


def test_own_errors_come_through(caplog: pytest.LogCaptureFixture) -> None:
    """A ProxyError of `obtain` is raised as what it was, though not the same object, and is no incident for the log."""
    error = Picky("acme", quota=3)
    error.add_note(SECRET)
    with pytest.raises(Picky, match="acme") as caught:
        CredentialCache().obtain(CONNECTION, Provider(error))
    assert caught.value is not error
    assert (caught.value.detail, caught.value.quota, caught.value.status) == (error.detail, 3, 403)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caplog.records == []


class NotConnected(CredentialUnavailable):
    """A plugin's own error, which cannot even be made without knowing more."""

    def __new__(cls, connection: str, hint: str) -> "NotConnected":
        return super().__new__(cls)

    def __init__(self, connection: str, hint: str) -> None:
        super().__init__("Not connected")


def test_errors_that_cannot_be_made_again() -> None:
    """A ProxyError whose class has a `__new__` of its own ends its round like any other, as an internal error."""
    cache = CredentialCache()
    with pytest.raises(InternalError) as caught:
        cache.obtain(CONNECTION, chained(NotConnected("acme", SECRET)))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert cache._rounds == {}
    assert cache.obtain(CONNECTION, lambda: NEW) is NEW


def test_rounds_show_no_attributes() -> None:
    """What the host keeps with a connection is in no representation of what the cache holds."""
    secretive = replace(CONNECTION, attributes={"api_key": SECRET})
    cache, asked = CredentialCache(), Round(secretive)
    cache.obtain(secretive, lambda: OLD)
    assert SECRET not in repr((asked, cache.by_id))


def chained(error: Exception) -> Callable[[], Any]:
    """Raises this out of the handling of something else that is secret."""

    def call() -> None:
        try:
            raise LookupError(SECRET)
        except LookupError as before:
            raise error from before

    return call


@pytest.mark.parametrize("error", [ValueError(SECRET), StopIteration(SECRET), ExceptionGroup(SECRET, [OSError()])])
def test_foreign_errors_are_told_to_nobody(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """What is no ProxyError becomes one without its message or context; the log has its type and place."""
    with pytest.raises(InternalError) as obtaining:
        CredentialCache().obtain(CONNECTION, chained(error))
    with pytest.raises(RefreshFailed) as refreshing:
        CredentialCache().refresh(CONNECTION, OLD, chained(error))
    for caught in (obtaining, refreshing):
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
    assert all(type(error).__name__ in record.getMessage() for record in caplog.records)
    assert all("in chained" in record.getMessage() or "in call" in record.getMessage() for record in caplog.records)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("result", [None, "Bearer old", object()])
def test_what_is_no_credential(result: object, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that gives something else has made a mistake: an internal error, and an entry in the log."""
    with pytest.raises(InternalError):
        CredentialCache().obtain(CONNECTION, lambda: result)
    assert "Obtain failed with TypeError" in caplog.text
    assert "Bearer" not in caplog.text


def test_expected_failures_are_no_incidents(cache: CredentialCache, caplog: pytest.LogCaptureFixture) -> None:
    """RefreshFailed, a refresh that changes nothing, and the back-off leave the log alone."""
    fails(cache, RefreshFailed())
    fails(cache, RefreshFailed())
    cache.forget(CONNECTION.id)
    fails(cache, OLD)
    assert caplog.records == []


def test_interrupted_caller(cache: CredentialCache) -> None:
    """A KeyboardInterrupt in the call comes through, ends the round, and counts as no failure."""
    with pytest.raises(KeyboardInterrupt):
        cache.refresh(CONNECTION, OLD, Provider(KeyboardInterrupt()))
    assert cache._rounds == {}
    assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW
